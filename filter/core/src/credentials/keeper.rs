//! Keeps fetched credentials fresh, once for all workers: whoever holds the lease fetches, and what came is in shared data.
//!
//! A worker asks [`Keeper::due`] at each tick. Credentials are fetched again well before they expire, and used until they do.

use super::fetch::Fetched;
use super::{Credentials, Keys, Secret};
use crate::shared::{Shared, millis, update};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// How long before they expire keys are fetched again, at most: what AWS's SDKs do.
const EARLY_MS: u64 = 15 * 60 * 1000;
/// For those that live shortly: at so much of their life that is left, in percent.
const EARLY_PERCENT: u64 = 40;
/// How much of that is jitter, in percent: many gateways do not ask at one moment.
const JITTER_PERCENT: u64 = 20;
/// How often credentials without an end are looked at anew: a rotation by hand shows within this time.
const LOOK_AGAIN_MS: u64 = 5 * 60 * 1000;
/// Until whoever fetches is taken for dead: longer than one of its calls may take.
const LEASE_MS: u64 = 6000;
/// Waits after a failure: the first, and the longest.
const BACKOFF_MS: (u64, u64) = (500, 30_000);
/// Keys are not used in the last moments of their life: a call has to arrive.
const MARGIN_MS: u64 = 1000;

/// The credentials of one source, as all workers see them.
#[derive(Debug)]
pub struct Keeper {
    key: String,
    work_key: String,
    /// This worker, unlike any other.
    holder: u64,
    /// What was read last, by its version in shared data.
    cached: RefCell<Option<(u32, Held)>>,
}

/// Credentials, and how far they go.
#[derive(Debug, Clone)]
pub struct Held {
    /// The credentials.
    pub credentials: Credentials,
    /// Counts up with each fetch.
    pub generation: u64,
    /// When they expire, in milliseconds since 1970; none: no end is known.
    pub expires: Option<u64>,
    refresh_at: u64,
}

/// As it stands in shared data: the memory of Envoy, which no page of its shows.
#[derive(Serialize, Deserialize)]
struct Published {
    generation: u64,
    expires: Option<u64>,
    refresh_at: u64,
    access_key_id: Option<String>,
    secret: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

/// Who fetches, and when it may be tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Work {
    holder: u64,
    lease_until: u64,
    failures: u32,
    not_before: u64,
    /// A generation that was refused upstream: it is to be replaced now.
    refused: u64,
}

impl Keeper {
    /// A worker's view of the source named `name`. `holder` must be unlike that of any other worker.
    pub fn new(name: &str, holder: u64) -> Self {
        let key = format!("credentials/{name}");
        Self { work_key: format!("{key}/work"), key, holder, cached: RefCell::default() }
    }

    /// What was fetched last, expired or not.
    pub fn held(&self, shared: &dyn Shared) -> Option<Held> {
        let (value, version) = shared.get(&self.key)?;
        let mut cached = self.cached.borrow_mut();
        if cached.as_ref().is_none_or(|(known, _)| *known != version) {
            *cached = serde_json::from_slice::<Published>(&value).ok().map(|published| (version, published.held()));
        }
        cached.as_ref().map(|(_, held)| held.clone())
    }

    /// Whether this worker is to fetch now. It holds the lease then, until it says [`Keeper::publish`] or
    /// [`Keeper::failed`].
    pub fn due(&self, shared: &dyn Shared, now: SystemTime) -> bool {
        let now = millis(now);
        let held = self.held(shared);
        let generation = held.as_ref().map_or(0, |held| held.generation);
        let due = |work: &Work| {
            let stale = held.as_ref().is_none_or(|held| now >= held.refresh_at);
            let refused = generation != 0 && work.refused == generation;
            (stale || refused) && now >= work.not_before && now >= work.lease_until
        };
        // Most often there is nothing to do, nor to write.
        if !due(&self.work(shared)) {
            return false;
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

    /// This worker is still fetching: its lease goes on.
    pub fn going_on(&self, shared: &dyn Shared, now: SystemTime) {
        let until = millis(now) + LEASE_MS;
        self.end(shared, |work| Work { lease_until: until, ..work });
    }

    /// What was fetched, for all workers. `jitter` lies between 0 and 1.
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
            None => now + LOOK_AGAIN_MS,
        };
        let generation = self.held(shared).map_or(0, |held| held.generation) + 1;
        let (access_key_id, secret, session_token) = match &fetched.credentials {
            Credentials::Keys(keys) => (
                Some(keys.access_key_id.clone()),
                keys.secret_access_key.0.clone(),
                keys.session_token.as_ref().map(|token| token.0.clone()),
            ),
            Credentials::ApiKey(key) => (None, key.0.clone(), None),
        };
        let published = Published { generation, expires, refresh_at, access_key_id, secret, session_token };
        // A struct of texts and numbers: serialising it cannot fail.
        let bytes = Zeroizing::new(serde_json::to_vec(&published).unwrap_or_default());
        shared.set(&self.key, &bytes, None);
        self.end(shared, |work| Work { failures: 0, not_before: 0, refused: 0, lease_until: 0, ..work });
    }

    /// The fetch failed: it is tried again after a while, which doubles.
    pub fn failed(&self, shared: &dyn Shared, now: SystemTime) {
        let now = millis(now);
        self.end(shared, |work| {
            let failures = work.failures.saturating_add(1);
            let (first, longest) = BACKOFF_MS;
            let wait = first.saturating_mul(1 << (failures - 1).min(16)).min(longest);
            Work { failures, not_before: now + wait, lease_until: 0, ..work }
        });
    }

    /// Bedrock says that these credentials are expired or invalid: they are fetched anew, once.
    pub fn refused(&self, shared: &dyn Shared, generation: u64) {
        let note = |value: Option<&[u8]>| {
            let work = Work::read(value);
            let new = Work { refused: generation, ..work };
            ((new != work).then(|| new.write()), ())
        };
        let _ = update(shared, &self.work_key, note);
    }

    /// Changes a lease, if it is this worker's still.
    fn end(&self, shared: &dyn Shared, change: impl Fn(Work) -> Work) {
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

impl Held {
    /// Whether they may be used.
    pub fn usable(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| millis(now) + MARGIN_MS < expires)
    }

    /// How long they may still be used; none: no end is known.
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        self.expires.map(|expires| Duration::from_millis(expires.saturating_sub(millis(now))))
    }
}

impl Published {
    fn held(self) -> Held {
        let secret = Secret(self.secret);
        let credentials = match self.access_key_id {
            Some(access_key_id) => Credentials::Keys(Keys {
                access_key_id,
                secret_access_key: secret,
                session_token: self.session_token.map(Secret),
            }),
            None => Credentials::ApiKey(secret),
        };
        Held { credentials, generation: self.generation, expires: self.expires, refresh_at: self.refresh_at }
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
    use crate::shared::tests::Memory;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
    }

    fn keys(id: &str, expires: Option<u64>) -> Fetched {
        let credentials = Credentials::Keys(Keys {
            access_key_id: id.into(),
            secret_access_key: Secret::new("s"),
            session_token: Some(Secret::new("t")),
        });
        Fetched { credentials, expires: expires.map(at) }
    }

    fn id(held: &Held) -> &str {
        match &held.credentials {
            Credentials::Keys(keys) => &keys.access_key_id,
            Credentials::ApiKey(_) => "",
        }
    }

    #[test]
    fn one_worker_fetches_and_all_see_it() {
        let memory = Memory::default();
        let workers: Vec<_> = (1..=4).map(|holder| Keeper::new("default", holder)).collect();
        assert!(workers.iter().all(|worker| worker.held(&memory).is_none()));
        assert_eq!(workers.iter().filter(|worker| worker.due(&memory, at(0))).count(), 1);
        workers[0].publish(&memory, &keys("a", Some(60_000)), at(100), 0.0);
        for worker in &workers {
            let held = worker.held(&memory).unwrap();
            assert_eq!((id(&held), held.generation, held.usable(at(58_000))), ("a", 1, true));
            assert!(!held.usable(at(59_000)));
            assert!(!worker.due(&memory, at(36_000)));
        }
        // 24 s before their end, once.
        assert_eq!(workers.iter().filter(|worker| worker.due(&memory, at(36_100))).count(), 1);
    }

    #[test]
    fn jitter_is_earlier_and_never_later() {
        for (jitter, wanted) in [(0.0, 2_700_000), (1.0, 2_520_000), (7.0, 2_520_000)] {
            let memory = Memory::default();
            let keeper = Keeper::new("default", 1);
            keeper.due(&memory, at(0));
            keeper.publish(&memory, &keys("a", Some(3_600_000)), at(0), jitter);
            assert!(!keeper.due(&memory, at(wanted - 1)), "{jitter}");
            assert!(keeper.due(&memory, at(wanted)), "{jitter}");
        }
    }

    #[test]
    fn whoever_dies_while_fetching_is_replaced() {
        let memory = Memory::default();
        let (first, second) = (Keeper::new("default", 1), Keeper::new("default", 2));
        assert!(first.due(&memory, at(0)));
        assert!(!second.due(&memory, at(LEASE_MS - 1)));
        assert!(second.due(&memory, at(LEASE_MS)));
        // The first was only slow: what it says of its lease is late.
        first.failed(&memory, at(LEASE_MS + 1));
        assert!(!second.due(&memory, at(LEASE_MS + 2)), "the second's lease holds");
        second.publish(&memory, &keys("b", None), at(LEASE_MS + 3), 0.0);
        assert_eq!(id(&first.held(&memory).unwrap()), "b");
    }

    #[test]
    fn failures_are_spaced_and_the_old_stay_until_they_expire() {
        let memory = Memory::default();
        let keeper = Keeper::new("default", 1);
        assert!(keeper.due(&memory, at(0)));
        keeper.publish(&memory, &keys("a", Some(60_000)), at(0), 0.0);
        let mut now = 36_000;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let start = now;
            while !keeper.due(&memory, at(now)) {
                now += 100;
            }
            waits.push(now - start);
            keeper.failed(&memory, at(now));
        }
        assert_eq!(waits, [0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000]);
        let held = keeper.held(&memory).unwrap();
        assert!(held.usable(at(50_000)) && !held.usable(at(61_000)));
    }

    #[test]
    fn what_was_refused_is_fetched_anew_once() {
        let memory = Memory::default();
        let keeper = Keeper::new("default", 1);
        keeper.due(&memory, at(0));
        keeper.publish(&memory, &keys("a", None), at(0), 0.0);
        assert!(!keeper.due(&memory, at(10)));
        keeper.refused(&memory, 1);
        assert!(keeper.due(&memory, at(11)) && !keeper.due(&memory, at(12)));
        keeper.publish(&memory, &keys("b", None), at(13), 0.0);
        // Late words of calls that used the old ones.
        keeper.refused(&memory, 1);
        assert!(!keeper.due(&memory, at(14)));
        assert_eq!(keeper.held(&memory).unwrap().generation, 2);
        assert!(keeper.due(&memory, at(13 + LOOK_AGAIN_MS)), "and looked at again in time");
    }
}
