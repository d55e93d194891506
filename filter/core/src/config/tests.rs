use super::*;
use serde_json::{Value, json};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

#[test]
fn schema_in_docs_is_current() {
    let mut schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    schema["title"] = "Configuration of the Bedrock gateway filter".into();
    let generated = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let file = format!("{DOCS}/configuration.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&file, &generated).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept == generated, "{file} is old: run UPDATE_SCHEMA=1 cargo test -p filter-core schema");
}

#[test]
fn every_key_is_documented() {
    let page = std::fs::read_to_string(format!("{DOCS}/configuration.md")).unwrap();
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    for key in schema["properties"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("| `{key}` |")), "docs/configuration.md lacks `{key}`");
    }
}

/// A document with every key.
fn full() -> Value {
    // `json!` takes so many keys at once.
    let class = json!({
        "name": "full", "models": ["*"], "operations": ["Converse"], "principals": ["p"], "streaming": false,
        "body_bytes": {"min": 1, "max": 2}, "paths": ["dx", "vpn"], "weights": {"dx": 1}, "regions": ["us-west-2"], "region_order": "fastest",
        "region_weights": {"us-west-2": 1}, "region_sticky": true, "retention": "same", "priority": "high", "dscp": 46, "bandwidth_kbps": 8, "first_byte_timeout_ms": 5000, "catalogue_max_age_seconds": 120,
        "limits": {"requests_per_minute": 1, "tokens_per_minute": 2, "concurrent_calls": 3}, "credentials": "federated", "session": "principal", "audit": "required"
    });
    let mut document = json!({
        "role": "gateway", "auth": "sigv4", "fips": true, "failback_seconds": 7, "region": "us-east-1",
        "regions": {"us-east-1": {}, "us-west-2": {"inference_profiles": {"a.b": "us.a.b"},
            "hosts": {"dx": {"bedrock": "bedrock.us-west-2.api.aws"}}}},
        "inference_profiles": {"c.d": "us.c.d"}, "catalogue": {"refresh_seconds": 60, "global": true, "cluster": "polls",
            "snapshot": {"us-east-1": {"on_demand": ["a.b"], "profiles": ["us.c.d"]}}}, "aliases": {"e": "c.d"}, "models": {"allow": ["c*"], "deny": ["*x"]},
        "residency": ["us"], "govcloud_accounts": ["111122223333"], "headers": {"allow": ["x-amzn-bedrock-new"]},
        "request_metadata": {"caller": "{principal}"},
        "optional_operations": ["batch_jobs", "agent_runtime"],
        "gateway_api": {"principals": ["operator"], "govcloud": {"us-gov-west-1": {"on_demand": ["a.b"], "profiles": ["us-gov.c.d"]}}},
        "lambda_api": {"stage": "prod", "region": "us-gov-east-1"},
        "route_classes": [class],
        "stream_relay": "streams", "envoy_hashes_body_bytes": {"min": 5, "max": 6}, "max_body_bytes": 9, "credentials_wait_ms": 8
    });
    let callers = json!({
        "principal": [{"from": "mtls"}, {"from": "jwt", "payload": "p", "claim": "sub"}],
        "groups": [{"from": "jwt", "payload": "p", "claim": "groups"}],
        "rules": [{
            "id": "full", "effect": "allow", "mode": "dry_run", "principals": ["p"], "groups": ["g"], "operations": ["Converse"],
            "models": ["c*"], "regions": ["us-west-2"], "classes": ["full"], "body_bytes": {"max": 5}, "max_tokens": 6, "max_images": 7,
            "from": "2026-12-01T00:00:00Z", "until": "2027-01-01T00:00:00Z"
        }]
    });
    let others = json!({
        "resolve": {"refresh_seconds": 60, "cluster": "polls", "runs": {"abc": ["a.b"]}},
        "credentials": {"source": "secrets_manager", "cluster": "c", "secret": "s", "region": "us-gov-west-1",
            "using": {"source": "container", "cluster": "c"}},
        "credential_sets": {"federated": {
            "source": "federation", "using": {"source": "imds", "cluster": "c", "role": "r"},
            "govcloud": {"cluster": "g", "region": "us-gov-west-1"}, "commercial": {"cluster": "s", "region": "us-east-1"},
            "role_arn": "arn:aws:iam::123456789012:role/x", "audience": "a", "session_name": "other",
            "duration_seconds": 900, "sessions_per_second": 7, "tags": {"a": "b"}
        }},
        "data_retention": {"refresh_seconds": 9, "max_age_seconds": 99, "models": [{"models": ["*"], "mode": "aws_review"}],
            "projects": {"us-west-2": ["proj_a"]}, "cluster": "polls"},
        "audit": {"cluster": "audit", "deadline_ms": 11},
        "output_rates": [{"models": ["c*"], "rate": 2}],
        "buffers": {"total_bytes": 4, "caller_bytes": 3, "connection_bytes": 2, "calls": 1}
    });
    for part in [callers, others] {
        if let (Value::Object(all), Value::Object(part)) = (&mut document, part) {
            all.extend(part);
        }
    }
    document
}

/// The paths to all values, as JSON pointers with the keys that errors have.
fn places(value: &Value, pointer: &str, key: &str) -> Vec<(String, String)> {
    let below: Vec<(String, String)> = match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(name, value)| {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                places(value, &format!("{pointer}/{name}"), &key)
            })
            .collect(),
        Value::Array(values) => values
            .iter()
            .enumerate()
            .flat_map(|(index, value)| places(value, &format!("{pointer}/{index}"), &format!("{key}[{index}]")))
            .collect(),
        _ => Vec::new(),
    };
    std::iter::once((pointer.to_owned(), key.to_owned())).chain(below).collect()
}

/// serde_json is the oracle: it reads the same documents, and refuses the same ones.
#[test]
fn reads_what_serde_json_reads() {
    let full = full();
    assert_eq!(Config::parse(full.to_string().as_bytes()).unwrap(), serde_json::from_value(full.clone()).unwrap());
    let others =
        [json!(null), json!(true), json!(3), json!(-1), json!(1.5), json!(300), json!("x"), json!([]), json!({})];
    let (mut accepted, mut refused) = (0, 0);
    for (pointer, key) in places(&full, "", "") {
        for other in &others {
            let mut document = full.clone();
            let place = document.pointer_mut(&pointer).unwrap();
            // serde_json takes a list for a struct; the gateway does not.
            if place.is_object() && other.is_array() {
                continue;
            }
            *place = other.clone();
            let text = document.to_string();
            match (Config::parse(text.as_bytes()), serde_json::from_str::<Config>(&text)) {
                (Ok(ours), Ok(oracle)) => {
                    accepted += 1;
                    assert_eq!(ours, oracle, "{pointer} {other}");
                }
                (Err(error), Err(_)) => {
                    refused += 1;
                    // The key is that of the change, or of what the changed object lacks.
                    let rest = error.key.strip_prefix(&key).or((error.key == ".").then_some(""));
                    assert!(rest.is_some(), "{pointer} {other}: {error}");
                    assert!(locate(text.as_bytes(), &error.key).is_some(), "{error}");
                }
                (ours, oracle) => panic!("{pointer} {other}: {ours:?} {oracle:?}"),
            }
        }
        // Removed, and with another key.
        let Some((parent, last)) = pointer.rsplit_once('/') else { continue };
        let mut document = full.clone();
        if let Value::Object(map) = document.pointer_mut(parent).unwrap() {
            let value = map.remove(last).unwrap();
            let mut renamed = document.clone();
            renamed.pointer_mut(parent).unwrap()[format!("{last}_")] = value;
            for document in [document, renamed] {
                let text = document.to_string();
                let oracle = serde_json::from_str::<Config>(&text).ok();
                assert_eq!(Config::parse(text.as_bytes()).ok(), oracle, "{pointer}: {text}");
            }
        }
    }
    assert!(accepted > 50 && refused > 300, "{accepted} {refused}");
}

#[test]
fn a_full_document_round_trips() {
    let config = Config::parse(full().to_string().as_bytes()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&config.to_json()).unwrap(), full());
}
