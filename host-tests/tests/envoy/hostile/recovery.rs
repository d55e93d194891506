//! A region that throttled and recovered is used again, whatever clients send in the meantime.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bedrock_double::PathFault;
use serde_json::json;

use super::{MODEL, assert_no_reload, converse, path_of, send};
use crate::harness::{Harness, Keys};

#[test]
fn no_clients_fault_keeps_a_region_away() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let document = json!({
        "regions": {"us-east-1": {}, "us-west-2": {}},
        "route_classes": [{"name": "any", "regions": ["us-east-1", "us-west-2"], "paths": ["dx"]}],
    });
    std::fs::write(&policy, document.to_string()).unwrap();
    let arguments = ["--policy", policy.to_str().unwrap()];
    let harness = Harness::new(Keys::LongLived, &["dx@us-east-1", "dx@us-west-2"], |double| double, &arguments);
    let call = converse(&path_of(MODEL), "");
    let in_east = || {
        let got = |double: usize| harness.doubles[double].requests().iter().filter(|r| r.operation.is_some()).count();
        let before = got(0);
        assert_eq!(send(&harness, &call).status, 200);
        got(0) > before
    };
    assert!(in_east());
    harness.doubles[0].set_fault(PathFault::Status(429));
    in_east();
    assert!(!in_east(), "the breaker is open");
    harness.doubles[0].set_fault(PathFault::None);

    // Calls without their bodies, and with empty ones, which Bedrock refuses: five a second and more, from before the breaker is
    // ready for a trial.
    let address = harness.gateway.http.strip_prefix("http://").unwrap().to_owned();
    let head = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n", path_of(MODEL));
    let empty = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", path_of(MODEL));
    let start = Instant::now();
    let mut held = Vec::new();
    let mut back = None;
    while start.elapsed() < Duration::from_secs(8) && back.is_none() {
        for _ in 0..3 {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            held.push(stream);
        }
        assert_eq!(send(&harness, empty.as_bytes()).status, 400);
        if in_east() {
            back = Some(start.elapsed());
        }
        // The breaker gets ready for a trial here, before such calls.
        std::thread::sleep(Duration::from_millis(100));
    }
    let back = back.unwrap_or_else(|| panic!("not back after {:?} and {} calls", start.elapsed(), held.len()));
    assert!(back < Duration::from_secs(4), "{back:?}");
    assert!(in_east() && in_east(), "the breaker is closed");
    assert_no_reload(&harness);
    harness.assert_no_violation();
}
