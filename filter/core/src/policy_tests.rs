use super::*;
use crate::operation::{Operation, Service};
use serde_json::{Value, json};

pub(super) fn base() -> Value {
    json!({
        "role": "gateway",
        "regions": {"us-east-1": {}, "us-west-2": {}},
        "inference_profiles": {"anthropic.claude-v2": "us.anthropic.claude-v2"},
        "aliases": {"sonnet": "anthropic.claude-v2"},
        "models": {"deny": ["global.*", "*forbidden*"]},
        "principal": [{"from": "mtls"}, {"from": "jwt", "payload": "jwt", "claim": "sub"}],
        "route_classes": [
            {"name": "private-only", "principals": ["spiffe://prod/*"], "paths": ["dx", "vpn"]},
            {"name": "lists", "operations": ["ListFoundationModels"], "paths": ["internet"]},
            {"name": "claude", "models": ["anthropic.*"], "paths": ["dx"]},
            {"name": "any", "paths": ["dx", "vpn", "internet"]}
        ]
    })
}

pub(super) fn load(document: &Value) -> Result<Policy, ConfigError> {
    Policy::parse(document.to_string().as_bytes(), None)
}

#[test]
fn classes_that_no_call_reaches_are_found() {
    let claude = json!({"name": "a", "models": ["anthropic.*"], "paths": ["dx"]});
    let all = json!({"name": "a", "paths": ["dx"]});
    let with = |mut class: Value, key: &str, value: Value| {
        class[key] = value;
        class
    };
    for (earlier, later, found) in [
        (all.clone(), claude.clone(), true),
        (claude.clone(), all.clone(), false),
        (claude.clone(), claude.clone(), true),
        (claude.clone(), with(claude.clone(), "models", json!(["anthropic.claude*", "anthropic.x"])), true),
        (claude.clone(), with(claude.clone(), "models", json!(["anthropic.x", "meta.*"])), false),
        (claude.clone(), with(claude.clone(), "principals", json!(["p"])), true),
        (with(claude.clone(), "principals", json!(["*"])), claude.clone(), false),
        (with(all.clone(), "principals", json!(["p*"])), with(all.clone(), "principals", json!(["p1", "p2*"])), true),
        (with(all.clone(), "streaming", json!(true)), with(all.clone(), "operations", json!(["ConverseStream"])), true),
        (with(all.clone(), "streaming", json!(false)), with(all.clone(), "streaming", json!(true)), false),
        (
            with(all.clone(), "operations", json!(["Converse", "ConverseStream"])),
            with(all.clone(), "operations", json!(["ConverseStream"])),
            true,
        ),
        (with(all.clone(), "operations", json!(["Converse"])), all.clone(), false),
        (with(all.clone(), "body_bytes", json!({"max": 9})), with(all.clone(), "body_bytes", json!({"max": 8})), true),
        (with(all.clone(), "body_bytes", json!({"max": 9})), with(all.clone(), "body_bytes", json!({"min": 9})), false),
        (with(all.clone(), "body_bytes", json!({"min": 0})), all.clone(), true),
        (with(all.clone(), "body_bytes", json!({"min": 1})), all.clone(), false),
    ] {
        let mut document = base();
        document["route_classes"] = json!([earlier, with(later.clone(), "name", json!("b"))]);
        let findings = load(&document).unwrap().findings();
        assert_eq!(!findings.is_empty(), found, "{earlier} {later}: {findings:?}");
        if let [finding] = findings.as_slice() {
            assert_eq!(finding.key, "route_classes[1]");
            assert!(finding.problem.contains("class 'b' is never reached: 'a' before it"), "{finding}");
        }
    }
    assert_eq!(load(&base()).unwrap().findings(), []);
    let mut document = base();
    document["route_classes"][1]["models"] = json!(["x"]);
    let findings = load(&document).unwrap().findings();
    assert!(findings[0].problem.contains("class 'lists': its conditions exclude each other"), "{findings:?}");
    let mut document = base();
    document["principal"] = json!([]);
    let findings = load(&document).unwrap().findings();
    assert!(
        findings[0].problem.contains("class 'private-only' takes no call: without the key `principal`"),
        "{findings:?}"
    );
    assert_eq!((findings.len(), findings[0].key.as_str()), (1, "route_classes[0].principals"));
    let mut document = base();
    document["aliases"] = json!({});
    document["inference_profiles"] = json!({});
    document["models"] = json!({"allow": ["anthropic.*", "meta.*"], "deny": ["meta.*", "anth*"]});
    let findings = load(&document).unwrap().findings();
    assert!(findings[0].problem.contains("no model is left"), "{findings:?}");
    let policy = Policy::parse(base().to_string().as_bytes(), Some("vpn")).unwrap();
    let keys: Vec<_> = policy.findings().into_iter().map(|finding| finding.key).collect();
    assert_eq!(keys, ["route_classes[1].paths", "route_classes[2].paths"]);
}

#[test]
fn a_mismatch_names_the_condition() {
    let mut document = base();
    document["route_classes"] = json!([{
        "name": "a", "paths": ["dx"], "operations": ["Converse", "ConverseStream", "ListFoundationModels"],
        "models": ["anthropic.*"], "principals": ["p"], "streaming": false, "body_bytes": {"max": 10}
    }]);
    let policy = load(&document).unwrap();
    let (claude, other) = (Some("anthropic.claude-v2"), Some("meta.llama"));
    for (operation, model, principal, body_bytes, key) in [
        (Operation::Converse, claude, Some("p"), Some(10), None),
        (Operation::InvokeModel, other, None, None, Some("operations")),
        (Operation::Converse, other, None, None, Some("models")),
        (Operation::ListFoundationModels, None, Some("p"), Some(0), Some("models")),
        (Operation::Converse, claude, None, None, Some("principals")),
        (Operation::Converse, claude, Some("q"), Some(1), Some("principals")),
        (Operation::ConverseStream, claude, Some("p"), None, Some("streaming")),
        (Operation::Converse, claude, Some("p"), Some(11), Some("body_bytes")),
        (Operation::Converse, claude, Some("p"), None, Some("body_bytes")),
    ] {
        let subject = Subject { operation, model, principal, body_bytes };
        assert_eq!(policy.classes()[0].mismatch(subject), key, "{subject:?}");
        assert_eq!(policy.classes()[0].matches(subject), key.is_none(), "{subject:?}");
    }
}

/// If a class covers another, then every call that the other matches, the first matches too.
#[test]
fn covered_classes_are_never_chosen() {
    let conditions = [
        json!({}),
        json!({"models": ["anthropic.*"]}),
        json!({"models": ["*.claude*", "meta.*"]}),
        json!({"models": ["anthropic.claude-v2"]}),
        json!({"operations": ["Converse", "ListFoundationModels"]}),
        json!({"operations": ["ConverseStream"]}),
        json!({"streaming": true}),
        json!({"streaming": false, "body_bytes": {"max": 100}}),
        json!({"principals": ["a*"]}),
        json!({"principals": ["ab", "ac*"], "body_bytes": {"min": 50}}),
        json!({"body_bytes": {"min": 10, "max": 200}}),
    ];
    let models = [None, Some("anthropic.claude-v2"), Some("us.anthropic.claude-v2"), Some("meta.llama")];
    let mut covered = 0;
    for earlier in &conditions {
        for later in &conditions {
            let class = |name: &str, conditions: &Value| {
                let mut class = conditions.clone();
                class["name"] = json!(name);
                class["paths"] = json!(["dx"]);
                class
            };
            let mut document = base();
            document["route_classes"] = json!([class("a", earlier), class("b", later)]);
            let policy = load(&document).unwrap();
            if policy.findings().is_empty() {
                continue;
            }
            covered += 1;
            for operation in [Operation::Converse, Operation::ConverseStream, Operation::ListFoundationModels] {
                for model in models.iter().filter(|model| model.is_some() == operation.names_model()) {
                    for principal in [None, Some("a"), Some("ab"), Some("acx"), Some("b")] {
                        for body_bytes in [None, Some(0), Some(50), Some(150), Some(1000)] {
                            let subject = Subject { operation, model: *model, principal, body_bytes };
                            let taken = policy.route_class(subject).map(RouteClass::name);
                            assert_ne!(taken, Some("b"), "{earlier} {later} {subject:?}");
                        }
                    }
                }
            }
        }
    }
    assert!(covered > conditions.len(), "{covered}");
}

#[test]
fn combined_must_know_its_region() {
    let mut document = base();
    document["role"] = json!("combined");
    assert_eq!(load(&document).unwrap_err().key, "region");
    document["region"] = json!("us-west-2");
    let error = load(&document).unwrap_err();
    assert_eq!(
        error.to_string(),
        "configuration key `route_classes[0].regions`: role `combined` signs for us-west-2 only, and the class may go to us-east-1"
    );
    for class in 0..4 {
        document["route_classes"][class]["regions"] = json!(["us-west-2"]);
    }
    assert_eq!(load(&document).unwrap().own_region().unwrap().name(), "us-west-2");
    let mut relay = document.clone();
    relay["stream_relay"] = json!("bedrock-streams");
    let error = load(&relay).unwrap_err();
    assert!(error.key == "stream_relay" && error.problem.contains("role `combined` signs by itself"), "{error}");
    let mut hashed = document.clone();
    hashed["envoy_hashes_body_bytes"] = json!({"min": 1});
    let error = load(&hashed).unwrap_err();
    assert!(error.key == "envoy_hashes_body_bytes" && error.problem.contains("role `combined` signs"), "{error}");
    let mut nothing = base();
    nothing["envoy_hashes_body_bytes"] = json!({"min": 2, "max": 1});
    let error = load(&nothing).unwrap_err();
    assert!(error.key == "envoy_hashes_body_bytes" && error.problem.contains("`max` is less"), "{error}");
    let mut polls = document.clone();
    polls["catalogue"] = json!({"cluster": "polls"});
    let error = load(&polls).unwrap_err();
    assert!(error.key == "catalogue" && error.problem.contains("no signer that could sign a poll"), "{error}");
    // One signature holds on every path only if Host is the same.
    let host = "vpce-0a.bedrock-runtime.us-west-2.vpce.amazonaws.com";
    document["regions"]["us-west-2"]["hosts"] = json!({"dx": {"bedrock-runtime": host}});
    assert_eq!(load(&document).unwrap_err().key, "regions.us-west-2.hosts.vpn");
    document["regions"]["us-west-2"]["hosts"] = json!({"dx": {"bedrock-runtime": host}, "vpn": {"bedrock-runtime": host}, "internet": {"bedrock-runtime": host}});
    assert_eq!(load(&document).unwrap().own_region().unwrap().host_of_all(Service::BedrockRuntime), host);
}

#[test]
fn classes_match_in_order() {
    let policy = load(&base()).unwrap();
    for (operation, model, principal, class) in [
        (Operation::Converse, Some("anthropic.claude-v2"), Some("spiffe://prod/x"), "private-only"),
        (Operation::Converse, Some("anthropic.claude-v2"), Some("spiffe://test/x"), "claude"),
        (Operation::Converse, Some("us.anthropic.claude-v2"), None, "claude"),
        (Operation::Converse, Some("meta.llama"), None, "any"),
        (Operation::ListFoundationModels, None, None, "lists"),
        (Operation::ListInferenceProfiles, None, None, "any"),
    ] {
        let found = policy.route_class(Subject { operation, model, principal, body_bytes: None }).unwrap();
        assert_eq!(found.name(), class);
    }
}

#[test]
fn models_resolve_by_alias_partition_and_policy() {
    let policy = load(&base()).unwrap();
    for (asked, wanted) in [
        ("sonnet", Some("anthropic.claude-v2")),
        ("anthropic.claude-v2", Some("anthropic.claude-v2")),
        ("us-gov.anthropic.claude-v2", Some("anthropic.claude-v2")),
        ("global.anthropic.claude-v2", None),
        ("us.forbidden.x", None),
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.a.b", None),
        ("arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:provisioned-model/x", None),
    ] {
        assert_eq!(policy.resolve_model(asked).ok().as_deref(), wanted, "{asked}");
    }
}

/// Forms of a model's name from which only AWS knows the model.
const UNRESOLVED: [&str; 10] = [
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:custom-model/meta.llama4/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:imported-model/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ:1",
    "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1",
    "arn:aws:sagemaker:us-east-1:123456789012:endpoint/llama",
    "sa.anthropic.claude-v2",
    "a1b2c3d4e5f6",
];

#[test]
fn refuses_models_that_only_aws_knows() {
    let plain = json!([{"name": "any", "paths": ["internet"]}]);
    let confined = json!([
        {"name": "claude", "models": ["anthropic.*"], "paths": ["dx", "vpn"]},
        {"name": "any", "paths": ["internet"]}
    ]);
    let all = json!([{"name": "models", "models": ["*"], "paths": ["dx"]}, {"name": "any", "paths": ["internet"]}]);
    for (models, classes, rule) in [
        (json!({}), &plain, None),
        (json!({}), &all, None),
        (json!({"deny": ["meta.*"]}), &plain, Some("`models.allow`")),
        (json!({"allow": ["anthropic.*", "arn:*", "sa.*", "a1*"]}), &plain, Some("`models.allow`")),
        (json!({}), &confined, Some("`models` of a route class")),
        (json!({"deny": ["meta.*"]}), &confined, Some("`models.allow`")),
    ] {
        let mut document = base();
        document["models"] = models;
        document["route_classes"] = classes.clone();
        let policy = load(&document).unwrap();
        for id in UNRESOLVED {
            match (policy.resolve_model(id), rule) {
                (Ok(same), None) => assert_eq!(same, id),
                (Err(ModelRefusal::Unresolved { id: named, rule: found }), Some(rule)) => {
                    assert_eq!((named.as_str(), found), (id, rule), "{document}");
                }
                (Err(ModelRefusal::Policy(_)), Some(_)) => {}
                (result, _) => panic!("{id}: {result:?}"),
            }
        }
        assert!(policy.resolve_model("us.anthropic.claude-v2").is_ok());
    }
}

#[test]
fn an_operator_may_list_unresolved_models() {
    let mut document = base();
    document["models"] = json!({"deny": ["meta.*"]});
    document["route_classes"] = json!([
        {"name": "claude", "models": ["anthropic.*"], "paths": ["dx", "vpn"]},
        {"name": "any", "paths": ["internet"]}
    ]);
    for id in UNRESOLVED {
        let mut document = document.clone();
        document["aliases"] = json!({"team": id});
        assert_eq!(load(&document).unwrap_err().key, "aliases.team", "{id}");
        document["models"]["allow"] = json!(["*", id]);
        assert_eq!(load(&document).unwrap_err().key, "aliases.team", "{id}");
        document["route_classes"][0]["models"] = json!(["anthropic.*", id]);
        let policy = load(&document).unwrap();
        assert_eq!(policy.resolve_model("team").as_deref(), Ok(id));
        let subject = Subject { operation: Operation::Converse, model: Some(id), principal: None, body_bytes: None };
        assert_eq!(policy.route_class(subject).map(RouteClass::name), Some("claude"));
    }
}

#[test]
fn profiles_are_the_regions_own_first() {
    let mut document = base();
    for class in 0..4 {
        document["route_classes"][class]["regions"] = json!(["us-west-2"]);
    }
    document["regions"]["us-west-2"] = json!({"inference_profiles": {"a.b": "us.a.b"}});
    document["regions"]["us-east-1"] =
        json!({"hosts": {"vpn": {"bedrock": "vpce-0a-1.bedrock-fips.us-east-1.vpce.amazonaws.com"}}});
    let policy = load(&document).unwrap();
    let (east, west) = (policy.region("us-east-1").unwrap(), policy.region("us-west-2").unwrap());
    assert_eq!((east.profile("a.b"), west.profile("a.b")), ("a.b", "us.a.b"));
    assert_eq!(east.profile("anthropic.claude-v2"), "us.anthropic.claude-v2");
    assert_eq!(east.host(PathName::Dx, Service::Bedrock), "bedrock.us-east-1.amazonaws.com");
    assert_eq!(east.host(PathName::Vpn, Service::Bedrock), "vpce-0a-1.bedrock-fips.us-east-1.vpce.amazonaws.com");
    assert_eq!(east.host(PathName::Vpn, Service::BedrockRuntime), "bedrock-runtime.us-east-1.amazonaws.com");
    assert!(policy.region("eu-west-1").is_none());
    let mut document = base();
    document["fips"] = json!(true);
    let fips = load(&document).unwrap();
    assert_eq!(
        fips.region("us-east-1").unwrap().host(PathName::Internet, Service::BedrockRuntime),
        "bedrock-runtime-fips.us-east-1.amazonaws.com"
    );
}

#[test]
fn classes_match_by_streaming_and_length() {
    let mut document = base();
    document["route_classes"] = json!([
        {"name": "bulk", "body_bytes": {"min": 1000}, "paths": ["vpn"]},
        {"name": "small-streams", "streaming": true, "body_bytes": {"max": 10}, "paths": ["dx"]},
        {"name": "calls", "streaming": false, "paths": ["dx"]},
        {"name": "any", "paths": ["internet"]}
    ]);
    let policy = load(&document).unwrap();
    for (operation, body_bytes, class) in [
        (Operation::Converse, Some(1000), "bulk"),
        (Operation::Converse, None, "bulk"),
        (Operation::Converse, Some(999), "calls"),
        (Operation::ConverseStream, Some(10), "small-streams"),
        (Operation::ConverseStream, Some(11), "any"),
        (Operation::ListFoundationModels, Some(0), "calls"),
    ] {
        let subject = Subject { operation, model: None, principal: None, body_bytes };
        assert_eq!(policy.route_class(subject).unwrap().name(), class, "{operation} {body_bytes:?}");
    }
}
