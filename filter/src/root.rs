//! The root context: configuration, ticks and new streams. There is one for each place of the module in Envoy's configuration.

use crate::buffered;
use crate::catalogue::{self, Catalogue};
use crate::collector;
use crate::connections::{self, Connection};
use crate::downstream::Downstream;
use crate::host::{self, SharedData};
use crate::plugin::Plugin;
use crate::refresh::Refresh;
use crate::relay::{RelayConnection, RelayHttp};
use crate::resolve::Lookups;
use crate::source::{Place, Source};
use crate::upstream::Upstream;
use filter_core::config::{Connections, RelayPlace, Role, SourceCluster};
use filter_core::connections::OpenConnections;
use proxy_wasm::traits::{Context, HttpContext, RootContext, StreamContext};
use proxy_wasm::types::{ContextType, LogLevel};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// How often waiting calls look for credentials, and credentials are checked for their end.
const TICK: Duration = Duration::from_millis(100);

/// How often silent connections are looked for.
const CONNECTIONS_TICK: Duration = Duration::from_secs(1);
/// The same while many calls wait to go on.
const SOON: Duration = Duration::from_millis(5);

/// Without a plugin it refuses every call.
#[derive(Debug)]
pub(crate) struct Root {
    id: u32,
    plugin: Option<Rc<Plugin>>,
    relay: Option<RelayPlace>,
    source: Option<Rc<Place>>,
    connections: Option<connections::Shared>,
    refresh: Refresh,
    catalogue: Catalogue,
    lookups: Lookups,
    /// The period of ticks.
    tick: Cell<Duration>,
}

impl Root {
    /// `id` is the host's number for the context.
    pub(crate) fn new(id: u32) -> Self {
        Self {
            id,
            plugin: None,
            relay: None,
            source: None,
            connections: None,
            refresh: Refresh::default(),
            catalogue: Catalogue::default(),
            lookups: Lookups::default(),
            tick: Cell::new(TICK),
        }
    }

    fn configure(&mut self, json: &[u8]) -> Result<(), String> {
        if let Some(place) = RelayPlace::parse(json) {
            self.relay = Some(place.map_err(|error| error.to_string())?);
            return Ok(());
        }
        if let Some(limits) = Connections::parse(json) {
            let open = OpenConnections::new(limits.map_err(|error| error.to_string())?);
            self.connections = Some(Rc::new(RefCell::new(open)));
            let period = host::set_tick_period(CONNECTIONS_TICK);
            return period.map_err(|error| format!("silent connections cannot be ended: {error}"));
        }
        if let Some(place) = SourceCluster::parse(json) {
            let place = place.map_err(|error| error.to_string())?;
            self.source = Some(Rc::new(Place::new(place.source_cluster)));
            return Ok(());
        }
        let plugin = Plugin::load(json, self.id).map_err(|error| error.to_string())?;
        if let Some(source) = plugin.credentials.missing() {
            host::log(
                LogLevel::Warn,
                &format!("no Commercial credentials (`{source}`): every call that needs them is answered with 503"),
            );
        }
        if plugin.policy.role != Role::Signer {
            collector::start();
        }
        catalogue::follow(&plugin);
        // Role `gateway` also needs it to keep its budgets.
        if plugin.credentials.fetches() || plugin.policy.role != Role::Signer {
            host::set_tick_period(TICK).map_err(|error| format!("Envoy refuses to tick: {error}"))?;
        }
        self.plugin = Some(Rc::new(plugin));
        Ok(())
    }
}

impl Root {
    /// Wakes streams. If there are too many for one callback, the next tick comes soon.
    fn wake(&self, plugin: &Plugin) {
        let period = if plugin.waiting.look(self.id) { SOON } else { TICK };
        if self.tick.replace(period) != period
            && let Err(error) = host::set_tick_period(period)
        {
            host::log(LogLevel::Error, &format!("waiting calls go on late: {error}"));
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _trailers: usize) {
        let Some(plugin) = &self.plugin else { return };
        if collector::on_response(plugin, token, headers > 0, self.id) {
            return;
        }
        // Envoy reports a call without a response by a response without headers.
        let body_size = (headers > 0).then_some(body_size);
        if self.catalogue.on_response(plugin, token, body_size) {
            return;
        }
        if !self.lookups.on_response(plugin, token, body_size) {
            self.refresh.on_response(plugin, token, body_size);
        }
        self.wake(plugin);
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, configuration_size: usize) -> bool {
        let json = host::plugin_configuration(configuration_size).map_err(|error| error.to_string());
        let configured = json.and_then(|json| self.configure(&json));
        configured.map_err(|problem| host::log(LogLevel::Critical, &problem)).is_ok()
    }

    fn on_tick(&mut self) {
        if let Some(open) = &self.connections {
            connections::tick(open, self.id);
            return;
        }
        let Some(plugin) = &self.plugin else { return };
        // One fetch serves all roles: signers only read.
        if plugin.policy.role == Role::Signer {
            plugin.credentials.follow(&SharedData);
        } else {
            self.refresh.tick(plugin);
            buffered::enforce(None, self.id, &plugin.policy.budgets);
            if let Ok(now) = host::now() {
                plugin.worker.tick(&SharedData, now);
                self.catalogue.tick(plugin, now);
                self.lookups.tick(plugin, now);
                collector::tick(plugin, now);
            }
        }
        self.wake(plugin);
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        if self.relay.is_some() {
            return Some(Box::new(RelayHttp::default()));
        }
        if let Some(place) = &self.source {
            return Some(Box::new(Source::new(place)));
        }
        let plugin = self.plugin.clone();
        Some(match plugin.as_ref().map(|plugin| plugin.policy.role) {
            Some(Role::Signer) => Box::new(Upstream::new(context_id, plugin)),
            Some(Role::Gateway | Role::Combined) | None => Box::new(Downstream::new(context_id, plugin)),
        })
    }

    fn create_stream_context(&self, context_id: u32) -> Option<Box<dyn StreamContext>> {
        if let Some(open) = &self.connections {
            return Some(Box::new(Connection::new(context_id, open)));
        }
        Some(Box::new(RelayConnection::default()))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(if self.relay == Some(RelayPlace::Connection) || self.connections.is_some() {
            ContextType::StreamContext
        } else {
            ContextType::HttpContext
        })
    }
}
