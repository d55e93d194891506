//! Data retention in the built module: one poll for all, calls that stay in regions of a mode, and no secret way around.

use crate::common::{attempt, call, configuration, judge, only, plugin, refusal, with_keys};
use proxy_wasm_vm::{Exchange, OutCall, Outcome, Plugin, Vm, headers};
use serde_json::{Value, json};
use std::time::Duration;

/// Two places of the gateway role, the relay and a signer in one VM.
struct Scene {
    vm: Vm,
    gateways: [Plugin; 2],
    relay: Plugin,
    signer: Plugin,
}

impl Scene {
    fn new(retention: &str) -> Self {
        let vm = with_keys().cluster("polls").start().unwrap();
        let document = |role| {
            let mut document = configuration(role);
            let projects = json!({"us-east-1": ["proj_a"]});
            document["data_retention"] = json!({"cluster": "polls", "refresh_seconds": 60, "projects": projects});
            document["route_classes"][1]["retention"] = json!(retention);
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
            let exchange = self.relay.stream();
            assert_eq!(exchange.request_headers(call.headers.clone(), true), Outcome::Continue);
            let cluster = only(&exchange.request_map(), "x-bedrock-gateway-cluster");
            let region = cluster.strip_prefix("bedrock.any.only-").unwrap().to_owned();
            let signed = attempt(&self.signer, &exchange, &region);
            // The signer makes the polls of what it does not know yet.
            assert_eq!(signed.request_headers(exchange.request_map(), true), Outcome::Continue);
            judge(&signed, b"", &region, None).unwrap();
            let path = only(&signed.request_map(), ":path");
            (call, region, path)
        };
        self.vm.out_calls().into_iter().map(take).collect()
    }

    /// Answers every call that waits, until none does. Returns the paths.
    fn poll(&self, modes: &[(&str, &str)]) -> Vec<String> {
        self.tick();
        let mut paths = Vec::new();
        loop {
            let calls = self.relayed();
            if calls.is_empty() {
                return paths;
            }
            for (call, region, path) in calls {
                let mode = modes.iter().find(|(name, _)| *name == region).map(|(_, mode)| *mode);
                let (status, body) = match (mode, path.strip_prefix("/projects/")) {
                    (None, _) => ("500", json!({})),
                    (Some(mode), None) => ("200", json!({"mode": mode})),
                    (Some(_), Some(id)) => ("200", json!({"id": id, "dataRetention": {"mode": "inherit"}})),
                };
                paths.push(format!("{region} {path}"));
                self.vm.answer(call.token, headers([(":status", status)]), body.to_string().as_bytes()).unwrap();
            }
        }
    }

    /// A call at the second place of the gateway role.
    fn converse(&self, body: &Value) -> Exchange {
        let exchange = self.gateways[1].stream();
        exchange.request_headers(call("POST", "/model/a.b/converse", &[]), false);
        exchange.request_body(body.to_string(), true);
        exchange
    }

    fn cluster(&self) -> String {
        only(&self.converse(&json!({"messages": []})).request_map(), "x-bedrock-gateway-cluster")
    }

    /// Whether the signer sends a call of the gateway to a region.
    fn sends(&self, exchange: &Exchange, region: &str) -> bool {
        let signed = attempt(&self.signer, exchange, region);
        signed.request_headers(exchange.request_map(), false);
        signed.local_reply().is_none()
    }
}

#[test]
fn modes_are_read_once_and_kept_by_all() {
    let scene = Scene::new("none");
    let (status, _, message) = refusal(&scene.converse(&json!({"messages": []})));
    assert!(status == 503 && message.contains("in us-east-1 not read yet"), "{message}");
    let paths = scene.poll(&[("us-east-1", "none"), ("us-west-2", "provider_data_share")]);
    let wanted = [
        "us-east-1 /data-retention",
        "us-west-2 /data-retention",
        "us-east-1 /projects/default",
        "us-west-2 /projects/default",
        "us-east-1 /projects/proj_a",
    ];
    assert_eq!(paths, wanted);
    assert_eq!(scene.cluster(), "bedrock-runtime.any.only-us-east-1");
    let series = |region: &str, mode: &str| {
        scene.vm.metric(&format!("bedrock_retention_mode;source=default;region={region};type={mode}"))
    };
    scene.vm.advance(Duration::from_secs(2));
    scene.tick();
    assert_eq!((series("us-east-1", "none"), series("us-west-2", "none")), (Some(1), Some(0)));
    assert_eq!(series("us-west-2", "provider_data_share"), Some(1));
    // A project that the call names has its account's mode; one that is not listed has none that is known.
    let named = scene.converse(&json!({"messages": [], "projectIdentifier": "proj_a"}));
    assert_eq!(only(&named.request_map(), "x-bedrock-gateway-cluster"), "bedrock-runtime.any.only-us-east-1");
    let (status, _, message) = refusal(&scene.converse(&json!({"messages": [], "projectIdentifier": "proj_b"})));
    assert!(status == 403 && message.contains("proj_b"), "{message}");
}

#[test]
fn refuses_a_region_that_changes_meanwhile() {
    let scene = Scene::new("same");
    scene.poll(&[("us-east-1", "none"), ("us-west-2", "none")]);
    let exchange = scene.converse(&json!({"messages": []}));
    assert_eq!(only(&exchange.request_map(), "x-bedrock-gateway-cluster"), "bedrock-runtime.any.us-east-1");
    assert!(scene.sends(&exchange, "us-west-2"));
    scene.vm.advance(Duration::from_secs(60));
    scene.poll(&[("us-east-1", "none"), ("us-west-2", "aws_review")]);
    assert!(!scene.sends(&exchange, "us-west-2") && scene.sends(&exchange, "us-east-1"));
    assert_eq!(scene.cluster(), "bedrock-runtime.any.only-us-east-1");
}

#[test]
fn refuses_modes_that_were_not_read_for_long() {
    let scene = Scene::new("none");
    scene.poll(&[("us-east-1", "none"), ("us-west-2", "none")]);
    assert_eq!(scene.cluster(), "bedrock-runtime.any.us-east-1");
    // Five minutes, of which the second region is read all along.
    for _ in 0..20 {
        scene.vm.advance(Duration::from_secs(20));
        scene.poll(&[("us-west-2", "none")]);
    }
    assert_eq!(scene.cluster(), "bedrock-runtime.any.only-us-west-2");
    let failures = scene.vm.metric("bedrock_retention_failures;source=default;region=us-east-1").unwrap();
    assert!((4..=20).contains(&failures), "{failures}");
    let logs: Vec<String> = scene.vm.logs().into_iter().map(|line| line.text).collect();
    let said = |line: &String| line.contains("the data retention modes of us-east-1") && line.contains("answered 500");
    assert!(logs.iter().any(said), "{logs:?}");
}
