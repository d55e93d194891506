//! The figures of a run.

use serde::Serialize;

use crate::loading::Loading;
use crate::slow::SlowStreams;

/// All figures.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Converse, by size of the request's body.
    pub(crate) calls: Vec<Figure>,
    /// ConverseStream, by size of the stream.
    pub(crate) streams: Vec<Figure>,
    /// Many slow ConverseStreams at once.
    pub(crate) slow: Vec<SlowStreams>,
    pub(crate) loading: Loading,
}

/// What a contender takes for calls of one kind.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) contender: &'static str,
    pub(crate) bytes: usize,
    /// CPU time of the process for a call, in microseconds: the median of the rounds, and the least and the most.
    pub(crate) cpu_us: [f64; 3],
    /// The same, less that of `bare` in the same round: the median.
    pub(crate) added_us: Option<f64>,
    /// How long a call took, in microseconds: the median of the rounds' medians and 99th percentiles.
    pub(crate) took_us: [f64; 2],
    /// The same until the first byte of the answer's body.
    pub(crate) first_us: [f64; 2],
}

impl Report {
    /// Prints a table of each part.
    pub(crate) fn print(&self) {
        for (name, figures) in [("calls", &self.calls), ("streams", &self.streams)] {
            println!(
                "{name:<10} {:>8} {:>10} {:>10} {:>8} {:>8} {:>9} {:>9}",
                "bytes", "CPU µs", "added µs", "p50 µs", "p99 µs", "first p50", "first p99"
            );
            for figure in figures {
                let Figure { contender, bytes, cpu_us: [cpu, ..], added_us, took_us, first_us } = figure;
                let ([p50, p99], [first, first99]) = (took_us, first_us);
                let added = added_us.map_or_else(|| "-".to_owned(), |added| format!("{added:.1}"));
                println!(
                    "{contender:<10} {bytes:>8} {cpu:>10.1} {added:>10} {p50:>8.0} {p99:>8.0} {first:>9.0} {first99:>9.0}"
                );
            }
        }
        println!(
            "{:<10} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "slow", "at once", "seconds", "KiB each", "growth %", "frame µs", "first p50", "first p99"
        );
        for SlowStreams { contender, streams, seconds, kib_each, growth, frame_us, first_us: [p50, p99] } in &self.slow
        {
            println!(
                "{contender:<10} {streams:>8} {seconds:>8} {kib_each:>9.1} {growth:>9.1} {frame_us:>9.1} {p50:>9.0} {p99:>9.0}"
            );
        }
        let Loading { models, gateway_ms, signer_ms } = &self.loading;
        println!("{models} models load in {gateway_ms:.1} ms (gateway) and {signer_ms:.1} ms (signer)");
    }
}
