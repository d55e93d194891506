//! Contenders take turns, so that a machine whose speed drifts is as fast for each.

use std::time::Duration;

use crate::client::{Calls, Took};
use crate::contender::{Contender, Running};
use crate::error::Error;
use crate::report::Figure;
use crate::stats::{median, percentiles};
use crate::upstream::Upstream;

/// One turn of a contender.
#[derive(Debug)]
struct Turn {
    /// CPU time for a call, in microseconds.
    cpu: f64,
    took: [f64; 2],
    first: [f64; 2],
}

/// Other gateways get a twentieth of the calls, because a call takes them longer, and at least as many as these.
const PEER_SHARE: u32 = 20;
const PEER_LEAST: u32 = 50;

/// Measures so many calls in each turn.
pub(crate) async fn measure(
    contenders: &[&Running],
    upstream: &Upstream,
    calls: impl Fn(Contender) -> Calls,
    bytes: usize,
    count: u32,
    rounds: u32,
) -> Result<Vec<Figure>, Error> {
    let mut all: Vec<Vec<Turn>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (running, turns) in contenders.iter().zip(&mut all) {
            let contender = running.contender;
            let count = if contender.is_peer() { (count / PEER_SHARE).max(PEER_LEAST) } else { count };
            turns.push(turn(running, upstream, &calls(contender), count).await?);
        }
    }
    let bare = contenders.iter().zip(&all).find(|(running, _)| running.contender == Contender::Bare);
    let figures = contenders.iter().zip(&all).map(|(running, turns)| {
        let cpu = || turns.iter().map(|turn| turn.cpu);
        let over = bare.filter(|_| running.contender != Contender::Bare && !running.contender.is_peer());
        Figure {
            contender: running.contender.name(),
            bytes,
            cpu_us: [median(cpu()), cpu().fold(f64::MAX, f64::min), cpu().fold(0.0, f64::max)],
            added_us: over.map(|(_, bare)| median(turns.iter().zip(bare).map(|(turn, bare)| turn.cpu - bare.cpu))),
            took_us: medians(turns.iter().map(|turn| turn.took)),
            first_us: medians(turns.iter().map(|turn| turn.first)),
        }
    });
    Ok(figures.collect())
}

async fn turn(running: &Running, upstream: &Upstream, calls: &Calls, count: u32) -> Result<Turn, Error> {
    let warmup = if running.contender.is_peer() { count } else { count.div_ceil(10) };
    calls.make(running.port, warmup).await?;
    let scheme = running.contender.scheme();
    let (before, arrived) = (running.cpu()?, upstream.calls(scheme));
    let times = calls.make(running.port, count).await?;
    let cpu = running.cpu()?.saturating_sub(before);
    let arrived = upstream.calls(scheme) - arrived;
    if arrived != count {
        let name = running.contender.name();
        return Err(Error::Call(format!("{name}: of {count} calls {arrived} arrived, authorized as {scheme:?}")));
    }
    let of = |time: fn(&Took) -> Duration| percentiles(times.iter().map(time));
    Ok(Turn { cpu: cpu as f64 / 1e3 / f64::from(count), took: of(|took| took.whole), first: of(|took| took.first) })
}

fn medians(pairs: impl Iterator<Item = [f64; 2]> + Clone) -> [f64; 2] {
    [median(pairs.clone().map(|[first, _]| first)), median(pairs.map(|[_, second]| second))]
}
