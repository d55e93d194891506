//! Many streams at once that take their time: what each takes of Envoy's memory, and whether that grows.

use std::time::Duration;

use bedrock_load::process;
use serde::Serialize;
use tokio::time::Instant;

use crate::client::{Calls, Took};
use crate::contender::Running;
use crate::error::Error;
use crate::stats::percentiles;
use crate::streams;
use crate::upstream::Upstream;

/// The time between two samples of memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// What a contender takes for slow streams.
#[derive(Debug, Serialize)]
pub(crate) struct SlowStreams {
    pub(crate) contender: &'static str,
    /// Streams at once.
    pub(crate) streams: u32,
    /// How long all of them were open, in seconds.
    pub(crate) seconds: u64,
    /// Envoy's memory (`VmRSS`) with the streams less that before, for each stream, in KiB.
    pub(crate) kib_each: f64,
    /// How much more memory Envoy has in the last tenth of the time than in the second, in percent (medians).
    pub(crate) growth: f64,
    /// CPU time for a frame of a stream, in microseconds.
    pub(crate) frame_us: f64,
    /// Until the first byte of an answer while the streams were opened, in microseconds: the median and the 99th percentile.
    pub(crate) first_us: [f64; 2],
}

/// Opens so many streams, and keeps them open so many seconds.
pub(crate) async fn measure(
    running: &Running,
    upstream: &Upstream,
    at_once: u32,
    seconds: u64,
) -> Result<SlowStreams, Error> {
    // What is set up once is not a stream's.
    Calls::converse(1_000).make(running.port, 20).await?;
    let before = running.memory()?;
    let mut open = Calls::slow_stream().open(running.port, at_once).await?;
    let (start, cpu) = (Instant::now(), running.cpu()?);
    let mut memory = Vec::new();
    while start.elapsed().as_secs() < seconds {
        memory.push(running.memory()?);
        tokio::time::sleep(SAMPLE_INTERVAL).await;
        open.check()?;
    }
    let (cpu, lasted) = (running.cpu()?.saturating_sub(cpu), start.elapsed());
    upstream.end_slow_streams();
    let times = open.end().await?;
    if let Some(took) = times.iter().find(|took| !is_paced(took)) {
        let name = running.contender.name();
        return Err(Error::Call(format!("{name}: a stream of {:?} had {} bytes", took.whole, took.bytes)));
    }
    let (second, last) = process::second_and_last_tenth(&memory);
    Ok(SlowStreams {
        contender: running.contender.name(),
        streams: at_once,
        seconds,
        kib_each: (last as f64 - before as f64) / f64::from(at_once),
        growth: (last as f64 / second as f64 - 1.0) * 100.0,
        // A frame a second each.
        frame_us: cpu as f64 / 1e3 / (f64::from(at_once) * lasted.as_secs_f64()),
        first_us: percentiles(times.iter().map(|took| took.first)),
    })
}

/// Whether a stream had a word a second.
fn is_paced(took: &Took) -> bool {
    let words = took.bytes.saturating_sub(streams::start().len() + streams::end().len()) / streams::word().len();
    (words as f64 - (took.whole - took.first).as_secs_f64()).abs() < 3.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_without_its_words_is_found() {
        let took = |words: usize| Took {
            first: Duration::from_secs(1),
            whole: Duration::from_secs(21),
            bytes: streams::start().len() + words * streams::word().len() + streams::end().len(),
        };
        assert!(is_paced(&took(20)) && is_paced(&took(18)));
        assert!(!is_paced(&took(0)) && !is_paced(&took(16)) && !is_paced(&took(24)));
    }
}
