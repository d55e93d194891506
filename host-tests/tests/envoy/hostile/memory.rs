//! Clients that begin many large calls and complete none. `cargo xtask soak bodies` has 200 connections for a minute, the suite
//! 40 for a few seconds.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Harness, Keys, text_of};

const PATH: &str = "/model/amazon.titan-text-express-v1/converse";
/// In each body of the attack: no log may have it.
const MARK: &str = "body-of-the-attack";
/// Each call sends so much and then waits.
const LENGTH: usize = 24 << 20;
/// Calls of one HTTP/2 connection.
const STREAMS: usize = 48;
/// What Envoy may use in all, in MiB (docs/security.md).
const BOUND_MIB: u64 = 900;

/// Connections, their addresses, and how long they attack.
struct Scale {
    connections: usize,
    addresses: u8,
    time: Duration,
}

impl Scale {
    fn new() -> Self {
        let (connections, seconds) = if std::env::var_os("SOAK").is_some() { (200, 60) } else { (40, 6) };
        Self { connections, addresses: 8, time: Duration::from_secs(seconds) }
    }
}

/// The answers by status and error.
type Answers = Arc<Mutex<BTreeMap<String, u64>>>;

#[derive(Clone)]
struct Attack {
    to: SocketAddr,
    answers: Answers,
    over: Arc<AtomicBool>,
}

impl Attack {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn note(&self, answer: String) {
        *self.answers.lock().unwrap().entry(answer).or_default() += 1;
    }

    /// A connection from an address of its own: whose name is unknown is told by it.
    async fn connect(&self, address: u8) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, address)), 0))?;
        socket.connect(self.to).await
    }

    /// One call after the other over HTTP/1.1, each on a connection of its own.
    async fn http1(self, address: u8) {
        let chunk = chunk();
        while !self.is_over() {
            let Ok(mut stream) = self.connect(address).await else { continue };
            let head = format!(
                "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                LENGTH + 1
            );
            if stream.write_all(head.as_bytes()).await.is_err() {
                continue;
            }
            let (mut reader, mut writer) = stream.split();
            let send = async {
                for _ in 0..LENGTH / chunk.len() {
                    if writer.write_all(&chunk).await.is_err() {
                        break;
                    }
                }
                std::future::pending::<()>().await;
            };
            let receive = async {
                let mut answer = vec![0; 2048];
                let length = reader.read(&mut answer).await.unwrap_or(0);
                String::from_utf8_lossy(&answer[..length]).into_owned()
            };
            let answer = tokio::select! {
                answer = receive => answer,
                () = send => String::new(),
                () = self.end() => return,
            };
            self.note(summary(&answer));
        }
    }

    /// Many calls at once over HTTP/2; each that is answered is replaced.
    async fn http2(self, address: u8) {
        while !self.is_over() {
            let Ok(stream) = self.connect(address).await else { continue };
            let made =
                hyper::client::conn::http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await;
            let Ok((sender, connection)) = made else { continue };
            let driver = tokio::spawn(connection);
            let calls: Vec<_> = (0..STREAMS).map(|_| tokio::spawn(self.clone().calls(sender.clone()))).collect();
            for call in calls {
                let _ = call.await;
            }
            driver.abort();
        }
    }

    async fn calls(self, mut sender: hyper::client::conn::http2::SendRequest<Endless>) {
        while !self.is_over() {
            let request = Request::post(format!("http://127.0.0.1{PATH}")).header("content-type", "application/json");
            let call = sender.send_request(request.body(Endless::new()).unwrap());
            tokio::select! {
                answer = call => match answer {
                    Ok(response) => {
                        let status = response.status();
                        let error = response.headers().get("x-amzn-errortype").map_or("", |name| name.to_str().unwrap()).to_owned();
                        // An answer that is not read holds its stream.
                        let _ = response.into_body().collect().await;
                        self.note(format!("{} {error}", status.as_u16()));
                    }
                    Err(_) => return,
                },
                () = self.end() => return,
            }
        }
    }

    async fn end(&self) {
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// [`LENGTH`] bytes, and no end.
struct Endless {
    left: usize,
    chunk: Bytes,
}

impl Endless {
    fn new() -> Self {
        let chunk = Bytes::from(chunk());
        Self { left: LENGTH / chunk.len(), chunk }
    }
}

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Pending;
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
    }
}

/// 64 KiB of a body.
fn chunk() -> Vec<u8> {
    MARK.bytes().cycle().take(64 << 10).collect()
}

/// Status and error of an answer over HTTP/1.1.
fn summary(answer: &str) -> String {
    let status = answer.split(' ').nth(1).unwrap_or("none");
    let error = answer.lines().find_map(|line| line.strip_prefix("x-amzn-errortype: ")).unwrap_or_default();
    format!("{status} {error}")
}

/// Another client's ordinary calls, a hundred a second: how many succeeded, and what the others got.
fn neighbour(harness: &Harness, over: &AtomicBool) -> (u64, Vec<String>) {
    let body = r#"{"messages":[{"role":"user","content":[{"text":"hello there"}]}]}"#;
    let head = "host: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json";
    let call = format!("POST {PATH} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let (mut served, mut failed) = (0, Vec::new());
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        match ask(harness, call.as_bytes()) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => served += 1,
            other => failed.push(format!("{other:?} after {:?}", start.elapsed())),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    (served, failed)
}

fn ask(harness: &Harness, call: &[u8]) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(harness.gateway.http.strip_prefix("http://").unwrap())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(call)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A memory limit of 1 GiB for a process, where control groups can be made.
struct Limit(PathBuf);

impl Limit {
    fn on(pid: u32) -> Option<Self> {
        let group = Path::new("/sys/fs/cgroup/memory").join(format!("bedrock-gateway-{pid}"));
        std::fs::create_dir(&group).ok()?;
        let limit = Self(group);
        std::fs::write(limit.0.join("memory.limit_in_bytes"), "1073741824").ok()?;
        std::fs::write(limit.0.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(limit)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Its processes have ended or belong to the group above.
        for pid in text_of(&self.0.join("cgroup.procs")).split_whitespace() {
            let _ = std::fs::write("/sys/fs/cgroup/memory/cgroup.procs", pid);
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

pub(super) fn rss_mib(pid: u32) -> u64 {
    let status = text_of(Path::new(&format!("/proc/{pid}/status")));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0) / 1024
}

/// All text that the gateway wrote.
pub(crate) fn logs(harness: &Harness) -> String {
    let files = std::fs::read_dir(harness.gateway.run_dir()).unwrap().map(|entry| entry.unwrap().path());
    let texts = files
        .filter(|file| file.is_file())
        .map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned());
    texts.collect::<String>() + &text_of(&harness.access_log()).len().to_string() + &harness.gateway.said()
}

#[test]
fn bodies_that_never_end_cost_no_call() {
    let scale = Scale::new();
    let harness = Harness::lone(Keys::LongLived);
    let pid = harness.gateway.envoy_pid();
    let limit = Limit::on(pid);
    let before = rss_mib(pid);
    let to = harness.gateway.http.strip_prefix("http://").unwrap().parse().unwrap();
    let attack = Attack { to, answers: Answers::default(), over: Arc::default() };

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut peak = before;
    let (served, failed) = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| neighbour(&harness, &attack.over));
        runtime.block_on(async {
            for nth in 0..scale.connections {
                let address = 1 + (nth % usize::from(scale.addresses)) as u8;
                if nth % 2 == 0 {
                    tokio::spawn(attack.clone().http1(address));
                } else {
                    tokio::spawn(attack.clone().http2(address));
                }
            }
            let start = Instant::now();
            // A busy machine takes longer to fill the budgets.
            let filled = || !attack.answers.lock().unwrap().is_empty();
            while start.elapsed() < scale.time || (!filled() && start.elapsed() < Duration::from_secs(60)) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                peak = peak.max(rss_mib(pid));
            }
        });
        attack.over.store(true, Ordering::Relaxed);
        neighbour.join().unwrap()
    });
    drop(runtime);

    let answers = attack.answers.lock().unwrap().clone();
    println!(
        "{} connections for {:?}{}: {before} MiB before, at most {peak} MiB; the neighbour's calls: {served} served, {} not; answers \
         to the attack: {answers:?}",
        scale.connections,
        scale.time,
        if limit.is_some() { " within 1 GiB" } else { "" },
        failed.len(),
    );
    assert_eq!(harness.gateway.envoy_pid(), pid, "Envoy lives");
    assert!(peak < BOUND_MIB, "{peak} MiB");
    assert!(failed.len() as u64 * 1000 <= served, "{served} served, but {failed:?}");
    assert!(served > 20, "{served}");
    let named = |answer: &&String| {
        ["429 ThrottlingException", "503 ServiceUnavailableException", "none "].contains(&answer.as_str())
    };
    assert_eq!(answers.keys().filter(|answer| !named(answer)).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(
        answers.contains_key("429 ThrottlingException") || answers.contains_key("503 ServiceUnavailableException"),
        "{answers:?}"
    );
    let stats = harness.gateway.admin("/stats?filter=vm_reload");
    assert!(stats.lines().filter(|line| line.contains("vm_reload")).all(|line| line.ends_with(": 0")), "{stats}");
    assert!(!logs(&harness).contains(MARK), "a log has the attack's body");
    drop(limit);
}
