//! Doubles of credential sources: the container endpoint, the instance metadata service (version 2), the Secrets
//! Manager Agent and STS's GetWebIdentityToken and AssumeRoleWithWebIdentity, on one plain HTTP listener.
//!
//! They are stricter than the originals: a request without the right token, method, header or signature gets AWS's error
//! and is kept as a complaint.

mod answer;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::Keyring;

/// The `authorization` that the container endpoint requires.
pub const CONTAINER_TOKEN: &str = "example-container-token";
/// The `x-aws-parameters-secrets-token` that the agent requires.
pub const AGENT_TOKEN: &str = "example-agent-token";
/// The role of the instance.
pub const ROLE: &str = "gateway-role";
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
}

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
}

#[derive(Debug)]
struct State {
    trouble: Trouble,
    lifetime: Duration,
    served: BTreeMap<String, usize>,
    complaints: Vec<String>,
    /// Sessions of the metadata service, and federation tokens, that were issued.
    tokens: Vec<String>,
}

/// Running sources; dropping it ends them.
#[derive(Debug)]
pub struct Sources {
    addr: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Sources {
    /// Starts them on a free port of 127.0.0.1. Keys live for `lifetime`; Bedrock's doubles accept those of `bedrock`.
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
            lifetime,
            served: BTreeMap::new(),
            complaints: Vec::new(),
            tokens: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            local: Keyring::default(),
            bedrock: bedrock.clone(),
            sts,
            gives_bedrock_keys,
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
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one push, so a panic leaves valid data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lifetime of the next keys; zero if they must be expired.
    pub(crate) fn lifetime(&self) -> Duration {
        let state = self.lock();
        if state.trouble == Trouble::Expired { Duration::ZERO } else { state.lifetime }
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

async fn exchange(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, Infallible> {
    let trouble = shared.lock().trouble;
    let plain = |text: &'static str| Ok(Response::new(Full::new(Bytes::from_static(text.as_bytes()))));
    match trouble {
        Trouble::Slow(by) => tokio::time::sleep(by).await,
        Trouble::Garbage => return plain("\u{1}\u{2} <no> {credentials}"),
        Trouble::OtherJson => return plain(r#"{"hello":"world"}"#),
        Trouble::None | Trouble::Down | Trouble::Expired => {}
    }
    let (parts, body) = request.into_parts();
    // A body that broke off is judged by its first part.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Ok(answer::answer(&parts, &body, &shared))
}
