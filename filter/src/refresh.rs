//! Fetches credentials: `filter_core` says which calls are wanted, and takes their answers.

use crate::host::{self, SharedData};
use crate::root::Plugin;
use filter_core::clock;
use filter_core::credentials::fetch::{Answer, Fetch, FetchError, Fetched, Next};
use filter_core::metrics::{clock_offset, credentials_fetched, credentials_left};
use proxy_wasm::types::LogLevel;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// What a source may take for one call.
const CALL: Duration = Duration::from_secs(5);

/// The fetches of a root context that are on their way, by the token of the call that each waits for.
#[derive(Debug, Default)]
pub struct Refresh {
    on_their_way: HashMap<u32, (String, Fetch)>,
}

impl Refresh {
    /// Begins what is due.
    pub fn tick(&mut self, plugin: &Plugin) {
        let Ok(now) = host::now() else { return };
        for (name, left) in plugin.wallet.left(&SharedData, now) {
            plugin.metrics.add(&credentials_left(name, left));
        }
        plugin.metrics.add(&clock_offset(clock::offset_ms(&SharedData)));
        for name in plugin.wallet.due(&SharedData, now) {
            let Some(source) = plugin.wallet.source(name) else { continue };
            let mut fetch = Fetch::new(source.clone());
            let next = fetch.next(Answer::None, now);
            self.go_on(plugin, name.to_owned(), fetch, next, now);
        }
    }

    /// Takes the answer to a call, by the length of its body; `None`, there was none.
    pub fn answered(&mut self, plugin: &Plugin, token: u32, body_size: Option<usize>) {
        let Some((name, mut fetch)) = self.on_their_way.remove(&token) else { return };
        let Ok(now) = host::now() else { return };
        let answer = body_size.and_then(|size| host::call_answer(size).ok());
        let answer = answer.as_ref().map_or(Answer::None, |(headers, body)| Answer::Came { headers, body });
        let signed_for = clock::corrected(&SharedData, now);
        let next = fetch.next(answer, signed_for);
        self.go_on(plugin, name, fetch, next, now);
    }

    fn go_on(&mut self, plugin: &Plugin, name: String, fetch: Fetch, next: Result<Next, FetchError>, now: SystemTime) {
        match next {
            Ok(Next::Call(call)) => match host::dispatch(&call, CALL) {
                Ok(token) => {
                    plugin.wallet.going_on(&name, &SharedData, now);
                    self.on_their_way.insert(token, (name, fetch));
                }
                Err(error) => {
                    failed(plugin, &name, &format!("cluster '{}' cannot be called: {error}", call.cluster), now)
                }
            },
            Ok(Next::Done(fetched)) => done(plugin, &name, &fetched, now),
            Err(error) => failed(plugin, &name, &error.to_string(), now),
        }
    }
}

fn done(plugin: &Plugin, name: &str, fetched: &Fetched, now: SystemTime) {
    let jitter = f64::from((host::random() >> 32) as u32) / f64::from(u32::MAX);
    plugin.wallet.publish(name, &SharedData, fetched, now, jitter);
    plugin.metrics.add(&credentials_fetched(name, true));
    host::log(LogLevel::Info, &format!("credentials `{name}` fetched"));
}

fn failed(plugin: &Plugin, name: &str, problem: &str, now: SystemTime) {
    plugin.wallet.failed(name, &SharedData, now);
    plugin.metrics.add(&credentials_fetched(name, false));
    host::log(LogLevel::Warn, &format!("credentials `{name}` not fetched: {problem}"));
}
