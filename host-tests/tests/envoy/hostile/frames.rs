//! Bytes that are not HTTP, or break its framing, on a connection of their own.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Gateway, Harness, Keys, eventually, required, text_of};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const CALL: &str = "POST /model/amazon.titan-text-express-v1/converse HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                    content-type: application/json\r\n";
const BODY: &str = r#"{"messages":[{"role":"user","content":[{"text":"hello there"}]}]}"#;

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn h2(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE, SETTINGS, &frames.concat()].concat()
}

/// Each breaks HTTP/1.1 or HTTP/2, on the plain listener.
fn cases() -> Vec<(&'static str, Vec<u8>)> {
    // `GET`, `http`, `/` and `localhost`, in HPACK.
    let headers: &[u8] = &[0x82, 0x86, 0x84, 0x41, 9, b'l', b'o', b'c', b'a', b'l', b'h', b'o', b's', b't'];
    let repeated = |frame: Vec<u8>| h2(&vec![frame; 20_000]);
    let rapid_reset =
        (0..5_000u32).map(|at| [frame(1, 5, at * 2 + 1, headers), frame(3, 0, at * 2 + 1, &[0, 0, 0, 8])].concat());
    vec![
        ("a frame longer than allowed", h2(&[vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 0]])),
        ("HEADERS of stream 0", h2(&[frame(1, 5, 0, headers)])),
        ("HEADERS of an even stream", h2(&[frame(1, 5, 2, headers)])),
        ("HEADERS that no table has", h2(&[frame(1, 5, 1, &[0xff, 0xff, 0xff, 0x7f])])),
        ("a header in capitals", h2(&[frame(1, 5, 1, &[headers, &[0, 2, b'A', b'b', 1, b'c']].concat())])),
        ("no method", h2(&[frame(1, 5, 1, &headers[1..])])),
        ("DATA of an idle stream", h2(&[frame(0, 1, 1, b"x")])),
        ("CONTINUATION without HEADERS", h2(&[frame(9, 4, 1, headers)])),
        ("SETTINGS of a wrong length", h2(&[frame(4, 0, 0, b"abc")])),
        ("PUSH_PROMISE of a client", h2(&[frame(5, 4, 1, &[0, 0, 0, 2])])),
        ("WINDOW_UPDATE of zero", h2(&[frame(8, 0, 0, &[0, 0, 0, 0])])),
        ("a preface that is cut", PREFACE[..20].to_vec()),
        ("frames of PING", repeated(frame(6, 0, 0, &[0; 8]))),
        ("frames of SETTINGS", repeated(frame(4, 0, 0, &[]))),
        ("frames of PRIORITY", repeated(frame(2, 0, 1, &[0, 0, 0, 0, 1]))),
        ("streams that are reset at once", h2(&rapid_reset.collect::<Vec<_>>())),
        ("TLS on the plain listener", vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3]),
        ("zeros", vec![0; 64]),
        ("a word", b"HELO\r\n\r\n".to_vec()),
        ("HTTP/9", b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n".to_vec()),
        ("a header without a colon", format!("{CALL}nothing\r\n\r\n").into_bytes()),
        ("a NUL in a header", format!("{CALL}x: a\0b\r\n\r\n").into_bytes()),
        ("a chunk without a size", format!("{CALL}transfer-encoding: chunked\r\n\r\nzz\r\n").into_bytes()),
        ("two lengths", format!("{CALL}content-length: 1\r\ncontent-length: 2\r\n\r\nab").into_bytes()),
        ("a length and chunks", format!("{CALL}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0").into_bytes()),
        ("70 KB of headers", format!("{CALL}x: {}\r\n\r\n", "a".repeat(70_000)).into_bytes()),
        ("200 headers", format!("{CALL}{}\r\n", "x: y\r\n".repeat(200)).into_bytes()),
        ("headers that do not end", CALL.as_bytes().to_vec()),
        ("a body that does not end", format!("{CALL}content-length: 1000\r\n\r\n{{").into_bytes()),
        ("nothing", Vec::new()),
    ]
}

/// Sends bytes, ends its side and reads until Envoy has closed.
fn send(gateway: &Gateway, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway.http.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    // Envoy may close before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn neighbour_is_served(gateway: &Gateway, after: &str) {
    let call = format!("{CALL}content-length: {}\r\n\r\n{BODY}", BODY.len());
    let (status, _, body) = gateway.raw(call.as_bytes());
    assert_eq!(status, 200, "after {after}: {body}");
}

/// The records of a SQLite file, without those of the starts and ends of VMs.
fn records(file: &str) -> Vec<Value> {
    let mut command = Command::new(required("AUDIT_COLLECTOR_BIN"));
    let output = command.args(["query", "--json", "--limit", "100000", "--sqlite", file]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|record| record["kind"].is_null() || record["kind"] == "connection").collect()
}

#[test]
fn broken_framing_leaves_records_not_alarms() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit.db").display().to_string();
    let mut harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--audit", &audit]);
    for (name, bytes) in cases() {
        let answer = send(&harness.gateway, &bytes);
        assert!(!answer.windows(12).any(|window| window == b"HTTP/1.1 200"), "{name}");
        neighbour_is_served(&harness.gateway, name);
    }
    let lines = || text_of(&harness.access_log()).lines().count();
    let mut last = 0;
    eventually("a quiet log", || {
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut last, lines()).eq(&lines()).then_some(())
    });
    let reloads = harness.gateway.admin("/stats?filter=vm_reload");
    assert!(!reloads.contains("vm_reload_success: 1") && !reloads.contains("vm_reload_failure: 1"), "{reloads}");
    harness.gateway.end();
    let log = text_of(&harness.access_log());
    let collector = text_of(&harness.gateway.run_dir().join("collector.log"));
    assert!(!collector.contains("rejected als") && !collector.contains("rejected file"), "{collector}");
    // The file and the access log service give the same records, so each line is one.
    let records = records(&audit);
    let ids: BTreeSet<&str> = records.iter().filter_map(|record| record["request_id"].as_str()).collect();
    assert_eq!((records.len(), ids.len()), (log.lines().count(), log.lines().count()), "{log}\n{records:#?}");
    let of_connections = records.iter().filter(|record| record["kind"] == "connection").count();
    assert!(of_connections >= 4, "{records:#?}");
}
