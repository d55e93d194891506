use super::tests::{base, load};
use super::*;
use serde_json::{Value, json};

/// Writes a value at a JSON pointer; in a list it replaces an item.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        *document = value;
        return;
    };
    match document.pointer_mut(parent).unwrap() {
        Value::Object(map) => drop(map.insert(last.to_owned(), value)),
        Value::Array(list) => list[last.parse::<usize>().unwrap()] = value,
        other => panic!("{other}"),
    }
}

#[test]
fn mistakes_are_refused_by_key() {
    let cases: &[(&str, Value, &str, &str)] = &[
        (
            "/role",
            json!("gatway"),
            "role",
            "unknown value 'gatway'; known: gateway, signer, combined; did you mean `gateway`?",
        ),
        ("/rolle", json!("x"), "rolle", "unknown key 'rolle'; known: role, auth"),
        ("/stream_relay", json!(""), "stream_relay", "a cluster of its own"),
        ("/stream_relay", json!("bedrock-runtime.any"), "stream_relay", "none of Bedrock's"),
        ("/audit", json!({"cluster": "bedrock.any"}), "audit.cluster", "none of Bedrock's"),
        ("/catalogue", json!({}), "catalogue.cluster", "a cluster of its own"),
        ("/catalogue", json!({"cluster": "bedrock.any"}), "catalogue.cluster", "none of Bedrock's"),
        (
            "/catalogue",
            json!({"cluster": "polls", "refresh_seconds": 4}),
            "catalogue.refresh_seconds",
            "from 5 to 86400, not 4",
        ),
        ("/catalogue", json!({"refresh_seconds": 0}), "catalogue.refresh_seconds", "give `catalogue.snapshot`"),
        (
            "/catalogue",
            json!({"refresh_seconds": 0, "snapshot": {"us-east-1": {"on_demand": ["a.b", "c d"]}}}),
            "catalogue.snapshot.us-east-1.on_demand[1]",
            "\"c d\" is not an id",
        ),
        (
            "/catalogue",
            json!({"refresh_seconds": 0, "snapshot": {"us-east-1": {"profiles": ["a.b"]}}}),
            "catalogue.snapshot.us-east-1.profiles[0]",
            "\"a.b\" is not an id",
        ),
        ("/catalogue", json!({"globl": true}), "catalogue.globl", "did you mean `global`?"),
        ("/residency", json!(["us", "europe"]), "residency[1]", "unknown geography 'europe'; known: us, eu"),
        ("/residency", json!(["us-gov"]), "residency[0]", "unknown geography"),
        ("/residency", json!(["us", "us"]), "residency[1]", "twice"),
        ("/residency", json!("us"), "residency", "us"),
        ("/audit", json!({"cluster": "audit", "deadline_ms": 9}), "audit.deadline_ms", "from 10 to 60000, not 9"),
        ("/audit", json!({"socket": "/run/x"}), "audit.socket", "unknown key 'socket'; known: cluster"),
        ("/route_classes/0/audit", json!("required"), "route_classes[0].audit", "needs the collector"),
        ("/route_classes/0/audit", json!("requird"), "route_classes[0].audit", "did you mean `required`?"),
        ("/auth", json!("none"), "auth", "known: sigv4, bearer"),
        ("/regions", json!({}), "regions", "at least one"),
        ("/regions/us-gov-west-1", json!({}), "regions.us-gov-west-1", "not in the Commercial partition"),
        ("/regions/evil.example", json!({}), "regions.evil.example", "not a region name"),
        ("/regions/us-east-1/profiles", json!({}), "regions.us-east-1.profiles", "unknown key"),
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
            "not an endpoint of bedrock-runtime in us-east-1",
        ),
        (
            "/regions/us-east-1/hosts",
            json!({"dx": {"bedrock": "evil.example"}}),
            "regions.us-east-1.hosts.dx.bedrock",
            "'evil.example' is not an endpoint of bedrock in us-east-1",
        ),
        (
            "/regions/us-east-1/hosts",
            json!({"satellite": {}}),
            "regions.us-east-1.hosts.satellite",
            "known: dx, vpn, internet",
        ),
        (
            "/regions/us-east-1/hosts",
            json!({"dx": {"sts": "x"}}),
            "regions.us-east-1.hosts.dx.sts",
            "unknown value 'sts'; known: bedrock-runtime, bedrock, bedrock-agent-runtime",
        ),
        (
            "/optional_operations",
            json!(["batch_job"]),
            "optional_operations[0]",
            "unknown value 'batch_job'; known: batch_jobs, agent_runtime; did you mean `batch_jobs`?",
        ),
        ("/optional_operations", json!(["batch_jobs", "batch_jobs"]), "optional_operations[1]", "is there twice"),
        (
            "/regions/us-east-1/hosts",
            json!({"dx": {"bedrock-agent-runtime": "bedrock-runtime.us-east-1.amazonaws.com"}}),
            "regions.us-east-1.hosts.dx.bedrock-agent-runtime",
            "not an endpoint of bedrock-agent-runtime in us-east-1",
        ),
        ("/failback_seconds", json!(-1), "failback_seconds", "want a whole number from 0 to 4294967295, not -1"),
        ("/route_classes/0/weights", json!({"dx": 0, "vpn": 0}), "route_classes[0].weights", "every weight is zero"),
        ("/route_classes/0/weights", json!({}), "route_classes[0].weights", "every weight is zero"),
        ("/route_classes/0/weights", json!({"internet": 1}), "route_classes[0].weights.internet", "not among those"),
        (
            "/route_classes/0/weights",
            json!({"dx": 2_000_000}),
            "route_classes[0].weights.dx",
            "want a whole number from 0 to 1000000, not 2000000",
        ),
        ("/route_classes/0/weights", json!({"fiber": 1}), "route_classes[0].weights.fiber", "unknown value 'fiber'"),
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
        ("/route_classes/0/region_order", json!("quick"), "route_classes[0].region_order", "known: listed, fastest"),
        ("/route_classes/0/region_sticky", json!(true), "route_classes[0].region_sticky", "needs `region_weights`"),
        ("/route_classes/0/region_sticky", json!("yes"), "route_classes[0].region_sticky", "want true or false"),
        ("/route_classes/0/priority", json!("urgent"), "route_classes[0].priority", "known: default, high"),
        ("/route_classes/0/dscp", json!(64), "route_classes[0].dscp", "want a whole number from 0 to 63, not 64"),
        (
            "/route_classes/0/first_byte_timeout_ms",
            json!(99),
            "route_classes[0].first_byte_timeout_ms",
            "want a whole number from 100 to 3600000, not 99",
        ),
        (
            "/route_classes/0/first_byte_timeout_ms",
            json!(3_600_001),
            "route_classes[0].first_byte_timeout_ms",
            "want a whole number from 100 to 3600000, not 3600001",
        ),
        ("/route_classes/0/bandwidth_kbps", json!(0), "route_classes[0].bandwidth_kbps", "lets nothing through"),
        (
            "/route_classes/0/limits",
            json!({"requests_per_minute": 0}),
            "route_classes[0].limits.requests_per_minute",
            "lets nothing through",
        ),
        ("/route_classes/0/limits", json!({"calls": 1}), "route_classes[0].limits.calls", "unknown key"),
        ("/region", json!("eu-west-1"), "region", "unknown region 'eu-west-1'; known: us-east-1, us-west-2"),
        ("/inference_profiles/x.y", json!("us.z"), "inference_profiles.x.y", "not an inference profile of 'x.y'"),
        ("/inference_profiles/x.y", json!("global.x.y"), "inference_profiles.x.y", "refused by `models`"),
        ("/aliases/other", json!("sonnet"), "aliases.other", "is an alias itself; did you mean `anthropic.claude-v2`?"),
        ("/aliases/other", json!("global.x"), "aliases.other", "does not allow model 'global.x'"),
        ("/models/allow", json!([]), "models.allow", "allows no model"),
        ("/models/deny", json!([""]), "models.deny[0]", "is not a pattern"),
        ("/principal/0/from", json!("header"), "principal[0].from", "unknown value 'header'; known: mtls, jwt"),
        ("/route_classes", json!([]), "route_classes", "at least one"),
        (
            "/route_classes/0/paths/1",
            json!("satellite"),
            "route_classes[0].paths[1]",
            "unknown value 'satellite'; known: dx, vpn, internet",
        ),
        ("/route_classes/0/paths", json!([]), "route_classes[0].paths", "has no path"),
        ("/route_classes/0/paths", json!(["dx", "dx"]), "route_classes[0].paths", "'dx' is there twice"),
        ("/route_classes/1/name", json!("any"), "route_classes[3].name", "is there twice"),
        ("/route_classes/1/name", json!("A b"), "route_classes[1].name", "not a class name"),
        (
            "/route_classes/1/operations",
            json!(["Chat"]),
            "route_classes[1].operations[0]",
            "unknown value 'Chat'; known: InvokeModel, ",
        ),
        ("/route_classes/1/operations", json!([]), "route_classes[1].operations", "matches no call"),
        ("/route_classes/1/body_bytes", json!({"min": 2, "max": 1}), "route_classes[1].body_bytes", "less than `min`"),
        (
            "/route_classes/1/body_bytes",
            json!({"max": -1}),
            "route_classes[1].body_bytes.max",
            "want a whole number, 0 or more, not -1",
        ),
        ("/route_classes/2/models", json!([]), "route_classes[2].models", "matches no call"),
        ("/max_body_bytes", json!(0), "max_body_bytes", "want a whole number from 1 to"),
        ("/max_body_bytes", json!("25MB"), "max_body_bytes", "want a whole number, 0 or more, not the string '25MB'"),
        (
            "/credentials",
            json!({"source": "file"}),
            "credentials.source",
            "unknown value 'file'; known: environment, container",
        ),
    ];
    for (pointer, value, key, problem) in cases {
        let mut document = base();
        set(&mut document, pointer, value.clone());
        let error = load(&document).unwrap_err();
        assert_eq!(error.key, *key, "{pointer}: {error}");
        let text = error.to_string();
        assert!(text.contains(problem), "{pointer}: {text}");
        assert_plain(&text);
    }
}

/// An operator's message has no words of Rust or serde.
fn assert_plain(message: &str) {
    for word in ["u8", "u32", "u64", "struct", "enum", "variant", "field", "expected a", "invalid type", "sequence"] {
        let found = message.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == word);
        assert!(!found && (!word.contains(' ') || !message.contains(word)), "{word}: {message}");
    }
}

#[test]
fn wrong_kinds_are_named_in_plain_words() {
    for (pointer, value, problem) in [
        ("", json!([]), "`.`: want an object, not a list"),
        ("/role", json!(3), "`role`: want a string, not 3"),
        ("/regions", json!(["us-east-1"]), "`regions`: want an object, not a list"),
        (
            "/regions/us-east-1",
            json!(null),
            "`regions.us-east-1`: has no value (null); want an object, `{}` for an empty one",
        ),
        ("/aliases/sonnet", json!({}), "`aliases.sonnet`: want a string, not an object"),
        ("/models", json!("x"), "`models`: want an object, not the string 'x'"),
        ("/fips", json!("yes"), "`fips`: want true or false, not the string 'yes'"),
        ("/principal", json!("mtls"), "`principal`: want a list, not the string 'mtls': write it in brackets, [ ]"),
        ("/principal", json!({}), "`principal`: want a list, not an object"),
        ("/principal/1/claim", json!(7), "`principal[1].claim`: want a string, not 7"),
        ("/principal/1", json!({"from": "jwt", "claim": "sub"}), "`principal[1].payload`: is missing"),
        ("/principal/1", json!({"claim": "sub"}), "`principal[1].from`: is missing"),
        ("/principal/1", json!("mtls"), "`principal[1]`: want an object with a key `from`, not the string 'mtls'"),
        ("/route_classes/0/dscp", json!("high"), "`route_classes[0].dscp`: want a whole number from 0 to 63, not the"),
        ("/route_classes/0/weights", json!({"dx": 1.5}), "`route_classes[0].weights.dx`: want a whole number from 0"),
        ("/route_classes/0/name", json!(null), "`route_classes[0].name`: has no value (null); want a string"),
        ("/credentials", json!({"source": "imds"}), "`credentials.cluster`: is missing"),
        (
            "/credentials",
            json!({"source": "secrets_manager", "cluster": "c", "secret": "s", "using": {"source": "imds", "cluster": 1}}),
            "`credentials.using.cluster`: want a string, not 1",
        ),
        (
            "/credential_sets",
            json!({"other": {"source": "imds", "cluster": "c", "roll": "x"}}),
            "`credential_sets.other.roll`: unknown key 'roll'; known: cluster, role; did you mean `role`?",
        ),
    ] {
        let mut document = base();
        document["credentials"] = json!({"source": "environment"});
        document["credential_sets"] = json!({});
        set(&mut document, pointer, value);
        if pointer == "/models" || pointer == "/fips" {
            document.as_object_mut().unwrap().remove("aliases");
        }
        let message = load(&document).unwrap_err().to_string();
        assert!(message.contains(problem), "{pointer}: {message}");
        assert_plain(&message);
    }
}

#[test]
fn unknown_names_come_with_the_nearest() {
    for (pointer, value, key, nearest) in [
        ("/route_clases", json!([]), "route_clases", Some("route_classes")),
        ("/route_classes/0/path", json!([]), "route_classes[0].path", Some("paths")),
        ("/route_classes/0/paths/0", json!("vnp"), "route_classes[0].paths[0]", Some("vpn")),
        ("/route_classes/1/operations/0", json!("Convrese"), "route_classes[1].operations[0]", Some("Converse")),
        ("/route_classes/0/regions", json!(["us-east-2"]), "route_classes[0].regions[0]", Some("us-east-1")),
        ("/route_classes/0/credentials", json!("audti"), "route_classes[0].credentials", Some("audit")),
        ("/route_classes/0/credentials", json!("zzz"), "route_classes[0].credentials", None),
        ("/region", json!("us-west-1"), "region", Some("us-west-2")),
    ] {
        let mut document = base();
        document["credential_sets"] = json!({"audit": {"source": "environment"}});
        set(&mut document, pointer, value);
        let error = load(&document).unwrap_err();
        assert_eq!((error.key.as_str(), error.nearest.as_deref()), (key, nearest), "{error}");
        assert!(!error.known.is_empty(), "{error}");
    }
}

/// The native renderer compiles the same policy: it must refuse what the module would refuse.
#[test]
fn refuses_wrong_credentials_by_key() {
    let federation = json!({
        "source": "federation",
        "using": {"source": "imds", "cluster": "imds"},
        "govcloud": {"cluster": "sts-gov", "region": "us-gov-west-1"},
        "commercial": {"cluster": "sts-com", "region": "us-east-1"},
        "role_arn": "arn:aws:iam::123456789012:role/bedrock",
        "audience": "bedrock-gateway"
    });
    for (key, value, wrong, problem) in [
        ("role_arn", json!("arn:aws-us-gov:iam::123456789012:role/x"), "role_arn", "not a role of the Commercial"),
        ("role_arn", json!("arn:aws:iam::1234:role/x"), "role_arn", "want arn:aws:iam::ACCOUNT:role/NAME"),
        ("role_arn", json!("arn:aws:iam::123456789012:role/"), "role_arn", "not a role"),
        ("duration_seconds", json!(60), "duration_seconds", "from 900 to 43200, not 60"),
        ("session_name", json!("a b"), "session_name", "2 to 64 letters"),
        ("sessions_per_second", json!(0), "sessions_per_second", "from 1 to 1000, not 0"),
        ("audience", json!(""), "audience", "is empty"),
        ("tags", json!({"aws:x": "y"}), "tags.aws:x", "is not a tag key"),
        (
            "tags",
            json!({"x": "a
b"}),
            "tags.x",
            "not allowed",
        ),
        ("using", json!({"source": "imds", "cluster": ""}), "using.cluster", "is empty"),
        ("govcloud", json!({"cluster": "a", "region": "us-east-1"}), "govcloud.region", "not in GovCloud"),
        (
            "commercial",
            json!({"cluster": "a", "region": "us-gov-west-1"}),
            "commercial.region",
            "not in the Commercial",
        ),
        ("commercial", json!({"cluster": "a b", "region": "us-east-1"}), "commercial.cluster", "white space"),
    ] {
        let mut source = federation.clone();
        source[key] = value;
        for (place, document_key) in [("credentials", "credentials"), ("credential_sets", "credential_sets.other")] {
            let mut document = base();
            document[place] = if place == "credentials" { source.clone() } else { json!({"other": source}) };
            let error = load(&document).unwrap_err();
            assert_eq!(error.key, format!("{document_key}.{wrong}"), "{error}");
            assert!(error.problem.contains(problem), "{error}");
        }
    }
    let mut document = base();
    document["credentials"] = federation;
    assert!(load(&document).is_ok());
    document["auth"] = json!("bearer");
    assert_eq!(load(&document).unwrap_err().key, "credentials.source");
}

#[test]
fn sessions_of_callers_need_names_and_a_source() {
    let source = json!({
        "source": "web_identity", "token": {"cluster": "token"}, "commercial": {"cluster": "sts", "region": "us-east-1"},
        "role_arn": "arn:aws:iam::123456789012:role/bedrock"
    });
    let mut document = base();
    document["principal"] = json!([{"from": "mtls"}]);
    document["credential_sets"] = json!({"named": source});
    document["route_classes"][0]["session"] = json!("principal");
    let refused = |document: &Value, problem: &str| {
        let error = load(document).unwrap_err();
        assert_eq!(error.key, "route_classes[0].session", "{error}");
        assert!(error.problem.contains(problem), "{error}");
    };
    refused(&document, "of the source `federation`, `web_identity` or `roles_anywhere`");
    document["route_classes"][0]["credentials"] = json!("named");
    assert!(load(&document).is_ok());
    document.as_object_mut().unwrap().remove("principal");
    refused(&document, "without the key `principal` callers have no name");
}

#[test]
fn a_document_round_trips_without_its_defaults() {
    let mut document = base();
    document["models"]["allow"] = json!(["*"]);
    document["failback_seconds"] = json!(5);
    document["max_body_bytes"] = json!(26_214_400);
    document["credentials_wait_ms"] = json!(2000);
    document["fips"] = json!(false);
    let config = Config::parse(document.to_string().as_bytes()).unwrap();
    let written: Value = serde_json::from_str(&config.to_json()).unwrap();
    assert_eq!(written, base());
    assert_eq!(Config::parse(config.to_json().as_bytes()), Ok(config));

    let mut full = base();
    full["auth"] = json!("sigv4");
    full["fips"] = json!(true);
    full["region"] = json!("us-east-1");
    full["stream_relay"] = json!("streams");
    full["regions"]["us-west-2"] = json!({"inference_profiles": {"a.b": "us.a.b"},
        "hosts": {"dx": {"bedrock-runtime": "bedrock-runtime-fips.us-west-2.amazonaws.com"}}});
    full["route_classes"][0] = json!({
        "name": "full", "models": ["*"], "operations": ["Converse"], "principals": ["p"], "streaming": false,
        "body_bytes": {"min": 1, "max": 2}, "paths": ["dx", "vpn"], "weights": {"dx": 1}, "regions": ["us-west-2"],
        "region_weights": {"us-west-2": 1}, "region_sticky": true, "priority": "high", "dscp": 46, "bandwidth_kbps": 8, "first_byte_timeout_ms": 5000,
        "limits": {"requests_per_minute": 1, "tokens_per_minute": 2}, "credentials": "other"
    });
    full["credential_sets"] = json!({"other": {
        "source": "federation", "using": {"source": "container", "cluster": "c"},
        "govcloud": {"cluster": "g", "region": "us-gov-west-1"}, "commercial": {"cluster": "s", "region": "us-east-1"},
        "role_arn": "arn:aws:iam::123456789012:role/x", "audience": "a", "session_name": "other", "tags": {"a": "b"}
    }, "secret": {"source": "secrets_manager", "cluster": "c", "secret": "s"}});
    let config = Config::parse(full.to_string().as_bytes()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&config.to_json()).unwrap(), full);
}

#[test]
fn a_document_is_read_for_another_role() {
    let mut document = base();
    let signer = Config::parse_for(document.to_string().as_bytes(), Role::Signer).unwrap();
    assert_eq!(signer.role, Role::Signer);
    document.as_object_mut().unwrap().remove("role");
    assert_eq!(Config::parse_for(document.to_string().as_bytes(), Role::Signer), Ok(signer));
    assert_eq!(Config::parse(document.to_string().as_bytes()).unwrap_err().key, "role");
}

#[test]
fn refuses_what_is_not_a_document() {
    for (text, problem) in [
        ("", "the document is not JSON: EOF while parsing a value at line 1 column 0"),
        ("[]", "want an object, not a list"),
        ("3", "want an object, not 3"),
        ("{\n \"a\" 1}", "at line 2 column 6"),
        ("{}", "`role`: is missing"),
        (r#"{"role":"gateway"}"#, "`regions`: is missing"),
    ] {
        let error = Policy::parse(text.as_bytes(), None).unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
    let position = Policy::parse(b"{\n \"a\" 1}", None).unwrap_err().position.unwrap();
    assert_eq!((position.line, position.column), (2, 6));
    let twice = base().to_string() + "{}";
    assert!(Policy::parse(twice.as_bytes(), None).unwrap_err().to_string().contains("trailing characters"));
}

#[test]
fn refuses_a_repeated_key() {
    let text = base().to_string();
    for (from, to, key, named) in [
        (r#""aliases":{"#, r#""aliases":{"sonnet":"a.b","#, "aliases.sonnet", "sonnet"),
        (r#""regions":{"#, r#""regions":{"us-east-1":{},"#, "regions.us-east-1", "us-east-1"),
        (r#""aliases":{"#, r#""aliases":{"a.b":"c.d","a.b":"c.d","#, "aliases.a.b", "a.b"),
        (r#""role":"gateway""#, r#""role":"gateway","role":"signer""#, "role", "role"),
        (r#""paths":["dx"]"#, r#""paths":["dx"],"paths":["vpn"]"#, "route_classes[2].paths", "paths"),
    ] {
        let twice = text.replacen(from, to, 1);
        assert_ne!(twice, text, "{from}");
        let error = Policy::parse(twice.as_bytes(), None).unwrap_err();
        assert!(error.problem.contains(&format!("`{named}` is there twice")), "{error}");
        assert_eq!(error.key, key);
    }
}

#[test]
fn an_api_key_excludes_the_agent_runtime() {
    let mut document = base();
    document["optional_operations"] = json!(["batch_jobs", "agent_runtime"]);
    assert!(load(&document).is_ok());
    document["auth"] = json!("bearer");
    let error = load(&document).unwrap_err();
    assert_eq!(error.key, "optional_operations[1]");
    assert!(error.to_string().contains("takes no API key"), "{error}");
}
