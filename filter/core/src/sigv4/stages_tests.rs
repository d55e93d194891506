//! Against 20 requests signed by botocore 1.44.5 (`host-tests/vectors/sigv4.json`), and against [`sign`].

use super::*;
use crate::sigv4::sign;
use serde_json::Value;
use std::time::Duration;

fn vectors() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../host-tests/vectors/sigv4.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap()
}

/// 20260102T030405Z, the time of all vectors.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045)
}

fn stages_of(vector: &Value) -> Stages {
    assert_eq!(text(vector, "amz_date"), "20260102T030405Z");
    let keys = Keys::new(
        text(vector, "access_key"),
        Secret::new(text(vector, "secret_key")),
        vector["session_token"].as_str().map(Secret::new),
    );
    let signed: Vec<&str> = text(vector, "signed_headers").split(';').collect();
    let made_here = ["host", "x-amz-date", "x-amz-security-token"];
    let sent = vector["headers_sent"].as_array().unwrap();
    let sent: Vec<_> =
        sent.iter().map(|pair| (pair[0].as_str().unwrap().to_lowercase(), pair[1].as_str().unwrap())).collect();
    let headers: Vec<_> = sent
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .filter(|(name, _)| signed.contains(name) && !made_here.contains(name))
        .collect();
    let path = [text(vector, "wire_path"), text(vector, "wire_query")].join("?");
    let request = Unsigned {
        method: text(vector, "method"),
        host: text(vector, "host"),
        path: path.trim_end_matches('?'),
        headers: &headers,
        body_sha256: text(vector, "body_sha256"),
    };
    stages(request, &keys, Scope { service: text(vector, "signing_name"), region: text(vector, "region") }, now())
        .unwrap()
}

#[test]
fn every_stage_is_botocores() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 20);
    for vector in &vectors {
        let (stages, name) = (stages_of(vector), &vector["name"]);
        assert_eq!(stages.canonical_request, text(vector, "canonical_request"), "{name}");
        assert_eq!(stages.string_to_sign, text(vector, "string_to_sign"), "{name}");
        assert_eq!(stages.signing_key.reveal(), text(vector, "signing_key_hex"), "{name}");
        assert_eq!(stages.signature, text(vector, "signature"), "{name}");
    }
}

#[test]
fn ends_with_the_signature_that_is_sent() {
    let keys = Keys::new("AKIDEXAMPLE", Secret::new("secret"), Some(Secret::new("token")));
    let scope = Scope { service: crate::sigv4::BEDROCK, region: "us-east-1" };
    let headers = [("x-amzn-bedrock-trace", " a  b   c "), ("content-type", "application/json")];
    for path in [
        "/",
        "/a//b",
        "/a/./b/../c/",
        "/a/..",
        "/..",
        "/a/.",
        "/a%2Fb/%C3%A4~",
        "/a?x=1&a=%2B&b",
        "/a/?x=a+b&x=A",
        "/a?",
    ] {
        let request = Unsigned { method: "POST", host: "h.example", path, headers: &headers, body_sha256: "e3b0" };
        let signed = sign(request, &keys, scope, now()).unwrap();
        let (_, authorization) = signed.iter().find(|(name, _)| *name == "authorization").unwrap();
        let signature = stages(request, &keys, scope, now()).unwrap().signature;
        assert!(authorization.ends_with(&format!("Signature={signature}")), "{path}");
    }
}

#[test]
fn the_signing_key_is_never_printed() {
    let stages = stages_of(&vectors()[0]);
    assert!(!format!("{stages:?}").contains(stages.signing_key.reveal()));
}
