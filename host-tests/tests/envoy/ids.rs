//! The ids that boto3 sends, wherever they stand: GovCloud's are translated or refused, and ARNs choose their region.

use bedrock_double::PathFault;
use serde_json::{Value, json};

use crate::clients::{assert_all_answered, call, python};
use crate::harness::{Harness, Keys};

const SONNET: &str = "anthropic.claude-3-5-sonnet-20241022-v2:0";

/// Two regions on one path. The account 111122223333 is the operator's in GovCloud.
fn harness(keys: Keys) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let document = json!({
        "auth": if keys == Keys::Api { "bearer" } else { "sigv4" },
        "regions": { "us-east-1": {}, "us-west-2": {} },
        "inference_profiles": { SONNET: format!("us.{SONNET}") },
        "govcloud_accounts": ["111122223333"],
        "route_classes": [{ "name": "any", "paths": ["dx"], "regions": ["us-east-1", "us-west-2"] }],
    });
    std::fs::write(&policy, document.to_string()).unwrap();
    let places = ["dx@us-east-1", "dx@us-west-2"];
    Harness::new(keys, &places, |double| double, &["--policy", policy.to_str().unwrap()])
}

/// The operations that a region got, with their first labels.
fn got(harness: &Harness, region: usize) -> Vec<(String, String)> {
    let requests = harness.doubles[region].requests();
    let calls =
        requests.iter().filter_map(|request| Some((request.operation.clone()?, request.labels.first().cloned())));
    calls.map(|(operation, label)| (operation, label.unwrap_or_default())).collect()
}

fn assert_refused(row: &Value, class: &str, status: u16, words: &str) {
    let error = &row["error"];
    assert_eq!((&error["class"], &error["status"]), (&json!(class), &json!(status)), "{row}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(words)), "{row}");
}

#[test]
fn ids_of_govcloud_are_translated_or_refused() {
    let harness = harness(Keys::LongLived);
    let calls = python("govcloud", &harness.gateway.http);
    for (name, words) in [
        ("guardrail in a header", "x-amzn-bedrock-guardrailidentifier"),
        ("guardrail in a body", "guardrailConfig.guardrailIdentifier"),
        ("guardrail in a path", "path"),
        ("project in a header", "x-amzn-bedrock-projectidentifier"),
        ("project in a body", "projectIdentifier"),
        ("project in a query", "projectIdentifier"),
        ("model of an account", "111122223333"),
        ("guardrail of an account", "111122223333"),
    ] {
        assert_refused(call(&calls, name), "AccessDeniedException", 403, words);
    }
    assert_refused(call(&calls, "model in a body"), "ValidationException", 400, "write 'amazon.nova-lite-v1:0'");
    for name in ["profile", "model ARN"] {
        assert!(call(&calls, name)["error"].is_null(), "{calls:#?}");
    }
    let profile = ("Converse".to_owned(), format!("us.{SONNET}"));
    assert_eq!(got(&harness, 0), [profile.clone(), profile]);
    assert!(got(&harness, 1).is_empty());
    harness.assert_no_violation();
}

#[test]
fn an_arn_goes_to_its_region() {
    for keys in [Keys::LongLived, Keys::Api] {
        let harness = harness(keys);
        let calls = python("arns", &harness.gateway.http);
        let two = call(&calls, "two regions");
        assert_refused(two, "ValidationException", 400, "us-west-2");
        let others: Vec<Value> = calls.iter().filter(|row| *row != two).cloned().collect();
        assert_all_answered(&others);
        assert!(got(&harness, 0).is_empty(), "{:?}", got(&harness, 0));
        assert_eq!(got(&harness, 1).len(), others.len());
        harness.assert_no_violation();
    }
}

#[test]
fn tokens_are_counted_of_the_model_itself() {
    let harness = harness(Keys::LongLived);
    assert_all_answered(&python("count", &harness.gateway.http));
    let counted = got(&harness, 0);
    assert_eq!(counted.len(), 4);
    assert!(counted.iter().all(|one| *one == ("CountTokens".to_owned(), SONNET.to_owned())), "{counted:?}");
    harness.assert_no_violation();
}

#[test]
fn guardrail_checks_go_to_the_next_region() {
    let harness = harness(Keys::LongLived);
    harness.doubles[0].set_fault(PathFault::Status(503));
    assert_all_answered(&python("checks", &harness.gateway.http));
    assert_eq!(got(&harness, 1), [("InvokeGuardrailChecks".to_owned(), String::new())]);
    harness.assert_no_violation();
}

/// A tab is white space as a blank is (RFC 9110, 5.6.3), and capitals stay.
#[test]
fn tabs_and_capitals_of_a_header_are_signed() {
    let harness = harness(Keys::LongLived);
    assert_all_answered(&python("tab", &harness.gateway.http));
    let received = harness.received();
    assert_eq!(received[0].header("x-amzn-bedrock-request-metadata"), Some(r#"{"Team": "A b"}"#));
    harness.assert_no_violation();
}
