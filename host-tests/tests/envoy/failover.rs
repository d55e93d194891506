//! Calls move to the next path when one is cut, and none fails.

use bedrock_double::PathFault;
use serde_json::Value;

use crate::clients::{assert_all_answered, call, python};
use crate::harness::{Harness, Keys, eventually, text_of};
use crate::istio::pod::wait_for_paths;

const GET: &[u8] = b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// Status, path and attempts of the exchanges in the access log, once there are `count`.
fn exchanges(harness: &Harness, count: usize) -> Vec<(u64, String, u64)> {
    eventually("the access log", || {
        let text = text_of(&harness.access_log());
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() >= count).then(|| {
            let of = |line: &Value| {
                let path = line["path"].as_str().unwrap_or_default().to_owned();
                (line["status"].as_u64().unwrap(), path, line["attempts"].as_u64().unwrap())
            };
            lines.iter().map(of).collect()
        })
    })
}

/// Cuts one path after the other by `fault`: the first path that is left answers every call.
fn calls_move_on(fault: PathFault) {
    let harness = Harness::new(Keys::LongLived, &["dx", "vpn", "internet"], |double| double, &[]);
    // On a busy machine a first health check may come late, and the path would not be chosen.
    wait_for_paths(|page| harness.gateway.admin(page));
    assert_eq!(harness.gateway.raw(GET).0, 200);
    harness.doubles[0].set_fault(fault.clone());
    for _ in 0..5 {
        assert_eq!(harness.gateway.raw(GET).0, 200);
    }
    assert_all_answered(&python("converse", &harness.gateway.http));
    harness.doubles[1].set_fault(fault);
    for _ in 0..5 {
        assert_eq!(harness.gateway.raw(GET).0, 200);
    }
    harness.assert_no_violation();
    let paths: Vec<String> = exchanges(&harness, 12).into_iter().map(|(_, path, _)| path).collect();
    assert_eq!(paths[0], "dx");
    assert!(paths[1..7].iter().all(|path| path == "vpn"), "{paths:?}");
    assert!(paths[7..].iter().all(|path| path == "internet"), "{paths:?}");
}

#[test]
fn calls_move_when_a_path_refuses_connections() {
    calls_move_on(PathFault::Refuse);
}

#[test]
fn calls_move_when_a_path_resets_connections() {
    calls_move_on(PathFault::Reset);
}

#[test]
fn calls_move_when_a_path_drops_every_byte() {
    calls_move_on(PathFault::Silent);
}

#[test]
fn calls_move_when_a_path_answers_503() {
    calls_move_on(PathFault::Status(503));
}

#[test]
fn calls_return_to_a_restored_path() {
    let harness = Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &[]);
    harness.doubles[0].set_fault(PathFault::Refuse);
    for _ in 0..5 {
        assert_eq!(harness.gateway.raw(GET).0, 200);
    }
    harness.doubles[0].set_fault(PathFault::None);
    eventually("the first path again", || {
        assert_eq!(harness.gateway.raw(GET).0, 200);
        (harness.doubles[0].requests().iter().any(|request| request.operation.is_some())).then_some(())
    });
}

#[test]
fn refuses_with_503_when_every_path_is_cut() {
    let harness = Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &[]);
    harness.doubles.iter().for_each(|double| double.set_fault(PathFault::Refuse));
    let calls = python("converse", &harness.gateway.http);
    let error = &call(&calls, "Converse")["error"];
    assert_eq!(error["class"], "ServiceUnavailableException", "{error}");
    assert_eq!(error["status"], 503);
    // Envoy's own answer has the exchange's id too.
    let (_, head, body) = harness.gateway.raw(GET);
    assert!(head.contains("x-amzn-requestid: "), "{head}");
    assert!(body.contains("route class 'any'") || body.contains("no answer"), "{body}");
}
