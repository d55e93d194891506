//! `cargo xtask soak chaos`: the gateway under load while its paths fail, its regions throttle and its policy changes.
//!
//! Hosts are network namespaces ([`hosts`]). The gateway is `bedrock-gateway up` in one of them, and the load generator runs
//! in another ([`harness`]). Each scenario is a module that injects its fault, reads the records ([`crate::record`]) and
//! checks them.

mod cutover;
mod failover;
pub mod fault;
pub(crate) mod harness;
pub mod hosts;
mod policy;
mod private;
mod qos;
mod regions;
pub mod report;

use self::fault::Fault;
use crate::programs::Programs;
use crate::{Error, namespace};
use bedrock_gateway::progress::print as say;
use bedrock_gateway::signals::Signals;

/// The size of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Converse calls in a second.
    pub rate: u32,
    /// The length of each run, in seconds.
    pub seconds: u64,
    /// Concurrent streams.
    pub streams: u32,
    /// Seconds that the models of two calls think.
    pub think: u64,
    /// Whether the upstreams offer HTTP/1.1 only.
    pub http1: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Connections are refused.
    Refuse,
    /// Connections are accepted, then reset.
    Reset,
    /// Packets are dropped.
    Silent,
    /// Requests are answered with 503.
    #[value(name = "503")]
    Unavailable,
    /// 5 % of packets are dropped.
    Loss,
    /// Answers are two seconds late.
    Slow,
    /// Both paths of a class without the internet refuse.
    PrivateOnly,
    /// The first region answers 429 for a model.
    #[value(name = "region-429")]
    Region429,
    /// The first region answers 503 for a model.
    #[value(name = "region-503")]
    Region503,
    /// Every region answers 429 for a model.
    RegionsAll,
    /// Calls move from dx to vpn by weights, without a restart.
    Cutover,
    /// Uploads next to interactive calls: marks, bandwidth, latency.
    Qos,
}

/// The arguments of every scenario.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    options: &'a Options,
    programs: &'a Programs,
    signals: &'a Signals,
}

/// The result of a scenario.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The report.
    lines: Vec<String>,
    /// The checks that failed.
    wrong: Vec<String>,
}

/// Runs the scenarios in turn; an error names the checks that failed.
pub fn run(options: &Options, scenarios: &[Scenario]) -> Result<(), Error> {
    namespace::check("chaos")?;
    let signals = Signals::listen()?;
    let programs = Programs::find()?;
    let run = Run { options, programs: &programs, signals: &signals };
    let (mut faults, mut verdicts) = (Vec::new(), Vec::new());
    for scenario in scenarios {
        let mut fail_over = |fault: Fault| -> Result<(), Error> {
            say(&format!("\n{fault}: {} calls/s, {} streams, {} s", options.rate, options.streams, options.seconds));
            faults.push((fault, failover::run(fault, &run)?));
            Ok(())
        };
        match scenario {
            Scenario::Refuse => fail_over(Fault::Refuse)?,
            Scenario::Reset => fail_over(Fault::Reset)?,
            Scenario::Silent => fail_over(Fault::Silent)?,
            Scenario::Unavailable => fail_over(Fault::Unavailable)?,
            Scenario::Loss => fail_over(Fault::Loss)?,
            Scenario::Slow => fail_over(Fault::Slow)?,
            Scenario::PrivateOnly => verdicts.push(private::run(&run)?),
            Scenario::Region429 => verdicts.push(regions::one(429, &run)?),
            Scenario::Region503 => verdicts.push(regions::one(503, &run)?),
            Scenario::RegionsAll => verdicts.push(regions::all(&run)?),
            Scenario::Cutover => verdicts.push(cutover::run(&run)?),
            Scenario::Qos => verdicts.push(qos::run(&run)?),
        }
    }
    say("");
    let mut wrong = failover::table(&faults);
    for verdict in verdicts {
        verdict.lines.iter().for_each(|line| say(line));
        wrong.extend(verdict.wrong);
    }
    if wrong.is_empty() {
        say("\nEverything held.");
        return Ok(());
    }
    Err(Error::Failed(format!("not everything held:\n  {}", wrong.join("\n  "))))
}
