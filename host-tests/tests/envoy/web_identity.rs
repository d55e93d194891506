//! Tokens in a pod's projected volumes: Envoy reads the file, and the filter has none.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bedrock_double::sources::account::{AUDIENCE, COMMERCIAL_ROLE_ARN, IssuerKind, Provider};
use bedrock_double::sources::jwt::{Algorithm, PublicKey, Signer};
use bedrock_double::sources::{CONTAINER_TOKEN, Sources};
use bedrock_double::{Builder, Keyring};
use serde_json::json;
use time::OffsetDateTime;

use crate::clients::{assert_all_answered, python};
use crate::harness::{Harness, Keys, eventually, text_of};
use crate::shown::Shown;
use crate::sources::{configuration, served};

/// The policy that the guide names.
pub(crate) const TRUST: &str = include_str!("../../../infra/policies/commercial-trust-kubernetes.json");
/// In the form of EKS; the id is made up.
pub(crate) const ISSUER: &str = "oidc.eks.us-gov-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE";
pub(crate) const SUBJECT: &str = "system:serviceaccount:bedrock-gateway:gateway";

/// A projected volume, as the kubelet writes it (`pkg/volume/util/atomic_writer.go` of Kubernetes): `token` is a link to
/// `..data/token`, and `..data` one to the folder of the current version.
pub(crate) struct Volume {
    dir: PathBuf,
    versions: usize,
}

impl Volume {
    pub(crate) fn new(dir: PathBuf, token: &str) -> Volume {
        std::fs::create_dir(&dir).unwrap();
        let mut volume = Volume { dir, versions: 0 };
        volume.write(token);
        symlink("..data/token", volume.file()).unwrap();
        volume
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// Writes a version and swaps `..data`; the old version is removed.
    pub(crate) fn write(&mut self, token: &str) {
        let name = |version: usize| format!("..2026_01_02_03_04_{version:02}.1");
        let (old, new) = (self.dir.join(name(self.versions)), name(self.versions + 1));
        self.versions += 1;
        std::fs::create_dir(self.dir.join(&new)).unwrap();
        std::fs::write(self.dir.join(&new).join("token"), token).unwrap();
        symlink(&new, self.dir.join("..data_tmp")).unwrap();
        std::fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).unwrap();
        let _ = std::fs::remove_dir_all(old);
    }
}

/// A service account's token, as the API server issues it for a projected volume.
pub(crate) fn token(signer: &Signer, number: u32) -> String {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let claims = json!({
        "aud": [AUDIENCE], "iss": format!("https://{ISSUER}"), "sub": SUBJECT,
        "iat": now, "nbf": now, "exp": now + 3600, "jti": format!("00000000-0000-4000-8000-{number:012}"),
        "kubernetes.io": {
            "namespace": "bedrock-gateway", "pod": { "name": "gateway-0" }, "serviceaccount": { "name": "gateway" },
        },
    });
    signer.sign(&claims).unwrap()
}

/// Makes the cluster's issuer the only provider of the Commercial account, with these keys.
pub(crate) fn trust(sources: &Sources, signers: &[&Signer]) {
    let keys: Vec<PublicKey> = signers.iter().map(|signer| signer.public_key().clone()).collect();
    sources.change(|account| {
        account.commercial.providers = vec![Provider {
            issuer: ISSUER.to_owned(),
            client_ids: vec![AUDIENCE.to_owned()],
            issuer_kind: IssuerKind::Other { keys },
        }];
        let policy = TRUST.replace("ISSUER", ISSUER).replace("system:serviceaccount:NAMESPACE:NAME", SUBJECT);
        for role in account.commercial.roles.iter_mut().filter(|role| role.arn == COMMERCIAL_ROLE_ARN) {
            role.trust.clone_from(&policy);
        }
    });
}

fn start(keys: Keys, dir: &Path, sources: &Sources, keyring: &Keyring, credentials: &str) -> Harness {
    let config = configuration(dir, sources, 9, credentials);
    let change = |double: Builder| double.keyring(keyring);
    Harness::new(keys, &["dx", "vpn"], change, &config.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_rotated_pod_token_assumes_the_role() {
    // The cluster replaces its key, too: at the end STS refuses the first token.
    let [first, second] = ["first", "second"].map(|kid| Signer::new(Algorithm::Es256, kid).unwrap());
    let tokens = [token(&first, 1), token(&second, 2)];
    let keyring = Keyring::default();
    let sources = Sources::start(Duration::from_secs(10), &keyring, false).unwrap();
    trust(&sources, &[&first, &second]);
    let dir = tempfile::tempdir().unwrap();
    let mut volume = Volume::new(dir.path().join("secrets"), &tokens[0]);
    let credentials = format!(
        r#"{{"source": "web_identity", "token": {{"cluster": "pod-token", "file": "{}"}}, "commercial": {{"cluster": "sts-com", "region": "us-east-1"}}, "role_arn": "{COMMERCIAL_ROLE_ARN}"}}"#,
        volume.file().display()
    );
    let harness = start(Keys::None, dir.path(), &sources, &keyring, &credentials);
    harness.gateway.post("/logging?level=trace");
    assert_all_answered(&python("converse", &harness.gateway.http));
    let exchanges = || served(&sources, "AssumeRoleWithWebIdentity");
    let next_exchange = || {
        let before = exchanges();
        eventually("an exchange", || (exchanges() > before).then_some(()));
    };
    volume.write(&tokens[1]);
    // It may have begun before Envoy read the new file.
    next_exchange();
    trust(&sources, &[&second]);
    next_exchange();
    assert_all_answered(&python("converse", &harness.gateway.http));
    assert_eq!(sources.complaints(), Vec::<String>::new());
    harness.assert_no_violation();
    // One exchange for all workers.
    assert_eq!(keyring.count(), exchanges());

    let shown = Shown::of(&harness);
    // Envoy's log has the calls that read the tokens.
    assert!(shown.has("[trace]") && shown.has("pod-token"), "no trace");
    let parts = tokens.iter().flat_map(|token| token.split('.').skip(1));
    shown.assert_hides(&parts.map(|part| ("a token", part)).collect::<Vec<_>>());
}

#[test]
fn pod_identity_gets_its_token_from_a_file() {
    let keyring = Keyring::default();
    let sources = Sources::start(Duration::from_secs(3600), &keyring, true).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::new(dir.path().join("secrets"), CONTAINER_TOKEN);
    let credentials = format!(
        r#"{{"source": "container", "cluster": "container", "token": {{"cluster": "container-token", "file": "{}"}}}}"#,
        volume.file().display()
    );
    let harness = start(Keys::PodIdentity, dir.path(), &sources, &keyring, &credentials);
    assert_all_answered(&python("converse", &harness.gateway.http));
    harness.assert_no_violation();
    assert_eq!(sources.complaints(), Vec::<String>::new());
    assert_eq!(served(&sources, "container keys"), 1);
    // Envoy's main thread, whose VM may try first, does not reach the listener. That is not a failure.
    assert!(!text_of(&harness.gateway.run_dir().join("envoy.log")).contains("not fetched"));
}
