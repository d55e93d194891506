//! What polls of every kind have in common: one worker of an Envoy makes each, and shares what it read with all.

use crate::lease::{Handover, Lease};
use crate::shared::{Shared, millis, update};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// How long one call of a poll may take, with all its attempts.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a lease lasts: longer than one call.
const LEASE_MS: u64 = 12_000;
/// The first wait after a failure. The longest is the time between two polls.
const FIRST_WAIT_MS: u64 = 1000;
/// How far the clocks of two workers may be apart.
const CLOCKS_MS: u64 = 1000;

/// What is polled, by its keys in shared data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// When it was polled, and which worker does.
    pub(crate) work: String,
    /// What was read.
    pub(crate) value: String,
    /// A number that counts up with each change of this value and of others of its kind.
    pub(crate) generation: &'static str,
    /// The time between two polls.
    pub(crate) refresh: Duration,
}

/// This worker's part in the polls.
#[derive(Debug)]
pub struct Polls {
    worker: u64,
    handovers: RefCell<BTreeMap<String, Rc<Handover>>>,
}

/// When something was polled, and which worker does.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Work {
    #[serde(flatten)]
    lease: Lease,
    /// The last success, in milliseconds since 1970; 0: none.
    pub(crate) polled_at: u64,
}

// === impl Polls ===

impl Polls {
    /// The part of a worker, whose number differs from that of any other.
    pub fn new(worker: u64) -> Self {
        Self { worker, handovers: RefCell::default() }
    }

    fn handover(&self, task: &Task) -> Rc<Handover> {
        Rc::clone(self.handovers.borrow_mut().entry(task.work.clone()).or_default())
    }

    /// Whether this worker is to poll now. It holds the lease then, until the poll is over.
    pub fn due(&self, task: &Task, shared: &dyn Shared, now: SystemTime) -> bool {
        let now = millis(now);
        // A clock that was set back counts as late.
        let due = |work: Work| {
            let late = now < work.polled_at || now >= work.polled_at.saturating_add(task.refresh_ms());
            late && work.lease.is_free(now)
        };
        // The common case, which writes nothing.
        if !due(Work::of(task, shared)) {
            self.handover(task).rest();
            return false;
        }
        if self.handover(task).waits(now) {
            return false;
        }
        let claim = |value: Option<&[u8]>| {
            let work = Work::read(value);
            if !due(work) {
                return (None, false);
            }
            let lease = work.lease.taken(self.worker, now, LEASE_MS);
            (Some(Work { lease, polled_at: past(work.polled_at, now) }.write()), true)
        };
        update(shared, &task.work, claim).unwrap_or(false)
    }

    /// Extends the lease for one more call.
    pub fn extend(&self, task: &Task, shared: &dyn Shared, now: SystemTime) {
        let now = millis(now);
        self.change(task, shared, |work| Work { lease: work.lease.extended(now, LEASE_MS), ..work });
    }

    /// Shares what was read; `read_at` is the time that it is of.
    pub fn publish(&self, task: &Task, value: &[u8], shared: &dyn Shared, read_at: SystemTime) {
        // A worker that was held up for long may have been overtaken.
        if !Work::of(task, shared).lease.is_of(self.worker) {
            return;
        }
        if shared.get(&task.value).is_none_or(|(known, _)| known != value) {
            shared.set(&task.value, value, None);
            let count = |value: Option<&[u8]>| (Some(next_generation(value)), ());
            // If other workers win every race, theirs is new too.
            let _ = update(shared, task.generation, count);
        }
        let polled_at = millis(read_at);
        self.change(task, shared, |work| Work { lease: work.lease.succeeded(), polled_at });
    }

    /// Leaves a poll to another worker, if that may reach what this one does not: Envoy's main thread has a VM, too, and cannot
    /// connect to an internal listener (`source/extensions/bootstrap/internal_listener`). `false`: the poll has failed.
    pub fn hand_over(&self, task: &Task, shared: &dyn Shared) -> bool {
        if !self.handover(task).begin() {
            return false;
        }
        self.change(task, shared, |work| Work { lease: work.lease.released(), ..work });
        true
    }

    /// Ends a poll that failed. What was read before stays.
    pub fn failed(&self, task: &Task, shared: &dyn Shared, now: SystemTime) {
        let (now, longest) = (millis(now), task.refresh_ms());
        self.change(task, shared, |work| Work { lease: work.lease.failed(now, (FIRST_WAIT_MS, longest)), ..work });
    }

    /// Changes the work, if this worker still holds its lease.
    fn change(&self, task: &Task, shared: &dyn Shared, change: impl Fn(Work) -> Work) {
        let end = |value: Option<&[u8]>| {
            let work = Work::read(value);
            (work.lease.is_of(self.worker).then(|| change(work).write()), ())
        };
        let _ = update(shared, &task.work, end);
    }
}

// === impl Task and Work ===

impl Task {
    fn refresh_ms(&self) -> u64 {
        u64::try_from(self.refresh.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Work {
    pub(crate) fn of(task: &Task, shared: &dyn Shared) -> Self {
        Self::read(shared.get(&task.work).map(|(value, _)| value).as_deref())
    }

    /// When a task was last polled, for all workers. After the clock was set back nobody knows: the time is forgotten, or it would
    /// count again when the clock reaches it.
    pub(crate) fn polled_at(task: &Task, shared: &dyn Shared, now: SystemTime) -> u64 {
        let (known, now) = (Self::of(task, shared).polled_at, millis(now));
        if past(known, now) != known {
            let forget = |value: Option<&[u8]>| {
                let work = Self::read(value);
                (Some(Self { polled_at: past(work.polled_at, now), ..work }.write()), ())
            };
            let _ = update(shared, &task.work, forget);
        }
        past(known, now)
    }

    fn read(value: Option<&[u8]>) -> Self {
        value.and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default()
    }

    fn write(self) -> Vec<u8> {
        // A struct of numbers: serialising it cannot fail.
        serde_json::to_vec(&self).unwrap_or_default()
    }
}

/// A time of a poll, if it is not in the future; else 0.
fn past(polled_at: u64, now: u64) -> u64 {
    if polled_at > now.saturating_add(CLOCKS_MS) { 0 } else { polled_at }
}

/// The time since a poll. `None`: there was none, or the clock was set back since.
pub(crate) fn age(polled_at: u64, now: SystemTime) -> Option<Duration> {
    let now = millis(now);
    Some(past(polled_at, now)).filter(|at| *at != 0).map(|at| Duration::from_millis(now.saturating_sub(at)))
}

/// The number of the last change, by a generation's value in shared data.
pub(crate) fn generation(value: Option<&[u8]>) -> u64 {
    value.and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn next_generation(value: Option<&[u8]>) -> Vec<u8> {
    generation(value).wrapping_add(1).max(1).to_le_bytes().to_vec()
}
