//! Federation against doubles of both STS that refuse what AWS's pages say is refused: each refusal is named in the log.

use std::time::Duration;

use bedrock_double::sources::Sources;
use bedrock_double::sources::account::{AUDIENCE, COMMERCIAL_ROLE_ARN, IssuerKind};
use bedrock_double::{Builder, Keyring};
use serde_json::{Value, json};

use crate::harness::{Harness, Keys, eventually, text_of};
use crate::sources::{Soak, configuration, load, served};

const GET: &[u8] = b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// The source with some of its keys replaced.
fn source(change: &[(&str, Value)]) -> Value {
    let mut source = json!({
        "source": "federation", "using": {"source": "imds", "cluster": "imds"},
        "govcloud": {"cluster": "sts-gov", "region": "us-gov-west-1"},
        "commercial": {"cluster": "sts-com", "region": "us-east-1"},
        "audience": AUDIENCE, "role_arn": COMMERCIAL_ROLE_ARN, "tags": {"environment": "test"},
    });
    for (key, value) in change {
        source[key] = value.clone();
    }
    source
}

/// A gateway of four workers and its sources, which `plant` changes first.
fn gateway(plant: impl FnOnce(&Sources), credentials: &str) -> (Harness, Sources) {
    let (harness, sources, _) = with_sessions(Duration::from_secs(3600), plant, credentials);
    (harness, sources)
}

/// The same, with sessions of this life, and the keys that the sources issue.
fn with_sessions(session: Duration, plant: impl FnOnce(&Sources), credentials: &str) -> (Harness, Sources, Keyring) {
    let keyring = Keyring::default();
    let sources = Sources::start(session, &keyring, false).unwrap();
    plant(&sources);
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &sources, 9, credentials);
    let change = |double: Builder| double.keyring(&keyring);
    let harness =
        Harness::new(Keys::Local, &["dx", "vpn"], change, &config.iter().map(String::as_str).collect::<Vec<_>>());
    (harness, sources, keyring)
}

/// Waits for the line that says why a source's credentials were not fetched.
fn assert_refused(harness: &Harness, name: &str, wanted: &str) {
    let log = harness.gateway.run_dir().join("envoy.log");
    let start = format!("credentials `{name}` not fetched: ");
    let line = eventually("a refusal", || text_of(&log).lines().find(|line| line.contains(&start)).map(str::to_owned));
    assert!(line.contains(wanted), "want {wanted:?}, found: {line}");
    assert!(!line.contains("eyJ"), "a token: {line}");
}

#[test]
fn the_shipped_policies_allow_the_exchange() {
    let (harness, sources) = gateway(|_| (), &source(&[]).to_string());
    assert_eq!(harness.gateway.raw(GET).0, 200);
    assert_eq!(sources.complaints(), Vec::<String>::new());
    // The record names the session, as CloudTrail does.
    let entry = eventually("an access log entry", || {
        text_of(&harness.access_log()).lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok())
    });
    let attempt = entry["attempt"].clone();
    let attempt = attempt.as_str().map_or(attempt.clone(), |text| serde_json::from_str(text).unwrap());
    assert_eq!(attempt["session"], "arn:aws:sts::111122223333:assumed-role/bedrock-gateway/bedrock-gateway", "{entry}");
    assert!(attempt["access_key_id"].as_str().unwrap().starts_with("ASIACOM"), "{entry}");
    assert!(attempt["token_id"].is_string(), "{entry}");
}

#[test]
fn sessions_are_renewed_under_load() {
    let soak = Soak::get();
    let (harness, sources, keyring) = with_sessions(soak.session, |_| (), &source(&[]).to_string());
    assert_eq!(harness.gateway.raw(GET).0, 200);
    let (failed, calls) = load(&harness, soak.rate, soak.time);
    harness.assert_no_violation();
    soak.assert_passed(&failed, calls, keyring.count());
    // A renewal may be on its way between the two.
    eventually("as many exchanges of both kinds as sessions", || {
        let exchanges = ["GetWebIdentityToken", "AssumeRoleWithWebIdentity"].map(|name| served(&sources, name));
        (exchanges == [keyring.count(); 2]).then_some(())
    });
}

#[test]
fn sts_refusals_of_a_document_are_named() {
    let role = "arn:aws:iam::111122223333:role/another";
    let cases = [
        (
            "audience",
            source(&[("audience", json!("another"))]),
            "GetWebIdentityToken: answered 403 AccessDenied: User: ",
        ),
        ("tags", source(&[("tags", json!({"team": "a"}))]), "is not authorized to perform: sts:TagGetWebIdentityToken"),
        (
            "role",
            source(&[("role_arn", json!(role))]),
            "AssumeRoleWithWebIdentity: answered 403 AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity",
        ),
        (
            "duration",
            source(&[("duration_seconds", json!(7200))]),
            "answered 400 ValidationError: The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        ),
    ];
    let sets: serde_json::Map<String, Value> =
        cases.iter().map(|(name, source, _)| ((*name).to_owned(), source.clone())).collect();
    let credentials = format!("{}\ncredential_sets: {}", cases[0].1, Value::Object(sets));
    let (harness, _sources) = gateway(|_| (), &credentials);
    for (name, _, wanted) in cases {
        assert_refused(&harness, name, wanted);
    }
    assert_eq!(harness.gateway.raw(GET).0, 503);
    assert!(harness.received().is_empty(), "nothing was sent without credentials");
}

#[test]
fn sts_refusals_of_an_account_are_named() {
    type Plant = fn(&Sources);
    let cases: [(Plant, &str); 6] = [
        (
            |sources| sources.change(|account| account.govcloud.outbound_federation = false),
            "GetWebIdentityToken: answered 403 OutboundWebIdentityFederationDisabledException: ",
        ),
        (
            |sources| sources.set_govcloud_lifetime(Duration::from_secs(120)),
            "GetWebIdentityToken: answered 403 SessionDurationEscalationException: ",
        ),
        (
            |sources| sources.change(|account| account.commercial.providers.clear()),
            "answered 400 InvalidIdentityToken: No OpenIDConnect provider found in your account for https://",
        ),
        (
            |sources| sources.change(|account| account.commercial.providers[0].client_ids = vec!["another".into()]),
            "AssumeRoleWithWebIdentity: answered 400 InvalidIdentityToken: Incorrect token audience",
        ),
        (
            |sources| {
                sources.change(|account| {
                    let trust = &mut account.commercial.roles[0].trust;
                    *trust = trust.replace("role/bedrock-gateway", "role/another");
                });
            },
            "answered 403 AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity",
        ),
        (
            |sources| {
                sources.change(|account| {
                    account.commercial.providers[0].issuer_kind = IssuerKind::Sts { partition: "aws".into() };
                });
            },
            "AssumeRoleWithWebIdentity: answered 400 InvalidIdentityToken: ",
        ),
    ];
    for (plant, wanted) in cases {
        let (harness, _sources) = gateway(plant, &source(&[]).to_string());
        assert_refused(&harness, "default", wanted);
        assert_eq!(harness.gateway.raw(GET).0, 503, "{wanted}");
        assert!(harness.received().is_empty(), "nothing was sent without credentials");
    }
}

#[test]
fn an_unreachable_sts_is_envoys_answer() {
    let keyring = Keyring::default();
    let sources = Sources::start(Duration::from_secs(3600), &keyring, false).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens on port 9, where the cluster `secrets` leads.
    let unreachable = source(&[("commercial", json!({"cluster": "secrets", "region": "us-east-1"}))]);
    let config = configuration(dir.path(), &sources, 9, &unreachable.to_string());
    let harness =
        Harness::new(Keys::Local, &["dx"], |double| double, &config.iter().map(String::as_str).collect::<Vec<_>>());
    assert_refused(
        &harness,
        "default",
        "AssumeRoleWithWebIdentity: cluster 'secrets' was not reached: Envoy answered 503: upstream connect error",
    );
}
