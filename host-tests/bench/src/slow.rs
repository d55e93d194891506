//! Many streams at once that take their time: what each takes of Envoy's memory, and whether that grows.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::client::Calls;
use crate::contender::Running;
use crate::error::Error;
use crate::turns::{median, percentiles};
use crate::upstream::Upstream;

/// How often the memory is read.
const EACH: Duration = Duration::from_millis(500);

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
    streams: u32,
    seconds: u64,
) -> Result<SlowStreams, Error> {
    // What is set up once is not a stream's.
    Calls::converse_stream().make(running.port, 20).await?;
    let before = running.memory()?;
    let mut open = Calls::slow_stream().open(running.port, streams).await?;
    let (start, cpu) = (Instant::now(), running.cpu()?);
    let mut memory = Vec::new();
    while start.elapsed().as_secs() < seconds {
        memory.push(running.memory()?);
        tokio::time::sleep(EACH).await;
        open.goes_on()?;
    }
    let (cpu, lasted) = (running.cpu()?.saturating_sub(cpu), start.elapsed());
    upstream.end_slow_streams();
    let times = open.end().await?;
    let tenth = |nth: usize| {
        let length = memory.len().div_ceil(10);
        median(memory.iter().skip(length * nth).take(length).map(|kib| *kib as f64))
    };
    let (second, last) = (tenth(1), tenth(9));
    Ok(SlowStreams {
        contender: running.contender.name(),
        streams,
        seconds,
        kib_each: (last - before as f64) / f64::from(streams),
        growth: (last / second - 1.0) * 100.0,
        frame_us: cpu as f64 / 1e3 / (f64::from(streams) * lasted.as_secs_f64()),
        first_us: percentiles(times.iter().map(|took| took.first)),
    })
}
