//! Sessions of callers that are to be fetched: in which order, and how many in a second.
//!
//! A worker that has a call for a session asks for it, and fetches it at a later tick. What a signer misses goes by shared data to
//! any worker that fetches.

use super::id::CredentialId;
use super::session_name::SessionName;
use crate::shared::{Shared, millis, update};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// How long a session is fetched for that no call has asked for since, in milliseconds.
const FORGOTTEN_MS: u64 = 10_000;
/// Sessions of a source that signers may miss at a time.
const MAX_MISSED: usize = 256;
const SECOND_MS: u64 = 1000;
/// How many of a second's exchanges may begin at once, as one part of so many: a quota of AWS's counts all gateways.
const AT_ONCE: u64 = 5;

/// The sessions that this worker is asked for.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    asked: RefCell<BTreeMap<CredentialId, Asked>>,
    /// Counts up with each session that is asked for.
    next: Cell<u64>,
    /// Whether this worker cannot fetch, and leaves all to the others.
    leaves: Cell<bool>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    order: u64,
    /// When a call asked last, in milliseconds since 1970.
    last: u64,
}

/// How many exchanges a source may begin now.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Rate {
    /// Thousandths of an exchange.
    left: u64,
    /// In milliseconds since 1970.
    at: u64,
}

impl Sessions {
    /// A call needs a session.
    pub(super) fn ask(&self, id: &CredentialId, now: SystemTime) {
        let last = millis(now);
        let mut asked = self.asked.borrow_mut();
        if let Some(known) = asked.get_mut(id) {
            known.last = last;
            return;
        }
        let order = self.next.get();
        self.next.set(order + 1);
        asked.insert(id.clone(), Asked { order, last });
    }

    /// Seconds until a session of a source is fetched that is asked for now.
    pub(super) fn wait(&self, source: &str, per_second: u32) -> u64 {
        let before = self.asked.borrow().keys().filter(|id| id.source == source).count();
        (before as u64).div_ceil(u64::from(per_second.max(1))).max(1)
    }

    /// The sessions that are asked for, the first first, without those that no call waits for any more.
    pub(super) fn asked(&self, now: SystemTime) -> Vec<CredentialId> {
        let now = millis(now);
        let mut asked = self.asked.borrow_mut();
        asked.retain(|_, asked| now.saturating_sub(asked.last) < FORGOTTEN_MS);
        let mut all: Vec<(u64, CredentialId)> = asked.iter().map(|(id, asked)| (asked.order, id.clone())).collect();
        all.sort_unstable_by_key(|(order, _)| *order);
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// A session is there.
    pub(super) fn forget(&self, id: &CredentialId) {
        self.asked.borrow_mut().remove(id);
    }

    /// Asks for what signers have missed at a source.
    pub(super) fn take_missed(&self, source: &str, shared: &dyn Shared, now: SystemTime) {
        let key = missed_key(source);
        if self.leaves.get() || shared.get(&key).is_none_or(|(value, _)| value.is_empty()) {
            return;
        }
        let taken = update(shared, &key, |value| (Some(Vec::new()), read_missed(value)));
        for session in taken.unwrap_or_default() {
            self.ask(&CredentialId { source: source.to_owned(), session: Some(session) }, now);
        }
    }

    /// Leaves a session, and all later ones, to other workers.
    pub(super) fn leave(&self, source: &str, session: &SessionName, shared: &dyn Shared) {
        self.leaves.set(true);
        self.forget(&CredentialId { source: source.to_owned(), session: Some(session.clone()) });
        miss(source, session, shared);
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

/// Takes an exchange from those that a source may begin now. `false`: it has to wait.
pub(super) fn begin_exchange(source: &str, per_second: u32, shared: &dyn Shared, now: SystemTime) -> bool {
    let now = millis(now);
    let most = (u64::from(per_second) * SECOND_MS / AT_ONCE).max(SECOND_MS);
    let take = |value: Option<&[u8]>| {
        let rate = value.and_then(|value| serde_json::from_slice(value).ok()).unwrap_or(Rate { left: most, at: now });
        let left = rate.left.saturating_add(now.saturating_sub(rate.at).saturating_mul(per_second.into())).min(most);
        // Two numbers: serialising them cannot fail.
        let write = |left| Some(serde_json::to_vec(&Rate { left, at: now }).unwrap_or_default());
        match left.checked_sub(SECOND_MS) {
            Some(left) => (write(left), true),
            // The clock has stepped back: it would have to come up to `at` first.
            None if rate.at > now => (write(left), false),
            None => (None, false),
        }
    };
    update(shared, &format!("credentials/{source}/rate"), take).unwrap_or(false)
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

    fn id(principal: &str) -> CredentialId {
        CredentialId { source: "x".to_owned(), session: Some(SessionName::of(principal)) }
    }

    #[test]
    fn the_first_asked_for_comes_first() {
        let sessions = Sessions::default();
        for (principal, ms) in [("zoe", 0), ("adam", 10), ("zoe", 5000), ("bea", 5000)] {
            sessions.ask(&id(principal), at(ms));
        }
        assert_eq!(sessions.asked(at(5000)), [id("zoe"), id("adam"), id("bea")]);
        // No call of Adam's waits any more.
        assert_eq!(sessions.asked(at(10_010)), [id("zoe"), id("bea")]);
        sessions.forget(&id("zoe"));
        assert_eq!(sessions.asked(at(10_010)), [id("bea")]);
    }

    #[test]
    fn a_source_begins_so_many_in_a_second() {
        let memory = Memory::default();
        let begun = |from: u64, to: u64| (from..to).filter(|ms| begin_exchange("x", 10, &memory, at(*ms))).count();
        assert_eq!(begun(0, 1), 1);
        assert_eq!(begun(1, 100), 1);
        assert_eq!(begun(100, 1000), 9);
        assert_eq!(begun(1000, 11_000), 100);
        // A clock that steps back does not fill it, nor stop it.
        assert_eq!(begun(0, 2), 0);
        assert_eq!(begun(2, 1002), 10);
    }

    #[test]
    fn what_signers_miss_is_fetched_once() {
        let (memory, one, other) = (Memory::default(), Sessions::default(), Sessions::default());
        for principal in ["a", "b", "a"] {
            miss("x", &SessionName::of(principal), &memory);
        }
        one.take_missed("x", &memory, at(0));
        other.take_missed("x", &memory, at(0));
        assert_eq!((one.asked(at(0)), other.asked(at(0))), (vec![id("a"), id("b")], vec![]));
    }

    #[test]
    fn a_worker_that_cannot_fetch_leaves_sessions() {
        let (memory, main, worker) = (Memory::default(), Sessions::default(), Sessions::default());
        miss("x", &SessionName::of("a"), &memory);
        main.take_missed("x", &memory, at(0));
        main.leave("x", &SessionName::of("a"), &memory);
        main.take_missed("x", &memory, at(0));
        worker.take_missed("x", &memory, at(0));
        assert_eq!((main.asked(at(0)), worker.asked(at(0))), (vec![], vec![id("a")]));
    }
}
