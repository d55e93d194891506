//! Callers that try to use more than their class allows.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::{Harness, Keys, eventually, policy, text_of};

use super::{Answer, BODY, converse, records, send};

/// A gateway whose classes have these limits, and a model that drips its stream.
fn limited(limits: &str) -> Harness {
    limited_with(Keys::LongLived, "sigv4", limits)
}

fn limited_with(keys: Keys, auth: &str, limits: &str) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let file = policy(
        dir.path(),
        "route_classes:\n",
        &format!("route_classes:\n  - {{ name: limited, paths: [internet], limits: {limits} }}\n"),
    );
    let text = text_of(file.as_ref());
    std::fs::write(&file, text.replace("auth: sigv4", &format!("auth: {auth}"))).unwrap();
    Harness::new(keys, &["internet"], |double| double, &["--policy", &file])
}

/// Begins a stream, and reads its first bytes.
fn begin(harness: &Harness) -> TcpStream {
    let mut stream = TcpStream::connect(harness.gateway.http.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(&call()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|bytes| bytes == b"\r\n\r\n") || seen.len() < 700 {
        let mut chunk = [0; 512];
        let length = stream.read(&mut chunk).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..length]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&seen));
    stream
}

fn call() -> Vec<u8> {
    converse("/model/fault.drip-300ms/converse-stream", "content-type: application/json\r\n")
}

/// A second call while one is in flight; then both are over.
fn two_at_once(harness: &Harness) -> Answer {
    let mut first = begin(harness);
    let second = send(harness, &call());
    let _ = first.read_to_end(&mut Vec::new());
    second
}

#[test]
fn a_stream_left_early_is_not_free() {
    let harness = limited("{ tokens_per_minute: 6000 }");
    drop(begin(&harness));
    let (facts, _) = records(&harness, 1).remove(0);
    let estimate = &facts["estimate"];
    assert_eq!(estimate["input"].as_u64(), Some(BODY.len() as u64 / 4), "{facts}");
    assert!(estimate["output"].as_u64().is_some_and(|tokens| tokens > 10), "{facts}");
}

#[test]
fn calls_in_flight_use_the_allowance() {
    // 4096 tokens are reserved for the answer of a call that does not say how long it may be.
    let harness = limited("{ tokens_per_minute: 6000 }");
    let second = two_at_once(&harness);
    assert_eq!((second.status, second.header("x-amzn-errortype")), (429, "throttlingexception"), "{second:?}");
    assert!(second.header("retry-after").parse::<u64>().unwrap() > 0);
    // The first used less than it had reserved.
    eventually("the first call is over", || (send(&harness, &call()).status == 200).then_some(()));

    let harness = limited("{ concurrent_calls: 1 }");
    let second = two_at_once(&harness);
    assert_eq!((second.status, second.header("x-amzn-errortype")), (429, "throttlingexception"), "{second:?}");
    assert!(second.body.contains("1 calls at the same time"), "{second:?}");
    eventually("the first call is over", || (send(&harness, &call()).status == 200).then_some(()));
}

/// With an API key a body goes on while it arrives.
#[test]
fn a_chunked_body_reserves_as_it_passes() {
    let harness = limited_with(Keys::Api, "bearer", "{ tokens_per_minute: 20000 }");
    let mut first = begin(&harness);
    let chunked = |body: &str| {
        let head = "POST /model/fault.drip-300ms/converse HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
        let lines = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
        let chunks: String = body
            .as_bytes()
            .chunks(8192)
            .map(|part| format!("{:x}\r\n{}\r\n", part.len(), String::from_utf8_lossy(part)))
            .collect();
        format!("{head}{lines}\r\n{chunks}0\r\n\r\n").into_bytes()
    };
    // The first call has 4112 tokens. This body is 25,000, and then 19,000 are asked for the answer.
    let long = format!(r#"{{"messages":[{{"role":"user","content":[{{"text":"{}"}}]}}]}}"#, "x".repeat(100_000));
    let greedy = BODY.replace(r#"{"messages"#, r#"{"inferenceConfig":{"maxTokens":19000},"messages"#);
    for body in [long, greedy] {
        let answer = send(&harness, &chunked(&body));
        assert_eq!((answer.status, answer.header("x-amzn-errortype")), (429, "throttlingexception"), "{answer:?}");
    }
    let sent = harness.received().len();
    let _ = first.read_to_end(&mut Vec::new());
    eventually("the first call is over", || (send(&harness, &chunked(BODY)).status == 200).then_some(()));
    assert_eq!(sent, 1, "Bedrock gets no complete call that is refused");
}
