//! The clock of the gateway's machine, which steps.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use time::OffsetDateTime;

use crate::harness::required;

/// Seconds since 1970, by this machine's clock.
pub(super) fn now() -> f64 {
    OffsetDateTime::now_utc().unix_timestamp_nanos() as f64 / 1e9
}

/// A clock for Envoy and the collector (`host-tests/clock`). Everybody else, Bedrock and DynamoDB too, has this machine's.
pub(super) struct Clock {
    path: PathBuf,
    file: File,
    /// When it stepped, by this machine's clock, and how far ahead it is since, in seconds.
    steps: Vec<(f64, f64)>,
}

impl Clock {
    pub(super) fn new(dir: &Path) -> Clock {
        let path = dir.join("clock");
        fs::write(&path, 0_i64.to_ne_bytes()).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        Clock { path, file, steps: vec![(0.0, 0.0)] }
    }

    /// A program that has this clock.
    pub(super) fn give<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("LD_PRELOAD", required("STEPPED_CLOCK_LIBRARY")).env("STEPPED_CLOCK_FILE", &self.path)
    }

    /// Is that many seconds ahead of this machine's clock from now on.
    pub(super) fn step(&mut self, ahead: i64) {
        self.file.write_all_at(&(ahead * 1_000_000_000).to_ne_bytes(), 0).unwrap();
        self.steps.push((now(), ahead as f64));
    }

    /// What it showed at this machine's `from`, and from each step until `to` on.
    pub(super) fn shown(&self, from: f64, to: f64) -> Vec<f64> {
        let ends = self.steps.iter().skip(1).map(|(at, _)| *at).chain([f64::INFINITY]);
        let spans = self.steps.iter().zip(ends).filter(|((begin, _), end)| *begin <= to && from <= *end);
        spans.map(|((begin, ahead), _)| from.max(*begin) + ahead).collect()
    }
}

#[test]
fn a_call_across_a_step_has_two_times() {
    let dir = tempfile::tempdir().unwrap();
    let mut clock = Clock::new(dir.path());
    clock.steps.extend([(100.0, 240.0), (110.0, 0.0)]);
    assert_eq!(clock.shown(50.0, 51.0), [50.0]);
    assert_eq!(clock.shown(99.0, 100.5), [99.0, 340.0]);
    assert_eq!(clock.shown(105.0, 106.0), [345.0]);
    assert_eq!(clock.shown(109.5, 111.0), [349.5, 110.0]);
    let date = || {
        let output = clock.give(Command::new("date").arg("+%s")).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().unwrap()
    };
    assert!((date() - now()).abs() < 2.0);
    clock.file.write_all_at(&(-86_400_000_000_000_i64).to_ne_bytes(), 0).unwrap();
    assert!((date() - now() + 86_400.0).abs() < 2.0);
}
