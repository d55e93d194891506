//! `cargo xtask chaos`: the gateway under load while its paths fail.
//!
//! Hosts are network namespaces ([`lab`]); the gateway is `xtask up` in one of them, and the load a program beside it. For
//! each way of failing ([`fault`]) Direct Connect is cut, then the VPN too, then both are restored; what the calls met is
//! told second by second and judged ([`report`]).

pub mod fault;
pub mod lab;
pub mod report;
mod stand;

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::fault::Fault;
use self::report::{Events, Summary};
use self::stand::Stand;
use crate::Error;
use crate::paths::PathName;
use crate::up::Signals;

/// Share of a run's time at which Direct Connect is cut, then the VPN, then both are restored.
const CUTS: [f64; 3] = [0.15, 0.4, 0.65];
/// A path that is well again carries all calls within this time, in milliseconds.
const FAILBACK_MS: u64 = 10_000;
/// How long the proof of `private-only` takes, and when within it both private paths are cut, in seconds.
const PRIVATE: (u64, u64) = (10, 3);

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Converse calls in a second.
    pub rate: u32,
    /// The length of each run, in seconds.
    pub seconds: u64,
    /// The ways of failing.
    pub faults: Vec<Fault>,
    /// Whether the class without the internet is tried too.
    pub private_only: bool,
    /// Streams that run at any time.
    pub streams: u32,
    /// How long the models of two calls think, in seconds.
    pub think: u64,
    /// Whether the upstreams offer HTTP/1.1 only.
    pub http1: bool,
}

/// Runs them one after the other; an error if something was not as it must be.
pub fn run(options: &Options) -> Result<(), Error> {
    lab::Lab::check()?;
    let signals = Signals::listen()?;
    let programs = stand::Programs::build()?;
    let mut verdicts = Vec::new();
    for fault in &options.faults {
        say(&format!("\n{fault}: {} calls/s, {} streams, {} s", options.rate, options.streams, options.seconds));
        let summary = fail_over(options, *fault, &programs, &signals)?;
        verdicts.push((*fault, summary));
    }
    let private = match options.private_only {
        true => Some(private_only(options, &programs, &signals)?),
        false => None,
    };
    say("");
    let mut wrong = table(&verdicts);
    if let Some(private) = private {
        say(&private.line());
        wrong.extend(private.wrong());
    }
    if wrong.is_empty() {
        say("\nEverything held.");
        return Ok(());
    }
    Err(Error::Failed(format!("not everything held:\n  {}", wrong.join("\n  "))))
}

/// Cuts one path, then a second, then restores both.
fn fail_over(options: &Options, fault: Fault, programs: &stand::Programs, signals: &Signals) -> Result<Summary, Error> {
    let mut stand = Stand::start(&fault.to_string(), programs, options.http1, None, signals)?;
    let load = stand.load(options.rate, options.seconds, options.streams, options.think)?;
    let start = (Instant::now(), now_ms());
    let due = CUTS.map(|share| Duration::from_secs(options.seconds).mul_f64(share));
    let [cut_dx, cut_vpn, restored] = due;
    let ms = |after: Duration| start.1 + u64::try_from(after.as_millis()).unwrap_or_default();
    stand.wait_until(start.0 + cut_dx, signals)?;
    stand.lab.cut(PathName::Dx, fault)?;
    stand.wait_until(start.0 + cut_vpn, signals)?;
    stand.lab.cut(PathName::Vpn, fault)?;
    stand.wait_until(start.0 + restored, signals)?;
    stand.lab.restore(PathName::Dx, fault)?;
    stand.lab.restore(PathName::Vpn, fault)?;
    let events = Events { start: start.1, cut_dx: ms(cut_dx), cut_vpn: ms(cut_vpn), restored: ms(restored) };
    let (calls, exchanges) = stand.finish(load, signals)?;
    for line in report::timeline(&calls, &exchanges, &events) {
        say(&line);
    }
    Ok(report::summary(&calls, &exchanges, &events))
}

/// What became of a class without the internet whose paths were both cut.
#[derive(Debug)]
struct Private {
    /// Calls that were answered before.
    before: usize,
    /// Calls begun after the cut.
    after: usize,
    /// Those of them that the gateway answered with 503 ServiceUnavailableException.
    refused: usize,
    /// Packets that arrived at the internet's end.
    packets: u64,
}

/// Cuts both paths of a class that has no third, though the gateway's host has one.
fn private_only(options: &Options, programs: &stand::Programs, signals: &Signals) -> Result<Private, Error> {
    say(&format!("\nprivate-only: {} calls/s, dx and vpn refuse connections", options.rate));
    let mut stand = Stand::start("private-only", programs, options.http1, Some(stand::private_config), signals)?;
    let load = stand.load(options.rate, PRIVATE.0, 0, 0)?;
    stand.wait_until(Instant::now() + Duration::from_secs(PRIVATE.1), signals)?;
    stand.lab.cut(PathName::Dx, Fault::Refuse)?;
    stand.lab.cut(PathName::Vpn, Fault::Refuse)?;
    let cut = now_ms();
    let packets = stand.lab.arrived(PathName::Internet)?;
    let (calls, _) = stand.settle(load, signals)?;
    // Counted once more when all is over; a counter does not go back.
    let packets = packets.max(stand.lab.arrived(PathName::Internet)?);
    stand.stop();
    let after: Vec<&report::Call> = calls.iter().filter(|call| call.start_ms >= cut).collect();
    let refused = |call: &&&report::Call| call.status == 503 && call.end == "ServiceUnavailableException";
    let refused = after.iter().filter(refused).count();
    let before = calls.iter().filter(|call| call.start_ms < cut && call.end == "ok").count();
    Ok(Private { before, after: after.len(), refused, packets })
}

impl Private {
    fn line(&self) -> String {
        format!(
            "private-only: {} calls answered, then dx and vpn were cut: {} of {} calls got 503 ServiceUnavailableException, \
             {} packets arrived at the internet's host",
            self.before, self.refused, self.after, self.packets
        )
    }

    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.before == 0 || self.after == 0 {
            wrong.push("private-only: there were no calls before or after the cut".to_owned());
        }
        if self.refused < self.after {
            wrong.push(format!("private-only: {} calls were not refused with 503", self.after - self.refused));
        }
        if self.packets > 0 {
            wrong.push(format!("private-only: {} packets went to the internet", self.packets));
        }
        wrong
    }
}

/// Prints the verdicts; what was not as it must be.
fn table(verdicts: &[(Fault, Summary)]) -> Vec<String> {
    if !verdicts.is_empty() {
        say(
            "fault     calls  failed   before p50/p99   failover p99   slowest   thinking  streams  told  torn  quiet  failback",
        );
    }
    let mut wrong = Vec::new();
    for (fault, summary) in verdicts {
        let failback = summary.failback.map_or("never".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
        say(&format!(
            "{:<8} {:>6} {:>7} {:>8.0} / {:>4.0} ms {:>11.0} ms {:>6.0} ms {:>3} ≤{:>3.0} s {:>8} {:>5} {:>5} {:>6} {:>9}",
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
            summary.streams_told,
            summary.streams_torn,
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

/// What of a run was not as it must be.
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
    if summary.streams_quiet > 0 {
        let quiet = summary.streams_quiet;
        wrong.push(format!("{fault}: {quiet} streams in flight ended with nothing that tells a client so"));
    }
    if summary.failback.is_none_or(|ms| ms > FAILBACK_MS) {
        wrong.push(format!("{fault}: calls were not all back on dx within {} s", FAILBACK_MS / 1000));
    }
    wrong
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or_default()
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
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
            streams_told: 5,
            streams_torn: 5,
            streams_quiet: 0,
            failback: Some(5000),
            attempts: 1.0,
        }
    }

    #[test]
    fn judges_calls_times_streams_and_failback() {
        assert_eq!(judge(Fault::Refuse, &good()), Vec::<String>::new());
        let slow = Summary { failover_p99: 2900.0, ..good() };
        assert_eq!(judge(Fault::Silent, &slow), Vec::<String>::new());
        assert!(judge(Fault::Reset, &slow)[0].contains("2900 ms during failover, more than 1500 ms"));
        let bad = Summary { failed: 1, streams_quiet: 2, failback: None, ..good() };
        assert_eq!(judge(Fault::Refuse, &bad).len(), 3);
        assert_eq!(judge(Fault::Refuse, &Summary { calls: 0, ..good() }).len(), 1);
    }

    #[test]
    fn one_packet_to_the_internet_is_too_many() {
        let kept = Private { before: 10, after: 20, refused: 20, packets: 0 };
        assert_eq!(kept.wrong(), Vec::<String>::new());
        assert_eq!(Private { packets: 1, ..kept }.wrong(), ["private-only: 1 packets went to the internet"]);
    }
}
