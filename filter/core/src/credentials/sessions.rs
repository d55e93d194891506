//! Sessions of callers that are to be fetched: in which order, and how many in a second.
//!
//! A worker that has a call for a session asks for it, and fetches it at a later tick. All workers keep to one order. What a signer
//! misses goes by shared data to any worker that fetches.

use super::session_name::SessionName;
use crate::shared::{Shared, millis, update};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// How long a session is fetched for that no call has asked for since, in milliseconds.
const FORGOTTEN_MS: u64 = 10_000;
/// How often the calls that wait for a session look whether another worker has fetched it, in milliseconds.
const LOOK_MS: u64 = 500;
/// Sessions of a source that signers may miss at a time.
const MAX_MISSED: usize = 256;
const SECOND_MS: u64 = 1000;
/// How many of a second's exchanges may begin at once, as one part of so many: a quota of AWS's counts all gateways.
const AT_ONCE: u64 = 5;
/// Workers that keep to the order.
const MAX_WORKERS: usize = 128;

/// The sessions that this worker is asked for, by source.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    asked: RefCell<BTreeMap<String, BTreeMap<SessionName, Asked>>>,
    /// Whether this worker cannot fetch, and leaves all to the others.
    leaves: Cell<bool>,
}

/// When a session was asked for, in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Asked {
    first: u64,
    last: u64,
    /// When it was not there; `None`: it was, and is about to expire.
    missing: Option<u64>,
}

/// How many exchanges a source may begin now, and which worker is next. Times are in milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rate {
    /// Thousandths of an exchange.
    left: u64,
    at: u64,
    waiting: Vec<Waiting>,
}

/// A worker that has sessions to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    worker: u64,
    /// When its first session was asked for.
    first: u64,
    /// When it last said so.
    at: u64,
}

impl Sessions {
    /// A call needs a session, which is not there or about to expire.
    pub(super) fn ask(&self, source: &str, session: &SessionName, is_missing: bool, now: SystemTime) {
        let now = millis(now);
        let mut asked = self.asked.borrow_mut();
        let asked = asked.entry(source.to_owned()).or_default();
        let first = asked.get(session).map_or(now, |known| known.first);
        asked.insert(session.clone(), Asked { first, last: now, missing: is_missing.then_some(now) });
    }

    /// Whether a session was asked for, and not there, a moment ago. It is asked for again.
    pub(super) fn is_awaited(&self, source: &str, session: &SessionName, now: SystemTime) -> bool {
        let now = millis(now);
        let mut asked = self.asked.borrow_mut();
        let Some(known) = asked.get_mut(source).and_then(|asked| asked.get_mut(session)) else { return false };
        known.last = now;
        known.missing.is_some_and(|missing| now.abs_diff(missing) < LOOK_MS)
    }

    /// Seconds until a session of a source is fetched that is asked for now, about. Who comes back by then keeps its place.
    pub(super) fn wait(&self, source: &str, per_second: u32) -> u64 {
        let before = self.asked.borrow().get(source).map_or(0, BTreeMap::len) as u64;
        before.div_ceil(u64::from(per_second.max(1))).clamp(1, FORGOTTEN_MS / SECOND_MS - 2)
    }

    /// The sessions of a source that are asked for with the time, the first first, without those that no call waits for any more.
    pub(super) fn asked(&self, source: &str, now: SystemTime) -> Vec<(u64, SessionName)> {
        let now = millis(now);
        let mut asked = self.asked.borrow_mut();
        let Some(asked) = asked.get_mut(source) else { return Vec::new() };
        // After a step of the clock, calls that wait ask again.
        asked.retain(|_, asked| now.abs_diff(asked.last) < FORGOTTEN_MS);
        let mut all: Vec<_> = asked.iter().map(|(session, asked)| (asked.first, session.clone())).collect();
        all.sort_unstable();
        all
    }

    /// A session has been fetched.
    pub(super) fn forget(&self, source: &str, session: &SessionName) {
        if let Some(asked) = self.asked.borrow_mut().get_mut(source) {
            asked.remove(session);
        }
    }

    /// This worker can fetch.
    pub(super) fn succeeded(&self) {
        self.leaves.set(false);
    }

    /// Asks for what signers have missed at a source.
    pub(super) fn take_missed(&self, source: &str, shared: &dyn Shared, now: SystemTime) {
        let key = missed_key(source);
        if self.leaves.get() || shared.get(&key).is_none_or(|(value, _)| value.is_empty()) {
            return;
        }
        let taken = update(shared, &key, |value| (Some(Vec::new()), read_missed(value)));
        for session in taken.unwrap_or_default() {
            self.ask(source, &session, true, now);
        }
    }

    /// Leaves a session, and what signers miss, to other workers. `false`: this worker has done so before, and the others did not
    /// fetch, so the fetch has failed.
    pub(super) fn leave(&self, source: &str, session: &SessionName, shared: &dyn Shared) -> bool {
        if self.leaves.replace(true) {
            return false;
        }
        self.forget(source, session);
        miss(source, session, shared);
        true
    }
}

/// A signer misses a session: any worker may fetch it.
pub(super) fn miss(source: &str, session: &SessionName, shared: &dyn Shared) {
    let add = |value: Option<&[u8]>| {
        let mut missed = read_missed(value);
        if missed.contains(session) || missed.len() >= MAX_MISSED {
            return (None, ());
        }
        missed.push(session.clone());
        // A list of texts: serialising it cannot fail.
        (Some(serde_json::to_vec(&missed).unwrap_or_default()), ())
    };
    let _ = update(shared, &missed_key(source), add);
}

/// Takes an exchange from those that a source may begin now, for a worker whose first session was asked for at a time. `false`: it has
/// to wait, for the rate or for a worker whose first session was asked for earlier.
pub(super) fn begin_exchange(
    source: &str,
    per_second: u32,
    (worker, first): (u64, u64),
    shared: &dyn Shared,
    now: SystemTime,
) -> bool {
    let now = millis(now);
    let most = (u64::from(per_second) * SECOND_MS / AT_ONCE).max(SECOND_MS);
    let take = |value: Option<&[u8]>| {
        let full = Rate { left: most, at: now, waiting: Vec::new() };
        let old: Rate = value.and_then(|value| serde_json::from_slice(value).ok()).unwrap_or(full);
        let refilled = now.saturating_sub(old.at).saturating_mul(per_second.into());
        let mut rate = Rate { left: old.left.saturating_add(refilled).min(most), at: now, ..old.clone() };
        // A worker whose calls have left, or whose VM has crashed, says nothing any more.
        rate.waiting.retain(|other| other.worker != worker && now.abs_diff(other.at) < SECOND_MS);
        let is_next = rate.waiting.iter().all(|other| first <= other.first);
        if let (true, Some(left)) = (is_next, rate.left.checked_sub(SECOND_MS)) {
            rate.left = left;
            return (Some(rate.write()), true);
        }
        if rate.waiting.len() < MAX_WORKERS {
            rate.waiting.push(Waiting { worker, first, at: now });
        }
        (Some(rate.write()), false)
    };
    update(shared, &format!("credentials/{source}/rate"), take).unwrap_or(false)
}

impl Rate {
    fn write(&self) -> Vec<u8> {
        // A struct of numbers: serialising it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn missed_key(source: &str) -> String {
    format!("credentials/{source}/missed")
}

fn read_missed(value: Option<&[u8]>) -> Vec<SessionName> {
    value.and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::tests::Memory;
    use std::time::Duration;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
    }

    fn names(sessions: &Sessions, ms: u64) -> Vec<String> {
        sessions.asked("x", at(ms)).into_iter().map(|(_, session)| session.to_string()).collect()
    }

    #[test]
    fn the_first_asked_for_comes_first() {
        let sessions = Sessions::default();
        let ask = |name: &str, ms: u64| sessions.ask("x", &SessionName::of(name), true, at(ms));
        for (name, ms) in [("zoe", 0), ("adam", 10), ("zoe", 5000), ("bea", 5000)] {
            ask(name, ms);
        }
        assert_eq!(names(&sessions, 5000), ["zoe", "adam", "bea"]);
        // No call of Adam's waits any more.
        assert_eq!(names(&sessions, 10_010), ["zoe", "bea"]);
        sessions.forget("x", &SessionName::of("zoe"));
        assert_eq!(names(&sessions, 10_010), ["bea"]);
        // After a step of the clock, only what is asked for again.
        assert!(names(&sessions, 100_000).is_empty());
        ask("bea", 100_000);
        assert_eq!(names(&sessions, 100_000), ["bea"]);
    }

    #[test]
    fn who_obeys_the_wait_keeps_its_place() {
        let sessions = Sessions::default();
        for caller in 0..1000 {
            sessions.ask("x", &SessionName::of(&format!("c{caller}")), true, at(0));
        }
        let wait = sessions.wait("x", 10);
        assert_eq!((sessions.wait("y", 10), wait), (1, 8));
        assert_eq!(sessions.asked("x", at(wait * 1000 + 1000)).len(), 1000);
    }

    #[test]
    fn a_source_begins_so_many_in_a_second() {
        let memory = Memory::default();
        let begun =
            |from: u64, to: u64| (from..to).filter(|ms| begin_exchange("x", 10, (1, 0), &memory, at(*ms))).count();
        assert_eq!(begun(0, 1), 1);
        assert_eq!(begun(1, 100), 1);
        assert_eq!(begun(100, 1000), 9);
        assert_eq!(begun(1000, 11_000), 100);
        // A clock that steps back does not fill it, nor stop it.
        assert_eq!(begun(0, 1), 0);
        assert_eq!(begun(1, 1001), 10);
    }

    /// Ticks that are in step with the rate must not leave a worker out.
    #[test]
    fn workers_begin_in_one_order() {
        let memory = Memory::default();
        // Each has 100 sessions, asked for at the same times.
        let mut next = [0_u64; 4];
        for tick in 0..200 {
            for (worker, first) in next.iter_mut().enumerate() {
                let (worker, now) = (worker as u64, at(1000 + tick * 100 + worker as u64 * 3));
                *first += u64::from(begin_exchange("x", 10, (worker, *first), &memory, now));
            }
        }
        assert!(next.iter().all(|begun| (48..=52).contains(begun)), "{next:?}");
        // A worker that is gone holds nobody up.
        assert!(
            !begin_exchange("x", 10, (9, 0), &memory, at(30_000))
                || begin_exchange("x", 10, (9, 0), &memory, at(30_000))
        );
        let others = (0..30).filter(|tick| begin_exchange("x", 10, (1, 99), &memory, at(30_100 + tick * 100))).count();
        assert!(others >= 18, "{others}");
    }

    #[test]
    fn what_signers_miss_is_fetched_once() {
        let (memory, one, other) = (Memory::default(), Sessions::default(), Sessions::default());
        for principal in ["aa", "bb", "aa"] {
            miss("x", &SessionName::of(principal), &memory);
        }
        one.take_missed("x", &memory, at(0));
        other.take_missed("x", &memory, at(0));
        assert_eq!((names(&one, 0), names(&other, 0).len()), (vec!["aa".to_owned(), "bb".to_owned()], 0));
    }

    #[test]
    fn a_worker_that_cannot_fetch_leaves_sessions() {
        let (memory, main, worker) = (Memory::default(), Sessions::default(), Sessions::default());
        let session = SessionName::of("aa");
        miss("x", &session, &memory);
        main.take_missed("x", &memory, at(0));
        assert!(main.leave("x", &session, &memory));
        main.take_missed("x", &memory, at(0));
        worker.take_missed("x", &memory, at(0));
        assert_eq!((names(&main, 0).len(), names(&worker, 0)), (0, vec!["aa".to_owned()]));
        // Where each worker has left it, it has failed.
        assert!(worker.leave("x", &session, &memory) && !worker.leave("x", &session, &memory));
        worker.succeeded();
        worker.take_missed("x", &memory, at(0));
        assert_eq!(names(&worker, 0), ["aa"]);
    }
}
