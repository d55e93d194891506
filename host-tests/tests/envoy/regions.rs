//! Two regions: each call's attempt is for the region that it goes to, in name, signature and profile.

use std::time::Duration;

use bedrock_double::{Builder, PathFault, Received};
use serde_json::{Value, json};

use crate::clients::{assert_all_answered, python};
use crate::harness::{Harness, Keys, eventually};

const SONNET: &str = "anthropic.claude-3-5-sonnet-20241022-v2:0";

const CLAUDE: &str = "anthropic.claude-3-5-sonnet-20240620-v1:0";

/// Two regions of different geographies, each with its profile of the same model.
fn document(classes: &Value) -> Value {
    json!({
        "regions": {
            "us-east-1": { "inference_profiles": { CLAUDE: format!("us.{CLAUDE}") } },
            "eu-central-1": { "inference_profiles": { CLAUDE: format!("eu.{CLAUDE}") } },
        },
        "route_classes": classes,
    })
}

/// Doubles that serve one region each, on the same path.
fn harness(classes: &Value) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    std::fs::write(&policy, document(classes).to_string()).unwrap();
    let arguments = ["--policy", policy.to_str().unwrap()];
    Harness::new(Keys::Temporary, &["dx@us-east-1", "dx@eu-central-1"], |double| double, &arguments)
}

fn converse(bytes: usize) -> Vec<u8> {
    let text = "x".repeat(bytes);
    let body = json!({ "messages": [{ "role": "user", "content": [{ "text": text }] }] }).to_string();
    let head = format!(
        "POST /model/{}/converse HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        CLAUDE.replace(':', "%3A"),
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// The Converse calls that a double got.
fn got(harness: &Harness, double: usize) -> Vec<Received> {
    let mut got = harness.doubles[double].requests();
    got.retain(|request| request.operation.as_deref() == Some("Converse"));
    got
}

/// Host, server name, signature and profile are the region's own.
fn assert_of(request: &Received, region: &str, profile: &str) {
    let host = format!("bedrock-runtime.{region}.amazonaws.com");
    assert_eq!(request.region.as_deref(), Some(region));
    assert_eq!((request.host.as_str(), request.sni.as_deref()), (host.as_str(), Some(host.as_str())));
    assert_eq!(request.labels, [profile]);
}

#[test]
fn each_region_is_called_by_its_own_name() {
    let harness = harness(&json!([
        { "name": "large", "regions": ["eu-central-1"], "paths": ["dx"], "body_bytes": { "min": 10000 } },
        { "name": "any", "regions": ["us-east-1"], "paths": ["dx"] },
    ]));
    // Each double has a certificate for its own region only: a call that names the other fails at the handshake.
    assert_eq!(harness.gateway.raw(&converse(10)).0, 200);
    assert_eq!(harness.gateway.raw(&converse(20_000)).0, 200);
    let (east, europe) = (got(&harness, 0), got(&harness, 1));
    assert_eq!((east.len(), europe.len()), (1, 1));
    assert_of(&east[0], "us-east-1", &format!("us.{CLAUDE}"));
    assert_of(&europe[0], "eu-central-1", &format!("eu.{CLAUDE}"));
    harness.assert_no_violation();
}

/// The first region has a fault: the second answers the same call, signed for it.
fn moves_to_the_second_region(fault: PathFault, bytes: usize) {
    let harness = harness(&json!([{ "name": "any", "regions": ["us-east-1", "eu-central-1"], "paths": ["dx"] }]));
    assert_eq!(harness.gateway.raw(&converse(10)).0, 200);
    assert_eq!((got(&harness, 0).len(), got(&harness, 1).len()), (1, 0));
    harness.doubles[0].set_fault(fault);
    let (status, head, body) = harness.gateway.raw(&converse(bytes));
    assert_eq!(status, 200, "{head} {body}");
    assert!(!head.contains("x-bedrock-gateway"), "{head}");
    let (east, europe) = (got(&harness, 0), got(&harness, 1));
    assert_eq!((east.len(), europe.len()), (2, 1));
    assert_of(&east[1], "us-east-1", &format!("us.{CLAUDE}"));
    assert_of(&europe[0], "eu-central-1", &format!("eu.{CLAUDE}"));
    assert_eq!(east[1].body_sha256, europe[0].body_sha256);
    harness.assert_no_violation();
}

#[test]
fn a_throttled_call_moves_to_the_second_region() {
    moves_to_the_second_region(PathFault::Status(429), 10);
}

#[test]
fn a_503_moves_a_call_to_the_second_region() {
    moves_to_the_second_region(PathFault::Status(503), 10);
}

#[test]
fn a_throttled_20_mb_call_moves_regions_too() {
    moves_to_the_second_region(PathFault::Status(429), 20_000_000);
}

/// A guardrail and a project are in the first region. Half of the calls would go to the second, and the first one throttles for a
/// while.
#[test]
fn resources_are_called_in_their_region_only() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let document = json!({
        "regions": { "us-east-1": {}, "us-west-2": {} },
        "inference_profiles": { SONNET: format!("us.{SONNET}") },
        "route_classes": [{ "name": "any", "paths": ["dx"], "region_weights": { "us-east-1": 1, "us-west-2": 1 } }],
    });
    std::fs::write(&policy, document.to_string()).unwrap();
    let of_the_first = |double: Builder| double.resource("g1", "us-east-1").resource("p1", "us-east-1").keep(10_000);
    let arguments = ["--policy", policy.to_str().unwrap()];
    let harness = Harness::new(Keys::Temporary, &["dx@us-east-1", "dx@us-west-2"], of_the_first, &arguments);
    let url = harness.gateway.http.clone();
    let client = std::thread::spawn(move || python("resources", &url));
    eventually("a call", || (!got(&harness, 0).is_empty()).then_some(()));
    harness.doubles[0].set_fault(PathFault::Status(429));
    std::thread::sleep(Duration::from_secs(1));
    harness.doubles[0].set_fault(PathFault::None);
    let calls = client.join().unwrap();
    assert_all_answered(&calls);
    assert_eq!(calls.len(), 1040);
    let names_one = |request: &Received| {
        let header = ["guardrail", "project"]
            .iter()
            .any(|kind| request.header(&format!("x-amzn-bedrock-{kind}identifier")).is_some());
        header || request.query.contains("projectIdentifier") || request.operation.as_deref() == Some("InvokeModel")
    };
    let all: Vec<Vec<Received>> = harness.doubles.iter().map(bedrock_double::Running::requests).collect();
    let throttled = all[0].iter().filter(|request| request.status == 429).count();
    assert!(throttled > 0, "the first region throttled no call");
    assert_eq!(all[1].iter().filter(|request| names_one(request)).count(), 0);
    // What the second region refuses would have failed above; without a resource it serves its share.
    assert!(!got(&harness, 1).is_empty());
    harness.assert_no_violation();
}
