//! In which order paths and regions are tried: a failed path is replaced by another path of the same region, a region that
//! throttles by another region.

use bedrock_double::PathFault::{self, None as Good, Refuse, Reset, Status};
use serde_json::{Value, json};

use crate::harness::{Harness, eventually, text_of};

const HAIKU: &str = "claude-haiku-4-5-20251001-v1:0";
const SONNET: &str = "claude-3-5-sonnet-20241022-v2:0";
const OLDER_SONNET: &str = "claude-3-5-sonnet-20240620-v1:0";
const SONNET_3_7: &str = "claude-3-7-sonnet-20250219-v1:0";
const HAIKU_3_5: &str = "claude-3-5-haiku-20241022-v1:0";
/// A double for each.
const PLACES: [&str; 4] = ["dx@us-east-1", "vpn@us-east-1", "dx@us-west-2", "vpn@us-west-2"];

/// A class of two paths and two regions, with a double for each path and region.
fn harness() -> Harness {
    Harness::one_class(&PLACES, json!({ "paths": ["dx", "vpn"], "regions": ["us-east-1", "us-west-2"] }), &[])
}

/// A call of a model: each has breakers of its own.
fn request(operation: &str, model: &str) -> Vec<u8> {
    let body = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] }).to_string();
    let model = model.replace(':', "%3A");
    format!(
        "POST /model/us.anthropic.{model}/{operation} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// How many calls of a model each double got.
fn got(harness: &Harness, model: &str) -> Vec<usize> {
    let calls = |double: &bedrock_double::Running| {
        let requests = double.requests();
        requests.iter().filter(|request| request.labels.iter().any(|label| label.ends_with(model))).count()
    };
    harness.doubles.iter().map(calls).collect()
}

/// The doubles have these faults: the status that a client gets, and the calls that each double got.
fn call(harness: &Harness, operation: &str, model: &str, faults: [PathFault; 4]) -> (u16, Vec<usize>) {
    for (double, fault) in harness.doubles.iter().zip(faults) {
        double.set_fault(fault);
    }
    let (status, head, body) = harness.gateway.raw(&request(operation, model));
    assert!(!head.contains("x-bedrock-gateway"), "{head}");
    assert!(status != 200 || !body.contains("xception"), "{body}");
    harness.assert_no_violation();
    (status, got(harness, model))
}

/// Waits until so many endpoints of the first cluster are healthy.
fn healthy(harness: &Harness, count: usize) {
    let page = r"/stats?filter=cluster.bedrock-runtime.any.us-east-1.membership_healthy";
    let wanted = format!("membership_healthy: {count}");
    eventually(&wanted, || harness.gateway.admin(page).contains(&wanted).then_some(()));
}

#[test]
fn a_path_change_keeps_the_region() {
    let harness = harness();
    assert_eq!(call(&harness, "converse", HAIKU, [Status(503), Good, Good, Good]), (200, vec![1, 1, 0, 0]));
    assert_eq!(
        call(&harness, "converse-stream", SONNET, [Status(503), Status(503), Good, Good]),
        (200, vec![1, 1, 1, 0])
    );
    assert_eq!(call(&harness, "converse-stream", OLDER_SONNET, [Reset, Good, Good, Good]), (200, vec![0, 1, 0, 0]));
    assert_eq!(call(&harness, "converse", SONNET_3_7, [Refuse, Good, Good, Good]), (200, vec![0, 1, 0, 0]));
    assert_eq!(call(&harness, "converse", HAIKU_3_5, [Refuse, Refuse, Good, Good]), (200, vec![0, 0, 1, 0]));
}

#[test]
fn health_keeps_calls_in_their_region() {
    let harness = harness();
    harness.doubles[0].set_fault(Refuse);
    healthy(&harness, 3);
    for _ in 0..5 {
        assert_eq!(harness.gateway.raw(&request("converse", SONNET)).0, 200);
    }
    assert_eq!(got(&harness, SONNET), [0, 5, 0, 0]);
    let lines: Vec<Value> = eventually("the access log", || {
        let text = text_of(&harness.access_log());
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() == 5).then_some(lines)
    });
    assert!(lines.iter().all(|line| line["attempts"] == 1 && line["path"] == "vpn"), "{lines:?}");
}

#[test]
fn a_throttled_region_is_tried_on_one_path() {
    let harness = harness();
    let east = || [Status(429), Status(429)];
    let [first, second] = east();
    assert_eq!(call(&harness, "converse", HAIKU, [first, second, Good, Good]), (200, vec![1, 0, 1, 0]));
    let [first, second] = east();
    assert_eq!(call(&harness, "converse-stream", SONNET, [first, second, Good, Good]), (200, vec![1, 0, 1, 0]));
    // 503 on one path of the region, 429 on the other.
    let mixed = [Status(503), Status(429), Good, Good];
    assert_eq!(call(&harness, "converse", OLDER_SONNET, mixed), (200, vec![1, 1, 1, 0]));
    // The next region's first path is down too: its second.
    let [first, second] = east();
    assert_eq!(call(&harness, "converse", SONNET_3_7, [first, second, Refuse, Good]), (200, vec![1, 0, 0, 1]));
    // A path that is down, then a region that throttles.
    harness.doubles[2].set_fault(Good);
    healthy(&harness, 4);
    assert_eq!(call(&harness, "converse", HAIKU_3_5, [Refuse, Status(429), Good, Good]), (200, vec![0, 1, 1, 0]));
}

#[test]
fn throttling_passes_if_no_region_is_left() {
    let harness = harness();
    let all = [Status(429), Status(429), Status(429), Status(429)];
    assert_eq!(call(&harness, "converse", SONNET, all), (429, vec![1, 0, 1, 0]));
    // The other region is down on all paths: Bedrock's 429, not a 503 for a class without a path.
    for place in [2, 3] {
        harness.doubles[place].set_fault(Refuse);
    }
    healthy(&harness, 2);
    let (status, head, _) = harness.gateway.raw(&request("converse", HAIKU));
    assert!(status == 429 && head.contains("x-amzn-errortype: throttlingexception"), "{status} {head}");
}
