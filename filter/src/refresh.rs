//! Fetches credentials: makes the calls that `filter_core` asks for.

use crate::host::{self, SharedData};
use crate::memory::on_wiped_stack;
use crate::plugin::Plugin;
use filter_core::clock::{self, Times};
use filter_core::credentials::Fetched;
use filter_core::credentials::call::{Call, CallOutcome};
use filter_core::credentials::fetch::{Fetch, FetchError, Next};
use filter_core::credentials::hidden_calls;
use filter_core::credentials::id::CredentialId;
use filter_core::metrics::{certificate_left, clock_offset, credentials_fetched, credentials_left};
use proxy_wasm::types::LogLevel;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The fetches in progress of a root context, by the token of the call that each waits for.
#[derive(Debug, Default)]
pub(crate) struct Refresh {
    in_progress: HashMap<u32, InProgress>,
}

#[derive(Debug)]
struct InProgress {
    id: CredentialId,
    fetch: Fetch,
    /// Where the call's headers are, if they are hidden.
    hidden: Option<Hidden>,
}

/// Headers that were left for the filter in a cluster. What it has not taken is forgotten with this.
#[derive(Debug)]
struct Hidden {
    handle: String,
    cluster: String,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        hidden_calls::take(&self.handle, &self.cluster, &SharedData);
    }
}

impl Refresh {
    /// Starts the fetches that are due.
    pub(crate) fn tick(&mut self, plugin: &Plugin) {
        let Ok(now) = host::now() else { return };
        for (name, left) in plugin.credentials.left(&SharedData, now) {
            plugin.metrics.add(&credentials_left(name, left));
        }
        for (name, left) in plugin.credentials.certificates_left(&SharedData, now) {
            plugin.metrics.add(&certificate_left(name, left));
        }
        plugin.metrics.add(&clock_offset(clock::offset_ms(&SharedData)));
        for id in plugin.credentials.due(&SharedData, now) {
            let Some(plan) = plugin.credentials.plan(&id) else { continue };
            let mut fetch = Fetch::new(plan);
            let times = Times::at(&SharedData, now);
            let next = on_wiped_stack(|| fetch.next(CallOutcome::NoResponse, times));
            self.proceed(plugin, id, fetch, next, now);
        }
    }

    /// Takes the response to a call, by the length of its body; `None`: there was none.
    pub(crate) fn on_response(&mut self, plugin: &Plugin, token: u32, body_size: Option<usize>) {
        let Some(InProgress { id, mut fetch, hidden }) = self.in_progress.remove(&token) else { return };
        drop(hidden);
        let Ok(now) = host::now() else { return };
        let response = body_size.and_then(|size| host::call_response(size).ok());
        let outcome = response
            .as_ref()
            .map_or(CallOutcome::NoResponse, |(headers, body)| CallOutcome::Response { headers, body });
        let times = Times::at(&SharedData, now);
        let next = on_wiped_stack(|| fetch.next(outcome, times));
        self.proceed(plugin, id, fetch, next, now);
    }

    fn proceed(
        &mut self,
        plugin: &Plugin,
        id: CredentialId,
        fetch: Fetch,
        next: Result<Next, FetchError>,
        now: SystemTime,
    ) {
        match next {
            Ok(Next::Call(call)) => match dispatch(call) {
                Ok((token, hidden)) => {
                    plugin.credentials.extend_lease(&id, &SharedData, now);
                    self.in_progress.insert(token, InProgress { id, fetch, hidden });
                }
                Err(problem) => failed(plugin, &id, &problem, now),
            },
            Ok(Next::Done(fetched)) => done(plugin, &id, &fetched, now),
            Err(error) if error.is_of_this_thread() && plugin.credentials.hand_over(&id, &SharedData, now) => {
                host::log(LogLevel::Info, &format!("credentials `{id}` are left to another worker: {error}"));
            }
            Err(error) => failed(plugin, &id, &error.to_string(), now),
        }
    }
}

/// Makes a call. Its headers go by the filter in its cluster, if that has one.
fn dispatch(mut call: Call) -> Result<(u32, Option<Hidden>), String> {
    let cluster = call.cluster.clone();
    let mut hidden = None;
    if hidden_calls::has_filter(&cluster, &SharedData) {
        let handle = host::unique_id();
        if !on_wiped_stack(|| hidden_calls::leave(&mut call, &handle, &SharedData)) {
            return Err(format!("cluster '{cluster}' cannot be called: the call's headers cannot be shared"));
        }
        hidden = Some(Hidden { handle, cluster: cluster.clone() });
    }
    let token = host::dispatch(&call, CALL_TIMEOUT);
    token.map(|token| (token, hidden)).map_err(|error| format!("cluster '{cluster}' cannot be called: {error}"))
}

fn done(plugin: &Plugin, id: &CredentialId, fetched: &Fetched, now: SystemTime) {
    let jitter = f64::from((host::random() >> 32) as u32) / f64::from(u32::MAX);
    plugin.credentials.publish(id, &SharedData, fetched, now, jitter);
    plugin.metrics.add(&credentials_fetched(&id.source, true));
    host::log(LogLevel::Info, &format!("credentials `{id}` fetched"));
    if let Some(certificate) = fetched.certificate.filter(|certificate| certificate.ends_soon(now)) {
        let hours = certificate.left(now).as_secs() / 3600;
        let problem = format!("the certificate of credentials `{id}` expires in {hours} hours; replace it");
        host::log(LogLevel::Warn, &problem);
    }
}

fn failed(plugin: &Plugin, id: &CredentialId, problem: &str, now: SystemTime) {
    plugin.credentials.failed(id, &SharedData, now);
    plugin.metrics.add(&credentials_fetched(&id.source, false));
    host::log(LogLevel::Warn, &format!("credentials `{id}` not fetched: {problem}"));
}
