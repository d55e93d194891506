//! The policies of `infra/policies`: what they are JSON of, and that none says more than its task.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use serde_json::Value;

fn policies() -> Vec<(String, Value)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/policies");
    let mut found: Vec<(String, Value)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|file| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap())
        })
        .collect();
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    found
}

/// A value that is a text or a list of them.
fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .map_or_else(|| value.as_str().into_iter().collect(), |all| all.iter().filter_map(Value::as_str).collect())
}

#[test]
fn no_action_is_a_wildcard_and_no_resource_but_where_there_is_none() {
    let policies = policies();
    assert_eq!(policies.len(), 4);
    for (name, policy) in policies {
        assert_eq!(policy["Version"], "2012-10-17", "{name}");
        for statement in policy["Statement"].as_array().unwrap() {
            let actions = texts(&statement["Action"]);
            assert!(!actions.is_empty() && actions.iter().all(|action| !action.contains('*')), "{name}: {actions:?}");
            assert_eq!(statement["Effect"], "Allow", "{name}");
            let any = texts(&statement["Resource"]).contains(&"*");
            assert_eq!(any, actions.first() == Some(&"sts:GetWebIdentityToken"), "{name}: {statement}");
            assert!(!any || statement["Condition"].is_object(), "{name}");
        }
    }
}

#[test]
fn the_trust_checks_audience_and_subject_of_the_gateways_own_token() {
    let all: std::collections::BTreeMap<String, Value> = policies().into_iter().collect();
    let trust = &all["commercial-trust.json"]["Statement"][0];
    let wanted = &trust["Condition"]["StringEquals"];
    let asked = &all["govcloud-gateway.json"]["Statement"][0]["Condition"]["ForAllValues:StringEquals"];
    assert_eq!(wanted["ISSUER:aud"], asked["sts:IdentityTokenAudience"]);
    assert!(wanted["ISSUER:sub"].as_str().unwrap().starts_with("arn:aws-us-gov:iam::"));
    assert!(trust["Principal"]["Federated"].as_str().unwrap().starts_with("arn:aws:iam::"));
}
