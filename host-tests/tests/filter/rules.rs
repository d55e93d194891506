//! Rules and groups in the built module.

use crate::common::{configuration, converse, facts, filter, plugin, refusal, with_keys};
use proxy_wasm_vm::{Outcome, Status};
use serde_json::{Value, json};

/// A field of a protobuf message: its number, and its content of less than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

fn text(text: &str) -> Vec<u8> {
    field(3, text.as_bytes())
}

fn list(values: &[&str]) -> Vec<u8> {
    field(6, &values.iter().flat_map(|value| field(1, &text(value))).collect::<Vec<_>>())
}

/// Envoy's metadata of a call whose token has these groups, a `google.protobuf.Value`.
fn token(groups: &[u8]) -> Vec<u8> {
    let entry = |key: &str, value: &[u8]| field(1, &[field(1, key.as_bytes()), field(2, value)].concat());
    let payload = field(5, &entry("groups", groups));
    entry("envoy.filters.http.jwt_authn", &entry("jwt", &payload))
}

fn document() -> Value {
    let mut document = configuration("gateway");
    document["principal"] = json!([{"from": "mtls"}]);
    document["groups"] = json!([{"from": "jwt", "payload": "jwt", "claim": "groups"}]);
    document["rules"] = json!([
        {"id": "staff", "effect": "allow", "groups": ["staff"], "until": "2015-08-30T12:36:10Z"},
        {"id": "no-eve", "effect": "deny", "principals": ["spiffe://mission.example/eve"]},
    ]);
    document
}

#[test]
fn groups_and_names_give_rights() {
    let vm = with_keys().start().unwrap();
    let gateway = plugin(&vm, &document());
    let (metadata, mtls) = (&["metadata"], &["connection", "uri_san_peer_certificate"]);
    let call = |groups: Vec<u8>, name: &str| {
        let exchange = gateway.stream().property(metadata, token(&groups)).property(mtls, name);
        let outcome = exchange.request_headers(converse(&[]), false);
        (exchange, outcome)
    };
    let (staff, outcome) = call(list(&["other", "staff"]), "spiffe://mission.example/bob");
    assert_eq!((outcome, staff.request_body("{}", true)), (Outcome::Paused, Outcome::Continue));
    let record = facts(&staff);
    assert_eq!((&record["rule"], &record["rule_decision"]), (&json!("staff"), &json!("allowed")));

    for (groups, name, message, rule) in [
        (list(&["other"]), "spiffe://mission.example/bob", "no rule of the gateway allows", Value::Null),
        (list(&["staff"]), "spiffe://mission.example/eve", "rule 'no-eve' denies this call", json!("no-eve")),
    ] {
        let (exchange, outcome) = call(groups, name);
        assert_eq!(outcome, Outcome::LocalReply);
        let (status, error, text) = refusal(&exchange);
        assert!((status, error.as_str()) == (403, "AccessDeniedException") && text.contains(message), "{text}");
        let record = facts(&exchange);
        assert_eq!((&record["rule"], &record["rule_decision"]), (&rule, &json!("denied")));
    }
    assert_eq!(vm.metric("bedrock_rule_refusals;type=denied;rule=no-eve"), Some(1));
    assert_eq!(vm.metric("bedrock_rule_refusals;type=denied;rule=none"), Some(1));

    // The rule is over.
    vm.advance(std::time::Duration::from_secs(10));
    let (late, outcome) = call(text("staff"), "spiffe://mission.example/bob");
    assert_eq!(outcome, Outcome::LocalReply, "{:?}", refusal(&late));
}

#[test]
fn refuses_groups_that_are_not_text() {
    let gateway = plugin(&filter().start().unwrap(), &document());
    let number = [&[0x11], b"operator".as_slice()].concat();
    for (exchange, message) in [
        (
            gateway.stream().property(&["metadata"], token(&number)),
            "the claim 'groups' of the caller's token is a number",
        ),
        (gateway.stream().property_status(&["metadata"], Status::SerializationFailure), "metadata"),
    ] {
        assert_eq!(exchange.request_headers(converse(&[]), false), Outcome::LocalReply);
        let (status, error, text) = refusal(&exchange);
        assert!((status, error.as_str()) == (403, "AccessDeniedException") && text.contains(message), "{text}");
    }
}
