//! Configuration: one root context for each place where the module stands in Envoy's configuration.

use crate::exchange::{Attempt, Downstream};
use crate::host;
use crate::metrics::Metrics;
use filter_core::config::Role;
use filter_core::credentials::Credentials;
use filter_core::exchange::Given;
use filter_core::policy::Policy;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, LogLevel};
use std::rc::Rc;
use std::time::SystemTime;

/// The environment variable that orders the paths.
const PATH_ORDER: &str = "BEDROCK_PATHS";

/// What every stream of a plugin shares.
#[derive(Debug)]
pub struct Plugin {
    /// The operator's decisions.
    pub policy: Policy,
    /// Commercial credentials; none until there are some.
    pub credentials: Option<Credentials>,
    /// Series of Envoy's metrics.
    pub metrics: Metrics,
}

/// The root context; without a plugin it refuses every call.
#[derive(Debug, Default)]
pub struct Root {
    plugin: Option<Rc<Plugin>>,
}

impl Plugin {
    fn load(configuration_size: usize) -> Result<Self, String> {
        let json = host::plugin_configuration(configuration_size).map_err(|error| error.to_string())?;
        let order = std::env::var(PATH_ORDER).ok();
        let policy = Policy::parse(&json, order.as_deref()).map_err(|error| error.to_string())?;
        let credentials = Credentials::from_environment(policy.auth, |name| std::env::var(name).ok())
            .map_err(|error| format!("configuration key `credentials`: {error} in the VM's environment"))?;
        Ok(Self { policy, credentials, metrics: Metrics::default() })
    }

    /// What core may depend on, at this moment.
    pub fn given(&self, now: SystemTime) -> Given<'_> {
        Given { policy: &self.policy, credentials: self.credentials.as_ref(), shared: &host::SharedData, now }
    }
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, configuration_size: usize) -> bool {
        match Plugin::load(configuration_size) {
            Ok(plugin) => {
                if plugin.credentials.is_none() {
                    host::log(LogLevel::Warn, "no Commercial credentials: every call is answered with 503");
                }
                self.plugin = Some(Rc::new(plugin));
                true
            }
            Err(problem) => {
                host::log(LogLevel::Critical, &problem);
                false
            }
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        let plugin = self.plugin.clone();
        Some(match plugin.as_ref().map(|plugin| plugin.policy.role) {
            Some(Role::Signer) => Box::new(Attempt::new(plugin)),
            Some(Role::Gateway | Role::Combined) | None => Box::new(Downstream::new(plugin)),
        })
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
