//! Residency: ids of other geographies are refused wherever they stand, by boto3.

use serde_json::{Value, json};

use crate::clients::{call, python_with};
use crate::harness::{Harness, Keys, SONNET};

const ACCOUNT: &str = "arn:aws:bedrock:us-east-1:123456789012:";

#[test]
fn refuses_profiles_of_other_geographies() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let document = json!({
        "regions": {"us-east-1": {}},
        "residency": ["us"],
        "inference_profiles": {SONNET: format!("us.{SONNET}")},
        "optional_operations": ["batch_jobs"],
        "route_classes": [{"name": "any", "paths": ["internet"]}],
    });
    std::fs::write(&policy, document.to_string()).unwrap();
    let arguments = ["--policy", policy.to_str().unwrap()];
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &arguments);
    let [global, eu] = ["global", "eu"].map(|geography| format!("{geography}.{SONNET}"));
    let [arn, application] =
        [format!("inference-profile/{global}"), "application-inference-profile/abc123def456".to_owned()]
            .map(|resource| format!("{ACCOUNT}{resource}"));
    let refused = [global.clone(), eu.clone(), arn.clone(), application.clone()];
    let allowed = [SONNET.to_owned(), format!("us.{SONNET}"), format!("{ACCOUNT}inference-profile/us.{SONNET}")];
    let all: Vec<String> = refused.iter().chain(&allowed).cloned().collect();
    let rows = python_with("residency", &harness.gateway.https, &harness.gateway.ca, &all);
    for id in &refused {
        for kind in ["Converse", "ConverseStream", "StartAsyncInvoke", "CreateModelInvocationJob"] {
            let error = &call(&rows, &format!("{kind} {id}"))["error"];
            assert_eq!(
                (&error["class"], &error["status"]),
                (&json!("AccessDeniedException"), &json!(403)),
                "{kind} {id}: {error}"
            );
            let message = error["message"].as_str().unwrap();
            let words = if *id == application {
                "does not say in which regions it runs"
            } else {
                "which `residency` of the gateway"
            };
            assert!(message.contains(id.as_str()) && message.contains(words), "{message}");
            let instead = format!("write '{SONNET}' instead");
            assert_eq!(message.contains(&instead), *id != application, "{message}");
        }
    }
    for id in &allowed {
        let row = call(&rows, &format!("Converse {id}"));
        assert!(row["error"] == Value::Null, "{row}");
    }
    let named = harness.received().into_iter().flat_map(|request| request.labels);
    assert!(named.into_iter().all(|id| !id.contains("global.") && !id.contains("eu.") && !id.contains("application")));
    harness.assert_no_violation();
}
