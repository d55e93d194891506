use super::*;
use crate::credentials::identity::Validity;
use crate::shared::tests::Memory;

fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
}

fn keys(id: &str, expires: Option<u64>) -> Fetched {
    let credentials = Credentials::Keys(Keys::new(id, Secret::new("s"), Some(Secret::new("t"))));
    Fetched { credentials, expires: expires.map(at), certificate: None }
}

fn id(cached: &CachedCredentials) -> &str {
    match &cached.credentials {
        Credentials::Keys(keys) => &keys.access_key_id,
        Credentials::ApiKey(_) => "",
    }
}

#[test]
fn one_worker_fetches_and_all_see_it() {
    let memory = Memory::default();
    let workers: Vec<_> = (1..=4).map(|holder| SharedCredentials::new("default", holder)).collect();
    assert!(workers.iter().all(|worker| worker.cached(&memory).is_none()));
    assert_eq!(workers.iter().filter(|worker| worker.due(&memory, at(0))).count(), 1);
    workers[0].publish(&memory, &keys("a", Some(60_000)), at(100), 0.0);
    for worker in &workers {
        let cached = worker.cached(&memory).unwrap();
        assert_eq!((id(&cached), cached.generation, cached.usable(at(58_000))), ("a", 1, true));
        assert!(!cached.usable(at(59_000)));
        assert!(!worker.due(&memory, at(36_000)));
    }
    // 24 s before their end, once.
    assert_eq!(workers.iter().filter(|worker| worker.due(&memory, at(36_100))).count(), 1);
}

#[test]
fn a_certificates_end_is_published() {
    let memory = Memory::default();
    let shared = SharedCredentials::new("default", 1);
    let certificate = Some(Validity { not_before: at(0), not_after: at(90_000) });
    shared.publish(&memory, &Fetched { certificate, ..keys("a", Some(60_000)) }, at(0), 0.0);
    let cached = shared.cached(&memory).unwrap();
    assert_eq!(cached.certificate_left(at(30_000)), Some(Duration::from_secs(60)));
    assert_eq!(cached.certificate_left(at(100_000)), Some(Duration::ZERO));
    shared.publish(&memory, &keys("b", Some(60_000)), at(0), 0.0);
    assert_eq!(shared.cached(&memory).unwrap().certificate_left(at(0)), None);
}

#[test]
fn reads_what_an_older_module_published() {
    let memory = Memory::default();
    let old = r#"{"generation":1,"expires":null,"refresh_at":9,"access_key_id":"a","secret":"s","session_token":null}"#;
    assert!(memory.set("credentials/default", old.as_bytes(), None));
    assert_eq!(id(&SharedCredentials::new("default", 1).cached(&memory).unwrap()), "a");
}

#[test]
fn jitter_is_earlier_and_never_later() {
    for (jitter, wanted) in [(0.0, 2_700_000), (1.0, 2_520_000), (7.0, 2_520_000)] {
        let memory = Memory::default();
        let shared = SharedCredentials::new("default", 1);
        shared.due(&memory, at(0));
        shared.publish(&memory, &keys("a", Some(3_600_000)), at(0), jitter);
        assert!(!shared.due(&memory, at(wanted - 1)), "{jitter}");
        assert!(shared.due(&memory, at(wanted)), "{jitter}");
    }
}

#[test]
fn a_worker_that_dies_loses_its_lease() {
    let memory = Memory::default();
    let (first, second) = (SharedCredentials::new("default", 1), SharedCredentials::new("default", 2));
    assert!(first.due(&memory, at(0)));
    assert!(!second.due(&memory, at(LEASE_MS - 1)));
    assert!(second.due(&memory, at(LEASE_MS)));
    // The first was only slow: its lease is over.
    first.failed(&memory, at(LEASE_MS + 1));
    assert!(!second.due(&memory, at(LEASE_MS + 2)), "the second's lease holds");
    second.publish(&memory, &keys("b", None), at(LEASE_MS + 3), 0.0);
    assert_eq!(id(&first.cached(&memory).unwrap()), "b");
}

#[test]
fn a_worker_hands_a_fetch_over_once() {
    let memory = Memory::default();
    let (main, worker) = (SharedCredentials::new("default", 1), SharedCredentials::new("default", 2));
    assert!(main.due(&memory, at(0)) && main.hand_over(&memory));
    // The other does not wait, and the first leaves it the next fetches, too.
    assert!(!main.due(&memory, at(1)) && worker.due(&memory, at(1)));
    worker.publish(&memory, &keys("a", Some(60_000)), at(2), 0.0);
    assert!(!main.due(&memory, at(36_000)));
    assert!(!main.due(&memory, at(36_100)) && worker.due(&memory, at(36_100)));
    assert!(!main.due(&memory, at(36_150)));
    worker.failed(&memory, at(36_200));
    // If no other fetches, the first does, and it fails as others do.
    assert!(!main.due(&memory, at(36_700)) && !main.due(&memory, at(38_699)));
    assert!(main.due(&memory, at(38_700)) && !main.hand_over(&memory));
}

#[test]
fn failures_back_off_and_old_keys_stay() {
    let memory = Memory::default();
    let shared = SharedCredentials::new("default", 1);
    assert!(shared.due(&memory, at(0)));
    shared.publish(&memory, &keys("a", Some(60_000)), at(0), 0.0);
    let mut now = 36_000;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let start = now;
        while !shared.due(&memory, at(now)) {
            now += 100;
        }
        waits.push(now - start);
        shared.failed(&memory, at(now));
    }
    assert_eq!(waits, [0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000]);
    let cached = shared.cached(&memory).unwrap();
    assert!(cached.usable(at(50_000)) && !cached.usable(at(61_000)));
}

#[test]
fn refused_keys_are_fetched_again_once() {
    let memory = Memory::default();
    let shared = SharedCredentials::new("default", 1);
    shared.due(&memory, at(0));
    shared.publish(&memory, &keys("a", None), at(0), 0.0);
    assert!(!shared.due(&memory, at(10)));
    assert!(shared.refused(&memory, 1, at(10)));
    assert!(shared.due(&memory, at(11)) && !shared.due(&memory, at(12)));
    shared.publish(&memory, &keys("b", None), at(13), 0.0);
    // A call that used the old keys is late.
    assert!(shared.refused(&memory, 1, at(13)));
    assert!(!shared.due(&memory, at(14)));
    assert_eq!(shared.cached(&memory).unwrap().generation, 2);
    assert!(shared.due(&memory, at(13 + REFETCH_MS)), "and fetched again in time");
}

#[test]
fn refused_again_and_again_backs_off() {
    let memory = Memory::default();
    let shared = SharedCredentials::new("default", 1);
    shared.due(&memory, at(0));
    shared.publish(&memory, &keys("a", None), at(0), 0.0);
    let (mut fetches, mut resent) = (Vec::new(), 0);
    // Ten calls a second, each refused, for ten minutes.
    for now in (0..600_000).step_by(100) {
        let generation = shared.cached(&memory).unwrap().generation;
        resent += u32::from(shared.refused(&memory, generation, at(now)));
        if shared.due(&memory, at(now)) {
            fetches.push(now / 1000);
            shared.publish(&memory, &keys("b", None), at(now), 0.0);
        }
    }
    assert_eq!(fetches, [0, 10, 30, 70, 150, 310], "and every five minutes, as without refusals");
    assert_eq!(resent, 6);
    // An hour later a refusal is a new one.
    let generation = shared.cached(&memory).unwrap().generation;
    assert!(shared.refused(&memory, generation, at(3_600_000)));
    assert!(shared.due(&memory, at(3_600_000)));
    shared.publish(&memory, &keys("c", None), at(3_600_000), 0.0);
    assert!(!shared.refused(&memory, generation + 1, at(3_609_000)));
    assert!(shared.refused(&memory, generation + 1, at(3_610_000)));
}

#[test]
fn a_success_ends_the_wait_for_new_keys() {
    let memory = Memory::default();
    let workers = [SharedCredentials::new("default", 1), SharedCredentials::new("default", 2)];
    let [first, other] = &workers;
    first.due(&memory, at(0));
    first.publish(&memory, &keys("a", None), at(0), 0.0);
    // Revoked again and again, two seconds apart; a call succeeds with each new key.
    for round in 1..=8 {
        let now = round * 2000;
        let generation = first.cached(&memory).unwrap().generation;
        assert!(first.refused(&memory, generation, at(now)), "{round}");
        assert!(first.due(&memory, at(now)), "{round}");
        first.publish(&memory, &keys("b", None), at(now), 0.0);
        // The old key's last answers prove nothing.
        other.cached(&memory).unwrap();
        other.accepted(&memory, generation, at(now));
        assert!(!other.refused(&memory, generation + 1, at(now)), "{round}");
        other.accepted(&memory, generation + 1, at(now));
    }
}

#[test]
fn some_successes_do_not_end_the_wait_for_ever() {
    let memory = Memory::default();
    let shared = SharedCredentials::new("default", 1);
    shared.due(&memory, at(0));
    shared.publish(&memory, &keys("a", None), at(0), 0.0);
    let mut fetches = 0;
    // For 14 minutes each second call is refused, and the others are answered.
    for now in (0..840_000).step_by(100) {
        let generation = shared.cached(&memory).unwrap().generation;
        if shared.refused(&memory, generation, at(now)) && shared.due(&memory, at(now)) {
            fetches += 1;
            shared.publish(&memory, &keys("b", None), at(now), 0.0);
        }
        let generation = shared.cached(&memory).unwrap().generation;
        shared.accepted(&memory, generation, at(now));
    }
    assert!(fetches <= FORGIVEN + 8, "{fetches}");
}
