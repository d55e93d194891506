//! Secrets in the module's memory: when a session has been replaced, nothing of the old one is left there.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bedrock_double::sigv4::signing_key;
use proxy_wasm_vm::{OutCall, Outcome, Plugin, Vm, VmBuilder, headers};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{attempt, configuration, converse, filter, only, plugin};
use crate::source;

const BODY: &str = r#"{"messages":[]}"#;
/// Any run of as many bytes of a secret counts as a part of it.
const PART: usize = 12;

/// The secrets of one rotation; `number` makes them unlike those of another.
struct Secrets {
    number: u32,
    key_pem: String,
    key_der: Vec<u8>,
    certificate: String,
}

impl Secrets {
    fn new(number: u32) -> Self {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "example CA");
        authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "gateway");
        (params.not_before, params.not_after) = (date_time_ymd(2015, 8, 20), date_time_ymd(2015, 9, 28));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // The second is of P-384, whose signatures take more of the stack.
        let algorithm = if number == 1 { &rcgen::PKCS_ECDSA_P256_SHA256 } else { &rcgen::PKCS_ECDSA_P384_SHA384 };
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap().pem();
        Self { number, key_pem: key.serialize_pem(), key_der: key.serialize_der(), certificate }
    }

    /// A text of 86 characters, without a pattern.
    fn text(&self, kind: &str) -> String {
        let halves = ["a", "b"].map(|half| Sha256::digest(format!("{kind} {} {half}", self.number)));
        URL_SAFE_NO_PAD.encode(halves.concat())
    }

    fn token(&self) -> String {
        let claims = json!({"jti": format!("id-{}", self.number), "sub": self.text("subject")});
        format!("eyJhbGciOiJSUzI1NiJ9.{}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()), self.text("signature"))
    }

    /// Each secret in each form in which the module has it, by name.
    fn all(&self, day: &str) -> BTreeMap<String, Vec<u8>> {
        let token = self.token();
        let parts: Vec<&str> = token.split('.').collect();
        let mut all: BTreeMap<String, Vec<u8>> =
            ["local key", "local token", "imds session", "key", "session token", "api key"]
                .map(|kind| (kind.to_owned(), self.text(kind).into_bytes()))
                .into();
        all.insert("token's claims".into(), parts[1].into());
        all.insert("token's decoded claims".into(), self.text("subject").into());
        all.insert("token's signature".into(), parts[2].into());
        // `ECPrivateKey` of RFC 5915: version 1, then the scalar.
        let start = self.key_der.windows(4).position(|window| window == [2, 1, 1, 4]).unwrap() + 5;
        let scalar = self.key_der[start..start + usize::from(self.key_der[start - 1])].to_vec();
        let pem: String = self.key_pem.lines().filter(|line| !line.starts_with('-')).collect();
        assert_eq!(STANDARD.decode(&pem).unwrap(), self.key_der);
        // Before the scalar, keys of a curve have the same text; after it is the public key.
        all.insert("key's PEM".into(), pem.as_bytes()[48..88].into());
        all.insert("key's scalar, backwards".into(), scalar.iter().rev().copied().collect());
        all.insert("key's scalar".into(), scalar);
        for (of, service, region) in [
            ("key", "bedrock", "us-east-1"),
            ("local key", "sts", "us-gov-west-1"),
            ("local key", "secretsmanager", "us-gov-west-1"),
        ] {
            let derived = signing_key(&self.text(of), day, region, service);
            all.insert(format!("signing key of {service}"), derived.to_vec());
        }
        all
    }

    /// The answer of a source to a call.
    fn answer(&self, call: &OutCall, expires: &str) -> (&'static str, String) {
        let path = only(&call.headers, ":path");
        let body = String::from_utf8_lossy(&call.body).into_owned();
        let local = json!({"Code": "Success", "AccessKeyId": "ASIALOCAL", "SecretAccessKey": self.text("local key"),
            "Token": self.text("local token"), "Expiration": expires});
        let session = json!({"Code": "Success", "AccessKeyId": "ASIACOM", "SecretAccessKey": self.text("key"),
            "Token": self.text("session token"), "Expiration": expires});
        let certificate = json!({"Certificate": self.certificate, "PrivateKey": self.key_pem}).to_string();
        match (call.cluster.as_str(), path.as_str()) {
            ("imds", "/latest/api/token") => ("200", self.text("imds session")),
            ("imds", "/latest/meta-data/iam/security-credentials/r") => ("200", local.to_string()),
            ("own-imds", "/latest/api/token") => ("200", self.text("imds session")),
            ("own-imds", _) => ("200", session.to_string()),
            ("file", "/") => ("200", self.token()),
            ("agent", _) => ("200", json!({"SecretString": certificate}).to_string()),
            ("secrets", _) => ("200", json!({"SecretString": certificate}).to_string()),
            ("keys", _) => {
                let keys = json!({"AccessKeyId": "ASIACOM", "SecretAccessKey": self.text("key"), "SessionToken": self.text("session token")});
                ("200", json!({"SecretString": keys.to_string()}).to_string())
            }
            ("rolesanywhere", "/sessions") => {
                let keys = json!({"accessKeyId": "ASIACOM", "secretAccessKey": self.text("key"),
                    "sessionToken": self.text("session token"), "expiration": expires});
                ("201", json!({"credentialSet": [{"credentials": keys}]}).to_string())
            }
            ("sts", _) if body.starts_with("Action=GetWebIdentityToken&") => {
                ("200", format!("<R><WebIdentityToken>{}</WebIdentityToken></R>", self.token()))
            }
            ("sts", _) if body.ends_with(&self.token()) => (
                "200",
                format!(
                    "<R><AccessKeyId>ASIACOM</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken>\
                     <Expiration>{expires}</Expiration></R>",
                    self.text("key"),
                    self.text("session token")
                ),
            ),
            other => panic!("a call to {other:?}: {body}"),
        }
    }
}

/// A gateway, a signer and the filters of sources' clusters in one VM.
struct Gateway {
    vm: Vm,
    roles: [Plugin; 2],
    sources: BTreeMap<String, Plugin>,
}

impl Gateway {
    fn new(source: &Value) -> Self {
        let clusters = ["imds", "own-imds", "file", "agent", "secrets", "keys", "rolesanywhere", "sts"];
        let vm = clusters.into_iter().fold(filter().env("AWS_TOKEN", "agent"), VmBuilder::cluster);
        let vm = vm.start().unwrap();
        let roles = ["gateway", "signer"].map(|role| {
            let mut document = configuration(role);
            document["credentials"] = source.clone();
            plugin(&vm, &document)
        });
        let filter_of = |cluster: &str| (cluster.to_owned(), source::source(&vm, cluster));
        let sources = clusters.into_iter().filter(|cluster| *cluster != "file").map(filter_of).collect();
        Self { vm, roles, sources }
    }

    fn ticks(&self) {
        self.roles.iter().for_each(|role| role.tick().unwrap());
    }

    /// Fetches.
    fn fetch(&self, secrets: &Secrets) {
        let expires = time::OffsetDateTime::from(self.vm.clock()) + Duration::from_secs(3600);
        let expires = expires.format(&time::format_description::well_known::Rfc3339).unwrap();
        self.ticks();
        assert!(!self.vm.out_calls().is_empty(), "nothing is fetched: {:?}", self.vm.logs());
        while let Some(call) = self.vm.out_calls().first() {
            if let Some(source) = self.sources.get(&call.cluster) {
                let exchange = source.stream();
                assert_eq!(exchange.request_headers(call.headers.clone(), call.body.is_empty()), Outcome::Continue);
                if !call.body.is_empty() {
                    exchange.request_body(call.body.clone(), true);
                }
                exchange.done();
            }
            let (status, body) = secrets.answer(call, &expires);
            self.vm.answer(call.token, headers([(":status", status)]), body.as_bytes()).unwrap();
        }
        self.ticks();
    }

    /// Signs some calls with what was fetched.
    fn call(&self, secrets: &Secrets) {
        for _ in 0..3 {
            let exchange = self.roles[0].stream();
            exchange.request_headers(converse(&[]), false);
            assert_ne!(exchange.request_body(BODY, true), Outcome::LocalReply, "{:?}", self.vm.logs());
            let attempt = attempt(&self.roles[1], &exchange, "us-east-1");
            attempt.request_headers(exchange.request_map(), false);
            assert_eq!(only(&attempt.request_map(), "x-amz-security-token"), secrets.text("session token"));
            attempt.request_body(BODY, true);
            attempt.response_headers([(":status", "200")], true);
            attempt.done();
            exchange.response_headers([(":status", "200")], true);
            exchange.done();
        }
        self.ticks();
    }

    /// The secrets of which a part is in the module's memory, with the number of places.
    fn left(&self, secrets: &Secrets) -> BTreeMap<String, usize> {
        let memory = self.vm.memory();
        let all = secrets.all("20150830");
        let mut parts: BTreeMap<&[u8], &str> = BTreeMap::new();
        for (name, secret) in &all {
            parts.extend(secret.windows(PART).map(|part| (part, name.as_str())));
        }
        // Most bytes of memory begin no part.
        let mut begins = vec![false; 1 << 16];
        parts.keys().for_each(|part| begins[usize::from(u16::from_le_bytes([part[0], part[1]]))] = true);
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for window in memory.windows(PART) {
            if begins[usize::from(u16::from_le_bytes([window[0], window[1]]))]
                && let Some(name) = parts.get(window)
            {
                *found.entry((*name).to_owned()).or_default() += 1;
            }
        }
        found
    }
}

fn sources() -> BTreeMap<&'static str, Value> {
    let imds = json!({"source": "imds", "cluster": "imds", "role": "r"});
    let sts = json!({"cluster": "sts", "region": "us-east-1"});
    let role = "arn:aws:iam::111122223333:role/bedrock-gateway";
    let certificates = |certificate: Value| {
        json!({
            "source": "roles_anywhere", "cluster": "rolesanywhere", "region": "us-east-1", "role_arn": role,
            "trust_anchor_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:trust-anchor/4f7b6b0e-0000-4000-8000-000000000002",
            "profile_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:profile/4f7b6b0e-0000-4000-8000-000000000001",
            "certificate": certificate,
        })
    };
    BTreeMap::from([
        ("imds", json!({"source": "imds", "cluster": "own-imds", "role": "r"})),
        (
            "federation",
            json!({"source": "federation", "using": imds, "commercial": sts, "role_arn": role,
            "govcloud": {"cluster": "sts", "region": "us-gov-west-1"}, "audience": "bedrock-gateway"}),
        ),
        (
            "web_identity",
            json!({"source": "web_identity", "token": {"cluster": "file"}, "commercial": sts, "role_arn": role}),
        ),
        ("secrets_manager", json!({"source": "secrets_manager", "cluster": "keys", "secret": "s"})),
        (
            "certificate of the agent",
            certificates(json!({"source": "secrets_manager", "cluster": "agent", "secret": "s"})),
        ),
        (
            "certificate",
            certificates(json!({"source": "secrets_manager", "cluster": "secrets", "secret": "s",
            "region": "us-gov-west-1", "using": imds})),
        ),
    ])
}

#[test]
fn a_replaced_session_is_not_in_memory() {
    let mut problems = Vec::new();
    for (name, source) in sources() {
        let gateway = Gateway::new(&source);
        let [first, second] = [1, 2].map(Secrets::new);
        gateway.fetch(&first);
        gateway.call(&first);
        let held = gateway.left(&first);
        // The search finds what must be there.
        assert!(held.contains_key("key") && held.contains_key("session token"), "{name}: {held:?}");
        // What is needed for one fetch only is wiped after it.
        let mut kept = held.clone();
        kept.retain(|secret, _| secret != "key" && secret != "session token");
        if !kept.is_empty() {
            problems.push(format!("{name}: after a fetch: {kept:?}"));
        }
        gateway.vm.advance(Duration::from_secs(3000));
        gateway.fetch(&second);
        // No call has to come.
        problems
            .extend(Some(gateway.left(&first)).filter(|left| !left.is_empty()).map(|left| format!("{name}: {left:?}")));
        gateway.call(&second);
        let left = gateway.left(&first);
        let mut kept = gateway.left(&second);
        kept.retain(|secret, _| secret != "key" && secret != "session token");
        if !left.is_empty() || !kept.is_empty() {
            problems.push(format!("{name}: after a rotation: {left:?}, and of the new secrets: {kept:?}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Each call reads the session from shared data: the host copies it into the module's memory.
#[test]
fn calls_leave_no_copy_of_their_session() {
    for (name, source) in sources() {
        let gateway = Gateway::new(&source);
        let secrets = Secrets::new(1);
        gateway.fetch(&secrets);
        gateway.call(&secrets);
        let held = gateway.left(&secrets);
        assert!(held.contains_key("key") && held.contains_key("session token"), "{name}: {held:?}");
        (0..20).for_each(|_| gateway.call(&secrets));
        assert_eq!(gateway.left(&secrets), held, "{name}: 60 calls later");
    }
}
