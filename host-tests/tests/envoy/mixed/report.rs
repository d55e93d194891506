//! Counts of a run, its CPU and memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bedrock_load::process;

use super::load::{Expected, Kind};
use crate::harness::text_of;

/// Wrong answers that are shown.
const SHOWN: usize = 20;
/// Upper ends of call times, in milliseconds; each is 1.1 times the one before.
const STEPS: usize = 120;

/// CPU time of the machine since it started, in ticks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Busy {
    busy: u64,
    all: u64,
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, … (proc_stat(5)).
pub(super) fn busy() -> Busy {
    let text = text_of("/proc/stat".as_ref());
    let ticks = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let ticks: Vec<u64> = ticks.filter_map(|tick| tick.parse().ok()).collect();
    let all = ticks.iter().sum();
    Busy { busy: all - ticks[3] - ticks[4], all }
}

impl Busy {
    pub(super) fn share_since(self, before: Busy) -> f64 {
        (self.busy - before.busy) as f64 / (self.all - before.all).max(1) as f64
    }
}

#[derive(Debug, Default)]
pub(super) struct Report {
    /// Calls by their kind and what became of them.
    calls: BTreeMap<(Kind, String), u64>,
    wrong: u64,
    /// Calls that were due while as many ran as may.
    pub(super) skipped: u64,
    /// The first ones.
    shown: Vec<String>,
    /// Of calls of 1 KB.
    times: BTreeMap<usize, u64>,
    /// Calls in a second, for each second.
    pub(super) rates: Vec<u32>,
    /// Of Envoy, in KiB.
    memory: Vec<u64>,
    /// Shares of the machine, and of one core for Envoy.
    cpu: (f64, f64),
}

impl Report {
    pub(super) fn add(
        &mut self,
        kind: Kind,
        time: Duration,
        verdict: Result<String, &'static str>,
        show: impl FnOnce() -> String,
    ) {
        let end = match verdict {
            Ok(end) => end,
            Err(why) => {
                self.wrong += 1;
                if self.shown.len() < SHOWN {
                    self.shown.push(format!("{why}: {}", show()));
                }
                format!("WRONG: {why}")
            }
        };
        *self.calls.entry((kind, end)).or_default() += 1;
        if kind == Kind::Converse1k {
            let step = ((time.as_secs_f64() * 1000.0).max(1.0).ln() / 1.1_f64.ln()).ceil() as usize;
            *self.times.entry(step.min(STEPS)).or_default() += 1;
        }
    }

    fn percentile(&self, share: f64) -> f64 {
        let all: u64 = self.times.values().sum();
        let mut left = (all as f64 * share) as u64;
        for (step, count) in &self.times {
            if left <= *count {
                return 1.1_f64.powi(*step as i32);
            }
            left -= count;
        }
        0.0
    }

    /// Envoy's memory after the warm-up and at the end, in KiB.
    fn resident(&self) -> (u64, u64) {
        process::second_and_last_tenth(&self.memory)
    }

    pub(super) fn print(&self, time: Duration, expected: &Expected, keys: usize) {
        let all: u64 = self.calls.values().sum();
        let seconds = time.as_secs();
        println!(
            "{all} calls in {seconds} s, {} a second; {} wrong, {} skipped",
            all / seconds.max(1),
            self.wrong,
            self.skipped
        );
        for ((kind, end), count) in &self.calls {
            println!("  {kind:?}: {end}: {count}");
        }
        let rates = self.rates.iter().min().zip(self.rates.iter().max());
        println!(
            "rates {rates:?}; calls of 1 KB: p50 {:.1} ms, p99 {:.1} ms",
            self.percentile(0.5),
            self.percentile(0.99)
        );
        println!("CPU: {:.0} % of the machine, {:.0} % of a core by Envoy", self.cpu.0 * 100.0, self.cpu.1 * 100.0);
        let (first, last) = self.resident();
        println!("Envoy's memory: {first} KiB after the warm-up, {last} KiB at the end; {} samples", self.memory.len());
        let (changes, faults, cuts) = (expected.changes, expected.faults, expected.cuts.len());
        println!("{changes} documents, {keys} keys, {faults} faults, {cuts} of them cuts");
        self.shown.iter().for_each(|call| println!("{call}"));
    }

    /// Fails if an answer is wrong, or, in a run of at least half an hour, if Envoy's memory has grown by over 5 %.
    pub(super) fn check(&self, time: Duration) {
        assert_eq!(self.wrong, 0, "{:#?}", self.shown);
        let (first, last) = self.resident();
        if time >= Duration::from_secs(1800) {
            assert!(last * 100 <= first * 105, "Envoy's memory grew from {first} KiB to {last} KiB");
        }
    }
}

/// Samples Envoy's memory until the end, and keeps its log short.
pub(super) fn watch(envoy: u32, log: &Path, end: Instant, report: &Mutex<Report>) {
    let (begin, before, used) = (Instant::now(), busy(), process::cpu(envoy).unwrap());
    let pause = (end - begin).min(Duration::from_secs(600)) / 60;
    while Instant::now() + pause < end {
        std::thread::sleep(pause);
        let resident = process::memory(envoy).unwrap();
        report.lock().unwrap().memory.push(resident);
        // Envoy appends to it.
        std::fs::OpenOptions::new().write(true).open(log).unwrap().set_len(0).unwrap();
    }
    let cpu =
        (busy().share_since(before), (process::cpu(envoy).unwrap() - used) as f64 / begin.elapsed().as_nanos() as f64);
    report.lock().unwrap().cpu = cpu;
}
