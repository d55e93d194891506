//! Fetches credentials: makes the calls that `filter_core` asks for.

use crate::host::{self, SharedData};
use crate::memory::on_wiped_stack;
use crate::plugin::Plugin;
use filter_core::clock;
use filter_core::credentials::Fetched;
use filter_core::credentials::call::CallOutcome;
use filter_core::credentials::fetch::{Fetch, FetchError, Next};
use filter_core::metrics::{certificate_left, clock_offset, credentials_fetched, credentials_left};
use proxy_wasm::types::LogLevel;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The fetches in progress of a root context, by the token of the call that each waits for.
#[derive(Debug, Default)]
pub(crate) struct Refresh {
    in_progress: HashMap<u32, (String, Fetch)>,
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
        for name in plugin.credentials.due(&SharedData, now) {
            let Some(plan) = plugin.credentials.plan(name) else { continue };
            let mut fetch = Fetch::new(plan.clone());
            let next = on_wiped_stack(|| fetch.next(CallOutcome::NoResponse, now));
            self.proceed(plugin, name.to_owned(), fetch, next, now);
        }
    }

    /// Takes the response to a call, by the length of its body; `None`: there was none.
    pub(crate) fn on_response(&mut self, plugin: &Plugin, token: u32, body_size: Option<usize>) {
        let Some((name, mut fetch)) = self.in_progress.remove(&token) else { return };
        let Ok(now) = host::now() else { return };
        let response = body_size.and_then(|size| host::call_response(size).ok());
        let outcome = response
            .as_ref()
            .map_or(CallOutcome::NoResponse, |(headers, body)| CallOutcome::Response { headers, body });
        let signed_for = clock::corrected(&SharedData, now);
        let next = on_wiped_stack(|| fetch.next(outcome, signed_for));
        self.proceed(plugin, name, fetch, next, now);
    }

    fn proceed(
        &mut self,
        plugin: &Plugin,
        name: String,
        fetch: Fetch,
        next: Result<Next, FetchError>,
        now: SystemTime,
    ) {
        match next {
            Ok(Next::Call(call)) => match host::dispatch(&call, CALL_TIMEOUT) {
                Ok(token) => {
                    plugin.credentials.extend_lease(&name, &SharedData, now);
                    self.in_progress.insert(token, (name, fetch));
                }
                Err(error) => {
                    failed(plugin, &name, &format!("cluster '{}' cannot be called: {error}", call.cluster), now);
                }
            },
            Ok(Next::Done(fetched)) => done(plugin, &name, &fetched, now),
            Err(error) if error.is_of_this_thread() && plugin.credentials.hand_over(&name, &SharedData) => {
                host::log(LogLevel::Info, &format!("credentials `{name}` are left to another worker: {error}"));
            }
            Err(error) => failed(plugin, &name, &error.to_string(), now),
        }
    }
}

fn done(plugin: &Plugin, name: &str, fetched: &Fetched, now: SystemTime) {
    let jitter = f64::from((host::random() >> 32) as u32) / f64::from(u32::MAX);
    plugin.credentials.publish(name, &SharedData, fetched, now, jitter);
    plugin.metrics.add(&credentials_fetched(name, true));
    host::log(LogLevel::Info, &format!("credentials `{name}` fetched"));
    if let Some(certificate) = fetched.certificate.filter(|certificate| certificate.ends_soon(now)) {
        let hours = certificate.left(now).as_secs() / 3600;
        let problem = format!("the certificate of credentials `{name}` expires in {hours} hours; replace it");
        host::log(LogLevel::Warn, &problem);
    }
}

fn failed(plugin: &Plugin, name: &str, problem: &str, now: SystemTime) {
    plugin.credentials.failed(name, &SharedData, now);
    plugin.metrics.add(&credentials_fetched(name, false));
    host::log(LogLevel::Warn, &format!("credentials `{name}` not fetched: {problem}"));
}
