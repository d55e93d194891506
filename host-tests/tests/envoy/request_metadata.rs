//! The operator's request metadata reaches Bedrock, in every role that can hold bodies, and no client forges it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;

use crate::clients::{call, python};
use crate::harness::{Harness, Keys, base, eventually, policy, text_of};

const OWN: &str = "request_metadata:\n  gateway: east 1\n  class: \"{class}\"\n  call: \"{request_id}\"\n";

fn with_metadata(dir: &Path, auth: &str) -> String {
    policy(dir, "\nauth: sigv4\n", &format!("\nauth: {auth}\n{OWN}"))
}

/// The ids of the calls so far, as their records have them.
fn ids(harness: &Harness, calls: usize) -> Vec<String> {
    eventually("the access log", || {
        let text = text_of(&harness.access_log());
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let facts = lines.filter_map(|line| serde_json::from_str::<Value>(line["exchange"].as_str()?).ok());
        let ids: Vec<String> = facts.filter_map(|facts| Some(facts["id"].as_str()?.to_owned())).collect();
        (ids.len() == calls).then_some(ids)
    })
}

/// Calls everything that takes metadata with boto3.
fn check(harness: &Harness) {
    let calls = python("metadata", &harness.gateway.http);
    let (forged, others): (Vec<_>, Vec<_>) =
        calls.iter().partition(|row| row["call"].as_str().is_some_and(|name| name.ends_with("forged")));
    assert_eq!(forged.len(), 3);
    for row in forged {
        let message = row["error"]["message"].as_str().unwrap();
        assert_eq!(row["error"]["class"], "ValidationException", "{row}");
        assert!(message.contains("The key 'gateway'") && message.contains("set by the gateway"), "{message}");
    }
    let received = harness.received();
    assert_eq!(received.len(), others.len());
    let ids = ids(harness, calls.len());
    let of_others = calls.iter().zip(&ids).filter(|(row, _)| others.contains(row));
    for ((row, id), request) in of_others.zip(&received) {
        assert!(row["error"].is_null(), "{row}");
        let mut wanted: BTreeMap<&str, &str> = [("gateway", "east 1"), ("class", "any"), ("call", id)].into();
        if row["call"].as_str().is_some_and(|name| name.ends_with("own") || name.ends_with("20 MB")) {
            wanted.insert("team", "a b");
        }
        let seen: BTreeMap<&str, &str> =
            request.request_metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(seen, wanted, "{row}");
    }
    assert!(call(&calls, "ConverseStream")["usage"]["outputTokens"].as_u64() > Some(0));
    harness.assert_no_violation();
}

#[test]
fn the_signers_hash_is_of_the_edited_body() {
    let dir = tempfile::tempdir().unwrap();
    let policy = with_metadata(dir.path(), "sigv4");
    let harness = Harness::new(Keys::Temporary, &["internet"], |double| double, &["--policy", &policy]);
    check(&harness);
    for (body, status) in [
        (r#"{"messages":[{"role":"user","content":[{"text":"hello"}]}]}"#, 200),
        (r#"{"requestMetadata":{"team":"b"},"messages":[{"role":"user","content":[{"text":"hello"}]}]}"#, 200),
        (r#"{"requestMetadata":{"gatew\u0061y":"x"},"messages":[]}"#, 400),
        (r#"{"requestMetadata":{},"messages":[],"requestMetadata":{"gateway":"x"}}"#, 400),
        (r#"{"requestMetadata":"x","messages":[]}"#, 400),
        (r#"{"messages":[]"#, 400),
    ] {
        for trailers in ["", "x-checksum: 1\r\n"] {
            assert_eq!(slowly(&harness, body, trailers), status, "{body} {trailers}");
        }
    }
    harness.assert_no_violation();
    let received = harness.received();
    assert!(received.iter().all(|request| request.request_metadata["gateway"] == "east 1"), "{received:#?}");
}

/// Sends a body byte by byte, and then trailers. Returns the status.
fn slowly(harness: &Harness, body: &str, trailers: &str) -> u16 {
    let address = harness.gateway.http.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let path = "/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse";
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    for byte in body.bytes() {
        stream.write_all(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']).unwrap();
    }
    stream.write_all(format!("0\r\n{trailers}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn one_role_edits_and_signs() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path(), r#"{"role": "gateway"}"#, r#"{"role": "combined"}"#);
    let policy = with_metadata(dir.path(), "sigv4");
    let arguments = ["--base", &base, "--policy", &policy];
    check(&Harness::new(Keys::Temporary, &["internet"], |double| double, &arguments));
}

#[test]
fn bodies_are_held_for_it_with_an_api_key() {
    let dir = tempfile::tempdir().unwrap();
    let policy = with_metadata(dir.path(), "bearer");
    check(&Harness::new(Keys::Api, &["internet"], |double| double, &["--policy", &policy]));
}
