#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod abi;
mod bytes;
mod calls;
mod effects;
mod event;
mod exchange;
mod fault;
mod guest;
mod half;
mod load;
mod machine;
mod plugin;
mod state;
mod wasi;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use abi::{Direction, Header, Status};
pub use bytes::Bytes;
pub use effects::{LocalReply, Log, OutCall, Refused};
pub use event::{Event, Outcome};
pub use exchange::{Exchange, headers, values};
pub use fault::Fault;
pub use half::Forwarded;
pub use load::{LoadError, VmBuilder};
pub use plugin::{ConfigureRefused, Plugin, PluginBuilder};

use machine::Machine;
use state::CallAnswer;

/// A VM with one module and any number of plugins, as in Envoy those with an equal `vm_config`.
#[derive(Clone)]
pub struct Vm {
    machine: Rc<RefCell<Machine>>,
}

impl Vm {
    /// Starts the configuration of a plugin; `name` is its root id.
    pub fn plugin(&self, name: &str) -> PluginBuilder {
        PluginBuilder::new(Rc::clone(&self.machine), name)
    }

    /// Sets the clock.
    pub fn set_clock(&self, now: SystemTime) {
        self.machine.borrow_mut().state().wasi.clock.set(load::nanoseconds(now));
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let mut machine = self.machine.borrow_mut();
        let clock = &machine.state().wasi.clock;
        clock.set(clock.get().saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)));
    }

    /// The clock's time.
    pub fn clock(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.machine.borrow_mut().state().wasi.clock.get())
    }

    /// All log lines.
    pub fn logs(&self) -> Vec<Log> {
        self.logs_from(0)
    }

    /// Host calls that returned a status other than `Ok`.
    pub fn refused(&self) -> Vec<Refused> {
        self.machine.borrow_mut().state().refused.clone()
    }

    /// Calls that the module sent and that are not answered yet.
    pub fn out_calls(&self) -> Vec<OutCall> {
        self.machine.borrow_mut().state().calls.clone()
    }

    /// The value of a counter or gauge.
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.machine.borrow_mut().state().metrics.get(name).map(|metric| metric.value)
    }

    /// All counters and gauges.
    pub fn metrics(&self) -> BTreeMap<String, u64> {
        let mut machine = self.machine.borrow_mut();
        machine.state().metrics.iter().map(|(name, metric)| (name.clone(), metric.value)).collect()
    }

    /// The values recorded in a histogram.
    pub fn histogram(&self, name: &str) -> Option<Vec<u64>> {
        self.machine.borrow_mut().state().metrics.get(name).map(|metric| metric.records.clone())
    }

    /// The shared data of a key.
    pub fn shared_data(&self, key: &str) -> Option<Vec<u8>> {
        self.machine.borrow_mut().state().shared.get(key.as_bytes()).map(|(value, _)| value.clone())
    }

    /// Calls of each host function since the start or the last reset. All WASI functions count as
    /// `wasi_snapshot_preview1`.
    pub fn host_calls(&self) -> BTreeMap<&'static str, u64> {
        self.machine.borrow_mut().state().counts.clone()
    }

    /// Resets [`host_calls`](Self::host_calls).
    pub fn reset_host_calls(&self) {
        self.machine.borrow_mut().state().counts.clear();
    }

    /// The module's memory, in pages of 64 KiB. Memory never shrinks, so this is its peak.
    pub fn memory_pages(&self) -> u64 {
        let mut machine = self.machine.borrow_mut();
        let memory = machine.state().memory;
        memory.map_or(0, |memory| memory.size(&machine.store))
    }

    /// A copy of the module's memory, all that it ever had.
    pub fn memory(&self) -> Vec<u8> {
        let mut machine = self.machine.borrow_mut();
        let memory = machine.state().memory;
        memory.map_or_else(Vec::new, |memory| memory.data(&machine.store).to_vec())
    }

    /// The fault that ended this VM.
    pub fn fault(&self) -> Option<String> {
        self.machine.borrow_mut().state().failed.clone()
    }

    /// Answers a call that the module sent.
    ///
    /// # Errors
    /// The module trapped or misused the host, or the call is unknown.
    pub fn answer(&self, token: u32, headers: Vec<Header>, body: &[u8]) -> Result<(), Fault> {
        self.deliver(token, Some(CallAnswer { context: 0, headers, body: body.to_vec(), trailers: Vec::new() }))
    }

    /// Fails a call, as a timeout or an unreachable cluster does.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn fail_call(&self, token: u32) -> Result<(), Fault> {
        self.deliver(token, None)
    }

    fn deliver(&self, token: u32, answer: Option<CallAnswer>) -> Result<(), Fault> {
        let mut machine = self.machine.borrow_mut();
        let calls = &mut machine.state().calls;
        let Some(at) = calls.iter().position(|call| call.token == token) else {
            let text = format!("call {token} is not open");
            return Err(Fault::Misuse { callback: "the test".to_owned(), text });
        };
        let context = calls.remove(at).context;
        let (count, size) = answer.as_ref().map_or((0, 0), |answer| {
            (u32::try_from(answer.headers.len()).unwrap_or(0), u32::try_from(answer.body.len()).unwrap_or(0))
        });
        machine.state().answer = answer.map(|answer| CallAnswer { context, ..answer });
        let result =
            machine.call::<_, ()>("proxy_on_http_call_response", context, (context, token, count, size, 0_u32));
        machine.state().answer = None;
        result?;
        machine.settle()
    }

    /// Log lines of this level (0 trace … 5 critical) and above.
    pub fn logs_from(&self, level: u32) -> Vec<Log> {
        let mut machine = self.machine.borrow_mut();
        machine.state().logs.iter().filter(|line| line.level >= level).cloned().collect()
    }
}
