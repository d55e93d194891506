//! The ledger's own clock, which only goes forward, and the steps of the machine's clock.
//!
//! Ages are by the ledger's clock: after a step back, an intent would otherwise be younger than its call for as long as the step.
//! Times in records are by the machine's clock, as Envoy's are. So the window of a record that a step falls into reaches
//! over what the clock showed before the step, and after it.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use audit::{AuditRecord, RecordKind};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::records::time_of;
use crate::clock::{Reading, SinceBoot};

/// A difference that is a step, in milliseconds. Smaller ones are drift, or a pause between two readings.
const STEP: i64 = 500;
/// The same between two runs: the time since the machine's start is known in seconds.
const STEP_BETWEEN_RUNS: i64 = 2_500;
/// A time that is further before the first step than this, in milliseconds, is rather one of a clock that was behind.
const BEFORE: i64 = 3_600_000;
/// Steps that are remembered.
const MAX_STEPS: usize = 100;
/// The reason of a window that was widened.
const REASON: &str = "ClockStepped";

/// The machine's clock at a step, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    before: i64,
    after: i64,
}

/// What the file keeps for the next run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The ledger's clock, in milliseconds since 1970.
    now: i64,
    boot: Option<String>,
    /// Seconds since the machine's start.
    up: i64,
    state: State,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// How far ahead the machine's clock is of the ledger's, in milliseconds.
    ahead: i64,
    steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) struct Clock {
    /// The ledger's clock at `start`.
    base: i64,
    start: Instant,
    state: Mutex<State>,
}

impl Clock {
    /// Goes on where the last run ended.
    pub(super) fn resume(last: Option<Kept>, reading: &Reading, wall: i64) -> Self {
        let start = Instant::now();
        let Some(last) = last else { return Self { base: wall, start, state: Mutex::default() } };
        let mut state = last.state;
        let passed = match &reading.since_boot {
            Some(SinceBoot { boot, seconds }) if Some(boot) == last.boot.as_ref() => Some((seconds - last.up) * 1000),
            _ => None,
        };
        let base = match passed {
            Some(passed) => last.now + passed.max(0),
            // Nothing measured the time that the machine was off.
            None => last.now.max(wall),
        };
        let ahead = wall - base;
        if passed.is_some() && (ahead - state.ahead).abs() >= STEP_BETWEEN_RUNS {
            state.add(Step { before: base + state.ahead, after: wall });
        }
        state.ahead = ahead;
        Self { base, start, state: Mutex::new(state) }
    }

    /// Milliseconds since 1970, by the ledger's clock.
    pub(super) fn now(&self) -> i64 {
        self.base + i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// Compares the machine's clock with the ledger's. Returns a step since the last comparison.
    pub(super) fn compare(&self, wall: i64) -> Option<Step> {
        let now = self.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut state.ahead, wall - now);
        let stepped = (state.ahead - before).abs() >= STEP;
        stepped.then(|| state.add(Step { before: now + before, after: wall }))
    }

    /// Whether the machine's clock stepped since the last comparison.
    pub(super) fn is_off(&self, wall: i64) -> bool {
        let ahead = self.state.lock().unwrap_or_else(PoisonError::into_inner).ahead;
        (wall - self.now() - ahead).abs() >= STEP
    }

    pub(super) fn keep(&self) -> Kept {
        let (now, state) = (self.now(), self.state.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let (boot, up) = Reading::now().since_boot.map_or((None, 0), |since| (Some(since.boot), since.seconds));
        Kept { now, boot, up, state }
    }

    /// Widens the window of records that may be missing over the steps in it.
    pub(super) fn widen(&self, record: &mut AuditRecord) {
        let windows = [RecordKind::Hole, RecordKind::VmEnd, RecordKind::EnvoyEnd];
        if !windows.iter().any(|kind| record.kind.as_deref() == Some(kind.name())) {
            return;
        }
        let ms = |time: &str| {
            let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
            i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
        };
        let Some((from, until)) = ms(&record.time).zip(record.until.as_deref().and_then(ms)) else { return };
        let State { ahead, steps } = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (first, last) = widened((from, until), &steps, self.now() + ahead);
        if (first, last) == (from, until) {
            return;
        }
        record.time = time_of(first);
        record.until = Some(time_of(last));
        // A window that begins in the past of a wrong clock is kept as long as one of today.
        let ahead = u64::try_from((last - from).max(0) / 1000).unwrap_or(0);
        record.expires_at = record.expires_at.saturating_add(ahead);
        record.error_type.get_or_insert_with(|| REASON.to_owned());
    }
}

impl State {
    fn add(&mut self, step: Step) -> Step {
        let spare = (self.steps.len() + 1).saturating_sub(MAX_STEPS);
        self.steps.drain(..spare);
        self.steps.push(step);
        step
    }
}

impl Step {
    /// How far ahead the clock went, in milliseconds; back if negative.
    pub fn ahead(&self) -> i64 {
        self.after - self.before
    }
}

/// Takes in what the clock showed at each step between the moments of the window's beginning and end. A time that it showed more
/// than once is that of the first moment for the beginning, and of the last one for the end.
fn widened((from, until): (i64, i64), steps: &[Step], now: i64) -> (i64, i64) {
    // When the clock showed a time, as the number of steps before: after each of them it shows what comes after.
    let shows = |time: i64, after: usize| {
        let first = steps.first().map_or(i64::MIN, |step| step.before - BEFORE);
        let begin = after.checked_sub(1).and_then(|last| steps.get(last)).map_or(first, |step| step.after - STEP);
        let end = steps.get(after).map_or(now, |step| step.before) + STEP;
        (begin..=end).contains(&time)
    };
    let begin = Some((0..=steps.len()).find(|after| shows(from, *after)).unwrap_or(0));
    let end = (0..=steps.len()).rev().find(|after| shows(until, *after));
    let inside = begin.zip(end).and_then(|(begin, end)| steps.get(begin..end)).unwrap_or_default();
    let shown = inside.iter().flat_map(|step| [step.before, step.after]).chain([from, until]);
    shown.fold((from, from), |(first, last), time| (first.min(time), last.max(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn reading(boot: &str, seconds: i64) -> Reading {
        Reading { wall: 0, since_boot: Some(SinceBoot { boot: boot.to_owned(), seconds }) }
    }

    fn kept(now: i64, ahead: i64) -> Kept {
        Kept { now, boot: Some("a".to_owned()), up: 50, state: State { ahead, steps: Vec::new() } }
    }

    #[test]
    fn a_window_reaches_over_the_steps_in_it() {
        let step = |before, after| Step { before, after };
        // Four minutes ahead for 10 s; a day back for 10 s, a month ahead for 10 s.
        let month = 31 * DAY;
        let steps = [
            step(100_000, 340_000),
            step(350_000, 110_000),
            step(900_000, 900_000 - DAY),
            step(910_000 - DAY, 910_000),
            step(920_000, 920_000 + month),
            step(930_000 + month, 930_000),
        ];
        for (window, wide) in [
            ((90_000, 95_000), (90_000, 95_000)),
            ((99_000, 345_000), (99_000, 350_000)),
            ((99_000, 120_000), (99_000, 350_000)),
            // The end is before the beginning.
            ((347_000, 112_000), (110_000, 350_000)),
            ((899_000, 905_000 - DAY), (900_000 - DAY, 900_000)),
            ((905_000 - DAY, 912_000), (905_000 - DAY, 912_000)),
            ((915_000, 925_000 + month), (915_000, 925_000 + month)),
            ((925_000 + month, 935_000), (930_000, 930_000 + month)),
            // Between steps, and behind them.
            ((700_000, 750_000), (700_000, 750_000)),
            ((940_000, 950_000), (940_000, 950_000)),
            // Two entries that were written at once.
            ((700_000, 699_800), (699_800, 700_000)),
        ] {
            assert_eq!(widened(window, &steps, 960_000), wide, "{window:?}");
        }
    }

    #[test]
    fn the_clock_goes_on_after_a_restart() {
        let near = |found: i64, wanted: i64| assert!((0..400).contains(&(found - wanted)), "{found} is not {wanted}");
        let steps = |clock: &Clock| clock.keep().state.steps;
        // 10 s later, in the same run of the machine, with and without a step of 31 days.
        for step in [0, 31 * DAY, -31 * DAY] {
            let wall = 1_000_000 + 10_000 + step;
            let clock = Clock::resume(Some(kept(1_000_000, 0)), &reading("a", 60), wall);
            near(clock.now(), 1_010_000);
            let wanted = (step != 0).then_some(Step { before: 1_010_000, after: wall });
            assert_eq!(steps(&clock), wanted.into_iter().collect::<Vec<_>>());
        }
        // The machine started again: its clock counts, but not backwards.
        near(Clock::resume(Some(kept(1_000_000, 0)), &reading("b", 5), 5_000_000).now(), 5_000_000);
        let behind = Clock::resume(Some(kept(1_000_000, 0)), &reading("b", 5), 400_000);
        near(behind.now(), 1_000_000);
        assert!(steps(&behind).is_empty());
    }

    #[test]
    fn a_step_is_seen_once() {
        let clock = Clock::resume(None, &reading("a", 50), 1_000_000);
        assert_eq!(clock.compare(1_000_020), None);
        let step = clock.compare(1_000_000 - DAY).unwrap();
        assert!((step.ahead() + DAY).abs() < 400, "{step:?}");
        assert_eq!(clock.compare(1_000_010 - DAY), None);
        assert!((0..400).contains(&(clock.now() - 1_000_000)));
    }
}
