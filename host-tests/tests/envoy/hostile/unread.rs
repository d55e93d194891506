//! Clients that do not read their answers. HTTP/2 lets a client announce that it takes no byte of a body; Envoy keeps the call, its
//! headers and what has arrived of the answer.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::connections::{address, connect};
use super::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, literals, text};
use super::memory::rss_mib;
use super::{BODY, MODEL, assert_no_reload, converse, path_of, records, send};
use crate::harness::{Harness, Keys};

/// `SETTINGS_INITIAL_WINDOW_SIZE` (RFC 9113, section 6.5.2) of zero.
const NO_WINDOW: &[u8] = &[0, 4, 0, 0, 0, 0];
/// Bytes of a neighbour's large body.
const LARGE: usize = BODY.len() - "hello there".len() + (20 << 20);
/// Calls of one connection: Envoy accepts 128 at once.
const CALLS: u32 = 100;
/// A reference to the newest entry of the table of headers (RFC 7541, sections 2.3.3 and 6.1).
const NEWEST: u8 = 0x80 | 62;

/// A kind of call.
struct Attack {
    name: &'static str,
    method: &'static str,
    path: String,
    /// Further headers.
    headers: &'static [(&'static str, &'static str)],
    /// Whether 55 KB of headers are added. They take 14 bytes on the wire.
    large: bool,
    /// `None`: it does not follow, though announced.
    body: Option<&'static str>,
    connections: usize,
    /// What Envoy may use, in MiB.
    bound: u64,
}

impl Attack {
    /// Begins the calls of one connection, and reads nothing.
    fn begin(&self, from: [u8; 4], to: SocketAddr) -> TcpStream {
        let mut stream = connect(from, to);
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let settings = frame(SETTINGS, 0, 0, NO_WINDOW);
        let acknowledged = frame(SETTINGS, 1, 0, &[]);
        let mut request = [PREFACE, &settings, &acknowledged].concat();
        let pseudo = [(":method", self.method), (":scheme", "http"), (":authority", "x"), (":path", &self.path)];
        let headers = literals(&[&pseudo[..], self.headers].concat());
        for call in 0..CALLS {
            let mut block = headers.clone();
            if self.large {
                // With incremental indexing (RFC 7541, section 6.2.1) once, then by reference.
                let first = [vec![0x40], text("x-large"), text(&"v".repeat(3900))].concat();
                block.extend(if call == 0 { first } else { vec![NEWEST] });
                block.extend([NEWEST; 13]);
            }
            let ended = if self.body == Some("") { END_STREAM } else { 0 };
            request.extend(frame(HEADERS, END_HEADERS | ended, 2 * call + 1, &block));
            if let Some(body) = self.body.filter(|body| !body.is_empty()) {
                request.extend(frame(DATA, END_STREAM, 2 * call + 1, body.as_bytes()));
            }
        }
        // The gateway may close the connection.
        let _ = stream.write_all(&request);
        stream
    }
}

fn attacks() -> [Attack; 4] {
    let json: &[_] = &[("content-type", "application/json")];
    let long: &[_] = &[("content-type", "application/json"), ("content-length", "30000000")];
    [
        Attack {
            name: "refused calls",
            method: "GET",
            path: "/nothing".to_owned(),
            headers: &[],
            large: true,
            body: Some(""),
            connections: 60,
            bound: 400,
        },
        Attack {
            name: "lists of models",
            method: "GET",
            path: "/foundation-models".to_owned(),
            headers: &[],
            large: true,
            body: Some(""),
            connections: 24,
            bound: 400,
        },
        Attack {
            name: "bodies that are too long and never sent",
            method: "POST",
            path: path_of(MODEL),
            headers: long,
            large: true,
            body: None,
            connections: 60,
            bound: 400,
        },
        Attack {
            name: "large answers",
            method: "POST",
            path: path_of("fault.large-2048k"),
            headers: json,
            large: false,
            body: Some(BODY),
            connections: 12,
            bound: 600,
        },
    ]
}

#[test]
fn answers_that_are_not_read_cost_no_call() {
    let neighbour = converse(&path_of(MODEL), "content-type: application/json\r\n");
    let large = String::from_utf8(neighbour.clone()).unwrap().replace("hello there", &"a".repeat(20 << 20));
    let large = large.replace(&format!("content-length: {}", BODY.len()), &format!("content-length: {LARGE}"));
    for attack in attacks() {
        let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--concurrency", "2"]);
        let to = address(&harness.gateway.http);
        let (mut open, mut calls) = (Vec::new(), 0);
        for _ in 0..attack.connections {
            open.push(attack.begin([127, 0, 3, 1 + (open.len() % 2) as u8], to));
            if open.len() % 6 == 0 {
                let answer = send(&harness, &neighbour);
                assert_eq!(answer.status, 200, "{}: the neighbour got {answer:?}", attack.name);
                calls += 1;
            }
        }
        let used = rss_mib(harness.gateway.envoy_pid());
        println!("{}: {used} MiB", attack.name);
        assert!(used < attack.bound, "{}: {used} MiB", attack.name);
        for call in [neighbour.as_slice(); 10].into_iter().chain([large.as_bytes()]) {
            let answer = send(&harness, call);
            assert_eq!(answer.status, 200, "{}: the neighbour got {answer:?}", attack.name);
        }
        calls += 11 + open.len() * CALLS as usize;
        drop(open);
        let unnamed = records(&harness, calls).into_iter().filter(|(facts, _)| facts["id"].as_str().is_none());
        assert_eq!(unnamed.count(), 0, "{}: each call has its record", attack.name);
        assert_no_reload(&harness);
    }
}
