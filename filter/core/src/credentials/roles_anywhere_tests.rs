//! Sessions of IAM Roles Anywhere, against canned responses.

use super::tests::{KEYS, environment, keys, line, now, run};
use super::*;
use crate::config::{self, Auth, ConfigError};
use crate::credentials::identity::testing::{Authority, Leaf, params};
use crate::credentials::provider::Provider;
use crate::credentials::source::Source;
use serde_json::{Value, json};
use std::time::Duration;

const SESSION: &str = r#"{"credentialSet":[{"assumedRoleUser":{"arn":"a","assumedRoleId":"b"},"credentials":{"accessKeyId":"ASIACOM","secretAccessKey":"com/secret+1","sessionToken":"com-token==","expiration":"2026-01-02T04:04:05Z"},"packedPolicySize":1,"roleArn":"r","sourceIdentity":"CN=gateway"}],"subjectArn":"s"}"#;

fn document(certificate: &Value) -> Value {
    json!({
        "source": "roles_anywhere",
        "cluster": "rolesanywhere",
        "region": "us-east-1",
        "trust_anchor_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:trust-anchor/4f7b6b0e-0000-4000-8000-000000000002",
        "profile_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:profile/4f7b6b0e-0000-4000-8000-000000000001",
        "role_arn": "arn:aws:iam::111122223333:role/bedrock-gateway",
        "certificate": certificate,
        "session_name": "gateway-1"
    })
}

fn resolve(certificate: &Value, variables: &[(&str, &str)]) -> Result<FetchPlan, ConfigError> {
    let config: config::Credentials = serde_json::from_value(document(certificate)).unwrap();
    let source = Source::compile(&config, Auth::Sigv4, "credentials").unwrap();
    let lookup = |name: &str| {
        let own = variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        own.or_else(|| environment(name))
    };
    match Provider::resolve(&source, Auth::Sigv4, "credentials", &lookup)? {
        Provider::Fetched(plan) => Ok(*plan),
        Provider::Fixed(_) => panic!("fixed"),
    }
}

fn from_environment(authority: &Authority, leaf: &Leaf) -> Result<FetchPlan, ConfigError> {
    let chain = authority.intermediate.pem();
    let variables = [
        ("BEDROCK_GATEWAY_CERTIFICATE", leaf.certificate.as_str()),
        ("BEDROCK_GATEWAY_CERTIFICATE_CHAIN", chain.as_str()),
        ("BEDROCK_GATEWAY_PRIVATE_KEY", leaf.key.as_str()),
    ];
    resolve(&json!({"source": "environment"}), &variables)
}

fn secret(leaf: &Leaf, chain: &str) -> String {
    let secret = json!({"Certificate": leaf.certificate, "CertificateChain": chain, "PrivateKey": leaf.key});
    json!({"ARN": "a", "SecretString": secret.to_string()}).to_string()
}

#[test]
fn a_certificate_of_the_environment_signs() {
    let authority = Authority::new();
    for leaf in [authority.p256(), authority.p384()] {
        let plan = from_environment(&authority, &leaf).unwrap();
        let (calls, fetched) = run(&plan, &[(201, SESSION)]);
        let lines: Vec<_> = calls.iter().map(line).collect();
        assert_eq!(lines, ["rolesanywhere POST rolesanywhere.us-east-1.amazonaws.com/sessions"]);
        let body: Value = serde_json::from_slice(&calls[0].body).unwrap();
        let wanted = json!({
            "durationSeconds": 3600,
            "profileArn": "arn:aws:rolesanywhere:us-east-1:111122223333:profile/4f7b6b0e-0000-4000-8000-000000000001",
            "roleArn": "arn:aws:iam::111122223333:role/bedrock-gateway",
            "trustAnchorArn": "arn:aws:rolesanywhere:us-east-1:111122223333:trust-anchor/4f7b6b0e-0000-4000-8000-000000000002",
            "roleSessionName": "gateway-1"
        });
        assert_eq!(body, wanted);
        let header = |name| calls[0].headers.get_str(name).unwrap();
        assert_eq!((header("content-type"), header("x-amz-date")), ("application/json", "20260102T030405Z"));
        assert_eq!(header("content-length"), calls[0].body.len().to_string());
        let authorization = header("authorization");
        assert!(authorization.starts_with("AWS4-X509-ECDSA-SHA256 Credential="), "{authorization}");
        assert!(authorization.contains("/20260102/us-east-1/rolesanywhere/aws4_request, SignedHeaders="));
        assert!(authorization.contains("=content-type;host;x-amz-date;x-amz-x509;x-amz-x509-chain, Signature=30"));
        assert!(!header("x-amz-x509").is_empty() && !header("x-amz-x509-chain").contains(','));

        let fetched = fetched.unwrap();
        assert_eq!(keys(&fetched), ("ASIACOM", "com/secret+1", Some("com-token==")));
        assert_eq!(fetched.expires, Some(now() + Duration::from_secs(3600)));
        // 2026-01-07
        assert_eq!(fetched.certificate.unwrap().left(now()), Duration::from_secs(1_767_744_000 - 1_767_323_045));
    }
}

#[test]
fn a_certificate_comes_from_agent_or_service() {
    let authority = Authority::new();
    let leaf = authority.p256();
    let answer = secret(&leaf, &authority.intermediate.pem());
    let agent = resolve(&json!({"source": "secrets_manager", "cluster": "agent", "secret": "x509"}), &[]).unwrap();
    let (calls, fetched) = run(&agent, &[(200, &answer), (201, SESSION)]);
    let lines: Vec<_> = calls.iter().map(line).collect();
    let session = "rolesanywhere POST rolesanywhere.us-east-1.amazonaws.com/sessions";
    assert_eq!(lines, ["agent GET localhost:2773/secretsmanager/get?secretId=x509", session]);
    assert_eq!(keys(&fetched.unwrap()).0, "ASIACOM");

    let certificate = json!({
        "source": "secrets_manager", "cluster": "secrets", "secret": "x509", "region": "us-gov-west-1",
        "using": {"source": "container", "cluster": "pod"}
    });
    let service = resolve(&certificate, &[]).unwrap();
    let (calls, fetched) = run(&service, &[(200, KEYS), (200, &answer), (201, SESSION)]);
    let lines: Vec<_> = calls.iter().map(line).collect();
    let wanted =
        ["pod GET 169.254.170.23/v1/credentials", "secrets POST secretsmanager.us-gov-west-1.amazonaws.com/", session];
    assert_eq!(lines, wanted);
    // GovCloud's keys do not cross to the other partition.
    let sent = format!("{:?}", calls[2]);
    assert!(!sent.contains("AKIDGOV") && !sent.contains("gov-token"), "{sent}");
    assert_eq!(keys(&fetched.unwrap()).0, "ASIACOM");
}

#[test]
fn a_rotated_certificate_is_picked_up() {
    let authority = Authority::new();
    let plan = resolve(&json!({"source": "secrets_manager", "cluster": "agent", "secret": "x509"}), &[]).unwrap();
    let certificates: Vec<_> = [authority.p256(), authority.p384()]
        .iter()
        .map(|leaf| {
            let (calls, fetched) = run(&plan, &[(200, &secret(leaf, "")), (201, SESSION)]);
            fetched.unwrap();
            assert_eq!(calls[1].headers.get("x-amz-x509-chain"), None);
            calls[1].headers.get_str("x-amz-x509").unwrap().to_owned()
        })
        .collect();
    assert_ne!(certificates[0], certificates[1]);
}

#[test]
fn failed_sessions_name_the_step() {
    let authority = Authority::new();
    let leaf = authority.p256();
    let environment = from_environment(&authority, &leaf).unwrap();
    let agent = resolve(&json!({"source": "secrets_manager", "cluster": "agent", "secret": "x509"}), &[]).unwrap();
    let denied = r#"{"__type":"AccessDeniedException","message":"Untrusted certificate"}"#;
    let ended = SESSION.replace("2026-01-02T04", "2026-01-02T03");
    let other = Leaf { key: authority.p256().key, certificate: leaf.certificate.clone() };
    let other = secret(&other, "");
    let mut old = params("gateway");
    old.not_after = rcgen::date_time_ymd(2026, 1, 2);
    let old = secret(&authority.issue(&old, &rcgen::PKCS_ECDSA_P256_SHA256), "");
    let not_a_certificate = json!({"SecretString": r#"{"AccessKeyId":"hush"}"#}).to_string();
    type Case<'a> = (&'a FetchPlan, Vec<(u16, &'a str)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (&environment, vec![], "CreateSession: no answer from cluster 'rolesanywhere'"),
        (&environment, vec![(403, denied)], "CreateSession: answered 403 AccessDeniedException: Untrusted certificate"),
        (
            &environment,
            vec![(503, "no healthy upstream")],
            "CreateSession: cluster 'rolesanywhere' was not reached: Envoy answered 503: no healthy upstream",
        ),
        (&environment, vec![(500, "hush")], "CreateSession: answered 500"),
        (&environment, vec![(204, SESSION)], "CreateSession: answered 204"),
        (
            &environment,
            vec![(201, "{\"credentialSet\":[]}")],
            "CreateSession: the response is not a JSON object with credentialSet[0].credentials",
        ),
        (&environment, vec![(201, &ended)], "CreateSession: the fetched keys have expired already"),
        (&agent, vec![], "Secrets Manager Agent: no answer from cluster 'agent'"),
        (&agent, vec![(201, "{}")], "Secrets Manager Agent: answered 201"),
        (
            &agent,
            vec![(200, &not_a_certificate)],
            "Secrets Manager Agent: the secret does not hold a certificate: want a JSON object with Certificate, PrivateKey and, if there are intermediates, CertificateChain",
        ),
        (&agent, vec![(200, &other)], "certificate: the private key does not belong to the certificate"),
        (&agent, vec![(200, &old)], "certificate: the certificate expired at 2026-01-02T00:00:00Z; replace it"),
    ];
    for (plan, answers, wanted) in cases {
        assert_eq!(run(plan, &answers).1.unwrap_err(), wanted);
    }
}

#[test]
fn mistakes_in_the_environment_are_refused() {
    let authority = Authority::new();
    let leaf = authority.p256();
    let (certificate, key) = ("BEDROCK_GATEWAY_CERTIFICATE", "BEDROCK_GATEWAY_PRIVATE_KEY");
    for (variables, wanted) in [
        (vec![], "BEDROCK_GATEWAY_CERTIFICATE is not in the VM's environment"),
        (vec![(certificate, leaf.certificate.as_str())], "BEDROCK_GATEWAY_PRIVATE_KEY is not in the VM's environment"),
        (
            vec![(certificate, leaf.certificate.as_str()), (key, "hush")],
            "the private key is not PEM, or has text outside of its BEGIN and END lines (in the VM's environment)",
        ),
    ] {
        let error = resolve(&json!({"source": "environment"}), &variables).unwrap_err();
        assert_eq!((error.key.as_str(), error.problem.as_str()), ("credentials.certificate", wanted));
    }
    // An expired one is a failed fetch: the gateway starts, and says so.
    let mut old = params("gateway");
    old.not_after = rcgen::date_time_ymd(2026, 1, 2);
    let plan = from_environment(&authority, &authority.issue(&old, &rcgen::PKCS_ECDSA_P256_SHA256)).unwrap();
    let (calls, error) = run(&plan, &[]);
    assert!(calls.is_empty());
    assert!(error.unwrap_err().starts_with("certificate: the certificate expired at "));
}
