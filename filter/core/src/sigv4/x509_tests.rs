//! Against requests signed by AWS's Python client, iam_rolesanywhere_session 3.0.0
//! (`host-tests/vectors/rolesanywhere.json`). The private keys were thrown away, so that signatures are compared with keys
//! that a test makes.

use super::*;
use crate::credentials::identity::testing::Authority;
use crate::credentials::identity::{CertificateMaterial, IdentityError, Part, SigningIdentity};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::der::{DecodePem, Encode};

fn vectors() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../host-tests/vectors/rolesanywhere.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    file["vectors"].as_array().unwrap().clone()
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap()
}

/// 20261125T120000Z, the time of all vectors.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_608_000)
}

/// The private key that the vectors lack: the stages do not depend on it.
fn certificates_of(vector: &Value) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    for (name, key) in [("x-amz-x509", "certificate_pem"), ("x-amz-x509-chain", "chain_pem")] {
        if let Some(pem) = vector[key].as_str() {
            headers.push((name, STANDARD.encode(Certificate::from_pem(pem).unwrap().to_der().unwrap())));
        }
    }
    headers
}

#[test]
fn every_stage_is_the_python_clients() {
    let mut supported = 0;
    for vector in vectors() {
        let name = text(&vector, "name");
        let body_sha256 = hex(&Sha256::digest(text(&vector, "body")));
        let headers = [("content-type", vector["headers"]["content-type"].as_str().unwrap())];
        let request = Unsigned {
            method: text(&vector, "method"),
            host: text(&vector, "host"),
            path: text(&vector, "path"),
            headers: &headers,
            body_sha256: &body_sha256,
        };
        let scope = Scope { service: "rolesanywhere", region: text(&vector, "region") };
        let certificates = certificates_of(&vector);
        for (name, value) in &certificates {
            assert_eq!(vector["headers"][name], **value);
        }
        let stages = stages(request, &certificates, scope, now()).unwrap();
        assert_eq!(stages.amz_date, vector["headers"]["x-amz-date"]);
        assert_eq!(stages.canonical_request, text(&vector, "canonical_request"), "{name}");
        // Only the algorithm's name is another for RSA.
        let wanted = text(&vector, "string_to_sign").replace("AWS4-X509-RSA-SHA256", ALGORITHM);
        assert_eq!(stages.string_to_sign, wanted, "{name}");
        let credential = format!("{}/{}", text(&vector, "serial_decimal"), stages.scope);
        let start = format!("{ALGORITHM} Credential={credential}, SignedHeaders={}, Signature=", stages.signed_headers);
        supported += usize::from(text(&vector, "authorization").starts_with(&start));
    }
    assert_eq!(supported, 3);
}

#[test]
fn the_vectors_certificates_are_accepted() {
    let key = Authority::new().p256().key;
    let errors: Vec<_> = vectors()
        .iter()
        .map(|vector| {
            let material = CertificateMaterial {
                certificate: text(vector, "certificate_pem").to_owned(),
                chain: vector["chain_pem"].as_str().map(str::to_owned),
                key: crate::credentials::Secret::new(key.as_str()),
            };
            SigningIdentity::parse(&material).unwrap_err()
        })
        .collect();
    // All else is right: the key is another one.
    let mismatch = IdentityError::Mismatch;
    assert_eq!(errors, [mismatch.clone(), mismatch.clone(), mismatch, IdentityError::Rsa(Part::Certificate)]);
}

#[test]
fn a_signature_verifies_with_the_certificate() {
    let authority = Authority::new();
    for leaf in [authority.p256(), authority.p384()] {
        let identity = SigningIdentity::parse(&authority.material(&leaf)).unwrap();
        // 2026-01-02T03:04:05Z
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        let request = Unsigned { method: "POST", host: "h", path: "/sessions", headers: &[], body_sha256: "0" };
        let scope = Scope { service: "rolesanywhere", region: "us-east-1" };
        let valid = identity.valid_at(now).unwrap();
        let signed = sign(request, valid, scope, now).unwrap();
        assert_eq!(signed, sign(request, valid, scope, now).unwrap(), "deterministic");
        let header = |wanted: &str| signed.iter().find(|(name, _)| *name == wanted).unwrap().1.clone();
        let stages = stages(request, &certificates(valid), scope, now).unwrap();
        assert!(header("authorization").contains("SignedHeaders=host;x-amz-date;x-amz-x509;x-amz-x509-chain, "));
        let signature = header("authorization").rsplit_once('=').unwrap().1.to_owned();
        let signature: Vec<u8> =
            (0..signature.len()).step_by(2).map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap()).collect();

        let certificate = Certificate::from_pem(&leaf.certificate).unwrap();
        assert_eq!(header("x-amz-x509"), STANDARD.encode(certificate.to_der().unwrap()));
        let point = certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes();
        let digest = Sha256::digest(stages.string_to_sign.as_bytes());
        if point.len() == 65 {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).unwrap();
            key.verify_prehash(&digest, &p256::ecdsa::Signature::from_der(&signature).unwrap()).unwrap();
        } else {
            let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(point).unwrap();
            key.verify_prehash(&digest, &p384::ecdsa::Signature::from_der(&signature).unwrap()).unwrap();
        }
    }
}
