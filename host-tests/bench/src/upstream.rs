//! An upstream that only answers: over TLS, the same bytes to every request, or slowly a word after the other. It judges no
//! signature, so that contenders without one get the same answers; it counts how calls are authorized.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bedrock_double::tls::Authority;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::Error;
use crate::streams;

/// The host that every contender calls.
pub(crate) const HOST: &str = "bedrock-runtime.us-east-1.amazonaws.com";
/// The host's name for contenders that are told an address.
pub(crate) const LOCAL: &str = "localhost";
/// As long as those of temporary keys.
pub(crate) const SESSION_TOKEN: &str = concat!(
    "IQoJb3JpZ2luX2VjEXAMPLE////////wEaCXVzLWVhc3QtMSJHMEUCIQDexampleexampleexampleexampleexampleexampleexample",
    "IQoJb3JpZ2luX2VjEXAMPLE////////wEaCXVzLWVhc3QtMSJHMEUCIQDexampleexampleexampleexampleexampleexampleexample",
    "IQoJb3JpZ2luX2VjEXAMPLE////////wEaCXVzLWVhc3QtMSJHMEUCIQDexampleexampleexampleexampleexampleexampleexample",
    "IQoJb3JpZ2luX2VjEXAMPLE////////wEaCXVzLWVhc3QtMSJHMEUCIQDexampleexampleexampleexampleexampleexampleexample",
);
/// An answer of Converse.
const ANSWER: &str = r#"{"metrics":{"latencyMs":300},"output":{"message":{"content":[{"text":"A call finds its way."}],"role":"assistant"}},"stopReason":"end_turn","usage":{"inputTokens":30,"outputTokens":7,"totalTokens":37}}"#;

const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";
/// The time between two frames of a slow stream.
const WORD: Duration = Duration::from_secs(1);

/// How a call is authorized.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scheme {
    None,
    Bearer,
    SigV4,
}

impl Scheme {
    fn of(request: &Request<Incoming>) -> Option<Self> {
        let Some(value) = request.headers().get("authorization") else { return Some(Self::None) };
        match value.to_str().ok()?.split_once(' ')?.0 {
            "Bearer" => Some(Self::Bearer),
            "AWS4-HMAC-SHA256" => Some(Self::SigV4),
            _ => None,
        }
    }
}

/// A running upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    /// The PEM file of its CA.
    pub(crate) ca: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The answer to ConverseStream.
    stream: Bytes,
    /// Tells slow streams to end.
    ends: watch::Sender<()>,
    /// Converse and ConverseStream, by their [`Scheme`].
    calls: [AtomicU32; 3],
}

type Answer = Either<Full<Bytes>, StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>>;

impl Upstream {
    /// Starts it in this process. `stream` answers ConverseStream.
    pub(crate) async fn start(dir: &Path, stream: Bytes) -> Result<Self, Error> {
        let authority = Authority::open(dir)?;
        let tls = TlsAcceptor::from(authority.server(vec![HOST.to_owned(), LOCAL.to_owned()], true)?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { stream, ends: watch::Sender::new(()), calls: Default::default() });
        tokio::spawn(serve(listener, tls, Arc::clone(&shared)));
        Ok(Self { address, ca: authority.certificate().to_owned(), shared })
    }

    /// Sends the last frames of all slow streams.
    pub(crate) fn end_slow_streams(&self) {
        self.shared.ends.send_replace(());
    }

    /// The calls so far that were authorized in this way. It judges no signature.
    pub(crate) fn calls(&self, scheme: Scheme) -> u32 {
        self.shared.calls.get(scheme as usize).map_or(0, |calls| calls.load(Ordering::Relaxed))
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((connection, _)) = listener.accept().await else {
            // Such as too many open files.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let _ = connection.set_nodelay(true);
            let Ok(connection) = tls.accept(connection).await else { return };
            let h2 = connection.get_ref().1.alpn_protocol() == Some(b"h2");
            let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
            let io = TokioIo::new(connection);
            if h2 {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(io, service).await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            }
        });
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Answer>, Infallible> {
    let (path, scheme, ends) = (request.uri().path().to_owned(), Scheme::of(&request), shared.ends.subscribe());
    // A body that breaks off ends its connection.
    let _ = request.into_body().collect().await;
    if let Some(calls) = scheme.and_then(|scheme| shared.calls.get(scheme as usize))
        && (path.ends_with("/converse") || path.ends_with("/converse-stream"))
    {
        calls.fetch_add(1, Ordering::Relaxed);
    }
    let (kind, body) = if path.contains(streams::SLOW) {
        (EVENT_STREAM, Either::Right(slow(ends)))
    } else if path.ends_with("-stream") {
        (EVENT_STREAM, Either::Left(Full::new(shared.stream.clone())))
    } else {
        ("application/json", Either::Left(Full::new(Bytes::from_static(ANSWER.as_bytes()))))
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in [("content-type", kind), ("x-amzn-requestid", "5d7a6c1e-0000-4000-8000-000000000000")] {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    Ok(response)
}

/// A stream with a word a second, until it is told to end.
fn slow(mut ends: watch::Receiver<()>) -> StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut frame = streams::start();
        while sender.send(Ok(Frame::data(frame.into()))).await.is_ok() {
            frame = streams::word();
            if tokio::time::timeout(WORD, ends.changed()).await.is_ok() {
                let _ = sender.send(Ok(Frame::data(streams::end().into()))).await;
                return;
            }
        }
    });
    StreamBody::new(ReceiverStream::new(receiver))
}
