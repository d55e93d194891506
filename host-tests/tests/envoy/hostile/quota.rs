//! Callers that try to use more than their class allows.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::{Harness, Keys, policy};

use super::{BODY, converse, records, send};

/// A gateway whose classes have these limits, and a model that drips its stream.
fn limited(limits: &str) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let file = policy(
        dir.path(),
        "route_classes:\n",
        &format!("output_rates: []\nroute_classes:\n  - {{ name: limited, paths: [internet], limits: {limits} }}\n"),
    );
    Harness::new(Keys::LongLived, &["internet"], |double| double, &["--policy", &file])
}

fn path(operation: &str) -> String {
    format!("/model/fault.drip-300ms/{operation}")
}

/// Begins a stream, and leaves after its first bytes.
fn leave_early(harness: &Harness) {
    let mut stream = TcpStream::connect(harness.gateway.http.strip_prefix("http://").unwrap()).unwrap();
    let request = String::from_utf8(converse(&path("converse-stream"), "content-type: application/json\r\n")).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|bytes| bytes == b"\r\n\r\n") || seen.len() < 700 {
        let mut chunk = [0; 512];
        let length = stream.read(&mut chunk).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..length]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&seen));
}

#[test]
fn a_stream_left_early_is_not_free() {
    let harness = limited("{ tokens_per_minute: 6000 }");
    leave_early(&harness);
    let (facts, _) = records(&harness, 1).remove(0);
    let estimate = &facts["estimate"];
    assert_eq!(estimate["input"].as_u64(), Some(BODY.len() as u64 / 4), "{facts}");
    assert!(estimate["output"].as_u64().is_some_and(|tokens| tokens > 10), "{facts}");
}

#[test]
fn calls_in_flight_use_the_allowance() {
    let harness = limited("{ tokens_per_minute: 6000, concurrent_calls: 2 }");
    let call = converse(&path("converse-stream"), "content-type: application/json\r\n");
    // 4096 tokens are reserved for the answer of a call that does not say how long it may be.
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| send(&harness, &call));
        std::thread::sleep(Duration::from_millis(700));
        let second = send(&harness, &call);
        (first.join().unwrap(), second)
    });
    assert_eq!((first.status, second.status), (200, 429), "{second:?}");
    assert_eq!(second.header("x-amzn-errortype"), "throttlingexception");
    assert!(second.header("retry-after").parse::<u64>().unwrap() > 0);
    // What it used is less than what it reserved.
    assert_eq!(send(&harness, &call).status, 200);

    let harness = limited("{ concurrent_calls: 1 }");
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| send(&harness, &call));
        std::thread::sleep(Duration::from_millis(700));
        let second = send(&harness, &call);
        (first.join().unwrap(), second)
    });
    assert_eq!((first.status, second.status), (200, 429), "{second:?}");
    assert!(second.body.contains("1 calls at the same time"), "{second:?}");
    assert_eq!(send(&harness, &call).status, 200);
}
