//! All sources in one gateway: what is shown while it runs, at Envoy's levels info and trace, and when Envoy crashes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bedrock_double::sources::account::{
    AUDIENCE, CERTIFICATE_ROLE_ARN, COMMERCIAL_ROLE_ARN, IssuerKind, PROFILE_ARN, Provider, Role, TRUST_ANCHOR_ARN,
};
use bedrock_double::sources::jwt::{Algorithm, Signer};
use bedrock_double::sources::{AGENT_TOKEN, CONTAINER_TOKEN, Sources};
use bedrock_double::{Builder, Keyring};
use serde_json::{Value, json};

use crate::clients::{assert_all_answered, python};
use crate::harness::{Harness, Keys, eventually, text_of};
use crate::moto::Moto;
use crate::roles_anywhere::Authority;
use crate::shown::Shown;
use crate::sources::configuration;
use crate::web_identity::{ISSUER, SUBJECT, TRUST, Volume, token};

const POD_ROLE_ARN: &str = "arn:aws:iam::111122223333:role/pod";

/// A gateway that holds credentials of every source, with what they come from.
struct Everything {
    harness: Harness,
    keyring: Keyring,
    certificate: Value,
    token: String,
    dir: tempfile::TempDir,
    _sources: Sources,
    _moto: Moto,
}

impl Everything {
    fn new(level: &'static str) -> Self {
        let (keyring, moto, authority) = (Keyring::default(), Moto::start(), Authority::new());
        let sources = Sources::start(Duration::from_secs(10), &keyring, false).unwrap();
        let signer = Signer::new(Algorithm::Es256, "cluster").unwrap();
        let keys = vec![signer.public_key().clone()];
        sources.change(|account| {
            account.commercial.providers.push(Provider {
                issuer: ISSUER.to_owned(),
                client_ids: vec![AUDIENCE.to_owned()],
                issuer_kind: IssuerKind::Other { keys },
            });
            account.commercial.roles.push(Role {
                arn: POD_ROLE_ARN.to_owned(),
                trust: TRUST.replace("ISSUER", ISSUER).replace("system:serviceaccount:NAMESPACE:NAME", SUBJECT),
                max_session: Duration::from_secs(3600),
            });
        });
        authority.trusted_by(&sources);
        let (dir, token) = (tempfile::tempdir().unwrap(), token(&signer, 1));
        let volume = Volume::new(dir.path().join("secrets"), &token);
        let certificate = authority.good();
        moto.create_secret("x509", &certificate.to_string());

        let (imds, container) =
            (json!({"source": "imds", "cluster": "imds"}), json!({"source": "container", "cluster": "container"}));
        let commercial = json!({"cluster": "sts-com", "region": "us-east-1"});
        let federation = json!({
            "source": "federation", "using": imds, "govcloud": {"cluster": "sts-gov", "region": "us-gov-west-1"},
            "commercial": commercial, "audience": AUDIENCE, "role_arn": COMMERCIAL_ROLE_ARN,
        });
        let sets = json!({
            "imds": imds,
            "container": container,
            "agent": {"source": "secrets_manager", "cluster": "agent", "secret": "bedrock/api-key"},
            "pod": {
                "source": "web_identity", "token": {"cluster": "pod-token", "file": volume.file()},
                "commercial": commercial, "role_arn": POD_ROLE_ARN,
            },
            "certificate": {
                "source": "roles_anywhere", "cluster": "rolesanywhere", "region": "us-east-1",
                "trust_anchor_arn": TRUST_ANCHOR_ARN, "profile_arn": PROFILE_ARN, "role_arn": CERTIFICATE_ROLE_ARN,
                "certificate": {
                    "source": "secrets_manager", "cluster": "secrets", "secret": "x509", "region": "us-gov-west-1",
                    "using": container,
                },
            },
        });
        let config =
            configuration(dir.path(), &sources, moto.port(), &format!("{federation}\ncredential_sets: {sets}"));
        let audit = dir.path().join("audit.db").display().to_string();
        let config = config.iter().map(String::as_str).chain(["--audit", &audit]).collect::<Vec<_>>();
        let harness = Harness::new(Keys::Local, &["dx", "vpn"], |double: Builder| double.keyring(&keyring), &config);
        harness.gateway.post(&format!("/logging?level={level}"));
        let all = Self { harness, keyring, certificate, token, dir, _sources: sources, _moto: moto };
        assert_all_answered(&python("converse", &all.harness.gateway.http));
        // Each is fetched, and those that end soon again at this level.
        for name in ["default", "imds", "container", "agent", "pod", "certificate"] {
            let again = if ["default", "pod", "certificate"].contains(&name) { 2 } else { 1 };
            let fetched = format!("credentials `{name}` fetched");
            eventually(&fetched, || (text_of(&all.log()).matches(&fetched).count() >= again).then_some(()));
        }
        all
    }

    fn log(&self) -> std::path::PathBuf {
        self.harness.gateway.run_dir().join("envoy.log")
    }

    fn assert_hidden(&self, shown: &Shown) {
        let pem = self.certificate["PrivateKey"].as_str().unwrap();
        let pem: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let token: Vec<&str> = self.token.split('.').collect();
        // Of tokens of GovCloud's STS, how each begins.
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"RSA_0","typ":"JWT"}"#);
        let mut secrets =
            vec![("a secret access key", "issued/secret"), ("a session token", "issued/token"), ("a token", &header)];
        // Keys of the same curve begin alike.
        secrets.extend([("the private key", &pem[0][48..]), ("the private key", pem[1])]);
        // Of claims the beginning: later ones are also names in the certificate.
        secrets.extend([("the pod's token", &token[1][..16]), ("the pod's token", token[2])]);
        secrets.extend([("the container's token", CONTAINER_TOKEN), ("the agent's token", AGENT_TOKEN)]);
        secrets.push(("the metadata service's session", "imds-session-"));
        shown.assert_hides(&secrets);
        // Signatures by GovCloud's keys and by the certificate. A reader could make such a call again.
        for signature in ["Credential=ASIALOCAL", "AWS4-X509-ECDSA-SHA"] {
            assert!(!shown.has(signature), "{signature}");
        }
    }
}

#[test]
fn no_source_shows_a_secret() {
    for level in ["info", "trace"] {
        let mut all = Everything::new(level);
        let shown = Shown::of(&all.harness);
        assert!(shown.has("bedrock_credentials_refreshes"));
        // At trace the log has the calls of all sources.
        for host in
            ["sts.us-gov-west-1.", "sts.us-east-1.", "rolesanywhere.us-east-1.", "secretsmanager.us-gov-west-1."]
        {
            assert_eq!(shown.has(&format!("':authority', '{host}")), level == "trace", "{host}");
        }
        all.assert_hidden(&shown);
        assert_eq!(shown.has("'x-bedrock-gateway-call', '"), level == "trace", "a handle in place of headers");
        // The collector stores the last records when the gateway ends.
        all.harness.gateway.end();
        let shown = Shown::files(&all.harness).records(&all.dir.path().join("audit.db"));
        assert!(shown.has("ASIACOM"), "records name the access key");
        all.assert_hidden(&shown);
        assert!(all.keyring.count() > 3);
    }
}

#[test]
fn a_crash_shows_no_secret() {
    for (signal, level) in [("ABRT", "info"), ("SEGV", "trace")] {
        let all = Everything::new(level);
        let (pid, up) = (all.harness.gateway.envoy_pid(), all.harness.gateway.pid());
        let limits = text_of(Path::new(&format!("/proc/{pid}/limits")));
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let core: Vec<&str> = core.split_whitespace().collect();
        assert_eq!(core[4..6], ["1", "1"], "{limits}");
        // There it writes parts of the request that it was about to read.
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/fd/2")).unwrap(), Path::new("/dev/null"));
        let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
        eventually("the end of up", || all.harness.gateway.said().contains("envoy ended").then_some(()));
        let log = text_of(&all.log());
        assert!(log.contains("Backtrace") || log.contains("#0"), "{signal}: no backtrace in {}", all.log().display());
        for place in [folder, all.harness.gateway.run_dir()] {
            for pid in [pid, up] {
                assert!(
                    !place.join(format!("core.{pid}")).exists() && !place.join("core").exists(),
                    "{}",
                    place.display()
                );
            }
        }
        all.assert_hidden(&Shown::files(&all.harness));
    }
}
