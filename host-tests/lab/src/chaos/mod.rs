//! `cargo xtask chaos`: the gateway under load while its paths fail, its regions throttle and its policy changes.
//!
//! Hosts are network namespaces ([`lab`]); the gateway is `bedrock-gateway up` in one of them, and the load a program beside it
//! ([`harness`]). Each scenario is a module that does its harm, reads what was left behind ([`record`]) and judges it.

mod cutover;
mod failover;
pub mod fault;
pub(crate) mod harness;
pub mod lab;
mod policy;
mod private;
mod qos;
pub mod record;
mod regions;
pub mod report;

use std::time::{SystemTime, UNIX_EPOCH};

use self::fault::Fault;
use crate::programs::Programs;
use crate::{Error, namespace};
use bedrock_gateway::progress::print as say;
use bedrock_gateway::signals::Signals;

/// How much of everything.
#[derive(Debug, Clone)]
pub struct Options {
    /// Converse calls in a second.
    pub rate: u32,
    /// The length of each run, in seconds.
    pub seconds: u64,
    /// Streams that run at any time.
    pub streams: u32,
    /// How long the models of two calls think, in seconds.
    pub think: u64,
    /// Whether the upstreams offer HTTP/1.1 only.
    pub http1: bool,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Nobody listens.
    Refuse,
    /// Connections are accepted, then reset.
    Reset,
    /// Packets are dropped.
    Silent,
    /// Requests are answered with 503.
    #[value(name = "503")]
    Unavailable,
    /// Of a hundred packets five are dropped.
    Loss,
    /// Answers come two seconds later.
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
    /// Uploads beside calls of people: marks, bandwidth, latency.
    Qos,
}

/// What every scenario is given.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    options: &'a Options,
    programs: &'a Programs,
    signals: &'a Signals,
}

/// What a scenario says in the end.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What was seen.
    lines: Vec<String>,
    /// What of it was not as it must be.
    wrong: Vec<String>,
}

/// Runs them one after the other; an error if something was not as it must be.
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

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or_default()
}
