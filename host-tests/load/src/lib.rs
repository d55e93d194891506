//! Load on a gateway: Converse calls at a fixed rate whether or not earlier ones have ended (an open loop), streams, calls
//! whose model thinks for long, and uploads. Each call gives one JSON line.

pub mod connection;
pub mod frames;
pub mod process;
pub mod token;

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use self::frames::{Frames, StreamEnd};

/// The model as an SDK names it; the gateway replaces it by the inference profile.
pub const MODEL: &str = "anthropic.claude-3-5-sonnet-20241022-v2:0";
/// Some 30 words: a stream of as many frames.
const QUESTION: &str = "Say in some thirty words how a call finds its way when the first of three lines is cut in the \
                        middle of it and the second one soon after that, please";
/// A call that has not ended by then counts as `no end`. Longer than any wait that the load causes.
const NO_END: Duration = Duration::from_secs(30);
/// An upload may share a slow path.
const UPLOAD: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Load {
    /// The listener for HTTP/1.1.
    pub gateway: SocketAddr,
    /// Converse calls in a second.
    pub rate: u32,
    /// For how long new calls are made.
    pub time: Duration,
    /// Streams that run at any time.
    pub streams: u32,
    /// The pause before each of a stream's frames.
    pub pause: Duration,
    /// Thinking calls that run at any time.
    pub thinkers: u32,
    /// How long a model thinks before its first byte.
    pub thought: Duration,
    /// Uploads that run at any time.
    pub bulk: u32,
    /// The bytes of an upload's picture.
    pub bulk_bytes: usize,
    /// The model of Converse calls and uploads.
    pub model: String,
    /// The `authorization` headers of the callers, used in turn; empty: callers send none.
    pub callers: Vec<String>,
}

/// The kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Converse, answered at once.
    Call,
    /// ConverseStream.
    Stream,
    /// Converse, answered after a long thought.
    Thinker,
    /// Converse with a large picture.
    Bulk,
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub kind: Kind,
    /// Its start in milliseconds since 1970.
    pub start_ms: u64,
    /// Its duration in milliseconds.
    pub ms: f64,
    /// The answer's status; 0 if there was none.
    pub status: u16,
    /// `ok`; the exception's type, of a header or in the stream; `broken: …` for a transfer that broke off, `short: …` for a
    /// stream that ended in good form but not at its end; `no end`.
    pub end: String,
}

impl Load {
    /// Runs until the last call has ended; `tell` gets each call as it ends.
    pub async fn run(self, tell: UnboundedSender<Outcome>) {
        let text = format!(r#"{{"text":"{QUESTION}"}}"#);
        // Large bodies are pictures in base64.
        let picture = "A".repeat(self.bulk_bytes);
        let picture = format!(r#"{{"image":{{"format":"png","source":{{"bytes":"{picture}"}}}}}}"#);
        let pool = Arc::new(Pool {
            gateway: self.gateway,
            callers: self.callers,
            begun: AtomicUsize::new(0),
            short: question(&text),
            long: question(&format!("{text},{picture}")),
            idle: Mutex::default(),
        });
        let end = Instant::now() + self.time;
        let mut tasks = tokio::task::JoinSet::new();
        let model = self.model.replace(':', "%3A");
        let dripping = format!("fault.drip-{}ms", self.pause.as_millis());
        let thinking = format!("fault.slow-{}ms", self.thought.as_millis());
        let lasting = [
            (self.streams, Kind::Stream, dripping, self.thought),
            (self.thinkers, Kind::Thinker, thinking, self.thought),
            (self.bulk, Kind::Bulk, model.clone(), UPLOAD),
        ];
        for (count, kind, model, expected) in lasting {
            for nth in 0..count {
                let (pool, tell, model) = (Arc::clone(&pool), tell.clone(), model.clone());
                tasks.spawn(async move {
                    // Staggered, so that a cut meets them at different points.
                    tokio::time::sleep(Duration::from_millis(200) * nth).await;
                    while Instant::now() < end {
                        let _ = tell.send(pool.call(kind, &model, expected).await);
                    }
                });
            }
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.rate.max(1));
        while self.rate > 0 && Instant::now() < end {
            ticks.tick().await;
            let (pool, tell, model) = (Arc::clone(&pool), tell.clone(), model.clone());
            tasks.spawn(async move {
                let _ = tell.send(pool.call(Kind::Call, &model, Duration::ZERO).await);
            });
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// A Converse request of these blocks.
fn question(blocks: &str) -> Bytes {
    format!(r#"{{"messages":[{{"role":"user","content":[{blocks}]}}]}}"#).into()
}

/// The callers, and their idle connections as in an SDK's pool.
#[derive(Debug)]
struct Pool {
    gateway: SocketAddr,
    callers: Vec<String>,
    begun: AtomicUsize,
    short: Bytes,
    long: Bytes,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Pool {
    async fn call(&self, kind: Kind, model: &str, expected: Duration) -> Outcome {
        let start_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let start = Instant::now();
        // Each of three paths may need the whole thinking time.
        let (status, end) = match tokio::time::timeout(NO_END + expected * 3, self.exchange(kind, model)).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(failure)) => (0, format!("broken: {failure}")),
            Err(_) => (0, "no end".to_owned()),
        };
        let ms = start.elapsed().as_secs_f64() * 1000.0;
        Outcome { kind, start_ms: u64::try_from(start_ms).unwrap_or_default(), ms, status, end }
    }

    async fn exchange(&self, kind: Kind, model: &str) -> Result<(u16, String), Failure> {
        let operation = if kind == Kind::Stream { "converse-stream" } else { "converse" };
        let body = if kind == Kind::Bulk { &self.long } else { &self.short };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/model/{model}/{operation}"))
            .header("host", self.gateway.to_string())
            .header("content-type", "application/json");
        let nth = self.begun.fetch_add(1, Ordering::Relaxed);
        if let Some(caller) = nth.checked_rem(self.callers.len()).and_then(|nth| self.callers.get(nth)) {
            request = request.header("authorization", caller);
        }
        let request = request.body(Full::new(body.clone()))?;
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut sender = match kept.filter(SendRequest::is_ready) {
            Some(sender) => sender,
            None => connection::connect(Ipv4Addr::LOCALHOST, self.gateway).await?,
        };
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let error = response.headers().get("x-amzn-errortype").map(|name| String::from_utf8_lossy(name.as_bytes()));
        let error = error.map(std::borrow::Cow::into_owned);
        let end = match (status, read(response).await) {
            (200, Ok(frames)) if kind == Kind::Stream => match frames.ending() {
                StreamEnd::Complete => "ok".to_owned(),
                StreamEnd::Exception(name) => name,
                StreamEnd::Short(why) => format!("short: {why}"),
            },
            (200, Ok(_)) => "ok".to_owned(),
            (_, Ok(_)) => error.unwrap_or_else(|| "no error type".to_owned()),
            (_, Err(error)) => return Ok((status, format!("broken: {error}"))),
        };
        if sender.ready().await.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
        Ok((status, end))
    }
}

async fn read(response: Response<Incoming>) -> Result<Frames, hyper::Error> {
    let mut body = response.into_body();
    let mut frames = Frames::default();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            frames.add(&data);
        }
    }
    Ok(frames)
}
