//! Memory that clients' headers take is bounded. Envoy uses it again after the connections are closed: it does not give it back to
//! the system.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use super::connections::{address, connect};
use super::memory::rss_mib;
use super::{MODEL, assert_no_reload, converse, path_of, send};
use crate::harness::{Harness, Keys, eventually};

/// Connections at once, of clients with 250 each.
const CONNECTIONS: u64 = 2_000;
/// Bytes of headers on each: just below the limit (60 KiB).
const HEADERS: usize = 60_000;

/// Opens connections, sends the headers on each, without their end if `whole` is false, and closes them. Returns Envoy's
/// memory in MiB before that.
fn flood(harness: &Harness, whole: bool) -> u64 {
    let to = address(&harness.gateway.http);
    let mut request = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n", path_of(MODEL));
    while request.len() < HEADERS {
        request += &format!("x-{}: {}\r\n", request.len(), "v".repeat(1_500.min(HEADERS - request.len())));
    }
    request += if whole { "\r\n" } else { "x" };
    let mut open: Vec<TcpStream> = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = connect([127, 0, 2, u8::try_from(number / 250).unwrap() + 1], to);
        stream.write_all(request.as_bytes()).unwrap();
        open.push(stream);
    }
    std::thread::sleep(Duration::from_secs(1));
    let highest = rss_mib(harness.gateway.envoy_pid());
    drop(open);
    eventually("closed connections", || {
        let stats = harness.gateway.admin("/stats?filter=http.gateway.downstream_cx_active");
        stats.contains("downstream_cx_active: 0").then_some(())
    });
    highest
}

#[test]
fn closed_connections_leave_memory_for_others() {
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--concurrency", "2"]);
    let start = rss_mib(harness.gateway.envoy_pid());
    // In KiB for each connection. If it did not use memory again, four floods would take more than three times as much.
    for (whole, bound) in [(false, 120), (true, 250)] {
        for number in 0..4 {
            let used = (flood(&harness, whole) - start) * 1024 / CONNECTIONS;
            assert!(used < bound, "flood {number}: {used} KiB for each connection; whole: {whole}");
        }
    }
    let neighbour = send(&harness, &converse(&path_of(MODEL), "content-type: application/json\r\n"));
    assert_eq!(neighbour.status, 200, "{neighbour:?}");
    assert_no_reload(&harness);
}
