//! Rules: two callers with different rights, by boto3 with certificates of the mesh, and a change that is taken back.

use serde_json::{Value, json};

use crate::clients::python_with;
use crate::harness::{Harness, Keys, SONNET, eventually, text_of};
use crate::istio::pod::Mesh;

const ANALYST: &str = "spiffe://cluster.local/ns/analyst/sa/app";
const PIPELINE: &str = "spiffe://cluster.local/ns/pipeline/sa/app";

fn document(rules: &Value) -> String {
    json!({
        "regions": {"us-east-1": {}},
        "principal": [{"from": "mtls"}],
        "inference_profiles": {SONNET: format!("us.{SONNET}")},
        "route_classes": [{"name": "any", "paths": ["internet"]}],
        "rules": rules,
    })
    .to_string()
}

fn rules() -> Value {
    json!([
        {"id": "analysts", "effect": "allow", "principals": ["spiffe://*/ns/analyst/*"],
         "operations": ["Converse", "ConverseStream", "ListFoundationModels"]},
        {"id": "pipelines", "effect": "allow", "principals": [PIPELINE], "models": ["anthropic.*"], "max_tokens": 4096},
        {"id": "no-streams", "effect": "deny", "principals": [PIPELINE], "operations": ["ConverseStream"]},
        {"id": "tried", "effect": "deny", "mode": "dry_run", "operations": ["ConverseStream"]},
    ])
}

/// Status, and what the error says, of a call of the suite.
fn outcome(calls: &[Value], name: &str) -> (u64, String) {
    let call = calls.iter().find(|call| call["call"] == name).unwrap_or_else(|| panic!("no {name} in {calls:#?}"));
    match call.get("error") {
        Some(error) => {
            assert_eq!(error["class"], "AccessDeniedException", "{call}");
            (error["status"].as_u64().unwrap(), error["message"].as_str().unwrap().to_owned())
        }
        None => (call["status"].as_u64().unwrap(), String::new()),
    }
}

/// Principal, operation, decision and rule of each record.
fn records(harness: &Harness, count: usize) -> Vec<[String; 4]> {
    eventually("the access log", || {
        let text = text_of(&harness.access_log());
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let facts: Vec<Value> =
            lines.filter_map(|line| serde_json::from_str(line["exchange"].as_str()?).ok()).collect();
        let text = |facts: &Value, key: &str| facts[key].as_str().unwrap_or("none").to_owned();
        let row = |facts: &Value| ["principal", "operation", "rule_decision", "rule"].map(|key| text(facts, key));
        (facts.len() == count).then(|| facts.iter().map(row).collect())
    })
}

#[test]
fn two_spiffe_ids_have_different_rights() {
    let mesh = Mesh::new();
    let certificates: Vec<String> = ["analyst", "pipeline"]
        .map(|name| mesh.identity(name))
        .iter()
        .map(|identity| format!("{},{}", identity.certificate, identity.key))
        .chain(["none".to_owned()])
        .collect();
    let ca = mesh.dir.path().join("ca.pem").display().to_string();
    let (policy, before) = (mesh.dir.path().join("policy.json"), mesh.dir.path().join("before.json"));
    std::fs::write(&policy, document(&rules())).unwrap();
    let arguments = ["--policy", policy.to_str().unwrap(), "--client-ca", &ca];
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &arguments);
    let run = || python_with("rights", &harness.gateway.https, &harness.gateway.ca, &certificates);

    let calls = run();
    let none = |caller: &str, operation: &str| format!("no rule of the gateway allows {caller} to call {operation}");
    let (analyst, pipeline) = (format!("'{ANALYST}'"), format!("'{PIPELINE}'"));
    let nobody = "a caller without a name";
    for (name, status, says) in [
        ("0 Converse", 200, String::new()),
        ("0 ConverseStream", 200, String::new()),
        ("0 ListFoundationModels", 200, String::new()),
        ("0 InvokeModel", 403, none(&analyst, "InvokeModel")),
        ("0 StartAsyncInvoke", 403, none(&analyst, "StartAsyncInvoke")),
        (
            "1 Converse",
            403,
            "the gateway's rule 'pipelines' allows this call only with a body that asks for".to_owned(),
        ),
        ("1 ConverseStream", 403, "the gateway's rule 'no-streams' denies this call".to_owned()),
        ("1 InvokeModel", 200, String::new()),
        ("1 InvokeModel long", 403, "asks for at most 4096 tokens".to_owned()),
        // Its model is in the body, and is another one.
        ("1 StartAsyncInvoke", 403, none(&pipeline, "StartAsyncInvoke with model 'amazon.")),
        ("1 ListFoundationModels", 403, none(&pipeline, "ListFoundationModels")),
        ("2 Converse", 403, none(nobody, "Converse")),
        ("2 ListFoundationModels", 403, none(nobody, "ListFoundationModels")),
    ] {
        let (found, message) = outcome(&calls, name);
        assert_eq!(found, status, "{name}: {message}");
        assert!(message.contains(&says), "{name}: {message}");
    }
    assert_eq!(harness.received().len(), 4, "what is refused is not sent");
    harness.assert_no_violation();

    let records = records(&harness, calls.len());
    for wanted in [
        [ANALYST, "Converse", "allowed", "analysts"],
        [ANALYST, "ConverseStream", "would_deny", "tried"],
        [ANALYST, "InvokeModel", "denied", "none"],
        [PIPELINE, "InvokeModel", "allowed", "pipelines"],
        [PIPELINE, "InvokeModel", "denied", "pipelines"],
        [PIPELINE, "ConverseStream", "denied", "no-streams"],
        ["none", "Converse", "denied", "none"],
    ] {
        assert!(records.iter().any(|record| record == &wanted), "{wanted:?} is not in {records:#?}");
    }
    // Labels of Prometheus, which the rule's id is one of.
    let page = harness.gateway.admin("/stats/prometheus");
    for label in
        [r#"type="denied",rule="no-streams""#, r#"type="would_deny",rule="tried""#, r#"type="denied",rule="none""#]
    {
        let mut series = page.lines().filter(|line| line.contains("bedrock_rule_refusals{"));
        assert!(series.any(|line| line.contains(label)), "{label}");
    }

    // A change without a restart, and back by one command.
    let mut changed = rules();
    changed.as_array_mut().unwrap().push(json!({"id": "stop", "effect": "deny", "principals": [ANALYST]}));
    let new = mesh.dir.path().join("new.json");
    std::fs::write(&new, document(&changed)).unwrap();
    std::fs::copy(&policy, &before).unwrap();
    std::fs::rename(&new, &policy).unwrap();
    let converse = |status: u64| eventually("the change", || (outcome(&run(), "0 Converse").0 == status).then_some(()));
    converse(403);
    std::fs::rename(&before, &policy).unwrap();
    converse(200);
}

#[test]
fn images_are_limited_in_each_form() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let rules = json!([{"id": "two-images", "effect": "allow", "max_images": 2}]);
    std::fs::write(&policy, document(&rules)).unwrap();
    let arguments = ["--policy", policy.to_str().unwrap()];
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &arguments);
    let calls = python_with("images", &harness.gateway.https, &harness.gateway.ca, &[]);
    for form in ["Converse", "ConverseStream", "Claude", "Nova"] {
        for (count, wanted) in [(0, 200), (2, 200), (3, 403)] {
            let (status, message) = outcome(&calls, &format!("{form} {count}"));
            assert_eq!(status, wanted, "{form} {count}: {message}");
            assert_eq!(
                message.contains("rule 'two-images' allows this call only with a body with at most 2 images"),
                count == 3
            );
        }
    }
    // The form of its images is not known.
    assert_eq!(outcome(&calls, "Titan 0").0, 403);
    assert_eq!(harness.received().len(), 8, "what is refused is not sent");
    harness.assert_no_violation();
}
