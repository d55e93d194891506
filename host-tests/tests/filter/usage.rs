//! What a response used, read while it passes.

use crate::common::{MODEL, call, facts, gateway};
use proxy_wasm_vm::{Exchange, Outcome, Plugin};
use serde_json::{Value, json};

const STREAM: &str = "application/vnd.amazon.eventstream";

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/vectors/eventstream/{name}.bin", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn respond(gateway: &Plugin, operation: &str, content_type: &str) -> Exchange {
    let exchange = gateway.stream();
    exchange.request_headers(call("POST", &format!("/model/{MODEL}/{operation}"), &[]), false);
    exchange.request_body("{}", true);
    let headers = [
        (":status", "200"),
        ("content-type", content_type),
        ("x-amzn-requestid", "11111111-2222-4333-8444-555555555555"),
    ];
    assert_eq!(exchange.response_headers(headers, false), Outcome::Continue);
    exchange
}

/// The facts after a response in pieces of a size, which must pass untouched and at once.
fn read(gateway: &Plugin, operation: &str, content_type: &str, body: &[u8], piece: usize) -> Value {
    let exchange = respond(gateway, operation, content_type);
    for chunk in body.chunks(piece) {
        assert_eq!(exchange.response_body(chunk, false), Outcome::Continue);
    }
    assert_eq!(exchange.response_body("", true), Outcome::Continue);
    assert_eq!(exchange.forwarded_response().body, body);
    facts(&exchange)
}

#[test]
fn json_usage_is_read_however_it_is_cut() {
    let gateway = gateway();
    let converse = br#"{"metrics":{"latencyMs":1},"output":{"message":{"content":[{"text":"\"usage\":{\"inputTokens\":666}"}]}},"usage":{"inputTokens":30,"outputTokens":7,"totalTokens":37,"cacheReadInputTokens":5,"cacheWriteInputTokens":2}}"#;
    let wanted = json!({"input": 30, "output": 7, "cache_read": 5, "cache_write": 2});
    for piece in 1..=converse.len() {
        let facts = read(&gateway, "converse", "application/json", converse, piece);
        assert_eq!(facts["usage"], wanted, "pieces of {piece}");
    }
    let invoke = br#"{"content":[{"type":"text","text":"hi"}],"usage":{"input_tokens":9,"output_tokens":3}}"#;
    for piece in 1..=invoke.len() {
        let facts = read(&gateway, "invoke", "application/json", invoke, piece);
        assert_eq!(facts["usage"], json!({"input": 9, "output": 3}), "pieces of {piece}");
    }
}

#[test]
fn event_streams_are_read_however_they_are_cut() {
    let gateway = gateway();
    for (name, operation, wanted, error) in [
        (
            "converse_stream",
            "converse-stream",
            json!({"input": 9, "output": 3, "cache_read": 0, "cache_write": 0}),
            None,
        ),
        ("invoke_stream_anthropic", "invoke-with-response-stream", json!({"input": 9, "output": 3}), None),
        ("converse_stream_throttled_midway", "converse-stream", json!({}), Some("ThrottlingException")),
        ("truncated_no_metadata", "converse-stream", json!({}), Some("EventStreamTruncated")),
        ("bad_message_crc", "converse-stream", json!({}), Some("EventStreamBadMessageCrc")),
        ("bad_prelude_crc", "converse-stream", json!({}), Some("EventStreamBadPreludeCrc")),
    ] {
        let body = vector(name);
        for piece in 1..=body.len() {
            let facts = read(&gateway, operation, STREAM, &body, piece);
            assert_eq!((&facts["usage"], facts["error"].as_str()), (&wanted, error), "{name} in pieces of {piece}");
        }
    }
    assert!(gateway.vm().fault().is_none());
}

#[test]
fn counts_in_headers_are_enough() {
    let exchange = gateway().stream();
    exchange.request_headers(call("POST", &format!("/model/{MODEL}/invoke"), &[]), false);
    exchange.request_body("{}", true);
    let headers = [
        (":status", "200"),
        ("content-type", "application/json"),
        ("x-amzn-bedrock-input-token-count", "12"),
        ("x-amzn-bedrock-output-token-count", "34"),
    ];
    exchange.response_headers(headers, false);
    exchange.vm().reset_host_calls();
    exchange.response_body(r#"{"usage":{"input_tokens":1}}"#, true);
    assert_eq!(exchange.vm().host_calls().get("proxy_get_buffer_bytes"), None, "the body need not be read");
    assert_eq!(facts(&exchange)["usage"], json!({"input": 12, "output": 34}));
}

#[test]
fn bedrocks_errors_are_named() {
    let gateway = gateway();
    let exchange = gateway.stream();
    exchange.request_headers(call("POST", &format!("/model/{MODEL}/converse"), &[]), false);
    exchange.request_body("{}", true);
    let headers = [
        (":status", "429"),
        ("content-type", "application/json"),
        ("x-amzn-errortype", "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/"),
        ("x-amzn-requestid", "11111111-2222-4333-8444-555555555555"),
    ];
    exchange.response_headers(headers, false);
    exchange.response_body(r#"{"message":"Too many tokens"}"#, true);
    let facts = facts(&exchange);
    assert_eq!((&facts["error"], &facts["usage"]), (&json!("ThrottlingException"), &json!({})));
    assert_eq!(facts["upstream_id"], "11111111-2222-4333-8444-555555555555");
}

#[test]
fn garbage_passes_and_traps_nothing() {
    let gateway = gateway();
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    let good = vector("converse_stream");
    let json = br#"{"usage":{"inputTokens":30,"outputTokens":7}}"#;
    for round in 0..300 {
        // Noise, and good bodies with some bytes turned.
        let stream = match round % 3 {
            0 => (0..random() % 600).map(|_| random() as u8).collect(),
            _ => {
                let mut body = good.clone();
                for _ in 0..1 + random() % 4 {
                    let at = random() % body.len();
                    body[at] = random() as u8;
                }
                body
            }
        };
        read(&gateway, "converse-stream", STREAM, &stream, 1 + random() % 100);
        let mut text = json.to_vec();
        let at = random() % text.len();
        text[at] = random() as u8;
        read(&gateway, "converse", "application/json", &text, 1 + random() % 20);
    }
    let deep = b"[".repeat(100_000);
    read(&gateway, "converse", "application/json", &deep, 65_536);
    assert!(gateway.vm().fault().is_none());
}

#[test]
fn response_headers_of_any_bytes_pass() {
    let gateway = gateway();
    let exchange = gateway.stream();
    exchange.request_headers(call("POST", &format!("/model/{MODEL}/converse"), &[]), false);
    exchange.request_body("{}", true);
    let headers: [(&str, &[u8]); 5] = [
        (":status", b"200"),
        ("content-type", b"\xff\xff"),
        ("x-amzn-requestid", b"\xff"),
        ("x-amzn-bedrock-input-token-count", b"\xff"),
        ("x-amzn-errortype", b"\x00\xff"),
    ];
    assert_eq!(exchange.response_headers(headers, false), Outcome::Continue);
    exchange.response_body("x", true);
    let facts = facts(&exchange);
    assert_eq!((&facts["usage"], &facts["upstream_id"]), (&json!({}), &Value::Null));
}
