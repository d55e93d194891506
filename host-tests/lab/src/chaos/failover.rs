//! Direct Connect is cut, then the VPN too, then both are restored, under load.

use std::time::{Duration, Instant};

use super::fault::Fault;
use super::harness::{Harness, Load, Setup};
use super::report::{self, Events, Summary};
use super::{Options, Run, say};
use crate::Error;
use crate::keys::REGION;
use crate::record::{now_ms, violations};
use bedrock_gateway::paths::PathName;

/// Share of a run's time at which Direct Connect is cut, then the VPN, then both are restored.
const CUTS: [f64; 3] = [0.15, 0.4, 0.65];
/// Milliseconds within which a restored path must carry all calls.
const FAILBACK_MS: u64 = 10_000;

/// Cuts one path, then a second, then restores both.
pub(super) fn run(fault: Fault, run: &Run<'_>) -> Result<Summary, Error> {
    let Options { rate, seconds, streams, think, http1 } = *run.options;
    let name = fault.to_string();
    let setup = Setup { name: &name, regions: &[REGION], http1, policy: None, tokens: false };
    let mut harness = Harness::start(&setup, run.programs, run.signals)?;
    let load = harness.load("calls", &Load { rate, seconds, streams, think, ..Load::default() })?;
    let start = (Instant::now(), now_ms());
    let due = CUTS.map(|share| Duration::from_secs(seconds).mul_f64(share));
    let [cut_dx, cut_vpn, restored] = due;
    let ms = |after: Duration| start.1 + u64::try_from(after.as_millis()).unwrap_or_default();
    harness.wait_until(start.0 + cut_dx, run.signals)?;
    harness.hosts.cut(PathName::Dx, fault)?;
    harness.wait_until(start.0 + cut_vpn, run.signals)?;
    harness.hosts.cut(PathName::Vpn, fault)?;
    harness.wait_until(start.0 + restored, run.signals)?;
    harness.hosts.restore(PathName::Dx, fault)?;
    harness.hosts.restore(PathName::Vpn, fault)?;
    let events = Events { start: start.1, cut_dx: ms(cut_dx), cut_vpn: ms(cut_vpn), restored: ms(restored) };
    let calls = harness.settle(load, run.signals)?;
    let exchanges = harness.exchanges()?;
    let violations = violations(fault, &harness.hosts.requests()?);
    harness.stop();
    for line in report::timeline(&calls, &exchanges, &events) {
        say(&line);
    }
    Ok(Summary { violations, ..report::summary(&calls, &exchanges, &events) })
}

/// Prints the verdicts; returns the checks that failed.
pub(super) fn table(verdicts: &[(Fault, Summary)]) -> Vec<String> {
    if !verdicts.is_empty() {
        say(
            "fault     calls  failed   before p50/p99   failover p99   slowest   thinking  streams  exception  reset  quiet  failback",
        );
    }
    let mut wrong = Vec::new();
    for (fault, summary) in verdicts {
        let failback = summary.failback.map_or("never".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
        say(&format!(
            "{:<8} {:>6} {:>7} {:>8.0} / {:>4.0} ms {:>11.0} ms {:>6.0} ms {:>3} ≤{:>3.0} s {:>8} {:>10} {:>6} {:>6} {:>9}",
            fault.to_string(),
            summary.calls,
            summary.failed,
            summary.before.0,
            summary.before.1,
            summary.failover_p99,
            summary.slowest,
            summary.thinkers.0,
            summary.thinkers.1 / 1000.0,
            summary.streams,
            summary.streams_exception,
            summary.streams_reset,
            summary.streams_quiet,
            failback,
        ));
        for (cause, count) in &summary.failures {
            say(&format!("         {count} × {cause}"));
        }
        wrong.extend(judge(*fault, summary));
    }
    wrong
}

/// The checks that failed.
fn judge(fault: Fault, summary: &Summary) -> Vec<String> {
    let mut wrong = Vec::new();
    if summary.calls == 0 {
        wrong.push(format!("{fault}: no call was made"));
    }
    if summary.failed > 0 {
        wrong.push(format!("{fault}: {} of {} calls failed", summary.failed, summary.calls));
    }
    if summary.failover_p99 > fault.p99_ms() {
        let (p99, limit) = (summary.failover_p99, fault.p99_ms());
        wrong.push(format!("{fault}: 99 % of calls took up to {p99:.0} ms during failover, more than {limit:.0} ms"));
    }
    if summary.streams_reset > 0 {
        let reset = summary.streams_reset;
        wrong.push(format!("{fault}: {reset} streams in flight broke off without an exception"));
    }
    if summary.streams_quiet > 0 {
        let quiet = summary.streams_quiet;
        wrong.push(format!("{fault}: {quiet} streams in flight ended with nothing that tells a client so"));
    }
    wrong.extend(summary.violations.iter().cloned());
    if summary.failback.is_none_or(|ms| ms > FAILBACK_MS) {
        wrong.push(format!("{fault}: calls were not all back on dx within {} s", FAILBACK_MS / 1000));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Summary {
        Summary {
            calls: 100,
            failed: 0,
            failures: std::collections::BTreeMap::new(),
            before: (10.0, 20.0),
            failover_p99: 1400.0,
            slowest: 2000.0,
            thinkers: (2, 20_000.0),
            streams: 5,
            streams_exception: 5,
            streams_reset: 0,
            streams_quiet: 0,
            failback: Some(5000),
            attempts: 1.0,
            violations: Vec::new(),
        }
    }

    #[test]
    fn judges_calls_times_streams_and_failback() {
        assert_eq!(judge(Fault::Refuse, &good()), Vec::<String>::new());
        let slow = Summary { failover_p99: 2900.0, ..good() };
        assert_eq!(judge(Fault::Silent, &slow), Vec::<String>::new());
        assert!(judge(Fault::Reset, &slow)[0].contains("2900 ms during failover, more than 1500 ms"));
        let bad = Summary { failed: 1, streams_reset: 1, streams_quiet: 2, failback: None, ..good() };
        assert_eq!(judge(Fault::Refuse, &bad).len(), 4);
        assert_eq!(judge(Fault::Refuse, &Summary { calls: 0, ..good() }).len(), 1);
    }
}
