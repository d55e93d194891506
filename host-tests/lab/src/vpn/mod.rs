//! `cargo xtask soak vpn`: the machines of `infra/vpn` with Debian's strongSwan and FRR, like machines at AWS's end, and calls
//! that cross. One tunnel is cut under load and restored.
//!
//! [`hosts`] are network namespaces ([`network`]), AWS's API is a double ([`cloud`]), and [`report`] checks the result.

pub mod cloud;
pub mod daemons;
mod hosts;
mod network;
mod report;

use std::time::{Duration, Instant};

use self::hosts::Hosts;
use self::network::Seen;
use self::report::{Events, Second};
use crate::programs::{Programs, interrupted};
use crate::record::{calls, exchanges, now_ms, read, violations};
use crate::{Error, machine, namespace, tools};
use bedrock_gateway::gateway::run_dir;
use bedrock_gateway::progress::print;
use bedrock_gateway::signals::Signals;

/// The size of a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Converse calls in a second.
    pub rate: u32,
    /// How long the tunnel is cut, in seconds.
    pub cut: u64,
}

/// The load runs so long before the cut.
const BEFORE: Duration = Duration::from_secs(3);
/// A cut that is longer ends IKE's and BGP's sessions by AWS's timers. In a shorter one AWS's ends have BGP's run faster: a session
/// that is half dead when the cut ends may still fail, and then a machine waits a minute before it takes routes back.
const SESSIONS_END: u64 = 35;
/// Seconds of load after the cut, for a short and a long one.
const AFTER: (u64, u64) = (14, 45);
/// Time for tunnels, BGP and the first claim.
const START: Duration = Duration::from_secs(60);
/// Between two looks at the hosts.
const LOOK: Duration = Duration::from_millis(100);

/// Runs it; an error names the checks that failed.
pub fn run(options: &Options) -> Result<(), Error> {
    namespace::check("vpn")?;
    daemons::check()?;
    let signals = Signals::listen()?;
    let root = machine::find()?;
    let programs = Programs::find()?;
    let dir = run_dir(&tools::target(), "vpn")?;
    print(&format!("{}; ESP in user space (kernel-libipsec)", root.versions()?));

    let begun = Instant::now();
    let long = options.cut >= SESSIONS_END;
    let mut hosts = Hosts::build(&dir, &root, &programs, if long { (10, 30) } else { (3, 9) })?;
    let all_up = |hosts: &Hosts| Ok(hosts.bgp_up()?.iter().all(|up| *up));
    wait(&mut hosts, &signals, START, "BGP over two tunnels", all_up)?;
    print(&format!("{:>5.1} s  BGP is up over two tunnels", begun.elapsed().as_secs_f64()));
    wait(&mut hosts, &signals, START, "a to hold the VPC's routes", |hosts| Ok(hosts.holder() == Some('a')))?;
    print(&format!("{:>5.1} s  gateway a holds the VPC's routes", begun.elapsed().as_secs_f64()));
    hosts.start_gateway(&programs)?;
    print(&format!("{:>5.1} s  Envoy is ready; its paths: vpn, internet", begun.elapsed().as_secs_f64()));

    let after = if long { AFTER.1 } else { AFTER.0 };
    let seconds = BEFORE.as_secs() + options.cut + after;
    let mut load = hosts.load(&programs, options.rate, seconds)?;
    let start = (Instant::now(), now_ms());
    let mut events = Events::new(start.1);
    let mut seen: Vec<Second> = Vec::new();
    let mut before = hosts.network().seen()?;
    let first = before;
    while !load.is_over()? {
        look(&mut hosts, &signals)?;
        let elapsed = start.0.elapsed();
        // First, so that packets after the restore do not count in the second before it.
        if elapsed.as_secs() > seen.len() as u64 {
            let now = hosts.network().seen()?;
            seen.push(Second { holder: hosts.holder(), esp: now.esp_since(&before) });
            before = now;
        }
        if events.cut.is_none() && elapsed >= BEFORE {
            hosts.network().cut()?;
            events.cut = Some(now_ms());
        }
        if events.cut.is_some() && events.restored.is_none() && elapsed >= BEFORE + Duration::from_secs(options.cut) {
            hosts.network().restore()?;
            events.restored = Some(now_ms());
        }
        events.holds(hosts.holder(), now_ms());
        std::thread::sleep(LOOK);
    }
    let total: Seen = hosts.network().seen()?.since(&first);
    let whole = hosts.network().seen()?;
    // Calls in Envoy's access log are flushed within 100 ms.
    std::thread::sleep(Duration::from_millis(500));
    let calls = calls(&read(&dir.join("calls.jsonl"))?);
    let exchanges = exchanges(&read(&dir.join("access.jsonl"))?);
    let mut wrong = violations("vpn", &hosts.requests()?);
    wrong.extend(hosts.refused());
    drop(hosts);
    for line in report::timeline(&calls, &exchanges, &seen, &events) {
        print(&line);
    }
    let summary = report::summary(&calls, &exchanges, &seen, &events, whole, total);
    summary.lines().iter().for_each(|line| print(line));
    wrong.extend(summary.wrong());
    if wrong.is_empty() {
        print(&format!("\nEverything held; {:.0} s in all.", begun.elapsed().as_secs_f64()));
        return Ok(());
    }
    Err(Error::Failed(format!("not everything held:\n  {}", wrong.join("\n  "))))
}

fn look(hosts: &mut Hosts, signals: &Signals) -> Result<(), Error> {
    if signals.count() > 0 {
        return Err(interrupted());
    }
    hosts.check()
}

/// Polls until `is_so`.
fn wait(
    hosts: &mut Hosts,
    signals: &Signals,
    limit: Duration,
    what: &str,
    is_so: impl Fn(&Hosts) -> Result<bool, Error>,
) -> Result<(), Error> {
    let start = Instant::now();
    while !is_so(hosts)? {
        look(hosts, signals)?;
        if start.elapsed() > limit {
            let logs = bedrock_gateway::programs::shown(hosts.dir());
            return Err(Error::Failed(format!("{} s passed without {what}; logs: {logs}", limit.as_secs())));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
