//! Tokens that Envoy's `jwt_authn` verifies, set up as docs/configuration.md says, and the rights that rules give their bearers.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bedrock_double::sources::issuer::Issuer;
use bedrock_double::sources::jwt::{Algorithm, Signer};
use serde_json::{Value, json};

use super::{MODEL, path_of, records, send};
use crate::clients::python_token;
use crate::harness::{Harness, Keys, SONNET, eventually};

const DENIED: &str = "accessdeniedexception";
const ISSUER: &str = "https://issuer.example";

/// The YAML of the page's section on tokens: filter, cluster, keys in a file, document.
fn documented() -> [String; 4] {
    let page = include_str!("../../../../docs/configuration.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Tokens\n")).unwrap();
    let blocks: Vec<String> = section
        .split("```yaml\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap_or_default().to_owned())
        .collect();
    blocks.try_into().unwrap()
}

/// `text` with `from`, which is there once, replaced.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

/// The gateway with a filter, and with these clusters besides its own.
fn gateway(dir: &Path, filter: &str, clusters: &str) -> Harness {
    let base = include_str!("../../../../envoy/base.yaml");
    let http = "                http_filters:\n                  - name: bedrock.gateway\n";
    let filters =
        format!("                http_filters:\n{}                  - name: bedrock.gateway\n", indented(filter, 18));
    let base = replaced(base, http, &filters);
    let base = replaced(&base, "\n  clusters:\n", &format!("\n  clusters:\n{}", indented(clusters, 4)));
    let [_, _, _, document] = documented();
    let policy = format!(
        "{document}regions: {{us-east-1: {{}}}}\ninference_profiles: {{\"{SONNET}\": \"us.{SONNET}\"}}\n\
         route_classes: [{{name: any, paths: [internet]}}]\nrules:\n\
         - {{id: analysts, effect: allow, groups: [analysts], operations: [Converse]}}\n\
         - {{id: alice-lists, effect: allow, principals: [alice], operations: [ListFoundationModels]}}\n\
         - {{id: no-interns, effect: deny, groups: [interns], from: 2026-01-01T00:00:00Z}}\n"
    );
    let file = |name: &str, text: &str| {
        let file = dir.join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let (base, policy) = (file("base.yaml", &base), file("policy.yaml", &policy));
    Harness::new(Keys::LongLived, &["internet"], |double| double, &["--base", &base, "--policy", &policy])
}

/// The gateway, which gets the keys from an issuer.
fn with_issuer(dir: &Path, issuer: &Issuer, cache: &str) -> Harness {
    with_issuer_at(dir, issuer.addr().port(), cache)
}

fn with_issuer_at(dir: &Path, port: u16, cache: &str) -> Harness {
    let [filter, cluster, ..] = documented();
    let filter = replaced(&filter, "cache_duration: 300s", &format!("cache_duration: {cache}"));
    let cluster = replaced(
        &cluster,
        "address: issuer.example, port_value: 443",
        &format!("address: 127.0.0.1, port_value: {port}"),
    );
    let ca = dir.join("issuer/ca.pem").display().to_string();
    let cluster = replaced(&cluster, "/etc/pki/tls/certs/ca-bundle.crt", &ca);
    gateway(dir, &filter, &cluster)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of a good token, with others.
fn claims(more: &Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "aud": "bedrock-gateway", "sub": "alice", "exp": now() + 600});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn converse(headers: &str) -> Vec<u8> {
    super::converse(&path_of(MODEL), headers)
}

fn list(query: &str, headers: &str) -> Vec<u8> {
    format!("GET /foundation-models{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

/// A token with this header, and a signature made by `sign`.
fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn only_good_tokens_give_rights() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = Issuer::start("issuer.example", &dir.path().join("issuer")).unwrap();
    let signer = Signer::new(Algorithm::Es256, "first").unwrap();
    issuer.set_keys(&[signer.public_key()]);
    let harness = with_issuer(dir.path(), &issuer, "300s");
    check_all(&harness, &signer);
    assert!(issuer.reads() > 0);
    // boto3 sends the token where it sends an API key.
    let token = signer.sign(&claims(&json!({"groups": ["analysts"]}))).unwrap();
    let calls = python_token("rights", &harness.gateway.https, &harness.gateway.ca, &token, &["none"]);
    let status = |name: &str| {
        let call = calls.iter().find(|call| call["call"] == name).unwrap();
        (call["status"].as_u64(), call["error"]["class"].as_str().map(str::to_owned))
    };
    assert_eq!(status("0 Converse"), (Some(200), None), "{calls:#?}");
    assert_eq!(status("0 ListFoundationModels"), (Some(200), None), "{calls:#?}");
    assert_eq!(status("0 InvokeModel"), (None, Some("AccessDeniedException".to_owned())), "{calls:#?}");
    harness.assert_no_violation();
}

#[test]
fn refuses_tokens_without_the_issuers_keys() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = Issuer::start("issuer.example", &dir.path().join("issuer")).unwrap();
    let port = issuer.addr().port();
    drop(issuer);
    let signer = Signer::new(Algorithm::Es256, "first").unwrap();
    let harness = with_issuer_at(dir.path(), port, "300s");
    let token = bearer(&signer.sign(&claims(&json!({"groups": "analysts"}))).unwrap());
    for (headers, says) in [(token.as_str(), "jwks_remote_fetch_is_failed"), ("", "missing")] {
        let answer = send(&harness, &converse(headers));
        assert_eq!((answer.status, answer.header("x-amzn-errortype")), (401, DENIED), "{answer:?}");
        assert!(answer.body.contains(says), "{answer:?}");
    }
    assert!(harness.received().is_empty());
    let metrics = harness.gateway.admin("/stats/prometheus");
    assert!(metrics.contains("envoy_http_jwt_authn_jwks_fetch_failed{"), "the page names this series");
}

#[test]
fn keys_in_a_file_are_the_issuers() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new(Algorithm::Rs256, "first").unwrap();
    let keys = dir.path().join("keys.json");
    std::fs::write(&keys, json!({"keys": [signer.public_key().jwk()]}).to_string()).unwrap();
    let [filter, _, local, _] = documented();
    let (head, rest) = filter.split_once("        remote_jwks:\n").unwrap();
    let (_, rules) = rest.split_once("    rules:\n").unwrap();
    let local = replaced(&local, "/etc/bedrock-gateway/keys.json", keys.to_str().unwrap());
    let harness = gateway(dir.path(), &format!("{head}{local}    rules:\n{rules}"), "");
    check_all(&harness, &signer);
}

fn check_all(harness: &Harness, signer: &Signer) {
    let other = Signer::new(Algorithm::Es256, "first").unwrap();
    let unknown = Signer::new(Algorithm::Es256, "second").unwrap();
    let with = |more: Value| bearer(&signer.sign(&claims(&more)).unwrap());
    let analyst = json!({"groups": ["staff", "analysts"]});
    let none = forged(&json!({"alg": "none", "typ": "JWT"}), &claims(&analyst), b"");
    // As if the public key was a shared secret.
    let shared = forged(&json!({"alg": "HS256", "kid": "first"}), &claims(&analyst), &[7; 32]);
    let mut tampered = signer.sign(&claims(&json!({}))).unwrap();
    let parts: Vec<&str> = tampered.split('.').collect();
    tampered = [parts[0], &BASE64_URL_SAFE_NO_PAD.encode(claims(&analyst).to_string()), parts[2]].join(".");
    let bob = signer.sign(&claims(&json!({"sub": "bob"}))).unwrap();
    let alice = signer.sign(&claims(&json!({}))).unwrap();
    let names = format!(
        "{}x-principal: alice\r\nsub: alice\r\ngroups: analysts\r\nx-jwt-payload: {}\r\nx-forwarded-client-cert: \
         URI=alice\r\nx-envoy-peer-metadata: alice\r\nx-bedrock-gateway-class: any\r\n",
        bearer(&bob),
        BASE64_URL_SAFE_NO_PAD.encode(claims(&analyst).to_string()),
    );
    let no_rule = "no rule of the gateway allows";
    let cases = [
        ("a group of a list", converse(&with(analyst.clone())), 200, ""),
        ("a group that is a text", converse(&with(json!({"groups": "analysts"}))), 200, ""),
        ("another group", converse(&with(json!({"groups": ["analyst"]}))), 403, no_rule),
        ("no group", converse(&with(json!({}))), 403, "no rule of the gateway allows 'alice' to call converse"),
        (
            "a denied group",
            converse(&with(json!({"groups": ["analysts", "interns"]}))),
            403,
            "rule 'no-interns' denies",
        ),
        ("alice lists", list("", &with(json!({}))), 200, ""),
        ("bob lists", list("", &bearer(&bob)), 403, "no rule of the gateway allows 'bob' to call listfoundationmodels"),
        ("bob under other names", converse(&names), 403, "allows 'bob' to call converse"),
        ("an expired token", converse(&with(json!({"groups": "analysts", "exp": now() - 120}))), 401, "expired"),
        ("no end", converse(&with(json!({"groups": "analysts", "exp": null}))), 401, ""),
        ("another audience", converse(&with(json!({"groups": "analysts", "aud": "other"}))), 403, "audience"),
        (
            "another issuer",
            converse(&with(json!({"groups": "analysts", "iss": "https://other.example"}))),
            401,
            "issuer",
        ),
        ("another key", converse(&bearer(&other.sign(&claims(&analyst)).unwrap())), 401, ""),
        ("an unknown key", converse(&bearer(&unknown.sign(&claims(&analyst)).unwrap())), 401, ""),
        ("no signature", converse(&bearer(&none)), 401, ""),
        ("a shared secret", converse(&bearer(&shared)), 401, ""),
        ("other claims", converse(&bearer(&tampered)), 401, "verification"),
        ("no token", converse(""), 401, "missing"),
        ("a signature of AWS's", converse("authorization: AWS4-HMAC-SHA256 Credential=alice/x\r\n"), 401, "missing"),
        ("two tokens", converse(&format!("{}{}", bearer(&bob), with(analyst.clone()))), 401, ""),
        ("a token in the query", list(&format!("?access_token={alice}"), ""), 401, "missing"),
        ("a name that is a number", converse(&with(json!({"sub": 7, "groups": "analysts"}))), 401, ""),
        (
            "groups that are a number",
            converse(&with(json!({"groups": 7}))),
            403,
            "'groups' of the caller's token is a number",
        ),
        ("groups that are true", converse(&with(json!({"groups": true}))), 403, "is true or false"),
        ("groups that are null", converse(&with(json!({"groups": null}))), 403, "is null"),
        ("groups that are an object", converse(&with(json!({"groups": {"analysts": 1}}))), 403, "is an object"),
        ("a list with a number", converse(&with(json!({"groups": ["analysts", 7]}))), 403, "is a list with a number"),
        ("a list in a list", converse(&with(json!({"groups": [["analysts"]]}))), 403, "is a list with a list"),
    ];
    let (mut wrong, mut ids) = (Vec::new(), Vec::new());
    for (name, request, status, says) in &cases {
        let answer = send(harness, request);
        let error = answer.header("x-amzn-errortype");
        let wanted = if *status == 200 { "" } else { DENIED };
        if answer.status != *status || error != wanted || !answer.body.contains(says) {
            wrong.push(format!("{name}: {answer:?}"));
        }
        ids.push(answer.header("x-amzn-requestid").to_owned());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // No token crosses, and the record names the caller that Envoy proved.
    let served = cases.iter().filter(|(_, _, status, _)| *status == 200).count();
    let received = harness.received();
    assert_eq!(received.len(), served);
    assert!(
        received.iter().all(|request| request.header("authorization").is_some_and(|value| value.starts_with("AWS4-")))
    );
    let records = records(harness, cases.len());
    for ((name, _, status, _), id) in cases.iter().zip(&ids) {
        let own =
            |facts: &Value| [&facts["id"], &facts["upstream_id"]].iter().any(|own| own.as_str() == Some(id.as_str()));
        // What Envoy refuses has no id.
        let refused = |facts: &Value, line: &Value| {
            id.is_empty() && facts["operation"].is_null() && line["status"].as_u64() == Some((*status).into())
        };
        let found = records.iter().find(|(facts, line)| own(facts) || refused(facts, line));
        let (facts, line) = found.unwrap_or_else(|| panic!("{name}: no record"));
        assert_eq!(line["status"].as_u64(), Some((*status).into()), "{name}: {line}");
        let proved = match *name {
            _ if id.is_empty() => Value::Null,
            name if name.starts_with("bob") => json!("bob"),
            _ => json!("alice"),
        };
        assert_eq!(facts["principal"], proved, "{name}: {facts}");
        assert_eq!(id.is_empty(), *status == 401 || *name == "another audience", "{name}");
        let decision = match (*status, *name) {
            (200, _) => json!("allowed"),
            (403, "another group" | "no group" | "a denied group" | "bob lists" | "bob under other names") => {
                json!("denied")
            }
            _ => Value::Null,
        };
        assert_eq!(facts["rule_decision"], decision, "{name}: {facts}");
        if *status != 200 {
            assert_eq!(facts["error"], "AccessDeniedException", "{name}: {facts}");
        }
    }
    harness.assert_no_violation();
}

#[test]
fn a_new_key_is_taken_and_an_old_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = Issuer::start("issuer.example", &dir.path().join("issuer")).unwrap();
    let [first, second] = ["first", "second"].map(|kid| Signer::new(Algorithm::Es256, kid).unwrap());
    issuer.set_keys(&[first.public_key()]);
    let harness = with_issuer(dir.path(), &issuer, "1s");
    let status = |signer: &Signer| {
        let token = signer.sign(&claims(&json!({"groups": ["analysts"]}))).unwrap();
        send(&harness, &converse(&bearer(&token))).status
    };
    assert_eq!((status(&first), status(&second)), (200, 401));
    // Both, so that tokens in use stay good.
    issuer.set_keys(&[first.public_key(), second.public_key()]);
    eventually("the new key", || (status(&second) == 200).then_some(()));
    assert_eq!(status(&first), 200);
    issuer.set_keys(&[second.public_key()]);
    eventually("the end of the old key", || (status(&first) == 401).then_some(()));
    assert_eq!(status(&second), 200);
    harness.assert_no_violation();
}
