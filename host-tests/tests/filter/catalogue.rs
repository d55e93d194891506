//! Polls of what the regions offer: made once, signed as other calls are, and used by every call.

use crate::common::{attempt, call, configuration, judge, only, plugin, refusal, with_keys};
use proxy_wasm_vm::{Exchange, OutCall, Outcome, Plugin, Vm, headers};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const BODY: &str = r#"{"messages":[]}"#;

/// Two places of the gateway role, the relay and a signer in one VM.
pub(crate) struct Scene {
    pub vm: Vm,
    gateways: [Plugin; 2],
    relay: Plugin,
    pub signer: Plugin,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let vm = with_keys().cluster("polls").start().unwrap();
        let document = |role| {
            let mut document = configuration(role);
            document["catalogue"] = json!({"cluster": "polls", "refresh_seconds": 60});
            document["gateway_api"] = json!({});
            document
        };
        let gateways = [0, 1].map(|_| plugin(&vm, &document("gateway")));
        let signer = plugin(&vm, &document("signer"));
        let relay = vm.plugin("relay.http").allow_on_headers_stop_iteration(true).configure(r#"{"relay":"http"}"#);
        Self { relay: relay.unwrap(), vm, gateways, signer }
    }

    fn tick(&self) {
        self.gateways.iter().for_each(|gateway| gateway.tick().unwrap());
    }

    /// The calls that wait, as the relay sends them on: region, path.
    fn relayed(&self) -> Vec<(OutCall, String, String)> {
        let take = |call: OutCall| {
            assert_eq!(call.cluster, "polls");
            let exchange = self.relay.stream();
            assert_eq!(exchange.request_headers(call.headers.clone(), true), Outcome::Continue);
            let cluster = only(&exchange.request_map(), "x-bedrock-gateway-cluster");
            let region = cluster.strip_prefix("bedrock.any.only-").unwrap().to_owned();
            let signed = attempt(&self.signer, &exchange, &region);
            assert_eq!(signed.request_headers(exchange.request_map(), true), Outcome::Continue);
            judge(&signed, b"", &region, None).unwrap();
            let path = only(&signed.request_map(), ":path");
            (call, region, path)
        };
        self.vm.out_calls().into_iter().map(take).collect()
    }

    fn answer(&self, call: &OutCall, status: &str, body: &str) {
        self.vm.answer(call.token, headers([(":status", status)]), body.as_bytes()).unwrap();
    }

    /// A whole poll of both regions, which list these.
    pub(crate) fn poll(&self, models: &str, profiles: &str) {
        self.tick();
        for body in [models, profiles] {
            let calls = self.relayed();
            assert_eq!(calls.len(), 2, "{:?}", self.vm.logs());
            calls.iter().for_each(|(call, ..)| self.answer(call, "200", body));
        }
        assert!(self.vm.out_calls().is_empty());
    }

    /// A call of a model, at the second place of the gateway role.
    pub(crate) fn converse(&self, model: &str) -> Exchange {
        let exchange = self.gateways[1].stream();
        exchange.request_headers(call("POST", &format!("/model/{model}/converse"), &[]), false);
        exchange.request_body(BODY, true);
        exchange
    }

    /// The gateway's own list.
    fn shown(&self) -> Value {
        let exchange = self.gateways[1].stream();
        let outcome = exchange.request_headers(call("GET", "/gateway/v1/models", &[]), true);
        assert_eq!(outcome, Outcome::LocalReply);
        serde_json::from_slice(&exchange.local_reply().unwrap().body).unwrap()
    }

    /// The path with which a region is called.
    pub(crate) fn sent(&self, model: &str) -> String {
        let exchange = self.converse(model);
        let signed = attempt(&self.signer, &exchange, "us-east-1");
        signed.request_headers(exchange.request_map(), false);
        only(&signed.request_map(), ":path")
    }
}

pub(crate) fn models(models: &[(&str, &str)]) -> String {
    let summary = |(id, kind): &(&str, &str)| json!({"modelId": id, "inferenceTypesSupported": [kind]});
    json!({ "modelSummaries": models.iter().map(summary).collect::<Vec<_>>() }).to_string()
}

pub(crate) fn profiles(ids: &[&str]) -> String {
    let summary =
        |id: &&str| json!({"inferenceProfileId": id, "status": "ACTIVE", "type": "SYSTEM_DEFINED", "models": []});
    json!({ "inferenceProfileSummaries": ids.iter().map(summary).collect::<Vec<_>>() }).to_string()
}

#[test]
fn a_poll_is_made_once_and_used_by_all() {
    let scene = Scene::new();
    assert_eq!(scene.sent("a.new"), "/model/a.new/converse", "before the first poll");
    scene.tick();
    let first = scene.relayed();
    let asked: Vec<(&str, &str)> = first.iter().map(|(_, region, path)| (region.as_str(), path.as_str())).collect();
    assert_eq!(asked, [("us-east-1", "/foundation-models"), ("us-west-2", "/foundation-models")]);
    scene.tick();
    assert_eq!(scene.vm.out_calls().len(), 2, "no second poll");
    for (call, ..) in &first {
        scene.answer(call, "200", &models(&[("a.new", "INFERENCE_PROFILE"), ("a.bare", "ON_DEMAND")]));
    }
    let second = scene.relayed();
    assert!(second.iter().all(|(.., path)| path == "/inference-profiles?maxResults=1000&type=SYSTEM_DEFINED"));
    for (call, ..) in &second {
        scene.answer(call, "200", &profiles(&["us.a.new", "global.a.bare"]));
    }
    assert_eq!(scene.sent("a.new"), "/model/us.a.new/converse");
    assert_eq!(scene.sent("a.bare"), "/model/a.bare/converse");
    let (status, error, message) = refusal(&scene.converse("a.gone"));
    assert_eq!((status, error.as_str()), (404, "ResourceNotFoundException"));
    assert!(message.contains("'a.gone'") && message.contains("us-east-1, us-west-2"), "{message}");
    assert_eq!(scene.vm.metric("bedrock_catalogue_polls;region=us-west-2"), Some(1));

    let shown = scene.shown();
    let new = shown["models"].as_array().unwrap().iter().find(|model| model["id"] == "a.new").unwrap();
    let offered = json!({"sent": "us.a.new", "paths": ["dx", "vpn", "internet"]});
    assert_eq!(new["commercial"], json!({"us-east-1": offered, "us-west-2": offered}));

    // A minute later the model has gone.
    scene.vm.advance(Duration::from_secs(59));
    scene.tick();
    assert!(scene.vm.out_calls().is_empty());
    assert_eq!(scene.vm.metric("bedrock_catalogue_models;region=us-east-1"), Some(2));
    scene.vm.advance(Duration::from_secs(1));
    scene.poll(&models(&[("a.bare", "ON_DEMAND")]), &profiles(&[]));
    assert_eq!(refusal(&scene.converse("a.new")).0, 404);
    assert_eq!(scene.sent("a.bare"), "/model/a.bare/converse");
}

#[test]
fn a_failed_poll_keeps_the_last_lists() {
    let scene = Scene::new();
    scene.poll(&models(&[("a.b", "ON_DEMAND")]), &profiles(&[]));
    let huge = models(&[("c.d", "ON_DEMAND")]) + &" ".repeat(5 << 20);
    let lists = models(&[("c.d", "ON_DEMAND")]);
    for (status, body) in [("500", lists.as_str()), ("200", "<html>"), ("200", &lists[..20]), ("200", &huge)] {
        scene.vm.advance(Duration::from_secs(120));
        scene.tick();
        for (call, ..) in scene.relayed() {
            scene.answer(&call, status, body);
        }
        assert_eq!(scene.sent("a.b"), "/model/a.b/converse");
        assert_eq!(refusal(&scene.converse("c.d")).0, 404);
    }
    scene.vm.advance(Duration::from_secs(120));
    scene.tick();
    for (call, ..) in scene.relayed() {
        scene.vm.fail_call(call.token).unwrap();
    }
    assert_eq!(scene.vm.metric("bedrock_catalogue_failures;region=us-east-1"), Some(5));
    let (_, _, message) = refusal(&scene.converse("c.d"));
    assert!(message.contains("10 min old"), "{message}");
    let logs: Vec<String> = scene.vm.logs().into_iter().map(|line| line.text).collect();
    for problem in ["answered 500", "the answer is not a list", "the answer has 52", "no answer"] {
        let said = |line: &String| line.contains("us-west-2 were not read, the list of ") && line.contains(problem);
        assert!(logs.iter().any(said), "{problem}: {logs:?}");
    }
    // Its lists are read again as soon as they come.
    scene.vm.advance(Duration::from_secs(120));
    scene.poll(&lists, &profiles(&[]));
    assert_eq!(scene.sent("c.d"), "/model/c.d/converse");
}

#[test]
fn a_thread_without_the_relay_leaves_it() {
    let scene = Scene::new();
    scene.tick();
    // Envoy's main thread gets 503: no relay has taken the calls.
    for call in scene.vm.out_calls() {
        scene.answer(&call, "503", "no healthy upstream");
    }
    let left = scene.vm.logs().iter().filter(|line| line.text.contains("is left to another worker")).count();
    assert_eq!(left, 2);
    // In this VM no other polls, so it has failed after all.
    for _ in 0..50 {
        scene.vm.advance(Duration::from_secs(1));
        scene.tick();
        for call in scene.vm.out_calls() {
            scene.answer(&call, "503", "no healthy upstream");
        }
    }
    let failures = scene.vm.metric("bedrock_catalogue_failures;region=us-east-1").unwrap();
    assert!((2..12).contains(&failures), "{failures}");
    let logs = scene.vm.logs();
    assert!(logs.iter().any(|line| line.text.contains("does not reach the gateway's relay")), "{logs:?}");
    assert_eq!(scene.sent("a.new"), "/model/a.new/converse");
}

/// Lists as long as AWS's, of 2,000 models with two profiles each.
fn long_lists() -> (String, Vec<String>) {
    let ids: Vec<String> =
        (0..2000).map(|nth| format!("provider{}.some-model-{nth}-20261127-v1:0", nth % 20)).collect();
    let arn = |kind: &str, id: &str| format!("arn:aws:bedrock:us-east-1::{kind}/{id}");
    let model = |id: &String| {
        json!({
            "modelArn": arn("foundation-model", id), "modelId": id, "modelName": format!("Model {id}"), "providerName": "Provider",
            "inputModalities": ["TEXT", "IMAGE"], "outputModalities": ["TEXT"], "responseStreamingSupported": true,
            "customizationsSupported": [], "inferenceTypesSupported": ["INFERENCE_PROFILE"],
            "modelLifecycle": {"status": "ACTIVE", "startOfLifeTime": "2026-01-02T03:04:05Z"},
        })
    };
    let profile = |id: String| {
        let places = ["us-east-1", "us-east-2", "us-west-2"];
        let models: Vec<Value> = places.iter().map(|_| json!({"modelArn": arn("foundation-model", &id)})).collect();
        json!({
            "inferenceProfileName": format!("US {id}"), "description": format!("Routes requests to {id} in several regions."),
            "createdAt": "2026-01-02T03:04:05Z", "updatedAt": "2026-01-02T03:04:05Z", "models": models,
            "inferenceProfileArn": arn("inference-profile", &id), "inferenceProfileId": id, "status": "ACTIVE",
            "type": "SYSTEM_DEFINED",
        })
    };
    let all: Vec<Value> =
        ids.iter().flat_map(|id| ["us", "global"].map(|area| profile(format!("{area}.{id}")))).collect();
    let pages: Vec<&[Value]> = all.chunks(1000).collect();
    let page = |(nth, page): (usize, &&[Value])| {
        let mut list = json!({ "inferenceProfileSummaries": page });
        if nth + 1 < pages.len() {
            list["nextToken"] = json!(format!("page-{nth}"));
        }
        list.to_string()
    };
    let models = json!({ "modelSummaries": ids.iter().map(model).collect::<Vec<_>>() }).to_string();
    (models, pages.iter().enumerate().map(page).collect())
}

#[test]
fn two_thousand_models_fit_in_4_mb() {
    let (models, pages) = long_lists();
    let scene = Scene::new();
    // The first calls allocate what all need.
    scene.sent("a.b");
    let before = scene.vm.memory_pages();
    scene.tick();
    let (mut longest, mut whole) = (Duration::ZERO, Duration::ZERO);
    for body in std::iter::once(&models).chain(&pages) {
        for (call, region, _) in scene.relayed() {
            let start = Instant::now();
            scene.answer(&call, "200", body);
            longest = longest.max(start.elapsed());
            whole += if region == "us-east-1" { start.elapsed() } else { Duration::ZERO };
        }
    }
    let grown = (scene.vm.memory_pages() - before) * 64;
    assert_eq!(
        scene.sent("provider0.some-model-0-20261127-v1:0"),
        "/model/us.provider0.some-model-0-20261127-v1%3A0/converse"
    );
    println!(
        "{} bytes of models, {} pages of profiles: {whole:?}, at most {longest:?} at once",
        models.len(),
        pages.len()
    );
    println!("the VM grew by {grown} KiB for two regions");
    let start = Instant::now();
    let shown = scene.shown();
    let listed = shown["models"].as_array().unwrap();
    println!("all {} are shown in {:?}, in {} bytes", listed.len(), start.elapsed(), shown.to_string().len());
    assert!(listed.len() >= 2000 && shown["unlisted_regions"] == json!([]));
    let grown = (scene.vm.memory_pages() - before) * 64;
    println!("then it has grown by {grown} KiB");
    assert!(grown <= 4096, "{grown} KiB");
    // Another VM takes what was shared.
    let kept = scene.vm.shared_data("catalogue/us-east-1").unwrap();
    println!("{} bytes of shared data for a region", kept.len());
    let start = Instant::now();
    let third = plugin(&scene.vm, &{
        let mut document = configuration("gateway");
        document["catalogue"] = json!({"cluster": "polls"});
        document
    });
    println!("a new place of the module starts in {:?}, the read of both regions included", start.elapsed());
    third.tick().unwrap();
}
