//! Responses that stall before their first byte move to the next path, then to the next region (`first_byte_timeout_ms`).

use std::time::{Duration, Instant};

use bedrock_double::PathFault::{self, None as Good, Stall};
use serde_json::{Value, json};

use crate::clients::{assert_all_answered, call, python};
use crate::harness::{Harness, eventually, text_of};

const SONNET: &str = "us.anthropic.claude-3-5-sonnet-20241022-v2%3A0";
const PLACES: [&str; 4] = ["dx@us-east-1", "vpn@us-east-1", "dx@us-west-2", "vpn@us-west-2"];

fn harness(timeout_ms: Option<u32>) -> Harness {
    let mut class = json!({ "paths": ["dx", "vpn"], "regions": ["us-east-1", "us-west-2"] });
    if let Some(ms) = timeout_ms {
        class["first_byte_timeout_ms"] = json!(ms);
    }
    Harness::one_class(&PLACES, class, &[])
}

fn request(operation: &str, model: &str) -> Vec<u8> {
    let body = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] }).to_string();
    format!(
        "POST /model/{model}/{operation} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The calls of models that each double got since the last count.
fn got(harness: &Harness, before: &mut [usize; 4]) -> [usize; 4] {
    let count =
        |place: usize| harness.doubles[place].requests().iter().filter(|request| !request.labels.is_empty()).count();
    let now = [0, 1, 2, 3].map(count);
    let since = [0, 1, 2, 3].map(|place| now[place] - before[place]);
    *before = now;
    since
}

fn set(harness: &Harness, faults: [PathFault; 4]) {
    harness.doubles.iter().zip(faults).for_each(|(double, fault)| double.set_fault(fault));
}

#[test]
fn a_stalled_call_moves_to_the_next_path() {
    let harness = harness(Some(1500));
    let mut before = [0; 4];
    let stall = |after_headers| Stall(Duration::from_secs(20), after_headers);
    for (operation, faults, wanted) in [
        ("converse", [stall(false), Good, Good, Good], [1, 1, 0, 0]),
        ("converse-stream", [stall(false), Good, Good, Good], [1, 1, 0, 0]),
        // The headers arrive at once, and no frame.
        ("converse-stream", [stall(true), Good, Good, Good], [1, 1, 0, 0]),
        ("converse-stream", [stall(true), stall(false), Good, Good], [1, 1, 1, 0]),
    ] {
        let at = format!("{operation} {faults:?}");
        set(&harness, faults);
        let start = Instant::now();
        let (status, head, body) = harness.gateway.raw(&request(operation, SONNET));
        assert!(status == 200 && !body.contains("xception"), "{at}: {head} {body}");
        assert!(start.elapsed() < Duration::from_secs(15), "{at}: {:?}", start.elapsed());
        assert_eq!(got(&harness, &mut before), wanted, "{at}");
    }
    set(&harness, [stall(true), Good, Good, Good]);
    let calls = python("stalls", &harness.gateway.http);
    assert_all_answered(&calls);
    assert!(call(&calls, "ConverseStream")["usage"]["outputTokens"].as_u64() > Some(0), "{calls:#?}");
    assert_eq!(got(&harness, &mut before), [2, 2, 0, 0], "boto3");
    // Every place stalls: an answer of Envoy's, in Bedrock's form.
    set(&harness, [stall(false), stall(false), stall(false), stall(false)]);
    let (status, head, _) = harness.gateway.raw(&request("converse", SONNET));
    assert!(status == 504 && head.contains("x-amzn-errortype: serviceunavailableexception"), "{status} {head}");
    harness.assert_no_violation();
    let lines: Vec<Value> = eventually("the access log", || {
        let text = text_of(&harness.access_log());
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() == 7).then_some(lines)
    });
    assert_eq!((&lines[0]["attempts"], &lines[0]["path"]), (&json!(2), &json!("vpn")));
}

/// After the first byte a stream may be silent for longer.
#[test]
fn a_begun_stream_is_not_cut_by_the_time_out() {
    let harness = harness(Some(1500));
    let start = Instant::now();
    let (status, _, body) = harness.gateway.raw(&request("converse-stream", "fault.drip-1s"));
    assert!(status == 200 && body.contains("metadata") && !body.contains("xception"), "{status} {body}");
    assert!(start.elapsed() > Duration::from_secs(3), "the stream took {:?}", start.elapsed());
    assert_eq!(got(&harness, &mut [0; 4]), [1, 0, 0, 0]);
}

#[test]
fn without_a_time_out_a_call_waits() {
    let harness = harness(None);
    set(&harness, [Stall(Duration::from_secs(4), true), Good, Good, Good]);
    let (status, _, body) = harness.gateway.raw(&request("converse-stream", SONNET));
    assert!(status == 200 && body.contains("metadata"), "{status} {body}");
    assert_eq!(got(&harness, &mut [0; 4]), [1, 0, 0, 0]);
}
