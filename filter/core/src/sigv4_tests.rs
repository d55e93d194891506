//! Against 20 requests signed by botocore 1.44.5 (`host-tests/vectors/sigv4.json`).

use super::*;
use crate::credentials::{Secret, Session};
use serde_json::Value;
use std::time::Duration;

fn vectors() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../host-tests/vectors/sigv4.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap()
}

/// `20260102T030405Z` → time. All vectors have this date.
fn time(amz_date: &str) -> SystemTime {
    assert_eq!(amz_date, "20260102T030405Z");
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045)
}

fn signed(vector: &Value, change: impl FnOnce(&mut Keys)) -> Vec<(String, String)> {
    let mut keys = Keys {
        access_key_id: text(vector, "access_key").to_owned(),
        secret_access_key: Secret::new(text(vector, "secret_key")),
        session_token: vector["session_token"].as_str().map(Secret::new),
        session: Session::default(),
    };
    change(&mut keys);
    let sent = vector["headers_sent"].as_array().unwrap();
    let names: Vec<_> = text(vector, "signed_headers").split(';').collect();
    let headers: Vec<_> = sent
        .iter()
        .map(|pair| (pair[0].as_str().unwrap().to_lowercase(), pair[1].as_str().unwrap()))
        .filter(|(name, _)| {
            names.contains(&name.as_str()) && !["host", "x-amz-date", "x-amz-security-token"].contains(&name.as_str())
        })
        .collect();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let query = text(vector, "wire_query");
    let path = if query.is_empty() {
        text(vector, "wire_path").to_owned()
    } else {
        format!("{}?{query}", text(vector, "wire_path"))
    };
    let request = Unsigned {
        method: text(vector, "method"),
        host: text(vector, "host"),
        path: &path,
        headers: &headers,
        body_sha256: text(vector, "body_sha256"),
    };
    let scope = Scope { service: text(vector, "signing_name"), region: text(vector, "region") };
    sign(request, &keys, scope, time(text(vector, "amz_date"))).unwrap()
}

fn authorization(headers: &[(String, String)]) -> &str {
    &headers.iter().find(|(name, _)| name == "authorization").unwrap().1
}

#[test]
fn signs_as_botocore_does() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 20);
    for vector in &vectors {
        assert_eq!(authorization(&signed(vector, |_| {})), text(vector, "authorization"), "{}", vector["name"]);
    }
}

#[test]
fn sets_the_date_and_the_token() {
    let vectors = vectors();
    let vector = vectors.iter().find(|vector| vector["session_token"].is_string()).unwrap();
    let headers = signed(vector, |_| {});
    let get = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    assert_eq!(get("x-amz-date"), vector["amz_date"].as_str());
    assert_eq!(get("x-amz-security-token"), vector["session_token"].as_str());
    assert_eq!(headers.len(), 3);
}

#[test]
fn another_secret_gives_another_signature() {
    for vector in &vectors() {
        let other = signed(vector, |keys| keys.secret_access_key = Secret::new("other"));
        assert_ne!(authorization(&other), text(vector, "authorization"));
    }
}

#[test]
fn refuses_a_malformed_path() {
    let keys = Keys {
        access_key_id: "a".into(),
        secret_access_key: Secret::new("b"),
        session_token: None,
        session: Session::default(),
    };
    let request = Unsigned { method: "GET", host: "h", path: "/ x", headers: &[], body_sha256: "" };
    let scope = Scope { service: BEDROCK, region: "us-east-1" };
    assert!(sign(request, &keys, scope, SystemTime::UNIX_EPOCH).is_err());
}
