//! One client's connections must not shut out the others. Each test's clients have addresses of their own in 127.0.0.0/8.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{Harness, Keys, eventually};

/// What `envoy/base.yaml` lets one client have on one worker.
const PER_WORKER: usize = 500;
/// More than two workers allow.
const FLOOD: usize = 1_500;

/// A connection from an address.
pub(super) fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(45))).unwrap();
    stream
}

pub(super) fn address(url: &str) -> SocketAddr {
    url.rsplit_once('/').unwrap().1.parse().unwrap()
}

/// Whether the other side has not closed it.
fn is_open(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// A client that is served: its status.
fn is_served(from: [u8; 4], to: SocketAddr) -> bool {
    let mut stream = connect(from, to);
    let _ = stream.write_all(b"GET /elsewhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.starts_with("HTTP/1.1 404")
}

#[test]
fn one_client_cannot_shut_out_others() {
    let arguments = ["--concurrency", "2"];
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &arguments);
    let (plain, tls) = (address(&harness.gateway.http), address(&harness.gateway.https));
    for (listener, greedy) in [(plain, [127, 0, 1, 1]), (tls, [127, 0, 1, 2])] {
        let mut flood: Vec<TcpStream> = (0..FLOOD).map(|_| connect(greedy, listener)).collect();
        let open = eventually("refused connections", || {
            let open = flood.iter().filter(|stream| is_open(stream)).count();
            (open <= 2 * PER_WORKER).then_some(open)
        });
        assert!(open >= PER_WORKER, "{open}");
        assert!(is_served([127, 0, 1, 9], plain), "another client");
        // What it closes it may have again.
        flood.clear();
        eventually("the client is served again", || is_served(greedy, plain).then_some(()));
    }
    let reloads = harness.gateway.admin("/stats?filter=vm_reload");
    assert!(!reloads.contains("vm_reload_success: 1") && !reloads.contains("vm_reload_failure: 1"), "{reloads}");
}

#[test]
fn a_client_that_says_nothing_is_cut_off() {
    let harness = Harness::lone(Keys::LongLived);
    let start = Instant::now();
    let mut silent = connect([127, 0, 1, 3], address(&harness.gateway.http));
    let mut without_hello = connect([127, 0, 1, 4], address(&harness.gateway.https));
    let mut without_end = connect([127, 0, 1, 5], address(&harness.gateway.http));
    without_end.write_all(b"GET /elsewhere HTTP/1.1\r\nhost: localhost\r\nx: ").unwrap();
    // What begins no request is nothing, too.
    let settings: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // Envoy answers such headers after 10 s with 408, and leaves the connection open.
    let headers = super::http2::literals(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]);
    let endless = [settings, &super::http2::frame(super::http2::HEADERS, 0, 1, &headers)].concat();
    let without_request =
        [(6, &b"\r\n"[..]), (7, &settings[..12]), (8, settings), (10, &endless)].map(|(host, bytes)| {
            let mut stream = connect([127, 0, 1, host], address(&harness.gateway.http));
            stream.write_all(bytes).unwrap();
            stream
        });
    let mut idle = connect([127, 0, 1, 9], address(&harness.gateway.http));
    idle.write_all(b"GET /elsewhere HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert!(idle.read(&mut [0; 4096]).unwrap() > 0);
    let end = |stream: &mut TcpStream| {
        let mut answer = Vec::new();
        let result = stream.read_to_end(&mut answer);
        assert!(!matches!(&result, Err(error) if error.kind() == ErrorKind::WouldBlock), "it is still open");
        (start.elapsed().as_secs(), String::from_utf8_lossy(&answer).into_owned())
    };
    let (seconds, _) = end(&mut without_hello);
    assert!((9..15).contains(&seconds), "a TLS handshake that does not begin: {seconds} s");
    let (seconds, answer) = end(&mut without_end);
    assert!(seconds < 20 && answer.starts_with("HTTP/1.1 408"), "headers that do not end: {seconds} s {answer}");
    let (seconds, _) = end(&mut silent);
    assert!((29..40).contains(&seconds), "nothing: {seconds} s");
    for mut stream in without_request {
        let (seconds, _) = end(&mut stream);
        assert!((29..40).contains(&seconds), "no request: {seconds} s");
    }
    while let Ok(1..) = {
        idle.set_nonblocking(true).unwrap();
        idle.read(&mut [0; 4096])
    } {}
    assert!(is_open(&idle), "one that had its answer");
}
