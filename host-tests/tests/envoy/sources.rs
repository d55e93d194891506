//! Credentials that the gateway fetches, from doubles that check every token, header and signature.

use std::path::Path;
use std::time::{Duration, Instant};

use bedrock_double::sources::{ROLE, Sources, Trouble};
use bedrock_double::{Builder, Keyring};
use bedrock_load::{Load, MODEL, Outcome};

use crate::clients::{assert_all_answered, call, python};
use crate::harness::{Harness, Keys, base, eventually, policy, text_of};
use crate::shown::Shown;

const GET: &[u8] = b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const ENVIRONMENT: &str = "credentials: { source: environment }";

/// Arguments of `up`: the example's document with another source, and clusters that lead to the doubles and, for Secrets Manager,
/// to a port.
pub(crate) fn configuration(dir: &Path, sources: &Sources, secrets: u16, credentials: &str) -> Vec<String> {
    let own =
        ["imds", "container", "agent", "sts-gov", "sts-com", "rolesanywhere"].map(|name| (name, sources.addr().port()));
    let clusters: String = own
        .into_iter()
        .chain([("secrets", secrets)])
        .map(|(name, port)| {
            format!(
                "    - name: {name}\n      connect_timeout: 1s\n      load_assignment:\n        cluster_name: {name}\n        \
                 endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, \
                 port_value: {port} }} }} }} }}] }}]\n"
            )
        })
        .collect();
    let base = base(dir, "    - name: audit-als\n", &format!("{clusters}    - name: audit-als\n"));
    let policy = policy(dir, ENVIRONMENT, &format!("credentials: {credentials}"));
    ["--base", &base, "--policy", &policy, "--concurrency", "4"].map(str::to_owned).into()
}

/// A gateway of four workers whose keys come from `credentials`, and the doubles that they come from and go to.
pub(crate) fn fetching(
    credentials: &str,
    lifetime: Duration,
    of_bedrock: bool,
    trouble: Trouble,
) -> (Harness, Sources, Keyring) {
    let keyring = Keyring::default();
    let sources = Sources::start(lifetime, &keyring, of_bedrock).unwrap();
    sources.set_trouble(trouble);
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &sources, 9, credentials);
    let change = |double: Builder| double.keyring(&keyring);
    let harness =
        Harness::new(Keys::Local, &["dx", "vpn"], change, &config.iter().map(String::as_str).collect::<Vec<_>>());
    (harness, sources, keyring)
}

pub(crate) fn served(sources: &Sources, question: &str) -> usize {
    sources.served().get(question).copied().unwrap_or(0)
}

#[test]
fn every_local_source_serves_calls() {
    let imds = format!(r#"{{"source": "imds", "cluster": "imds", "role": "{ROLE}"}}"#);
    for (credentials, question) in [
        (r#"{"source": "imds", "cluster": "imds"}"#, "imds keys"),
        (&imds, "imds keys"),
        (r#"{"source": "container", "cluster": "container"}"#, "container keys"),
        (r#"{"source": "secrets_manager", "cluster": "agent", "secret": "bedrock/api-key"}"#, "agent secret"),
    ] {
        let (harness, sources, keyring) = fetching(credentials, Duration::from_secs(3600), true, Trouble::None);
        assert_eq!(harness.gateway.raw(GET).0, 200);
        harness.assert_no_violation();
        assert_eq!(sources.complaints(), Vec::<String>::new(), "{credentials}");
        // One fetch, whatever the number of workers, classes and roles.
        assert_eq!((served(&sources, question), keyring.count()), (1, 1), "{credentials}");
    }
}

#[test]
fn govcloud_identities_assume_a_commercial_role() {
    for using in [r#"{"source": "imds", "cluster": "imds"}"#, r#"{"source": "container", "cluster": "container"}"#] {
        let credentials = format!(
            r#"{{"source": "federation", "using": {using}, "govcloud": {{"cluster": "sts-gov", "region": "us-gov-west-1"}},
            "commercial": {{"cluster": "sts-com", "region": "us-east-1"}}, "audience": "bedrock-gateway",
            "role_arn": "arn:aws:iam::111122223333:role/bedrock-gateway"}}"#
        );
        // On one line, as the block of YAML that it becomes a part of wants it.
        let credentials = credentials.split_whitespace().collect::<Vec<_>>().join(" ");
        let (harness, sources, _) = fetching(&credentials, Duration::from_secs(3600), false, Trouble::None);
        assert_eq!(harness.gateway.raw(GET).0, 200);
        harness.assert_no_violation();
        assert_eq!(sources.complaints(), Vec::<String>::new(), "{using}");
        let calls = ["GetWebIdentityToken", "AssumeRoleWithWebIdentity"].map(|name| served(&sources, name));
        assert_eq!(calls, [1, 1]);
        assert!(harness.received().iter().all(|request| {
            request.header("authorization").is_some_and(|value| value.contains("Credential=ASIACOM"))
        }));
    }
}

#[test]
fn refuses_while_a_source_fails_then_recovers() {
    for trouble in
        [Trouble::Down, Trouble::Garbage, Trouble::OtherJson, Trouble::Expired, Trouble::Slow(Duration::from_secs(30))]
    {
        let (harness, sources, _) =
            fetching(r#"{"source": "imds", "cluster": "imds"}"#, Duration::from_secs(3600), true, trouble);
        let start = Instant::now();
        let (status, head, body) = harness.gateway.raw(GET);
        assert_eq!(status, 503, "{trouble:?}");
        assert!(head.contains("x-amzn-errortype: serviceunavailableexception"), "{head}");
        assert!(body.contains("still waiting for its first credentials"), "{body}");
        assert!(start.elapsed() < Duration::from_secs(4), "{trouble:?}: {:?}", start.elapsed());
        assert!(harness.received().is_empty(), "{trouble:?}");
        sources.set_trouble(Trouble::None);
        eventually("a call that is served", || (harness.gateway.raw(GET).0 == 200).then_some(()));
        harness.assert_no_violation();
    }
}

#[test]
fn short_keys_are_renewed_without_failed_calls() {
    let (harness, sources, keyring) =
        fetching(r#"{"source": "imds", "cluster": "imds"}"#, Duration::from_secs(6), true, Trouble::None);
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < Duration::from_secs(14) {
        assert_eq!(harness.gateway.raw(GET).0, 200);
        calls += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(calls > 100, "{calls}");
    harness.assert_no_violation();
    // At 60 % of their life, less a little: every 2.9 to 3.6 s.
    assert!((3..=6).contains(&keyring.count()), "{} fetches", keyring.count());
    assert_eq!(served(&sources, "imds keys"), keyring.count());
    // While the source is down the last keys serve until their end; then calls are refused by the gateway itself.
    sources.set_trouble(Trouble::Down);
    let refused = eventually("expired keys", || Some(harness.gateway.raw(GET)).filter(|(status, ..)| *status != 200));
    assert_eq!(refused.0, 503);
    assert!(refused.2.contains("have expired"), "{}", refused.2);
    harness.assert_no_violation();
}

#[test]
fn a_revoked_key_costs_no_call() {
    let (harness, _sources, keyring) =
        fetching(r#"{"source": "imds", "cluster": "imds"}"#, Duration::from_secs(3600), true, Trouble::None);
    assert_eq!(harness.gateway.raw(GET).0, 200);
    keyring.revoke_all();
    for _ in 0..5 {
        assert_eq!(harness.gateway.raw(GET).0, 200);
    }
    assert_eq!(keyring.count(), 2);
    assert_eq!(
        harness.doubles.iter().map(|double| double.violations().len()).sum::<usize>(),
        1,
        "the call that met the revoked key"
    );
}

/// A load, and sessions that end during it.
pub(crate) struct Soak {
    /// Calls in a second.
    pub rate: u32,
    pub time: Duration,
    /// How long a session lives.
    pub session: Duration,
}

impl Soak {
    /// Twenty seconds in the suite; five minutes by `cargo xtask soak credentials`, which sets the variable.
    pub(crate) fn get() -> Self {
        let (rate, time, session) = if std::env::var_os("SOAK").is_some() { (300, 300, 60) } else { (100, 20, 10) };
        Self { rate, time: Duration::from_secs(time), session: Duration::from_secs(session) }
    }

    /// Fails unless every call was answered, and each session was fetched once. A session ends on a full second, and is renewed
    /// with 40 to 48 % of its life left. One more may be fetched before the load and after it.
    pub(crate) fn assert_passed(&self, failed: &[Outcome], calls: usize, sessions: usize) {
        let wanted = self.rate as usize * self.time.as_secs() as usize * 3 / 4;
        assert!(failed.is_empty() && calls > wanted, "{} of {calls} failed: {:?}", failed.len(), failed.first());
        let (time, session) = (self.time.as_secs_f64(), self.session.as_secs_f64());
        let (few, many) = (time / (0.6 * session), time / (0.52 * (session - 1.0)) + 2.0);
        assert!((few..=many).contains(&(sessions as f64)), "{sessions} sessions; want {few:.1} to {many:.1}");
        eprintln!("{calls} calls, none failed, {sessions} sessions");
    }
}

/// Load on a gateway of four workers: the calls that failed, and the number of all.
pub(crate) fn load(harness: &Harness, rate: u32, time: Duration) -> (Vec<Outcome>, usize) {
    let outcomes = load_of(&[], harness, rate, time);
    let calls = outcomes.len();
    (outcomes.into_iter().filter(|outcome| outcome.end != "ok").collect(), calls)
}

/// All calls of such a load by callers with these `authorization` headers, used in turn.
pub(crate) fn load_of(callers: &[String], harness: &Harness, rate: u32, time: Duration) -> Vec<Outcome> {
    let load = Load {
        gateway: harness.gateway.http.strip_prefix("http://").unwrap().parse().unwrap(),
        rate,
        time,
        streams: 0,
        pause: Duration::ZERO,
        thinkers: 0,
        thought: Duration::ZERO,
        bulk: 0,
        bulk_bytes: 0,
        model: MODEL.to_owned(),
        callers: callers.to_vec(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (tell, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let running = tokio::spawn(load.run(tell));
        let mut outcomes = Vec::new();
        while let Some(outcome) = ended.recv().await {
            outcomes.push(outcome);
        }
        running.await.unwrap();
        outcomes
    })
}

#[test]
fn four_workers_fetch_once_for_each_rotation() {
    let lifetime = Duration::from_secs(10);
    let (harness, sources, keyring) =
        fetching(r#"{"source": "imds", "cluster": "imds"}"#, lifetime, true, Trouble::None);
    let (failed, calls) = load(&harness, 100, Duration::from_secs(20));
    assert!(failed.is_empty() && calls > 1500, "{} of {calls} failed: {:?}", failed.len(), failed.first());
    harness.assert_no_violation();
    // Keys to the second live 9 to 10 s, and are renewed with 40 to 48 % of that left.
    assert!((4..=6).contains(&keyring.count()), "{} fetches", keyring.count());
    assert_eq!(served(&sources, "imds keys"), keyring.count());
}

#[test]
fn a_key_revoked_under_load_is_replaced_once() {
    let (harness, _sources, keyring) =
        fetching(r#"{"source": "imds", "cluster": "imds"}"#, Duration::from_secs(3600), true, Trouble::None);
    let revoked = std::thread::scope(|scope| {
        let running = scope.spawn(|| load(&harness, 100, Duration::from_secs(6)));
        std::thread::sleep(Duration::from_secs(3));
        keyring.revoke_all();
        running.join().unwrap()
    });
    let (failed, calls) = revoked;
    // Each call is signed again once, and none fails.
    assert!(failed.is_empty() && calls > 400, "{} of {calls} failed: {:?}", failed.len(), failed.first());
    assert_eq!(keyring.count(), 2);
}

#[test]
fn classes_call_with_credentials_of_their_own() {
    let credentials = r#"{"source": "imds", "cluster": "imds"}
credential_sets: {"lists": {"source": "container", "cluster": "container"}}"#;
    let keyring = Keyring::default();
    let sources = Sources::start(Duration::from_secs(3600), &keyring, true).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &sources, 9, credentials);
    let policy = Path::new(&config[3]);
    let text = text_of(policy);
    // The class that has no caller's name to match matches operations instead, and has another source.
    let own = "operations: [ListFoundationModels]\n    credentials: lists";
    std::fs::write(policy, text.replace(r#"principals: ["spiffe://*/ns/restricted/*"]"#, own)).unwrap();
    let change = |double: Builder| double.keyring(&keyring);
    let harness =
        Harness::new(Keys::Local, &["dx", "vpn"], change, &config.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(harness.gateway.raw(GET).0, 200);
    assert_all_answered(&python("converse", &harness.gateway.http));
    harness.assert_no_violation();
    let calls = ["imds keys", "container keys"].map(|question| served(&sources, question));
    assert_eq!(calls, [1, 1]);
    let key = |operation: &str| {
        let received = harness.received();
        let request = received.iter().find(|request| request.operation.as_deref() == Some(operation)).unwrap();
        request.header("x-amz-security-token").unwrap().to_owned()
    };
    assert_ne!(key("ListFoundationModels"), key("Converse"));
}

#[test]
fn no_secret_of_a_source_is_shown_anywhere() {
    let (harness, _sources, keyring) =
        fetching(r#"{"source": "imds", "cluster": "imds"}"#, Duration::from_secs(10), true, Trouble::None);
    // Envoy logs everything, a rotation included.
    harness.gateway.post("/logging?level=trace");
    eventually("a rotation", || (keyring.count() > 1).then_some(()));
    assert_eq!(call(&python("converse", &harness.gateway.http), "Converse").get("error"), None);
    let shown = Shown::of(&harness);
    assert!(shown.has("bedrock_credentials_seconds_left"));
    shown.assert_hides(&[("a secret access key", "issued/secret"), ("a session token", "issued/token")]);
}
