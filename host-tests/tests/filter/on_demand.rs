//! Bedrock's refusal of on-demand throughput: read within bounds, retried by the profile, and known to other calls.

use crate::catalogue::{Scene, models, profiles};
use crate::common::{attempt, only};
use proxy_wasm_vm::{Exchange, Outcome, values};
use serde_json::{Value, json};

const REFUSAL: [(&str, &str); 3] =
    [(":status", "400"), ("x-amzn-errortype", "ValidationException"), ("content-type", "application/json")];

fn words(id: &str) -> String {
    let message =
        format!("Invocation of model ID {id} with on-demand throughput isn\u{2019}t supported. Retry your request.");
    json!({ "message": message }).to_string()
}

/// A region that lists on-demand throughput of a model, and its first attempt.
fn first(scene: &Scene, id: &str) -> (Exchange, Exchange) {
    let exchange = scene.converse(id);
    let first = attempt(&scene.signer, &exchange, "us-east-1");
    assert_eq!(first.request_headers(exchange.request_map(), false), Outcome::Continue);
    assert_eq!(only(&first.request_map(), ":path"), format!("/model/{id}/converse"));
    (exchange, first)
}

fn scene() -> Scene {
    let scene = Scene::new();
    scene.poll(&models(&[("a.b", "ON_DEMAND"), ("a.c", "ON_DEMAND")]), &profiles(&["us.a.b"]));
    scene
}

fn asks_for_a_retry(attempt: &Exchange) -> bool {
    !values(&attempt.response_map(), "x-bedrock-gateway-retry").is_empty()
}

#[test]
fn a_refusal_is_retried_and_learnt() {
    for chunks in [1, 3, 200] {
        let scene = scene();
        let (exchange, first) = first(&scene, "a.b");
        assert_eq!(first.response_headers(REFUSAL, false), Outcome::Paused);
        let body = words("a.b");
        for chunk in body.as_bytes().chunks(body.len().div_ceil(chunks)) {
            assert_eq!(first.response_body(chunk, false), Outcome::Paused);
            assert!(!asks_for_a_retry(&first));
        }
        assert_eq!(first.response_body("", true), Outcome::Continue);
        assert_eq!(only(&first.response_map(), "x-bedrock-gateway-retry"), "1");

        let second = attempt(&scene.signer, &exchange, "us-east-1");
        assert_eq!(second.request_headers(first.request_map(), false), Outcome::Continue);
        assert_eq!(only(&second.request_map(), ":path"), "/model/us.a.b/converse");
        let facts: Value = serde_json::from_slice(&exchange.filter_state("wasm.bedrock.attempt").unwrap()).unwrap();
        assert_eq!((&facts["refused_on_demand"], &facts["model"]), (&json!(1), &json!("us.a.b")));
        assert_eq!(second.response_headers(REFUSAL, false), Outcome::Continue, "once");
        assert_eq!(scene.sent("a.b"), "/model/us.a.b/converse");
        let learnt = scene.vm.shared_data("catalogue/learnt").unwrap();
        assert_eq!(String::from_utf8_lossy(&learnt), "us-east-1 a.b o us");
        let logs = scene.vm.logs();
        assert!(logs.iter().any(|line| line.text.contains("us-east-1 does not run 'a.b' on demand")), "{logs:?}");
    }
}

#[test]
fn other_answers_pass_byte_for_byte() {
    let scene = scene();
    let other = json!({"message": "The provided model identifier is invalid."}).to_string();
    let long = format!("{}{}", words("a.b"), " ".repeat(4096));
    for (body, chunk) in [(other.as_str(), 10), (words("a.c").as_str(), 4096), (long.as_str(), 1000), ("", 1)] {
        let (_, first) = first(&scene, "a.b");
        assert_eq!(first.response_headers(REFUSAL, false), Outcome::Paused);
        for chunk in body.as_bytes().chunks(chunk) {
            first.response_body(chunk, false);
        }
        assert_eq!(first.response_body("", true), Outcome::Continue);
        assert!(!asks_for_a_retry(&first));
        let passed = first.forwarded_response();
        assert!(passed.headers && passed.end, "{body}");
        assert_eq!(String::from_utf8_lossy(&passed.body), body);
    }
    // Without a profile nothing is held, nor where a header says that it is longer. After trailers nothing is retried.
    let (_, alone) = first(&scene, "a.c");
    assert_eq!(alone.response_headers(REFUSAL, false), Outcome::Continue);
    let (_, announced) = first(&scene, "a.b");
    let head = REFUSAL.into_iter().chain([("content-length", "4097")]);
    assert_eq!(announced.response_headers(head, false), Outcome::Continue);
    let (_, trailed) = first(&scene, "a.b");
    trailed.response_headers(REFUSAL, false);
    trailed.response_body(words("a.b"), false);
    assert_eq!(trailed.response_trailers([("x", "y")]), Outcome::Continue);
    assert!(!asks_for_a_retry(&trailed) && trailed.forwarded_response().trailers);
    assert_eq!(scene.sent("a.b"), "/model/a.b/converse");
}
