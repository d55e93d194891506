//! Polls what the regions offer and how they retain data (`filter_core::poll_job`).
//!
//! A poll is signed and retried as other calls are. Envoy calls the cluster of a module's own call within the host's call, and the
//! signer there would enter its VM twice. So a poll goes to an internal listener first, whose relay finds it in the VM's memory.

use crate::host::{self, SharedData};
use crate::plugin::Plugin;
use crate::relay_state::Left;
use filter_core::credentials::id::CredentialId;
use filter_core::credentials::store::CredentialStatus;
use filter_core::names::RegionName;
use filter_core::poll_job::PollJob;
use filter_core::polls::{CALL_TIMEOUT, Polls, Task};
use filter_core::region::Region;
use proxy_wasm::types::LogLevel;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// How often polls that are due are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// The relay's cluster does not lead to the relay, or not on this thread.
const NOT_REACHED: &str = "this thread does not reach the gateway's relay by the cluster of its polls";

thread_local! {
    static POLLS: Polls = Polls::new(host::worker());
}

/// The polls in progress of a root context, by the token of the call that each waits for.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    in_progress: HashMap<u32, InProgress>,
    /// When it last looked for polls that are due.
    looked_at: Option<SystemTime>,
}

#[derive(Debug)]
struct InProgress {
    job: PollJob,
    task: Task,
    begun: SystemTime,
    left: Left,
}

impl Catalogue {
    /// Takes what other workers have shared, and starts the polls that are due.
    pub(crate) fn tick(&mut self, plugin: &Plugin, now: SystemTime) {
        if plugin.policy.catalogue.is_none() && plugin.policy.retention.is_none() {
            return;
        }
        follow(plugin);
        // A clock that was set back counts as late.
        let since = self.looked_at.and_then(|looked_at| now.duration_since(looked_at).ok());
        if since.is_some_and(|since| since < LOOK) {
            return;
        }
        self.looked_at = Some(now);
        let mut samples = plugin.catalogue.look(&SharedData, now);
        if let Some(rules) = &plugin.policy.retention {
            let store = &plugin.catalogue.retention;
            samples.extend(store.look(rules.places(), rules.max_age, &SharedData, now));
        }
        for sample in samples {
            plugin.metrics.add(&sample);
        }
        for job in PollJob::all(&plugin.policy) {
            let (Some(task), Some(source)) = (job.task(&plugin.policy), job.source(&plugin.policy)) else { continue };
            // Without keys it could only fail.
            // Polls are made in the source's own session.
            let id = CredentialId::of_source(source);
            let status = plugin.credentials.status(&id, &SharedData, now);
            if matches!(status, CredentialStatus::Usable { .. })
                && POLLS.with(|polls| polls.due(&task, &SharedData, now))
            {
                self.proceed(plugin, (job, task), now, now);
            }
        }
    }

    /// Takes the response to a call, by the length of its body; `None`: there was none. Returns whether the call was one of these.
    pub(crate) fn on_response(&mut self, plugin: &Plugin, token: u32, body_size: Option<usize>) -> bool {
        let Some(InProgress { mut job, task, begun, left }) = self.in_progress.remove(&token) else { return false };
        let reached = !left.is_there();
        drop(left);
        let Ok(now) = host::now() else { return true };
        if !reached {
            not_reached(plugin, (&job, &task), NOT_REACHED, now);
            return true;
        }
        let (mut answer, mut bytes) = (None, Ok(None));
        if let Some(size) = body_size {
            answer = host::call_status();
            bytes = if size > job.max_body() {
                Err(size)
            } else {
                Ok(host::call_response(size).ok().map(|(_, body)| body))
            };
        }
        let answer = answer.map(|status| {
            let body = bytes.as_ref().map(|body| body.as_ref().map_or(&[][..], |body| body.as_slice()));
            (status, body.map_err(|size| *size))
        });
        match job.answered(answer) {
            Ok(None) => self.proceed(plugin, (job, task), begun, now),
            Ok(Some(value)) => {
                let read_at = job.read_at(begun, now);
                POLLS.with(|polls| polls.publish(&task, &value, &SharedData, read_at));
                plugin.metrics.add(&job.ended(true));
                follow(plugin);
                host::log(LogLevel::Debug, &format!("{} were read: {} bytes", job.subject(), value.len()));
            }
            Err(problem) => failed(plugin, (&job, &task), &problem, now),
        }
        true
    }

    fn proceed(&mut self, plugin: &Plugin, (job, task): (PollJob, Task), begun: SystemTime, now: SystemTime) {
        let id = host::unique_id();
        let Some(next) = job.call(&id, &plugin.policy) else {
            return failed(plugin, (&job, &task), "no class of the region has a path", now);
        };
        POLLS.with(|polls| polls.extend(&task, &SharedData, now));
        let left = Left::send(id, next.relayed);
        match host::dispatch(&next.call, CALL_TIMEOUT) {
            Ok(token) => {
                self.in_progress.insert(token, InProgress { job, task, begun, left });
            }
            Err(error) => {
                let problem = format!("cluster '{}' cannot be called: {error}", next.call.cluster);
                not_reached(plugin, (&job, &task), &problem, now);
            }
        }
    }
}

/// Takes what was shared for a document.
pub(crate) fn follow(plugin: &Plugin) {
    if plugin.policy.catalogue.is_some() {
        plugin.catalogue.follow(regions(plugin), &SharedData);
    }
    if let Some(rules) = &plugin.policy.retention {
        plugin.catalogue.retention.follow(rules.places(), &SharedData);
    }
}

fn regions(plugin: &Plugin) -> impl Iterator<Item = &RegionName> {
    plugin.policy.regions().map(Region::name)
}

fn not_reached(plugin: &Plugin, (job, task): (&PollJob, &Task), problem: &str, now: SystemTime) {
    if POLLS.with(|polls| polls.hand_over(task, &SharedData)) {
        host::log(LogLevel::Info, &format!("the poll of {} is left to another worker: {problem}", job.subject()));
    } else {
        failed(plugin, (job, task), problem, now);
    }
}

fn failed(plugin: &Plugin, (job, task): (&PollJob, &Task), problem: &str, now: SystemTime) {
    POLLS.with(|polls| polls.failed(task, &SharedData, now));
    plugin.metrics.add(&job.ended(false));
    let known = job.fallback(job.age(&plugin.catalogue, now));
    host::log(LogLevel::Warn, &format!("{} were not read, {known}: {problem}", job.subject()));
}
