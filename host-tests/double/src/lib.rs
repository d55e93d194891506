//! A double of Bedrock: a TLS server that is stricter than the original.
//!
//! It checks every signature from the bytes on the wire and refuses headers that are not on its list. Paths must have the
//! encoding that the SDKs use, and Host must equal the TLS server name. It answers the operations of [`operation`] as the
//! SDKs expect them. A model's name asks for a fault of one call ([`fault::ModelFault`]); [`Running::set_fault`] sets the
//! fault of a path.
//!
//! ```no_run
//! use bedrock_double::Double;
//!
//! let dx = Double::builder().path_name("dx").tls_dir("target/tls").start()?;
//! println!("{} trusts {}", dx.addr(), dx.ca_pem_path().display());
//! assert!(dx.violations().is_empty());
//! # Ok::<(), bedrock_double::StartError>(())
//! ```

mod agent;
pub mod answer;
mod batch;
pub mod catalogue;
pub mod context;
mod control;
pub mod converse;
pub mod eventstream;
pub mod fault;
pub mod invoke;
pub mod judge;
pub mod keyring;
pub mod metadata;
pub mod operation;
mod patterns;
pub mod planted;
pub mod record;
mod resources;
pub mod respond;
pub mod retention;
mod server;
pub mod sigv4;
#[cfg(test)]
mod sigv4_tests;
pub mod sources;
pub mod tls;
pub mod usage;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub use self::catalogue::{Catalogue, CatalogueError};
pub use self::fault::{ListFault, PathFault};
pub use self::judge::{Endpoints, Verdict};
pub use self::keyring::Keyring;
pub use self::planted::{GetFault, Planted};
pub use self::record::Received;
pub use self::retention::Retention;
pub use self::sigv4::AccessKey;

use self::judge::Rules;
use self::record::Records;
use self::server::{Shared, serve};
use self::tls::{Authority, TlsError};

/// AWS's documented example key, which signs if no other is given.
pub const EXAMPLE_ACCESS_KEY: &str = "AKIDEXAMPLE";

/// The secret of [`EXAMPLE_ACCESS_KEY`].
pub const EXAMPLE_SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// How many requests are kept for [`Running::requests`] by default.
const KEEP: usize = 10_000;

/// Why a double did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Cannot listen on the address.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The file of records cannot be opened.
    #[error("cannot open the record file {path}: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The list of models is malformed.
    #[error(transparent)]
    Models(#[from] CatalogueError),
    /// The runtime does not start.
    #[error("runtime: {0}")]
    Runtime(#[source] io::Error),
}

/// Creates a [`Builder`].
#[derive(Debug)]
pub struct Double;

impl Double {
    /// A double on a free port of 127.0.0.1 for us-east-1 and us-west-2, with AWS's example key.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls_dir: None,
            path_name: "direct".to_owned(),
            delay: Duration::ZERO,
            access_keys: Vec::new(),
            keyring: None,
            bearer: None,
            regions: Vec::new(),
            endpoints: Endpoints::Any,
            lenient_headers: false,
            h2: true,
            record: None,
            keep: KEEP,
            models: None,
            resources: Vec::new(),
        }
    }
}

/// The settings of a double.
#[derive(Debug)]
pub struct Builder {
    listen: SocketAddr,
    tls_dir: Option<PathBuf>,
    path_name: String,
    delay: Duration,
    access_keys: Vec<AccessKey>,
    keyring: Option<Keyring>,
    bearer: Option<String>,
    regions: Vec<String>,
    endpoints: Endpoints,
    lenient_headers: bool,
    h2: bool,
    record: Option<PathBuf>,
    keep: usize,
    models: Option<String>,
    resources: Vec<(String, String)>,
}

impl Builder {
    /// The address; port 0 takes a free one.
    #[must_use]
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen = addr;
        self
    }

    /// The folder of the certificate authority, made if missing. Default: `bedrock-double` among the system's temporary files.
    #[must_use]
    pub fn tls_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.tls_dir = Some(dir.into());
        self
    }

    /// The name of the path, for the records.
    #[must_use]
    pub fn path_name(mut self, name: impl Into<String>) -> Self {
        self.path_name = name.into();
        self
    }

    /// A delay before every answer.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// A key that may sign; more than one may be given. `session_token` must then be sent, or else must not.
    #[must_use]
    pub fn access_key(
        mut self,
        id: impl Into<String>,
        secret: impl Into<String>,
        session_token: Option<String>,
    ) -> Self {
        self.access_keys.push(AccessKey { id: id.into(), secret: secret.into(), session_token });
        self
    }

    /// Keys that are issued and revoked while it runs, in addition to those given here.
    #[must_use]
    pub fn keyring(mut self, keyring: &Keyring) -> Self {
        self.keyring = Some(keyring.clone());
        self
    }

    /// The API key that is taken as bearer. Without access keys it is then the only way in.
    #[must_use]
    pub fn bearer(mut self, key: impl Into<String>) -> Self {
        self.bearer = Some(key.into());
        self
    }

    /// A region that is served; more than one may be given.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.regions.push(region.into());
        self
    }

    /// Whether hosts are with `-fips`, without, or either.
    #[must_use]
    pub fn endpoints(mut self, endpoints: Endpoints) -> Self {
        self.endpoints = endpoints;
        self
    }

    /// Accepts any header, and a port in Host.
    #[must_use]
    pub fn lenient_headers(mut self, lenient: bool) -> Self {
        self.lenient_headers = lenient;
        self
    }

    /// Whether ALPN offers h2; http/1.1 it offers always.
    #[must_use]
    pub fn h2(mut self, h2: bool) -> Self {
        self.h2 = h2;
        self
    }

    /// A file to append every request to, one JSON object a line; bearer keys and session tokens are masked.
    #[must_use]
    pub fn record(mut self, file: impl Into<PathBuf>) -> Self {
        self.record = Some(file.into());
        self
    }

    /// How many requests are kept in memory; the oldest are forgotten.
    #[must_use]
    pub fn keep(mut self, requests: usize) -> Self {
        self.keep = requests;
        self
    }

    /// The models, in the form of [`Catalogue::from_csv`], instead of those that come with the double.
    #[must_use]
    pub fn models(mut self, csv: impl Into<String>) -> Self {
        self.models = Some(csv.into());
        self
    }

    /// The id of a guardrail or project that exists in one region. An id that is in no such list exists in each.
    #[must_use]
    pub fn resource(mut self, id: impl Into<String>, region: impl Into<String>) -> Self {
        self.resources.push((id.into(), region.into()));
        self
    }

    /// Starts it on its own threads; when this returns, connections are accepted.
    ///
    /// # Errors
    /// No certificate, no address, no record file, no threads.
    pub fn start(mut self) -> Result<Running, StartError> {
        if self.access_keys.is_empty() && self.bearer.is_none() {
            self = self.access_key(EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY, None);
        }
        if self.regions.is_empty() {
            self = self.region("us-east-1").region("us-west-2");
        }
        let tls_dir = self.tls_dir.unwrap_or_else(|| std::env::temp_dir().join("bedrock-double"));
        let rules = Rules {
            access_keys: self.access_keys,
            keyring: self.keyring,
            bearer: self.bearer,
            regions: self.regions,
            endpoints: self.endpoints,
            lenient_headers: self.lenient_headers,
        };
        let authority = Authority::open(&tls_dir)?;
        let tls = TlsAcceptor::from(authority.server(rules.host_names(), self.h2)?);
        let records = Records::new(self.keep, self.record.as_deref())
            .map_err(|source| StartError::Record { path: self.record.clone().unwrap_or_default(), source })?;
        let catalogue = self.models.map_or_else(Catalogue::shipped, |csv| Catalogue::from_csv(&csv))?;
        let shared = Arc::new(Shared {
            rules,
            catalogue: RwLock::new(Arc::new(catalogue)),
            lists: RwLock::default(),
            retention: RwLock::default(),
            gets: RwLock::default(),
            resources: self.resources,
            records,
            path_name: self.path_name,
            delay: self.delay,
            fault: watch::Sender::new(PathFault::None),
            ids: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bedrock-double")
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let listen = |source| StartError::Listen { addr: self.listen, source };
        // Not `block_on`: a test may be within a runtime already.
        let listener = std::net::TcpListener::bind(self.listen).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let listener = {
            let _within = runtime.enter();
            TcpListener::from_std(listener).map_err(listen)?
        };
        let addr = listener.local_addr().map_err(listen)?;
        let serving = serve(listener, tls, Arc::clone(&shared));
        runtime.spawn(async move {
            if let Err(error) = serving.await {
                eprintln!("bedrock-double: serving {addr} ended: {error}");
            }
        });
        Ok(Running { addr, ca_pem: authority.certificate().to_owned(), shared, runtime: Some(runtime) })
    }
}

/// A running double. Dropping it closes its port and connections.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    ca_pem: PathBuf,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The certificate to trust.
    #[must_use]
    pub fn ca_pem_path(&self) -> &Path {
        &self.ca_pem
    }

    /// Every host name it has a certificate for.
    #[must_use]
    pub fn host_names(&self) -> Vec<String> {
        self.shared.rules.host_names()
    }

    /// The requests, health checks included, oldest first. A request is listed before its answer starts.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.shared.records.kept()
    }

    /// Requests that a gateway must never send.
    #[must_use]
    pub fn violations(&self) -> Vec<Received> {
        let mut all = self.requests();
        all.retain(Received::is_violation);
        all
    }

    /// The number of such requests since the start, and the first ones: also those that are not kept.
    #[must_use]
    pub fn refused(&self) -> (u64, Vec<Received>) {
        self.shared.records.refused()
    }

    /// Forgets what arrived so far.
    pub fn clear(&self) {
        self.shared.records.clear();
    }

    /// Sets the path's fault; [`PathFault::None`] ends it.
    pub fn set_fault(&self, fault: PathFault) {
        self.shared.fault.send_replace(fault);
    }

    /// Replaces the models, in the form of [`Catalogue::from_csv`].
    ///
    /// # Errors
    /// The list is malformed; the old one stays.
    pub fn set_models(&self, csv: &str) -> Result<(), CatalogueError> {
        let mut catalogue = self.shared.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        let resources = catalogue.resources().to_vec();
        *catalogue = Arc::new(Catalogue::from_csv(csv)?.with_resources(resources));
        Ok(())
    }

    /// Replaces the account's own resources, besides those that are always there.
    pub fn set_resources(&self, resources: Vec<Planted>) {
        let mut catalogue = self.shared.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        *catalogue = Arc::new(Catalogue::clone(&catalogue).with_resources(resources));
    }

    /// Sets the fault of the operations that describe one resource; [`GetFault::None`] ends it.
    pub fn set_get_fault(&self, fault: GetFault) {
        *self.shared.gets.write().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Sets the fault of the lists of models and profiles; [`ListFault::None`] ends it.
    pub fn set_list_fault(&self, fault: ListFault) {
        *self.shared.lists.write().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Sets the data retention of the account and its projects, in all of the double's regions.
    pub fn set_retention(&self, retention: Retention) {
        *self.shared.retention.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(retention);
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // On another thread: a runtime must not end within another one, and tests run in one.
            let _ = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(1))).join();
        }
    }
}
