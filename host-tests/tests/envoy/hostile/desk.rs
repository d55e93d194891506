//! A gateway on a desk: web pages in the desk's browser, other users of the machine, and callers that prove no name.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Harness, Keys, policy};

const BODY: &str = r#"{"messages":[{"role":"user","content":[{"text":"hello there"}]}]}"#;

fn converse(host: &str, headers: &str) -> Vec<u8> {
    format!(
        "POST /model/amazon.titan-text-express-v1/converse HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{BODY}",
        BODY.len()
    )
    .into_bytes()
}

#[test]
fn no_web_page_spends_tokens() {
    let arguments = ["--host", "gateway.example", "--origin", "https://app.example"];
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &arguments);
    let port = harness.gateway.http.rsplit_once(':').unwrap().1.to_owned();
    let local = format!("localhost:{port}");
    for (host, headers, allowed) in [
        (local.as_str(), "", true),
        ("127.0.0.1", "", true),
        ("[::1]:10000", "", true),
        ("gateway.example", "", true),
        (&local, "origin: https://app.example\r\nsec-fetch-site: cross-site\r\n", true),
        // DNS rebinding: the page's own name resolves to the gateway, so its calls are of the same origin.
        (&format!("rebound.example:{port}"), "", false),
        ("localhost.rebound.example", "", false),
        (&local, "origin: https://page.example\r\n", false),
        (&local, "origin: null\r\n", false),
        (&local, "sec-fetch-site: cross-site\r\n", false),
    ] {
        let before = harness.received().len();
        let (status, head, body) = harness.gateway.raw(&converse(host, headers));
        let wanted = if allowed { 200 } else { 403 };
        assert_eq!(status, wanted, "{host} {headers}: {body}");
        assert_eq!(harness.received().len() - before, usize::from(allowed), "{host} {headers}");
        assert!(allowed || (head.contains("accessdeniedexception") && body.contains("gateway")), "{head} {body}");
    }
}

#[test]
fn nobody_is_served_only_where_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let refuse = policy(dir.path(), "route_classes:\n", "anonymous: refuse\nroute_classes:\n");
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--policy", &refuse]);
    let (status, head, body) = harness.gateway.raw(&converse("localhost", ""));
    assert_eq!((status, harness.received().len()), (403, 0), "{body}");
    assert!(head.contains("accessdeniedexception") && body.contains("anonymous: refuse"), "{head} {body}");
}

#[test]
fn other_users_read_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit.db");
    let mut harness =
        Harness::new(Keys::LongLived, &["internet"], |double| double, &["--audit", audit.to_str().unwrap()]);
    assert_eq!(harness.gateway.raw(&converse("localhost", "")).0, 200);
    let mode = |file: &Path| std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
    let run = harness.gateway.run_dir();
    for file in [harness.access_log(), run.join("envoy.log"), run.join("collector.log"), audit.clone()] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    harness.gateway.end();
    assert_eq!(mode(&audit), 0o600);
}
