//! An upstream that only answers: over TLS, the same bytes to every request, or slowly a word after the other. It judges nothing, so that contenders without a
//! signature get the same answers.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
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
/// An answer of Converse.
const ANSWER: &str = r#"{"metrics":{"latencyMs":300},"output":{"message":{"content":[{"text":"A call finds its way."}],"role":"assistant"}},"stopReason":"end_turn","usage":{"inputTokens":30,"outputTokens":7,"totalTokens":37}}"#;

const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";
/// The time between two frames of a slow stream.
const WORD: Duration = Duration::from_secs(1);

/// A running upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    /// What its clients trust.
    pub(crate) ca: PathBuf,
    slow: watch::Sender<()>,
}

type Answer = Either<Full<Bytes>, StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>>;

impl Upstream {
    /// Starts it in this process. `stream` answers ConverseStream.
    pub(crate) async fn start(dir: &Path, stream: Bytes) -> Result<Self, Error> {
        let authority = Authority::open(dir)?;
        let tls = TlsAcceptor::from(authority.server(vec![HOST.to_owned(), LOCAL.to_owned()], true)?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let slow = watch::Sender::new(());
        let ends = slow.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (tls, stream, ends) = (tls.clone(), stream.clone(), ends.clone());
                tokio::spawn(async move {
                    let _ = connection.set_nodelay(true);
                    let Ok(connection) = tls.accept(connection).await else { return };
                    let h2 = connection.get_ref().1.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| answer(request, stream.clone(), ends.subscribe()));
                    let io = TokioIo::new(connection);
                    if h2 {
                        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await;
                    } else {
                        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                    }
                });
            }
        });
        Ok(Self { address, ca: authority.certificate().to_owned(), slow })
    }

    /// Sends the last frames of all slow streams.
    pub(crate) fn end_slow_streams(&self) {
        self.slow.send_replace(());
    }
}

async fn answer(
    request: Request<Incoming>,
    stream: Bytes,
    ends: watch::Receiver<()>,
) -> Result<Response<Answer>, Infallible> {
    let path = request.uri().path().to_owned();
    // A body that breaks off ends its connection.
    let _ = request.into_body().collect().await;
    let (kind, body) = if path.contains(streams::SLOW) {
        (EVENT_STREAM, Either::Right(slow(ends)))
    } else if path.ends_with("-stream") {
        (EVENT_STREAM, Either::Left(Full::new(stream)))
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
