//! Lists of models are held and cut to what the caller may use.

use crate::common::{call, configuration, facts, only, plugin, refusal, with_keys};
use proxy_wasm_vm::{Exchange, Outcome, Plugin, values};
use serde_json::json;

/// The policy refuses `global.*`.
fn gateway() -> Plugin {
    plugin(&with_keys().start().unwrap(), &configuration("gateway"))
}

fn listing(gateway: &Plugin) -> Exchange {
    let exchange = gateway.stream();
    assert_eq!(exchange.request_headers(call("GET", "/inference-profiles", &[]), true), Outcome::Continue);
    exchange
}

/// An entry of ListInferenceProfiles.
fn profile(id: &str) -> String {
    let arn = format!("arn:aws:bedrock:us-east-1:123456789012:inference-profile/{id}");
    json!({"inferenceProfileId": id, "inferenceProfileArn": arn, "new": 1.10}).to_string()
}

fn list(entries: &[String]) -> String {
    format!(r#"{{ "inferenceProfileSummaries":[{}], "nextToken":"t" }}"#, entries.join(","))
}

#[test]
fn a_list_passes_cut_at_its_end() {
    let gateway = gateway();
    let others: Vec<String> = (0..1000).map(|n| profile(&format!("us.a.model-{n}"))).collect();
    let hidden = profile("global.a.model");
    let (whole, cut) = (list(&[&others[..], &[hidden]].concat()), list(&others));
    for chunk in [whole.len(), 100_000, 4096] {
        let exchange = listing(&gateway);
        let length = whole.len().to_string();
        let head = [(":status", "200"), ("content-type", "application/json"), ("content-length", &length)];
        assert_eq!(exchange.response_headers(head, false), Outcome::Paused);
        let pieces: Vec<&[u8]> = whole.as_bytes().chunks(chunk).collect();
        for (n, piece) in pieces.iter().enumerate() {
            let last = n + 1 == pieces.len();
            let outcome = exchange.response_body(piece, last);
            assert_eq!(outcome, if last { Outcome::Continue } else { Outcome::Paused });
            assert_eq!(exchange.forwarded_response().headers, last);
        }
        let passed = exchange.forwarded_response();
        assert!(passed.body == cut.as_bytes() && passed.end, "{}", passed.body.len());
        assert_eq!(only(&exchange.response_map(), "content-length"), cut.len().to_string());
        assert_eq!(facts(&exchange)["error"], json!(null));
    }
}

#[test]
fn a_list_that_ends_with_trailers_is_cut() {
    let exchange = listing(&gateway());
    assert_eq!(exchange.response_headers([(":status", "200")], false), Outcome::Paused);
    let whole = list(&[profile("us.a"), profile("global.a.model")]);
    assert_eq!(exchange.response_body(&whole, false), Outcome::Paused);
    assert_eq!(exchange.response_trailers([("x-checksum", "1")]), Outcome::Continue);
    assert_eq!(exchange.forwarded_response().body, list(&[]).as_bytes());
}

#[test]
fn a_list_without_rules_is_not_held() {
    let mut document = configuration("gateway");
    document.as_object_mut().unwrap().remove("models");
    let gateway = plugin(&with_keys().start().unwrap(), &document);
    let exchange = listing(&gateway);
    assert_eq!(exchange.response_headers([(":status", "200")], false), Outcome::Continue);
    gateway.vm().reset_host_calls();
    assert_eq!(exchange.response_body("[", false), Outcome::Continue);
    assert_eq!(gateway.vm().host_calls().get("proxy_get_buffer_bytes"), None, "the bytes are not needed");
}

#[test]
fn refuses_a_list_that_is_not_json() {
    let gateway = gateway();
    for body in [Some("<html>"), None] {
        let exchange = listing(&gateway);
        let outcome = exchange.response_headers([(":status", "200")], body.is_none());
        if let Some(body) = body {
            assert_eq!(outcome, Outcome::Paused);
            exchange.response_body(body, true);
        }
        let (status, error, message) = refusal(&exchange);
        assert_eq!((status, error.as_str()), (502, "ServiceUnavailableException"), "{message}");
        assert!(values(&exchange.response_map(), "x-amzn-requestid").len() == 1);
        assert_eq!(facts(&exchange)["error"], "ServiceUnavailableException");
    }
}

#[test]
fn refuses_to_describe_a_hidden_model() {
    let exchange = gateway().stream();
    let path = "/inference-profiles/global.anthropic.claude-x";
    assert_eq!(exchange.request_headers(call("GET", path, &[]), true), Outcome::LocalReply);
    let (status, error, _) = refusal(&exchange);
    assert_eq!((status, error.as_str()), (403, "AccessDeniedException"));
}
