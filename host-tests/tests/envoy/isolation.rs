//! Only allowed headers of a client cross, and no internal header comes back.

use serde_json::Value;

use crate::harness::{Harness, Keys, eventually, text_of};
use crate::pool::pooled;

/// What a client must not get across, each with this mark in it.
const MARK: &str = "must-not-cross";

/// Headers that a client may send with any value, and that none but the gateway may set upstream.
const INTERNAL: [&str; 28] = [
    "authorization",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
    "x-amz-user-agent",
    "x-amz-target",
    "x-amzn-trace-id",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "cookie",
    "proxy-authorization",
    "x-api-key",
    "x-bedrock-gateway-cluster",
    "x-bedrock-gateway-class",
    "x-bedrock-gateway-retry",
    "x-bedrock-gateway-leave",
    "x-bedrock-gateway-relay",
    "x-envoy-original-path",
    "x-envoy-retry-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-alt-stat-name",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-request-id",
    "via",
    "user-agent",
];

const BODY: &str = r#"{"messages":[{"role":"user","content":[{"text":"hello there"}]}]}"#;

fn converse(headers: &str) -> Vec<u8> {
    format!(
        "POST /model/amazon.titan-text-express-v1/converse HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{BODY}",
        BODY.len()
    )
    .into_bytes()
}

#[test]
fn no_header_of_the_clients_reaches_upstream() {
    let harness = pooled();
    let headers: String = INTERNAL.iter().map(|name| format!("{name}: {MARK}\r\n")).collect();
    let (status, head, body) = harness.gateway.raw(&converse(&headers));
    assert_eq!(status, 200, "{head} {body}");
    let received = harness.received().pop().unwrap();
    for (name, value) in &received.headers {
        assert!(!value.contains(MARK), "{name}: {value}");
    }
    let names: Vec<&str> = received.headers.iter().map(|(name, _)| name.as_str()).collect();
    for name in INTERNAL.iter().filter(|name| !["authorization", "x-amz-date", "x-amz-content-sha256"].contains(name)) {
        assert!(!names.contains(name), "{name} crossed: {names:?}");
    }
    assert_eq!(received.host, "bedrock-runtime.us-east-1.amazonaws.com");
    harness.assert_no_violation();
}

#[test]
fn the_client_cannot_choose_a_cluster() {
    let harness = pooled();
    for cluster in ["audit-als", "bedrock.any", "nothing"] {
        let (status, ..) = harness.gateway.raw(&converse(&format!("x-bedrock-gateway-cluster: {cluster}\r\n")));
        assert_eq!(status, 200, "{cluster}");
    }
    assert!(harness.received().iter().all(|request| request.operation.as_deref() == Some("Converse")));
}

#[test]
fn refuses_repeated_headers_that_matter() {
    let harness = pooled();
    let twice = "x-amzn-bedrock-trace: ENABLED\r\nx-amzn-bedrock-trace: DISABLED\r\n";
    // The call has a content type already.
    for repeated in [twice, "content-type: text/plain\r\n"] {
        let (status, head, _) = harness.gateway.raw(&converse(repeated));
        assert_eq!(status, 400, "{head}");
        assert!(head.contains("x-amzn-errortype: validationexception"), "{head}");
    }
    assert!(harness.received().is_empty());
}

#[test]
fn no_internal_header_comes_back() {
    let harness = pooled();
    let (_, head, _) = harness.gateway.raw(&converse(""));
    for internal in ["x-envoy", "x-bedrock-gateway", "server: envoy", "x-request-id"] {
        assert!(!head.contains(internal), "{head}");
    }
}

#[test]
fn header_bytes_that_are_not_text_pass() {
    let harness = pooled();
    let mut request = b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-odd: ".to_vec();
    request.extend(b"\xff\xfe\r\n\r\n");
    let (status, ..) = harness.gateway.raw(&request);
    assert_eq!(status, 200);
    harness.assert_no_violation();
}

/// The ids under which the access log's exchanges are kept, once there are `count`.
fn ids(harness: &Harness, count: usize) -> Vec<String> {
    eventually("the access log", || {
        let text = text_of(&harness.access_log());
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let id = |line: &Value| {
            let facts: Value = serde_json::from_str(line["exchange"].as_str().unwrap()).unwrap();
            facts["id"].as_str().unwrap().to_owned()
        };
        (lines.len() >= count).then(|| lines.iter().map(id).collect())
    })
}

#[test]
fn clients_cannot_choose_the_audit_key() {
    // With one id for many calls, all but one would leave no record.
    const CHOSEN: &str = "11111111-2222-4333-8444-555555555555";
    let harness = Harness::lone(Keys::LongLived);
    for _ in 0..2 {
        let (status, ..) = harness.gateway.raw(&converse(&format!("x-request-id: {CHOSEN}\r\n")));
        assert_eq!(status, 200);
    }
    let ids = ids(&harness, 2);
    assert!(ids[0] != ids[1] && !ids.iter().any(|id| id == CHOSEN), "{ids:?}");
}

#[test]
fn requests_that_envoy_rejects_have_audit_keys() {
    let harness = Harness::lone(Keys::LongLived);
    for _ in 0..2 {
        let (status, ..) = harness.gateway.raw(b"GET / HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n");
        assert_eq!(status, 400);
    }
    let ids = ids(&harness, 2);
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == 36), "{ids:?}");
}
