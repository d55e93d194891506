//! `cargo xtask vpn`: the VPN, for real: the machines of `infra/vpn` with Debian's strongSwan and FRR, others like them in AWS's
//! place, and calls that cross. One tunnel is cut under load and restored.
//!
//! Hosts are network namespaces ([`lab`]), AWS's interface is a double ([`cloud`]), and what was seen is judged by [`report`].

pub mod cloud;
pub mod lab;
mod report;

use std::time::{Duration, Instant};

use self::lab::{Lab, Seen};
use self::report::{Events, Second};
use crate::chaos::harness::{interrupted, read};
use crate::chaos::record::{calls, exchanges, violations};
use crate::programs::Programs;
use crate::{Error, machine, namespace, tools};
use bedrock_gateway::gateway::run_dir;
use bedrock_gateway::progress::print;
use bedrock_gateway::signals::Signals;

/// How much of everything.
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
/// that is half dead when the cut is mended may yet fall, for which a machine waits a minute before it takes routes back.
const SESSIONS_END: u64 = 35;
/// For how long the load goes on after the cut is mended, in seconds, shorter or longer.
const AFTER: (u64, u64) = (14, 45);
/// Time for tunnels, BGP and the first claim.
const START: Duration = Duration::from_secs(60);
/// Between two looks at the hosts.
const LOOK: Duration = Duration::from_millis(100);

/// Runs it; an error if something was not as it must be.
pub fn run(options: &Options) -> Result<(), Error> {
    namespace::check("vpn")?;
    lab::check()?;
    let signals = Signals::listen()?;
    let root = machine::find()?;
    let programs = Programs::find()?;
    let dir = run_dir(&tools::target(), "vpn")?;
    print(&format!("{}; ESP in user space (kernel-libipsec)", root.versions()?));

    let begun = Instant::now();
    let long = options.cut >= SESSIONS_END;
    let mut lab = Lab::build(&dir, &root, &programs, if long { (10, 30) } else { (3, 9) })?;
    let all_up = |lab: &Lab| Ok(lab.bgp_up()?.iter().all(|up| *up));
    wait(&mut lab, &signals, START, "BGP over two tunnels", all_up)?;
    print(&format!("{:>5.1} s  BGP is up over two tunnels", begun.elapsed().as_secs_f64()));
    wait(&mut lab, &signals, START, "a to hold the VPC's routes", |lab| Ok(lab.holder() == Some('a')))?;
    print(&format!("{:>5.1} s  gateway a holds the VPC's routes", begun.elapsed().as_secs_f64()));
    lab.start_gateway(&programs)?;
    print(&format!("{:>5.1} s  Envoy is ready; its paths: vpn, internet", begun.elapsed().as_secs_f64()));

    let after = if long { AFTER.1 } else { AFTER.0 };
    let seconds = BEFORE.as_secs() + options.cut + after;
    let mut load = lab.load(&programs, options.rate, seconds)?;
    let start = (Instant::now(), crate::chaos::now_ms());
    let mut events = Events::new(start.1);
    let mut seen: Vec<Second> = Vec::new();
    let mut before = lab.seen()?;
    let first = before;
    while !load.is_over()? {
        look(&mut lab, &signals)?;
        let elapsed = start.0.elapsed();
        // First, so that what a mended tunnel carries is not counted to the second before.
        if elapsed.as_secs() > seen.len() as u64 {
            let now = lab.seen()?;
            seen.push(Second { holder: lab.holder(), esp: now.esp_since(&before) });
            before = now;
        }
        if events.cut.is_none() && elapsed >= BEFORE {
            lab.cut()?;
            events.cut = Some(crate::chaos::now_ms());
        }
        if events.cut.is_some() && events.restored.is_none() && elapsed >= BEFORE + Duration::from_secs(options.cut) {
            lab.restore()?;
            events.restored = Some(crate::chaos::now_ms());
        }
        events.holds(lab.holder(), crate::chaos::now_ms());
        std::thread::sleep(LOOK);
    }
    let total: Seen = lab.seen()?.since(&first);
    let whole = lab.seen()?;
    // Calls in Envoy's access log are flushed within 100 ms.
    std::thread::sleep(Duration::from_millis(500));
    let calls = calls(&read(&dir.join("calls.jsonl"))?);
    let exchanges = exchanges(&read(&dir.join("access.jsonl"))?);
    let mut wrong = violations("vpn", &lab.requests()?);
    wrong.extend(lab.refused());
    drop(lab);
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

fn look(lab: &mut Lab, signals: &Signals) -> Result<(), Error> {
    if signals.count() > 0 {
        return Err(interrupted());
    }
    lab.check()
}

/// Looks until it is so.
fn wait(
    lab: &mut Lab,
    signals: &Signals,
    limit: Duration,
    what: &str,
    is_so: impl Fn(&Lab) -> Result<bool, Error>,
) -> Result<(), Error> {
    let start = Instant::now();
    while !is_so(lab)? {
        look(lab, signals)?;
        if start.elapsed() > limit {
            let logs = bedrock_gateway::programs::shown(lab.dir());
            return Err(Error::Failed(format!(
                "{} s are over, and still no sign of {what}; logs: {logs}",
                limit.as_secs()
            )));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
