//! Finds out what resources run (`filter_core::resolve`), by calls that go the same way as [polls](crate::catalogue).

use crate::host::{self, SharedData};
use crate::plugin::Plugin;
use crate::relay_state::Left;
use filter_core::credentials::id::CredentialId;
use filter_core::credentials::store::CredentialStatus;
use filter_core::metrics::looked_up;
use filter_core::resolve::lookup::{CALL_TIMEOUT, Lookup, MAX_BODY, serves};
use filter_core::resolve::table::{Outcome, Want};
use proxy_wasm::types::LogLevel;
use std::collections::HashMap;
use std::time::SystemTime;

thread_local! {
    static WORKER: u64 = host::worker();
}

/// The lookups in progress of a root context, by the token of the call that each waits for.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    in_progress: HashMap<u32, InProgress>,
}

#[derive(Debug)]
struct InProgress {
    lookup: Lookup,
    left: Left,
}

fn worker() -> u64 {
    WORKER.with(|worker| *worker)
}

impl Lookups {
    /// Starts the lookups that are due.
    pub(crate) fn tick(&mut self, plugin: &Plugin, now: SystemTime) {
        let Some(rules) = plugin.policy.resolve.as_ref().filter(|rules| rules.refresh.is_some()) else { return };
        let usable = |source: &str| {
            let id = CredentialId::of_source(source);
            matches!(plugin.credentials.status(&id, &SharedData, now), CredentialStatus::Usable { .. })
        };
        let resources = &plugin.catalogue.resources;
        // Without keys it could only fail.
        let can_ask = |want: &Want| serves(&plugin.policy, want) && want.sources().any(usable);
        for want in resources.due(rules, worker(), &SharedData, now, can_ask) {
            self.proceed(plugin, Lookup::new(want), now);
        }
    }

    /// Takes the response to a call, by the length of its body; `None`: there was none. Returns whether the call was one of these.
    pub(crate) fn on_response(&mut self, plugin: &Plugin, token: u32, body_size: Option<usize>) -> bool {
        let Some(InProgress { mut lookup, left }) = self.in_progress.remove(&token) else { return false };
        let reached = !left.is_there();
        drop(left);
        let Ok(now) = host::now() else { return true };
        if !reached {
            let problem = "this thread does not reach the gateway's relay by the cluster that `resolve.cluster` names";
            end(plugin, &lookup, lookup.failed(problem), now);
            return true;
        }
        let (mut status, mut bytes) = (None, Ok(None));
        if let Some(size) = body_size {
            status = host::call_status();
            bytes = if size > MAX_BODY { Err(size) } else { Ok(host::call_response(size).ok().map(|(_, body)| body)) };
        }
        let answer = status.map(|status| {
            let body = bytes.as_ref().map(|body| body.as_ref().map_or(&[][..], |body| body.as_slice()));
            (status, body.map_err(|size| *size))
        });
        match lookup.answered(answer) {
            None => {
                plugin.catalogue.resources.extend(lookup.want(), worker(), &SharedData, now);
                self.proceed(plugin, lookup, now);
            }
            Some(outcome) => end(plugin, &lookup, outcome, now),
        }
        true
    }

    fn proceed(&mut self, plugin: &Plugin, lookup: Lookup, now: SystemTime) {
        let id = host::unique_id();
        let Some(next) = lookup.call(&id, &plugin.policy) else {
            return end(plugin, &lookup, lookup.failed("no route class of the region has a path"), now);
        };
        let left = Left::send(id, next.relayed);
        match host::dispatch(&next.call, CALL_TIMEOUT) {
            Ok(token) => {
                self.in_progress.insert(token, InProgress { lookup, left });
            }
            Err(error) => {
                let problem = format!("cluster '{}' cannot be called: {error}", next.call.cluster);
                end(plugin, &lookup, lookup.failed(&problem), now);
            }
        }
    }
}

fn end(plugin: &Plugin, lookup: &Lookup, outcome: Outcome, now: SystemTime) {
    plugin.metrics.add(&looked_up(outcome.name()));
    let level = if outcome.is_failure() { LogLevel::Warn } else { LogLevel::Debug };
    host::log(level, &format!("lookup of '{}': {outcome}", lookup.want().id));
    plugin.catalogue.resources.publish(lookup.want(), worker(), outcome, &SharedData, now);
}
