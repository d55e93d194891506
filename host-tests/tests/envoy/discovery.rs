//! What callers are shown of the models that they may use, next to what an SDK lists and what a call gets.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::clients::{assert_all_answered, call, python};
use crate::harness::{Harness, Keys, SONNET, eventually};
use crate::istio::pod::wait_for_paths;

const NOVA: &str = "amazon.nova-lite-v1:0";

/// A gateway that reads the double's list every five seconds, with these keys besides.
fn start(keys: &Value) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let mut document = json!({
        "regions": { "us-east-1": {} }, "catalogue": { "refresh_seconds": 5 }, "gateway_api": {},
        "route_classes": [{ "name": "any", "paths": ["dx"] }],
    });
    document.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let policy = dir.path().join("policy.json");
    std::fs::write(&policy, document.to_string()).unwrap();
    let arguments = ["--policy", policy.to_str().unwrap(), "--concurrency", "1"];
    let harness = Harness::new(Keys::LongLived, &["dx@us-east-1"], |double| double, &arguments);
    wait_for_paths(|page| harness.gateway.admin(page));
    harness
}

/// The answer to a GET: status, etag, body.
fn get(harness: &Harness, path: &str, extra: &str) -> (u16, String, Value) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{extra}connection: close\r\n\r\n");
    let (status, head, body) = harness.gateway.raw(request.as_bytes());
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap_or_default().to_owned();
    (status, tag, serde_json::from_str(&body).unwrap_or_default())
}

/// The list once every region's lists are known.
fn models(harness: &Harness) -> (String, Vec<Value>) {
    eventually("the first poll", || {
        let (status, tag, list) = get(harness, "/gateway/v1/models", "");
        assert_eq!(status, 200, "{list}");
        (list["unlisted_regions"] == json!([])).then(|| (tag, list["models"].as_array().unwrap().clone()))
    })
}

fn find<'a>(models: &'a [Value], id: &str) -> &'a Value {
    models.iter().find(|model| model["id"] == id).unwrap_or_else(|| panic!("{id}: {models:#?}"))
}

#[test]
fn models_are_those_that_boto3_lists() {
    let harness = start(&json!({
        "models": { "deny": ["meta.*", "global.*"] }, "aliases": { "team": SONNET },
        "gateway_api": { "govcloud": { "us-gov-west-1": { "on_demand": [NOVA], "profiles": [format!("us-gov.{NOVA}")] } } },
    }));
    let (tag, shown) = models(&harness);
    let calls = python("lists", &harness.gateway.http);
    assert_all_answered(&calls);
    let listed = |name: &str| -> BTreeSet<String> {
        call(&calls, name)["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    let (bare, profiles) = (listed("ListFoundationModels"), listed("ListInferenceProfiles"));
    for model in &shown {
        let (id, sent) = (model["id"].as_str().unwrap(), model["commercial"]["us-east-1"]["sent"].as_str().unwrap());
        assert!(if sent == id { bare.contains(id) } else { profiles.contains(sent) }, "{model}");
        assert!(!id.starts_with("meta.") && !sent.starts_with("global."), "{model}");
        assert_eq!(model["commercial"]["us-east-1"]["paths"], json!(["dx"]));
    }
    // What the caller may use by its profile of this region is there.
    let ids: BTreeSet<&str> = shown.iter().filter_map(|model| model["id"].as_str()).collect();
    let lacking: Vec<&String> = bare.iter().filter(|id| !ids.contains(id.as_str())).collect();
    assert!(lacking.iter().all(|id| !profiles.contains(&format!("us.{id}"))), "{lacking:?}");
    println!("{} models shown; {} of {} in boto3's list cannot be called here", shown.len(), lacking.len(), bare.len());
    assert!(shown.len() > 50 && bare.len() > 50);

    let sonnet = find(&shown, SONNET);
    assert_eq!((&sonnet["aliases"], sonnet["streaming"].as_bool()), (&json!(["team"]), Some(true)), "{sonnet}");
    assert_eq!((&sonnet["input_modalities"], &sonnet["govcloud"]), (&json!(["TEXT"]), &json!({})), "{sonnet}");
    assert_eq!(find(&shown, NOVA)["govcloud"], json!({ "us-gov-west-1": [NOVA, format!("us-gov.{NOVA}")] }));
    let ended: Vec<&Value> = shown
        .iter()
        .map(|model| &model["commercial"]["us-east-1"])
        .filter(|one| one["end_of_life"].is_string())
        .collect();
    assert!(!ended.is_empty() && ended.iter().all(|one| one["status"] == "LEGACY"), "{ended:?}");

    // What is shown is what Bedrock gets.
    harness.doubles[0].clear();
    for name in ["team", SONNET, NOVA] {
        let body = r#"{"messages":[{"role":"user","content":[{"text":"hello"}]}]}"#;
        let request = format!(
            "POST /model/{}/converse HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            name.replace(':', "%3A"),
            body.len()
        );
        assert_eq!(harness.gateway.raw(request.as_bytes()).0, 200, "{name}");
    }
    let got: Vec<String> = harness.received().iter().filter_map(|request| request.labels.first().cloned()).collect();
    let sent = |id: &str| find(&shown, id)["commercial"]["us-east-1"]["sent"].as_str().unwrap().to_owned();
    assert_eq!(got, [sent(SONNET), sent(SONNET), sent(NOVA)]);

    // The tag holds between polls, and changes with the lists.
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(get(&harness, "/gateway/v1/models", &format!("if-none-match: {tag}\r\n")).0, 304);
    let few = "model_id,provider,mode,profile_prefixes_seen,on_demand\nacme.new-v1:0,acme,chat,us,no\n";
    harness.doubles[0].set_models(few).unwrap();
    eventually("the new model is shown", || {
        let (_, new, list) = get(&harness, "/gateway/v1/models", "");
        let shown = list["models"].as_array().unwrap();
        (new != tag && shown.len() == 1 && shown[0]["id"] == "acme.new-v1:0").then_some(())
    });
    harness.assert_no_violation();
}
