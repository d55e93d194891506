//! What resources run: looked up once, signed as other calls are, and waited for.

use crate::common::{attempt, call, configuration, facts, judge, only, plugin, refusal, with_keys};
use proxy_wasm_vm::{Exchange, OutCall, Outcome, Plugin, Vm, headers};
use serde_json::{Value, json};
use std::time::Duration;

const PROFILE: &str = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6";
const BODY: &str = r#"{"messages":[]}"#;

/// Two places of the gateway role, the relay and a signer in one VM.
struct Scene {
    vm: Vm,
    gateways: [Plugin; 2],
    relay: Plugin,
    signer: Plugin,
}

impl Scene {
    fn new() -> Self {
        let vm = with_keys().cluster("polls").start().unwrap();
        let document = |role| {
            let mut document = configuration(role);
            document["resolve"] = json!({"cluster": "polls", "refresh_seconds": 60});
            document["models"] = json!({"deny": ["meta.*"]});
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

    /// A call of a resource, at one of the places of the gateway role, whose headers have come.
    fn begin(&self, place: usize, id: &str) -> Exchange {
        let exchange = self.gateways[place].stream();
        let path = format!("/model/{}/converse", id.replace(':', "%3A").replace('/', "%2F"));
        assert_eq!(exchange.request_headers(call("POST", &path, &[]), false), Outcome::Paused);
        exchange
    }

    /// The lookups that wait, as the relay sends them on: path.
    fn relayed(&self) -> Vec<(OutCall, String)> {
        let take = |call: OutCall| {
            assert_eq!(call.cluster, "polls");
            let exchange = self.relay.stream();
            assert_eq!(exchange.request_headers(call.headers.clone(), true), Outcome::Continue);
            assert_eq!(only(&exchange.request_map(), "x-bedrock-gateway-cluster"), "bedrock.any.only-us-east-1");
            let signed = attempt(&self.signer, &exchange, "us-east-1");
            assert_eq!(signed.request_headers(exchange.request_map(), true), Outcome::Continue);
            judge(&signed, b"", "us-east-1", None).unwrap();
            (call, only(&signed.request_map(), ":path"))
        };
        self.vm.out_calls().into_iter().map(take).collect()
    }

    fn answer(&self, status: &str, body: &Value) {
        for (call, _) in self.relayed() {
            self.vm.answer(call.token, headers([(":status", status)]), body.to_string().as_bytes()).unwrap();
        }
    }
}

fn runs(model: &str) -> Value {
    json!({"models": [{"modelArn": format!("arn:aws:bedrock:us-east-1::foundation-model/{model}")}]})
}

#[test]
fn calls_wait_for_one_lookup() {
    let scene = Scene::new();
    // At both places; the body comes in pieces, before and after the answer.
    let early = scene.begin(0, PROFILE);
    assert_eq!(early.request_body(BODY, true), Outcome::Paused);
    let late = scene.begin(1, PROFILE);
    assert_eq!(late.request_body(&BODY[..5], false), Outcome::Paused);
    assert!(scene.vm.out_calls().is_empty(), "a tick begins it");
    scene.tick();
    scene.tick();
    let relayed = scene.relayed();
    let paths: Vec<&str> = relayed.iter().map(|(_, path)| path.as_str()).collect();
    let wanted = format!("/inference-profiles/{}", PROFILE.replace(':', "%3A").replace('/', "%2F"));
    assert_eq!(paths, [wanted.as_str()]);
    scene
        .vm
        .answer(relayed[0].0.token, headers([(":status", "200")]), runs("amazon.nova-lite-v1:0").to_string().as_bytes())
        .unwrap();
    scene.tick();
    assert_eq!(early.request_outcome(), Outcome::Continue, "{:?}", scene.vm.logs());
    assert_eq!(late.request_outcome(), Outcome::Paused);
    assert_eq!(late.request_body(&BODY[5..], true), Outcome::Continue);
    for exchange in [&early, &late] {
        let signed = attempt(&scene.signer, exchange, "us-east-1");
        signed.request_headers(exchange.request_map(), false);
        judge(&signed, BODY.as_bytes(), "us-east-1", None).unwrap();
        let map = signed.request_map();
        assert!(only(&map, ":path").contains("application-inference-profile"));
        assert_eq!(facts(exchange)["resolved_models"], json!("amazon.nova-lite-v1:0"));
    }
    assert_eq!(scene.vm.metric("bedrock_lookups;type=resolved"), Some(1));
    // The next does not wait.
    let next = scene.begin(1, PROFILE);
    assert_eq!(next.request_body(BODY, true), Outcome::Continue);
}

#[test]
fn refuses_by_what_runs() {
    let scene = Scene::new();
    let exchange = scene.begin(0, PROFILE);
    exchange.request_body(BODY, true);
    scene.tick();
    scene.answer("200", &runs("meta.llama4"));
    scene.tick();
    let (status, error, message) = refusal(&exchange);
    assert_eq!((status, error.as_str()), (403, "AccessDeniedException"));
    assert!(message.contains("'meta.llama4', which 'arn:aws:"), "{message}");
}

#[test]
fn refuses_when_a_lookup_fails_or_hangs() {
    let scene = Scene::new();
    let exchange = scene.begin(0, PROFILE);
    exchange.request_body(BODY, true);
    scene.tick();
    scene.answer("500", &json!({}));
    scene.tick();
    let (status, error, message) = refusal(&exchange);
    assert_eq!((status, error.as_str()), (503, "ServiceUnavailableException"));
    assert!(message.contains("GetInferenceProfile answered 500"), "{message}");
    assert_eq!(scene.vm.metric("bedrock_lookups;type=failed"), Some(1));
    // No relay takes it: this thread does not reach it.
    scene.vm.advance(Duration::from_secs(2));
    let exchange = scene.begin(0, PROFILE);
    exchange.request_body(BODY, true);
    scene.tick();
    let calls = scene.vm.out_calls();
    scene.vm.answer(calls[0].token, headers([(":status", "503")]), b"no healthy upstream").unwrap();
    scene.tick();
    assert!(refusal(&exchange).2.contains("`resolve.cluster`"));
    // Nobody answers, and the call does not wait for longer than five seconds.
    scene.vm.advance(Duration::from_secs(3));
    let exchange = scene.begin(1, PROFILE);
    exchange.request_body(BODY, true);
    scene.tick();
    scene.vm.advance(Duration::from_secs(5));
    scene.tick();
    let (status, _, message) = refusal(&exchange);
    assert!(status == 503 && message.contains("in time"), "{message}");
}

#[test]
fn a_client_that_leaves_wakes_nobody() {
    let scene = Scene::new();
    let exchange = scene.begin(0, PROFILE);
    scene.tick();
    exchange.done();
    drop(exchange);
    scene.answer("200", &runs("amazon.nova-lite-v1:0"));
    scene.tick();
    let next = scene.begin(0, PROFILE);
    assert_eq!(next.request_body(BODY, true), Outcome::Continue);
}

#[test]
fn random_ids_stay_bounded() {
    let scene = Scene::new();
    let mut calls = 0;
    for round in 0..30 {
        for nth in 0..100 {
            let exchange = scene.gateways[0].stream();
            exchange.request_headers(call("POST", &format!("/model/random-{round}-{nth}/converse"), &[]), true);
            exchange.done();
        }
        scene.tick();
        for (call, _) in scene.relayed() {
            calls += 1;
            scene.vm.answer(call.token, headers([(":status", "404")]), b"{}").unwrap();
        }
        scene.vm.advance(Duration::from_millis(100));
    }
    // Twenty at once, and ten a second.
    assert!((20..=60).contains(&calls), "{calls}");
}
