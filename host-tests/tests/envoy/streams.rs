//! Streams that break off end with an exception that SDKs raise by name, and leave a record of their path and region.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bedrock_double::{Builder, PathFault};
use serde_json::Value;

use crate::clients::{call, javascript, python, python_bearer};
use crate::harness::{Harness, Keys, base, eventually, text_of};
use crate::pool::pooled;

/// The last exchanges in the access log, once there are `count`: what Envoy and the filter say of each.
fn exchanges(harness: &Harness, count: usize) -> Vec<(Value, Value, Value)> {
    eventually("the access log", || {
        let text = text_of(&harness.access_log());
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let facts = |line: &Value, key: &str| serde_json::from_str(line[key].as_str().unwrap_or("null")).unwrap();
        let all = lines.iter().map(|line| (line.clone(), facts(line, "exchange"), facts(line, "attempt")));
        (lines.len() >= count).then(|| all.collect())
    })
}

/// A request for a stream, by hand.
fn request(model: &str) -> String {
    let body = r#"{"messages":[{"role":"user","content":[{"text":"hello there"}]}]}"#;
    format!(
        "POST /model/{model}/converse-stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn streams_end_with_an_exception(change: impl Fn(Builder) -> Builder) {
    let harness = Harness::new(Keys::LongLived, &["internet"], change, &[]);
    let calls = python("streams", &harness.gateway.http);
    for operation in ["ConverseStream", "InvokeModelWithResponseStream"] {
        let cut = call(&calls, operation);
        assert_eq!((&cut["raised"], &cut["code"]), (&"EventStreamError".into(), &"serviceUnavailableException".into()));
        assert!(cut["events"].as_u64() > Some(0), "what had come is not lost: {cut}");
    }
    assert!(call(&calls, "whole")["usage"]["outputTokens"].as_u64() > Some(0));
    harness.assert_no_violation();
    for (line, exchange, attempt) in &exchanges(&harness, 3)[..2] {
        assert_eq!((&line["status"], &exchange["error"]), (&200.into(), &"ServiceUnavailableException".into()));
        assert_eq!(exchange["relayed"], serde_json::json!({ "path": "internet", "attempts": 1 }));
        assert_eq!((&attempt["region"], &attempt["model"]), (&"us-east-1".into(), &"fault.reset-midstream".into()));
    }
}

#[test]
fn a_broken_stream_raises_over_http2() {
    streams_end_with_an_exception(|double| double);
}

#[test]
fn a_broken_stream_raises_over_http1() {
    streams_end_with_an_exception(|double| double.h2(false));
}

#[test]
fn a_broken_stream_raises_in_javascript() {
    let harness = pooled();
    let calls = javascript("streams", &harness.gateway.http);
    let class = |name: &str| call(&calls, name)["error"]["class"].clone();
    assert_eq!(class("mid-stream"), "ThrottlingException", "Bedrock's own passes");
    assert_eq!(class("cut mid-stream"), "ServiceUnavailableException");
}

#[test]
fn a_broken_stream_raises_with_an_api_key() {
    let harness = Harness::lone(Keys::Api);
    let calls = python_bearer("streams", &harness.gateway.https, &harness.gateway.ca);
    assert_eq!(call(&calls, "ConverseStream")["code"], "serviceUnavailableException");
    assert!(call(&calls, "whole")["usage"].is_object());
    harness.assert_no_violation();
}

/// Streams in flight on a path that is cut end with an exception; new ones take the next path.
fn streams_end_with_an_exception_on_a_cut(fault: PathFault) {
    let harness = Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &[]);
    let address = harness.gateway.http.strip_prefix("http://").unwrap();
    let mut streams: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut streams {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request("fault.drip-500ms").as_bytes()).unwrap();
    }
    // All have begun.
    let mut begun: Vec<Vec<u8>> = Vec::new();
    for stream in &mut streams {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"messageStart") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        begun.push(head);
    }
    harness.doubles[0].set_fault(fault);
    for (mut stream, mut all) in streams.into_iter().zip(begun) {
        stream.read_to_end(&mut all).unwrap();
        let text = String::from_utf8_lossy(&all);
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
        assert!(text.contains("serviceUnavailableException"), "{text}");
        assert!(text.ends_with("\r\n0\r\n\r\n"), "the response is whole: {text}");
    }
    let calls = python("converse", &harness.gateway.http);
    assert!(call(&calls, "Converse").get("error").is_none(), "{calls:?}");
    let answer = harness.gateway.raw(request("anthropic.claude-3-5-sonnet-20241022-v2:0").as_bytes());
    assert!(answer.0 == 200 && answer.2.contains("metadata"), "{answer:?}");
    let (_, exchange, _) = exchanges(&harness, 10).pop().unwrap();
    assert_eq!(exchange["relayed"]["path"], "vpn");
    harness.assert_no_violation();
}

#[test]
fn streams_raise_when_their_path_resets() {
    streams_end_with_an_exception_on_a_cut(PathFault::Refuse);
}

#[test]
fn streams_raise_when_their_path_goes_silent() {
    streams_end_with_an_exception_on_a_cut(PathFault::Silent);
}

#[test]
fn a_new_stream_skips_a_dead_path() {
    let harness = Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &[]);
    harness.doubles[0].set_fault(PathFault::Reset);
    let (status, _, body) = harness.gateway.raw(request("anthropic.claude-3-5-sonnet-20241022-v2:0").as_bytes());
    assert!(status == 200 && body.contains("metadata"), "{status} {body}");
    let (line, exchange, _) = exchanges(&harness, 1).pop().unwrap();
    assert_eq!(exchange["relayed"], serde_json::json!({ "path": "vpn", "attempts": 2 }), "{line}");
}

#[test]
fn refuses_a_stream_when_no_path_is_left() {
    let harness = Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &[]);
    harness.doubles.iter().for_each(|double| double.set_fault(PathFault::Refuse));
    eventually("the name of the class", || {
        let (status, head, body) = harness.gateway.raw(request("anthropic.claude-3-5-sonnet-20241022-v2:0").as_bytes());
        assert_eq!(status, 503, "{head} {body}");
        assert!(head.contains("x-amzn-errortype: serviceunavailableexception"), "{head}");
        assert!(head.contains("x-amzn-requestid: "), "{head}");
        body.contains("route class 'any'").then_some(())
    });
}

#[test]
fn records_a_client_that_leaves_early() {
    let harness = Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &[]);
    let mut stream = TcpStream::connect(harness.gateway.http.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(request("fault.slow-60s").as_bytes()).unwrap();
    eventually("the call at the double", || (!harness.received().is_empty()).then_some(()));
    drop(stream);
    let (line, exchange, attempt) = exchanges(&harness, 1).pop().unwrap();
    assert_eq!((&line["status"], &line["flags"]), (&0.into(), &"DC".into()), "{line}");
    assert_eq!(exchange["relayed"], serde_json::json!({ "path": "dx", "attempts": 1 }));
    assert_eq!(attempt["model"], "fault.slow-60s");
}

#[test]
fn a_response_that_is_not_a_stream_passes() {
    let harness = pooled();
    let (status, head, body) = harness.gateway.raw(request("fault.status-424").as_bytes());
    assert_eq!(status, 424, "{head}");
    assert!(head.contains("x-amzn-errortype: modelerrorexception") && head.contains("content-length: "), "{head}");
    assert!(body.starts_with('{') && body.ends_with('}'), "{body}");
}

#[test]
fn answers_fully_when_the_relay_is_unreachable() {
    let to = |listener: &str| format!("envoy_internal_address: {{ server_listener_name: {listener},");
    let harness = changed(&to("streams"), &to("gone"));
    let (status, head, body) = harness.gateway.raw(request("anthropic.claude-3-5-sonnet-20241022-v2:0").as_bytes());
    assert!(status == 503 && head.contains("x-amzn-errortype: serviceunavailableexception"), "{head}");
    assert!(body.starts_with(r#"{"message":"#) && body.trim_end().ends_with('}'), "{body}");
    let (line, exchange, _) = exchanges(&harness, 1).pop().unwrap();
    assert_eq!(exchange["relayed"], serde_json::json!({ "attempts": 0 }), "{line}");
}

#[test]
fn refuses_streams_if_the_relay_has_another_vm() {
    let place = |vm: &str| {
        let lines = ["root_id: relay.http", "failure_policy: FAIL_RELOAD", "allow_on_headers_stop_iteration: true", vm];
        lines.join(&format!("\n{}", " ".repeat(24)))
    };
    let other = "vm_config: { vm_id: other, runtime: envoy.wasm.runtime.v8, code: { local: { filename: x } } }";
    let harness = changed(&place("vm_config: *vm"), &place(other));
    let (status, _, body) = harness.gateway.raw(request("anthropic.claude-3-5-sonnet-20241022-v2:0").as_bytes());
    assert!(status == 503 && body.contains("the same `vm_config`"), "{status} {body}");
    assert!(call(&python("converse", &harness.gateway.http), "Converse").get("error").is_none());
    assert_eq!(harness.received().len(), 1, "the call that is not a stream");
}

/// A harness with one double, and a text of `envoy/base.yaml` replaced.
fn changed(from: &str, to: &str) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path(), from, to);
    Harness::new(Keys::LongLived, &["internet"], |double| double, &["--base", &base])
}
