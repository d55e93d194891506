//! What every stream of a configured module shares.

use crate::host;
use crate::metrics::Metrics;
use crate::waiting::Waiting;
use filter_core::catalogue::CatalogueStore;
use filter_core::config::ConfigError;
use filter_core::credentials::store::CredentialStore;
use filter_core::limits::Worker;
use filter_core::policy::Policy;
use filter_core::step::Context;
use std::rc::Rc;
use std::time::SystemTime;

/// The environment variable that orders the paths.
const PATH_ORDER: &str = "BEDROCK_PATHS";

thread_local! {
    static WORKER: Rc<Worker> = Rc::new(Worker::new(host::worker()));
    static CATALOGUE: Rc<CatalogueStore> = Rc::default();
}

#[derive(Debug)]
pub(crate) struct Plugin {
    pub policy: Policy,
    pub credentials: CredentialStore,
    pub metrics: Metrics,
    /// Streams that wait for credentials.
    pub waiting: Waiting,
    /// The root context of this place of the module.
    pub root: u32,
    /// The same for all places of the module in this VM.
    pub worker: Rc<Worker>,
    /// The same, too.
    pub catalogue: Rc<CatalogueStore>,
}

impl Plugin {
    pub(crate) fn load(json: &[u8], root: u32) -> Result<Self, ConfigError> {
        let environment = |name: &str| std::env::var(name).ok();
        let policy = Policy::parse(json, environment(PATH_ORDER).as_deref())?;
        let credentials =
            CredentialStore::resolve(&policy.credential_sources, policy.auth, host::random(), &environment)?;
        let (metrics, waiting) = (Metrics::default(), Waiting::default());
        let (worker, catalogue) = (WORKER.with(Rc::clone), CATALOGUE.with(Rc::clone));
        Ok(Self { policy, credentials, metrics, waiting, root, worker, catalogue })
    }

    pub(crate) fn context(&self, now: SystemTime) -> Context<'_> {
        Context {
            policy: &self.policy,
            credentials: &self.credentials,
            catalogue: &self.catalogue,
            shared: &host::SharedData,
            worker: &self.worker,
            now,
        }
    }
}
