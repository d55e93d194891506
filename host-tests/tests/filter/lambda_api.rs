//! Calls of the Lambda-based proxy's API are held whole, and go on as calls of Bedrock's.

use crate::common::{MODEL, call, configuration, facts, only, plugin, reply, sha256, with_keys};
use proxy_wasm_vm::{Outcome, Plugin};
use serde_json::{Value, json};

fn gateway() -> Plugin {
    let mut document = configuration("gateway");
    document["lambda_api"] = json!({});
    plugin(&with_keys().start().unwrap(), &document)
}

fn invoke() -> Vec<(String, String)> {
    call("POST", "/v1/bedrock/invoke-model", &[("authorization", "Bearer of-api-gateway"), ("accept", "*/*")])
}

#[test]
fn an_envelope_goes_on_as_invoke_model() {
    let gateway = gateway();
    let inner = format!(r#"{{"anthropic_version":"bedrock-2023-05-31","text":"{}"}}"#, "x".repeat(200_000));
    let envelope = json!({"modelId": MODEL, "body": {"text": "x".repeat(200_000)}}).to_string();
    for chunk in [envelope.len(), 60_000] {
        let exchange = gateway.stream();
        assert_eq!(exchange.request_headers(invoke(), false), Outcome::Paused);
        let pieces: Vec<&[u8]> = envelope.as_bytes().chunks(chunk).collect();
        for (n, piece) in pieces.iter().enumerate() {
            let last = n + 1 == pieces.len();
            let outcome = exchange.request_body(piece, last);
            assert_eq!(outcome, if last { Outcome::Continue } else { Outcome::Paused });
        }
        let forwarded = exchange.forwarded_request();
        assert!(forwarded.body == inner.as_bytes() && forwarded.end);
        let map = exchange.request_map();
        assert_eq!(only(&map, ":path"), format!("/model/{}/invoke", MODEL.replace(':', "%3A")));
        assert_eq!(only(&map, "content-length"), inner.len().to_string());
        let handoff: Value = serde_json::from_slice(&exchange.filter_state(crate::common::HANDOFF).unwrap()).unwrap();
        assert_eq!(handoff["body_sha256"], sha256(inner.as_bytes()));

        let answer = r#"{"usage":{"input_tokens":3,"output_tokens":4}}"#;
        let head = [(":status", "200"), ("content-type", "application/json"), ("content-length", "46")];
        assert_eq!(exchange.response_headers(head, false), Outcome::Paused);
        assert_eq!(exchange.response_body(&answer[..9], false), Outcome::Paused);
        assert_eq!(exchange.response_body(&answer[9..], true), Outcome::Continue);
        let body = json!({"body": answer, "contentType": "application/json"}).to_string();
        assert_eq!(exchange.forwarded_response().body, body.as_bytes());
        assert_eq!(only(&exchange.response_map(), "content-length"), body.len().to_string());
        let facts = facts(&exchange);
        assert_eq!((&facts["api"], &facts["operation"]), (&json!("lambda"), &json!("InvokeModel")));
        assert_eq!(facts["usage"]["output"], 4);
    }
}

#[test]
fn an_envelope_may_end_with_trailers() {
    let exchange = gateway().stream();
    exchange.request_headers(invoke(), false);
    exchange.request_body(json!({"modelId": "amazon.a", "body": "{\"a\":1}"}).to_string(), false);
    assert_eq!(exchange.request_trailers([("x-a", "b")]), Outcome::Continue);
    assert_eq!(exchange.forwarded_request().body, br#"{"a":1}"#);
}

#[test]
fn refusals_have_the_form_of_the_lambda() {
    let gateway = gateway();
    let exchange = gateway.stream();
    exchange.request_headers(invoke(), false);
    exchange.request_body(r#"{"modelId":"global.a.b","body":{}}"#, true);
    let reply = reply(&exchange);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, &body["error"]["code"]), (403, &json!("AccessDeniedException")));
    assert_eq!(body["error"]["requestId"], only(&exchange.response_map(), "x-request-id"));
    assert_eq!(facts(&exchange)["error"], "AccessDeniedException");
}

#[test]
fn a_failure_without_a_body_gets_one() {
    let exchange = gateway().stream();
    assert_eq!(exchange.request_headers(call("GET", "/v1/bedrock/models", &[]), true), Outcome::Continue);
    exchange.response_headers([(":status", "503"), ("x-amzn-errortype", "ServiceUnavailableException")], true);
    let reply = reply(&exchange);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, &body["error"]["code"]), (503, &json!("ServiceUnavailableException")));
}

#[test]
fn the_route_is_answered_here() {
    let exchange = gateway().stream();
    assert_eq!(exchange.request_headers(call("GET", "/v1/bedrock/invoke-model", &[]), true), Outcome::LocalReply);
    let reply = reply(&exchange);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, &body["status"]), (200, &json!("operational")));
    assert_eq!(body["request_info"]["request_id"], only(&exchange.response_map(), "x-amzn-requestid"));
    assert_eq!(facts(&exchange)["error"], Value::Null);
}

/// They are held before their class or their model is known.
#[test]
fn refuses_envelopes_over_a_callers_memory() {
    let mut document = configuration("gateway");
    document["lambda_api"] = json!({});
    document["max_body_bytes"] = json!(100_000);
    document["buffers"] = json!({"connection_bytes": 250_000, "caller_bytes": 250_000, "total_bytes": 250_000});
    let gateway = plugin(&with_keys().start().unwrap(), &document);
    let envelope = json!({"modelId": MODEL, "body": {"text": "x".repeat(90_000)}}).to_string();
    let (start, end) = envelope.as_bytes().split_at(85_000);
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let exchange = gateway.stream();
            assert_eq!(exchange.request_headers(invoke(), false), Outcome::Paused);
            exchange.request_body(start, false);
            exchange
        })
        .collect();
    gateway.tick().unwrap();
    calls.iter().for_each(|exchange| _ = exchange.request_body(end, true));
    gateway.tick().unwrap();
    let (refused, sent): (Vec<_>, Vec<_>) = calls.iter().partition(|exchange| exchange.local_reply().is_some());
    assert_eq!((refused.len(), sent.len()), (1, 2));
    let reply = reply(refused[0]);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, &body["error"]["code"]), (429, &json!("ThrottlingException")), "{body}");
    assert_eq!(facts(refused[0])["class"], json!(null));
    assert!(sent.iter().all(|exchange| exchange.forwarded_request().end));
}
