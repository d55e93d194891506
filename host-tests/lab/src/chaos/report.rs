//! The report of a run's calls, by second and in total.

use std::collections::BTreeMap;

use crate::record::{Call, Exchange, failures, percentile, ratio};
use bedrock_gateway::paths::PathName;

/// Milliseconds after a cut in which calls count as made during failover.
const FAILOVER_MS: u64 = 5000;

/// The times of events, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    /// The load began.
    pub start: u64,
    /// Direct Connect was cut.
    pub cut_dx: u64,
    /// The VPN was cut too.
    pub cut_vpn: u64,
    /// Both were restored.
    pub restored: u64,
}

/// The totals of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Calls that do not stream, thinking ones included.
    pub calls: usize,
    /// Those that failed.
    pub failed: usize,
    /// Why, and how often.
    pub failures: BTreeMap<String, usize>,
    /// Median and 99th percentile before the first cut.
    pub before: (f64, f64),
    /// The worse 99th percentile of the two failovers.
    pub failover_p99: f64,
    /// The slowest call, thinking ones apart.
    pub slowest: f64,
    /// Thinking calls, and the longest that one took.
    pub thinkers: (usize, f64),
    pub streams: usize,
    /// Those that ended with an exception in the stream.
    pub streams_exception: usize,
    /// Those whose transfer broke off: a client notices, but gets no exception.
    pub streams_reset: usize,
    /// Those that ended early without an error, or did not end: a client takes them for complete, or waits.
    pub streams_quiet: usize,
    /// From the restoration to the last call that began on another path than Direct Connect, in milliseconds; nothing if
    /// none came back.
    pub failback: Option<u64>,
    /// Attempts over calls: above 1 by as many as were retried.
    pub attempts: f64,
    /// Violations that the doubles found.
    pub violations: Vec<String>,
}

/// A line for each second: the results and paths of calls that began in it.
pub fn timeline(calls: &[Call], exchanges: &[Exchange], events: &Events) -> Vec<String> {
    let second = |ms: u64| ms.saturating_sub(events.start) / 1000;
    let mut lines =
        vec!["   s  calls  failed    p50 ms    p99 ms    max ms    dx  vpn  internet  none   streams cut".to_owned()];
    let last = calls.iter().map(|call| second(call.start_ms)).max().unwrap_or(0);
    for now in 0..=last {
        let mut times: Vec<f64> = calls
            .iter()
            .filter(|call| call.kind == "call" && second(call.start_ms) == now)
            .map(|call| call.ms)
            .collect();
        let begun = calls.iter().filter(|call| second(call.start_ms) == now);
        let failed = begun.filter(|call| call.must_hold() && call.end != "ok").count();
        let over = |path: Option<&str>| {
            exchanges
                .iter()
                .filter(|exchange| second(exchange.start_ms) == now && exchange.path.as_deref() == path)
                .count()
        };
        let ended = |call: &&Call| call.kind == "stream" && call.end != "ok" && second(call.end_ms()) == now;
        let cut = calls.iter().filter(ended).count();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| percentile(&mut times, share));
        let event =
            [(events.cut_dx, "dx is cut"), (events.cut_vpn, "vpn is cut too"), (events.restored, "both are restored")]
                .into_iter()
                .find(|(ms, _)| second(*ms) == now)
                .map(|(_, name)| format!("  ◄ {name}"));
        let [dx, vpn, internet] = PathName::ALL.map(|path| over(Some(path.as_str())));
        lines.push(format!(
            "{now:>4} {:>6} {failed:>7} {p50:>9.0} {p99:>9.0} {max:>9.0} {dx:>5} {vpn:>4} {internet:>9} {:>5} {cut:>13}{}",
            times.len(),
            over(None),
            event.unwrap_or_default(),
        ));
    }
    lines
}

/// The sum.
pub fn summary(calls: &[Call], exchanges: &[Exchange], events: &Events) -> Summary {
    let (streams, rest): (Vec<&Call>, Vec<&Call>) = calls.iter().partition(|call| call.kind == "stream");
    let failures = failures(rest.iter().copied());
    let timed: Vec<&Call> = rest.iter().filter(|call| call.kind == "call").copied().collect();
    let mut before: Vec<f64> = timed.iter().filter(|call| call.end_ms() < events.cut_dx).map(|call| call.ms).collect();
    let during = |cut: u64| {
        let met = |call: &&&Call| call.end_ms() >= cut && call.start_ms < cut + FAILOVER_MS;
        percentile(&mut timed.iter().filter(met).map(|call| call.ms).collect::<Vec<f64>>(), 0.99)
    };
    let thinking: Vec<f64> = rest.iter().filter(|call| call.kind == "thinker").map(|call| call.ms).collect();
    let reset = |call: &&&Call| call.end.starts_with("broken");
    let quiet = |call: &&&Call| call.end.starts_with("short") || call.end == "no end";
    let on_dx = |exchange: &&Exchange| exchange.path.as_deref() == Some(PathName::Dx.as_str());
    let after: Vec<&Exchange> = exchanges.iter().filter(|exchange| exchange.start_ms >= events.restored).collect();
    let elsewhere = after.iter().filter(|exchange| !on_dx(exchange)).map(|exchange| exchange.start_ms).max();
    let back = after.iter().filter(|exchange| on_dx(exchange)).map(|exchange| exchange.start_ms).max();
    let failback = match (back, elsewhere) {
        (Some(back), Some(elsewhere)) if back > elsewhere => Some(elsewhere - events.restored),
        (Some(_), None) => Some(0),
        _ => None,
    };
    let attempts: u64 = exchanges.iter().map(|exchange| exchange.attempts).sum();
    Summary {
        calls: rest.len(),
        failed: failures.values().sum(),
        failures,
        before: (percentile(&mut before, 0.5), percentile(&mut before, 0.99)),
        failover_p99: during(events.cut_dx).max(during(events.cut_vpn)),
        slowest: timed.iter().map(|call| call.ms).fold(0.0, f64::max),
        thinkers: (thinking.len(), thinking.iter().copied().fold(0.0, f64::max)),
        streams: streams.len(),
        streams_exception: streams.iter().filter(|call| call.end != "ok" && !reset(call) && !quiet(call)).count(),
        streams_reset: streams.iter().filter(reset).count(),
        streams_quiet: streams.iter().filter(quiet).count(),
        failback,
        attempts: ratio(attempts, exchanges.len()),
        violations: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{call, exchange};

    const EVENTS: Events = Events { start: 10_000, cut_dx: 11_000, cut_vpn: 21_000, restored: 31_000 };

    #[test]
    fn calls_in_flight_at_a_cut_count_as_failover() {
        let calls = [
            call("call", 10_100, 10.0, "ok"),
            call("call", 10_990, 900.0, "ok"),
            call("call", 15_999, 700.0, "ok"),
            call("call", 16_000, 4000.0, "ok"),
        ];
        let summary = summary(&calls, &[], &EVENTS);
        assert_eq!((summary.before, summary.failover_p99, summary.slowest), ((10.0, 10.0), 900.0, 4000.0));
    }

    #[test]
    fn counts_failures_by_cause_and_streams_apart() {
        let mut refused = call("call", 12_000, 5.0, "ServiceUnavailableException");
        refused.status = 503;
        let calls = [
            refused.clone(),
            refused,
            call("thinker", 10_000, 20_000.0, "ok"),
            call("stream", 10_000, 1000.0, "ok"),
            call("stream", 10_000, 1000.0, "modelStreamErrorException"),
            call("stream", 10_000, 1000.0, "broken: end of file"),
            call("stream", 10_000, 1000.0, "short: no metadata at its end"),
        ];
        let summary = summary(&calls, &[], &EVENTS);
        assert_eq!((summary.calls, summary.failed), (3, 2));
        assert_eq!(summary.failures, BTreeMap::from([("503 ServiceUnavailableException".to_owned(), 2)]));
        assert_eq!((summary.streams, summary.streams_exception), (4, 1));
        assert_eq!((summary.streams_reset, summary.streams_quiet), (1, 1));
        assert_eq!(summary.thinkers, (1, 20_000.0));
    }

    #[test]
    fn failback_ends_with_the_last_detour() {
        let there = [exchange(30_000, Some("internet"), 1), exchange(31_000, Some("dx"), 1)];
        let moving = [exchange(33_500, Some("vpn"), 1), exchange(33_600, Some("dx"), 1)];
        let of = |exchanges: &[Exchange]| summary(&[], exchanges, &EVENTS).failback;
        assert_eq!(of(&there), Some(0));
        assert_eq!(of(&[&there[..], &moving].concat()), Some(2500));
        assert_eq!(of(&moving[..1]), None);
        assert_eq!(of(&[&there[..], &moving[..1]].concat()), None);
    }

    #[test]
    fn prints_a_line_for_each_second() {
        let calls = [call("call", 10_100, 10.0, "ok"), call("call", 11_500, 30.0, "ok")];
        let exchanges = [exchange(10_100, Some("dx"), 1), exchange(11_500, Some("vpn"), 2)];
        let lines = timeline(&calls, &exchanges, &EVENTS);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&lines[1])[..9], ["0", "1", "0", "10", "10", "10", "1", "0", "0"]);
        assert_eq!(words(&lines[2])[..9], ["1", "1", "0", "30", "30", "30", "0", "1", "0"]);
        assert!(lines[2].ends_with("◄ dx is cut"), "{}", lines[2]);
    }
}
