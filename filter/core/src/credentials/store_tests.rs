use super::*;
use crate::credentials::session_name::SessionName;
use crate::credentials::{Keys, Secret};
use crate::policy::Policy;
use crate::shared::tests::Memory;
use serde_json::json;
use std::collections::BTreeMap;

const TICK_MS: u64 = 100;

fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
}

/// The store of a worker whose source begins sessions.
fn store(holder: u64) -> CredentialStore {
    let document = json!({
        "role": "gateway",
        "regions": {"us-east-1": {}},
        "principal": [{"from": "mtls"}],
        "route_classes": [{"name": "any", "paths": ["dx"], "session": "principal"}],
        "credentials": {
            "source": "web_identity", "token": {"cluster": "token"},
            "commercial": {"cluster": "sts", "region": "us-east-1"},
            "role_arn": "arn:aws:iam::123456789012:role/bedrock", "sessions_per_second": 10
        }
    });
    let policy = Policy::parse(document.to_string().as_bytes(), None).unwrap();
    CredentialStore::resolve(&policy.credential_sources, policy.auth, holder, &|_| None).unwrap()
}

fn session(principal: &str) -> CredentialId {
    CredentialId { source: "default".to_owned(), session: Some(SessionName::of(principal)) }
}

/// What a source gives for a session: its name is in the key's id.
fn fetched(id: &CredentialId, expires: u64) -> Fetched {
    let credentials = Credentials::Keys(Keys::new(
        format!("ASIA{}", id.session.as_ref().map_or("own", SessionName::as_str)),
        Secret::new("s"),
        Some(Secret::new("t")),
    ));
    Fetched { credentials, expires: Some(at(expires)), certificate: None }
}

fn key(status: &CredentialStatus) -> Option<&str> {
    match status {
        CredentialStatus::Usable { credentials: Credentials::Keys(keys), .. } => Some(&keys.access_key_id),
        _ => None,
    }
}

#[test]
fn a_session_is_fetched_when_a_call_asks() {
    let (memory, store) = (Memory::default(), store(1));
    let alice = session("alice");
    // The source's own only.
    assert_eq!(store.due(&memory, at(0)), [CredentialId::of_source("default")]);
    assert!(matches!(store.ask(&alice, &memory, at(0)), CredentialStatus::Queued(1)));
    assert_eq!(store.due(&memory, at(100)), std::slice::from_ref(&alice));
    assert!(store.due(&memory, at(200)).is_empty());
    assert!(matches!(store.ask(&alice, &memory, at(200)), CredentialStatus::Queued(1)));
    store.publish(&alice, &memory, &fetched(&alice, 3_600_000), at(300), 0.0);
    assert_eq!(key(&store.ask(&alice, &memory, at(300))), Some("ASIAalice"));
    assert_eq!(key(&store.ask(&session("bob"), &memory, at(300))), None);
    // Without calls it is not fetched again, and with one before it expires.
    assert!(store.due(&memory, at(3_000_000)).iter().all(|id| id.session.is_none()));
    assert_eq!(key(&store.ask(&alice, &memory, at(3_000_000))), Some("ASIAalice"));
    assert_eq!(store.due(&memory, at(3_000_100)), std::slice::from_ref(&alice));
    assert_eq!(key(&store.ask(&alice, &memory, at(3_600_000))), None);
}

#[test]
fn a_plan_asks_for_the_callers_session() {
    let store = store(1);
    for (id, wanted) in [(CredentialId::of_source("default"), "bedrock-gateway"), (session("a/b"), "a=2Fb")] {
        let Some(FetchPlan::WebIdentity { session_name, .. }) = store.plan(&id) else { panic!("another plan") };
        assert_eq!(session_name, wanted);
    }
}

/// New callers arrive at 8 a second, and call each second from then on, on two workers.
#[test]
fn each_caller_has_one_exchange() {
    let (memory, workers) = (Memory::default(), [store(1), store(2)]);
    let (mut exchanges, mut in_flight) = (BTreeMap::<CredentialId, u32>::new(), Vec::new());
    let (mut waited, mut late) = (BTreeMap::<usize, u64>::new(), 0);
    for tick in 0..600_u64 {
        let now = at(tick * TICK_MS);
        let callers = usize::try_from(tick * 8 / 10).unwrap().min(200);
        for caller in 0..callers {
            if (caller + usize::try_from(tick).unwrap()) % 10 != 0 && waited.contains_key(&caller) {
                continue;
            }
            let id = session(&format!("spiffe://corp/{caller}"));
            let status = workers[caller % 2].ask(&id, &memory, now);
            match key(&status) {
                Some(key) => {
                    assert_eq!(key, format!("ASIA{}", id.session.as_ref().unwrap()));
                    waited.entry(caller).or_insert(tick);
                }
                None => late += u32::from(tick * TICK_MS > caller as u64 * 125 + 1000),
            }
        }
        for (worker, id) in std::mem::take(&mut in_flight) {
            let store: &CredentialStore = &workers[worker];
            store.publish(&id, &memory, &fetched(&id, 3_600_000), now, 0.0);
        }
        for (worker, store) in workers.iter().enumerate() {
            for id in store.due(&memory, now) {
                *exchanges.entry(id.clone()).or_default() += 1;
                in_flight.push((worker, id));
            }
        }
    }
    assert_eq!((exchanges.len(), waited.len(), late), (201, 200, 0));
    assert!(exchanges.values().all(|count| *count == 1), "{exchanges:?}");
}

#[test]
fn a_caller_past_the_rate_is_told_when() {
    let (memory, store) = (Memory::default(), store(1));
    for caller in 0..100 {
        store.ask(&session(&caller.to_string()), &memory, at(0));
    }
    assert_eq!(store.due(&memory, at(0)).iter().filter(|id| id.session.is_some()).count(), 2);
    for caller in 0..100 {
        let status = store.ask(&session(&caller.to_string()), &memory, at(0));
        assert!(matches!(status, CredentialStatus::Queued(8)), "{status:?}");
    }
}

/// Begins the sessions that are missing, as calls of all callers would.
fn begin_missing(store: &CredentialStore, memory: &Memory, ids: &[CredentialId]) -> usize {
    let mut begun = 0;
    for id in ids {
        let status = store.status(id, memory, at(0));
        if let Some(key) = key(&status) {
            assert_eq!(key, format!("ASIA{}", id.session.as_ref().unwrap()));
            continue;
        }
        let shared = SharedCredentials::of_session("default", id.session.as_ref().unwrap(), 1, memory, at(0));
        assert!(shared.due(memory, at(0)), "{id}");
        store.publish(id, memory, &fetched(id, 3_600_000), at(0), 0.0);
        begun += 1;
    }
    begun
}

#[test]
fn ten_thousand_sessions_are_kept_apart() {
    let (memory, store) = (Memory::default(), store(1));
    let ids = |prefix: &str, count: usize| {
        (0..count).map(|caller| session(&format!("spiffe://{prefix}/{caller}"))).collect::<Vec<_>>()
    };
    let callers = ids("corp", 10_000);
    let begun: Vec<usize> = (0..4).map(|_| begin_missing(&store, &memory, &callers)).collect();
    // Where all eight slots of a session were taken, it took another's, which takes a further one.
    assert!(begun.iter().sum::<usize>() <= 10_100 && begun.last() == Some(&0), "{begun:?}");
    // Of three times as many, some are begun again and again; no slot is added.
    begin_missing(&store, &memory, &ids("other", 30_000));
    let slots = memory.values.borrow().len();
    assert!(slots <= 2 * 16_384 + 8, "{slots}");
}

#[test]
fn a_refused_session_is_fetched_again() {
    let (memory, gateway, signer) = (Memory::default(), store(1), store(2));
    let alice = session("alice");
    gateway.ask(&alice, &memory, at(0));
    gateway.due(&memory, at(0));
    gateway.publish(&alice, &memory, &fetched(&alice, 3_600_000), at(0), 0.0);
    let CredentialStatus::Usable { generation, .. } = signer.status(&alice, &memory, at(1000)) else { panic!() };
    assert!(signer.refused(&alice, &memory, generation, at(1000)));
    assert_eq!(gateway.due(&memory, at(1100)), std::slice::from_ref(&alice));
    gateway.publish(&alice, &memory, &fetched(&alice, 3_600_000), at(1200), 0.0);
    let CredentialStatus::Usable { generation: next, .. } = signer.status(&alice, &memory, at(1300)) else { panic!() };
    assert!(next > generation);
}

#[test]
fn a_failed_session_waits_before_it_is_tried() {
    let (memory, store) = (Memory::default(), store(1));
    let alice = session("alice");
    let mut tries = 0;
    for tick in 0..600 {
        let now = at(tick * TICK_MS);
        assert_eq!(key(&store.ask(&alice, &memory, now)), None);
        for id in store.due(&memory, now).iter().filter(|id| id.session.is_some()) {
            tries += 1;
            store.failed(id, &memory, now);
        }
    }
    // After 0.5, 1, 2 … 30 s.
    assert!((6..=8).contains(&tries), "{tries}");
}
