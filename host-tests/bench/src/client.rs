//! Connections that make one call at a time each.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bedrock_load::connection::{connect, source};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request};
use tokio::task::JoinSet;

use crate::error::Error;
use crate::streams;

/// Connections that make calls without a stream.
const CONNECTIONS: u32 = 8;
const MODEL: &str = "anthropic.claude-3-5-sonnet-20241022-v2%3A0";
/// The streams that are opened in a second.
const STREAMS_PER_SECOND: u32 = 200;
/// How long a stream may take until its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(30);

/// What is called.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    pub(crate) path: String,
    /// Headers besides `content-type`.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// The last bytes of every answer.
    pub(crate) end: Bytes,
    /// The bytes of every answer's body, if they are known.
    pub(crate) length: Option<usize>,
    pub(crate) connections: u32,
}

/// How long a call took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    /// Until the first byte of the answer's body.
    pub(crate) first: Duration,
    pub(crate) whole: Duration,
    /// The bytes of the answer's body.
    pub(crate) bytes: usize,
}

impl Calls {
    /// Converse with a body of so many bytes.
    pub(crate) fn converse(size: usize) -> Self {
        let (start, end) = (r#"{"messages":[{"role":"user","content":[{"text":""#, r#""}]}]}"#);
        Self {
            path: format!("/model/{MODEL}/converse"),
            headers: Vec::new(),
            body: filled(start, end, size),
            end: "}".into(),
            length: None,
            connections: CONNECTIONS,
        }
    }

    /// ConverseStream with a body of 1 KB, over one connection: so the first byte of a stream waits for no other stream.
    pub(crate) fn converse_stream() -> Self {
        let calls = Self::converse(1_000);
        let length = Some(streams::stream(streams::LONG).len());
        Self { path: format!("{}-stream", calls.path), end: streams::end().into(), length, connections: 1, ..calls }
    }

    /// The same of a model that the upstream answers slowly.
    pub(crate) fn slow_stream() -> Self {
        let path = format!("/model/{}/converse-stream", streams::SLOW);
        Self { path, length: None, ..Self::converse_stream() }
    }

    /// Makes so many calls; every one must be answered with 200. Returns the time that each took.
    pub(crate) async fn make(&self, port: u16, count: u32) -> Result<Vec<Took>, Error> {
        let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let left = Arc::new(AtomicU32::new(count));
        let mut all = JoinSet::new();
        for _ in 0..self.connections {
            let (left, calls) = (Arc::clone(&left), self.clone());
            all.spawn(async move {
                let mut times = Vec::new();
                let mut connection = connect(Ipv4Addr::LOCALHOST, gateway).await?;
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    times.push(calls.once(&mut connection, port, || {}).await?);
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

    /// Makes so many calls at once, each over a connection of its own, and waits until all have begun to be answered.
    pub(crate) async fn open(&self, port: u16, count: u32) -> Result<Open, Error> {
        let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let begun = Arc::new(AtomicU32::new(0));
        let mut open = Open { tasks: JoinSet::new() };
        let mut pace = tokio::time::interval(Duration::from_secs(1) / STREAMS_PER_SECOND);
        for number in 0..count {
            pace.tick().await;
            let (begun, calls) = (Arc::clone(&begun), self.clone());
            open.tasks.spawn(async move {
                let mut connection = connect(source(number), gateway).await?;
                let has_begun = || {
                    begun.fetch_add(1, Ordering::Relaxed);
                };
                calls.once(&mut connection, port, has_begun).await
            });
        }
        let opened = Instant::now();
        while begun.load(Ordering::Relaxed) < count {
            open.check()?;
            if opened.elapsed() > FIRST_BYTE {
                return Err(Error::Call(format!("only {} of {count} streams begin", begun.load(Ordering::Relaxed))));
            }
            pace.tick().await;
        }
        Ok(open)
    }

    /// `begun` is called with the first byte of the answer's body.
    async fn once(
        &self,
        connection: &mut SendRequest<Full<Bytes>>,
        port: u16,
        begun: impl Fn(),
    ) -> Result<Took, Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header("host", format!("127.0.0.1:{port}"))
            .header("content-type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(self.body.clone()))?;
        let start = Instant::now();
        let mut response = connection.send_request(request).await?;
        let status = response.status();
        let (mut first, mut last, mut bytes) = (None, Vec::new(), 0);
        while let Some(frame) = response.frame().await {
            let data = frame?.into_data().unwrap_or_default();
            bytes += data.len();
            if first.is_none() && !data.is_empty() {
                first = Some(start.elapsed());
                begun();
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
        if status != 200 || !last.ends_with(&self.end) || self.length.is_some_and(|length| length != bytes) {
            let last = String::from_utf8_lossy(&last);
            return Err(Error::Call(format!("status {status}, {bytes} bytes, and the end is: {last}")));
        }
        connection.ready().await?;
        Ok(Took { first: first.unwrap_or(whole), whole, bytes })
    }
}

/// A body of so many bytes, or the shortest that is possible.
pub(crate) fn filled(start: &str, end: &str, size: usize) -> Bytes {
    let text = "a".repeat(size.saturating_sub(start.len() + end.len()));
    format!("{start}{text}{end}").into()
}

/// Calls that are being answered.
#[derive(Debug)]
pub(crate) struct Open {
    tasks: JoinSet<Result<Took, Error>>,
}

impl Open {
    /// Fails if one of them has ended.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Ok(Ok(_))) => Err(Error::Call("a stream ended too soon".to_owned())),
            Some(Err(error)) => Err(Error::Call(error.to_string())),
        }
    }

    /// Waits until all have ended, whole.
    pub(crate) async fn end(mut self) -> Result<Vec<Took>, Error> {
        let mut times = Vec::new();
        while let Some(took) = self.tasks.join_next().await {
            times.push(took.map_err(|error| Error::Call(error.to_string()))??);
        }
        Ok(times)
    }
}
