//! The doubles of AWS's credential services answer AWS's own clients, so that these vouch for the doubles.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use bedrock_double::Keyring;
use bedrock_double::sources::Sources;
use bedrock_double::sources::account::{
    AUDIENCE, CERTIFICATE_ROLE_ARN, COMMERCIAL_ROLE_ARN, COMMON_NAME, PROFILE_ARN, TRUST_ANCHOR_ARN,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::clients::clients;
use crate::harness::required;

/// Runs `sources.py`, and gives the lines that it prints.
fn run(sources: &Sources, calls: &Value) -> Vec<Value> {
    let mut command = Command::new(required("GATEWAY_PYTHON"));
    command.arg(clients().join("sources.py")).arg(sources.addr().to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(calls.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "sources.py failed");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn boto3_crosses_the_partitions() {
    let bedrock = Keyring::default();
    let sources = Sources::start(Duration::from_secs(3600), &bedrock, false).unwrap();
    let key = sources.govcloud_key(OffsetDateTime::now_utc() + time::Duration::hours(1));
    let call = |audience: &str| {
        json!({
            "suite": "federation", "audience": audience, "role": COMMERCIAL_ROLE_ARN,
            "keys": {
                "aws_access_key_id": key.id, "aws_secret_access_key": key.secret, "aws_session_token": key.session_token,
            },
        })
    };
    let calls = run(&sources, &json!([call(AUDIENCE), call("other")]));
    assert_eq!(calls.len(), 4, "{calls:#?}");
    let assumed = &calls[1];
    assert_eq!(assumed["arn"], "arn:aws:sts::111122223333:assumed-role/bedrock-gateway/test", "{calls:#?}");
    assert!(bedrock.find(assumed["key"].as_str().unwrap()).is_some(), "{assumed}");
    assert_eq!(calls[2]["error"]["Code"], "AccessDenied", "{calls:#?}");
    assert_eq!(calls[3]["error"]["class"], "InvalidIdentityTokenException", "{calls:#?}");
    assert_eq!(sources.complaints().len(), 2);
}

#[test]
fn awss_certificate_client_gets_keys() {
    let name = |params: &mut CertificateParams, name: &str| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
    };
    let authority = |common_name: &str| {
        let mut params = CertificateParams::default();
        name(&mut params, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params, KeyPair::generate().unwrap())
    };
    let (root_params, root_key) = authority("root");
    let root_pem = root_params.self_signed(&root_key).unwrap().pem();
    let root = Issuer::new(root_params, root_key);
    let (issuing_params, issuing_key) = authority("issuing");
    let issuing_pem = issuing_params.signed_by(&issuing_key, &root).unwrap().pem();
    let issuing = Issuer::new(issuing_params, issuing_key);
    let bedrock = Keyring::default();
    let sources = Sources::start(Duration::from_secs(3600), &bedrock, false).unwrap();
    sources.change(|account| account.commercial.trust_anchors[0].ca_pem = root_pem);

    let mut calls = Vec::new();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        name(&mut params, COMMON_NAME);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        calls.push(json!({
            "suite": "certificate", "trust_anchor_arn": TRUST_ANCHOR_ARN, "profile_arn": PROFILE_ARN,
            "role_arn": CERTIFICATE_ROLE_ARN, "certificate": params.signed_by(&key, &issuing).unwrap().pem(),
            "private_key": key.serialize_pem(), "certificate_chain": issuing_pem,
        }));
    }
    let mut without_chain = calls[0].clone();
    without_chain["certificate_chain"] = Value::Null;
    let mut with_name = calls[0].clone();
    with_name["role_session_name"] = json!("test");
    calls.extend([without_chain, with_name]);
    let rows = run(&sources, &json!(calls));
    assert_eq!(rows.len(), 4, "{rows:#?}");
    for row in &rows[..2] {
        let issued = bedrock.find(row["key"].as_str().unwrap_or_default());
        assert_eq!(issued.map(|issued| issued.key.secret.into()), Some(row["secret"].clone()), "{row}");
    }
    let error = |row: &Value| (row["error"]["class"].clone(), row["error"]["Message"].as_str().unwrap().to_owned());
    let failed = json!("CredentialsRetrievalError");
    assert_eq!(
        error(&rows[2]),
        (failed.clone(), "CreateSession failed (HTTP 403): Untrusted signing certificate".into())
    );
    assert_eq!(
        error(&rows[3]),
        (failed, "CreateSession failed (HTTP 403): Not authorized to set roleSessionName.".into())
    );
    assert_eq!(sources.complaints().len(), 2);
}
