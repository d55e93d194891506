//! Calls, and what their clients saw.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::clock::now;
use super::{OTHER, REQUIRED};

/// Calls in a second, of both kinds together.
const RATE: u64 = 200;
const CALLERS: u64 = 8;

/// A call, as its client saw it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) required: bool,
    pub(super) model: String,
    /// Seconds since 1970.
    pub(super) start: f64,
    pub(super) end: f64,
    /// 0 without an answer.
    pub(super) status: u16,
}

/// One call on a connection of its own.
pub(super) fn call(address: SocketAddr, model: String) -> Call {
    let body = r#"{"messages":[{"role":"user","content":[{"text":"hello"}]}]}"#;
    let length = body.len();
    let head = format!(
        "POST /model/{model}/converse HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    let start = now();
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
        let _ = stream.read_to_end(&mut answer);
    }
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Call { required: model.starts_with(REQUIRED), model, start, end: now(), status }
}

/// Callers that call until they are stopped, whatever becomes of their calls.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<std::thread::JoinHandle<()>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Load {
    pub(super) fn start(address: SocketAddr) -> Load {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let callers = (0..CALLERS).map(|caller| {
            let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
            std::thread::spawn(move || {
                let mut next = Instant::now();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    next = Instant::now().max(next + Duration::from_millis(1000 * CALLERS / RATE));
                    let kind = if number % 2 == 0 { REQUIRED } else { OTHER };
                    let done = call(address, format!("{kind}-{caller}-{number}"));
                    calls.lock().unwrap().push(done);
                }
            })
        });
        Load { callers: callers.collect(), stop, calls }
    }

    pub(super) fn stop(self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        self.callers.into_iter().for_each(|caller| caller.join().unwrap());
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}
