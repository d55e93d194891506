//! The signature vectors: `explain` reproduces each, stage by stage.

use base64::Engine;
use bedrock_gateway::explain::mask::MASK;
use bedrock_gateway::explain::signature::{SentRequest, Signature, Signer, signature};
use bedrock_gateway::explain::{AmzDate, Explain};
use filter_core::credentials::{Keys, Secret};
use serde_json::{Value, json};

use super::Dir;

pub(crate) fn vectors() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../host-tests/vectors/sigv4.json");
    let vectors: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(vectors.len(), 20);
    vectors
}

pub(crate) fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap()
}

fn wire_path(vector: &Value) -> String {
    match text(vector, "wire_query") {
        "" => text(vector, "wire_path").to_owned(),
        query => format!("{}?{query}", text(vector, "wire_path")),
    }
}

/// What `explain` makes of a vector's wire request.
pub(crate) fn signed(vector: &Value) -> Signature {
    let headers = vector["headers_sent"].as_array().unwrap().iter();
    let headers = headers.map(|pair| (pair[0].as_str().unwrap().to_lowercase(), pair[1].as_str().unwrap().to_owned()));
    let sent = SentRequest {
        method: text(vector, "method").to_owned(),
        host: text(vector, "host").to_owned(),
        path: wire_path(vector),
        headers: headers.collect(),
    };
    let keys = Keys::new(
        text(vector, "access_key"),
        Secret::new(text(vector, "secret_key")),
        vector["session_token"].as_str().map(Secret::new),
    );
    let AmzDate(now): AmzDate = text(vector, "amz_date").parse().unwrap();
    let signer = Signer { keys: &keys, region: text(vector, "region"), service: text(vector, "signing_name"), now };
    signature(&sent, text(vector, "body_sha256"), &signer).unwrap()
}

#[test]
fn reproduces_every_vector_stage_by_stage() {
    for vector in vectors() {
        let made = signed(&vector);
        assert_eq!(made.canonical_request, text(&vector, "canonical_request"), "{}", vector["name"]);
        assert_eq!(made.string_to_sign, text(&vector, "string_to_sign"), "{}", vector["name"]);
        assert_eq!(made.signature, text(&vector, "signature"), "{}", vector["name"]);
    }
}

/// A document by which the gateway sends a vector's request to the vector's host, as the client named it.
fn policy_for(vector: &Value) -> Value {
    let host = text(vector, "host");
    let vpce = host.starts_with("vpce-");
    let hosts = if vpce { json!({ "dx": { "bedrock-runtime": host } }) } else { json!({}) };
    json!({
        "role": "gateway",
        "auth": "sigv4",
        "fips": host.contains("-fips."),
        "regions": { (text(vector, "region")): { "hosts": hosts } },
        "route_classes": [{ "name": "any", "paths": ["dx", "internet"] }],
    })
}

fn body(vector: &Value) -> Vec<u8> {
    if vector["body_len"] == 1 << 20 {
        // The one that is too long for the file; its note says how it is made.
        return [&b"{\"inputText\":\""[..], &vec![b'a'; (1 << 20) - 16], b"\"}"].concat();
    }
    base64::engine::general_purpose::STANDARD.decode(vector["body_b64"].as_str().unwrap_or_default()).unwrap()
}

#[test]
fn signs_bedrocks_vectors_from_request_files() {
    let dir = Dir::new("vectors");
    let mut reproduced = 0;
    for vector in vectors() {
        // The gateway does not sign `accept`, and calls Bedrock alone.
        if text(&vector, "signing_name") != "bedrock" || text(&vector, "signed_headers").contains("accept;") {
            continue;
        }
        let mut request = format!("{} {} HTTP/1.1\r\nHost: gateway\r\n", text(&vector, "method"), wire_path(&vector));
        for pair in vector["headers_sent"].as_array().unwrap() {
            request += &format!("{}: {}\r\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        }
        let request = dir.file("request", [request.as_bytes(), b"\r\n", &body(&vector)].concat());
        let policy = dir.file("policy.json", policy_for(&vector).to_string());
        let explain = Explain {
            request: request.display().to_string(),
            policy: Some(policy),
            time: Some(text(&vector, "amz_date").parse().unwrap()),
            ..Explain::default()
        };
        let report = explain.report(&|name| environment(&vector, name)).unwrap();
        let stages = report.attempts[0].signature.as_ref().unwrap();
        let token = vector["session_token"].as_str().unwrap_or("no token");
        assert_eq!(
            stages.canonical_request,
            text(&vector, "canonical_request").replace(token, MASK),
            "{}",
            vector["name"]
        );
        assert_eq!(stages.string_to_sign, text(&vector, "string_to_sign"), "{}", vector["name"]);
        assert_eq!(stages.signature, text(&vector, "signature"), "{}", vector["name"]);
        reproduced += 1;
    }
    assert_eq!(reproduced, 16);
}

fn environment(vector: &Value, name: &str) -> Option<String> {
    match name {
        "AWS_ACCESS_KEY_ID" => vector["access_key"].as_str(),
        "AWS_SECRET_ACCESS_KEY" => vector["secret_key"].as_str(),
        "AWS_SESSION_TOKEN" => vector["session_token"].as_str(),
        _ => None,
    }
    .map(str::to_owned)
}
