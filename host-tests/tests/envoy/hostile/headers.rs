//! Headers, request lines and framing.

use super::{BODY, Case, MODEL, assert_no_reload, converse, path_of, records, send, try_all};
use crate::harness::{Harness, Keys, base};

const INVALID: &str = "ValidationException";
const UNKNOWN: &str = "UnknownOperationException";

/// A request with these lines after the first, and no body.
fn get(line: &str, headers: &str) -> String {
    format!("{line}\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
}

/// gRPC's content types: Envoy turns its own replies to them into 200.
fn grpc() -> Vec<Case> {
    let path = path_of(MODEL);
    let types = [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc+json",
        "application/grpc;charset=utf-8",
        "application/grpc ; x=y",
        "Application/GRPC",
        "application/grpc-web",
        "application/grpc-web-text+proto",
    ];
    let typed = |name: &str| format!("content-type: {name}\r\n");
    let mut cases: Vec<Case> = types
        .iter()
        .map(|name| Case::new(*name, converse(&path, &typed(name)), 415, INVALID).says("send application/json"))
        .collect();
    let grpc = typed("application/grpc");
    cases.extend([
        Case::new("grpc, unknown operation", converse("/elsewhere", &grpc), 404, UNKNOWN),
        Case::new("grpc, bad label", converse("/model/%zz/converse", &grpc), 400, INVALID),
        Case::new("grpc, unknown parameter", converse(&format!("{path}?a=b"), &grpc), 400, INVALID),
        Case::new("grpc, get", get("GET /foundation-models HTTP/1.1", &grpc), 415, INVALID),
        Case::new("grpc, te", converse(&path, &format!("{grpc}te: trailers\r\n")), 415, INVALID),
    ]);
    cases
}

/// Headers that the filter refuses, or drops.
fn headers() -> Vec<Case> {
    let path = path_of(MODEL);
    let with = |name: &str, headers: &str, status: u16, error: &'static str| {
        Case::new(name, converse(&path, headers), status, error)
    };
    vec![
        with("plain", "content-type: application/json\r\n", 200, ""),
        with("no content type", "", 200, ""),
        with("repeated trace", "x-amzn-bedrock-trace: ENABLED\r\nx-amzn-bedrock-trace: DISABLED\r\n", 400, INVALID),
        with("repeated type", "content-type: a/b\r\ncontent-type: c/d\r\n", 400, INVALID),
        with("repeated accept", "accept: a/b\r\naccept: c/d\r\n", 200, ""),
        with("a list as type", "content-type: a/b, c/d\r\n", 400, INVALID),
        with("not ASCII", "x-amzn-bedrock-service-tier: \u{fc}\r\n", 400, INVALID),
        with("newer than the gateway", "x-amzn-bedrock-new: 1\r\n", 400, INVALID).says("'x-amzn-bedrock-new'"),
        with("compressed", "content-encoding: gzip\r\n", 400, INVALID),
        with("compressed twice", "content-encoding: identity, gzip\r\n", 400, INVALID),
        with("own signature", "authorization: AWS4-HMAC-SHA256 x\r\nx-amz-date: 20260101T000000Z\r\n", 200, ""),
        with("own token", "x-amz-security-token: x\r\n", 200, ""),
        with("cluster", "x-bedrock-gateway-cluster: audit-als\r\n", 200, ""),
        with("relay", "x-bedrock-gateway-relay: x\r\n", 200, ""),
        with("envoy's", "x-envoy-upstream-rq-timeout-ms: 1\r\nx-envoy-retry-on: 5xx\r\n", 200, ""),
        with("forwarded", "x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: https\r\n", 200, ""),
        with("other host", "x-forwarded-host: evil.example\r\nx-original-url: /\r\n", 200, ""),
        with("method override", "x-http-method-override: DELETE\r\n", 200, ""),
        with("continue", "expect: 100-continue\r\n", 200, ""),
        with("another expectation", "expect: something\r\n", 200, ""),
        with("upgrade to h2c", "upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n", 200, ""),
        with("a name that is long", &format!("{}: y\r\n", "x".repeat(2000)), 200, ""),
    ]
}

/// Request lines.
fn lines() -> Vec<Case> {
    let get = |line: &str, status: u16, error: &'static str| Case::new(line, get(line, ""), status, error);
    let mut cases = vec![
        get("GET /foundation-models HTTP/1.1", 200, ""),
        get("GET http://evil.example/foundation-models HTTP/1.1", 200, ""),
        get("GET / HTTP/1.1", 404, UNKNOWN),
        get("GET //foundation-models HTTP/1.1", 404, UNKNOWN),
        get("GET /foundation-models/ HTTP/1.1", 404, UNKNOWN),
        get("GET /./foundation-models HTTP/1.1", 404, UNKNOWN),
        get("GET /x/../foundation-models HTTP/1.1", 404, UNKNOWN),
        get("GET \\foundation-models HTTP/1.1", 400, INVALID),
        get("GET /foundation-models#x HTTP/1.1", 400, INVALID),
        get("GET /foundation-models/%2e%2e HTTP/1.1", 400, INVALID),
        get("GET /foundation-models/%00 HTTP/1.1", 400, INVALID),
        get("GET /foundation-models/a%0d%0ab HTTP/1.1", 400, INVALID),
        get("GET /foundation-models/%ff HTTP/1.1", 400, INVALID),
        get("HEAD /foundation-models HTTP/1.1", 404, UNKNOWN),
        get("OPTIONS * HTTP/1.1", 404, INVALID),
        get("TRACE / HTTP/1.1", 404, UNKNOWN),
        get("PUT /foundation-models HTTP/1.1", 404, UNKNOWN),
        get("get /foundation-models HTTP/1.1", 400, INVALID),
        get("CONNECT evil.example:443 HTTP/1.1", 400, INVALID),
        get("GET /foundation-models HTTP/1.0", 426, INVALID),
        get("GET /foundation-models HTTP/2.0", 426, INVALID),
        get("GET /foundation-models", 426, INVALID),
        get("GARBAGE", 400, INVALID),
    ];
    let long = "a".repeat(3000);
    cases.push(Case::new("a long label", converse(&path_of(&long), ""), 400, INVALID));
    let long = "a".repeat(70_000);
    cases.push(Case::new("a path of 70 KB", converse(&path_of(&long), ""), 431, INVALID));
    cases
}

/// What Envoy's codec refuses.
fn framing() -> Vec<Case> {
    let path = path_of(MODEL);
    let raw = |name: &str, headers: &str, body: &str, status: u16, error: &'static str| {
        let text = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n{body}");
        Case::new(name, text, status, error)
    };
    let chunks = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let chunked = "transfer-encoding: chunked\r\n";
    let many: String = (0..150).map(|number| format!("x-{number}: y\r\n")).collect();
    vec![
        raw("chunked", chunked, &chunks, 200, ""),
        raw("chunked in capitals", "transfer-encoding: CHUNKED\r\n", &chunks, 200, ""),
        raw("gzip coding", "transfer-encoding: gzip\r\n", &chunks, 400, INVALID),
        raw("gzip and chunked", "transfer-encoding: gzip, chunked\r\n", &chunks, 400, INVALID),
        raw("unknown coding", "transfer-encoding: xchunked\r\n", &chunks, 400, INVALID),
        raw("identity coding", "transfer-encoding: identity\r\n", &chunks, 400, INVALID),
        raw("length and chunks", &format!("{chunked}content-length: 5\r\n"), &chunks, 400, INVALID),
        raw("two lengths", "content-length: 5\r\ncontent-length: 6\r\n", BODY, 400, INVALID),
        raw("a negative length", "content-length: -1\r\n", BODY, 400, INVALID),
        raw("a length in hex", "content-length: 0x10\r\n", BODY, 400, INVALID),
        raw("a vast length", "content-length: 99999999999999999999999\r\n", BODY, 400, INVALID),
        raw("a bad chunk", chunked, "zz\r\n", 400, INVALID),
        raw("a vast chunk", chunked, "ffffffffffffffffff\r\n", 400, INVALID),
        raw("no colon", "no colon\r\n", "", 400, INVALID),
        raw("a space before the colon", "accept : a/b\r\n", "", 400, INVALID),
        raw("no name", ": x\r\n", "", 400, INVALID),
        raw("a NUL", "accept: a\0b\r\n", "", 400, INVALID),
        raw("a bare CR", "accept: a\rb\r\n", "", 400, INVALID),
        raw("a control character", "accept: a\u{1}b\r\n", "", 400, INVALID),
        raw(
            "a vast trailer",
            chunked,
            &chunks.replace("0\r\n\r\n", &format!("0\r\nx: {}\r\n\r\n", "a".repeat(70_000))),
            431,
            INVALID,
        ),
        raw("150 headers", &many, "", 431, INVALID),
        raw("a header of 70 KB", &format!("x-long: {}\r\n", "a".repeat(70_000)), "", 431, INVALID),
        raw("websocket", "upgrade: websocket\r\nconnection: upgrade\r\n", "", 403, INVALID),
        raw("two hosts", "host: y\r\ncontent-length: 0\r\n", "", 403, "AccessDeniedException"),
        Case::new("no host", format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n"), 400, INVALID),
        raw("grpc, 150 headers", &format!("content-type: application/grpc\r\n{many}"), "", 431, INVALID),
        Case::new("grpc, 1.0", get("GET / HTTP/1.0", "content-type: application/grpc\r\n"), 426, INVALID),
    ]
}

/// Headers that cross and are too long for the upstream, or for the relay on the way.
#[test]
fn long_headers_are_the_clients_fault() {
    let harness = Harness::lone(Keys::LongLived);
    let stream = path_of(MODEL).replace("/converse", "/converse-stream");
    for (path, name, length) in [
        (path_of(MODEL), "x-amzn-bedrock-request-metadata", 50_000),
        (path_of(MODEL), "accept", 61_000),
        (stream.clone(), "accept", 50_000),
        (stream, "accept", 61_000),
    ] {
        let answer = send(&harness, &converse(&path, &format!("{name}: {}\r\n", "a".repeat(length))));
        assert_eq!(answer.status, 431, "{path} {name} {length}: {answer:?}");
    }
    assert_no_reload(&harness);
}

/// Envoy refuses some requests before any filter sees them. If such a request is gRPC's, its answer is too, with status 200 and no
/// body: nothing in a filter can change that. The record has the error all the same.
#[test]
fn a_grpc_refusal_of_envoys_own_is_recorded() {
    let harness = Harness::lone(Keys::LongLived);
    let grpc = "content-type: application/grpc\r\n";
    let upgrade = format!("{grpc}connection: upgrade\r\nupgrade: websocket\r\n");
    for request in [format!("GET / HTTP/1.1\r\n{grpc}\r\n"), format!("GET / HTTP/1.1\r\nhost: x\r\n{upgrade}\r\n")] {
        let answer = send(&harness, request.as_bytes());
        assert_eq!((answer.status, answer.header("x-amzn-errortype")), (200, "validationexception"), "{answer:?}");
    }
    for (facts, line) in records(&harness, 2) {
        assert_eq!((&line["status"], &facts["error"]), (&200.into(), &INVALID.into()), "{line}");
    }
    assert!(harness.received().is_empty());
}

#[test]
fn each_header_case_has_its_answer() {
    let cases: Vec<Case> = [grpc(), headers(), lines(), framing()].into_iter().flatten().collect();
    assert!(cases.len() >= 50, "{}", cases.len());
    let harness = Harness::lone(Keys::LongLived);
    try_all(&harness, &cases);
}

/// Role `combined`, which Istio's files have too.
#[test]
fn combined_answers_header_cases_alike() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path(), r#"{"role": "gateway"}"#, r#"{"role": "combined"}"#);
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--base", &base]);
    let cases: Vec<Case> = [grpc(), headers()].into_iter().flatten().collect();
    try_all(&harness, &cases);
}
