//! Intents: no call of a class with `audit: required` leaves before the collector has it on disk.

use crate::common::{attempt, configuration, converse, facts, judge, only, plugin, refusal, with_keys};
use proxy_wasm_vm::{Exchange, OutCall, Outcome, Plugin, Vm, headers};
use serde_json::{Value, json};
use std::time::Duration;

const BODY: &str = r#"{"messages":[]}"#;

/// A gateway whose calls all need an intent, and a signer in its VM.
fn recording(role: &str) -> (Vm, Plugin, Plugin) {
    let vm = with_keys().cluster("audit").start().unwrap();
    let document = |role: &str| {
        let mut document = configuration(role);
        document["audit"] = json!({"cluster": "audit", "deadline_ms": 1500});
        for class in document["route_classes"].as_array_mut().unwrap() {
            class["audit"] = json!("required");
        }
        document
    };
    let (gateway, signer) = (plugin(&vm, &document(role)), plugin(&vm, &document("signer")));
    (vm, gateway, signer)
}

/// The open calls to a path of the collector's.
fn asked(vm: &Vm, path: &str) -> Vec<OutCall> {
    vm.out_calls().into_iter().filter(|call| only(&call.headers, ":path") == path).collect()
}

fn body(call: &OutCall) -> Value {
    serde_json::from_slice(&call.body).unwrap()
}

/// A call that waits for its intent, and that intent.
fn waiting(vm: &Vm, gateway: &Plugin) -> (Exchange, OutCall) {
    let exchange = gateway.stream().property(&["response", "code"], 200_u64.to_le_bytes());
    exchange.request_headers(converse(&[]), false);
    assert_eq!(exchange.request_body(BODY, true), Outcome::Paused);
    let intent = asked(vm, "/v1/intents").pop().unwrap();
    (exchange, intent)
}

fn answer(vm: &Vm, call: &OutCall, status: &str) {
    vm.answer(call.token, headers([(":status", status)]), b"a reason").unwrap();
}

#[test]
fn a_call_leaves_once_its_intent_is_durable() {
    let (vm, gateway, signer) = recording("gateway");
    let (exchange, intent) = waiting(&vm, &gateway);
    assert_eq!((intent.cluster.as_str(), intent.timeout_ms), ("audit", 1500));
    let known = &body(&intent)["exchange"];
    assert_eq!(
        (&known["operation"], &known["class"], &known["audit"]),
        (&json!("Converse"), &json!("any"), &json!("required"))
    );
    assert_eq!((&known["vm"]["begun"], &known["vm"]["in_flight"]), (&json!(1), &json!(1)));
    for _ in 0..3 {
        gateway.tick().unwrap();
    }
    assert_eq!(asked(&vm, "/v1/intents").len(), 1, "it is asked for once");
    assert_eq!(exchange.request_outcome(), Outcome::Paused);

    answer(&vm, &intent, "204");
    assert_eq!(exchange.request_outcome(), Outcome::Continue);
    let signed = attempt(&signer, &exchange, "us-east-1");
    assert_eq!(signed.request_headers(exchange.request_map(), false), Outcome::Continue);
    judge(&signed, BODY.as_bytes(), "us-east-1", None).unwrap();
    assert_eq!(vm.metric("bedrock_audit_intents;type=recorded"), Some(1));
}

#[test]
fn role_combined_waits_too() {
    let (vm, gateway, _) = recording("combined");
    let (exchange, intent) = waiting(&vm, &gateway);
    assert!(exchange.request_map().iter().all(|(name, _)| name != "authorization"));
    answer(&vm, &intent, "204");
    assert_eq!(exchange.request_outcome(), Outcome::Continue);
    judge(&exchange, BODY.as_bytes(), "us-east-1", None).unwrap();
}

#[test]
fn refuses_a_call_without_an_intent() {
    let (vm, gateway, _) = recording("gateway");
    let (refused, intent) = waiting(&vm, &gateway);
    answer(&vm, &intent, "503");
    let (status, error, text) = refusal(&refused);
    assert_eq!((status, error.as_str()), (503, "ServiceUnavailableException"));
    assert!(text.contains("'any'") && text.contains("the audit collector did not record it (status 503)"), "{text}");

    let (unanswered, intent) = waiting(&vm, &gateway);
    vm.fail_call(intent.token).unwrap();
    assert!(refusal(&unanswered).2.contains("did not answer in time"));
    let count = |outcome: &str| vm.metric(&format!("bedrock_audit_intents;type={outcome}"));
    assert_eq!((count("recorded"), count("refused"), count("unanswered")), (None, Some(1), Some(1)));
}

#[test]
fn refuses_where_the_cluster_is_missing() {
    let vm = with_keys().start().unwrap();
    let mut document = configuration("gateway");
    document["audit"] = json!({"cluster": "audit"});
    document["route_classes"][1]["audit"] = json!("required");
    let exchange = plugin(&vm, &document).stream();
    exchange.request_headers(converse(&[]), false);
    exchange.request_body(BODY, true);
    let (status, _, text) = refusal(&exchange);
    assert_eq!(status, 503);
    assert!(text.contains("the audit collector cannot be called"), "{text}");
}

#[test]
fn a_client_that_leaves_takes_nothing_along() {
    let (vm, gateway, _) = recording("gateway");
    let (left, intent) = waiting(&vm, &gateway);
    drop(left);
    // The collector's answer finds no stream.
    answer(&vm, &intent, "204");
    let (stays, intent) = waiting(&vm, &gateway);
    answer(&vm, &intent, "204");
    assert_eq!(stays.request_outcome(), Outcome::Continue);
    assert_eq!(vm.fault(), None);
}

#[test]
fn the_end_follows_in_a_report() {
    let (vm, gateway, _) = recording("gateway");
    let (exchange, intent) = waiting(&vm, &gateway);
    answer(&vm, &intent, "204");
    // What was announced while the call began.
    asked(&vm, "/v1/reports").iter().for_each(|report| answer(&vm, report, "204"));
    let logged = facts(&exchange);
    assert_eq!(
        (&logged["vm"]["begun"], &logged["vm"]["logged"], &logged["vm"]["in_flight"]),
        (&json!(1), &json!(1), &json!(0))
    );
    drop(exchange);
    gateway.tick().unwrap();
    let report = asked(&vm, "/v1/reports").pop().unwrap();
    let told = body(&report);
    assert_eq!((&told["begun"], &told["logged"], &told["vm"]), (&json!(1), &json!(1), &logged["vm"]["id"]));
    assert_eq!(told["ends"][0]["exchange"], logged);
    assert_eq!(told["ends"][0]["status"], 200);

    // A report that is not stored comes again.
    answer(&vm, &report, "503");
    vm.advance(Duration::from_secs(2));
    gateway.tick().unwrap();
    let again = asked(&vm, "/v1/reports").pop().unwrap();
    assert_eq!(body(&again)["ends"], told["ends"]);
    assert_eq!(vm.metric("bedrock_audit_report_failures"), Some(1));
}

#[test]
fn no_more_calls_begin_than_announced() {
    let (vm, gateway, _) = recording("gateway");
    let mut announced = 0;
    let mut open = Vec::new();
    for begun in 1..=300 {
        let exchange = gateway.stream();
        exchange.request_headers(converse(&[]), false);
        open.push(exchange);
        if let Some(report) = asked(&vm, "/v1/reports").pop() {
            announced = body(&report)["may_begin"].as_u64().unwrap();
            answer(&vm, &report, "204");
        }
        assert!(begun <= announced, "{begun} of {announced}");
    }
}

#[test]
fn vms_of_one_process_share_its_id() {
    let (vm, gateway, _) = recording("gateway");
    let ids = || {
        let exchange = gateway.stream();
        exchange.request_headers(converse(&[("content-encoding", "gzip")]), false);
        let facts = facts(&exchange);
        (facts["vm"]["id"].clone(), facts["vm"]["envoy"].clone())
    };
    let (first, second) = (ids(), ids());
    assert_eq!(first, second);
    assert_ne!(first.0, first.1);
    let shared = vm.shared_data("audit/envoy").unwrap();
    assert_eq!(json!(String::from_utf8(shared).unwrap()), first.1);
}
