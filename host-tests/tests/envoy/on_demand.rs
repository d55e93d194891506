//! A region lists on-demand throughput of a model, and refuses its bare id: the first call is sent again by the profile, and the
//! next ones go by it at once.

use bedrock_double::{Builder, Running};
use serde_json::{Value, json};

use crate::clients::{assert_all_answered, call, python_bearer_with, python_with};
use crate::harness::{Harness, Keys, eventually, text_of};
use crate::istio::pod::wait_for_paths;

/// A model for each operation, which the first call of it teaches.
const MODELS: [&str; 4] = ["anthropic.one-v1:0", "anthropic.two-v1:0", "anthropic.three-v1:0", "anthropic.four-v1:0"];
/// Without a profile, with a global one, and with one that rules deny.
const OTHERS: [&str; 3] = ["anthropic.alone-v1:0", "anthropic.global-v1:0", "anthropic.denied-v1:0"];
const LISTS: &str = "model_id,provider,mode,profile_prefixes_seen,on_demand\n\
    anthropic.one-v1:0,anthropic,chat,us|global,listed\n\
    anthropic.two-v1:0,anthropic,chat,us,listed\n\
    anthropic.three-v1:0,anthropic,chat,us,listed\n\
    anthropic.four-v1:0,anthropic,chat,us,listed\n\
    anthropic.alone-v1:0,anthropic,chat,,listed\n\
    anthropic.global-v1:0,anthropic,chat,global,listed\n\
    anthropic.denied-v1:0,anthropic,chat,us,listed\n\
    anthropic.plain-v1:0,anthropic,chat,us,yes\n";

fn gateway(keys: Keys, places: &[&str], change: impl Fn(Builder) -> Builder) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let paths: Vec<&str> = places.iter().filter_map(|place| Some(place.split_once('@')?.0)).collect();
    let document = json!({
        "auth": if keys == Keys::Api { "bearer" } else { "sigv4" },
        "regions": {"us-east-1": {}},
        "catalogue": {"refresh_seconds": 5},
        "rules": [{"id": "all", "effect": "allow"}, {"id": "no", "effect": "deny", "models": ["us.anthropic.denied*"]}],
        "route_classes": [{"name": "any", "paths": paths}],
    });
    std::fs::write(&policy, document.to_string()).unwrap();
    let arguments = ["--policy", policy.to_str().unwrap(), "--concurrency", "2"];
    let harness = Harness::new(keys, places, |double| change(double.models(LISTS)), &arguments);
    wait_for_paths(|page| harness.gateway.admin(page));
    eventually("the first poll", || {
        harness
            .gateway
            .admin("/stats/prometheus")
            .contains("bedrock_catalogue_models{region=\"us-east-1\"} 8")
            .then_some(())
    });
    // The other worker takes it at its next tick.
    std::thread::sleep(std::time::Duration::from_secs(1));
    harness.doubles.iter().for_each(Running::clear);
    harness
}

/// The model ids and statuses of the requests that name a model.
fn sent(harness: &Harness, model: &str) -> Vec<String> {
    let named = harness.received().into_iter().filter_map(|request| request.labels.first().cloned());
    named.filter(|id| id.ends_with(model)).collect()
}

fn refused_then_by_profile(keys: Keys, places: &[&str], change: impl Fn(Builder) -> Builder) {
    let harness = gateway(keys, places, change);
    let models: Vec<String> = MODELS.map(str::to_owned).to_vec();
    let run = || {
        let Harness { gateway, .. } = &harness;
        match keys {
            Keys::Api => python_bearer_with("four_kinds", &gateway.https, &gateway.ca, &models),
            _ => python_with("four_kinds", &gateway.https, &gateway.ca, &models),
        }
    };
    let calls = run();
    assert_all_answered(&calls);
    assert_eq!(calls.len(), 4);
    for model in MODELS {
        assert_eq!(sent(&harness, model), [model.to_owned(), format!("us.{model}")]);
    }
    // Ticks are 0.1 s apart.
    std::thread::sleep(std::time::Duration::from_secs(1));
    harness.doubles.iter().for_each(Running::clear);
    // Lists that say the same again change nothing.
    for _ in 0..3 {
        assert_all_answered(&run());
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    for model in MODELS {
        assert_eq!(sent(&harness, model), vec![format!("us.{model}"); 3]);
    }
    harness.assert_no_violation();
    let records = eventually("the access log", || {
        let text = text_of(&harness.access_log());
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() >= 16).then_some(lines)
    });
    let facts = |line: &Value, key: &str| -> Value { serde_json::from_str(line[key].as_str().unwrap()).unwrap() };
    for (nth, line) in records.iter().enumerate() {
        let attempt = facts(line, "attempt");
        let wanted = if nth < 4 { json!(1) } else { Value::Null };
        assert_eq!((&attempt["refused_on_demand"], &line["status"]), (&wanted, &json!(200)), "{line}");
        assert!(attempt["model"].as_str().unwrap().starts_with("us."), "{attempt}");
        assert_eq!(attempt["tried"].as_array().unwrap().len(), if nth < 4 { 2 } else { 1 }, "{attempt}");
    }
    assert_eq!(sent(&harness, "anthropic.plain-v1:0"), [""; 0]);
}

#[test]
fn a_refused_model_goes_by_its_profile() {
    refused_then_by_profile(Keys::LongLived, &["dx@us-east-1", "vpn@us-east-1"], |double| double);
}

#[test]
fn it_does_over_http1_and_one_path() {
    refused_then_by_profile(Keys::LongLived, &["dx@us-east-1"], |double| double.h2(false));
}

#[test]
fn it_does_with_an_api_key() {
    refused_then_by_profile(Keys::Api, &["dx@us-east-1", "vpn@us-east-1"], |double| double);
}

#[test]
fn refuses_in_bedrocks_words_without_a_profile() {
    let harness = gateway(Keys::LongLived, &["dx@us-east-1", "vpn@us-east-1"], |double| double);
    let others = OTHERS.map(str::to_owned);
    for _ in 0..2 {
        let rows = python_with("models", &harness.gateway.https, &harness.gateway.ca, &others);
        for model in OTHERS {
            let error = &call(&rows, model)["error"];
            assert_eq!((&error["class"], &error["status"]), (&json!("ValidationException"), &json!(400)), "{error}");
            let words = format!(
                "Invocation of model ID {model} with on-demand throughput isn\u{2019}t supported. Retry your request with the ID or \
                 ARN of an inference profile that contains this model."
            );
            assert_eq!(error["message"], json!(words));
        }
    }
    for model in OTHERS {
        assert_eq!(sent(&harness, model), [model, model], "never by a profile");
    }
    harness.assert_no_violation();
}
