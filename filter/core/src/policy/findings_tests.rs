use super::*;
use serde_json::{Value, json};

fn findings(change: Value) -> Vec<String> {
    let mut document = json!({
        "role": "gateway", "regions": {"us-east-1": {}},
        "principal": [{"from": "mtls"}], "route_classes": [{"name": "any", "paths": ["dx"]}],
    });
    for (key, value) in change.as_object().unwrap() {
        document[key] = value.clone();
    }
    let policy = Policy::parse(document.to_string().as_bytes(), None).unwrap();
    policy.findings().into_iter().map(|finding| format!("{}: {}", finding.key, finding.detail())).collect()
}

fn classes(conditions: &[Value]) -> Value {
    let name = |(index, class): (usize, &Value)| {
        let mut class = class.clone();
        class["name"] = json!(format!("c{index}"));
        class["paths"] = json!(["dx"]);
        class
    };
    conditions.iter().enumerate().map(name).collect()
}

#[test]
fn models_that_no_class_gets_are_found() {
    let with = |models: Value, patterns: Value| {
        findings(json!({"models": models, "route_classes": classes(&[json!({"models": patterns}), json!({})])}))
    };
    for (models, patterns) in [
        (json!({}), json!(["meta.*"])),
        (json!({"allow": ["anthropic.*"]}), json!(["*claude*"])),
        (json!({"allow": ["anthropic.*"]}), json!(["us.anthropic.claude-v2"])),
        (json!({"allow": ["us.anthropic.*"]}), json!(["anthropic.claude*"])),
        (json!({"allow": ["anthropic.*"]}), json!(["arn:aws:bedrock:*:inference-profile/us.anthropic.*"])),
        (json!({"allow": ["arn:aws:bedrock:us-east-1:1:imported-model/*"]}), json!(["abc*"])),
        (json!({"allow": ["*"], "deny": ["anthropic.claude*"]}), json!(["anthropic.*"])),
    ] {
        assert_eq!(with(models.clone(), patterns.clone()), Vec::<String>::new(), "{models} {patterns}");
    }
    assert_eq!(
        with(json!({"allow": ["anthropic.*", "amazon.nova-*"]}), json!(["meta.*", "anthropc.*"])),
        ["route_classes[0].models: class 'c0' takes no call: `models` refuses all of its models; \
             known: anthropic.*, amazon.nova-*"]
    );
    assert_eq!(
        with(json!({"allow": ["anthropic.*"]}), json!(["anthropic.claude*", "anthropc.*"])),
        ["route_classes[0].models[1]: no pattern in `models.allow` allows a model of 'anthropc.*'; \
             known: anthropic.*; did you mean `anthropic.*`?"]
    );
    assert_eq!(
        with(json!({"deny": ["meta.*"]}), json!(["meta.llama*", "anthropic.*"])),
        ["route_classes[0].models[0]: 'meta.llama*' is refused by 'meta.*' in `models.deny`"]
    );
}

#[test]
fn classes_behind_catch_alls_are_found() {
    for (conditions, last) in [
        (vec![json!({"models": ["*"]}), json!({"operations": ["Converse"]})], Some("'c0' before it takes")),
        (
            vec![json!({"principals": ["*"]}), json!({"principals": ["spiffe://a/*"], "models": ["x"]})],
            Some("'c0' before it takes"),
        ),
        (
            vec![json!({"streaming": true}), json!({"streaming": false}), json!({"models": ["a"]})],
            Some("'c0' and 'c1' before it take"),
        ),
        (vec![json!({"models": ["*"]}), json!({"streaming": false})], None),
        // A caller without a name reaches the second.
        (vec![json!({"principals": ["*"]}), json!({})], None),
        (vec![json!({"models": ["a*"]}), json!({"operations": ["Converse"]})], None),
    ] {
        let found = findings(json!({"route_classes": classes(&conditions)}));
        assert_eq!(found.len(), usize::from(last.is_some()), "{conditions:?}: {found:?}");
        if let Some(says) = last {
            assert!(found[0].contains(says), "{conditions:?}: {found:?}");
        }
    }
}

#[test]
fn credentials_that_no_class_uses_are_found() {
    let set = json!({"source": "imds", "cluster": "imds"});
    let sets = json!({"used": set.clone(), "spare": set});
    let class = |name: &str| json!([{"name": "any", "paths": ["dx"], "credentials": name}]);
    let found = findings(json!({"credential_sets": sets, "route_classes": class("used")}));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("credential_sets.spare: no route class uses it"), "{found:?}");
}

#[test]
fn optional_operations_of_classes_are_found() {
    let class = json!([{"name": "any", "paths": ["dx"], "operations": ["Converse", "GetModelInvocationJob"]}]);
    assert_eq!(
        findings(json!({"route_classes": class})),
        [
            "route_classes[0].operations[1]: the gateway carries GetModelInvocationJob only if `optional_operations` of its \
             document lists `batch_jobs`"
        ]
    );
    assert_eq!(findings(json!({"route_classes": class, "optional_operations": ["batch_jobs"]})), Vec::<String>::new());
}

#[test]
fn a_region_is_kept_for_callers_with_a_name() {
    let class = json!([{"name": "any", "paths": ["dx"], "region_weights": {"us-east-1": 1}, "region_sticky": true}]);
    assert_eq!(findings(json!({"route_classes": class})), Vec::<String>::new());
    assert_eq!(
        findings(json!({"route_classes": class, "principal": []})),
        [
            "route_classes[0].region_sticky: class 'any' keeps no caller in its region: without the key `principal` callers \
          have no name"
        ]
    );
}
