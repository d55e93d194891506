//! Which resources calls wait for, in this VM.

use super::rules::ResolveRules;
use super::table::{self, Answer, Key, Outcome, Problem, Seen, Want, key_of};
use crate::caller::Caller;
use crate::shared::Shared;
use sha2::{Digest, Sha256};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

/// How long a call waits for a lookup.
pub(crate) const WAIT: Duration = Duration::from_secs(5);
/// Most resources of one caller that a worker has yet to look up, and most of all.
const MAX_OF_CALLER: usize = 64;
const MAX_CALLERS: usize = 256;
/// Most renewals that wait.
const MAX_RENEWALS: usize = 256;

/// What is known of a resource now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    /// It runs these models.
    Runs(Vec<String>),
    /// Nobody knows.
    Unknown(Problem),
    /// The call has to wait.
    Pending,
    /// Too many other resources wait.
    Full,
}

/// What calls of this VM have asked for since its last tick, by caller. Each call that waits asks again.
#[derive(Debug, Default)]
pub struct Resolver {
    wanted: RefCell<BTreeMap<Key, VecDeque<Asked>>>,
    renewals: RefCell<BTreeMap<Key, Asked>>,
    /// What the table said since the last tick.
    seen: RefCell<BTreeMap<Key, Status>>,
    /// How many callers have had their turn: the next tick begins behind them.
    turn: Cell<usize>,
    /// Whether this worker took the last call that could be made: the others have the next tick to themselves.
    rests: Cell<bool>,
}

/// A lookup that was asked for.
#[derive(Debug, Clone)]
struct Asked {
    key: Key,
    want: Want,
    since: SystemTime,
}

impl Resolver {
    /// What is known of a resource. Asks for a lookup if it is due.
    pub(crate) fn ask(
        &self,
        want: &Want,
        caller: &Caller,
        rules: &ResolveRules,
        shared: &dyn Shared,
        now: SystemTime,
    ) -> Status {
        let (key, _) = key_of(want);
        let known = self.seen.borrow().get(&key).cloned();
        let status = match known {
            Some(status) => status,
            None => match table::look(want, rules, shared, now) {
                Seen::Answer { answer, renew } => {
                    if renew {
                        self.renew(Asked { key, want: want.clone(), since: now });
                    }
                    return match answer {
                        Answer::Runs(models) => Status::Runs(models),
                        Answer::Refused(problem) => Status::Unknown(problem),
                    };
                }
                Seen::Failed(problem) => Status::Unknown(problem),
                Seen::Nothing => Status::Pending,
            },
        };
        if status != Status::Pending {
            return status;
        }
        if !self.add(Asked { key, want: want.clone(), since: now }, caller) {
            return Status::Full;
        }
        self.seen.borrow_mut().insert(key, Status::Pending);
        Status::Pending
    }

    fn renew(&self, asked: Asked) {
        let mut renewals = self.renewals.borrow_mut();
        if renewals.len() < MAX_RENEWALS {
            renewals.entry(asked.key).or_insert(asked);
        }
    }

    fn add(&self, asked: Asked, caller: &Caller) -> bool {
        let mut hasher = Sha256::new();
        caller.hash(&mut hasher);
        let caller: Key = hasher.finalize().first_chunk().copied().unwrap_or_default();
        let mut wanted = self.wanted.borrow_mut();
        if !wanted.contains_key(&caller) && wanted.len() >= MAX_CALLERS {
            return false;
        }
        let own = wanted.entry(caller).or_default();
        if own.iter().any(|known| known.key == asked.key) {
            return true;
        }
        if own.len() >= MAX_OF_CALLER {
            return false;
        }
        own.push_back(asked);
        true
    }

    /// Leaves a lookup to a later tick, which may be another root context's: in a change of the document, one has the old one and one
    /// the new one. Without any for it, the lookup is dropped like a call that has waited for it.
    fn put_back(&self, asked: &Asked, caller: Option<&Key>, now: SystemTime) {
        if now.duration_since(asked.since).unwrap_or_default() >= WAIT {
            return;
        }
        match caller {
            Some(caller) => self.wanted.borrow_mut().entry(*caller).or_default().push_back(asked.clone()),
            None => self.renew(asked.clone()),
        }
    }

    /// The lookups that this worker is to begin now. Renewals come first, then one of each caller in turn, so that a caller with many
    /// unknown ids leaves the others their share. Calls that go on waiting have to ask again. What
    /// this root context cannot ask is left to the others.
    pub fn due(
        &self,
        rules: &ResolveRules,
        worker: u64,
        shared: &dyn Shared,
        now: SystemTime,
        can_ask: impl Fn(&Want) -> bool,
    ) -> Vec<Want> {
        self.seen.take();
        if self.rests.take() {
            return Vec::new();
        }
        let renewals = self.renewals.take();
        let mut callers: Vec<(Key, VecDeque<Asked>)> = self.wanted.take().into_iter().collect();
        if !callers.is_empty() {
            let turn = self.turn.get() % callers.len();
            callers.rotate_left(turn);
        }
        let rounds = callers.iter().map(|(_, own)| own.len()).max().unwrap_or_default();
        let in_turn = (0..rounds).flat_map(|round| {
            callers.iter().filter_map(move |(caller, own)| own.get(round).map(|asked| (Some(caller), asked)))
        });
        let mut begun = Vec::new();
        for (caller, asked) in renewals.values().map(|asked| (None, asked)).chain(in_turn) {
            let want = &asked.want;
            if !can_ask(want) {
                self.put_back(asked, caller, now);
                continue;
            }
            // Another worker may be at it, or the answer may be here.
            if !is_due(want, rules, shared, now) {
                continue;
            }
            if !table::may_ask(shared, now) {
                self.rests.set(!begun.is_empty());
                break;
            }
            if table::claim(want, rules, worker, shared, now) {
                self.turn.set(self.turn.get().wrapping_add(usize::from(caller.is_some())));
                begun.push(want.clone());
            }
        }
        begun
    }

    /// A lookup makes a further call.
    pub fn extend(&self, want: &Want, worker: u64, shared: &dyn Shared, now: SystemTime) {
        table::ask_more(shared, now);
        table::extend(want, worker, shared, now);
    }

    /// Shares what a lookup has found.
    pub fn publish(&self, want: &Want, worker: u64, Outcome(found): Outcome, shared: &dyn Shared, now: SystemTime) {
        self.seen.take();
        table::publish(want, worker, found, shared, now);
    }
}

fn is_due(want: &Want, rules: &ResolveRules, shared: &dyn Shared, now: SystemTime) -> bool {
    matches!(table::look(want, rules, shared, now), Seen::Nothing | Seen::Answer { renew: true, .. })
        && table::is_free(want, shared, now)
}
