//! What is known of each worker's VM, and of the Envoy processes that they belong to.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use audit::AuditRecord;
use audit::notice::VmReport;
use serde::{Deserialize, Serialize};

use super::numbers::{Numbers, Seen};

/// A VM that may not have been seen before.
#[derive(Debug, Clone, Copy)]
pub(super) struct VmId<'a> {
    pub(super) vm: &'a str,
    pub(super) envoy: &'a str,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Vm {
    pub(super) envoy: String,
    /// The first sign of life: a timestamp.
    pub(super) since: String,
    pub(super) numbers: Numbers,
    /// The highest counters that were reported.
    pub(super) begun: u64,
    pub(super) logged: u64,
    /// Of the last report.
    pub(super) may_begin: u64,
    /// It has sent a report, or an intent.
    pub(super) reported: bool,
    /// The log file has entries of it.
    pub(super) in_log: bool,
    /// The last sign of life, and the last one when every call that had begun was accounted for.
    pub(super) last: Seen,
    pub(super) complete: Option<Seen>,
    /// How often it was seen to start: a VM that was taken as ended may come back.
    pub(super) lives: u32,
    /// When it was taken as ended, in milliseconds since 1970, by the ledger's clock.
    pub(super) ended: Option<i64>,
    /// Of its `vm_end`.
    pub(super) lost: u64,
    pub(super) lost_at_most: u64,
    #[serde(skip)]
    pub(super) watch: Watch,
}

/// What this run of the collector saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    /// The last sign of life.
    pub(super) heard: Option<Instant>,
    /// When the log was read to its end, and the highest number that was known then.
    pub(super) marks: VecDeque<(Instant, u64)>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Envoy {
    pub(super) since: String,
    pub(super) lives: u32,
    pub(super) ended: Option<i64>,
    /// When this run first and last saw an entry of it in the log file.
    #[serde(skip)]
    pub(super) logs: Option<(Instant, Instant)>,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) vms: HashMap<String, Vm>,
    pub(super) envoys: HashMap<String, Envoy>,
}

// === impl Vm ===

impl Vm {
    /// Takes over the counters of a log entry's record. False if it had come before.
    pub(super) fn entry(&mut self, record: &AuditRecord, number: u64) -> bool {
        if !self.numbers.add(number, &record.time, record.latency_ms) {
            return false;
        }
        self.begun = self.begun.max(record.vm_begun.unwrap_or(0));
        let seen = |to: &mut Seen| {
            to.time.clone_from(&record.time);
            to.lasted = record.latency_ms;
        };
        seen(&mut self.last);
        if record.vm_in_flight == Some(0) && self.is_complete() {
            seen(self.complete.get_or_insert_default());
        }
        true
    }

    /// Takes over a report, at this time of the collector.
    pub(super) fn report(&mut self, report: &VmReport, now: &str) {
        // Reports may overtake each other.
        if (report.begun, report.logged) >= (self.begun, self.logged) {
            self.may_begin = report.may_begin;
        }
        self.begun = self.begun.max(report.begun);
        self.logged = self.logged.max(report.logged);
        self.reported = true;
        self.last = Seen { time: now.to_owned(), lasted: 0 };
        if self.begun == self.logged && self.is_complete() {
            self.complete = Some(self.last.clone());
        }
    }

    /// Calls that are known to have begun.
    pub(super) fn known(&self) -> u64 {
        self.begun.max(self.known_logged())
    }

    /// Calls that are known to be logged.
    pub(super) fn known_logged(&self) -> u64 {
        self.numbers.highest().max(self.logged)
    }

    fn is_complete(&self) -> bool {
        self.numbers.count() >= self.known()
    }

    /// Calls without a record, besides those of holes: at least and at most. `unnumbered` ones have a record without a number.
    pub(super) fn missing(&self, unnumbered: u64) -> (u64, u64) {
        let (known, accounted) = (self.known(), self.numbers.count());
        let lost = known.saturating_sub(accounted + unnumbered);
        // A call without a number may be one of a hole.
        let besides = unnumbered.saturating_sub(self.numbers.missing());
        (lost, known.max(self.may_begin).saturating_sub(accounted + besides))
    }
}
