//! Eight connections, each with one call at a time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Error;

const CONNECTIONS: u32 = 8;
const MODEL: &str = "anthropic.claude-3-5-sonnet-20241022-v2%3A0";

/// What is called.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    /// `converse` or `converse-stream`.
    pub(crate) operation: &'static str,
    pub(crate) body: Bytes,
}

impl Calls {
    /// Converse with a body of so many bytes.
    pub(crate) fn converse(size: usize) -> Self {
        let start = r#"{"messages":[{"role":"user","content":[{"text":""#;
        let end = r#""}]}]}"#;
        let text = "a".repeat(size.saturating_sub(start.len() + end.len()));
        Self { operation: "converse", body: format!("{start}{text}{end}").into() }
    }

    /// Makes so many calls; every one must be answered with 200. Returns the time that each took.
    pub(crate) async fn make(&self, port: u16, count: u32) -> Result<Vec<Duration>, Error> {
        let left = Arc::new(AtomicU32::new(count));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (left, calls) = (Arc::clone(&left), self.clone());
            all.spawn(async move {
                let mut times = Vec::new();
                let mut connection = connect(port).await?;
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let start = Instant::now();
                    calls.once(&mut connection, port).await?;
                    times.push(start.elapsed());
                }
                Ok::<_, Error>(times)
            });
        }
        let mut times = Vec::new();
        while let Some(of) = all.join_next().await {
            times.extend(of.map_err(|error| Error::Call(error.to_string()))??);
        }
        Ok(times)
    }

    async fn once(&self, connection: &mut SendRequest<Full<Bytes>>, port: u16) -> Result<(), Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/model/{MODEL}/{}", self.operation))
            .header("host", format!("127.0.0.1:{port}"))
            .header("content-type", "application/json")
            .body(Full::new(self.body.clone()))?;
        let mut response = connection.send_request(request).await?;
        let status = response.status();
        let mut text = Vec::new();
        while let Some(frame) = response.frame().await {
            let data = frame?.into_data().unwrap_or_default();
            if status != 200 {
                text.extend_from_slice(&data);
            }
        }
        match status.as_u16() {
            200 => Ok(connection.ready().await?),
            other => Err(Error::Call(format!("status {other}: {}", String::from_utf8_lossy(&text)))),
        }
    }
}

async fn connect(port: u16) -> Result<SendRequest<Full<Bytes>>, Error> {
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
