//! Connections that make one call at a time each.

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

use crate::error::Error;
use crate::streams;

/// Connections that make calls without a stream.
const CONNECTIONS: u32 = 8;
const MODEL: &str = "anthropic.claude-3-5-sonnet-20241022-v2%3A0";

/// What is called.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    path: String,
    body: Bytes,
    /// The last bytes of every answer.
    end: Bytes,
    connections: u32,
}

/// How long a call took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    /// Until the first byte of the answer's body.
    pub(crate) first: Duration,
    pub(crate) whole: Duration,
}

impl Calls {
    /// Converse with a body of so many bytes.
    pub(crate) fn converse(size: usize) -> Self {
        let start = r#"{"messages":[{"role":"user","content":[{"text":""#;
        let end = r#""}]}]}"#;
        let text = "a".repeat(size.saturating_sub(start.len() + end.len()));
        Self {
            path: format!("/model/{MODEL}/converse"),
            body: format!("{start}{text}{end}").into(),
            end: "}".into(),
            connections: CONNECTIONS,
        }
    }

    /// ConverseStream with a body of 1 KB, over one connection: so the first byte of a stream waits for no other stream.
    pub(crate) fn converse_stream() -> Self {
        let calls = Self::converse(1_000);
        Self { path: format!("{}-stream", calls.path), end: streams::end().into(), connections: 1, ..calls }
    }

    /// Makes so many calls; every one must be answered with 200. Returns the time that each took.
    pub(crate) async fn make(&self, port: u16, count: u32) -> Result<Vec<Took>, Error> {
        let left = Arc::new(AtomicU32::new(count));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..self.connections {
            let (left, calls) = (Arc::clone(&left), self.clone());
            all.spawn(async move {
                let mut times = Vec::new();
                let mut connection = connect(port).await?;
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    times.push(calls.once(&mut connection, port).await?);
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

    async fn once(&self, connection: &mut SendRequest<Full<Bytes>>, port: u16) -> Result<Took, Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header("host", format!("127.0.0.1:{port}"))
            .header("content-type", "application/json")
            .body(Full::new(self.body.clone()))?;
        let start = Instant::now();
        let mut response = connection.send_request(request).await?;
        let status = response.status();
        let (mut first, mut last) = (None, Vec::new());
        while let Some(frame) = response.frame().await {
            let data = frame?.into_data().unwrap_or_default();
            if first.is_none() && !data.is_empty() {
                first = Some(start.elapsed());
            }
            // Of an answer of 200 only its end is kept.
            if status == 200 {
                let kept = self.end.len().saturating_sub(data.len()).min(last.len());
                last.drain(..last.len() - kept);
                last.extend_from_slice(data.get(data.len().saturating_sub(self.end.len())..).unwrap_or_default());
            } else {
                last.extend_from_slice(&data);
            }
        }
        let whole = start.elapsed();
        if status != 200 || !last.ends_with(&self.end) {
            return Err(Error::Call(format!("status {status}, and the end is: {}", String::from_utf8_lossy(&last))));
        }
        connection.ready().await?;
        Ok(Took { first: first.unwrap_or(whole), whole })
    }
}

async fn connect(port: u16) -> Result<SendRequest<Full<Bytes>>, Error> {
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
