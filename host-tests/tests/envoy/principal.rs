//! Who calls, as the TLS listener proves it, and what follows from it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::{Harness, Keys, eventually, text_of};

/// A client certificate of the mesh.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// A certificate authority and the identities that it vouches for.
fn identities(ca_file: &Path, spiffe_ids: &[&str]) -> Vec<Identity> {
    let mut params = CertificateParams::default();
    // Its own name: a certificate whose subject is its issuer counts as self-signed.
    params.distinguished_name.push(rcgen::DnType::CommonName, "mesh CA");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(ca_file, issuer.pem()).unwrap();
    let identity = |id: &&str| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI((*id).try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Identity { certificate: certificate.der().clone(), key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    };
    spiffe_ids.iter().map(identity).collect()
}

/// A GET over the TLS listener; status and body.
fn get(harness: &Harness, identity: Identity) -> (u16, String) {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&harness.gateway.ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![identity.certificate], identity.key)
        .unwrap();
    let address = harness.gateway.https.strip_prefix("https://").unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    stream.write_all(b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[test]
fn a_spiffe_id_is_the_principal() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("mesh-ca.pem");
    let (open, restricted) =
        ("spiffe://mission.example/ns/open/sa/app", "spiffe://mission.example/ns/restricted/sa/app");
    let mut identities = identities(&ca, &[open, restricted]).into_iter();

    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--client-ca", ca.to_str().unwrap()]);
    let (status, answer) = get(&harness, identities.next().unwrap());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(harness.received().len(), 1);

    // The class of this namespace has no internet: refused by name, and nothing is sent.
    let (status, answer) = get(&harness, identities.next().unwrap());
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("x-amzn-errortype: ServiceUnavailableException"), "{answer}");
    assert!(answer.contains("route class 'private-only'"), "{answer}");
    assert_eq!(harness.received().len(), 1);

    let lines: Vec<Value> = eventually("the access log", || {
        let text = text_of(&harness.access_log());
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() == 2).then_some(lines)
    });
    let facts: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line["exchange"].as_str().unwrap()).unwrap()).collect();
    assert_eq!((&facts[0]["principal"], &facts[0]["class"]), (&open.into(), &"any".into()));
    assert_eq!((&facts[1]["principal"], &facts[1]["class"]), (&restricted.into(), &"private-only".into()));
    assert_eq!(facts[1]["error"], "ServiceUnavailableException");
}

#[test]
fn two_spiffe_ids_see_lists_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("mesh-ca.pem");
    let ids = ["spiffe://mission.example/ns/a/sa/app", "spiffe://mission.example/ns/b/sa/app"];
    let (mut identities, providers) = (identities(&ca, &ids).into_iter(), ["anthropic.", "amazon."]);
    let class = |name: &str, id: &str, provider: &str| json!({ "name": name, "principals": [id], "models": [format!("{provider}*")], "paths": ["internet"] });
    let classes = json!([
        class("a", ids[0], providers[0]),
        class("b", ids[1], providers[1]),
        { "name": "lists", "operations": ["ListFoundationModels"], "paths": ["internet"] },
    ]);
    let document =
        json!({ "regions": { "us-east-1": {} }, "principal": [{ "from": "mtls" }], "route_classes": classes });
    let file = dir.path().join("policy.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let arguments = ["--client-ca", ca.to_str().unwrap(), "--policy", file.to_str().unwrap()];
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &arguments);
    for provider in providers {
        let (status, answer) = get(&harness, identities.next().unwrap());
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let list: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
        let models = list["modelSummaries"].as_array().unwrap();
        let own = |model: &&Value| model["modelId"].as_str().unwrap().starts_with(provider);
        assert!(status == 200 && models.len() > 5 && models.iter().all(|model| own(&model)), "{provider}: {body}");
    }
}
