//! The listener, its connections and the exchange of one request.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use hyper::body::{Body, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::answer::{Answer, Cut, Script, Step};
use super::catalogue::Catalogue;
use super::fault::{ListFault, PathFault};
use super::judge::{Admitted, Rules, Verdict};
use super::metadata;
use super::operation::Operation;
use super::planted::GetFault;
use super::record::{Received, Records};
use super::respond::{Asked, Outcome, named_project, respond};
use super::retention::Retention;
use super::sigv4::WireRequest;

/// Bodies over this many bytes get 413.
pub(super) const MAX_BODY: usize = 32 << 20;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a listener that was closed on purpose tries to bind its port again.
const REBIND: Duration = Duration::from_secs(5);

const MILLIS: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) rules: Rules,
    pub(super) catalogue: RwLock<Arc<Catalogue>>,
    pub(super) lists: RwLock<ListFault>,
    pub(super) retention: RwLock<Arc<Retention>>,
    pub(super) gets: RwLock<GetFault>,
    /// Ids of the account, each with its region.
    pub(super) resources: Vec<(String, String)>,
    pub(super) records: Records,
    pub(super) path_name: String,
    pub(super) delay: Duration,
    pub(super) fault: watch::Sender<PathFault>,
    pub(super) ids: AtomicU64,
}

impl Shared {
    /// A unique id in the form of a UUID.
    fn request_id(&self) -> String {
        let nth = self.ids.fetch_add(1, Ordering::Relaxed);
        let seed = format!("{:?} {} {nth}", SystemTime::now(), std::process::id());
        let hex = hex::encode(Sha256::digest(seed));
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        format!("{}-{}-4{}-8{}-{}", part(0, 8), part(8, 12), part(12, 15), part(15, 18), part(18, 30))
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The answer to a call as the faults of lists and resources make it.
    fn spoiled(&self, operation: Operation, outcome: Outcome) -> Outcome {
        let is_list = matches!(operation, Operation::ListFoundationModels | Operation::ListInferenceProfiles);
        let fault = *self.lists.read().unwrap_or_else(PoisonError::into_inner);
        let get = *self.gets.read().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Outcome::Answer(wait, answer) if GetFault::concerns(operation) => {
                get.spoil(answer).map_or(Outcome::Silence, |answer| Outcome::Answer(wait, answer))
            }
            Outcome::Answer(wait, answer) if is_list => Outcome::Answer(wait, fault.spoil(answer)),
            outcome => outcome,
        }
    }

    fn fault(&self) -> PathFault {
        self.fault.borrow().clone()
    }
}

/// Accepts until the runtime ends.
pub(super) async fn serve(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) -> io::Result<()> {
    let addr = listener.local_addr()?;
    let mut listener = Some(listener);
    let mut fault = shared.fault.subscribe();
    loop {
        let refuses = *fault.borrow_and_update() == PathFault::Refuse;
        if refuses {
            listener = None;
        } else if listener.is_none() {
            listener = Some(bind_again(addr).await?);
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = fault.changed() => if changed.is_err() { return Ok(()) },
            accepted = accepted => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, tls.clone(), Arc::clone(&shared)))),
                // Such as too many open files; the next accept may succeed.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

async fn bind_again(addr: SocketAddr) -> io::Result<TcpListener> {
    let start = Instant::now();
    loop {
        match TcpListener::bind(addr).await {
            Err(_) if start.elapsed() < REBIND => tokio::time::sleep(Duration::from_millis(5)).await,
            bound => return bound,
        }
    }
}

/// A TCP stream that can end with a reset.
struct Wire {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // A closed stream cannot be reset, and need not be.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The result of the TLS handshake.
#[derive(Debug, Clone)]
struct Session {
    sni: Option<String>,
    alpn: Option<String>,
    tls: String,
    reset: Arc<AtomicBool>,
}

/// Serves a connection until it ends or a fault of the path ends it.
async fn connection(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    let reset = Arc::new(AtomicBool::new(false));
    // Sends frames as they are written.
    let _ = stream.set_nodelay(true);
    let wire = Wire { stream, reset: Arc::clone(&reset) };
    let mut fault = shared.fault.subscribe();
    let mut talk = std::pin::pin!(talk(wire, tls, shared, Arc::clone(&reset)));
    loop {
        let now = fault.borrow_and_update().clone();
        match now {
            PathFault::Refuse | PathFault::Reset => {
                reset.store(true, Ordering::Relaxed);
                return;
            }
            PathFault::Silent => {
                // Nothing is polled, so nothing is read or written. The connection cannot continue afterwards.
                let _ = fault.changed().await;
                reset.store(true, Ordering::Relaxed);
                return;
            }
            PathFault::None
            | PathFault::Status(_)
            | PathFault::Mute
            | PathFault::Delay(_)
            | PathFault::Stall(..)
            | PathFault::Throttle(..) => {}
        }
        tokio::select! {
            () = &mut talk => return,
            changed = fault.changed() => if changed.is_err() { return },
        }
    }
}

async fn talk(wire: Wire, tls: TlsAcceptor, shared: Arc<Shared>, reset: Arc<AtomicBool>) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(wire)).await else {
        return;
    };
    let (_, settled) = stream.get_ref();
    let session = Session {
        sni: settled.server_name().map(str::to_owned),
        alpn: settled.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        tls: settled.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default(),
        reset,
    };
    let speaks_h2 = session.alpn.as_deref() == Some("h2");
    let service = service_fn(move |request| exchange(request, session.clone(), Arc::clone(&shared)));
    let io = TokioIo::new(stream);
    // The client sees how the connection ends.
    let _ended = if speaks_h2 {
        http2::Builder::new(TokioExecutor::new()).adaptive_window(true).serve_connection(io, service).await
    } else {
        http1::Builder::new().serve_connection(io, service).await
    };
}

/// The body's length and hash, and the body itself up to the limit; an error if the peer left.
async fn read_body(mut body: Incoming) -> Result<(Vec<u8>, u64, String), hyper::Error> {
    let (mut kept, mut length, mut hash) = (Vec::new(), 0_u64, Sha256::new());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            hash.update(&data);
            length += data.len() as u64;
            if length <= MAX_BODY as u64 {
                kept.extend_from_slice(&data);
            }
        }
    }
    Ok((kept, length, hex::encode(hash.finalize())))
}

/// All headers in the order that hyper keeps them, with `host` from `:authority` if it is absent.
fn headers_of<B>(request: &Request<B>) -> Vec<(String, Vec<u8>)> {
    let mut headers: Vec<_> =
        request.headers().iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    if let Some(authority) = request.uri().authority().map(|authority| authority.as_str().as_bytes().to_vec())
        && !headers.iter().any(|(name, value)| name == "host" && *value == authority)
    {
        headers.insert(0, ("host".to_owned(), authority));
    }
    headers
}

async fn exchange(request: Request<Incoming>, session: Session, shared: Arc<Shared>) -> Result<Response<Script>, Cut> {
    let started = Instant::now();
    let headers = headers_of(&request);
    let method = request.method().as_str().to_owned();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let read = read_body(request.into_body()).await;
    let now = OffsetDateTime::from(SystemTime::now());

    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let mut received = Received {
        time: now.format(MILLIS).unwrap_or_default(),
        path_name: shared.path_name.clone(),
        request_id: shared.request_id(),
        host: headers.iter().find(|(name, _)| name == "host").map(|(_, value)| text(value)).unwrap_or_default(),
        headers: headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        method,
        path,
        query,
        sni: session.sni.clone(),
        alpn: session.alpn.clone(),
        tls: session.tls.clone(),
        body_bytes: 0,
        body_sha256: String::new(),
        region: None,
        operation: None,
        labels: Vec::new(),
        request_metadata: BTreeMap::new(),
        retention: None,
        verdict: Verdict::Aborted,
        status: 0,
    };
    let Ok((body, body_bytes, body_sha256)) = read else {
        shared.records.add(received);
        return Err(Cut);
    };
    (received.body_bytes, received.body_sha256) = (body_bytes, body_sha256);
    let admitted = {
        let wire = WireRequest {
            method: &received.method,
            path: &received.path,
            query: &received.query,
            headers: &headers,
            body_sha256: &received.body_sha256,
        };
        shared.rules.judge(&wire, session.sni.as_deref(), now)
    };
    // Parsing 20 MB takes long, so other calls must be served at the same time.
    let outcome = tokio::task::block_in_place(|| settle(&mut received, admitted, &body, started, &shared));
    finish(received, outcome, &session, &shared).await
}

/// Decides the answer and records the verdict.
fn settle(
    received: &mut Received,
    admitted: Result<Admitted, Verdict>,
    body: &[u8],
    started: Instant,
    shared: &Shared,
) -> Outcome {
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(verdict) => {
            let answer = match &verdict {
                Verdict::Refused { status, error_type, message } => Answer::error(*status, error_type, message),
                _ => Answer::error(403, "MissingAuthenticationTokenException", "Missing Authentication Token"),
            };
            received.verdict = verdict;
            return Outcome::now(answer);
        }
    };
    received.verdict = admitted.verdict;
    received.region = Some(admitted.region.clone());
    received.operation = Some(format!("{:?}", admitted.call.operation));
    received.labels.clone_from(&admitted.call.labels);
    if received.body_bytes > MAX_BODY as u64 {
        return Outcome::now(Answer::error(413, "ValidationException", "The request body is too large."));
    }
    let parsed = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(body) };
    let header = received.header(metadata::HEADER);
    match metadata::read(admitted.call.operation, header, parsed.as_ref().ok()) {
        Ok(entries) => received.request_metadata = entries,
        Err(message) => return Outcome::now(Answer::error(400, "ValidationException", &message)),
    }
    let retention = Arc::clone(&shared.retention.read().unwrap_or_else(PoisonError::into_inner));
    let asked = Asked {
        call: &admitted.call,
        region: &admitted.region,
        query: &received.query,
        accept: received.header("accept").filter(|accept| *accept != "*/*"),
        body: parsed,
        catalogue: &shared.catalogue(),
        retention: &retention,
        guardrail: received.header("x-amzn-bedrock-guardrailidentifier"),
        guardrail_version: received.header("x-amzn-bedrock-guardrailversion"),
        project: received.header("x-amzn-bedrock-projectidentifier"),
        resources: &shared.resources,
        elapsed: started.elapsed() + shared.delay,
    };
    let mode = retention.effective(named_project(&asked).as_deref()).to_owned();
    let outcome = respond(&asked);
    received.retention = (received.method == "POST").then_some(mode);
    shared.spoiled(admitted.call.operation, outcome)
}

/// Waits, resets or answers, by the faults.
async fn finish(
    mut received: Received,
    outcome: Outcome,
    session: &Session,
    shared: &Shared,
) -> Result<Response<Script>, Cut> {
    let called = |model: &str| received.labels.first().is_some_and(|label| label.contains(model));
    let (wait, answer) = match (shared.fault(), outcome) {
        (PathFault::Mute, _) | (_, Outcome::Silence) => (None, None),
        (_, Outcome::Reset) => (Some(Duration::ZERO), None),
        (PathFault::Status(status), _) => (
            Some(Duration::ZERO),
            Some(Answer::error(status, super::fault::error_type_of(status), "The path answers so to everything.")),
        ),
        (PathFault::Throttle(status, model), _) if called(&model) => (
            Some(Duration::ZERO),
            Some(Answer::error(status, super::fault::error_type_of(status), "The region answers so to this model.")),
        ),
        (PathFault::Delay(more), Outcome::Answer(wait, answer)) => (Some(wait + more), Some(answer)),
        (PathFault::Stall(more, after_headers), Outcome::Answer(wait, mut answer)) if called("") => {
            if after_headers {
                answer.body.insert(0, Step::Pause(more));
                (Some(wait), Some(answer))
            } else {
                (Some(wait + more), Some(answer))
            }
        }
        (_, Outcome::Answer(wait, answer)) => (Some(wait), Some(answer)),
    };
    received.status = answer.as_ref().map_or(0, |answer| answer.status);
    let request_id = received.request_id.clone();
    shared.records.add(received);

    let Some(wait) = wait else {
        return muted(shared).await;
    };
    let wait = wait + shared.delay;
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let Some(answer) = answer else {
        // On HTTP/2 only the stream is reset: others share the connection.
        session.reset.store(session.alpn.as_deref() != Some("h2"), Ordering::Relaxed);
        return Err(Cut);
    };
    // Resetting an HTTP/2 stream keeps its connection.
    let reset = if session.alpn.as_deref() == Some("h2") { Arc::default() } else { Arc::clone(&session.reset) };
    let mut response = Response::new(Script::new(answer.body, reset));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let named = answer.headers.into_iter().chain([("x-amzn-requestid", request_id)]);
    for (name, value) in named {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    Ok(response)
}

/// Never answers. When the fault ends, the waiting connection is reset.
fn muted(shared: &Shared) -> impl Future<Output = Result<Response<Script>, Cut>> + use<> {
    let mut fault = shared.fault.subscribe();
    async move {
        let was_mute = *fault.borrow_and_update() == PathFault::Mute;
        while was_mute && *fault.borrow_and_update() == PathFault::Mute {
            if fault.changed().await.is_err() {
                break;
            }
        }
        if !was_mute {
            std::future::pending::<()>().await;
        }
        Err(Cut)
    }
}
