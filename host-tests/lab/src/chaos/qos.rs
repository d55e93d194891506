//! Uploads next to interactive calls: each class has its DSCP value on the wire, uploads keep to their bandwidth, and
//! interactive calls are not slower.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{Harness, Load, Setup};
use super::hosts::Marked;
use super::policy::document;
use super::{Options, Run, Verdict, say};
use crate::Error;
use crate::keys::REGION;
use crate::record::{Call, failures, now_ms, percentile, violations};
use bedrock_gateway::paths::PathName;

/// DSCP values: AF11 of bulk data, AF41 of interactive calls (RFC 4594).
const BULK: u64 = 10;
const PEOPLE: u64 = 34;
/// The bandwidth of all uploads together, in KiB/s: 67 Mbit/s.
const BANDWIDTH: u64 = 8192;
/// Concurrent uploads, and the bytes of each.
const UPLOADS: (u32, u64) = (2, 20_000_000);
/// Seconds until uploads have filled their bandwidth.
const FILL: u64 = 3;
/// Milliseconds between the end of the uploads and calls that count as quiet again.
const CALM_MS: u64 = 1000;
/// The bytes on the wire are more than the body's: TLS, HTTP/2, TCP.
const OVERHEAD: f64 = 1.05;
/// The share of its bandwidth that bulk must use, or else the limit was not tested.
const USED: f64 = 0.8;
/// The allowed rise of the 99th percentile of interactive calls.
const RISE: f64 = 1.2;
/// Packets with no mark of ours: such as the kernel's resets of connections that are closed.
const STRAY: f64 = 0.001;

/// The totals of a run.
#[derive(Debug, Clone, PartialEq)]
struct Summary {
    failures: BTreeMap<String, usize>,
    /// Interactive calls without uploads, and with them: their number, median and 99th percentile in milliseconds.
    alone: (usize, f64, f64),
    with_uploads: (usize, f64, f64),
    /// Uploads that were made.
    uploads: usize,
    /// Bytes of bulk on the wire in a second.
    rate: f64,
    /// The packets over Direct Connect, by DSCP value.
    marks: BTreeMap<u64, Marked>,
}

/// Interactive calls all the time, uploads in the middle third.
pub(super) fn run(run: &Run<'_>) -> Result<Verdict, Error> {
    let Options { rate, http1, .. } = *run.options;
    let third = run.options.seconds.div_ceil(2);
    say(&format!(
        "\nqos: {rate} calls/s; for {third} s alone, for {third} s next to {} uploads of 20 MB at any time with {BANDWIDTH} \
         KiB/s, for {third} s alone",
        UPLOADS.0
    ));
    let classes = json!([
        { "name": "bulk", "body_bytes": { "min": 1_000_000 }, "paths": ["dx", "vpn"], "dscp": BULK,
          "bandwidth_kbps": BANDWIDTH },
        { "name": "people", "paths": ["dx", "vpn", "internet"], "dscp": PEOPLE, "priority": "high" },
    ]);
    let policy = Some(document(json!({ "route_classes": classes }))?);
    let setup = Setup { name: "qos", regions: &[REGION], http1, policy, tokens: false };
    let mut harness = Harness::start(&setup, run.programs, run.signals)?;
    let start = Instant::now();
    // The last uploads take longer.
    let last = 2 * UPLOADS.1 * u64::from(UPLOADS.0) / (BANDWIDTH * 1024);
    let people = harness.load("people", &Load { rate, seconds: 3 * third + last, ..Load::default() })?;
    harness.wait_until(start + Duration::from_secs(third), run.signals)?;
    let (bulk, bulk_bytes) = UPLOADS;
    let uploads = harness.load("uploads", &Load { seconds: third, bulk, bulk_bytes, ..Load::default() })?;
    let begun = now_ms();
    harness.wait_until(start + Duration::from_secs(third + FILL), run.signals)?;
    let bytes = |harness: &Harness| -> Result<(u64, Instant), Error> {
        Ok((harness.hosts.marks(PathName::Dx)?.get(&BULK).map_or(0, |marked| marked.bytes), Instant::now()))
    };
    let first = bytes(&harness)?;
    harness.wait_until(start + Duration::from_secs(2 * third), run.signals)?;
    let second = bytes(&harness)?;
    let uploads = harness.settle(uploads, run.signals)?;
    let people = harness.settle(people, run.signals)?;
    let rate = second.0.saturating_sub(first.0) as f64 / (second.1 - first.1).as_secs_f64();
    let summary = summary(&people, &uploads, begun, rate, harness.hosts.marks(PathName::Dx)?);
    let mut wrong = summary.wrong();
    wrong.extend(violations("qos", &harness.hosts.requests()?));
    harness.stop();
    Ok(Verdict { lines: summary.lines(), wrong })
}

/// `begun`: when the uploads were, in milliseconds since 1970.
fn summary(people: &[Call], uploads: &[Call], begun: u64, rate: f64, marks: BTreeMap<u64, Marked>) -> Summary {
    let over = uploads.iter().map(Call::end_ms).max().unwrap_or(begun);
    let times = |within: &dyn Fn(&Call) -> bool| {
        let mut times: Vec<f64> = people.iter().filter(|call| within(call)).map(|call| call.ms).collect();
        (times.len(), percentile(&mut times, 0.5), percentile(&mut times, 0.99))
    };
    Summary {
        failures: failures(people.iter().chain(uploads)),
        alone: times(&|call| call.end_ms() < begun || call.start_ms >= over + CALM_MS),
        with_uploads: times(&|call| (begun..over).contains(&call.start_ms)),
        uploads: uploads.len(),
        rate,
        marks,
    }
}

impl Summary {
    /// The rise of the 99th percentile of interactive calls.
    fn rise(&self) -> f64 {
        if self.alone.2 > 0.0 { self.with_uploads.2 / self.alone.2 } else { f64::INFINITY }
    }

    fn packets(&self, dscp: u64) -> u64 {
        self.marks.get(&dscp).map_or(0, |marked| marked.packets)
    }

    /// Packets with no mark of ours.
    fn stray(&self) -> u64 {
        self.marks.values().map(|marked| marked.packets).sum::<u64>() - self.packets(BULK) - self.packets(PEOPLE)
    }

    fn lines(&self) -> Vec<String> {
        let limit = (BANDWIDTH * 1024) as f64;
        let mut lines = vec![
            format!(
                "qos: people alone: {} calls, median {:.1} ms, p99 {:.1} ms; next to uploads: {} calls, {:.1} ms, {:.1} ms: \
                 p99 × {:.2}",
                self.alone.0,
                self.alone.1,
                self.alone.2,
                self.with_uploads.0,
                self.with_uploads.1,
                self.with_uploads.2,
                self.rise(),
            ),
            format!(
                "  {} uploads; {:.2} MB/s of DSCP {BULK} arrived over dx, {:.1} % of the class's {:.2} MB/s; packets by \
                 DSCP: {BULK}: {}, {PEOPLE}: {}, others: {}",
                self.uploads,
                self.rate / 1e6,
                100.0 * self.rate / limit,
                limit / 1e6,
                self.packets(BULK),
                self.packets(PEOPLE),
                self.stray(),
            ),
        ];
        lines.extend(self.failures.iter().map(|(cause, count)| format!("  {count} × {cause}")));
        lines
    }

    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let failed: usize = self.failures.values().sum();
        let limit = (BANDWIDTH * 1024) as f64;
        if failed > 0 {
            wrong.push(format!("qos: {failed} calls failed"));
        }
        if self.rate > limit * OVERHEAD || self.rate < limit * USED {
            let (rate, limit) = (self.rate / 1e6, limit / 1e6);
            wrong.push(format!("qos: uploads took {rate:.2} MB/s, where their class has {limit:.2} MB/s"));
        }
        if self.rise() > RISE {
            wrong.push(format!(
                "qos: the people's 99th percentile was {:.2} times as long next to uploads",
                self.rise()
            ));
        }
        let (bulk, people, stray) = (self.packets(BULK), self.packets(PEOPLE), self.stray());
        if bulk == 0 || people == 0 || stray as f64 > (bulk + people) as f64 * STRAY {
            wrong.push(format!("qos: packets by DSCP: {BULK}: {bulk}, {PEOPLE}: {people}, others: {stray}"));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::call;

    fn marks(bulk: u64, people: u64, others: u64) -> BTreeMap<u64, Marked> {
        let of = |packets| Marked { packets, bytes: packets * 1500 };
        BTreeMap::from([(BULK, of(bulk)), (PEOPLE, of(people)), (0, of(others))])
    }

    #[test]
    fn compares_calls_with_and_without_uploads() {
        let people = [
            call("call", 1000, 10.0, "ok"),
            call("call", 9995, 99.0, "ok"),
            call("call", 10_500, 11.0, "ok"),
            call("call", 16_500, 77.0, "ok"),
            call("call", 17_500, 10.0, "ok"),
        ];
        let uploads = [call("bulk", 10_100, 5900.0, "ok")];
        let good = summary(&people, &uploads, 10_000, 8e6, marks(5000, 5000, 1));
        assert_eq!((good.alone, good.with_uploads), ((2, 10.0, 10.0), (1, 11.0, 11.0)));
        assert_eq!(good.wrong(), Vec::<String>::new());
        let bad = Summary { rate: 9e6, with_uploads: (1, 11.0, 12.5), marks: marks(5000, 0, 0), ..good };
        let wrong = bad.wrong();
        assert!(
            wrong[0].contains("9.00 MB/s, where") && wrong[1].contains("1.25 times") && wrong.len() == 3,
            "{wrong:?}"
        );
    }
}
