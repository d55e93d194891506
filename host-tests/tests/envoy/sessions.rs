//! Role sessions by caller (`session: principal`): 200 callers with tokens arrive at 8 a second, then call at 200 a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bedrock_double::sources::Sources;
use bedrock_double::sources::account::{
    AUDIENCE, CERTIFICATE_ROLE_ARN, COMMERCIAL_ROLE_ARN, PROFILE_ARN, TRUST_ANCHOR_ARN,
};
use bedrock_double::sources::jwt::{Algorithm, Signer};
use bedrock_double::{Builder, Keyring};
use bedrock_load::{MODEL, Outcome};
use serde_json::{Value, json};

use crate::harness::{Harness, Keys, eventually, text_of};
use crate::moto::Moto;
use crate::roles_anywhere::Authority;
use crate::sources::{configuration, load_of, served};
use crate::web_identity::{Volume, token, trust};

const CALLERS: usize = 200;
const ARRIVALS: u32 = 8;
/// Keys live so long: each session is renewed once while the test runs.
const LIFE: Duration = Duration::from_secs(40);
pub(crate) const GATEWAY: &str = "                http_filters:\n                  - name: bedrock.gateway\n";

/// A gateway of four workers whose callers show tokens, and whose source begins a session for each of them.
struct Gateway {
    harness: Harness,
    sources: Sources,
    keyring: Keyring,
    signer: Signer,
}

impl Gateway {
    /// `secrets` is the port of Secrets Manager; `plant` changes the sources first.
    fn start(secrets: u16, credentials: &Value, plant: impl FnOnce(&Sources)) -> Self {
        let keyring = Keyring::default();
        let sources = Sources::start(LIFE, &keyring, false).unwrap();
        plant(&sources);
        let signer = Signer::new(Algorithm::Es256, "callers").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let arguments = configuration(dir.path(), &sources, secrets, "{ source: environment }");
        let [_, base, _, policy, ..] = arguments.as_slice() else { panic!("{arguments:?}") };
        let text = text_of(base.as_ref());
        assert_eq!(text.matches(GATEWAY).count(), 1);
        std::fs::write(base, text.replace(GATEWAY, &jwt_authn(&signer))).unwrap();
        let document = json!({
            "regions": { "us-east-1": {} },
            "principal": [{ "from": "jwt", "payload": "caller", "claim": "sub" }],
            "inference_profiles": { MODEL: format!("us.{MODEL}") },
            "route_classes": [{ "name": "any", "paths": ["dx", "vpn"], "session": "principal" }],
            "credentials": credentials,
        });
        std::fs::write(policy, document.to_string()).unwrap();
        let change = |double: Builder| double.keyring(&keyring);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let harness = Harness::new(Keys::Local, &["dx", "vpn"], change, &arguments);
        Self { harness, sources, keyring, signer }
    }

    /// The `authorization` of a caller.
    fn token(&self, caller: &str) -> String {
        format!("Bearer {}", self.signer.sign(&json!({ "iss": "https://mesh.example", "sub": caller })).unwrap())
    }

    fn load(&self, rate: u32, time: Duration, callers: &[String]) -> Vec<Outcome> {
        load_of(callers, &self.harness, rate, time)
    }

    /// What signed the attempts of each caller in the access log, once that has so many calls.
    fn sessions(&self, calls: usize) -> BTreeMap<String, Signed> {
        let facts = |entry: &Value, name: &str| match &entry[name] {
            Value::String(text) => serde_json::from_str(text).unwrap(),
            facts => facts.clone(),
        };
        let log = eventually("the access log", || {
            Some(text_of(&self.harness.access_log())).filter(|log| log.lines().count() >= calls)
        });
        let mut sessions: BTreeMap<String, Signed> = BTreeMap::new();
        for entry in log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            let (exchange, attempt) = (facts(&entry, "exchange"), facts(&entry, "attempt"));
            // Nothing was sent for a call that was refused.
            let Some(arn) = attempt["session"].as_str() else { continue };
            let signed = sessions.entry(exchange["principal"].as_str().unwrap().to_owned()).or_default();
            signed.calls += 1;
            signed.names.insert(arn.rsplit('/').next().unwrap().to_owned());
            signed.keys.insert(attempt["access_key_id"].as_str().unwrap().to_owned());
        }
        sessions
    }
}

/// What signed the attempts of a caller.
#[derive(Debug, Default)]
struct Signed {
    calls: usize,
    /// The last parts of the sessions' ARNs.
    names: BTreeSet<String>,
    keys: BTreeSet<String>,
}

/// Envoy's filter that verifies the callers' tokens.
pub(crate) fn jwt_authn(signer: &Signer) -> String {
    let keys = json!({ "keys": [signer.public_key().jwk()] }).to_string();
    let filter = json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": { "mesh": { "local_jwks": { "inline_string": keys }, "payload_in_metadata": "caller" } },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "requires_any": { "requirements": [
                { "provider_name": "mesh" }, { "allow_missing": {} },
            ] } } }],
        },
    });
    GATEWAY.replace("http_filters:\n", &format!("http_filters:\n                  - {filter}\n"))
}

fn federation() -> Value {
    json!({
        "source": "federation", "using": { "source": "imds", "cluster": "imds" },
        "govcloud": { "cluster": "sts-gov", "region": "us-gov-west-1" },
        "commercial": { "cluster": "sts-com", "region": "us-east-1" },
        "audience": AUDIENCE, "role_arn": COMMERCIAL_ROLE_ARN,
    })
}

fn certificate(secret: &str) -> Value {
    json!({
        "source": "roles_anywhere", "cluster": "rolesanywhere", "region": "us-east-1",
        "trust_anchor_arn": TRUST_ANCHOR_ARN, "profile_arn": PROFILE_ARN, "role_arn": CERTIFICATE_ROLE_ARN,
        "certificate": {
            "source": "secrets_manager", "cluster": "secrets", "secret": secret, "region": "us-gov-west-1",
            "using": { "source": "container", "cluster": "container" },
        },
    })
}

/// The callers arrive and call: each attempt has its caller's session, and there is one exchange for each life of it.
fn callers_have_sessions(gateway: &Gateway, exchange: &str) {
    let callers: Vec<String> = (0..CALLERS).map(|nth| format!("spiffe://corp.example/ns/team/sa/{nth}")).collect();
    let tokens: Vec<String> = callers.iter().map(|caller| gateway.token(caller)).collect();
    let arriving = Duration::from_secs(CALLERS as u64 / u64::from(ARRIVALS));
    let mut outcomes = gateway.load(ARRIVALS, arriving, &tokens);
    let arrived = outcomes.len();
    outcomes.extend(gateway.load(CALLERS as u32, Duration::from_secs(10), &tokens));
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.end != "ok").collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), outcomes.len(), failed[0]);
    gateway.harness.assert_no_violation();
    assert_eq!(gateway.sources.complaints(), Vec::<String>::new());

    let sessions = gateway.sessions(outcomes.len());
    assert!(sessions.len() >= arrived.min(CALLERS) && arrived >= CALLERS - 2, "{arrived}, {}", sessions.len());
    assert_eq!(sessions.values().map(|signed| signed.calls).sum::<usize>(), outcomes.len());
    let mut issued = 0;
    for (caller, Signed { names, keys, .. }) in &sessions {
        let name = caller.replace(':', "=3A").replace('/', "=2F");
        assert_eq!(*names, BTreeSet::from([name]));
        assert!((1..=2).contains(&keys.len()), "{caller}: {keys:?}");
        issued += keys.len();
    }
    let all: BTreeSet<&String> = sessions.values().flat_map(|signed| &signed.keys).collect();
    assert_eq!(all.len(), issued, "a key has signed for two callers");
    // The source's own session besides, which may have been renewed; and sessions that were renewed after their last call.
    let exchanges = served(&gateway.sources, exchange);
    assert_eq!(exchanges, gateway.keyring.count());
    assert!((issued + 1..=issued + 12).contains(&exchanges), "{exchanges} exchanges, {issued} keys");
    eprintln!("{} calls of {} callers, {exchanges} exchanges", outcomes.len(), sessions.len());
}

#[test]
fn federated_callers_have_own_sessions() {
    let gateway = Gateway::start(9, &federation(), |_| ());
    callers_have_sessions(&gateway, "AssumeRoleWithWebIdentity");
}

#[test]
fn certified_callers_have_own_sessions() {
    let (moto, authority) = (Moto::start(), Authority::new());
    moto.create_secret("x509", &authority.good().to_string());
    let gateway = Gateway::start(moto.port(), &certificate("x509"), |sources| {
        authority.trusted_by(sources);
        sources.change(|account| account.commercial.profiles[0].accept_role_session_name = true);
    });
    callers_have_sessions(&gateway, "CreateSession");
}

/// The role's trust policy lets in one caller, by a tag of the token that the caller's session is begun with.
#[test]
fn a_token_is_tagged_with_its_caller() {
    let mut credentials = federation();
    credentials["tags"] = json!({ "environment": "{session}" });
    let gateway = Gateway::start(9, &credentials, |sources| {
        sources.change(|account| {
            let trust = &mut account.commercial.roles[0].trust;
            let mut policy: Value = serde_json::from_str(trust).unwrap();
            let mut tagged = policy["Statement"].as_array_mut().unwrap().iter_mut();
            let tagged = tagged.find(|statement| statement["Action"].to_string().contains("sts:TagSession")).unwrap();
            let callers = json!(["bedrock-gateway", "spiffe=3A=2F=2Fcorp=2Fa", "b=2Cc"]);
            tagged["Condition"]["StringEquals"]["aws:RequestTag/environment"] = callers;
            *trust = policy.to_string();
        });
    });
    let call = |caller: &str| {
        let header = format!("authorization: {}", gateway.token(caller));
        let request = format!("GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n\r\n");
        gateway.harness.gateway.raw(request.as_bytes()).0
    };
    for caller in ["spiffe://corp/a", "b,c"] {
        assert_eq!(call(caller), 200, "{caller}");
    }
    // STS refuses the others a session, and they get none of these.
    for caller in ["spiffe://corp/b", "a"] {
        assert!(matches!(call(caller), 429 | 503), "{caller}");
    }
    gateway.harness.assert_no_violation();
}

#[test]
fn callers_of_a_pod_have_own_sessions() {
    let cluster = Signer::new(Algorithm::Es256, "cluster").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut volume = Volume::new(dir.path().join("secrets"), &token(&cluster, 1));
    let credentials = json!({
        "source": "web_identity", "token": { "cluster": "pod-token", "file": volume.file() }, "role_arn": COMMERCIAL_ROLE_ARN,
        "commercial": { "cluster": "sts-com", "region": "us-east-1" },
    });
    let gateway = Gateway::start(9, &credentials, |sources| trust(sources, &[&cluster]));
    let call = |caller: &str| {
        let head = format!("host: x\r\nconnection: close\r\nauthorization: {}\r\n", gateway.token(caller));
        gateway.harness.gateway.raw(format!("GET /foundation-models HTTP/1.1\r\n{head}\r\n").as_bytes()).0
    };
    let callers: Vec<String> = (0..10).map(|nth| format!("spiffe://corp.example/sa/{nth}")).collect();
    for round in 0..2 {
        for caller in &callers {
            assert_eq!(call(caller), 200, "{caller}, {round}");
        }
        // A rotated token begins the sessions of later callers.
        volume.write(&token(&cluster, 2));
    }
    assert_eq!(call("later"), 200);
    gateway.harness.assert_no_violation();
    assert_eq!(gateway.sources.complaints(), Vec::<String>::new());
    let sessions = gateway.sessions(2 * callers.len() + 1);
    assert_eq!(sessions.len(), callers.len() + 1);
    for (caller, signed) in &sessions {
        assert_eq!(signed.names, BTreeSet::from([caller.replace(':', "=3A").replace('/', "=2F")]));
    }
    let keys: Vec<&String> = sessions.values().flat_map(|signed| &signed.keys).collect();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "a key has signed for two callers");
    // One for each caller, the source's own besides, and those that were renewed.
    let exchanges = served(&gateway.sources, "AssumeRoleWithWebIdentity");
    assert!((12..=24).contains(&exchanges), "{exchanges} exchanges");
}

#[test]
fn refuses_callers_without_a_session() {
    let gateway = Gateway::start(9, &federation(), |_| ());
    let call = |authorization: Option<&str>| {
        let header = authorization.map(|value| format!("authorization: {value}\r\n")).unwrap_or_default();
        let request = format!("GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n");
        gateway.harness.gateway.raw(request.as_bytes())
    };
    // A caller without a name has no session, and gets none of another caller.
    let (status, _, body) = call(None);
    assert_eq!(status, 403);
    assert!(body.contains("route class 'any'") && body.contains("has proved none"), "{body}");
    assert_eq!(call(Some(&gateway.token("alice"))).0, 200);
    assert_eq!(call(None).0, 403);

    // More new callers than the source may begin sessions for wait, then are told when.
    let tokens: Vec<String> = (0..100).map(|nth| gateway.token(&format!("crowd-{nth}"))).collect();
    let outcomes = gateway.load(100, Duration::from_secs(1), &tokens);
    let with = |status: u16| outcomes.iter().filter(|outcome| outcome.status == status).count();
    // Sessions that were begun shortly before the end of the wait.
    assert!(with(503) <= 3, "{:?}", outcomes.iter().find(|outcome| outcome.status == 503));
    assert_eq!(with(200) + with(429) + with(503), outcomes.len());
    assert!((15..=45).contains(&with(200)), "{} of {}", with(200), outcomes.len());
    let refused = outcomes.iter().find(|outcome| outcome.status == 429).unwrap();
    assert_eq!(refused.end, "ThrottlingException");
    assert!(refused.ms >= 1900.0, "{refused:?}");
    gateway.harness.assert_no_violation();
    for (caller, signed) in gateway.sessions(outcomes.len()) {
        assert_eq!(signed.names, BTreeSet::from([caller]));
    }
}
