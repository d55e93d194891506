//! Talks to the audit collector: the intents of calls, and this VM's reports.

use crate::host::{self, HostError, SharedData};
use crate::plugin::Plugin;
use audit::VmFacts;
use audit::notice::{End, INTENTS, Intent, REPORTS};
use filter_core::credentials::call::Call;
use filter_core::intent::IntentError;
use filter_core::metrics::{intent, report_failed};
use filter_core::policy::Collector;
use filter_core::shared;
use filter_core::vm::{Reached, Vm};
use proxy_wasm::types::LogLevel;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime};

/// How long a report may take.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// The shared data with the id of the Envoy process.
const ENVOY: &str = "audit/envoy";

thread_local! {
    static LINK: RefCell<Link> = RefCell::new(Link::new());
}

/// A call that waits for its intent.
pub(crate) trait Intending: Debug {
    /// Takes the collector's answer, in the context of the call's stream.
    fn answered(self: Rc<Self>, answer: Result<(), IntentError>);
}

/// The VM and what it has asked the collector.
#[derive(Debug)]
struct Link {
    vm: Vm,
    /// By the token of the HTTP call: the stream's context, and its call.
    intents: HashMap<u32, (u32, Weak<dyn Intending>)>,
    /// The token of the report whose answer counts.
    report: Option<u32>,
}

impl Link {
    fn new() -> Self {
        // The main thread's VM, which is the first, makes the id.
        let own = host::unique_id();
        let envoy = shared::update(&SharedData, ENVOY, |known| match known {
            Some(known) => (None, String::from_utf8_lossy(known).into_owned()),
            None => (Some(own.clone().into_bytes()), own.clone()),
        });
        let vm = Vm::new(host::unique_id(), envoy.unwrap_or_default());
        Self { vm, intents: HashMap::new(), report: None }
    }
}

/// Makes the ids of VM and process.
pub(crate) fn start() {
    LINK.with_borrow(|_| ());
}

// === counters ===

/// A call begins.
pub(crate) fn begin() {
    LINK.with_borrow_mut(|link| link.vm.begin());
}

/// A call is logged.
pub(crate) fn log() -> VmFacts {
    LINK.with_borrow_mut(|link| link.vm.log())
}

/// Keeps the end of a call with an intent, for the next report.
pub(crate) fn end(end: End) {
    LINK.with_borrow_mut(|link| link.vm.end(end));
}

/// Tells the collector that more calls begin than it knows of. `context` is the stream of this callback.
pub(crate) fn announce(plugin: &Plugin, context: u32) {
    let Some(collector) = &plugin.policy.audit else { return };
    LINK.with_borrow_mut(|link| {
        if link.vm.must_announce()
            && let Ok(now) = host::now()
        {
            // The next report repeats it.
            let _ = send(plugin, collector, REPORTS, link.vm.announcement(now).to_json(), REPORT_TIMEOUT, context);
        }
    });
}

// === intents ===

/// Asks the collector to record an intent. `context` is the stream of this callback.
pub(crate) fn record(
    plugin: &Plugin,
    context: u32,
    call: Weak<dyn Intending>,
    mut intent: Intent,
) -> Result<(), IntentError> {
    let collector = plugin.policy.audit.as_ref().ok_or_else(|| IntentError::Call("it is not configured".to_owned()))?;
    LINK.with_borrow_mut(|link| {
        intent.exchange.vm = Some(link.vm.facts());
        let token = send(plugin, collector, INTENTS, intent.to_json(), collector.deadline, context);
        let token = token.map_err(|error| IntentError::Call(error.to_string()))?;
        link.intents.insert(token, (context, call));
        Ok(())
    })
}

/// The stream of a call is over.
pub(crate) fn forget(context: u32) {
    LINK.with_borrow_mut(|link| link.intents.retain(|_, (waiting, _)| *waiting != context));
}

// === reports and answers ===

/// Sends the report that is due, in the callback of the root context.
pub(crate) fn tick(plugin: &Plugin, now: SystemTime) {
    let Some(collector) = &plugin.policy.audit else { return };
    let lost = LINK.with_borrow_mut(|link| {
        let report = link.vm.due(now)?.to_json();
        match send(plugin, collector, REPORTS, report, REPORT_TIMEOUT, plugin.root) {
            Ok(token) => {
                link.report = Some(token);
                None
            }
            Err(error) => link.vm.answered(false, now).map(|_| error.to_string()),
        }
    });
    if let Some(problem) = lost {
        plugin.metrics.add(&report_failed());
        host::log(LogLevel::Error, &format!("the audit collector cannot be called: {problem}"));
    }
}

/// Takes the answer to a call of this module's; `responded`: it has headers. Returns whether the call was one of these. `home` is
/// the context of this callback.
pub(crate) fn on_response(plugin: &Plugin, token: u32, responded: bool, home: u32) -> bool {
    let (waiting, report) = LINK.with_borrow_mut(|link| {
        (link.intents.remove(&token), link.report.take_if(|report| *report == token).is_some())
    });
    if waiting.is_none() && !report {
        return false;
    }
    // Envoy keeps the response in the context that made the call.
    let status = responded.then(|| host::set_context(plugin.root).ok().and_then(|()| host::call_status())).flatten();
    if let Some((context, call)) = waiting {
        let answer = match status {
            Some(204) => Ok(()),
            // Envoy's own reply after the timeout.
            None | Some(504) => Err(IntentError::NoAnswer),
            Some(status) => Err(IntentError::Refused(status)),
        };
        plugin.metrics.add(&intent(answer.as_ref().map_or_else(IntentError::outcome, |()| "recorded")));
        if let Some(call) = call.upgrade()
            && host::set_context(context).is_ok()
        {
            call.answered(answer);
        }
    } else {
        reported(plugin, status);
    }
    // If this fails, the next callback sets its own context.
    let _ = host::set_context(home);
    true
}

fn reported(plugin: &Plugin, status: Option<u16>) {
    let Ok(now) = host::now() else { return };
    let stored = status == Some(204);
    if !stored {
        plugin.metrics.add(&report_failed());
    }
    match LINK.with_borrow_mut(|link| link.vm.answered(stored, now)) {
        Some(Reached::Again) => host::log(LogLevel::Info, "the audit collector takes reports again"),
        Some(Reached::Lost) => {
            let problem = status.map_or_else(|| "does not answer".to_owned(), |status| format!("answers {status}"));
            host::log(LogLevel::Error, &format!("the audit collector {problem}: reports of calls wait"));
        }
        None => {}
    }
}

/// Calls the collector from the root context, so that the call does not end with a stream. `home` is the context of this callback.
fn send(
    plugin: &Plugin,
    collector: &Collector,
    path: &str,
    notice: Vec<u8>,
    timeout: Duration,
    home: u32,
) -> Result<u32, HostError> {
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let call = Call {
        cluster: collector.cluster.clone(),
        headers: [
            header(":method", "POST"),
            header(":path", path),
            header(":authority", "audit-collector"),
            header("content-type", "application/json"),
            // A collector that restarts breaks its connections. What it has twice is one intent. Envoy waits some 0.1 s between
            // attempts, and the call's timeout ends them.
            header("x-envoy-retry-on", "connect-failure,refused-stream,reset"),
            header("x-envoy-max-retries", "50"),
        ]
        .into_iter()
        .collect(),
        body: notice,
    };
    host::set_context(plugin.root)?;
    let token = host::dispatch(&call, timeout);
    host::set_context(home)?;
    token
}
