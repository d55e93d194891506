//! Polls what the regions offer (`filter_core::catalogue`).
//!
//! A poll is signed and retried as other calls are. Envoy calls the cluster of a module's own call within the host's call, and the
//! signer there would enter its VM twice. So a poll goes to an internal listener first, whose relay finds it in the VM's memory.

use crate::host::{self, SharedData};
use crate::plugin::Plugin;
use crate::relay_state;
use filter_core::catalogue::lists::MAX_BODY;
use filter_core::catalogue::poll::{CALL_TIMEOUT, Poll, PollError, Polls, class_of};
use filter_core::credentials::id::CredentialId;
use filter_core::credentials::store::CredentialStatus;
use filter_core::metrics::catalogue_polled;
use filter_core::names::RegionName;
use filter_core::policy::CatalogueRules;
use filter_core::region::Region;
use proxy_wasm::types::LogLevel;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// How often polls that are due are looked for.
const LOOK: Duration = Duration::from_secs(1);

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
    poll: Poll,
    left: Left,
}

/// The id under which the relay finds a call. A root context may end while polls are under way.
#[derive(Debug)]
struct Left(String);

impl Drop for Left {
    fn drop(&mut self) {
        relay_state::forget(&self.0);
    }
}

impl Catalogue {
    /// Takes what other workers have shared, and starts the polls that are due.
    pub(crate) fn tick(&mut self, plugin: &Plugin, now: SystemTime) {
        let Some(rules) = &plugin.policy.catalogue else { return };
        plugin.catalogue.follow(regions(plugin), &SharedData);
        // A clock that was set back counts as late.
        let since = self.looked_at.and_then(|looked_at| now.duration_since(looked_at).ok());
        if since.is_some_and(|since| since < LOOK) {
            return;
        }
        self.looked_at = Some(now);
        for sample in plugin.catalogue.look(&SharedData, now) {
            plugin.metrics.add(&sample);
        }
        for region in regions(plugin) {
            let Some(class) = class_of(&plugin.policy, region) else { continue };
            // Without keys it could only fail.
            // Polls are made in the source's own session.
            let id = CredentialId::of_source(class.credentials());
            let status = plugin.credentials.status(&id, &SharedData, now);
            if matches!(status, CredentialStatus::Usable { .. })
                && POLLS.with(|polls| polls.due(region, rules, &SharedData, now))
            {
                self.proceed(plugin, rules, Poll::new(region.clone()), now);
            }
        }
    }

    /// Takes the response to a call, by the length of its body; `None`: there was none. Returns whether the call was one of these.
    pub(crate) fn on_response(&mut self, plugin: &Plugin, token: u32, body_size: Option<usize>) -> bool {
        let Some(InProgress { mut poll, left }) = self.in_progress.remove(&token) else { return false };
        let reached = !relay_state::is_left(&left.0);
        drop(left);
        let (Some(rules), Ok(now)) = (&plugin.policy.catalogue, host::now()) else { return true };
        if !reached {
            not_reached(plugin, rules, poll.region(), &PollError::NotReached.to_string(), now);
            return true;
        }
        let (mut answer, mut bytes) = (None, Ok(None));
        if let Some(size) = body_size {
            answer = host::call_status();
            bytes = if size > MAX_BODY { Err(size) } else { Ok(host::call_response(size).ok().map(|(_, body)| body)) };
        }
        let answer = answer.map(|status| {
            let body = bytes.as_ref().map(|body| body.as_ref().map_or(&[][..], |body| body.as_slice()));
            (status, body.map_err(|size| *size))
        });
        let region = poll.region().clone();
        match poll.answered(answer) {
            Ok(None) => self.proceed(plugin, rules, poll, now),
            Ok(Some(offers)) => {
                POLLS.with(|polls| polls.publish(&region, &offers, &SharedData, now));
                plugin.metrics.add(&catalogue_polled(region.as_str(), true));
                plugin.catalogue.follow(regions(plugin), &SharedData);
                host::log(LogLevel::Debug, &format!("catalogue: {region} offers {} models", offers.len()));
            }
            Err(error) => failed(plugin, rules, &region, &error.to_string(), now),
        }
        true
    }

    fn proceed(&mut self, plugin: &Plugin, rules: &CatalogueRules, poll: Poll, now: SystemTime) {
        let id = host::unique_id();
        let Some(next) = poll.call(&id, &plugin.policy) else {
            return failed(plugin, rules, poll.region(), "no class of the region has a path", now);
        };
        POLLS.with(|polls| polls.extend(poll.region(), &SharedData, now));
        relay_state::send(&id, next.relayed);
        let left = Left(id);
        match host::dispatch(&next.call, CALL_TIMEOUT) {
            Ok(token) => {
                self.in_progress.insert(token, InProgress { poll, left });
            }
            Err(error) => {
                let problem = format!("cluster '{}' cannot be called: {error}", next.call.cluster);
                not_reached(plugin, rules, poll.region(), &problem, now);
            }
        }
    }
}

/// Takes what was shared, for a document whose regions may be new.
pub(crate) fn start(plugin: &Plugin) {
    if plugin.policy.catalogue.is_some() {
        plugin.catalogue.read(regions(plugin), &SharedData);
    }
}

fn regions(plugin: &Plugin) -> impl Iterator<Item = &RegionName> {
    plugin.policy.regions().map(Region::name)
}

fn not_reached(plugin: &Plugin, rules: &CatalogueRules, region: &RegionName, problem: &str, now: SystemTime) {
    if POLLS.with(|polls| polls.hand_over(region, &SharedData)) {
        host::log(LogLevel::Info, &format!("the poll of {region} is left to another worker: {problem}"));
    } else {
        failed(plugin, rules, region, problem, now);
    }
}

fn failed(plugin: &Plugin, rules: &CatalogueRules, region: &RegionName, problem: &str, now: SystemTime) {
    POLLS.with(|polls| polls.failed(region, rules, &SharedData, now));
    plugin.metrics.add(&catalogue_polled(region.as_str(), false));
    let known = match plugin.catalogue.age(region, now) {
        Some(age) => format!("the list of {} s ago stays in use", age.as_secs()),
        None => "there is none yet".to_owned(),
    };
    host::log(LogLevel::Warn, &format!("the lists of {region} were not read, {known}: {problem}"));
}
