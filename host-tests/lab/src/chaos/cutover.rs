//! Calls move from Direct Connect to the VPN by weights, which change under load and without a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Harness, Load, Setup};
use super::policy::{document, principal};
use super::{Options, Run, Verdict, say};
use crate::Error;
use crate::keys::REGION;
use crate::record::{Call, Exchange, failures, now_ms, ratio, violations};
use bedrock_gateway::paths::PathName;

/// The VPN's weight in each phase, of 100.
const WEIGHTS: [u32; 4] = [0, 10, 50, 100];
/// Callers. Each stays on one side, so the share that is measured is that of callers: with 5,000 of them it strays from
/// the weight by more than 2 points once in 200 times.
const CALLERS: u32 = 5000;
/// Calls in a second, such that each caller calls twice in a phase.
const RATE: u32 = 400;
/// The length of a phase in seconds. It differs from the length of streams, some of which begin together.
const PHASE: u64 = 30;
/// Milliseconds after a change in which calls may take either path: the file is read twice a second.
const SETTLE_MS: u64 = 3000;
/// Milliseconds that a change takes. A stream that began before and ended after it was in flight.
const CHANGE_MS: u64 = 1500;
/// The tolerance of a share.
const POINTS: f64 = 0.02;

/// The totals of a run.
#[derive(Debug, PartialEq)]
struct Summary {
    calls: usize,
    failures: BTreeMap<String, usize>,
    phases: Vec<Phase>,
    /// Callers that returned to Direct Connect after they had moved.
    back: usize,
    /// Streams that a change found in flight, and how many of them came to their end.
    streams: (usize, usize),
}

/// The calls between two changes.
#[derive(Debug, PartialEq)]
struct Phase {
    weight: u32,
    calls: usize,
    /// The VPN's share of them, from 0 to 1.
    share: f64,
    callers: usize,
    /// Callers that called more than once.
    again: usize,
    /// Callers seen on both sides.
    split: usize,
}

/// Changes the weights step by step.
pub(super) fn run(run: &Run<'_>) -> Result<Verdict, Error> {
    let Options { streams, http1, .. } = *run.options;
    say(&format!("\ncutover: {RATE} calls/s by {CALLERS} callers, {streams} streams, {PHASE} s for each weight"));
    let setup = Setup { name: "cutover", regions: &[REGION], http1, policy: Some(policy(WEIGHTS[0])?), tokens: true };
    let mut harness = Harness::start(&setup, run.programs, run.signals)?;
    let seconds = PHASE * WEIGHTS.len() as u64;
    let load = harness.load("calls", &Load { rate: RATE, seconds, streams, callers: CALLERS, ..Load::default() })?;
    let start = Instant::now();
    let mut changes = Vec::new();
    for (nth, weight) in (0_u32..).zip(WEIGHTS) {
        harness.wait_until(start + Duration::from_secs(PHASE) * nth, run.signals)?;
        changes.push((now_ms(), weight));
        if nth > 0 {
            harness.change(&policy(weight)?)?;
        }
    }
    let calls = harness.settle(load, run.signals)?;
    let exchanges = harness.exchanges()?;
    let summary = summary(&calls, &exchanges, &changes);
    let mut wrong = summary.wrong();
    wrong.extend(violations("cutover", &harness.hosts.requests()?));
    harness.stop();
    Ok(Verdict { lines: summary.lines(), wrong })
}

fn policy(vpn: u32) -> Result<Value, Error> {
    let weights = json!({ "dx": 100 - vpn, "vpn": vpn });
    let classes = json!([{ "name": "any", "paths": ["dx", "vpn"], "weights": weights }]);
    document(json!({ "principal": principal(), "route_classes": classes }))
}

/// `changes`: the time and weight of each change.
fn summary(calls: &[Call], exchanges: &[Exchange], changes: &[(u64, u32)]) -> Summary {
    let vpn = |exchange: &Exchange| exchange.path.as_deref() == Some(PathName::Vpn.as_str());
    let mut moved: BTreeSet<&str> = BTreeSet::new();
    let mut back: BTreeSet<&str> = BTreeSet::new();
    let mut phases = Vec::new();
    for (nth, (from, weight)) in changes.iter().enumerate() {
        let until = changes.get(nth + 1).map_or(u64::MAX, |(ms, _)| *ms);
        let from = if nth == 0 { *from } else { from + SETTLE_MS };
        let within: Vec<&Exchange> =
            exchanges.iter().filter(|exchange| (from..until).contains(&exchange.start_ms)).collect();
        // Calls on dx, and on the VPN.
        let mut callers: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for exchange in &within {
            let counts = callers.entry(exchange.principal.as_deref().unwrap_or_default()).or_default();
            *(if vpn(exchange) { &mut counts.1 } else { &mut counts.0 }) += 1;
        }
        back.extend(callers.iter().filter(|(name, sides)| sides.0 > 0 && moved.contains(*name)).map(|(name, _)| *name));
        moved.extend(callers.iter().filter(|(_, sides)| sides.1 > 0).map(|(name, _)| *name));
        phases.push(Phase {
            weight: *weight,
            calls: within.len(),
            share: ratio(within.iter().filter(|exchange| vpn(exchange)).count() as u64, within.len()),
            callers: callers.len(),
            again: callers.values().filter(|(dx, vpn)| dx + vpn > 1).count(),
            split: callers.values().filter(|(dx, vpn)| *dx > 0 && *vpn > 0).count(),
        });
    }
    let met = |call: &&Call| {
        let changed = |(ms, _): &(u64, u32)| call.start_ms < *ms && call.end_ms() > ms + CHANGE_MS;
        call.kind == "stream" && changes.iter().skip(1).any(changed)
    };
    let streams: Vec<&Call> = calls.iter().filter(met).collect();
    Summary {
        calls: calls.len(),
        failures: failures(calls.iter()),
        phases,
        back: back.len(),
        streams: (streams.len(), streams.iter().filter(|call| call.end == "ok").count()),
    }
}

impl Summary {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "cutover: {} calls and streams, {} failed; of {} streams that a change found in flight {} came to their end; \
             {} callers came back after they had moved",
            self.calls,
            self.failures.values().sum::<usize>(),
            self.streams.0,
            self.streams.1,
            self.back,
        )];
        lines.extend(self.phases.iter().map(|phase| {
            format!(
                "  vpn {:>3} of 100: {:>6.2} % of {} calls; {} callers, {} called again, {} were seen on both sides",
                phase.weight,
                phase.share * 100.0,
                phase.calls,
                phase.callers,
                phase.again,
                phase.split,
            )
        }));
        lines.extend(self.failures.iter().map(|(cause, count)| format!("  {count} × {cause}")));
        lines
    }

    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let failed: usize = self.failures.values().sum();
        if failed > 0 {
            wrong.push(format!("cutover: {failed} calls failed"));
        }
        for phase in &self.phases {
            let weight = f64::from(phase.weight) / 100.0;
            if phase.again == 0 {
                wrong.push(format!("cutover: no caller called twice at weight {}", phase.weight));
            }
            if (phase.share - weight).abs() > POINTS {
                let share = phase.share * 100.0;
                wrong.push(format!("cutover: {share:.1} % of the calls took the VPN at weight {}", phase.weight));
            }
            if phase.split > 0 {
                wrong.push(format!("cutover: {} callers were on both sides at weight {}", phase.split, phase.weight));
            }
        }
        if self.back > 0 {
            wrong.push(format!("cutover: {} callers came back after they had moved", self.back));
        }
        if self.streams.0 == 0 || self.streams.1 < self.streams.0 {
            let (met, whole) = self.streams;
            wrong.push(format!("cutover: of {met} streams in flight at a change {whole} came to their end"));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{call, exchange};

    const CHANGES: [(u64, u32); 2] = [(0, 0), (20_000, 50)];

    fn by(name: &str, start_ms: u64, path: &str) -> Exchange {
        Exchange { principal: Some(name.into()), ..exchange(start_ms, Some(path), 1) }
    }

    #[test]
    fn shares_are_of_calls_between_changes() {
        let exchanges = [
            by("a", 100, "dx"),
            by("a", 200, "dx"),
            by("b", 300, "dx"),
            by("b", 20_100, "dx"),
            by("a", 23_100, "dx"),
            by("a", 23_200, "dx"),
            by("b", 23_300, "vpn"),
            by("b", 23_400, "vpn"),
        ];
        let calls = [call("stream", 19_000, 5000.0, "ok"), call("stream", 1000, 5000.0, "ok")];
        let summary = summary(&calls, &exchanges, &CHANGES);
        let [first, second] = &summary.phases[..] else { panic!("{summary:?}") };
        assert_eq!((first.calls, first.share, first.callers, first.again, first.split), (3, 0.0, 2, 1, 0));
        assert_eq!((second.calls, second.share, second.again, second.split), (4, 0.5, 2, 0));
        assert_eq!((summary.streams, summary.back), ((1, 1), 0));
        assert_eq!(summary.wrong(), Vec::<String>::new());
    }

    #[test]
    fn who_goes_both_ways_or_comes_back_is_counted() {
        let changes = [(0, 50), (20_000, 100)];
        let exchanges = [
            by("a", 100, "dx"),
            by("a", 200, "vpn"),
            by("b", 300, "vpn"),
            by("b", 24_000, "dx"),
            by("a", 24_000, "vpn"),
        ];
        let summary = summary(&[], &exchanges, &changes);
        assert_eq!((summary.phases[0].split, summary.back), (1, 1));
        assert!(summary.wrong().iter().any(|line| line.contains("50.0 % of the calls took the VPN at weight 100")));
    }
}
