//! The calls: which, how fast, and over which connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bedrock_load::MODEL;
use bedrock_load::connection::{connect, source};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use serde_json::json;

use super::judge::{Answer, Asked, judge};
use super::report::{Report, busy};
use super::{CHANGING, FORBIDDEN};

/// The share of the machine's CPU that is aimed at.
const BUSY: f64 = 0.7;
/// Calls that run at once, at most: a gateway that hangs must not fill the memory.
const AT_ONCE: usize = 2000;
const NO_END: Duration = Duration::from_secs(60);

/// What answers depend on, besides the call.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Since when the last document decides, and whether it refuses the model that changes. `None` while it is being changed.
    pub(super) changed: Option<(Instant, bool)>,
    pub(super) changes: u32,
    /// When connections were cut.
    pub(super) cuts: Vec<Instant>,
    pub(super) faults: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Converse1k,
    Converse10k,
    Converse100k,
    Converse1m,
    Stream,
    SlowStream,
    Invoke,
    InvokeStream,
    CountTokens,
    Forbidden,
    Malformed,
    Changing,
    Leaver,
}

impl Kind {
    /// In 200 calls: one of 1 MB, ten of 100 KB.
    fn of(nth: u64) -> Kind {
        // 67 has no divisor in common with 200, so kinds are mixed.
        match nth.wrapping_mul(67) % 200 {
            0 => Kind::Converse1m,
            1..=10 => Kind::Converse100k,
            11..=50 => Kind::Converse10k,
            51..=70 => Kind::Stream,
            71..=78 => Kind::SlowStream,
            79..=94 => Kind::Invoke,
            95..=104 => Kind::InvokeStream,
            105..=112 => Kind::CountTokens,
            113..=116 => Kind::Forbidden,
            117..=120 => Kind::Malformed,
            121..=128 => Kind::Changing,
            129..=131 => Kind::Leaver,
            _ => Kind::Converse1k,
        }
    }

    fn target(self) -> (&'static str, &'static str) {
        match self {
            Kind::Stream => (MODEL, "converse-stream"),
            Kind::SlowStream | Kind::Leaver => ("fault.drip-50ms", "converse-stream"),
            Kind::Invoke => (MODEL, "invoke"),
            Kind::InvokeStream => (MODEL, "invoke-with-response-stream"),
            Kind::CountTokens => (MODEL, "count-tokens"),
            Kind::Forbidden => (FORBIDDEN, "converse"),
            Kind::Changing => (CHANGING, "converse"),
            _ => (MODEL, "converse"),
        }
    }

    pub(super) fn streams(self) -> bool {
        matches!(self, Kind::Stream | Kind::SlowStream | Kind::InvokeStream)
    }

    fn body(self, nth: u64) -> String {
        let length = match self {
            Kind::Converse10k => 10 << 10,
            Kind::Converse100k => 100 << 10,
            Kind::Converse1m => 1 << 20,
            Kind::Converse1k => 1 << 10,
            _ => 100,
        };
        let text = format!("{} {}", nonce(nth), "word ".repeat(length / 5));
        let messages = json!([{ "role": "user", "content": [{ "text": text }] }]);
        match self {
            Kind::Malformed => r#"{"messages":[{"role":"#.to_owned(),
            Kind::Invoke | Kind::InvokeStream => json!({
                "anthropic_version": "bedrock-2023-05-31", "max_tokens": 100,
                "messages": [{ "role": "user", "content": text }],
            })
            .to_string(),
            Kind::CountTokens => {
                let text = "word ".repeat(words(nth));
                let messages = json!([{ "role": "user", "content": [{ "text": text }] }]);
                json!({ "input": { "converse": { "messages": messages } } }).to_string()
            }
            _ => json!({ "messages": messages }).to_string(),
        }
    }
}

/// The words of a call that counts tokens.
pub(super) fn words(nth: u64) -> usize {
    (nth % 997) as usize + 1
}

/// The word by which an answer is known.
pub(super) fn nonce(nth: u64) -> String {
    format!("nonce-{nth:012x}")
}

/// Makes calls until the end, at most so many a second.
pub(super) fn run(
    gateway: SocketAddr,
    tokens: [String; 2],
    (end, most): (Instant, f64),
    expected: Arc<Mutex<Expected>>,
    report: Arc<Mutex<Report>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Arc::new(Client { gateway, tokens, idle: Mutex::default(), connected: AtomicU32::new(0) });
    runtime.block_on(async {
        let (mut nth, mut rate, mut looked, mut before) = (0_u64, most.min(100.0), Instant::now(), busy());
        let (mut due, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
        while Instant::now() < end {
            if looked.elapsed() > Duration::from_secs(1) {
                let now = busy();
                let share = now.share_since(before);
                rate = (rate * (BUSY / share.max(0.01)).clamp(0.85, 1.15)).clamp(10.0, most);
                (looked, before) = (Instant::now(), now);
                report.lock().unwrap().rates.push(rate as u32);
            }
            tokio::time::sleep_until(due.into()).await;
            due = Instant::now().max(due + Duration::from_secs_f64(1.0 / rate));
            while tasks.try_join_next().is_some() {}
            if tasks.len() >= AT_ONCE {
                report.lock().unwrap().skipped += 1;
                continue;
            }
            nth += 1;
            let (client, expected, report) = (Arc::clone(&client), Arc::clone(&expected), Arc::clone(&report));
            tasks.spawn(async move { client.call(nth, &expected, &report).await });
        }
        while tasks.join_next().await.is_some() {}
    });
}

struct Client {
    gateway: SocketAddr,
    tokens: [String; 2],
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    /// How many connections were made. So many calls wait while a region stalls that they come from several addresses.
    connected: AtomicU32,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    async fn call(&self, nth: u64, expected: &Mutex<Expected>, report: &Mutex<Report>) {
        let (kind, caller) = (Kind::of(nth), (nth / 200 % 2) as usize);
        // What the document of that time says, if it is the same at the end.
        let policy = |expected: &Expected| expected.changed.map(|(_, refuses)| refuses).ok_or(expected.changes);
        let (start, before, changes) = {
            let expected = expected.lock().unwrap();
            (Instant::now(), policy(&expected), expected.changes)
        };
        let answer = tokio::time::timeout(NO_END, self.exchange(kind, nth, caller)).await;
        let answer = answer.unwrap_or_else(|_| Answer { broken: Some("no end".to_owned()), ..Answer::default() });
        let (refuses, cut) = {
            let expected = expected.lock().unwrap();
            // The first document allows it.
            let refuses = if changes == 0 { Some(false) } else { before.ok() };
            let cut = expected.cuts.iter().rev().take(4).any(|cut| *cut >= start && *cut <= Instant::now());
            (refuses.filter(|_| expected.changes == changes), cut)
        };
        let verdict = judge(Asked { kind, nth, caller, refuses, cut }, &answer);
        report.lock().unwrap().add(kind, start.elapsed(), verdict, || {
            let body = String::from_utf8_lossy(&answer.body);
            let body: String = body.chars().take(300).collect();
            format!(
                "call {nth} {kind:?} of caller {caller}, {:?} {} {:?}: {body}",
                answer.status, answer.error, answer.broken
            )
        });
    }

    async fn exchange(&self, kind: Kind, nth: u64, caller: usize) -> Answer {
        let mut answer = Answer::default();
        if let Err(error) = self.read(kind, nth, caller, &mut answer).await {
            answer.broken = Some(error.to_string());
        }
        answer
    }

    async fn read(&self, kind: Kind, nth: u64, caller: usize, answer: &mut Answer) -> Result<(), Failure> {
        let (model, operation) = kind.target();
        let request = Request::post(format!("/model/{}/{operation}", model.replace(':', "%3A")))
            .header("host", self.gateway.to_string())
            .header("content-type", "application/json")
            .header("authorization", &self.tokens[caller])
            .body(Full::new(Bytes::from(kind.body(nth))))?;
        let kept = self.idle.lock().unwrap().pop();
        let mut sender = match kept.filter(SendRequest::is_ready) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let response = sender.send_request(request).await?;
        answer.status = response.status().as_u16();
        let error = response.headers().get("x-amzn-errortype").map(|value| String::from_utf8_lossy(value.as_bytes()));
        answer.error = error.unwrap_or_default().into_owned();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                answer.body.extend_from_slice(&data);
                if kind == Kind::Leaver {
                    // Dropping both closes the connection.
                    return Ok(());
                }
            }
        }
        if sender.ready().await.is_ok() {
            self.idle.lock().unwrap().push(sender);
        }
        Ok(())
    }

    async fn connect(&self) -> std::io::Result<SendRequest<Full<Bytes>>> {
        connect(source(self.connected.fetch_add(1, Ordering::Relaxed)), self.gateway).await
    }
}
