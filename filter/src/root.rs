//! Configuration and ticks: one root context for each place where the module stands in Envoy's configuration.

use crate::exchange::{Attempt, Downstream};
use crate::host;
use crate::metrics::Metrics;
use crate::refresh::Refresh;
use crate::relay::{Connection, Passage};
use crate::waiting::Waiting;
use filter_core::config::{RelayPlace, Role};
use filter_core::credentials::wallet::Wallet;
use filter_core::exchange::Given;
use filter_core::policy::Policy;
use proxy_wasm::traits::{Context, HttpContext, RootContext, StreamContext};
use proxy_wasm::types::{ContextType, LogLevel};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// The environment variable that orders the paths.
const PATH_ORDER: &str = "BEDROCK_PATHS";
/// How often calls that wait look for credentials, and credentials for their end.
const TICK: Duration = Duration::from_millis(100);

/// What every stream of a plugin shares.
#[derive(Debug)]
pub struct Plugin {
    /// The operator's decisions.
    pub policy: Policy,
    /// Commercial credentials.
    pub wallet: Wallet,
    /// Series of Envoy's metrics.
    pub metrics: Metrics,
    /// Streams that wait for credentials.
    pub waiting: Waiting,
}

/// The root context; without a plugin it refuses every call.
#[derive(Debug)]
pub struct Root {
    id: u32,
    plugin: Option<Rc<Plugin>>,
    relay: Option<RelayPlace>,
    refresh: Refresh,
}

impl Plugin {
    fn load(json: &[u8]) -> Result<Self, String> {
        let environment = |name: &str| std::env::var(name).ok();
        let policy = Policy::parse(json, environment(PATH_ORDER).as_deref()).map_err(|error| error.to_string())?;
        let (default, sets) = (&policy.credentials, &policy.credential_sets);
        let wallet = Wallet::compile(default, sets, policy.auth, host::random(), &environment)
            .map_err(|error| error.to_string())?;
        Ok(Self { policy, wallet, metrics: Metrics::default(), waiting: Waiting::default() })
    }

    /// What core may depend on, at this moment.
    pub fn given(&self, now: SystemTime) -> Given<'_> {
        Given { policy: &self.policy, wallet: &self.wallet, shared: &host::SharedData, now }
    }
}

impl Root {
    /// A root context of the host's number for it.
    pub fn new(id: u32) -> Self {
        Self { id, plugin: None, relay: None, refresh: Refresh::default() }
    }

    fn configure(&mut self, json: &[u8]) -> Result<(), String> {
        if let Some(place) = RelayPlace::parse(json) {
            self.relay = Some(place.map_err(|error| error.to_string())?);
            return Ok(());
        }
        let plugin = Plugin::load(json)?;
        if let Some(source) = plugin.wallet.lacks() {
            host::log(
                LogLevel::Warn,
                &format!("no Commercial credentials (`{source}`): every call that needs them is answered with 503"),
            );
        }
        if plugin.wallet.fetches() {
            host::set_tick_period(TICK).map_err(|error| format!("credentials cannot be fetched: {error}"))?;
        }
        self.plugin = Some(Rc::new(plugin));
        Ok(())
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _trailers: usize) {
        let Some(plugin) = &self.plugin else { return };
        // Envoy tells of a call without an answer by one without headers.
        self.refresh.answered(plugin, token, (headers > 0).then_some(body_size));
        plugin.waiting.look(plugin, self.id);
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, configuration_size: usize) -> bool {
        let json = host::plugin_configuration(configuration_size).map_err(|error| error.to_string());
        let configured = json.and_then(|json| self.configure(&json));
        configured.map_err(|problem| host::log(LogLevel::Critical, &problem)).is_ok()
    }

    fn on_tick(&mut self) {
        let Some(plugin) = &self.plugin else { return };
        // One fetch serves every place where the module stands; the signers only read.
        if plugin.policy.role != Role::Signer {
            self.refresh.tick(plugin);
        }
        plugin.waiting.look(plugin, self.id);
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        if self.relay.is_some() {
            return Some(Box::new(Passage::default()));
        }
        let plugin = self.plugin.clone();
        Some(match plugin.as_ref().map(|plugin| plugin.policy.role) {
            Some(Role::Signer) => Box::new(Attempt::new(context_id, plugin)),
            Some(Role::Gateway | Role::Combined) | None => Box::new(Downstream::new(context_id, plugin)),
        })
    }

    fn create_stream_context(&self, _: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(Connection::default()))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(if self.relay == Some(RelayPlace::Connection) {
            ContextType::StreamContext
        } else {
            ContextType::HttpContext
        })
    }
}
