//! Keeps fetched credentials fresh, once for all workers: the lease holder fetches and publishes to shared data.
//!
//! A worker asks [`SharedCredentials::due`] at each tick. Credentials are fetched again well before they expire, and used until
//! they do.

use super::{Credentials, Fetched, Keys, Secret, Session};
use crate::shared::{Shared, millis, update};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Keys are fetched again at most this long before they expire, as AWS's SDKs do.
const EARLY_MS: u64 = 15 * 60 * 1000;
/// Short-lived keys are fetched again when this share of their life is left, in percent.
const EARLY_PERCENT: u64 = 40;
/// The share of that time that is jitter, in percent, so that many gateways do not fetch at the same moment.
const JITTER_PERCENT: u64 = 20;
/// Credentials that do not expire are fetched again after this time, so that a manual rotation takes effect.
const REFETCH_MS: u64 = 5 * 60 * 1000;
/// How long a lease lasts: longer than one call of a fetch may take.
const LEASE_MS: u64 = 6000;
/// Waits after a failure: the first and the longest.
const BACKOFF_MS: (u64, u64) = (500, 30_000);
/// Waits between two fetches for credentials that Bedrock refuses: the first and the longest.
const REFUSAL_MS: (u64, u64) = (10_000, 15 * 60 * 1000);
/// How often the longest of these waits may have refusals forgotten because of a success: an upstream that refuses some calls and
/// accepts others must not cost a fetch for each.
const FORGIVEN: u32 = 8;
/// How long a worker that has handed a fetch over leaves later ones to the others.
const HANDOVER_MS: u64 = 2000;
/// Keys are not used this shortly before they expire: a call has to arrive first.
const MARGIN_MS: u64 = 1000;

/// The credentials of one source, as all workers see them.
#[derive(Debug)]
pub struct SharedCredentials {
    key: String,
    work_key: String,
    /// This worker's id.
    holder: u64,
    /// The last value read, with its version in shared data.
    cached: RefCell<Option<(u32, CachedCredentials)>>,
    /// Whether this worker has handed a fetch over.
    hands_over: Cell<bool>,
    /// Since when such a worker has seen that a fetch is due, in milliseconds since 1970.
    due_since: Cell<Option<u64>>,
    /// The last generation that this worker has seen Bedrock accept, of those that replaced refused ones.
    accepted: Cell<u64>,
}

/// Credentials, and how long they last.
#[derive(Debug, Clone)]
pub struct CachedCredentials {
    /// The credentials.
    pub credentials: Credentials,
    /// Counts up with each fetch.
    pub generation: u64,
    /// When they expire, in milliseconds since 1970; `None`: not known.
    pub expires: Option<u64>,
    /// When the certificate ends that they were fetched with, in the same unit; `None`: there is none.
    pub certificate_ends: Option<u64>,
    refresh_at: u64,
    /// Whether Bedrock refused the ones before.
    follows_refusal: bool,
}

/// The form in shared data. That is memory of Envoy, and its admin pages do not show it.
#[derive(Serialize, Deserialize)]
struct Published {
    generation: u64,
    expires: Option<u64>,
    certificate_ends: Option<u64>,
    refresh_at: u64,
    access_key_id: Option<String>,
    secret: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
    // An older module publishes none.
    #[serde(default)]
    session: Session,
    #[serde(default)]
    follows_refusal: bool,
}

/// Which worker fetches, and when the next try may start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Work {
    holder: u64,
    lease_until: u64,
    failures: u32,
    not_before: u64,
    /// A generation that Bedrock refused: it must be replaced now.
    refused: u64,
    /// How many generations Bedrock has refused in a row.
    #[serde(default)]
    refusals: u32,
    /// Until when a further refused generation is not replaced.
    #[serde(default)]
    keep_until: u64,
    /// How often refusals were forgotten since `forgiven_since`.
    #[serde(default)]
    forgiven: u32,
    #[serde(default)]
    forgiven_since: u64,
}

impl SharedCredentials {
    /// A worker's view of the source named `name`. `holder` must differ from that of any other worker.
    pub fn new(name: &str, holder: u64) -> Self {
        let key = format!("credentials/{name}");
        let work_key = format!("{key}/work");
        let (cached, hands_over, due_since, accepted) = Default::default();
        Self { key, work_key, holder, cached, hands_over, due_since, accepted }
    }

    /// The credentials that were fetched last, expired or not.
    pub fn cached(&self, shared: &dyn Shared) -> Option<CachedCredentials> {
        self.follow(shared)?;
        self.cached.borrow().as_ref().map(|(_, cached)| cached.clone())
    }

    /// Replaces what this worker has read by what was published since. `None` if nothing was published.
    pub fn follow(&self, shared: &dyn Shared) -> Option<()> {
        let (value, version) = shared.get(&self.key)?;
        // Each call gets its own copy from the host.
        let value = Zeroizing::new(value);
        let mut cached = self.cached.borrow_mut();
        if cached.as_ref().is_none_or(|(known, _)| *known != version) {
            *cached =
                serde_json::from_slice::<Published>(&value).ok().map(|published| (version, published.into_cached()));
        }
        Some(())
    }

    /// Whether this worker is to fetch now. It holds the lease then, until it calls [`SharedCredentials::publish`] or
    /// [`SharedCredentials::failed`].
    pub fn due(&self, shared: &dyn Shared, now: SystemTime) -> bool {
        let now = millis(now);
        let cached = self.cached(shared);
        let generation = cached.as_ref().map_or(0, |cached| cached.generation);
        let due = |work: &Work| {
            let stale = cached.as_ref().is_none_or(|cached| now >= cached.refresh_at);
            let refused = generation != 0 && work.refused == generation;
            (stale || refused) && now >= work.not_before && now >= work.lease_until
        };
        // The common case, which writes nothing.
        if !due(&self.work(shared)) {
            self.due_since.set(None);
            return false;
        }
        if self.hands_over.get() {
            let since = self.due_since.get().unwrap_or(now);
            self.due_since.set(Some(since));
            if now < since + HANDOVER_MS {
                return false;
            }
        }
        let claim = |value: Option<&[u8]>| {
            let work = Work::read(value);
            if !due(&work) {
                return (None, false);
            }
            (Some(Work { holder: self.holder, lease_until: now + LEASE_MS, ..work }.write()), true)
        };
        update(shared, &self.work_key, claim).unwrap_or(false)
    }

    /// Extends this worker's lease while it fetches.
    pub fn extend_lease(&self, shared: &dyn Shared, now: SystemTime) {
        let until = millis(now) + LEASE_MS;
        self.change_lease(shared, |work| Work { lease_until: until, ..work });
    }

    /// Publishes fetched credentials to all workers. `jitter` lies between 0 and 1.
    pub fn publish(&self, shared: &dyn Shared, fetched: &Fetched, now: SystemTime, jitter: f64) {
        let now = millis(now);
        let expires = fetched.expires.map(millis);
        let refresh_at = match expires {
            Some(expires) => {
                let life = expires.saturating_sub(now);
                let early = (life * EARLY_PERCENT / 100).min(EARLY_MS);
                let spread = (early * JITTER_PERCENT / 100) as f64 * jitter.clamp(0.0, 1.0);
                expires.saturating_sub(early).saturating_sub(spread as u64)
            }
            None => now + REFETCH_MS,
        };
        let generation = self.cached(shared).map_or(0, |cached| cached.generation) + 1;
        let (access_key_id, secret, session_token, session) = match &fetched.credentials {
            Credentials::Keys(keys) => (
                Some(keys.access_key_id.clone()),
                keys.secret_access_key.0.clone(),
                keys.session_token.as_ref().map(|token| token.0.clone()),
                keys.session.clone(),
            ),
            Credentials::ApiKey(key) => (None, key.0.clone(), None, Session::default()),
        };
        let certificate_ends = fetched.certificate.map(|certificate| millis(certificate.not_after));
        let published = Published {
            generation,
            expires,
            certificate_ends,
            refresh_at,
            access_key_id,
            secret,
            session_token,
            session,
            follows_refusal: self.work(shared).refusals > 0,
        };
        // A struct of texts and numbers: serialising it cannot fail.
        let bytes = Zeroizing::new(serde_json::to_vec(&published).unwrap_or_default());
        shared.set(&self.key, &bytes, None);
        self.change_lease(shared, |work| Work { failures: 0, not_before: 0, refused: 0, lease_until: 0, ..work });
    }

    /// Leaves a fetch to another worker, which may reach what this one does not. `false`: this worker has done so before, and the
    /// others did not fetch, so the fetch has failed.
    pub fn hand_over(&self, shared: &dyn Shared) -> bool {
        if self.hands_over.replace(true) {
            return false;
        }
        self.change_lease(shared, |work| Work { lease_until: 0, ..work });
        true
    }

    /// Ends a failed fetch: the next try is after a wait that doubles.
    pub fn failed(&self, shared: &dyn Shared, now: SystemTime) {
        let now = millis(now);
        self.change_lease(shared, |work| {
            let failures = work.failures.saturating_add(1);
            let (first, longest) = BACKOFF_MS;
            let wait = first.saturating_mul(1 << (failures - 1).min(16)).min(longest);
            Work { failures, not_before: now + wait, lease_until: 0, ..work }
        });
    }

    /// Marks credentials that Bedrock refused as expired or invalid: they are fetched again, once. Returns whether a call may
    /// wait for others. If Bedrock refuses one generation after the other, new ones do not help, and a wait that doubles is
    /// between two fetches.
    pub fn refused(&self, shared: &dyn Shared, generation: u64, now: SystemTime) -> bool {
        let now = millis(now);
        let current = self.cached(shared).map_or(0, |cached| cached.generation);
        let mark = |value: Option<&[u8]>| {
            let work = Work::read(value);
            // They are replaced already, or are being replaced.
            if generation != current || work.refused == generation {
                return (None, true);
            }
            if now < work.keep_until {
                return (None, false);
            }
            let (first, longest) = REFUSAL_MS;
            // It was quiet for long: this refusal is a new one.
            let refusals =
                if now < work.keep_until.saturating_add(longest) { work.refusals.saturating_add(1) } else { 1 };
            let wait = first.saturating_mul(1 << (refusals - 1).min(16)).min(longest);
            (Some(Work { refused: generation, refusals, keep_until: now + wait, ..work }.write()), true)
        };
        update(shared, &self.work_key, mark).unwrap_or(false)
    }

    /// Bedrock accepted a call with these credentials. If they replaced refused ones, the refusals are forgotten: the next one is
    /// a new one.
    pub fn accepted(&self, shared: &dyn Shared, generation: u64, now: SystemTime) {
        let replaced = |cached: &CachedCredentials| cached.generation == generation && cached.follows_refusal;
        // The common cases ask for no shared data.
        if !self.cached.borrow().as_ref().is_some_and(|(_, cached)| replaced(cached))
            || self.accepted.replace(generation) == generation
        {
            return;
        }
        let now = millis(now);
        let forget = |value: Option<&[u8]>| {
            let work = Work::read(value);
            let (_, longest) = REFUSAL_MS;
            let (forgiven, forgiven_since) = match now.saturating_sub(work.forgiven_since) < longest {
                true => (work.forgiven, work.forgiven_since),
                false => (0, now),
            };
            // They may have been refused since.
            if work.refusals == 0 || work.refused == generation || forgiven >= FORGIVEN {
                return (None, ());
            }
            let forgiven = forgiven + 1;
            (Some(Work { refusals: 0, keep_until: 0, forgiven, forgiven_since, ..work }.write()), ())
        };
        let _ = update(shared, &self.work_key, forget);
    }

    /// Changes the lease, if this worker still holds it.
    fn change_lease(&self, shared: &dyn Shared, change: impl Fn(Work) -> Work) {
        let end = |value: Option<&[u8]>| {
            let work = Work::read(value);
            let ours = work.holder == self.holder;
            (ours.then(|| change(work).write()), ())
        };
        let _ = update(shared, &self.work_key, end);
    }

    fn work(&self, shared: &dyn Shared) -> Work {
        Work::read(shared.get(&self.work_key).map(|(value, _)| value).as_deref())
    }
}

impl CachedCredentials {
    /// Whether they may be used.
    pub fn usable(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| millis(now) + MARGIN_MS < expires)
    }

    /// How long they may still be used; `None`: they have no known end.
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        self.expires.map(|expires| Duration::from_millis(expires.saturating_sub(millis(now))))
    }

    /// How long the certificate is still valid; `None`: there is none.
    pub fn certificate_left(&self, now: SystemTime) -> Option<Duration> {
        self.certificate_ends.map(|ends| Duration::from_millis(ends.saturating_sub(millis(now))))
    }
}

impl Published {
    fn into_cached(self) -> CachedCredentials {
        let secret = Secret(self.secret);
        let credentials = match self.access_key_id {
            Some(access_key_id) => Credentials::Keys(Keys {
                access_key_id,
                secret_access_key: secret,
                session_token: self.session_token.map(Secret),
                session: self.session,
            }),
            None => Credentials::ApiKey(secret),
        };
        CachedCredentials {
            credentials,
            generation: self.generation,
            expires: self.expires,
            certificate_ends: self.certificate_ends,
            refresh_at: self.refresh_at,
            follows_refusal: self.follows_refusal,
        }
    }
}

impl Work {
    fn read(value: Option<&[u8]>) -> Self {
        value.and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default()
    }

    fn write(self) -> Vec<u8> {
        // A struct of numbers: serialising it cannot fail.
        serde_json::to_vec(&self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::identity::Validity;
    use crate::shared::tests::Memory;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
    }

    fn keys(id: &str, expires: Option<u64>) -> Fetched {
        let credentials = Credentials::Keys(Keys {
            access_key_id: id.into(),
            secret_access_key: Secret::new("s"),
            session_token: Some(Secret::new("t")),
            session: Session::default(),
        });
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
        let old =
            r#"{"generation":1,"expires":null,"refresh_at":9,"access_key_id":"a","secret":"s","session_token":null}"#;
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
}
