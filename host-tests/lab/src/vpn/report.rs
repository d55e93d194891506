//! The report of a VPN run, by second and in total, and its checks.

use std::collections::BTreeMap;

use super::network::Seen;
use crate::record::{Call, Exchange, failures, percentile};
use bedrock_gateway::paths::PathName;

/// Milliseconds within which the other gateway must claim the route.
const CLAIM_MS: u64 = 15_000;

/// The times of events, in milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Events {
    /// The load's first call.
    pub start: u64,
    /// The first tunnel is cut.
    pub cut: Option<u64>,
    /// The tunnel is restored.
    pub restored: Option<u64>,
    /// Gateway b has the VPC's routes.
    pub taken: Option<u64>,
    /// Gateway a has them again.
    pub returned: Option<u64>,
    /// How often they changed hands.
    pub changes: u32,
    holder: Option<char>,
}

/// One second of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Second {
    /// The gateway with the VPC's routes, at its end.
    pub holder: Option<char>,
    /// ESP packets of a and of b.
    pub esp: [u64; 2],
}

/// The totals of a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Summary {
    calls: usize,
    failures: BTreeMap<String, usize>,
    /// Calls before the cut, and those of them that crossed the VPN.
    before: (usize, usize),
    /// From the cut to b's claim, and to the first call that b's tunnel carried, in milliseconds.
    claim: Option<u64>,
    outage: Option<u64>,
    /// Calls over the VPN while a's tunnel was cut, and a's and b's ESP once b had the routes.
    cut: (usize, [u64; 2]),
    /// From the restore to a's claim, in milliseconds, and calls over the VPN after it with a's ESP.
    back: Option<u64>,
    after: (usize, u64),
    changes: u32,
    p99: f64,
    slowest: f64,
    /// From the hosts' start, and during the load.
    whole: Seen,
    load: Seen,
}

impl Events {
    /// Nothing yet.
    pub(super) fn new(start: u64) -> Events {
        Events { start, holder: Some('a'), ..Events::default() }
    }

    /// Records the holder of the VPC's routes.
    pub(super) fn holds(&mut self, holder: Option<char>, ms: u64) {
        if holder == self.holder {
            return;
        }
        self.changes += 1;
        self.holder = holder;
        match holder {
            Some('b') if self.taken.is_none() => self.taken = Some(ms),
            Some('a') if self.taken.is_some() && self.returned.is_none() => self.returned = Some(ms),
            _ => {}
        }
    }

    fn second(&self, ms: u64) -> u64 {
        ms.saturating_sub(self.start) / 1000
    }

    fn named(&self) -> [(Option<u64>, &'static str); 4] {
        [
            (self.cut, "a's tunnel is cut"),
            (self.taken, "b has the routes"),
            (self.restored, "a's tunnel is restored"),
            (self.returned, "a has the routes"),
        ]
    }
}

fn by_vpn(exchange: &Exchange) -> bool {
    exchange.path.as_deref() == Some(PathName::Vpn.as_str())
}

/// A line for each second.
pub(super) fn timeline(calls: &[Call], exchanges: &[Exchange], seen: &[Second], events: &Events) -> Vec<String> {
    let mut lines = vec!["\n   s  calls  failed   vpn  internet   ESP a   ESP b  routes".to_owned()];
    for (now, second) in (0_u64..).zip(seen) {
        let begun: Vec<&Call> = calls.iter().filter(|call| events.second(call.start_ms) == now).collect();
        let of = |vpn: bool| {
            let taken = |exchange: &&Exchange| events.second(exchange.start_ms) == now && by_vpn(exchange) == vpn;
            exchanges.iter().filter(taken).count()
        };
        let happened: Vec<&str> = events
            .named()
            .into_iter()
            .filter(|(ms, _)| ms.is_some_and(|ms| events.second(ms) == now))
            .map(|(_, name)| name)
            .collect();
        lines.push(format!(
            "{now:>4} {:>6} {:>7} {:>5} {:>9} {:>7} {:>7}  {}{}",
            begun.len(),
            begun.iter().filter(|call| call.end != "ok").count(),
            of(true),
            of(false),
            second.esp[0],
            second.esp[1],
            second.holder.map_or("-".to_owned(), String::from),
            if happened.is_empty() { String::new() } else { format!("  ◄ {}", happened.join(", ")) },
        ));
    }
    lines
}

/// The sum.
pub(super) fn summary(
    calls: &[Call],
    exchanges: &[Exchange],
    seen: &[Second],
    events: &Events,
    whole: Seen,
    load: Seen,
) -> Summary {
    let span = |from: Option<u64>, until: Option<u64>| {
        let within = move |ms: u64| from.is_some_and(|from| ms >= from) && until.is_none_or(|until| ms < until);
        exchanges.iter().filter(move |exchange| within(exchange.start_ms))
    };
    let esp = |from: Option<u64>, until: Option<u64>| {
        let Some(from) = from else { return [0, 0] };
        let skip = usize::try_from(events.second(from) + 1).unwrap_or(usize::MAX);
        let until = until.map_or(seen.len(), |ms| usize::try_from(events.second(ms)).unwrap_or(usize::MAX));
        seen.iter().take(until).skip(skip).fold([0, 0], |[a, b], second| [a + second.esp[0], b + second.esp[1]])
    };
    let after = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
    let mut times: Vec<f64> = calls.iter().map(|call| call.ms).collect();
    // A call of the second before may be one that the cut met, and end elsewhere; one of the second after cannot have crossed.
    let before = || span(Some(events.start), events.cut.map(|ms| ms - 1000));
    let again = span(events.cut.map(|ms| ms + 1000), None).find(|exchange| by_vpn(exchange));
    Summary {
        calls: calls.len(),
        failures: failures(calls.iter()),
        before: (before().count(), before().filter(|exchange| by_vpn(exchange)).count()),
        claim: after(events.cut, events.taken),
        outage: after(events.cut, again.map(|exchange| exchange.start_ms)),
        cut: (
            span(events.taken, events.restored).filter(|exchange| by_vpn(exchange)).count(),
            esp(events.taken, events.restored),
        ),
        back: after(events.restored, events.returned),
        after: (span(events.returned, None).filter(|exchange| by_vpn(exchange)).count(), esp(events.returned, None)[0]),
        changes: events.changes,
        p99: percentile(&mut times, 0.99),
        slowest: times.iter().copied().fold(0.0, f64::max),
        whole,
        load,
    }
}

impl Summary {
    /// The report.
    pub(super) fn lines(&self) -> Vec<String> {
        let seconds = |ms: Option<u64>| ms.map_or("never".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
        let failed: usize = self.failures.values().sum();
        let mut lines = vec![
            format!(
                "\n{} calls, {failed} failed; 99 % within {:.0} ms, slowest {:.0} ms; before the cut {} of {} crossed the VPN",
                self.calls, self.p99, self.slowest, self.before.1, self.before.0
            ),
            format!(
                "a's tunnel cut: b had the routes after {}, calls crossed its tunnel after {}; {} calls and {} ESP packets \
                 did ({} of a)",
                seconds(self.claim),
                seconds(self.outage),
                self.cut.0,
                self.cut.1[1],
                self.cut.1[0]
            ),
            format!(
                "restored: a had the routes after {}; {} calls and {} ESP packets crossed its tunnel then; the routes changed \
                 hands {} times",
                seconds(self.back),
                self.after.0,
                self.after.1,
                self.changes
            ),
            format!(
                "between the outside addresses: {} packets of IKE, {} of ESP in UDP 4500 ({} while calls were made), {} others",
                self.whole.ike,
                self.whole.esp[0] + self.whole.esp[1],
                self.load.esp[0] + self.load.esp[1],
                self.whole.other
            ),
        ];
        lines.extend(self.failures.iter().map(|(cause, count)| format!("  {count} × {cause}")));
        lines
    }

    /// The checks that failed.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        let failed: usize = self.failures.values().sum();
        must(self.calls > 0, "no call was made".into());
        must(failed == 0, format!("{failed} of {} calls failed", self.calls));
        let (before, crossed) = self.before;
        must(before > 0 && crossed == before, format!("{crossed} of {before} calls crossed the VPN before the cut"));
        must(
            self.claim.is_some_and(|ms| ms <= CLAIM_MS),
            format!("b did not have the routes within {} s of the cut", CLAIM_MS / 1000),
        );
        must(self.cut.0 > 0 && self.cut.1[1] > 0, "no call crossed b's tunnel while a's was cut".into());
        must(self.cut.1[0] == 0, format!("{} packets crossed the tunnel that was cut", self.cut.1[0]));
        must(self.back.is_some(), "a did not get the routes back".into());
        must(self.after.0 > 0 && self.after.1 > 0, "no call crossed a's tunnel once it was restored".into());
        must(self.changes == 2, format!("the routes changed hands {} times, not twice", self.changes));
        must(self.whole.ike > 0, "no IKE was seen".into());
        must(self.whole.other == 0, format!("{} packets were neither IKE nor ESP", self.whole.other));
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{call, exchange};

    fn run() -> (Vec<Call>, Vec<Exchange>, Vec<Second>, Events) {
        let mut events = Events { cut: Some(2000), restored: Some(6000), ..Events::new(0) };
        events.holds(Some('a'), 100);
        events.holds(Some('b'), 4500);
        events.holds(Some('a'), 8000);
        let paths = ["vpn", "vpn", "internet", "internet", "vpn", "vpn", "vpn", "vpn", "vpn", "vpn"];
        let exchanges = (0..).zip(paths).map(|(second, path)| exchange(second * 1000 + 600, Some(path), 1)).collect();
        let calls = (0..10).map(|second| call("call", second * 1000 + 600, 50.0, "ok")).collect();
        let second = |second: u64| match second {
            0..2 | 9.. => Second { holder: Some('a'), esp: [10, 1] },
            2..5 => Second { holder: Some('a'), esp: [0, 1] },
            _ => Second { holder: Some('b'), esp: [0, 9] },
        };
        (calls, exchanges, (0..10).map(second).collect(), events)
    }

    fn of(calls: &[Call], exchanges: &[Exchange], seen: &[Second], events: &Events) -> Summary {
        let crossed = Seen { ike: 8, esp: [40, 60], other: 0 };
        summary(calls, exchanges, seen, events, crossed, crossed)
    }

    #[test]
    fn a_run_as_it_must_be() {
        let (calls, exchanges, seen, events) = run();
        let summary = of(&calls, &exchanges, &seen, &events);
        assert_eq!(summary.wrong(), Vec::<String>::new());
        assert_eq!((summary.claim, summary.outage, summary.back), (Some(2500), Some(2600), Some(2000)));
        assert_eq!((summary.before, summary.cut, summary.after), ((1, 1), (2, [0, 9]), (2, 10)));
        let lines = timeline(&calls, &exchanges, &seen, &events);
        assert!(lines[3].ends_with("◄ a's tunnel is cut"), "{}", lines[3]);
    }

    #[test]
    fn names_what_is_wrong() {
        let (mut calls, exchanges, seen, events) = run();
        calls[3] = call("call", 3600, 50.0, "broken");
        let mut summary = of(&calls, &exchanges, &seen, &events);
        summary.whole.other = 1;
        assert_eq!(summary.wrong(), ["1 of 10 calls failed", "1 packets were neither IKE nor ESP"]);

        let never = Events { cut: Some(2000), restored: Some(6000), ..Events::new(0) };
        let (calls, exchanges, seen, _) = run();
        let wrong = of(&calls, &exchanges, &seen, &never).wrong();
        assert!(wrong.iter().any(|line| line.starts_with("b did not have the routes")), "{wrong:?}");
        assert!(wrong.iter().any(|line| line.starts_with("a did not get the routes back")), "{wrong:?}");
    }
}
