//! Credentials by an X.509 certificate: sessions of IAM Roles Anywhere, with the certificate in moto's Secrets Manager.

use std::time::Duration;

use bedrock_double::sources::Sources;
use bedrock_double::sources::account::{CERTIFICATE_ROLE_ARN, COMMON_NAME, PROFILE_ARN, TRUST_ANCHOR_ARN};
use bedrock_double::{Builder, Keyring};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SignatureAlgorithm};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::clients::{assert_all_answered, call, python};
use crate::harness::{Harness, Keys, eventually, text_of};
use crate::moto::Moto;
use crate::shown::Shown;
use crate::sources::{Soak, configuration, load, served};

/// A certification authority with one intermediate.
pub(crate) struct Authority {
    root_pem: String,
    issuing: Issuer<'static, KeyPair>,
    issuing_pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            (params, KeyPair::generate().unwrap())
        };
        let (params, key) = ca("root");
        let root_pem = params.self_signed(&key).unwrap().pem();
        let root = Issuer::new(params, key);
        let (params, key) = ca("issuing");
        let issuing_pem = params.signed_by(&key, &root).unwrap().pem();
        Self { root_pem, issuing: Issuer::new(params, key), issuing_pem }
    }

    /// The secret of a certificate, in the form of `aws acm export-certificate`.
    pub(crate) fn secret(
        &self,
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Value {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuing).unwrap().pem();
        json!({"Certificate": certificate, "CertificateChain": self.issuing_pem, "PrivateKey": key.serialize_pem()})
    }

    /// Makes it the trust anchor's.
    pub(crate) fn trusted_by(&self, sources: &Sources) {
        sources.change(|account| account.commercial.trust_anchors[0].ca_pem = self.root_pem.clone());
    }

    pub(crate) fn good(&self) -> Value {
        self.secret(&rcgen::PKCS_ECDSA_P256_SHA256, |_| ())
    }
}

/// The source with its certificate in a secret.
fn source(secret: &str) -> String {
    format!(
        r#"{{"source": "roles_anywhere", "cluster": "rolesanywhere", "region": "us-east-1", "trust_anchor_arn": "{TRUST_ANCHOR_ARN}", "profile_arn": "{PROFILE_ARN}", "role_arn": "{CERTIFICATE_ROLE_ARN}", "certificate": {{"source": "secrets_manager", "cluster": "secrets", "secret": "{secret}", "region": "us-gov-west-1", "using": {{"source": "container", "cluster": "container"}}}}}}"#
    )
}

/// A gateway of four workers, whose sessions Bedrock accepts for `lifetime`.
fn gateway(moto: &Moto, lifetime: Duration, credentials: &str) -> (Harness, Sources, Keyring) {
    let keyring = Keyring::default();
    let sources = Sources::start(lifetime, &keyring, false).unwrap();
    // Some of these tests have many sources.
    sources.set_sessions_per_second(1000.0);
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &sources, moto.port(), credentials);
    let change = |double: Builder| double.keyring(&keyring);
    let harness =
        Harness::new(Keys::Local, &["dx", "vpn"], change, &config.iter().map(String::as_str).collect::<Vec<_>>());
    (harness, sources, keyring)
}

#[test]
fn a_certificate_gets_sessions_that_sign_calls() {
    let (moto, authority) = (Moto::start(), Authority::new());
    for (name, algorithm) in
        [("x509/p256", &rcgen::PKCS_ECDSA_P256_SHA256), ("x509/p384", &rcgen::PKCS_ECDSA_P384_SHA384)]
    {
        let secret = authority.secret(algorithm, |_| ());
        moto.create_secret(name, &secret.to_string());
        let (harness, sources, keyring) = gateway(&moto, Duration::from_secs(3600), &source(name));
        authority.trusted_by(&sources);
        harness.gateway.post("/logging?level=trace");
        assert_all_answered(&python("converse", &harness.gateway.http));
        harness.assert_no_violation();
        assert_eq!((served(&sources, "CreateSession"), keyring.count()), (1, 1), "{:?}", sources.complaints());
        let page = harness.gateway.admin("/stats/prometheus");
        assert!(page.contains("bedrock_certificate_seconds_left"), "{page}");

        // No part of the key is anywhere, although Envoy logs everything. Keys of one curve begin alike.
        let key = secret["PrivateKey"].as_str().unwrap();
        let mut parts: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).collect();
        parts[0] = &parts[0][48..];
        let parts = parts.into_iter().filter(|part| part.len() >= 12).map(|part| ("the key", part));
        let secrets: Vec<(&str, &str)> = parts.chain([("a secret access key", "issued/secret")]).collect();
        assert!(secrets.len() >= 3);
        Shown::of(&harness).assert_hides(&secrets);
    }
}

#[test]
fn a_rotated_certificate_under_load() {
    let soak = Soak::get();
    let (moto, old, new) = (Moto::start(), Authority::new(), Authority::new());
    moto.create_secret("x509", &old.good().to_string());
    let (harness, sources, keyring) = gateway(&moto, soak.session, &source("x509"));
    old.trusted_by(&sources);
    assert_eq!(call(&python("converse", &harness.gateway.http), "Converse").get("error"), None);
    let (failed, calls) = std::thread::scope(|scope| {
        let running = scope.spawn(|| load(&harness, soak.rate, soak.time));
        std::thread::sleep(soak.time * 2 / 5);
        // The new certificate first: the old one is refused from then on.
        moto.put_secret("x509", &new.good().to_string());
        new.trusted_by(&sources);
        running.join().unwrap()
    });
    harness.assert_no_violation();
    soak.assert_passed(&failed, calls, keyring.count());
    // A renewal may be on its way.
    eventually("as many exchanges as sessions", || {
        (served(&sources, "CreateSession") == keyring.count()).then_some(())
    });
}

#[test]
fn each_bad_certificate_has_its_answer() {
    let (moto, authority, stranger) = (Moto::start(), Authority::new(), Authority::new());
    let now = OffsetDateTime::now_utc();
    let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
    let good = authority.good();
    let with = |key: &str, value: &Value| {
        let mut secret = good.clone();
        secret[key] = value.clone();
        secret
    };
    let garbage = format!("garbage\n{}", good["Certificate"].as_str().unwrap());
    let cases = [
        ("expired", authority.secret(p256, |params| params.not_after = now - time::Duration::days(1)), "expired at "),
        (
            "early",
            authority.secret(p256, |params| params.not_before = now + time::Duration::days(1)),
            "not valid before ",
        ),
        (
            "chain",
            with("CertificateChain", &Value::Null),
            "answered 403 AccessDeniedException: Untrusted signing certificate",
        ),
        ("stranger", stranger.good(), "answered 403 AccessDeniedException: Untrusted signing certificate"),
        (
            "key",
            with("PrivateKey", &stranger.good()["PrivateKey"]),
            "the private key does not belong to the certificate",
        ),
        ("ca", authority.secret(p256, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "is a CA"),
        ("garbage", with("Certificate", &json!(garbage)), "the certificate is not PEM, or has text outside"),
        ("nothing", json!({}), "the secret does not hold a certificate"),
    ];
    let mut sets = Vec::new();
    for (name, mut secret, _) in cases.clone() {
        if secret["CertificateChain"].is_null() {
            secret.as_object_mut().unwrap().remove("CertificateChain");
        }
        moto.create_secret(&format!("x509/{name}"), &secret.to_string());
        sets.push(format!(r#""{name}": {}"#, source(&format!("x509/{name}"))));
    }
    let credentials = format!("{}\ncredential_sets: {{{}}}", source("x509/expired"), sets.join(", "));
    let (harness, sources, _) = gateway(&moto, Duration::from_secs(3600), &credentials);
    authority.trusted_by(&sources);
    let (status, _, body) =
        harness.gateway.raw(b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(status, 503, "{body}");
    let log = harness.gateway.run_dir().join("envoy.log");
    for (name, _, wanted) in cases {
        let line = eventually(name, || {
            let start = format!("credentials `{name}` not fetched: ");
            text_of(&log).lines().find(|line| line.contains(&start) && line.contains(wanted)).map(str::to_owned)
        });
        assert!(!line.contains("PRIVATE KEY"), "{line}");
    }
    assert!(harness.received().is_empty(), "nothing was sent without credentials");
}
