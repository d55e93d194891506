//! A configuration, calls, and the check of signatures.

use std::time::{Duration, UNIX_EPOCH};

use bedrock_double::sigv4::{AccessKey, Expected, Refusal, WireRequest, verify};
use proxy_wasm_vm::{Exchange, Header, LocalReply, Plugin, Vm, VmBuilder, values};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) const MODEL: &str = "anthropic.claude-3-5-sonnet-20241022-v2:0";
pub(crate) const PROFILE_ARN: &str = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc";
pub(crate) const KEY_ID: &str = "AKIDEXAMPLE";
pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(crate) const REQUEST_ID: &str = "0b4e4b0a-1111-4222-8333-444455556666";
pub(crate) const HANDOFF: &str = "wasm.bedrock.handoff";

/// The configuration that both roles get; `role` is the only difference.
pub(crate) fn configuration(role: &str) -> Value {
    // Role `combined` signs for one region.
    let regions = if role == "combined" { json!(["us-east-1"]) } else { json!(["us-east-1", "us-west-2"]) };
    json!({
        "role": role,
        "regions": {
            "us-east-1": {"inference_profiles": {"amazon.nova-pro-v1:0": "us.amazon.nova-pro-v1:0"}},
            "us-west-2": {"inference_profiles": {"amazon.nova-pro-v1:0": PROFILE_ARN}},
        },
        "region": "us-east-1",
        "inference_profiles": {MODEL: format!("us.{MODEL}")},
        "aliases": {"sonnet": MODEL},
        "models": {"deny": ["global.*"]},
        "principal": [{"from": "mtls"}, {"from": "jwt", "payload": "jwt_payload", "claim": "sub"}],
        "route_classes": [
            {"name": "private-only", "principals": ["spiffe://mission.example/secret/*"], "paths": ["dx", "vpn"], "regions": ["us-east-1"]},
            {"name": "any", "paths": ["dx", "vpn", "internet"], "regions": regions}
        ]
    })
}

/// The built filter, at the time of AWS's published signing examples (2015-08-30T12:36:00Z).
pub(crate) fn filter() -> VmBuilder {
    Vm::load(host_tests::module()).clock(UNIX_EPOCH + Duration::from_secs(1_440_938_160))
}

/// The filter with documented example keys in its environment.
pub(crate) fn with_keys() -> VmBuilder {
    filter().env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET)
}

pub(crate) fn plugin(vm: &Vm, configuration: &Value) -> Plugin {
    let role = configuration["role"].as_str().unwrap();
    vm.plugin(role).allow_on_headers_stop_iteration(true).configure(configuration.to_string()).unwrap()
}

/// Gateway and signer in one VM, as in Envoy.
pub(crate) fn both_roles() -> (Plugin, Plugin) {
    let vm = with_keys().start().unwrap();
    (plugin(&vm, &configuration("gateway")), plugin(&vm, &configuration("signer")))
}

/// A gateway alone.
pub(crate) fn gateway() -> Plugin {
    plugin(&with_keys().start().unwrap(), &configuration("gateway"))
}

/// The header map of a call, followed by `extra` headers.
pub(crate) fn call(method: &str, path: &str, extra: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = [
        (":authority", "127.0.0.1:10000"),
        (":method", method),
        (":path", path),
        (":scheme", "http"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", REQUEST_ID),
        ("content-type", "application/json"),
    ];
    own.iter().chain(extra).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn converse(extra: &[(&str, &str)]) -> Vec<(String, String)> {
    call("POST", &format!("/model/{MODEL}/converse"), extra)
}

/// A call whose body is the model's own.
pub(crate) fn invoke(extra: &[(&str, &str)]) -> Vec<(String, String)> {
    call("POST", &format!("/model/{MODEL}/invoke"), extra)
}

/// An attempt of an exchange at an endpoint in a region, over Direct Connect.
pub(crate) fn attempt(signer: &Plugin, exchange: &Exchange, region: &str) -> Exchange {
    attempt_over(signer, exchange, "dx", region)
}

/// An attempt of an exchange at an endpoint.
pub(crate) fn attempt_over(signer: &Plugin, exchange: &Exchange, path: &str, region: &str) -> Exchange {
    let label = |name| ["xds", "upstream_host_metadata", "filter_metadata", "bedrock", name];
    signer.attempt(exchange).property(&label("path"), path).property(&label("region"), region)
}

pub(crate) fn reply(exchange: &Exchange) -> LocalReply {
    exchange.local_reply().unwrap_or_else(|| panic!("no local reply, logs: {:?}", exchange.vm().logs()))
}

/// Status, error type and message of a reply, checked to have Bedrock's form.
pub(crate) fn refusal(exchange: &Exchange) -> (u32, String, String) {
    let reply = reply(exchange);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    assert_eq!(values(&reply.headers, "content-type"), ["application/json"]);
    let error = values(&reply.headers, "x-amzn-errortype").join(",");
    (reply.status, error, body["message"].as_str().unwrap().to_owned())
}

/// The exchange facts that the filter leaves for the access log.
pub(crate) fn facts(exchange: &Exchange) -> Value {
    exchange.done();
    serde_json::from_slice(&exchange.filter_state("wasm.bedrock.exchange").unwrap()).unwrap()
}

pub(crate) fn only(map: &[Header], name: &str) -> String {
    let mut found = values(map, name);
    assert_eq!(found.len(), 1, "{name} in {map:?}");
    found.remove(0)
}

pub(crate) fn sha256(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

/// Verifies the signature of a request at the VM's time.
pub(crate) fn judge(exchange: &Exchange, body: &[u8], region: &str, token: Option<&str>) -> Result<(), Refusal> {
    let map = exchange.request_map();
    let (method, path) = (only(&map, ":method"), only(&map, ":path"));
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    let sent =
        map.iter().filter(|(name, _)| !name.starts_with(':')).map(|(name, value)| (name.clone(), value.to_vec()));
    let host = ("host".to_owned(), only(&map, ":authority").into_bytes());
    let headers: Vec<(String, Vec<u8>)> = sent.chain([host]).collect();
    let request = WireRequest { method: &method, path, query, headers: &headers, body_sha256: &sha256(body) };
    let key = AccessKey { id: KEY_ID.to_owned(), secret: SECRET.to_owned(), session_token: token.map(str::to_owned) };
    verify(&request, &key, &Expected { region, service: "bedrock", now: exchange.vm().clock().into() })
}
