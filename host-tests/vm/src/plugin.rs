//! A configured plugin: a root context of the VM.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use super::Vm;
use super::abi::Status;
use super::exchange::Exchange;
use super::fault::Fault;
use super::machine::Machine;
use super::state::{Context, Property, Root, Stream};

/// `on_vm_start` or `on_configure` returned false or ended in a fault: Envoy would not start, or refuse the update.
#[derive(Debug, Error)]
#[error("the module refused its configuration: {}", log.join("; "))]
pub struct ConfigureRefused {
    /// The lines that it logged.
    pub log: Vec<String>,
    /// The trap or misuse, if one was the reason.
    pub fault: Option<Fault>,
}

/// Envoy's plugin configuration.
pub struct PluginBuilder {
    machine: Rc<RefCell<Machine>>,
    root: Root,
}

impl PluginBuilder {
    pub(super) fn new(machine: Rc<RefCell<Machine>>, name: &str) -> Self {
        Self { machine, root: Root { name: name.to_owned(), ..Root::default() } }
    }

    /// Envoy's field of this name; false unless set. With it, body callbacks run while headers are held.
    #[must_use]
    pub fn allow_on_headers_stop_iteration(mut self, allow: bool) -> Self {
        self.root.stop_iteration = allow;
        self
    }

    /// The bytes that Envoy buffers in one direction before it answers 413 (request) or 500 (response).
    #[must_use]
    pub fn buffer_limit(mut self, bytes: usize) -> Self {
        self.root.buffer_limit = Some(bytes);
        self
    }

    /// A property of the plugin, not of one stream.
    #[must_use]
    pub fn property(mut self, path: &[&str], value: impl AsRef<[u8]>) -> Self {
        self.root.properties.insert(path.join("\0").into_bytes(), Property::Value(value.as_ref().to_vec()));
        self
    }

    /// Makes `get_property` return this status for a path.
    #[must_use]
    pub fn property_status(mut self, path: &[&str], status: Status) -> Self {
        self.root.properties.insert(path.join("\0").into_bytes(), Property::Status(status));
        self
    }

    /// Creates the root context, starts it and gives it its configuration.
    ///
    /// # Errors
    /// The module returned false or ended in a fault.
    pub fn configure(mut self, configuration: impl AsRef<[u8]>) -> Result<Plugin, ConfigureRefused> {
        self.root.configuration = configuration.as_ref().to_vec();
        let mut machine = self.machine.borrow_mut();
        let logged = machine.state().logs.len();
        let id = machine.new_context(Context::Root(self.root));
        let result = start(&mut machine, id);
        if let Some(root) = machine.state().root(id) {
            root.configuring = false;
        }
        if matches!(result, Ok(true)) {
            drop(machine);
            return Ok(Plugin { machine: self.machine, id });
        }
        let log = machine.state().logs.iter().skip(logged).map(|line| line.text.clone()).collect();
        machine.state().contexts.remove(&id);
        Err(ConfigureRefused { log, fault: result.err() })
    }
}

fn start(machine: &mut Machine, id: u32) -> Result<bool, Fault> {
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let vm_size = size(&machine.state().vm_configuration);
    machine.call::<_, ()>("proxy_on_context_create", id, (id, 0_u32))?;
    let started = machine.call::<_, u32>("proxy_on_vm_start", id, (id, vm_size))?;
    if started == Some(0) {
        return Ok(false);
    }
    let configuration_size = machine.state().root(id).map_or(0, |root| {
        root.configuring = true;
        size(&root.configuration)
    });
    let configured = machine.call::<_, u32>("proxy_on_configure", id, (id, configuration_size))?;
    machine.settle()?;
    Ok(configured != Some(0))
}

/// A configured plugin.
#[derive(Clone)]
pub struct Plugin {
    machine: Rc<RefCell<Machine>>,
    id: u32,
}

impl Plugin {
    /// A new exchange, in a downstream filter chain.
    pub fn stream(&self) -> Exchange {
        let filter_state = {
            let mut machine = self.machine.borrow_mut();
            let states = &mut machine.state().filter_states;
            states.push(std::collections::BTreeMap::new());
            states.len() - 1
        };
        self.open(filter_state, false)
    }

    /// An attempt of an exchange, in an upstream filter chain: a new context with the exchange's filter state.
    ///
    /// In Envoy the attempts share one header map too: give the next attempt the
    /// [`request_map`](Exchange::request_map) of the one before.
    pub fn attempt(&self, of: &Exchange) -> Exchange {
        self.open(of.filter_state, true)
    }

    fn open(&self, filter_state: usize, upstream: bool) -> Exchange {
        let mut machine = self.machine.borrow_mut();
        let id = machine.new_context(Context::Stream(Box::new(Stream::new(self.id, filter_state))));
        Exchange { machine: Rc::clone(&self.machine), id, filter_state, upstream }
    }

    /// The period that the module asked for.
    pub fn tick_period(&self) -> Option<Duration> {
        let mut machine = self.machine.borrow_mut();
        let ms = machine.state().root(self.id).map_or(0, |root| root.tick_ms);
        (ms > 0).then(|| Duration::from_millis(ms.into()))
    }

    /// One tick.
    ///
    /// # Errors
    /// The module trapped or misused the host, or did not ask for ticks.
    pub fn tick(&self) -> Result<(), Fault> {
        if self.tick_period().is_none() {
            return Err(Fault::Misuse { callback: "the test".into(), text: "the module asked for no ticks".into() });
        }
        let mut machine = self.machine.borrow_mut();
        machine.call::<_, ()>("proxy_on_tick", self.id, self.id)?;
        machine.settle()
    }

    /// The VM of this plugin.
    pub fn vm(&self) -> Vm {
        Vm { machine: Rc::clone(&self.machine) }
    }
}
