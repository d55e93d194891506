//! The downstream role: headers, operation, policy, body hash, handoff.

use crate::common::{
    HANDOFF, MODEL, REQUEST_ID, call, configuration, converse, facts, filter, gateway, invoke, only, plugin, refusal,
    sha256, with_keys,
};
use proxy_wasm_vm::{Outcome, Status, headers, values};
use serde_json::{Value, json};

fn handoff(exchange: &proxy_wasm_vm::Exchange) -> Value {
    serde_json::from_slice(&exchange.filter_state(HANDOFF).unwrap()).unwrap()
}

#[test]
fn only_known_headers_go_on() {
    let gateway = gateway();
    let exchange = gateway.stream();
    let clients = [
        ("authorization", "AWS4-HMAC-SHA256 Credential=CLIENT/20150830/us-gov-west-1/bedrock/aws4_request"),
        ("x-amz-date", "20150830T123600Z"),
        ("x-amz-security-token", "clients-own"),
        ("x-amz-content-sha256", "clients-own"),
        ("x-amz-user-agent", "aws-sdk-js"),
        ("amz-sdk-invocation-id", "1"),
        ("x-amzn-bedrock-trace", "ENABLED"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("x-bedrock-gateway-cluster", "audit"),
        ("x-bedrock-gateway-cluster", "audit"),
        ("x-forwarded-for", "10.0.0.1"),
        ("user-agent", "Boto3"),
        ("cookie", "a=b"),
        ("accept", "application/json"),
        ("host", "elsewhere.example"),
        ("transfer-encoding", "chunked"),
    ];
    assert_eq!(exchange.request_headers(converse(&clients), false), Outcome::Paused);
    assert_eq!(exchange.request_body("{}", true), Outcome::Continue);
    let mut map = exchange.request_map();
    map.sort();
    let mut expected = headers([
        (":authority", "bedrock-runtime"),
        (":method", "POST"),
        (":path", &format!("/model/{}/converse", MODEL.replace(':', "%3A"))),
        (":scheme", "http"),
        ("accept", "application/json"),
        ("content-length", "2"),
        ("content-type", "application/json"),
        ("x-amzn-bedrock-trace", "ENABLED"),
        ("x-bedrock-gateway-class", "any"),
        ("x-bedrock-gateway-cluster", "bedrock-runtime.any.us-east-1"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", REQUEST_ID),
    ]);
    expected.sort();
    assert_eq!(map, expected);
    assert!(gateway.vm().refused().iter().all(|refused| refused.status == Status::NotFound), "properties only");
}

#[test]
fn refuses_requests_that_are_not_bedrock_calls() {
    let gateway = gateway();
    for (method, path) in [
        ("GET", "/"),
        ("DELETE", "/foundation-models"),
        ("POST", "/model/a/../b/converse"),
        ("GET", "*"),
        ("POST", "/model//converse"),
    ] {
        let exchange = gateway.stream();
        assert_eq!(exchange.request_headers(call(method, path, &[]), true), Outcome::LocalReply, "{method} {path}");
        let (status, error, message) = refusal(&exchange);
        assert_eq!((status, error.as_str()), (404, "UnknownOperationException"), "{message}");
        let id = only(&exchange.response_map(), "x-amzn-requestid");
        assert_ne!(id, REQUEST_ID, "the client may have chosen that one");
        let facts = facts(&exchange);
        assert_eq!((&facts["error"], &facts["id"]), (&json!("UnknownOperationException"), &json!(id)));
    }
}

#[test]
fn names_an_exchange_that_envoy_rejected() {
    let gateway = gateway();
    let ids: Vec<String> = (0..2)
        .map(|_| {
            // For a request that Envoy cannot parse, the filter sees Envoy's response only.
            let exchange = gateway.stream();
            exchange.response_headers([(":status", "400"), ("content-type", "application/json")], false);
            let id = only(&exchange.response_map(), "x-amzn-requestid").clone();
            exchange.response_body("{}", true);
            assert_eq!(facts(&exchange)["id"], json!(id));
            id
        })
        .collect();
    assert_ne!(ids[0], ids[1]);
    assert_eq!((ids[0].len(), ids[0].as_bytes()[14]), (36, b'4'));
}

#[test]
fn refuses_bidirectional_streams_by_name() {
    let exchange = gateway().stream();
    let path = format!("/model/{MODEL}/invoke-with-bidirectional-stream");
    assert_eq!(exchange.request_headers(call("POST", &path, &[]), false), Outcome::LocalReply);
    let (status, error, message) = refusal(&exchange);
    assert_eq!((status, error.as_str()), (400, "ValidationException"));
    assert!(message.contains("ConverseStream"), "{message}");
}

#[test]
fn refuses_models_by_policy_and_partition() {
    let gateway = gateway();
    for model in
        ["global.anthropic.claude-x", "arn:aws-us-gov:bedrock:us-gov-west-1:111122223333:provisioned-model%2Fabc"]
    {
        let exchange = gateway.stream();
        let outcome = exchange.request_headers(call("POST", &format!("/model/{model}/invoke"), &[]), false);
        assert_eq!(outcome, Outcome::LocalReply, "{model}");
        let (status, error, _) = refusal(&exchange);
        assert_eq!((status, error.as_str()), (403, "AccessDeniedException"), "{model}");
    }
}

#[test]
fn refuses_repeated_and_unsignable_headers() {
    let gateway = gateway();
    let repeated = gateway.stream();
    repeated.request_headers(converse(&[("content-type", "text/plain")]), false);
    assert_eq!(refusal(&repeated).0, 400);

    for (name, outcome) in [
        ("x-amzn-bedrock-trace", Outcome::LocalReply),
        ("content-type", Outcome::LocalReply),
        ("content-length", Outcome::LocalReply),
        (":path", Outcome::LocalReply),
        ("accept", Outcome::Paused),
        ("cookie", Outcome::Paused),
        ("x-request-id", Outcome::Paused),
        ("authorization", Outcome::Paused),
    ] {
        let mut map = headers(converse(&[]));
        map.retain(|(held, _)| held != name);
        map.push((name.to_owned(), b"a\xff\xfe".to_vec().into()));
        let exchange = gateway.stream();
        assert_eq!(exchange.request_headers(map, false), outcome, "{name}");
        if outcome == Outcome::LocalReply {
            assert_eq!(refusal(&exchange).0, 400, "{name}");
        }
        exchange.done();
    }
    assert!(gateway.vm().fault().is_none());
}

#[test]
fn the_hash_covers_a_body_in_any_pieces() {
    let gateway = gateway();
    let body: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    for sizes in [vec![200_000], vec![1, 0, 65_535, 65_536, 68_928], vec![100_000, 100_000, 0]] {
        let exchange = gateway.stream();
        assert_eq!(exchange.request_headers(invoke(&[]), false), Outcome::Paused);
        let mut at = 0;
        for (n, size) in sizes.iter().enumerate() {
            let last = n + 1 == sizes.len();
            let outcome = exchange.request_body(&body[at..at + size], last);
            assert_eq!(outcome, if last { Outcome::Continue } else { Outcome::Paused }, "{sizes:?}");
            at += size;
        }
        let handoff = handoff(&exchange);
        assert_eq!(handoff["body_sha256"], sha256(&body), "{sizes:?}");
        assert_eq!(handoff["content_length"], 200_000);
        assert_eq!(only(&exchange.request_map(), "content-length"), "200000");
        let forwarded = exchange.forwarded_request();
        assert!(forwarded.body == body && forwarded.end, "{sizes:?}");
    }
}

#[test]
fn trailers_end_a_body_and_do_not_cross() {
    let gateway = gateway();
    let exchange = gateway.stream();
    exchange.request_headers(converse(&[]), false);
    assert_eq!(exchange.request_body("{}", false), Outcome::Paused);
    assert_eq!(exchange.request_trailers([("x-secret", "1")]), Outcome::Continue);
    assert_eq!(handoff(&exchange)["body_sha256"], sha256(b"{}"));
    assert_eq!(exchange.forwarded_request().body, "{}");
    assert!(exchange.request_trailer_map().is_empty());
}

#[test]
fn refuses_a_body_over_the_limit_at_its_end() {
    let mut document = configuration("gateway");
    document["max_body_bytes"] = json!(10);
    let gateway = plugin(&with_keys().start().unwrap(), &document);
    let announced = gateway.stream();
    assert_eq!(announced.request_headers(converse(&[("content-length", "11")]), false), Outcome::Paused);
    assert_eq!(announced.request_body("0123456789", false), Outcome::Paused);
    assert_eq!(announced.request_body("x", true), Outcome::LocalReply);
    let streamed = gateway.stream();
    streamed.request_headers(converse(&[]), false);
    assert_eq!(streamed.request_body("0123456789", false), Outcome::Paused);
    assert_eq!(streamed.request_body("x", false), Outcome::Paused);
    assert_eq!(streamed.request_body("y", true), Outcome::LocalReply);
    // In one chunk, and more than the filter reads at once.
    let at_once = gateway.stream();
    at_once.request_headers(converse(&[]), false);
    assert_eq!(at_once.request_body("x".repeat(75), true), Outcome::LocalReply);
    // Bodies over eight times the limit get the reply at once.
    let endless = gateway.stream();
    endless.request_headers(converse(&[]), false);
    assert_eq!(endless.request_body("x".repeat(80), false), Outcome::Paused);
    assert_eq!(endless.request_body("x", false), Outcome::LocalReply);
    for exchange in [announced, streamed, at_once, endless] {
        assert_eq!(refusal(&exchange).0, 413);
        assert!(!exchange.forwarded_request().headers);
    }
}

#[test]
fn a_get_goes_on_at_once_without_a_length() {
    let exchange = gateway().stream();
    let path = "/foundation-models?byProvider=anthropic&byInferenceType=ON_DEMAND";
    assert_eq!(exchange.request_headers(call("GET", path, &[]), true), Outcome::Continue);
    let map = exchange.request_map();
    assert_eq!(only(&map, "x-bedrock-gateway-cluster"), "bedrock.any.us-east-1");
    assert_eq!(only(&map, ":path"), "/foundation-models?byInferenceType=ON_DEMAND&byProvider=anthropic");
    assert!(values(&map, "content-length").is_empty());
    assert_eq!(handoff(&exchange)["body_sha256"], sha256(b""));
}

#[test]
fn bearer_does_not_hold_the_body() {
    let mut document = configuration("gateway");
    document["auth"] = json!("bearer");
    document["max_body_bytes"] = json!(10);
    let vm = filter().env("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-1").start().unwrap();
    let gateway = plugin(&vm, &document);
    let exchange = gateway.stream();
    assert_eq!(exchange.request_headers(invoke(&[]), false), Outcome::Continue);
    vm.reset_host_calls();
    assert_eq!(exchange.request_body("01234", false), Outcome::Continue);
    assert_eq!(exchange.request_body("56789", true), Outcome::Continue);
    assert_eq!(vm.host_calls().get("proxy_get_buffer_bytes"), None, "the bytes are not needed");
    assert_eq!(exchange.forwarded_request().chunks, [5, 5]);

    // The limit counts bytes that were already sent.
    let long = gateway.stream();
    long.request_headers(invoke(&[]), false);
    long.request_body("01234", false);
    assert_eq!(long.request_body("567890", false), Outcome::LocalReply);
    assert_eq!(refusal(&long).0, 413);
}

/// A field of a protobuf message: its number, and its content of less than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

/// A `google.protobuf.Value` that is a text.
fn text(text: &str) -> Vec<u8> {
    field(3, text.as_bytes())
}

/// Envoy's metadata of a call whose token has this `sub`, a `google.protobuf.Value`.
fn token(sub: &[u8]) -> Vec<u8> {
    let entry = |key: &str, value: &[u8]| field(1, &[field(1, key.as_bytes()), field(2, value)].concat());
    let payload = field(5, &entry("sub", sub));
    entry("envoy.filters.http.jwt_authn", &entry("jwt_payload", &payload))
}

#[test]
fn refuses_principals_that_are_not_text() {
    let gateway = gateway();
    let (metadata, mtls) = (&["metadata"], &["connection", "uri_san_peer_certificate"]);
    let number = [&[0x11], b"operator".as_slice()].concat();
    for (exchange, message) in [
        (gateway.stream().property(metadata, token(&number)), "the claim 'sub' of the caller's token is a number"),
        (gateway.stream().property_status(metadata, Status::SerializationFailure), "metadata"),
        (gateway.stream().property(mtls, b"\xff"), "the URI in the caller's certificate is not UTF-8"),
    ] {
        exchange.request_headers(converse(&[]), false);
        let (status, error, body) = refusal(&exchange);
        assert_eq!((status, error.as_str()), (403, "AccessDeniedException"), "{body}");
        assert!(body.contains(message), "{body}");
        assert_eq!(facts(&exchange)["principal"], Value::Null);
    }
}

#[test]
fn the_principal_from_the_mesh_sets_the_class() {
    let gateway = gateway();
    let metadata = &["metadata"];
    let mtls = &["connection", "uri_san_peer_certificate"];
    let secret = "spiffe://mission.example/secret/app";
    for (exchange, principal, class) in [
        (gateway.stream().property(mtls, secret), json!(secret), "private-only"),
        (gateway.stream().property(mtls, "").property(metadata, token(&text("alice"))), json!("alice"), "any"),
        (
            gateway.stream().property(mtls, "spiffe://x").property(metadata, token(&text(secret))),
            json!("spiffe://x"),
            "any",
        ),
        (gateway.stream().property_status(mtls, Status::SerializationFailure), Value::Null, "any"),
        (gateway.stream(), Value::Null, "any"),
    ] {
        exchange.request_headers(converse(&[]), false);
        exchange.request_body("{}", true);
        assert_eq!(only(&exchange.request_map(), "x-bedrock-gateway-class"), class);
        let facts = facts(&exchange);
        assert_eq!((&facts["principal"], &facts["class"]), (&principal, &json!(class)), "{facts}");
        assert_eq!((&facts["operation"], &facts["model"]), (&json!("Converse"), &json!(MODEL)), "{facts}");
    }
}

#[test]
fn a_stream_that_ends_early_leaves_facts() {
    let gateway = gateway();
    let before = gateway.stream();
    before.done();
    let held = gateway.stream();
    held.request_headers(converse(&[]), false);
    held.request_body("{", false);
    let facts = facts(&held);
    assert_eq!((facts["id"].as_str().map(str::len), &facts["operation"]), (Some(36), &json!("Converse")));
    assert_eq!(facts["usage"], json!({}));
}
