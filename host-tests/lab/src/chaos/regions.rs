//! A region throttles a model, or all of them do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{Harness, Load, Setup};
use super::policy::document;
use super::{Options, Run, Verdict, say};
use crate::Error;
use crate::record::{Call, Exchange, Request, failures, now_ms, percentile, ratio, violations};

/// The regions, in the class's order.
const REGIONS: [&str; 2] = ["us-east-1", "us-west-2"];
/// The model of the load's calls. Streams and thinking calls use other models, which are not throttled.
const MODEL: &str = "claude-3-5-sonnet";
/// Shares of a run's time between which a region throttles.
const THROTTLED: [f64; 2] = [0.2, 0.45];
/// An upload, in bytes: near the largest that Bedrock takes.
const UPLOAD: u64 = 20_000_000;
/// Concurrent uploads: some are in flight when the region begins to throttle.
const UPLOADS: u32 = 2;
/// Milliseconds after the first refusal from which new calls go to the other region: a few are in flight before.
const NOTICED_MS: u64 = 1000;
/// The share of later calls that may still try the throttling region.
const TRIES: f64 = 0.02;

/// The times of events, in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Events {
    start: u64,
    throttled: u64,
    relented: u64,
}

/// What client, gateway and doubles recorded of a run.
#[derive(Debug)]
struct Records {
    calls: Vec<Call>,
    exchanges: Vec<Exchange>,
    requests: Vec<Request>,
    events: Events,
}

/// The totals of a run.
#[derive(Debug, PartialEq)]
struct Summary {
    calls: usize,
    failures: BTreeMap<String, usize>,
    /// Uploads, and the longest that one took, in milliseconds.
    uploads: (usize, f64),
    /// 99th percentile before and during, in milliseconds.
    p99: (f64, f64),
    /// Calls that the second region answered: at their first attempt, at a later one, and uploads among the latter.
    second: (usize, usize, usize),
    /// Requests that the first region refused: at once, and after it was noticed.
    refused: (usize, usize),
    /// Calls begun after it was noticed.
    begun: usize,
    /// From the end of the throttling to the last call that was begun in the second region, in milliseconds; nothing if
    /// the first never had one again.
    recovery: Option<u64>,
    /// Calls to other models, and how many of them left the first region.
    others: (usize, usize),
}

/// One region answers `status` for a model.
pub(super) fn one(status: u16, run: &Run<'_>) -> Result<Verdict, Error> {
    let name = format!("region-{status}");
    let Options { rate, seconds, streams, .. } = *run.options;
    say(&format!("\n{name}: {rate} calls/s, {streams} streams, {seconds} s, {UPLOADS} uploads of 20 MB at any time"));
    let load = Load { rate, seconds, streams, bulk: UPLOADS, bulk_bytes: UPLOAD, ..Load::default() };
    let records = throttle(&name, &REGIONS[..1], status, &load, run)?;
    for line in timeline(&records) {
        say(&line);
    }
    let summary = summary(&records);
    let mut wrong = summary.wrong(&name);
    wrong.extend(violations(&name, &records.requests));
    Ok(Verdict { lines: summary.lines(&name), wrong })
}

/// Every region answers 429: calls fail, and the number of requests is bounded.
pub(super) fn all(run: &Run<'_>) -> Result<Verdict, Error> {
    let Options { rate, seconds, .. } = *run.options;
    say(&format!("\nregions-all: {rate} calls/s, {seconds} s; both regions answer 429"));
    let load = Load { rate, seconds, ..Load::default() };
    let Records { calls, requests, events, .. } = throttle("regions-all", &REGIONS, 429, &load, run)?;
    let met: Vec<&Call> =
        calls.iter().filter(|call| (events.throttled..events.relented).contains(&call.start_ms)).collect();
    let throttled = met.iter().filter(|call| call.status == 429 && call.end == "ThrottlingException").count();
    let refused = requests.iter().filter(|request| request.status == 429).count();
    let late = events.throttled + 2 * NOTICED_MS;
    let (late_calls, late_refused) = (
        met.iter().filter(|call| call.start_ms >= late).count(),
        requests.iter().filter(|request| request.status == 429 && request.ms >= late).count(),
    );
    let lost = calls.iter().filter(|call| call.start_ms >= events.relented + NOTICED_MS && call.end != "ok").count();
    let line = format!(
        "regions-all: {throttled} of {} calls got ThrottlingException; {:.2} requests for each, {:.2} from the third \
         second on; {lost} failed when that was over",
        met.len(),
        ratio(refused as u64, met.len()),
        ratio(late_refused as u64, late_calls),
    );
    let mut wrong = violations("regions-all", &requests);
    if ratio(late_refused as u64, late_calls) > 1.1 {
        wrong.push(format!("regions-all: {late_refused} requests for {late_calls} calls that could not succeed"));
    }
    if lost > 0 {
        wrong.push(format!("regions-all: {lost} calls failed when no region throttled any more"));
    }
    Ok(Verdict { lines: vec![line], wrong })
}

fn throttle(name: &str, which: &[&str], status: u16, load: &Load, run: &Run<'_>) -> Result<Records, Error> {
    let classes = json!([{ "name": "any", "paths": ["dx", "vpn", "internet"], "regions": REGIONS }]);
    let keys = json!({ "regions": { REGIONS[0]: {}, REGIONS[1]: {} }, "route_classes": classes });
    let policy = Some(document(keys)?);
    let setup = Setup { name, regions: &REGIONS, http1: run.options.http1, policy, tokens: false };
    let mut harness = Harness::start(&setup, run.programs, run.signals)?;
    let running = harness.load("calls", load)?;
    let start = (Instant::now(), now_ms());
    let [from, to] = THROTTLED.map(|share| Duration::from_secs(load.seconds).mul_f64(share));
    harness.wait_until(start.0 + from, run.signals)?;
    which.iter().try_for_each(|region| harness.hosts.throttle(region, status, MODEL))?;
    let throttled = now_ms();
    harness.wait_until(start.0 + to, run.signals)?;
    which.iter().try_for_each(|region| harness.hosts.relent(region))?;
    let events = Events { start: start.1, throttled, relented: now_ms() };
    let calls = harness.settle(running, run.signals)?;
    let records = Records { calls, exchanges: harness.exchanges()?, requests: harness.hosts.requests()?, events };
    harness.stop();
    Ok(records)
}

/// Whether it is of the model that is throttled.
fn throttleable(model: &Option<String>) -> bool {
    model.as_deref().is_some_and(|model| model.contains(MODEL))
}

/// A line for each second: calls, and what each region answered.
fn timeline(records: &Records) -> Vec<String> {
    let Records { calls, exchanges, requests, events } = records;
    let second = |ms: u64| ms.saturating_sub(events.start) / 1000;
    let mut lines = vec![
        "   s  calls  failed    p50 ms    p99 ms   answered by us-east-1  us-west-2   refused by us-east-1".to_owned(),
    ];
    let last = calls.iter().map(|call| second(call.start_ms)).max().unwrap_or(0);
    for now in 0..=last {
        let begun: Vec<&Call> =
            calls.iter().filter(|call| call.kind == "call" && second(call.start_ms) == now).collect();
        let mut times: Vec<f64> = begun.iter().map(|call| call.ms).collect();
        let failed = begun.iter().filter(|call| call.end != "ok").count();
        let answered = |region: &str| {
            let of = |exchange: &&Exchange| {
                second(exchange.start_ms) == now
                    && throttleable(&exchange.model)
                    && exchange.region.as_deref() == Some(region)
            };
            exchanges.iter().filter(of).count()
        };
        let refused = |request: &&Request| {
            second(request.ms) == now
                && request.region == REGIONS[0]
                && throttleable(&request.model)
                && request.status != 200
        };
        let event = [(events.throttled, "us-east-1 throttles"), (events.relented, "it throttles no more")]
            .into_iter()
            .find(|(ms, _)| second(*ms) == now)
            .map(|(_, name)| format!("  ◄ {name}"));
        let [p50, p99] = [0.5, 0.99].map(|share| percentile(&mut times, share));
        lines.push(format!(
            "{now:>4} {:>6} {failed:>7} {p50:>9.0} {p99:>9.0} {:>23} {:>10} {:>22}{}",
            begun.len(),
            answered(REGIONS[0]),
            answered(REGIONS[1]),
            requests.iter().filter(refused).count(),
            event.unwrap_or_default(),
        ));
    }
    lines
}

fn summary(records: &Records) -> Summary {
    let Records { calls, exchanges, requests, events } = records;
    let during = events.throttled..events.relented;
    let p99 = |within: &dyn Fn(u64) -> bool| {
        let timed = calls.iter().filter(|call| call.kind == "call" && within(call.start_ms));
        percentile(&mut timed.map(|call| call.ms).collect::<Vec<f64>>(), 0.99)
    };
    let uploads: Vec<&Call> = calls.iter().filter(|call| call.kind == "bulk").collect();
    let refused: Vec<&Request> =
        requests.iter().filter(|request| throttleable(&request.model) && request.status != 200).collect();
    let noticed = refused.iter().map(|request| request.ms).min().unwrap_or(events.throttled) + NOTICED_MS;
    let in_second = |exchange: &&&Exchange| exchange.region.as_deref() == Some(REGIONS[1]);
    let (asked, others): (Vec<&Exchange>, Vec<&Exchange>) =
        exchanges.iter().partition(|exchange| throttleable(&exchange.model));
    let second: Vec<&&Exchange> = asked.iter().filter(in_second).collect();
    let at_once = second.iter().filter(|exchange| exchange.attempts == 1).count();
    let large = second.iter().filter(|exchange| exchange.attempts > 1 && exchange.bytes_in >= UPLOAD).count();
    let after: Vec<&&Exchange> = asked.iter().filter(|exchange| exchange.start_ms >= events.relented).collect();
    let elsewhere = after.iter().copied().filter(in_second).map(|exchange| exchange.start_ms).max();
    let back = after.iter().filter(|exchange| !in_second(exchange)).map(|exchange| exchange.start_ms).max();
    let recovery = match (back, elsewhere) {
        (Some(back), Some(elsewhere)) if back > elsewhere => Some(elsewhere - events.relented),
        (Some(_), None) => Some(0),
        _ => None,
    };
    Summary {
        calls: calls.iter().filter(|call| call.must_hold()).count(),
        failures: failures(calls.iter()),
        uploads: (uploads.len(), uploads.iter().map(|call| call.ms).fold(0.0, f64::max)),
        p99: (p99(&|ms| ms < events.throttled), p99(&|ms| during.contains(&ms))),
        second: (at_once, second.len() - at_once, large),
        refused: (
            refused.iter().filter(|request| request.ms < noticed).count(),
            refused.iter().filter(|request| request.ms >= noticed).count(),
        ),
        begun: asked.iter().filter(|exchange| (noticed..events.relented).contains(&exchange.start_ms)).count(),
        recovery,
        others: (others.len(), others.iter().filter(|exchange| in_second(exchange)).count()),
    }
}

impl Summary {
    fn lines(&self, name: &str) -> Vec<String> {
        let recovery = self.recovery.map_or("never".to_owned(), |ms| format!("after {:.1} s", ms as f64 / 1000.0));
        let mut lines = vec![
            format!(
                "{name}: {} calls, {} failed; {} uploads of 20 MB, {:.1} s at most; p99 {:.0} ms, {:.0} ms while the \
                 region throttled",
                self.calls,
                self.failures.values().sum::<usize>(),
                self.uploads.0,
                self.uploads.1 / 1000.0,
                self.p99.0,
                self.p99.1,
            ),
            format!(
                "  the second region answered {} calls at their first attempt, {} at a later one, {} uploads among them; the \
                 first refused {} requests within {} s, {} after (of {} calls); all back {recovery}; of {} calls to \
                 other models {} left the first region",
                self.second.0,
                self.second.1,
                self.second.2,
                self.refused.0,
                NOTICED_MS / 1000,
                self.refused.1,
                self.begun,
                self.others.0,
                self.others.1,
            ),
        ];
        lines.extend(self.failures.iter().map(|(cause, count)| format!("  {count} × {cause}")));
        lines
    }

    fn wrong(&self, name: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let failed: usize = self.failures.values().sum();
        if self.second.1 == self.second.2 || self.second.2 == 0 {
            let what = if self.second.2 == 0 { "upload" } else { "call" };
            wrong.push(format!("{name}: no {what} was answered by the second region after the first had refused it"));
        }
        if failed > 0 {
            wrong.push(format!("{name}: {failed} calls failed"));
        }
        if ratio(self.refused.1 as u64, self.begun) > TRIES {
            let (refused, begun) = (self.refused.1, self.begun);
            wrong.push(format!("{name}: {refused} of {begun} new calls still asked the region that throttles"));
        }
        if self.recovery.is_none() {
            wrong.push(format!("{name}: calls never came back to the first region"));
        }
        if self.others.1 > 0 {
            wrong.push(format!(
                "{name}: {} calls to models that were not throttled left the first region",
                self.others.1
            ));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{call, exchange};

    const EVENTS: Events = Events { start: 10_000, throttled: 12_000, relented: 20_000 };

    fn answered(start_ms: u64, region: &str, attempts: u64) -> Exchange {
        let model = Some(format!("anthropic.{MODEL}-v2"));
        Exchange { region: Some(region.into()), model, ..exchange(start_ms, Some("dx"), attempts) }
    }

    fn request(ms: u64, status: u16) -> Request {
        Request { ms, region: REGIONS[0], model: Some(format!("us.anthropic.{MODEL}-v2")), status, violation: None }
    }

    #[test]
    fn separates_first_attempts_and_late_refusals() {
        let exchanges = [
            answered(10_500, REGIONS[0], 1),
            answered(12_010, REGIONS[1], 2),
            Exchange { bytes_in: UPLOAD, ..answered(12_020, REGIONS[1], 2) },
            answered(14_000, REGIONS[1], 1),
            answered(21_500, REGIONS[1], 1),
            answered(21_600, REGIONS[0], 1),
            exchange(15_000, Some("dx"), 1),
        ];
        let requests = [request(10_510, 200), request(12_020, 429), request(13_021, 429)];
        let calls =
            [call("call", 10_500, 10.0, "ok"), call("call", 12_010, 50.0, "ok"), call("bulk", 12_500, 900.0, "ok")];
        let summary = summary(&Records {
            calls: calls.into(),
            exchanges: exchanges.into(),
            requests: requests.into(),
            events: EVENTS,
        });
        assert_eq!((summary.second, summary.refused, summary.begun), ((2, 2, 1), (1, 1), 1));
        assert_eq!((summary.recovery, summary.others), (Some(1500), (1, 0)));
        assert_eq!((summary.p99, summary.uploads), ((10.0, 50.0), (1, 900.0)));
        assert!(summary.wrong("x")[0].contains("1 of 1 new calls still asked"));
        assert_eq!(Summary { refused: (1, 0), ..summary }.wrong("x"), Vec::<String>::new());
    }

    #[test]
    fn a_failed_stream_is_a_failed_call_here() {
        let calls = vec![call("stream", 12_010, 50.0, "broken: x")];
        let summary = summary(&Records { calls, exchanges: Vec::new(), requests: Vec::new(), events: EVENTS });
        assert_eq!(summary.failures.len(), 1);
        assert_eq!(summary.wrong("x").len(), 3);
    }
}
