//! The answers that all workers share, in a table of fixed size, and how often Bedrock may be asked.

use super::rules::ResolveRules;
use crate::lease::Lease;
use crate::names::RegionName;
use crate::shared::{Shared, millis, update};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::time::{Duration, SystemTime};

/// Slots of the table: so many resources can be known at a time.
const SLOTS: u64 = 2048;
/// Slots for lookups under way and refusals, where what is known has all the slots that a resource may use.
const NEW_SLOTS: u64 = 256;
/// Slots of either kind that a resource may use.
const PROBES: u64 = 4;
/// How long a refusal counts.
const REFUSED_MS: u64 = 15_000;
/// An answer that cannot be renewed, because Bedrock does not answer, counts for so many times its time.
const KEEP: u64 = 4;
/// How long a lookup leaves others alone: longer than one call.
const LEASE_MS: u64 = 6000;
/// The first and the longest wait after a failure.
const WAITS_MS: (u64, u64) = (1000, 15_000);
/// How far the clocks of two workers may be apart.
const CLOCKS_MS: u64 = 1000;
/// Calls to Bedrock in a second, and at once, of all of an Envoy's lookups. AWS documents no quota of these operations.
const PER_SECOND: f64 = 10.0;
const AT_ONCE: f64 = 20.0;
const RATE: &str = "resolve/rate";

/// What stands for a resource: its id, the region, and the credentials with which it is asked for.
pub(crate) type Key = [u8; 16];

/// A resource that has to be looked up, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The ARN or id.
    pub id: String,
    /// The region that is asked.
    pub region: RegionName,
    /// The source of the credentials.
    pub source: String,
    /// Further sources, of which one may belong to the account of an ARN. They are tried if the first does not find it.
    pub others: Vec<String>,
    /// What stands for the sources and their configurations.
    pub digest: [u8; 8],
}

impl Want {
    /// All sources, in the order in which they are tried.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.source).chain(&self.others).map(String::as_str)
    }
}

/// What is known of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The models that it runs.
    Runs(Vec<String>),
    /// Bedrock has refused to say it, or nobody can.
    Refused(Problem),
}

/// Why nobody knows what a resource runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Problem {
    /// The status that Bedrock gave; 0: its answer does not help; 503: there was none.
    pub(crate) status: u16,
    /// What was tried.
    pub(crate) text: String,
}

/// The end of a lookup: what it has found, or why it has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome(pub(crate) Result<Answer, Problem>);

impl Outcome {
    /// Its label in metrics.
    pub fn name(&self) -> &'static str {
        match self.0 {
            Ok(Answer::Runs(_)) => "resolved",
            Ok(Answer::Refused(_)) => "refused",
            Err(_) => "failed",
        }
    }

    /// Whether it is not known what AWS would say.
    pub fn is_failure(&self) -> bool {
        self.0.is_err()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(Answer::Runs(models)) => write!(f, "it runs {}", models.join(", ")),
            Ok(Answer::Refused(problem)) | Err(problem) => problem.fmt(f),
        }
    }
}

impl Problem {
    pub(crate) fn new(status: u16, text: impl ToString) -> Self {
        Self { status, text: text.to_string() }
    }
}

/// What a call can take from the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The answer. If it is to be renewed, a worker should ask again.
    Answer { answer: Answer, renew: bool },
    /// The last lookup has failed, and the next is not due.
    Failed(Problem),
    /// A lookup is under way, or due.
    Nothing,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Entry {
    key: Key,
    #[serde(flatten)]
    lease: Lease,
    answer: Option<Answer>,
    /// When it came, in milliseconds since 1970.
    answered_at: u64,
    /// Why the last lookup has failed.
    problem: Option<Problem>,
}

/// The key and the first slot of a resource.
pub(crate) fn key_of(want: &Want) -> (Key, u64) {
    let mut hasher = Sha256::new();
    for part in [&want.digest[..], want.region.as_str().as_bytes(), want.id.as_bytes()] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    let slot = digest.last_chunk().map_or(0, |tail| u64::from_le_bytes(*tail) % SLOTS);
    (digest.first_chunk().copied().unwrap_or_default(), slot)
}

fn known_slots(first: u64) -> impl Iterator<Item = String> {
    (0..PROBES).map(move |probe| format!("resolve/{}", (first + probe) % SLOTS))
}

fn new_slots(first: u64) -> impl Iterator<Item = String> {
    (0..PROBES).map(move |probe| format!("resolve/new/{}", (first + probe) % NEW_SLOTS))
}

fn refresh_ms(rules: &ResolveRules) -> u64 {
    rules.refresh.map_or(0, |refresh| u64::try_from(refresh.as_millis()).unwrap_or(u64::MAX))
}

/// Looks for a resource.
pub(crate) fn look(want: &Want, rules: &ResolveRules, shared: &dyn Shared, now: SystemTime) -> Seen {
    find(want, shared).map_or(Seen::Nothing, |entry| entry.seen(refresh_ms(rules), millis(now)))
}

fn find(want: &Want, shared: &dyn Shared) -> Option<Entry> {
    let (key, first) = key_of(want);
    let entries = known_slots(first).chain(new_slots(first)).filter_map(|slot| Entry::of(&slot, shared));
    entries.into_iter().find(|entry| entry.key == key)
}

/// Whether no worker is at it.
pub(crate) fn is_free(want: &Want, shared: &dyn Shared, now: SystemTime) -> bool {
    find(want, shared).is_none_or(|entry| entry.lease.is_free(millis(now)))
}

/// Claims a lookup for a worker; `false`: it is not due, or another worker is at it.
pub(crate) fn claim(want: &Want, rules: &ResolveRules, worker: u64, shared: &dyn Shared, now: SystemTime) -> bool {
    let (key, first) = key_of(want);
    let (now, refresh_ms) = (millis(now), refresh_ms(rules));
    let Some(slot) = slot_for(key, first, refresh_ms, shared, now) else { return false };
    let take = |value: Option<&[u8]>| {
        let there = Entry::read(value);
        // Another worker may have been faster.
        if there.as_ref().is_some_and(|entry| entry.key != key && entry.is_known(refresh_ms, now)) {
            return (None, false);
        }
        let known = there.filter(|entry| entry.key == key).unwrap_or(Entry { key, ..Entry::default() });
        let renews = !matches!(known.seen(refresh_ms, now), Seen::Answer { renew: false, .. });
        if !renews || !known.lease.is_free(now) {
            return (None, false);
        }
        (Some(Entry { lease: known.lease.taken(worker, now, LEASE_MS), ..known }.write()), true)
    };
    update(shared, &slot, take).unwrap_or(false)
}

/// Extends the claim for one more call.
pub(crate) fn extend(want: &Want, worker: u64, shared: &dyn Shared, now: SystemTime) {
    let now = millis(now);
    change(want, worker, shared, |entry| Entry { lease: entry.lease.extended(now, LEASE_MS), ..entry });
}

/// Shares what a lookup has found.
pub(crate) fn publish(want: &Want, worker: u64, found: Result<Answer, Problem>, shared: &dyn Shared, now: SystemTime) {
    let now = millis(now);
    if matches!(found, Ok(Answer::Runs(_))) {
        move_to_known(want, worker, shared, now);
    }
    change(want, worker, shared, |entry| match &found {
        Ok(answer) => Entry {
            lease: entry.lease.succeeded(),
            answer: Some(answer.clone()),
            answered_at: now,
            problem: None,
            ..entry
        },
        Err(problem) => Entry { lease: entry.lease.failed(now, WAITS_MS), problem: Some(problem.clone()), ..entry },
    });
}

/// Takes a call from those that may be made now.
pub(crate) fn may_ask(shared: &dyn Shared, now: SystemTime) -> bool {
    take_call(shared, now, 1.0)
}

/// Counts a further call of a lookup.
pub(crate) fn ask_more(shared: &dyn Shared, now: SystemTime) {
    take_call(shared, now, f64::NEG_INFINITY);
}

fn take_call(shared: &dyn Shared, now: SystemTime, least: f64) -> bool {
    let now = millis(now);
    let take = |value: Option<&[u8]>| {
        let read = |value: &[u8]| {
            let (level, at) = value.split_first_chunk()?;
            Some((f64::from_le_bytes(*level), u64::from_le_bytes(at.try_into().ok()?)))
        };
        let (level, at) = value.and_then(read).unwrap_or((AT_ONCE, now));
        let refilled = Duration::from_millis(now.saturating_sub(at)).as_secs_f64() * PER_SECOND;
        let level = (level + refilled).clamp(-AT_ONCE, AT_ONCE);
        if level < least {
            return (None, false);
        }
        (Some([(level - 1.0).to_le_bytes(), now.to_le_bytes()].concat()), true)
    };
    update(shared, RATE, take).unwrap_or(false)
}

/// The slot where a lookup is noted: the resource's own, else one that is empty or is missed least, and of no other resource of which
/// it is known what it runs.
fn slot_for(key: Key, first: u64, refresh_ms: u64, shared: &dyn Shared, now: u64) -> Option<String> {
    let rank = |slot: &str, is_new: u8| match Entry::of(slot, shared) {
        Some(entry) if entry.key == key => Some((0, 0)),
        Some(entry) if entry.is_known(refresh_ms, now) => None,
        Some(entry) if !entry.lease.is_free(now) => Some((5, entry.answered_at)),
        Some(entry) => Some((2 + 2 * is_new, entry.answered_at)),
        None => Some((1 + 2 * is_new, 0)),
    };
    let slots = known_slots(first).map(|slot| (slot, 0)).chain(new_slots(first).map(|slot| (slot, 1)));
    let ranked = slots.filter_map(|(slot, is_new)| Some((rank(&slot, is_new)?, slot)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, slot)| slot)
}

/// Gives an entry of which it is known now what it runs a place among such: an empty one, or the one that is missed least.
fn move_to_known(want: &Want, worker: u64, shared: &dyn Shared, now: u64) {
    let (key, first) = key_of(want);
    let take = |value: Option<&[u8]>| match Entry::read(value).filter(|entry| entry.is_held(key, worker)) {
        Some(entry) => (Some(Vec::new()), Some(entry)),
        None => (None, None),
    };
    let Some(entry) = new_slots(first).find_map(|slot| update(shared, &slot, take).flatten()) else { return };
    let rank = |slot: &String| match Entry::of(slot, shared) {
        None => (0, 0),
        Some(entry) if matches!(entry.answer, Some(Answer::Runs(_))) => (3, entry.answered_at),
        Some(entry) => (if entry.lease.is_free(now) { 1 } else { 2 }, entry.answered_at),
    };
    if let Some(slot) = known_slots(first).min_by_key(rank) {
        let bytes = entry.write();
        let _ = update(shared, &slot, |_| (Some(bytes.clone()), ()));
    }
}

/// Changes an entry, if this worker still holds its lease.
fn change(want: &Want, worker: u64, shared: &dyn Shared, change: impl Fn(Entry) -> Entry) {
    let (key, first) = key_of(want);
    for slot in known_slots(first).chain(new_slots(first)) {
        let end = |value: Option<&[u8]>| {
            let entry = Entry::read(value).filter(|entry| entry.is_held(key, worker));
            (entry.map(|entry| change(entry).write()), ())
        };
        let _ = update(shared, &slot, end);
    }
}

impl Entry {
    fn of(slot: &str, shared: &dyn Shared) -> Option<Self> {
        Self::read(shared.get(slot).map(|(value, _)| value).as_deref())
    }

    fn read(value: Option<&[u8]>) -> Option<Self> {
        serde_json::from_slice(value?).ok()
    }

    fn write(self) -> Vec<u8> {
        // Numbers and texts: serialising them cannot fail.
        serde_json::to_vec(&self).unwrap_or_default()
    }

    fn is_held(&self, key: Key, worker: u64) -> bool {
        self.key == key && self.lease.is_of(worker)
    }

    /// Whether calls get to know what it runs.
    fn is_known(&self, refresh_ms: u64, now: u64) -> bool {
        matches!(self.seen(refresh_ms, now), Seen::Answer { answer: Answer::Runs(_), .. })
    }

    fn seen(&self, refresh_ms: u64, now: u64) -> Seen {
        // What was written later than now, before the clock stepped back, counts as old.
        let age = if self.answered_at > now.saturating_add(CLOCKS_MS) {
            u64::MAX
        } else {
            now.saturating_sub(self.answered_at)
        };
        let failed = self.problem.clone().filter(|_| self.lease.has_failed());
        match &self.answer {
            Some(answer @ Answer::Runs(_)) if age < refresh_ms => {
                return Seen::Answer { answer: answer.clone(), renew: age >= refresh_ms - refresh_ms / 4 };
            }
            Some(answer @ Answer::Runs(_)) if failed.is_some() && age < refresh_ms.saturating_mul(KEEP) => {
                return Seen::Answer { answer: answer.clone(), renew: true };
            }
            Some(answer @ Answer::Refused(_)) if age < REFUSED_MS => {
                return Seen::Answer { answer: answer.clone(), renew: false };
            }
            _ => {}
        }
        // While the next lookup is under way, calls wait for it.
        match failed {
            Some(problem) if !self.lease.is_free(now) && self.lease.held_until(now) <= now => Seen::Failed(problem),
            _ => Seen::Nothing,
        }
    }
}
