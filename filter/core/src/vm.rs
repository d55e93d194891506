//! A worker's VM as the audit sees it: counters that show which calls have no record, and the ends of calls that have an intent.

use crate::shared::millis;
use audit::VmFacts;
use audit::notice::{End, VmReport};
use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// How often a VM reports.
const PERIOD: Duration = Duration::from_secs(1);
/// How long it waits after a report that failed.
const BACK_OFF: Duration = Duration::from_secs(2);
/// Calls that a VM may begin until its next report, at least.
const HEADROOM: u64 = 64;
/// Ends in one report: some 150 KB at most, and Envoy's ticks come 10 times a second.
const BATCH: usize = 100;
/// Ends that wait for a report, some 10 MB. Without the collector the access log has them.
const MOST_ENDS: usize = 10_000;

/// A VM's counters.
#[derive(Debug)]
pub struct Vm {
    id: String,
    envoy: String,
    begun: u64,
    logged: u64,
    /// The last announced [`VmReport::may_begin`].
    announced: u64,
    /// Calls begun at the last report.
    reported: u64,
    ends: VecDeque<End>,
    /// When the next report is due.
    next: Option<SystemTime>,
    /// Ends of the report that waits for its answer.
    sent: Option<Vec<End>>,
    failing: bool,
}

/// What an answer to a report changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// Reports arrive again.
    Again,
    /// The first report that failed.
    Lost,
}

impl Vm {
    /// A VM that has just started. `id` is random, `envoy` the process's.
    pub fn new(id: String, envoy: String) -> Self {
        Self {
            id,
            envoy,
            begun: 0,
            logged: 0,
            announced: 0,
            reported: 0,
            ends: VecDeque::new(),
            next: None,
            sent: None,
            failing: false,
        }
    }

    /// A call begins.
    pub fn begin(&mut self) {
        self.begun += 1;
    }

    /// Whether more calls began than the VM has [announced](Vm::announcement).
    pub fn must_announce(&self) -> bool {
        self.begun > self.announced
    }

    /// A call ends, and is logged with these facts.
    pub fn log(&mut self) -> VmFacts {
        self.logged += 1;
        self.facts()
    }

    /// The counters now.
    pub fn facts(&self) -> VmFacts {
        VmFacts {
            id: self.id.clone(),
            envoy: self.envoy.clone(),
            begun: self.begun,
            logged: self.logged,
            in_flight: self.begun.saturating_sub(self.logged),
        }
    }

    /// Keeps the end of a call that has an intent, for the next report.
    pub fn end(&mut self, end: End) {
        if self.ends.len() >= MOST_ENDS {
            self.ends.pop_front();
        }
        self.ends.push_back(end);
    }

    /// A report without ends, of which the answer does not matter.
    pub fn announcement(&mut self, now: SystemTime) -> VmReport {
        self.report(now, Vec::new())
    }

    /// The report that is due, if the last one was [answered](Vm::answered).
    pub fn due(&mut self, now: SystemTime) -> Option<VmReport> {
        if self.sent.is_some() {
            return None;
        }
        // A clock that jumps back by more than a period must not silence the VM.
        let late = self.next.is_none_or(|next| next <= now || next > now + PERIOD + BACK_OFF);
        if !late && (self.failing || self.ends.is_empty()) {
            return None;
        }
        self.next = Some(now + PERIOD);
        let ends: Vec<End> = self.ends.drain(..self.ends.len().min(BATCH)).collect();
        self.sent = Some(ends.clone());
        Some(self.report(now, ends))
    }

    /// The collector has the report that was due on disk, or has not.
    pub fn answered(&mut self, stored: bool, now: SystemTime) -> Option<Reached> {
        let ends = self.sent.take()?;
        let failed = std::mem::replace(&mut self.failing, !stored);
        if stored {
            return failed.then_some(Reached::Again);
        }
        ends.into_iter().rev().for_each(|end| self.ends.push_front(end));
        self.next = Some(now + BACK_OFF);
        (!failed).then_some(Reached::Lost)
    }

    fn report(&mut self, now: SystemTime, ends: Vec<End>) -> VmReport {
        // An idle VM announces nothing, so that its end leaves no doubt.
        let idle = self.begun == self.reported && self.begun == self.logged;
        let more = if idle { 0 } else { HEADROOM + self.begun.saturating_sub(self.reported) };
        self.reported = self.begun;
        self.announced = self.begun.saturating_add(more);
        VmReport {
            vm: self.id.clone(),
            envoy: self.envoy.clone(),
            time_ms: millis(now),
            begun: self.begun,
            logged: self.logged,
            may_begin: self.announced,
            ends,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: SystemTime = SystemTime::UNIX_EPOCH;

    fn vm() -> Vm {
        Vm::new("vm".to_owned(), "envoy".to_owned())
    }

    fn after(milliseconds: u64) -> SystemTime {
        T0 + Duration::from_millis(milliseconds)
    }

    fn end(id: &str) -> End {
        End { exchange: audit::ExchangeFacts { id: id.to_owned(), ..Default::default() }, ..End::default() }
    }

    #[test]
    fn every_call_has_the_next_number() {
        let mut vm = vm();
        for _ in 0..3 {
            vm.begin();
        }
        let numbers = [vm.log(), vm.log()].map(|facts| (facts.begun, facts.logged, facts.in_flight));
        assert_eq!(numbers, [(3, 1, 2), (3, 2, 1)]);
    }

    #[test]
    fn no_call_begins_beyond_what_was_announced() {
        let mut vm = vm();
        let mut announced = vm.due(T0).unwrap().may_begin;
        assert_eq!(announced, 0);
        vm.answered(true, T0);
        for call in 1..=1000 {
            vm.begin();
            if vm.must_announce() {
                announced = vm.announcement(T0).may_begin;
            }
            assert!(call <= announced, "{call} of {announced}");
        }
    }

    #[test]
    fn an_idle_vm_leaves_no_doubt() {
        let mut vm = vm();
        vm.begin();
        vm.log();
        let busy = vm.due(T0).unwrap();
        assert!(busy.may_begin > busy.begun);
        vm.answered(true, T0);
        let idle = vm.due(after(1000)).unwrap();
        assert_eq!((idle.begun, idle.logged, idle.may_begin), (1, 1, 1));
    }

    #[test]
    fn reports_come_once_a_second_and_for_ends() {
        let mut vm = vm();
        assert!(vm.due(T0).is_some());
        assert!(vm.due(after(5000)).is_none(), "the first has no answer yet");
        assert_eq!(vm.answered(true, after(1)), None);
        assert!(vm.due(after(999)).is_none());
        vm.end(end("a"));
        assert_eq!(vm.due(after(999)).unwrap().ends, [end("a")]);
        vm.answered(true, after(999));
        assert!(vm.due(after(1999)).is_some());
    }

    #[test]
    fn a_report_that_failed_comes_again() {
        let mut vm = vm();
        vm.end(end("a"));
        vm.due(T0);
        assert_eq!(vm.answered(false, T0), Some(Reached::Lost));
        vm.end(end("b"));
        assert!(vm.due(after(1999)).is_none());
        assert_eq!(vm.due(after(2000)).unwrap().ends, [end("a"), end("b")]);
        assert_eq!(vm.answered(false, after(2000)), None);
        assert_eq!(vm.due(after(4000)).unwrap().ends.len(), 2);
        assert_eq!(vm.answered(true, after(4000)), Some(Reached::Again));
    }

    #[test]
    fn a_clock_that_jumps_back_silences_nothing() {
        let mut vm = vm();
        vm.due(after(3_600_000));
        vm.answered(true, after(3_600_000));
        assert!(vm.due(T0).is_some());
    }

    #[test]
    fn ends_are_bounded_and_sent_in_parts() {
        let mut vm = vm();
        (0..MOST_ENDS + 5).for_each(|number| vm.end(end(&number.to_string())));
        let first = vm.due(T0).unwrap().ends;
        assert_eq!((first.len(), first.first()), (BATCH, Some(&end("5"))));
    }
}
