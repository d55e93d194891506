//! Against 20 requests signed by botocore 1.44.5 (`host-tests/vectors/sigv4.json`), AWS's test suite, and AWS's library for Rust.
//! `host-tests/tests/signer.rs` compares with botocore itself.

use super::*;
use crate::credentials::Secret;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode};
use aws_sigv4::sign::v4;
use serde_json::Value;
use sha2::{Digest, Sha256};
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

fn signed(vector: &Value, change: impl FnOnce(&mut Keys)) -> Vec<(&'static str, String)> {
    let mut keys = Keys::new(
        text(vector, "access_key"),
        Secret::new(text(vector, "secret_key")),
        vector["session_token"].as_str().map(Secret::new),
    );
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

fn authorization<'a>(headers: &'a [(&'static str, String)]) -> &'a str {
    &headers.iter().find(|(name, _)| *name == "authorization").unwrap().1
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
    let get = |wanted: &str| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str());
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
    let keys = Keys::new("a", Secret::new("b"), None);
    let request = Unsigned { method: "GET", host: "h", path: "/ x", headers: &[], body_sha256: "" };
    let scope = Scope { service: BEDROCK, region: "us-east-1" };
    assert!(sign(request, &keys, scope, SystemTime::UNIX_EPOCH).is_err());
}

/// 20150830T123600Z
const SUITE_TIME: u64 = 1_440_938_160;

#[test]
fn signs_as_awss_suite_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../host-tests/vectors/aws-suite.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 24);
    for vector in vectors {
        let body_sha256 = hex(&Sha256::digest(text(vector, "body")));
        let canonical = text(vector, "canonical_request");
        let mut headers: Vec<(String, &str)> = vector["headers"].as_array().unwrap().iter().map(header).collect();
        headers.retain(|(name, _)| name != "host");
        // A header of services that are not Bedrock.
        if canonical.contains("x-amz-content-sha256:") {
            headers.push(("x-amz-content-sha256".to_owned(), &body_sha256));
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let (method, path, host) = (text(vector, "method"), text(vector, "path"), "example.amazonaws.com");
        let request = Unsigned { method, host, path, headers: &headers, body_sha256: &body_sha256 };
        let keys = Keys::new(
            "AKIDEXAMPLE",
            Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            vector["session_token"].as_str().map(Secret::new),
        );
        let scope = Scope { service: "service", region: "us-east-1" };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(SUITE_TIME);
        let stages = stages::stages(request, &keys, scope, now).unwrap();
        assert_eq!(stages.canonical_request, canonical, "{}", vector["name"]);
        assert_eq!(stages.string_to_sign, text(vector, "string_to_sign"), "{}", vector["name"]);
        let signed = sign(request, &keys, scope, now).unwrap();
        let end = format!("Signature={}", text(vector, "signature"));
        assert!(authorization(&signed).ends_with(&end), "{}", vector["name"]);
    }
}

fn header(pair: &Value) -> (String, &str) {
    (pair[0].as_str().unwrap().to_lowercase(), pair[1].as_str().unwrap())
}

/// A generator of pseudo-random numbers (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    /// Up to `max` of these pieces, joined.
    fn text(&mut self, pieces: &[&str], max: usize) -> String {
        (0..self.below(max + 1)).map(|_| pieces[self.below(pieces.len())]).collect()
    }
}

const SEGMENTS: &[&str] =
    &["/", "/", "a", "Z9", ".", "..", "-_~", "%3A", "%2F", "%2f", "%20", "%C3%A4", ":", "@", "+", "*", "$", "(", "!"];
const QUERIES: &[&str] = &["a=1", "&", "b=", "A=%2B", "x=%20y", "x=%C3%A4", "n=a-_.~", "%3D=e", "long=abcdefghij"];
const VALUES: &[&str] = &["a", "Z", " ", "  ", ";", "=", ":", "/", ",", "\"", "application/json", "%41"];
const NAMES: &[&str] =
    &["accept", "content-type", "x-amzn-bedrock-accept", "x-amzn-bedrock-trace", "x-amzn-bedrock-guardrailidentifier"];

/// What AWS's library signs: the value of `authorization`.
fn by_library(request: Unsigned<'_>, keys: &Keys, scope: Scope<'_>, now: SystemTime) -> String {
    let mut settings = SigningSettings::default();
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Enabled;
    settings.excluded_headers = None;
    let token = keys.session_token.as_ref().map(|token| token.reveal().to_owned());
    let secret = keys.secret_access_key.reveal();
    let identity = aws_credential_types::Credentials::new(&keys.access_key_id, secret, token, None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(now)
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let uri = format!("https://{}{}", request.host, request.path);
    let body = SignableBody::Precomputed(request.body_sha256.to_owned());
    let signable = SignableRequest::new(request.method, uri, request.headers.iter().copied(), body).unwrap();
    let (instructions, _) = aws_sigv4::http_request::sign(signable, &params).unwrap().into_parts();
    instructions.headers().find(|(name, _)| *name == "authorization").unwrap().1.to_owned()
}

#[test]
fn signs_as_awss_library_does() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let all = ["a", "b"].map(|name| Keys::new(name, Secret::new(format!("secret of {name}")), None));
    let all = [&all[..], &[Keys::new("c", Secret::new("s"), Some(Secret::new("token/+=")))]].concat();
    for number in 0..20_000_u64 {
        let query = random.text(QUERIES, 4);
        let path = format!("/{}{}{query}", random.text(SEGMENTS, 12), if query.is_empty() { "" } else { "?" });
        let mut headers: Vec<(&str, String)> = Vec::new();
        for name in NAMES {
            if random.below(2) == 0 {
                headers.push((name, random.text(VALUES, 6)));
            }
        }
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body_sha256 = hex(&Sha256::digest(number.to_le_bytes()));
        let request =
            Unsigned { method: "POST", host: "h.example", path: &path, headers: &headers, body_sha256: &body_sha256 };
        let keys = &all[random.below(all.len())];
        let scope =
            Scope { service: ["bedrock", "sts"][random.below(2)], region: ["us-east-1", "eu-west-1"][random.below(2)] };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045 + number * 3_600);
        let signed = sign(request, keys, scope, now).unwrap();
        assert_eq!(authorization(&signed), by_library(request, keys, scope, now), "{path} {headers:?}");
    }
}

#[test]
fn refuses_headers_that_are_not_visible() {
    let keys = Keys::new("a", Secret::new("b"), None);
    let scope = Scope { service: BEDROCK, region: "us-east-1" };
    for value in ["a\n", "\r\nx: y", "\u{e4}", "\0", "\t"] {
        let headers = [("accept", value)];
        let request = Unsigned { method: "GET", host: "h", path: "/", headers: &headers, body_sha256: "" };
        let error = sign(request, &keys, scope, SystemTime::UNIX_EPOCH).unwrap_err();
        assert!(error.to_string().contains("'accept'"), "{error}");
    }
}
