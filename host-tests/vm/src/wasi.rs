//! The WASI of a module: its configured environment, a clock that tests move, the same random bytes in every run, and
//! output that goes to the log. It has no arguments, directories, sockets or input.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{Deterministic, HostMonotonicClock, HostWallClock, WasiCtxBuilder};

use super::effects::Log;

/// The random bytes repeat after this many.
const RANDOM_BYTES: usize = 1 << 16;

/// One VM's WASI, with the ends of it that the host holds.
pub(super) struct Wasi {
    pub(super) context: WasiP1Ctx,
    pub(super) clock: Clock,
    outputs: [Output; 2],
}

impl Wasi {
    pub(super) fn new(environment: &[(String, String)], clock_ns: u64) -> Self {
        let clock = Clock(Arc::new(AtomicU64::new(clock_ns)));
        // As in Envoy: standard output is info, standard error is error.
        let [stdout, stderr] = [2, 4].map(|level| Output { level, pipe: MemoryOutputPipe::new(usize::MAX), taken: 0 });
        let context = WasiCtxBuilder::new()
            .envs(environment)
            .stdout(stdout.pipe.clone())
            .stderr(stderr.pipe.clone())
            .wall_clock(clock.clone())
            .monotonic_clock(clock.clone())
            .secure_random(Deterministic::new(random()))
            .build_p1();
        Self { context, clock, outputs: [stdout, stderr] }
    }

    /// The lines that the module wrote since this was last asked, standard output's first.
    pub(super) fn written(&mut self) -> Vec<Log> {
        self.outputs.iter_mut().flat_map(Output::take).collect()
    }
}

/// The same in every run, so that a failing test fails again.
fn random() -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(RANDOM_BYTES);
    bytes.resize_with(RANDOM_BYTES, || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    bytes
}

/// Nanoseconds since 1970, for the wall clock and the monotonic one alike.
#[derive(Clone)]
pub(super) struct Clock(Arc<AtomicU64>);

impl Clock {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, ns: u64) {
        self.0.store(ns, Ordering::Relaxed);
    }
}

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.get())
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        self.get()
    }
}

/// Standard output or standard error.
struct Output {
    level: u32,
    pipe: MemoryOutputPipe,
    /// Bytes that are in the log already.
    taken: usize,
}

impl Output {
    fn take(&mut self) -> Vec<Log> {
        let contents = self.pipe.contents();
        let new = contents.get(self.taken..).unwrap_or_default();
        self.taken = contents.len();
        let text = String::from_utf8_lossy(new);
        text.lines().map(|line| Log { level: self.level, text: line.to_owned() }).collect()
    }
}
