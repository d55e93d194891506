//! Long bodies are hashed by Envoy's own filter; the double computes every signature and hash again.

use bedrock_double::PathFault;

use crate::harness::{Harness, Keys};
use crate::istio::pod::wait_for_paths;

/// Calls whose bodies Envoy's filter has hashed.
fn hashed(harness: &Harness) -> u64 {
    let page = harness.gateway.admin("/stats?filter=aws_request_signing.payload_signing_added");
    let counts = page.lines().filter_map(|line| line.rsplit_once(": ")?.1.trim().parse::<u64>().ok());
    counts.sum()
}

/// Converse or another operation, with a text of so many bytes.
fn call(harness: &Harness, operation: &str, bytes: usize, headers: &str) {
    let text = "a".repeat(bytes);
    let body = match operation {
        "invoke" | "invoke-with-response-stream" => format!(
            r#"{{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[{{"role":"user","content":"{text}"}}]}}"#
        ),
        _ => format!(r#"{{"messages":[{{"role":"user","content":[{{"text":"{text}"}}]}}]}}"#),
    };
    let (length, body) = if headers.contains("chunked") {
        (String::new(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))
    } else {
        (format!("content-length: {}\r\n", body.len()), body)
    };
    let path = format!("/model/{}/{operation}", bedrock_load::MODEL);
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    let request = format!("{head}{headers}{length}connection: close\r\n\r\n{body}");
    let (status, head, answer) = harness.gateway.raw(request.as_bytes());
    assert_eq!(status, 200, "{operation} of {bytes}: {head} {answer}");
}

#[test]
fn envoy_hashes_long_bodies_for_every_attempt() {
    let harness = Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &[]);
    wait_for_paths(|page| harness.gateway.admin(page));
    for operation in ["converse", "converse-stream", "invoke", "invoke-with-response-stream"] {
        // Envoy hashes bodies up to 256 KiB.
        for bytes in [17_000, 100_000, 250_000, 3_000_000] {
            call(&harness, operation, bytes, "");
        }
    }
    assert_eq!(hashed(&harness), 12);
    // The first path refuses to serve: the second attempt signs the same hash.
    harness.doubles[0].set_fault(PathFault::Status(503));
    for operation in ["converse", "converse-stream"] {
        call(&harness, operation, 100_000, "");
    }
    assert_eq!(hashed(&harness), 14);
    harness.assert_no_violation();
    let [first, second] = [0, 1].map(|place| harness.doubles[place].requests().len());
    assert!(first >= 16 && second >= 2, "{first} and {second}");
}

#[test]
fn the_module_hashes_other_bodies() {
    let harness = Harness::new(Keys::LongLived, &["dx"], |double| double, &[]);
    call(&harness, "converse", 100, "");
    call(&harness, "converse", 100_000, "transfer-encoding: chunked\r\n");
    // What a client says of hashes does not count.
    let forged = "x-bedrock-gateway-hash: sha256\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n";
    call(&harness, "converse", 100, forged);
    assert_eq!(hashed(&harness), 0);
    call(&harness, "converse", 100_000, forged);
    assert_eq!(hashed(&harness), 1);
    harness.assert_no_violation();
}
