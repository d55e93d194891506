//! One worker does what is done once for all workers.

use serde::{Deserialize, Serialize};
use std::cell::Cell;

/// How long a worker that has handed a task over leaves it to the others.
const HANDOVER_MS: u64 = 2000;

/// How far the clocks of two workers may be apart, in milliseconds.
const CLOCKS_MS: u64 = 1000;

/// Which worker is at a task, and when the next try may start: a part of the task's record in shared data. Times are in
/// milliseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    holder: u64,
    lease_until: u64,
    failures: u32,
    not_before: u64,
    /// When this was written.
    #[serde(default)]
    at: u64,
}

/// What a worker knows of a task that it cannot do, and that others can.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    /// Whether this worker has handed it over.
    done: Cell<bool>,
    /// Since when such a worker has seen that it is due.
    due_since: Cell<Option<u64>>,
}

// === impl Lease ===

impl Lease {
    /// Whether a worker may start.
    pub(crate) fn is_free(self, now: u64) -> bool {
        self.is_of_later(now) || (now >= self.not_before && now >= self.lease_until)
    }

    /// Whether it was written later than now: the clock has stepped back since, and its times mean nothing.
    fn is_of_later(self, now: u64) -> bool {
        now.saturating_add(CLOCKS_MS) < self.at
    }

    /// Whether a worker is the one that started last.
    pub(crate) fn is_of(self, worker: u64) -> bool {
        self.holder == worker
    }

    /// Until when the worker that started last holds it.
    pub(crate) fn held_until(self, now: u64) -> u64 {
        if self.is_of_later(now) { 0 } else { self.lease_until }
    }

    /// Whether the last try has failed.
    pub(crate) fn has_failed(self) -> bool {
        self.failures > 0
    }

    /// A worker starts. It has to say that it is still at it before so many milliseconds are over.
    pub(crate) fn taken(self, holder: u64, now: u64, lasts: u64) -> Self {
        Self { holder, ..self.extended(now, lasts) }
    }

    /// It is still at it.
    pub(crate) fn extended(self, now: u64, lasts: u64) -> Self {
        Self { lease_until: now + lasts, at: now, ..self }
    }

    /// It leaves the task to the next worker.
    pub(crate) fn released(self) -> Self {
        Self { lease_until: 0, ..self }
    }

    /// It has succeeded.
    pub(crate) fn succeeded(self) -> Self {
        Self { failures: 0, not_before: 0, lease_until: 0, ..self }
    }

    /// It has failed: the next try is after a wait that doubles, from the first to the longest, in milliseconds.
    pub(crate) fn failed(self, now: u64, (first, longest): (u64, u64)) -> Self {
        let failures = self.failures.saturating_add(1);
        let wait = first.saturating_mul(1 << (failures - 1).min(16)).min(longest);
        Self { failures, not_before: now + wait, lease_until: 0, at: now, ..self }
    }
}

// === impl Handover ===

impl Handover {
    /// Hands over. `false`: this worker has done so before, and the others did not do it, so it has failed.
    pub(crate) fn begin(&self) -> bool {
        !self.done.replace(true)
    }

    /// Whether this worker leaves a task that is due to the others.
    pub(crate) fn waits(&self, now: u64) -> bool {
        if !self.done.get() {
            return false;
        }
        let since = self.due_since.get().unwrap_or(now);
        self.due_since.set(Some(since));
        now < since + HANDOVER_MS
    }

    /// The task is not due.
    pub(crate) fn rest(&self) {
        self.due_since.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_steps_back_frees_a_task() {
        let day = 86_400_000;
        let taken = Lease::default().taken(1, day, 6000);
        assert!(!taken.is_free(day + 5999) && taken.is_free(day + 6000));
        assert!(!taken.is_free(day - CLOCKS_MS) && taken.is_free(day - CLOCKS_MS - 1) && taken.is_free(0));
        assert_eq!((taken.held_until(day), taken.held_until(0)), (day + 6000, 0));
        let failed = taken.failed(day, (500, 30_000));
        assert!(!failed.is_free(day + 499) && failed.is_free(day + 500) && failed.is_free(0));
    }
}
