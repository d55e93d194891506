//! Keeps fetched credentials fresh, once for all workers: the lease holder fetches and publishes to shared data.
//!
//! A worker asks [`SharedCredentials::due`] at each tick. Credentials are fetched again well before they expire, and used until
//! they do. A source's own credentials have a key of their own, sessions of callers share a table of fixed size.

use super::session_name::SessionName;
use super::{Credentials, Fetched, Keys, Secret, Session};
use crate::lease::{Handover, Lease};
use crate::shared::{Shared, millis, update};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
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
/// Keys are not used this shortly before they expire: a call has to arrive first.
const MARGIN_MS: u64 = 1000;
/// Slots of the table of a source's sessions: so many can be kept at a time, at about 3 KB each.
const SLOTS: u64 = 16_384;
/// The credentials of one source, or of a session there, as all workers see them.
#[derive(Debug)]
pub struct SharedCredentials {
    /// Whose session they are; `None`: the source's own.
    owner: Option<SessionName>,
    /// What tells owners of a slot apart; 0 for a source's own credentials.
    mark: [u64; 2],
    key: String,
    work_key: String,
    /// This worker's id.
    holder: u64,
    /// The last value read, with its version in shared data.
    cached: RefCell<Option<(u32, CachedCredentials)>>,
    handover: Handover,
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
    /// When they were fetched, in the same unit; 0: an older module fetched them.
    pub fetched_at: u64,
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
    #[serde(default)]
    fetched_at: u64,
    refresh_at: u64,
    access_key_id: Option<String>,
    secret: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
    // An older module publishes none.
    #[serde(default)]
    session: Session,
    #[serde(default)]
    follows_refusal: bool,
    /// As of [`SharedCredentials`].
    #[serde(default)]
    owner: Option<SessionName>,
}

/// Which worker fetches, and when the next try may start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Work {
    #[serde(flatten)]
    lease: Lease,
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
    /// Whose session the slot has; 0 for a source's own credentials.
    #[serde(default)]
    owner: [u64; 2],
    /// Until when another session should not take the slot.
    #[serde(default)]
    kept_until: u64,
}

impl SharedCredentials {
    /// A worker's view of the source named `name`. `holder` must differ from that of any other worker.
    pub fn new(name: &str, holder: u64) -> Self {
        Self::at(format!("credentials/{name}"), None, holder)
    }

    /// A worker's view of a session at the source named `source`: of its slot, or of one that it may take.
    pub fn of_session(source: &str, session: &SessionName, holder: u64, shared: &dyn Shared, now: SystemTime) -> Self {
        let now = millis(now);
        let digest = Sha256::digest(session.as_str());
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let key = |slot: u64| format!("credentials/{source}/session/{slot}");
        let mut own = Self::at(String::new(), Some(session.clone()), holder);
        let mut words = digest.chunks_exact(8).map(number);
        own.mark = [words.next().unwrap_or_default(), words.next().unwrap_or_default()];
        // Of eight slots that have nothing to do with each other: its own, else one that is free, else the one that is free soonest.
        let mut best: Option<(u64, u64)> = None;
        for slot in digest.chunks_exact(4).map(|bytes| number(bytes) % SLOTS) {
            let raw = Work::read(shared.get(&work_key(&key(slot))).map(|(value, _)| value).as_deref());
            if raw.owner == own.mark {
                best = Some((0, slot));
                break;
            }
            let kept = raw.kept_until.max(raw.lease.held_until(now));
            let kept = if kept <= now { 0 } else { kept };
            if best.is_none_or(|(soonest, _)| kept < soonest) {
                best = Some((kept, slot));
            }
        }
        own.key = key(best.map_or(0, |(_, slot)| slot));
        own.work_key = work_key(&own.key);
        own
    }

    fn at(key: String, owner: Option<SessionName>, holder: u64) -> Self {
        let work_key = work_key(&key);
        let (mark, cached, handover, accepted) = Default::default();
        Self { owner, mark, key, work_key, holder, cached, handover, accepted }
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
            let published = serde_json::from_slice::<Published>(&value).ok();
            let own = published.filter(|published| published.owner == self.owner);
            *cached = own.map(|published| (version, published.into_cached()));
        }
        Some(())
    }

    /// Whether this worker is to fetch now. It holds the lease then, until it calls [`SharedCredentials::publish`] or
    /// [`SharedCredentials::failed`].
    pub fn due(&self, shared: &dyn Shared, now: SystemTime) -> bool {
        let now = millis(now);
        let cached = self.cached(shared);
        let due = |work: &Work| is_wanted(cached.as_ref(), work, now) && work.lease.is_free(now);
        // The common case, which writes nothing.
        if !due(&self.work(shared)) {
            self.handover.rest();
            return false;
        }
        if self.handover.waits(now) {
            return false;
        }
        let claim = |value: Option<&[u8]>| {
            let raw = Work::read(value);
            let taken = raw.owner != self.mark && now < raw.lease.held_until(now);
            let work = self.own(raw);
            if taken || !due(&work) {
                return (None, false);
            }
            (Some(Work { lease: work.lease.taken(self.holder, now, LEASE_MS), ..work }.write()), true)
        };
        update(shared, &self.work_key, claim).unwrap_or(false)
    }

    /// Extends this worker's lease while it fetches.
    pub fn extend_lease(&self, shared: &dyn Shared, now: SystemTime) {
        let now = millis(now);
        self.change(shared, |work| Work { lease: work.lease.extended(now, LEASE_MS), ..work });
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
        let next = self.cached(shared).map_or(0, |cached| cached.generation) + 1;
        // A session that lost its slot must not have a generation again.
        let generation = if self.owner.is_some() { next.max(now) } else { next };
        let (access_key_id, secret, session_token, session) = match &fetched.credentials {
            Credentials::Keys(keys) => (
                Some(keys.access_key_id.clone()),
                Zeroizing::clone(&keys.secret_access_key.0),
                keys.session_token.as_ref().map(|token| Zeroizing::clone(&token.0)),
                keys.session.clone(),
            ),
            Credentials::ApiKey(key) => (None, Zeroizing::clone(&key.0), None, Session::default()),
        };
        let certificate_ends = fetched.certificate.map(|certificate| millis(certificate.not_after));
        // Another session has taken the slot.
        if self.owner.is_some() && !self.work(shared).lease.is_of(self.holder) {
            return;
        }
        let published = Published {
            generation,
            expires,
            certificate_ends,
            fetched_at: now,
            refresh_at,
            access_key_id,
            secret,
            session_token,
            session,
            follows_refusal: self.work(shared).refusals > 0,
            owner: self.owner.clone(),
        };
        // A struct of texts and numbers: serialising it cannot fail.
        let bytes = Zeroizing::new(serde_json::to_vec(&published).unwrap_or_default());
        shared.set(&self.key, &bytes, None);
        let kept_until = expires.unwrap_or(refresh_at);
        self.change(shared, |work| Work { refused: 0, lease: work.lease.succeeded(), kept_until, ..work });
    }

    /// Leaves a fetch to another worker, which may reach what this one does not. `false`: this worker has done so before, and the
    /// others did not fetch, so the fetch has failed.
    pub fn hand_over(&self, shared: &dyn Shared) -> bool {
        if !self.handover.begin() {
            return false;
        }
        self.change(shared, |work| Work { lease: work.lease.released(), ..work });
        true
    }

    /// Ends a failed fetch: the next try is after a wait that doubles.
    pub fn failed(&self, shared: &dyn Shared, now: SystemTime) {
        let now = millis(now);
        self.change(shared, |work| Work { lease: work.lease.failed(now, BACKOFF_MS), ..work });
    }

    /// Marks credentials that Bedrock refused as expired or invalid: they are fetched again, once. Returns whether a call may
    /// wait for others. If Bedrock refuses one generation after the other, new ones do not help, and a wait that doubles is
    /// between two fetches.
    pub fn refused(&self, shared: &dyn Shared, generation: u64, now: SystemTime) -> bool {
        let now = millis(now);
        let current = self.cached(shared).map_or(0, |cached| cached.generation);
        let mark = |value: Option<&[u8]>| {
            let work = self.own(Work::read(value));
            // They are replaced already, or are being replaced.
            if generation != current || work.refused == generation {
                return (None, true);
            }
            let (first, longest) = REFUSAL_MS;
            // A longer wait was set before the clock stepped back.
            if now < work.keep_until && work.keep_until - now <= longest {
                return (None, false);
            }
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
            let work = self.own(Work::read(value));
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

    /// Changes the work, if this worker still holds its lease.
    fn change(&self, shared: &dyn Shared, change: impl Fn(Work) -> Work) {
        let end = |value: Option<&[u8]>| {
            let work = self.own(Work::read(value));
            let ours = work.lease.is_of(self.holder);
            (ours.then(|| change(work).write()), ())
        };
        let _ = update(shared, &self.work_key, end);
    }

    /// Whether the last fetch has failed.
    pub fn has_failed(&self, shared: &dyn Shared) -> bool {
        self.work(shared).lease.has_failed()
    }

    /// Whether they should be fetched, and a worker may begin.
    pub fn may_begin(&self, shared: &dyn Shared, now: SystemTime) -> bool {
        let now = millis(now);
        let raw = Work::read(shared.get(&self.work_key).map(|(value, _)| value).as_deref());
        now >= raw.lease.held_until(now) && self.own(raw).lease.is_free(now) && self.is_stale_at(shared, now)
    }

    /// Whether they should be fetched, by any worker.
    pub fn is_stale(&self, shared: &dyn Shared, now: SystemTime) -> bool {
        self.is_stale_at(shared, millis(now))
    }

    fn is_stale_at(&self, shared: &dyn Shared, now: u64) -> bool {
        is_wanted(self.cached(shared).as_ref(), &self.work(shared), now)
    }

    fn work(&self, shared: &dyn Shared) -> Work {
        self.own(Work::read(shared.get(&self.work_key).map(|(value, _)| value).as_deref()))
    }

    /// The work of this owner: none, if another has the slot.
    fn own(&self, work: Work) -> Work {
        if work.owner == self.mark { work } else { Work { owner: self.mark, ..Work::default() } }
    }
}

fn work_key(key: &str) -> String {
    format!("{key}/work")
}

/// Whether credentials should be fetched: there are none, they end soon, or Bedrock has refused them.
fn is_wanted(cached: Option<&CachedCredentials>, work: &Work, now: u64) -> bool {
    cached.is_none_or(|cached| now >= cached.refresh_at || work.refused == cached.generation)
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
        let secret = Secret::from(self.secret);
        let credentials = match self.access_key_id {
            Some(access_key_id) => Credentials::Keys(Keys {
                session: self.session,
                ..Keys::new(access_key_id, secret, self.session_token.map(Secret::from))
            }),
            None => Credentials::ApiKey(secret),
        };
        CachedCredentials {
            credentials,
            generation: self.generation,
            expires: self.expires,
            certificate_ends: self.certificate_ends,
            fetched_at: self.fetched_at,
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
#[path = "shared_credentials_tests.rs"]
mod tests;
