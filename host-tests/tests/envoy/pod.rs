//! A pod as a cluster lays it out: a projected token that rotates, and no key in the environment. The cluster's issuer
//! publishes its keys; the double of STS verifies tokens by them and passes the call to moto, whose keys sign the calls.

use std::time::Duration;

use bedrock_double::sources::Sources;
use bedrock_double::sources::account::{AUDIENCE, COMMERCIAL_ROLE_ARN, IssuerKind, Provider};
use bedrock_double::sources::issuer::Issuer;
use bedrock_double::sources::jwt::{Algorithm, Signer};
use bedrock_double::{Builder, Keyring};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::clients::{assert_all_answered, python};
use crate::harness::{Harness, Keys, eventually, text_of};
use crate::moto::Moto;
use crate::sources::{configuration, served};
use crate::web_identity::{ISSUER, SUBJECT, TRUST, Volume};

const GET: &[u8] = b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// A cluster with its issuer, and the Commercial account that knows it.
struct Cluster {
    /// Of the issuer's authority, and of volumes.
    dir: tempfile::TempDir,
    issuer: Issuer,
    signers: [Signer; 2],
    keyring: Keyring,
    sources: Sources,
    moto: Moto,
}

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let issuer = Issuer::start(ISSUER, &dir.path().join("issuer")).unwrap();
        // As clusters sign by default, and as they may.
        let signers =
            [(Algorithm::Rs256, "old"), (Algorithm::Es256, "new")].map(|(by, kid)| Signer::new(by, kid).unwrap());
        let (keyring, moto) = (Keyring::default(), Moto::start());
        let sources = Sources::with_sts(Duration::from_secs(3600), &keyring, false, Some(moto.address())).unwrap();
        sources.change(|account| {
            account.commercial.providers = vec![Provider {
                issuer: ISSUER.to_owned(),
                client_ids: vec![AUDIENCE.to_owned()],
                issuer_kind: IssuerKind::Published(issuer.published()),
            }];
            let role = account.commercial.roles.iter_mut().find(|role| role.arn == COMMERCIAL_ROLE_ARN).unwrap();
            role.trust = TRUST.replace("ISSUER", ISSUER).replace("system:serviceaccount:NAMESPACE:NAME", SUBJECT);
        });
        issuer.set_keys(&[signers[0].public_key()]);
        Self { dir, issuer, signers, keyring, sources, moto }
    }

    fn gateway(&self, credentials: &str) -> Harness {
        let config = configuration(self.dir.path(), &self.sources, self.moto.port(), credentials);
        let change = |double: Builder| double.keyring(&self.keyring);
        Harness::new(Keys::None, &["dx", "vpn"], change, &config.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn volume(&self, name: &str, token: &str) -> Volume {
        Volume::new(self.dir.path().join(format!("volume-{name}")), token)
    }
}

/// A service account's token with some claims replaced.
fn token(signer: &Signer, id: &str, change: &[(&str, Value)]) -> String {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let mut claims = json!({
        "aud": [AUDIENCE], "iss": format!("https://{ISSUER}"), "sub": SUBJECT, "iat": now, "nbf": now,
        "exp": now + 3600, "jti": id,
    });
    for (name, value) in change {
        claims[name] = value.clone();
    }
    signer.sign(&claims).unwrap()
}

fn source(volume: &Volume, cluster: &str) -> String {
    let (file, role) = (volume.file(), COMMERCIAL_ROLE_ARN);
    json!({
        "source": "web_identity", "token": {"cluster": cluster, "file": file},
        "commercial": {"cluster": "sts-com", "region": "us-east-1"}, "role_arn": role,
    })
    .to_string()
}

/// The ids of the tokens whose sessions signed calls, by the access log, without repetition.
fn token_ids(harness: &Harness) -> Vec<String> {
    let log = text_of(&harness.access_log());
    let mut ids: Vec<String> = Vec::new();
    for entry in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let attempt = entry["attempt"]
            .as_str()
            .map_or_else(|| entry["attempt"].clone(), |text| serde_json::from_str(text).unwrap());
        let id = attempt["token_id"].as_str().unwrap_or_default().to_owned();
        if ids.last() != Some(&id) {
            ids.push(id);
        }
    }
    ids
}

#[test]
fn a_pod_calls_with_motos_keys() {
    let cluster = Cluster::new();
    let mut volume = cluster.volume("secrets", &token(&cluster.signers[0], "first", &[]));
    let harness = cluster.gateway(&source(&volume, "pod-token"));
    let own = harness.gateway.envoy_environment();
    assert!(own.iter().all(|name| !name.starts_with("AWS_") && !name.contains("KEY")), "{own:?}");
    assert_all_answered(&python("converse", &harness.gateway.http));
    assert_eq!((served(&cluster.sources, "AssumeRoleWithWebIdentity"), cluster.keyring.count()), (1, 1));

    // The kubelet replaces the token, and the next is of the cluster's next key. A session that ends before its time makes
    // the gateway ask for another; that may be before Envoy has read the new file.
    cluster.issuer.set_keys(&cluster.signers.each_ref().map(Signer::public_key));
    volume.write(&token(&cluster.signers[1], "second", &[]));
    let mut revoked = 0;
    eventually("the second token", || {
        cluster.keyring.revoke_all();
        revoked += 1;
        assert_eq!(harness.gateway.raw(GET).0, 200);
        std::thread::sleep(Duration::from_secs(1));
        token_ids(&harness).contains(&"second".to_owned()).then_some(())
    });
    // From now on the first token is worth nothing.
    cluster.issuer.set_keys(&[cluster.signers[1].public_key()]);
    cluster.keyring.revoke_all();
    assert_all_answered(&python("converse", &harness.gateway.http));
    assert_eq!(cluster.keyring.count(), revoked + 2);
    assert_eq!(cluster.issuer.reads(), revoked + 2, "each token was verified by the issuer's keys");
    assert_eq!(cluster.sources.complaints(), Vec::<String>::new());
    let violations = harness.doubles.iter().map(|double| double.violations().len()).sum::<usize>();
    assert_eq!(violations, revoked + 1, "the calls that met a revoked key");
    assert_eq!(token_ids(&harness), ["first", "second"]);
    // moto made the keys: they are none of the double's.
    for request in harness.received() {
        let key = request.header("authorization").unwrap().split(['=', '/']).nth(1).unwrap();
        assert!(key.starts_with("ASIA") && !key.starts_with("ASIACOM"), "{key}");
    }
}

#[test]
fn tokens_that_sts_refuses_are_named() {
    let cluster = Cluster::new();
    let [known, unknown] = &cluster.signers;
    let past = OffsetDateTime::now_utc().unix_timestamp() - 60;
    let cases = [
        (
            "audience",
            token(known, "a", &[("aud", json!(["another"]))]),
            "InvalidIdentityToken: Incorrect token audience",
        ),
        ("issuer", token(known, "i", &[("iss", json!("https://oidc.example"))]), "No OpenIDConnect provider found"),
        (
            "subject",
            token(known, "s", &[("sub", json!("system:serviceaccount:other:gateway"))]),
            "AccessDenied: Not authorized",
        ),
        ("expired", token(known, "e", &[("exp", json!(past))]), "ExpiredTokenException: Token expired"),
        ("signature", token(unknown, "k", &[]), "InvalidIdentityToken: Couldn't retrieve verification key"),
    ];
    let volumes = cases.each_ref().map(|(name, token, _)| cluster.volume(name, token));
    let sets = cases
        .iter()
        .zip(&volumes)
        .map(|((name, ..), volume)| format!(r#""{name}": {}"#, source(volume, &format!("token-{name}"))));
    let sets = sets.collect::<Vec<_>>().join(", ");
    let credentials = format!("{}\ncredential_sets: {{{sets}}}", source(&volumes[0], "token-audience"));
    let harness = cluster.gateway(&credentials);
    let log = harness.gateway.run_dir().join("envoy.log");
    for (name, token, wanted) in &cases {
        let start = format!("credentials `{name}` not fetched: AssumeRoleWithWebIdentity: ");
        let line = eventually(name, || text_of(&log).lines().find(|line| line.contains(&start)).map(str::to_owned));
        assert!(line.contains(wanted) && !line.contains(&token[..32]), "want {wanted:?}, found: {line}");
    }
    assert_eq!(harness.gateway.raw(GET).0, 503);
    assert_eq!(cluster.keyring.count(), 0, "moto was not asked");
    assert!(harness.received().is_empty(), "nothing was sent without credentials");
}
