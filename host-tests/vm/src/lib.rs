//! A Proxy-Wasm host for tests: runs a module as Envoy 1.40 would, and is stricter where Envoy is silent.
//!
//! ```no_run
//! use proxy_wasm_vm::{Outcome, Vm};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let vm = Vm::load("filter.wasm").env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").start()?;
//! let gateway = vm.plugin("gateway").allow_on_headers_stop_iteration(true).configure("{…}")?;
//! let signer = vm.plugin("signer").configure("{…}")?;
//! let exchange = gateway.stream().property(&["source", "address"], "10.0.0.1:1234");
//! assert_eq!(exchange.request_headers([(":method", "GET"), (":path", "/")], true), Outcome::Continue);
//! let attempt = signer.attempt(&exchange);
//! attempt.request_headers(exchange.request_map(), true);
//! # Ok(())
//! # }
//! ```
//!
//! Every VM has its own state; only compiled modules are shared. What a module must not do ends its VM with a
//! [`Fault`] that names the call: unknown imports, bad pointers, malformed header pairs, reading a map or a body that
//! Envoy would show as empty, changing headers that have gone, answering twice, resuming what is not paused. Calls that
//! Envoy refuses with a status get that status and are listed by [`Vm::refused`].

mod abi;
mod calls;
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
pub use exchange::{Event, Exchange, Outcome, headers, values};
pub use fault::Fault;
pub use half::Forwarded;
pub use load::{LoadError, VmBuilder};
pub use plugin::{ConfigureRefused, Plugin, PluginBuilder};
pub use state::{LocalReply, Log, OutCall, Refused};

use machine::Machine;

/// One VM with one module, for as many plugins as Envoy would put in it (equal `vm_config`).
#[derive(Clone)]
pub struct Vm {
    machine: Rc<RefCell<Machine>>,
}

impl Vm {
    /// A plugin to be configured; `name` is its root id.
    pub fn plugin(&self, name: &str) -> PluginBuilder {
        PluginBuilder::new(Rc::clone(&self.machine), name)
    }

    /// Sets the wall clock.
    pub fn set_clock(&self, now: SystemTime) {
        self.machine.borrow_mut().state().wasi.clock.set(load::nanoseconds(now));
    }

    /// Moves the wall clock on.
    pub fn advance(&self, by: Duration) {
        let mut machine = self.machine.borrow_mut();
        let clock = &machine.state().wasi.clock;
        clock.set(clock.get().saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)));
    }

    /// What the clock says.
    pub fn clock(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.machine.borrow_mut().state().wasi.clock.get())
    }

    /// All that was logged.
    pub fn logs(&self) -> Vec<Log> {
        self.logs_from(0)
    }

    /// Host calls that answered other than `Ok`.
    pub fn refused(&self) -> Vec<Refused> {
        self.machine.borrow_mut().state().refused.clone()
    }

    /// Calls sent out and not answered yet.
    pub fn out_calls(&self) -> Vec<OutCall> {
        self.machine.borrow_mut().state().calls.clone()
    }

    /// A counter or gauge.
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.machine.borrow_mut().state().metrics.get(name).map(|metric| metric.value)
    }

    /// All counters and gauges.
    pub fn metrics(&self) -> BTreeMap<String, u64> {
        let mut machine = self.machine.borrow_mut();
        machine.state().metrics.iter().map(|(name, metric)| (name.clone(), metric.value)).collect()
    }

    /// What was recorded in a histogram.
    pub fn histogram(&self, name: &str) -> Option<Vec<u64>> {
        self.machine.borrow_mut().state().metrics.get(name).map(|metric| metric.records.clone())
    }

    /// Shared data under a key.
    pub fn shared_data(&self, key: &str) -> Option<Vec<u8>> {
        self.machine.borrow_mut().state().shared.get(key.as_bytes()).map(|(value, _)| value.clone())
    }

    /// How often the module called each host function since the start or the last reset; all of WASI's are
    /// counted together, as `wasi_snapshot_preview1`.
    pub fn host_calls(&self) -> BTreeMap<&'static str, u64> {
        self.machine.borrow_mut().state().counts.clone()
    }

    /// Starts counting host calls anew.
    pub fn reset_host_calls(&self) {
        self.machine.borrow_mut().state().counts.clear();
    }

    /// The module's memory, in pages of 64 KiB. Memory never shrinks, so this is its peak.
    pub fn memory_pages(&self) -> u64 {
        let mut machine = self.machine.borrow_mut();
        let memory = machine.state().memory;
        memory.map_or(0, |memory| memory.size(&machine.store))
    }

    /// What ended this VM, if something did.
    pub fn fault(&self) -> Option<String> {
        self.machine.borrow_mut().state().failed.clone()
    }
}
