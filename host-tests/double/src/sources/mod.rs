//! Doubles of credential sources on one plain HTTP listener: the container endpoint, the instance metadata service (version
//! 2), the Secrets Manager Agent, STS of both partitions with GetWebIdentityToken and AssumeRoleWithWebIdentity, and
//! CreateSession of IAM Roles Anywhere.
//!
//! They are stricter than the originals. A request that AWS refuses gets AWS's error, by code and words, and is kept as a
//! complaint. The rules have their source next to them: a page of AWS, or a public issue that quotes AWS's words
//! ("observed"). None of it was compared with AWS itself.

pub mod account;
mod answer;
pub mod issuer;
pub mod jwt;
mod local;
mod policy;
mod roles_anywhere;
mod sts;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use self::account::Account;
use self::answer::header;
use self::jwt::{Algorithm, Signer};
use crate::{AccessKey, Keyring};

/// The `authorization` that the container endpoint requires.
pub const CONTAINER_TOKEN: &str = "example-container-token";
/// The `x-aws-parameters-secrets-token` that the agent requires.
pub const AGENT_TOKEN: &str = "example-agent-token";
/// The role of the instance, the last part of [`account::GOVCLOUD_ROLE_ARN`].
pub const ROLE: &str = "bedrock-gateway";
/// The secret that the agent has.
pub const SECRET: &str = "bedrock/api-key";

/// A fault of the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    /// No fault.
    #[default]
    None,
    /// It closes connections.
    Down,
    /// It delays its answers.
    Slow(Duration),
    /// It answers 200 with bytes that are not JSON.
    Garbage,
    /// It answers 200 with other JSON.
    OtherJson,
    /// The keys that it gives have expired.
    Expired,
    /// It answers that its rate is exceeded.
    Throttled,
    /// It answers 503.
    Unavailable,
}

/// A service behind the one listener, for a fault of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// The metadata service, the container endpoint and the Secrets Manager Agent.
    Local,
    GovCloudSts,
    CommercialSts,
    RolesAnywhere,
}

impl Service {
    fn of(parts: &Parts) -> Self {
        match (parts.method.as_str(), parts.uri.path()) {
            ("POST", "/sessions") => Self::RolesAnywhere,
            ("POST", "/") if header(parts, "host").contains(".us-gov-") => Self::GovCloudSts,
            ("POST", "/") => Self::CommercialSts,
            _ => Self::Local,
        }
    }
}

/// "Rate of CreateSession requests": https://docs.aws.amazon.com/rolesanywhere/latest/userguide/quotas.html. A token bucket, as IAM
/// and STS have (https://aws.amazon.com/blogs/security/how-to-monitor-and-query-iam-resources-at-scale-part-2/).
const SESSIONS_PER_SECOND: f64 = 10.0;
/// How long keys of the GovCloud role live by default, as those of the metadata service do at most.
const GOVCLOUD_LIFETIME: Duration = Duration::from_secs(6 * 3600);

/// The state that all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Keys of the GovCloud identity, which sign requests to STS.
    pub(crate) local: Keyring,
    /// Keys that Bedrock accepts.
    pub(crate) bedrock: Keyring,
    /// Another STS, which issues the keys of roles.
    pub(crate) sts: Option<SocketAddr>,
    /// Whether the local endpoints issue keys that Bedrock accepts, instead of those of a GovCloud identity.
    pub(crate) gives_bedrock_keys: bool,
    /// GovCloud's keys for tokens: RS256 and ES384.
    signers: [Signer; 2],
}

#[derive(Debug)]
struct State {
    trouble: Trouble,
    /// Faults of single services, which come before `trouble`.
    troubles: BTreeMap<Service, Trouble>,
    /// Of keys that Bedrock accepts.
    lifetime: Duration,
    /// Of keys of the GovCloud role.
    govcloud_lifetime: Duration,
    served: BTreeMap<String, usize>,
    complaints: Vec<String>,
    /// Sessions of the metadata service that were issued.
    tokens: Vec<String>,
    account: Account,
    /// The time, if it stands still.
    clock: Option<OffsetDateTime>,
    /// Requests that have an id.
    requests: u64,
    /// CreateSession requests that may still be made, and since when.
    sessions: (f64, Instant),
    sessions_per_second: f64,
}

/// Running sources; dropping it ends them.
#[derive(Debug)]
pub struct Sources {
    addr: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Sources {
    /// Starts them on a free port of 127.0.0.1. Bedrock's doubles accept the keys of `bedrock`, which live for `lifetime` at
    /// most.
    ///
    /// # Errors
    /// No address, no threads.
    pub fn start(lifetime: Duration, bedrock: &Keyring, gives_bedrock_keys: bool) -> std::io::Result<Self> {
        Self::with_sts(lifetime, bedrock, gives_bedrock_keys, None)
    }

    /// As [`Sources::start`]; AssumeRoleWithWebIdentity is passed on to `sts` if it is valid.
    ///
    /// # Errors
    /// As there.
    pub fn with_sts(
        lifetime: Duration,
        bedrock: &Keyring,
        gives_bedrock_keys: bool,
        sts: Option<SocketAddr>,
    ) -> std::io::Result<Self> {
        let state = State {
            trouble: Trouble::None,
            troubles: BTreeMap::new(),
            lifetime,
            govcloud_lifetime: GOVCLOUD_LIFETIME,
            served: BTreeMap::new(),
            complaints: Vec::new(),
            tokens: Vec::new(),
            account: Account::default(),
            clock: None,
            requests: 0,
            sessions: (SESSIONS_PER_SECOND, Instant::now()),
            sessions_per_second: SESSIONS_PER_SECOND,
        };
        // The names are made up.
        let signer = |algorithm, kid| Signer::new(algorithm, kid).map_err(std::io::Error::other);
        let signers = [signer(Algorithm::Rs256, "RSA_0")?, signer(Algorithm::Es384, "EC384_0")?];
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            local: Keyring::default(),
            bedrock: bedrock.clone(),
            sts,
            gives_bedrock_keys,
            signers,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let listener = {
            let _within = runtime.enter();
            TcpListener::from_std(listener)?
        };
        runtime.spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, runtime: Some(runtime) })
    }

    /// Where they listen.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sets or ends a fault.
    pub fn set_trouble(&self, trouble: Trouble) {
        self.shared.lock().trouble = trouble;
    }

    /// Sets or ends the fault of one service.
    pub fn set_trouble_of(&self, service: Service, trouble: Trouble) {
        self.shared.lock().troubles.insert(service, trouble);
    }

    /// Raises the quota of CreateSession, as AWS does on request.
    pub fn set_sessions_per_second(&self, most: f64) {
        let mut state = self.shared.lock();
        (state.sessions, state.sessions_per_second) = ((most, Instant::now()), most);
    }

    /// How long keys of the GovCloud role live: 6 hours by default.
    pub fn set_govcloud_lifetime(&self, lifetime: Duration) {
        self.shared.lock().govcloud_lifetime = lifetime;
    }

    /// Changes the accounts, for the requests that follow.
    pub fn change(&self, change: impl FnOnce(&mut Account)) {
        change(&mut self.shared.lock().account);
    }

    /// Stops the clock at a time, or lets it run again.
    pub fn set_clock(&self, time: Option<OffsetDateTime>) {
        self.shared.lock().clock = time;
    }

    /// Keys of the gateway's GovCloud role, as the local endpoints give them.
    #[must_use]
    pub fn govcloud_key(&self, expires: OffsetDateTime) -> AccessKey {
        self.shared.local.issue("ASIALOCAL", expires)
    }

    /// GovCloud's signer of tokens.
    #[must_use]
    pub fn token_signer(&self, algorithm: Algorithm) -> &Signer {
        self.shared.signer(algorithm)
    }

    /// The number of successful answers of each API call.
    #[must_use]
    pub fn served(&self) -> BTreeMap<String, usize> {
        self.shared.lock().served.clone()
    }

    /// The invalid requests.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.shared.lock().complaints.clone()
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // On another thread: a runtime must not end within another one.
            let _ = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(1))).join();
        }
    }
}

impl Shared {
    /// Takes a request from the quota of CreateSession. `false`: there are too many.
    pub(crate) fn may_create_session(&self) -> bool {
        let mut state = self.lock();
        let (left, since) = state.sessions;
        let most = state.sessions_per_second;
        let left = (left + since.elapsed().as_secs_f64() * most).min(most);
        let may = left >= 1.0;
        state.sessions = (if may { left - 1.0 } else { left }, Instant::now());
        may
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one push, so a panic leaves valid data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self, service: Service) -> Trouble {
        let state = self.lock();
        let own = state.troubles.get(&service).copied().unwrap_or_default();
        if own == Trouble::None { state.trouble } else { own }
    }

    /// The longest lifetime of the next keys; zero if they must be expired.
    pub(crate) fn lifetime(&self, service: Service) -> Duration {
        if self.trouble(service) == Trouble::Expired {
            return Duration::ZERO;
        }
        let state = self.lock();
        let is_govcloud = service == Service::Local && !self.gives_bedrock_keys;
        if is_govcloud { state.govcloud_lifetime } else { state.lifetime }
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.lock().clock.unwrap_or_else(OffsetDateTime::now_utc)
    }

    pub(crate) fn account(&self) -> Account {
        self.lock().account.clone()
    }

    pub(crate) fn signers(&self) -> impl Iterator<Item = &Signer> {
        self.signers.iter()
    }

    /// The signer of an algorithm; STS has none for ES256, and uses ES384.
    pub(crate) fn signer(&self, algorithm: Algorithm) -> &Signer {
        let [rs256, es384] = &self.signers;
        if algorithm == Algorithm::Rs256 { rs256 } else { es384 }
    }

    /// An id for a request or a token.
    pub(crate) fn request_id(&self) -> String {
        let mut state = self.lock();
        state.requests += 1;
        format!("00000000-0000-4000-8000-{:012x}", state.requests)
    }

    /// Counts an answer.
    pub(crate) fn served(&self, question: &str) {
        *self.lock().served.entry(question.to_owned()).or_default() += 1;
    }

    pub(crate) fn complain(&self, what: String) {
        self.lock().complaints.push(what);
    }

    /// Issues a unique token.
    pub(crate) fn give_token(&self, prefix: &str) -> String {
        let mut state = self.lock();
        let token = format!("{prefix}{}", state.tokens.len() + 1);
        state.tokens.push(token.clone());
        token
    }

    /// Whether a token was issued.
    pub(crate) fn gave(&self, token: &str) -> bool {
        self.lock().tokens.iter().any(|given| given == token)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        if shared.lock().trouble == Trouble::Down {
            continue;
        }
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| exchange(request, Arc::clone(&shared)));
        // The client sees how the connection ends.
        tokio::spawn(http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service));
    }
}

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the source is down")]
struct Cut;

async fn exchange(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, Cut> {
    let (parts, body) = request.into_parts();
    // A body that broke off is judged by its first part.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let service = Service::of(&parts);
    // What the gateway's roles tell each other never leaves Envoy.
    if let Some(name) = parts.headers.keys().find(|name| name.as_str().starts_with("x-bedrock-gateway-")) {
        shared.complain(format!("the internal header {name} arrived"));
        return Ok(answer::text(400, String::new()));
    }
    let plain = |text: &'static str| Ok(Response::new(Full::new(Bytes::from_static(text.as_bytes()))));
    let fault = match shared.trouble(service) {
        Trouble::Down => return Err(Cut),
        Trouble::Garbage => return plain("\u{1}\u{2} <no> {credentials}"),
        Trouble::OtherJson => return plain(r#"{"hello":"world"}"#),
        Trouble::Slow(by) => {
            tokio::time::sleep(by).await;
            None
        }
        Trouble::Throttled => Some(true),
        Trouble::Unavailable => Some(false),
        Trouble::None | Trouble::Expired => None,
    };
    Ok(match (service, fault) {
        (Service::GovCloudSts | Service::CommercialSts, None) => sts::answer(&parts, &body, &shared),
        (Service::RolesAnywhere, None) => roles_anywhere::answer(&parts, &body, &shared),
        (Service::Local, None) => local::answer(&parts, &shared),
        (Service::GovCloudSts | Service::CommercialSts, Some(throttled)) => sts::fault(throttled, &shared),
        (Service::RolesAnywhere, Some(throttled)) => roles_anywhere::fault(throttled, &shared),
        (Service::Local, Some(throttled)) => answer::text(if throttled { 429 } else { 503 }, String::new()),
    })
}
