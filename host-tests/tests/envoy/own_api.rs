//! The gateway's own API, answered by the module in Envoy.

use serde_json::Value;

use crate::harness::{Harness, Keys, policy};

#[test]
fn the_gateway_answers_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let policy = policy(dir.path(), "# Models that may be called;", "gateway_api: {}\n\n# Models that may be called;");
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--policy", &policy]);
    let get = |path: &str, extra: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{extra}connection: close\r\n\r\n");
        harness.gateway.raw(request.as_bytes())
    };
    for path in ["/gateway/v1/status", "/gateway/v1/models"] {
        let (status, head, body) = get(path, "");
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("content-type: application/json") && head.contains("x-amzn-requestid: "), "{head}");
        let parsed: Value = serde_json::from_str(&body).unwrap();
        assert!(parsed["credentials"][0]["state"] == "usable" || parsed["models"][0]["id"].is_string(), "{body}");
        let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        let (status, head, body) = get(path, &format!("if-none-match: {tag}\r\n"));
        assert_eq!((status, body.as_str()), (304, ""), "{head}");
    }
    assert_eq!(get("/gateway/v1/other", "").0, 404);
    assert_eq!(get("/gateway/v1/status", "origin: https://evil.example\r\n").0, 403);
    assert!(harness.received().is_empty());
}
