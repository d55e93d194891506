//! A class without the internet loses both of its paths.

use std::time::{Duration, Instant};

use serde_json::json;

use super::fault::Fault;
use super::harness::{Harness, Load, Setup};
use super::policy::document;
use super::{Options, Run, Verdict, say};
use crate::Error;
use crate::keys::REGION;
use crate::record::{Call, now_ms};
use bedrock_gateway::paths::PathName;

/// The length of the run in seconds.
const SECONDS: u64 = 10;
/// The second at which both private paths are cut.
const CUT: u64 = 3;

/// The calls of a class without the internet, after both of its paths were cut.
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

/// Cuts both paths of a class that has no third path; the gateway's host has one.
pub(super) fn run(run: &Run<'_>) -> Result<Verdict, Error> {
    let Options { rate, http1, .. } = *run.options;
    say(&format!("\nprivate-only: {rate} calls/s, dx and vpn refuse connections"));
    let classes = json!([{ "name": "private-only", "paths": ["dx", "vpn"] }]);
    let policy = document(json!({ "route_classes": classes }))?;
    let setup = Setup { name: "private-only", regions: &[REGION], http1, policy: Some(policy), tokens: false };
    let mut harness = Harness::start(&setup, run.programs, run.signals)?;
    let load = harness.load("calls", &Load { rate, seconds: SECONDS, ..Load::default() })?;
    harness.wait_until(Instant::now() + Duration::from_secs(CUT), run.signals)?;
    harness.hosts.cut(PathName::Dx, Fault::Refuse)?;
    harness.hosts.cut(PathName::Vpn, Fault::Refuse)?;
    let cut = now_ms();
    let calls = harness.settle(load, run.signals)?;
    let packets = harness.hosts.arrived(PathName::Internet)?;
    harness.stop();
    let after: Vec<&Call> = calls.iter().filter(|call| call.start_ms >= cut).collect();
    let refused = |call: &&&Call| call.status == 503 && call.end == "ServiceUnavailableException";
    let refused = after.iter().filter(refused).count();
    let before = calls.iter().filter(|call| call.start_ms < cut && call.end == "ok").count();
    let found = Private { before, after: after.len(), refused, packets };
    Ok(Verdict { lines: vec![found.line()], wrong: found.wrong() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_packet_to_the_internet_is_too_many() {
        let kept = Private { before: 10, after: 20, refused: 20, packets: 0 };
        assert_eq!(kept.wrong(), Vec::<String>::new());
        assert_eq!(Private { packets: 1, ..kept }.wrong(), ["private-only: 1 packets went to the internet"]);
    }
}
