//! Credentials that the module fetches: one fetch for all, calls that wait, and what is never sent.

use crate::common::{attempt, call, configuration, converse, filter, judge, only, plugin, refusal};
use proxy_wasm_vm::{Exchange, Outcome, Plugin, Vm, headers};
use serde_json::{Value, json};
use std::time::Duration;

const BODY: &str = r#"{"messages":[]}"#;

/// Gateways and a signer in one VM, as Envoy has them, with the metadata service as source.
fn fetching() -> (Vm, Vec<Plugin>, Plugin) {
    let vm = filter().cluster("imds").start().unwrap();
    let document = |role| {
        let mut document = configuration(role);
        document["credentials"] = json!({"source": "imds", "cluster": "imds", "role": "r"});
        document
    };
    let gateways = (0..3).map(|_| plugin(&vm, &document("gateway"))).collect();
    let signer = plugin(&vm, &document("signer"));
    (vm, gateways, signer)
}

/// What the metadata service says of keys that live so long.
fn keys(vm: &Vm, id: &str, seconds: u64) -> Value {
    let expires = time::OffsetDateTime::from(vm.clock()) + Duration::from_secs(seconds);
    let expires = expires.format(&time::format_description::well_known::Rfc3339).unwrap();
    json!({"Code": "Success", "AccessKeyId": id, "SecretAccessKey": crate::common::SECRET, "Token": "t", "Expiration": expires})
}

fn ticks(plugins: &[Plugin]) {
    for plugin in plugins {
        plugin.tick().unwrap();
    }
}

/// Answers the one call that is open; its path.
fn answer(vm: &Vm, status: &str, body: &str) -> String {
    let open = vm.out_calls();
    assert_eq!(open.len(), 1, "{open:?} {:?}", vm.logs());
    vm.answer(open[0].token, headers([(":status", status)]), body.as_bytes()).unwrap();
    only(&open[0].headers, ":path")
}

/// A whole fetch.
fn fetch(vm: &Vm, gateways: &[Plugin], id: &str, seconds: u64) {
    ticks(gateways);
    assert_eq!(answer(vm, "200", "session"), "/latest/api/token");
    let keys = keys(vm, id, seconds).to_string();
    assert_eq!(answer(vm, "200", &keys), "/latest/meta-data/iam/security-credentials/r");
    assert!(vm.out_calls().is_empty());
}

fn started(gateway: &Plugin) -> Exchange {
    let exchange = gateway.stream();
    assert_eq!(exchange.request_headers(converse(&[]), false), Outcome::Paused);
    exchange
}

#[test]
fn calls_wait_for_the_first_shared_credentials() {
    let (vm, gateways, signer) = fetching();
    let waiting: Vec<Exchange> = gateways.iter().map(started).collect();
    for exchange in &waiting {
        assert_eq!(exchange.request_body(BODY, true), Outcome::Paused);
    }
    fetch(&vm, &gateways, "AKIDEXAMPLE", 3600);
    ticks(&gateways);
    for exchange in &waiting {
        assert_eq!(exchange.request_outcome(), Outcome::Continue);
        assert_eq!(exchange.forwarded_request().body, BODY);
        let attempt = attempt(&signer, exchange, "us-east-1");
        assert_eq!(attempt.request_headers(exchange.request_map(), false), Outcome::Continue);
        judge(&attempt, BODY.as_bytes(), "us-east-1", Some("t")).unwrap();
    }
    assert_eq!(vm.metric("bedrock_credentials_refreshes;source=default"), Some(1));
    let left = vm.metric("bedrock_credentials_seconds_left;source=default").unwrap();
    assert!((3590..=3600).contains(&left), "{left}");
}

#[test]
fn refuses_while_a_failed_source_is_retried() {
    let (vm, gateways, _) = fetching();
    let exchange = started(&gateways[0]);
    exchange.request_body(BODY, true);
    ticks(&gateways);
    vm.fail_call(vm.out_calls()[0].token).unwrap();
    ticks(&gateways);
    assert!(vm.out_calls().is_empty(), "it is not retried at once");
    vm.advance(Duration::from_millis(500));
    ticks(&gateways);
    answer(&vm, "500", "no");
    vm.advance(Duration::from_millis(1500));
    ticks(&gateways);
    let (status, error, text) = refusal(&exchange);
    assert_eq!((status, error.as_str()), (503, "ServiceUnavailableException"));
    assert!(text.contains("still waiting for its first credentials"), "{text}");
    let logs: Vec<String> = vm.logs().into_iter().map(|line| line.text).collect();
    let logged = |what: &str| logs.iter().any(|line| line.contains(what));
    assert!(logged("credentials `default` not fetched: IMDSv2 token: no answer from cluster 'imds'"), "{logs:?}");
    assert!(logged("IMDSv2 token: answered 500"), "{logs:?}");
    assert_eq!(vm.metric("bedrock_credentials_failures;source=default"), Some(2));
}

#[test]
fn keys_are_renewed_early_and_used_to_expiry() {
    let (vm, gateways, signer) = fetching();
    fetch(&vm, &gateways, "AKIDFIRST", 60);
    let signed_by = |gateway: &Plugin| {
        let exchange = started(gateway);
        if exchange.request_body(BODY, true) == Outcome::LocalReply {
            return refusal(&exchange).2;
        }
        let attempt = attempt(&signer, &exchange, "us-east-1");
        attempt.request_headers(exchange.request_map(), false);
        only(&attempt.request_map(), "authorization").split(['=', '/']).nth(1).unwrap().to_owned()
    };
    vm.advance(Duration::from_secs(20));
    ticks(&gateways);
    assert!(vm.out_calls().is_empty());
    vm.advance(Duration::from_secs(17));
    ticks(&gateways);
    assert_eq!(signed_by(&gateways[1]), "AKIDFIRST", "the old ones serve while new ones are fetched");
    answer(&vm, "200", "session");
    let second = keys(&vm, "AKIDSECOND", 60).to_string();
    answer(&vm, "200", &second);
    assert_eq!(signed_by(&gateways[2]), "AKIDSECOND");
    // No new ones come: the old serve until their end, then nothing is sent.
    vm.advance(Duration::from_secs(50));
    assert_eq!(signed_by(&gateways[0]), "AKIDSECOND");
    vm.advance(Duration::from_secs(10));
    let exchange = gateways[0].stream();
    assert_eq!(exchange.request_headers(converse(&[]), false), Outcome::LocalReply);
    assert!(refusal(&exchange).2.contains("have expired"));
}

#[test]
fn a_refused_key_is_replaced_before_a_retry() {
    let (vm, gateways, signer) = fetching();
    fetch(&vm, &gateways, "AKIDFIRST", 3600);
    let exchange = started(&gateways[0]);
    exchange.request_body(BODY, true);
    let first = attempt(&signer, &exchange, "us-east-1");
    first.request_headers(exchange.request_map(), false);
    first.response_headers([(":status", "403"), ("x-amzn-errortype", "UnrecognizedClientException")], true);
    assert_eq!(only(&first.response_map(), "x-bedrock-gateway-retry"), "1");

    let second = attempt(&signer, &exchange, "us-east-1");
    assert_eq!(second.request_headers(first.request_map(), false), Outcome::Paused);
    assert_eq!(second.request_body(BODY, true), Outcome::Paused, "no body goes before the signature");
    fetch(&vm, &gateways, "AKIDSECOND", 3600);
    signer.tick().unwrap();
    assert_eq!(second.request_outcome(), Outcome::Continue);
    assert!(only(&second.request_map(), "authorization").contains("AKIDSECOND/"));
    judge(&second, BODY.as_bytes(), "us-east-1", Some("t")).unwrap_err();
    second.response_headers([(":status", "403"), ("x-amzn-errortype", "UnrecognizedClientException")], true);
    assert!(proxy_wasm_vm::values(&second.response_map(), "x-bedrock-gateway-retry").is_empty(), "once");
}

#[test]
fn forgets_a_waiting_client_that_leaves() {
    let (vm, gateways, _) = fetching();
    for _ in 0..3 {
        let exchange = started(&gateways[0]);
        exchange.request_body(BODY, true);
        exchange.done();
    }
    fetch(&vm, &gateways, "AKIDEXAMPLE", 3600);
    ticks(&gateways);
    let list = gateways[0].stream();
    assert_eq!(list.request_headers(call("GET", "/foundation-models", &[]), true), Outcome::Continue);
}

#[test]
fn no_answer_of_a_source_is_ever_logged() {
    let (vm, gateways, _) = fetching();
    ticks(&gateways);
    answer(&vm, "200", "secret-session");
    answer(&vm, "200", r#"{"AccessKeyId":"AKIDX","SecretAccessKey":"hush-hush"#);
    fetch_after(&vm, &gateways);
    for line in vm.logs() {
        assert!(!line.text.contains("hush") && !line.text.contains("secret-session"), "{}", line.text);
    }
}

fn fetch_after(vm: &Vm, gateways: &[Plugin]) {
    vm.advance(Duration::from_secs(1));
    fetch(vm, gateways, "AKIDEXAMPLE", 3600);
}
