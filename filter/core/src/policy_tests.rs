use super::*;
use crate::operation::Operation;
use serde_json::{Value, json};

fn base() -> Value {
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

fn load(document: &Value) -> Result<Policy, ConfigError> {
    Policy::parse(document.to_string().as_bytes(), None)
}

#[test]
fn mistakes_are_refused_by_key() {
    let cases: &[(&str, Value, &str, &str)] = &[
        ("/role", json!("gatway"), "role", "unknown variant `gatway`, expected one of `gateway`, `signer`, `combined`"),
        ("/rolle", json!("x"), "rolle", "unknown field `rolle`"),
        ("/stream_relay", json!(""), "stream_relay", "a cluster of its own"),
        ("/stream_relay", json!("bedrock-runtime.any"), "stream_relay", "none of Bedrock's"),
        ("/auth", json!("none"), "auth", "expected `sigv4` or `bearer`"),
        ("/regions", json!({}), "regions", "at least one"),
        ("/regions/us-gov-west-1", json!({}), "regions.us-gov-west-1", "not a region of the Commercial partition"),
        ("/regions/evil.example", json!({}), "regions.evil.example", "no region name"),
        ("/regions/us-east-1/profiles", json!({}), "regions.us-east-1.profiles", "unknown field"),
        (
            "/regions/us-west-2/inference_profiles",
            json!({"a.b": "us.a.b"}),
            "regions.us-east-1.inference_profiles",
            "lacks 'a.b', which another region of class 'private-only' calls by a profile",
        ),
        (
            "/regions/eu-west-1",
            json!({}),
            "inference_profiles.anthropic.claude-v2",
            "cannot be called in region eu-west-1",
        ),
        (
            "/regions/us-east-1/hosts",
            json!({"dx": {"bedrock-runtime": "vpce-1.bedrock-runtime.us-west-2.vpce.amazonaws.com"}}),
            "regions.us-east-1.hosts.dx.bedrock-runtime",
            "no endpoint of bedrock-runtime in us-east-1",
        ),
        (
            "/regions/us-east-1/hosts",
            json!({"dx": {"bedrock": "evil.example"}}),
            "regions.us-east-1.hosts.dx.bedrock",
            "'evil.example' is no endpoint of bedrock in us-east-1",
        ),
        (
            "/regions/us-east-1/hosts",
            json!({"satellite": {}}),
            "regions.us-east-1.hosts.?",
            "expected one of `dx`, `vpn`, `internet`",
        ),
        (
            "/regions/us-east-1/hosts",
            json!({"dx": {"sts": "x"}}),
            "regions.us-east-1.hosts.?.?",
            "unknown variant `sts`",
        ),
        ("/failback_seconds", json!(-1), "failback_seconds", "invalid value"),
        ("/route_classes/0/weights", json!({"dx": 0, "vpn": 0}), "route_classes[0].weights", "every weight is zero"),
        ("/route_classes/0/weights", json!({}), "route_classes[0].weights", "every weight is zero"),
        ("/route_classes/0/weights", json!({"internet": 1}), "route_classes[0].weights.internet", "not among those"),
        ("/route_classes/0/weights", json!({"dx": 2_000_000}), "route_classes[0].weights.dx", "between 0 and 1000000"),
        ("/route_classes/0/weights", json!({"fiber": 1}), "route_classes[0].weights.?", "unknown variant `fiber`"),
        ("/route_classes/0/regions", json!([]), "route_classes[0].regions", "has no region"),
        (
            "/route_classes/0/regions",
            json!(["us-east-1", "us-east-2"]),
            "route_classes[0].regions[1]",
            "unknown region 'us-east-2'; known: us-east-1, us-west-2",
        ),
        ("/route_classes/0/regions", json!(["us-east-1", "us-east-1"]), "route_classes[0].regions", "is there twice"),
        (
            "/route_classes/0/region_weights",
            json!({"us-east-1": 0}),
            "route_classes[0].region_weights",
            "every weight is zero",
        ),
        (
            "/route_classes/0/region_weights",
            json!({"eu-west-1": 1}),
            "route_classes[0].region_weights.eu-west-1",
            "not among those",
        ),
        ("/route_classes/0/priority", json!("urgent"), "route_classes[0].priority", "expected `default` or `high`"),
        ("/route_classes/0/dscp", json!(64), "route_classes[0].dscp", "between 0 and 63"),
        ("/route_classes/0/bandwidth_kbps", json!(0), "route_classes[0].bandwidth_kbps", "lets nothing through"),
        (
            "/route_classes/0/limits",
            json!({"requests_per_minute": 0}),
            "route_classes[0].limits.requests_per_minute",
            "lets nothing through",
        ),
        ("/route_classes/0/limits", json!({"calls": 1}), "route_classes[0].limits.calls", "unknown field"),
        ("/region", json!("eu-west-1"), "region", "unknown region 'eu-west-1'; known: us-east-1, us-west-2"),
        ("/inference_profiles/x.y", json!("us.z"), "inference_profiles.x.y", "no inference profile of 'x.y'"),
        ("/inference_profiles/x.y", json!("global.x.y"), "inference_profiles.x.y", "refused by `models`"),
        ("/aliases/other", json!("sonnet"), "aliases.other", "is an alias itself"),
        ("/aliases/other", json!("global.x"), "aliases.other", "does not allow model 'global.x'"),
        ("/models/allow", json!([]), "models.allow", "allows no model"),
        ("/models/deny", json!([""]), "models.deny[0]", "is no pattern"),
        ("/principal/0/from", json!("header"), "principal[0].from", "expected `mtls` or `jwt`"),
        ("/route_classes", json!([]), "route_classes", "at least one"),
        (
            "/route_classes/0/paths/1",
            json!("satellite"),
            "route_classes[0].paths[1]",
            "expected one of `dx`, `vpn`, `internet`",
        ),
        ("/route_classes/0/paths", json!([]), "route_classes[0].paths", "has no path"),
        ("/route_classes/0/paths", json!(["dx", "dx"]), "route_classes[0].paths", "'dx' is there twice"),
        ("/route_classes/1/name", json!("any"), "route_classes[3].name", "is there twice"),
        ("/route_classes/1/name", json!("A b"), "route_classes[1].name", "no class name"),
        ("/route_classes/1/operations", json!(["Chat"]), "route_classes[1].operations[0]", "unknown variant `Chat`"),
        ("/route_classes/1/operations", json!([]), "route_classes[1].operations", "matches no call"),
        ("/route_classes/1/body_bytes", json!({"min": 2, "max": 1}), "route_classes[1].body_bytes", "less than `min`"),
        ("/route_classes/1/body_bytes", json!({"max": -1}), "route_classes[1].body_bytes.max", "invalid value"),
        ("/route_classes/2/models", json!([]), "route_classes[2].models", "matches no call"),
        ("/max_body_bytes", json!(0), "max_body_bytes", "between 1 and"),
        ("/max_body_bytes", json!("25MB"), "max_body_bytes", "invalid type"),
        ("/credentials", json!({"source": "file"}), "credentials.source", "unknown variant `file`"),
    ];
    for (pointer, value, key, problem) in cases {
        let mut document = base();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        match document.pointer_mut(parent).unwrap() {
            Value::Object(map) => drop(map.insert((*last).to_owned(), value.clone())),
            Value::Array(list) => list[last.parse::<usize>().unwrap()] = value.clone(),
            other => panic!("{other}"),
        }
        let error = load(&document).unwrap_err();
        assert_eq!(error.key, *key, "{pointer}: {error}");
        assert!(error.problem.contains(problem), "{pointer}: {error}");
    }
}

#[test]
fn documents_that_are_none_are_refused() {
    for (text, problem) in [
        ("", "EOF"),
        ("[]", "expected struct Config"),
        ("3", "invalid type"),
        ("{", "EOF"),
        ("{}", "missing field `role`"),
        (r#"{"role":"gateway"}"#, "missing field `regions`"),
    ] {
        let error = Policy::parse(text.as_bytes(), None).unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
    let twice = base().to_string() + "{}";
    assert!(Policy::parse(twice.as_bytes(), None).unwrap_err().to_string().contains("trailing characters"));
}

#[test]
fn a_key_that_is_there_twice_is_refused_where_it_stands() {
    let text = base().to_string();
    for (from, to, key, named) in [
        (r#""aliases":{"#, r#""aliases":{"sonnet":"a.b","#, "aliases", "sonnet"),
        (r#""regions":{"#, r#""regions":{"us-east-1":{},"#, "regions", "us-east-1"),
        (r#""role":"gateway""#, r#""role":"gateway","role":"signer""#, ".", "role"),
        (r#""paths":["dx"]"#, r#""paths":["dx"],"paths":["vpn"]"#, "route_classes[2]", "paths"),
    ] {
        let twice = text.replacen(from, to, 1);
        assert_ne!(twice, text, "{from}");
        let error = Policy::parse(twice.as_bytes(), None).unwrap_err();
        assert!(error.problem.contains(&format!("`{named}` is there twice")), "{error}");
        assert_eq!(error.key, key);
    }
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
    assert_eq!(east.host(Path::Dx, Service::Bedrock), "bedrock.us-east-1.amazonaws.com");
    assert_eq!(east.host(Path::Vpn, Service::Bedrock), "vpce-0a-1.bedrock-fips.us-east-1.vpce.amazonaws.com");
    assert_eq!(east.host(Path::Vpn, Service::BedrockRuntime), "bedrock-runtime.us-east-1.amazonaws.com");
    assert!(policy.region("eu-west-1").is_none());
    let mut document = base();
    document["fips"] = json!(true);
    let fips = load(&document).unwrap();
    assert_eq!(
        fips.region("us-east-1").unwrap().host(Path::Internet, Service::BedrockRuntime),
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
