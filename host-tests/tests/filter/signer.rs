//! The upstream role: each attempt is signed for its path and region.

use crate::common::{
    HANDOFF, MODEL, PROFILE_ARN, attempt, attempt_over, both_roles, call, configuration, converse, filter, invoke,
    judge, only, plugin, refusal, with_keys,
};
use proxy_wasm_vm::{Exchange, Outcome, Plugin, headers, values};
use serde_json::{Value, json};
use std::time::Duration;

const BODY: &str = r#"{"messages":[{"role":"user","content":[{"text":"hi"}]}]}"#;

/// A call that has passed the gateway.
fn passed(gateway: &Plugin) -> Exchange {
    let exchange = gateway.stream();
    exchange.request_headers(converse(&[("x-amzn-bedrock-trace", "ENABLED")]), false);
    assert_eq!(exchange.request_body(BODY, true), Outcome::Continue);
    exchange
}

#[test]
fn signs_for_the_region_of_the_endpoint() {
    let (gateway, signer) = both_roles();
    for region in ["us-east-1", "us-west-2"] {
        let exchange = passed(&gateway);
        let attempt = attempt(&signer, &exchange, region);
        assert_eq!(attempt.request_headers(exchange.request_map(), false), Outcome::Continue);
        assert_eq!(attempt.request_body(BODY, true), Outcome::Continue);
        judge(&attempt, BODY.as_bytes(), region, None).unwrap();
        // Another body or region breaks the signature.
        judge(&attempt, b"x", region, None).unwrap_err();
        judge(&attempt, BODY.as_bytes(), "eu-west-1", None).unwrap_err();

        let mut names: Vec<_> = attempt.request_map().into_iter().map(|(name, _)| name).collect();
        names.sort();
        let crossing = [
            ":authority",
            ":method",
            ":path",
            ":scheme",
            "authorization",
            "content-length",
            "content-type",
            "x-amz-date",
            "x-amzn-bedrock-trace",
        ];
        assert_eq!(names, crossing, "nothing internal crosses");
        assert_eq!(only(&attempt.request_map(), ":authority"), format!("bedrock-runtime.{region}.amazonaws.com"));
        let path = format!("/model/us.{}/converse", MODEL.replace(':', "%3A"));
        assert_eq!(only(&attempt.request_map(), ":path"), path);
        let facts: Value = serde_json::from_slice(&exchange.filter_state("wasm.bedrock.attempt").unwrap()).unwrap();
        let wanted = json!({
            "model": format!("us.{MODEL}"), "region": region, "access_key_id": "AKIDEXAMPLE",
            "tried": [format!("dx/{region}")],
        });
        assert_eq!(facts, wanted);
    }
}

#[test]
fn a_second_attempt_is_signed_anew() {
    let (gateway, signer) = both_roles();
    let exchange = passed(&gateway);
    let first = attempt(&signer, &exchange, "us-east-1");
    first.request_headers(exchange.request_map(), false);
    judge(&first, BODY.as_bytes(), "us-east-1", None).unwrap();

    // Ten minutes and a region later, with the headers as the first attempt left them.
    gateway.vm().advance(Duration::from_secs(600));
    judge(&first, BODY.as_bytes(), "us-east-1", None).unwrap_err();
    let second = attempt(&signer, &exchange, "us-west-2");
    assert_eq!(second.request_headers(first.request_map(), false), Outcome::Continue);
    judge(&second, BODY.as_bytes(), "us-west-2", None).unwrap();
    for name in ["authorization", "x-amz-date"] {
        assert_ne!(only(&first.request_map(), name), only(&second.request_map(), name));
    }
    let facts: Value = serde_json::from_slice(&exchange.filter_state("wasm.bedrock.attempt").unwrap()).unwrap();
    assert_eq!((&facts["region"], &facts["tried"]), (&json!("us-west-2"), &json!(["dx/us-east-1", "dx/us-west-2"])));
}

/// Whether the signer asks for a retry after a response, and the region that it is to leave.
fn retry(attempt: &Exchange, status: &str) -> (bool, Option<String>) {
    let upstream =
        [(":status", status), ("x-bedrock-gateway-retry", "1"), ("x-bedrock-gateway-leave", "ap-southeast-2")];
    assert_eq!(attempt.response_headers(upstream, true), Outcome::Continue);
    let asked = values(&attempt.response_map(), "x-bedrock-gateway-retry");
    let mut leave = values(&attempt.response_map(), "x-bedrock-gateway-leave");
    assert!(asked.len() <= 1 && leave.len() <= 1, "{asked:?} {leave:?}");
    (!asked.is_empty(), leave.pop())
}

fn retries(attempt: &Exchange, status: &str) -> bool {
    retry(attempt, status).0
}

#[test]
fn a_retry_leaves_a_region_that_throttles() {
    for (status, places, wanted) in [
        ("200", vec![("dx", "us-east-1")], (false, None)),
        ("429", vec![("dx", "us-east-1")], (true, Some("us-east-1"))),
        ("429", vec![("dx", "us-east-1"), ("dx", "us-west-2")], (false, None)),
        // Another path of the region may answer.
        ("503", vec![("dx", "us-east-1")], (true, None)),
        ("503", vec![("dx", "us-east-1"), ("vpn", "us-east-1"), ("internet", "us-east-1")], (true, Some("us-east-1"))),
        ("503", vec![("internet", "us-east-1"), ("vpn", "us-west-2")], (true, None)),
    ] {
        let (gateway, signer) = both_roles();
        let exchange = passed(&gateway);
        let mut map = exchange.request_map();
        let mut last = None;
        for (path, region) in &places {
            let attempt = attempt_over(&signer, &exchange, path, region);
            assert_eq!(attempt.request_headers(map.clone(), false), Outcome::Continue);
            map = attempt.request_map();
            last = Some(retry(&attempt, status));
        }
        assert_eq!(last, Some((wanted.0, wanted.1.map(str::to_owned))), "{status} {places:?}");
    }
}

#[test]
fn a_hopeless_region_is_left_after_503() {
    let (gateway, signer) = both_roles();
    let attempt = |gateway: &Plugin| {
        let exchange = passed(gateway);
        let attempt = attempt_over(&signer, &exchange, "dx", "us-east-1");
        attempt.request_headers(exchange.request_map(), false);
        attempt
    };
    assert_eq!(retry(&attempt(&gateway), "503"), (true, None));
    gateway.vm().advance(Duration::from_secs(2));
    assert_eq!(retry(&attempt(&gateway), "503"), (true, Some("us-east-1".to_owned())));
}

#[test]
fn retries_what_another_path_may_answer() {
    for (status, places, wanted) in [
        ("200", vec![("dx", "us-east-1")], false),
        ("400", vec![("dx", "us-east-1")], false),
        ("500", vec![("dx", "us-east-1")], false),
        ("429", vec![("dx", "us-east-1")], true),
        ("503", vec![("dx", "us-east-1")], true),
        ("503", vec![("dx", "us-east-1"), ("vpn", "us-west-2")], true),
        // Both regions throttle the model: their breakers are open.
        ("429", vec![("dx", "us-east-1"), ("vpn", "us-west-2")], false),
    ] {
        let (gateway, signer) = both_roles();
        let exchange = passed(&gateway);
        let mut map = exchange.request_map();
        for (index, (path, region)) in places.iter().enumerate() {
            let attempt = attempt_over(&signer, &exchange, path, region);
            assert_eq!(attempt.request_headers(map.clone(), false), Outcome::Continue);
            map = attempt.request_map();
            let last = index + 1 == places.len();
            assert_eq!(retries(&attempt, status), wanted || !last, "{status} {places:?}");
        }
    }
}

#[test]
fn new_calls_pass_over_a_throttling_region() {
    let (gateway, signer) = both_roles();
    let cluster = |exchange: &Exchange| only(&exchange.request_map(), "x-bedrock-gateway-cluster");
    let exchange = passed(&gateway);
    assert_eq!(cluster(&exchange), "bedrock-runtime.any.us-east-1");
    let attempt = attempt(&signer, &exchange, "us-east-1");
    attempt.request_headers(exchange.request_map(), false);
    assert!(retries(&attempt, "429"));
    assert_eq!(cluster(&passed(&gateway)), "bedrock-runtime.any.us-west-2");
    // After a second one attempt tries the region; others wait for its result.
    gateway.vm().advance(Duration::from_secs(1));
    let trial = |gateway: &Plugin| {
        let trial = passed(gateway);
        assert_eq!(cluster(&trial), "bedrock-runtime.any.us-east-1");
        let attempt = self::attempt(&signer, &trial, "us-east-1");
        attempt.request_headers(trial.request_map(), false);
        assert_eq!(cluster(&passed(gateway)), "bedrock-runtime.any.us-west-2");
        attempt
    };
    // A trial whose client leaves gives way to another.
    trial(&gateway).done();
    assert!(!retries(&trial(&gateway), "200"));
    assert_eq!(cluster(&passed(&gateway)), "bedrock-runtime.any.us-east-1");
}

#[test]
fn refuses_to_sign_for_paths_outside_the_class() {
    let (gateway, signer) = both_roles();
    let private = || {
        let id = "spiffe://mission.example/secret/a";
        let exchange = gateway.stream().property(&["connection", "uri_san_peer_certificate"], id);
        exchange.request_headers(converse(&[]), false);
        exchange.request_body(BODY, true);
        exchange
    };
    for (path, region, message) in [
        ("internet", "us-east-1", "labelled 'internet', which route class 'private-only' does not have as a path"),
        ("dx", "us-west-2", "labelled 'us-west-2', which route class 'private-only' does not have as a region"),
        ("satellite", "us-east-1", "'satellite'"),
    ] {
        let exchange = private();
        let attempt = attempt_over(&signer, &exchange, path, region);
        assert_eq!(attempt.request_headers(exchange.request_map(), false), Outcome::LocalReply);
        let (status, error, text) = refusal(&attempt);
        assert_eq!((status, error.as_str()), (503, "ServiceUnavailableException"));
        assert!(text.contains(message), "{text}");
    }
}

#[test]
fn signs_a_vpc_endpoints_name_on_its_path() {
    let host = "vpce-0a1b-c2d3.bedrock-runtime.us-east-1.vpce.amazonaws.com";
    let vm = with_keys().start().unwrap();
    let mut document = configuration("gateway");
    document["regions"]["us-east-1"]["hosts"] = json!({"vpn": {"bedrock-runtime": host}});
    let gateway = plugin(&vm, &document);
    document["role"] = json!("signer");
    let signer = plugin(&vm, &document);
    for (path, wanted) in [("dx", "bedrock-runtime.us-east-1.amazonaws.com"), ("vpn", host)] {
        let exchange = passed(&gateway);
        let attempt = attempt_over(&signer, &exchange, path, "us-east-1");
        attempt.request_headers(exchange.request_map(), false);
        assert_eq!(only(&attempt.request_map(), ":authority"), wanted);
        judge(&attempt, BODY.as_bytes(), "us-east-1", None).unwrap();
    }
}

#[test]
fn a_region_may_have_profiles_of_its_own() {
    let (gateway, signer) = both_roles();
    let arn = PROFILE_ARN.replace(':', "%3A").replace('/', "%2F");
    for (region, model) in [("us-east-1", "us.amazon.nova-pro-v1%3A0"), ("us-west-2", arn.as_str())] {
        let exchange = gateway.stream();
        exchange.request_headers(call("POST", "/model/amazon.nova-pro-v1:0/invoke", &[]), false);
        exchange.request_body("{}", true);
        let attempt = attempt(&signer, &exchange, region);
        attempt.request_headers(exchange.request_map(), false);
        assert_eq!(only(&attempt.request_map(), ":path"), format!("/model/{model}/invoke"));
        judge(&attempt, b"{}", region, None).unwrap();
    }
}

#[test]
fn arns_queries_and_aliases_are_signed_as_sent() {
    let (gateway, signer) = both_roles();
    let arn = "arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Ainference-profile%2Fus.amazon.titan-lite-v1";
    for (method, path, body, sent) in [
        ("POST", format!("/model/{arn}/converse"), "{}", format!("/model/{arn}/converse")),
        (
            "POST",
            "/model/sonnet/converse".to_owned(),
            "{}",
            format!("/model/us.{}/converse", MODEL.replace(':', "%3A")),
        ),
        (
            "GET",
            "/foundation-models?byProvider=a%20b&byInferenceType=ON_DEMAND".to_owned(),
            "",
            "/foundation-models?byInferenceType=ON_DEMAND&byProvider=a%20b".to_owned(),
        ),
        (
            "GET",
            "/inference-profiles?maxResults=5&nextToken=a%2Fb%3D%3D".to_owned(),
            "",
            "/inference-profiles?maxResults=5&nextToken=a%2Fb%3D%3D".to_owned(),
        ),
    ] {
        let exchange = gateway.stream();
        if exchange.request_headers(call(method, &path, &[]), body.is_empty()) == Outcome::Paused {
            exchange.request_body(body, true);
        }
        let attempt = attempt(&signer, &exchange, "us-east-1");
        assert_eq!(attempt.request_headers(exchange.request_map(), body.is_empty()), Outcome::Continue, "{path}");
        assert_eq!(only(&attempt.request_map(), ":path"), sent);
        judge(&attempt, body.as_bytes(), "us-east-1", None).unwrap_or_else(|refusal| panic!("{path}: {refusal}"));
    }
}

#[test]
fn a_session_token_is_sent_and_signed() {
    let vm = with_keys().env("AWS_SESSION_TOKEN", "the/token+==").start().unwrap();
    let (gateway, signer) = (plugin(&vm, &configuration("gateway")), plugin(&vm, &configuration("signer")));
    let exchange = passed(&gateway);
    let attempt = attempt(&signer, &exchange, "us-east-1");
    attempt.request_headers(exchange.request_map(), false);
    judge(&attempt, BODY.as_bytes(), "us-east-1", Some("the/token+==")).unwrap();
    judge(&attempt, BODY.as_bytes(), "us-east-1", None).unwrap_err();
}

#[test]
fn fips_endpoints_have_hosts_of_their_own() {
    let vm = with_keys().start().unwrap();
    let document = |role| {
        let mut document = configuration(role);
        document["fips"] = json!(true);
        document
    };
    let (gateway, signer) = (plugin(&vm, &document("gateway")), plugin(&vm, &document("signer")));
    let exchange = passed(&gateway);
    let attempt = attempt(&signer, &exchange, "us-east-1");
    attempt.request_headers(exchange.request_map(), false);
    assert_eq!(only(&attempt.request_map(), ":authority"), "bedrock-runtime-fips.us-east-1.amazonaws.com");
    judge(&attempt, BODY.as_bytes(), "us-east-1", None).unwrap();
}

#[test]
fn bearer_sends_the_key_and_no_signature() {
    let vm = filter().env("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-1").start().unwrap();
    let document = |role| {
        let mut document = configuration(role);
        document["auth"] = json!("bearer");
        document
    };
    let (gateway, signer) = (plugin(&vm, &document("gateway")), plugin(&vm, &document("signer")));
    let exchange = gateway.stream();
    exchange.request_headers(invoke(&[("content-length", "2"), ("authorization", "Bearer clients-own")]), false);
    let attempt = attempt(&signer, &exchange, "us-west-2");
    assert_eq!(attempt.request_headers(exchange.request_map(), false), Outcome::Continue);
    let map = attempt.request_map();
    assert_eq!(only(&map, "authorization"), "Bearer bedrock-api-key-1");
    assert_eq!((only(&map, "content-length"), values(&map, "x-amz-date").len()), ("2".to_owned(), 0));
    assert_eq!(only(&map, ":authority"), "bedrock-runtime.us-west-2.amazonaws.com");
}

#[test]
fn refuses_what_the_gateway_did_not_pass() {
    let (gateway, signer) = both_roles();
    // No gateway ran before: a route that bypasses it.
    let around = gateway.stream();
    let attempt_around = attempt(&signer, &around, "us-east-1");
    assert_eq!(attempt_around.request_headers(converse(&[]), false), Outcome::LocalReply);
    // An endpoint without a label, or with one that is not in the configuration.
    let unlabelled = signer.attempt(&passed(&gateway));
    assert_eq!(unlabelled.request_headers(converse(&[]), false), Outcome::LocalReply);
    let elsewhere = attempt(&signer, &passed(&gateway), "eu-west-1");
    assert_eq!(elsewhere.request_headers(converse(&[]), false), Outcome::LocalReply);
    for exchange in [attempt_around, unlabelled, elsewhere] {
        let (status, error, message) = refusal(&exchange);
        assert_eq!((status, error.as_str()), (503, "ServiceUnavailableException"));
        assert!(message.contains("Nothing was sent"), "{message}");
        assert!(!exchange.forwarded_request().headers);
    }
}

#[test]
fn a_client_cannot_hand_over_for_the_gateway() {
    let (gateway, signer) = both_roles();
    let exchange = gateway.stream();
    // Headers cannot set filter state, and the client's headers do not reach the signer.
    exchange
        .request_headers(converse(&[("bedrock.handoff", "{}"), (HANDOFF, "{}"), ("x-bedrock-gateway", "1")]), false);
    exchange.request_body(BODY, true);
    let attempt = attempt(&signer, &exchange, "us-east-1");
    let mut map = exchange.request_map();
    map.extend(headers([("x-envoy-attempt-count", "1"), ("x-forwarded-for", "10.0.0.1")]));
    attempt.request_headers(map, false);
    for name in ["bedrock.handoff", HANDOFF, "x-bedrock-gateway", "x-envoy-attempt-count", "x-forwarded-for"] {
        assert!(values(&attempt.request_map(), name).is_empty(), "{name}");
    }
    judge(&attempt, BODY.as_bytes(), "us-east-1", None).unwrap();
}
