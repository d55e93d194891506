//! Both roles in one, for one region.

use crate::common::{MODEL, configuration, converse, facts, judge, only, plugin, with_keys};
use proxy_wasm_vm::Outcome;
use serde_json::{Value, json};

#[test]
fn signs_in_the_downstream_chain() {
    let combined = plugin(&with_keys().start().unwrap(), &configuration("combined"));
    let exchange = combined.stream();
    assert_eq!(exchange.request_headers(converse(&[("authorization", "clients-own")]), false), Outcome::Paused);
    assert_eq!(exchange.request_body("{\"a\":", false), Outcome::Paused);
    assert_eq!(exchange.request_body("1}", true), Outcome::Continue);
    let map = exchange.request_map();
    assert_eq!(only(&map, ":authority"), "bedrock-runtime.us-east-1.amazonaws.com");
    assert_eq!(only(&map, "x-bedrock-gateway-cluster"), "bedrock-runtime.any");
    judge(&exchange, b"{\"a\":1}", "us-east-1", None).unwrap();
    let attempt: Value = serde_json::from_slice(&exchange.filter_state("wasm.bedrock.attempt").unwrap()).unwrap();
    let wanted = json!({"model": format!("us.{MODEL}"), "region": "us-east-1", "access_key_id": "AKIDEXAMPLE"});
    assert_eq!(attempt, wanted);
    assert_eq!(facts(&exchange)["operation"], "Converse");
}

#[test]
fn needs_to_know_its_region() {
    let mut document = configuration("combined");
    document.as_object_mut().unwrap().remove("region");
    let vm = with_keys().start().unwrap();
    let Err(refused) = vm.plugin("combined").configure(document.to_string()) else { panic!("accepted") };
    assert!(refused.log[0].contains("`region`"), "{refused}");
    document["regions"] = json!({"us-west-2": {}});
    document["route_classes"] = json!([{"name": "any", "paths": ["dx"]}]);
    let exchange = plugin(&vm, &document).stream();
    exchange.request_headers(converse(&[]), false);
    exchange.request_body("{}", true);
    judge(&exchange, b"{}", "us-west-2", None).unwrap();
}
