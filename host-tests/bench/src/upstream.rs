//! An upstream that only answers: over TLS, the same bytes to every request. It judges nothing, so that contenders without a
//! signature get the same answers.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bedrock_double::tls::Authority;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::error::Error;

/// The host that every contender calls.
pub(crate) const HOST: &str = "bedrock-runtime.us-east-1.amazonaws.com";
/// An answer of Converse.
const ANSWER: &str = r#"{"metrics":{"latencyMs":300},"output":{"message":{"content":[{"text":"A call finds its way."}],"role":"assistant"}},"stopReason":"end_turn","usage":{"inputTokens":30,"outputTokens":7,"totalTokens":37}}"#;

/// A running upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    /// What its clients trust.
    pub(crate) ca: PathBuf,
}

impl Upstream {
    /// Starts it in this process. `stream` answers ConverseStream.
    pub(crate) async fn start(dir: &Path, stream: Bytes) -> Result<Self, Error> {
        let authority = Authority::open(dir)?;
        let tls = TlsAcceptor::from(authority.server(vec![HOST.to_owned()], true)?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (tls, stream) = (tls.clone(), stream.clone());
                tokio::spawn(async move {
                    let _ = connection.set_nodelay(true);
                    let Ok(connection) = tls.accept(connection).await else { return };
                    let h2 = connection.get_ref().1.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| answer(request, stream.clone()));
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
        Ok(Self { address, ca: authority.certificate().to_owned() })
    }
}

async fn answer(request: Request<Incoming>, stream: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let streams = request.uri().path().ends_with("-stream");
    // A body that breaks off ends its connection.
    let _ = request.into_body().collect().await;
    let (kind, body) = match streams {
        true => ("application/vnd.amazon.eventstream", stream),
        false => ("application/json", Bytes::from_static(ANSWER.as_bytes())),
    };
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    for (name, value) in [("content-type", kind), ("x-amzn-requestid", "5d7a6c1e-0000-4000-8000-000000000000")] {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    Ok(response)
}
