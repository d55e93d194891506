//! DynamoDB's address, as the collector knows it. It passes requests on to DynamoDB Local, or is down, slow, or throttles.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::harness::eventually;

/// AWS documents five minutes; DynamoDB allows some more.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>
const SKEW: time::Duration = time::Duration::minutes(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Passes,
    /// Connections are refused.
    Down,
    /// Answers come after 1 to 3 seconds.
    Slow,
    /// That share of requests, in percent, is throttled.
    Throttles(u64),
}

struct Shared {
    upstream: SocketAddr,
    mode: Mutex<Mode>,
    /// Connections, which end when it goes down.
    open: Mutex<Vec<TcpStream>>,
    requests: AtomicU64,
    refused: AtomicU64,
}

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(super) fn start(upstream: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Shared {
            upstream,
            mode: Mutex::new(Mode::Passes),
            open: Mutex::default(),
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        let proxy = Proxy { address: listener.local_addr().unwrap(), shared: Arc::new(shared) };
        proxy.accept(listener);
        proxy
    }

    pub(super) fn set(&self, mode: Mode) {
        let before = std::mem::replace(&mut *self.shared.mode.lock().unwrap(), mode);
        if mode == Mode::Down {
            // The listener's thread sees the mode with this connection, and ends.
            let _ = TcpStream::connect(self.address);
            for stream in self.shared.open.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        } else if before == Mode::Down {
            self.accept(eventually("the store's port", || TcpListener::bind(self.address).ok()));
        }
    }

    /// Requests, and those of them that it answered itself with an error.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.shared.requests.load(Ordering::Relaxed), self.shared.refused.load(Ordering::Relaxed))
    }

    fn accept(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if *shared.mode.lock().unwrap() == Mode::Down {
                    return;
                }
                let mut open = shared.open.lock().unwrap();
                open.retain(|stream| stream.peer_addr().is_ok());
                open.push(client.try_clone().unwrap());
                drop(open);
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(client, &shared));
            }
        });
    }
}

/// Serves a connection until one of the peers ends it. `None`: it has ended.
fn serve(mut client: TcpStream, shared: &Shared) -> Option<()> {
    let mut server = None;
    loop {
        let request = read_message(&mut client)?;
        let number = shared.requests.fetch_add(1, Ordering::Relaxed);
        let mode = *shared.mode.lock().unwrap();
        let random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let refusal = match mode {
            Mode::Down => return None,
            // In turn, the words of a table and of an account that has too much.
            // <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
            Mode::Throttles(share) if random % 100 < share => Some(if number.is_multiple_of(2) {
                (
                    "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
                    "The level of configured provisioned throughput for the table was exceeded. Consider increasing your \
                     provisioning level with the UpdateTable API.",
                )
            } else {
                (
                    "com.amazon.coral.availability#ThrottlingException",
                    "Rate of requests exceeds the allowed throughput.",
                )
            }),
            _ => is_off(&request).then_some((
                "com.amazon.coral.service#InvalidSignatureException",
                "Signature not yet current, or expired",
            )),
        };
        if mode == Mode::Slow {
            std::thread::sleep(Duration::from_millis(1000 + random % 2000));
        }
        let answer = if let Some((kind, message)) = refusal {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            let body = format!(r#"{{"__type":"{kind}","message":"{message}"}}"#);
            let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: ";
            format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
        } else {
            if server.is_none() {
                server = TcpStream::connect(shared.upstream).ok();
            }
            let server = server.as_mut()?;
            server.write_all(&request).ok()?;
            read_message(server)?
        };
        client.write_all(&answer).ok()?;
    }
}

/// Whether the signature's time is too far from this machine's.
fn is_off(request: &[u8]) -> bool {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let head = head_of(request).unwrap_or_default();
    let date = header(&head, "x-amz-date").unwrap();
    let date = PrimitiveDateTime::parse(&date, &format).unwrap().assume_utc();
    (OffsetDateTime::now_utc() - date).abs() > SKEW
}

fn head_of(message: &[u8]) -> Option<String> {
    let end = message.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(String::from_utf8_lossy(&message[..end + 4]).into_owned())
}

fn header(head: &str, name: &str) -> Option<String> {
    let named = |line: &str| {
        line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|pair| pair.1.trim().to_owned())
    };
    head.lines().find_map(named)
}

/// A message of HTTP/1.1 with its length. `None` at the end of the connection.
fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut read, mut part) = (Vec::new(), [0; 16 * 1024]);
    loop {
        if let Some(head) = head_of(&read) {
            let length: usize = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            if read.len() >= head.len() + length {
                return Some(read);
            }
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return None,
            Ok(count) => read.extend_from_slice(&part[..count]),
        }
    }
}
