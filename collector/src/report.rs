//! What happens that someone should know of: each event counts and prints one line on stderr, here and nowhere else.
//! No line of a log is printed, as one that is not understood may hold anything; the `rejected` table keeps it.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of a run, and the voice that tells of them.
#[derive(Debug, Default)]
pub struct Report {
    stored: AtomicU64,
    repeated: AtomicU64,
    rejected: AtomicU64,
    dropped: AtomicU64,
    dropped_told: AtomicU64,
    skipped: AtomicU64,
}

/// Counts so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Records that a store accepted.
    pub stored: u64,
    /// Of those, the ones that were known to be there already.
    pub repeated: u64,
    /// Entries that gave no record, and records that a store refused.
    pub rejected: u64,
    /// ALS entries lost because the store was down for longer than the buffer lasts.
    pub dropped: u64,
    /// ALS entries that do not tell of a finished HTTP exchange.
    pub skipped: u64,
}

/// What a source found in its log that may mean a gap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// The log was renamed away, read to its end, and reading goes on in the next file.
    #[error("rotated at offset {offset}")]
    Rotated {
        /// Where the old file ended.
        offset: u64,
    },
    /// The log became shorter than what was read of it, or its beginning changed: reading starts again at 0.
    #[error("truncated or overwritten after offset {offset}; what was written between the last read and that is lost")]
    Truncated {
        /// How far it had been read.
        offset: u64,
    },
    /// The file that the checkpoint names is nowhere: it was removed or compressed before it was read to its end.
    #[error("the file of the checkpoint (inode {inode}) is gone: its lines after offset {offset} may be lost")]
    Gone {
        /// Its inode.
        inode: u64,
        /// How far it had been read.
        offset: u64,
    },
}

impl Report {
    /// Counts so far.
    pub fn counts(&self) -> Counts {
        Counts {
            stored: self.stored.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
        }
    }

    /// A store accepted `stored` records, `repeated` of which it had.
    pub fn stored(&self, stored: u64, repeated: u64) {
        self.stored.fetch_add(stored, Ordering::Relaxed);
        self.repeated.fetch_add(repeated, Ordering::Relaxed);
    }

    /// An entry gave no record.
    pub fn rejected(&self, source: &str, file: &str, offset: u64, reason: &str) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        say("warn", format_args!("rejected {source} entry: {file} offset {offset}: {reason}"));
    }

    /// A store will never take a record.
    pub fn refused(&self, request_id: &str, reason: &str) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        say("error", format_args!("store refused the record {request_id:?}: {reason}"));
    }

    /// An ALS entry was dropped, being the oldest in a full buffer. The first is told at once, more by [`Self::tell`].
    pub fn dropped(&self) {
        if self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            self.tell();
        }
    }

    /// Tells how many ALS entries were dropped, where that is more than was told.
    pub fn tell(&self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if self.dropped_told.swap(dropped, Ordering::Relaxed) != dropped {
            say("error", format_args!("dropped {dropped} access log service entries so far: the buffer is full"));
        }
    }

    /// ALS entries that do not tell of a finished HTTP exchange.
    pub fn skipped(&self, count: u64) {
        self.skipped.fetch_add(count, Ordering::Relaxed);
    }

    /// A write failed and is tried again after `wait`.
    pub fn store_down(&self, error: &dyn Display, wait: Duration) {
        say("warn", format_args!("store: {error}; trying again in {} ms", wait.as_millis()));
    }

    /// A write succeeded after `failures` that did not.
    pub fn store_back(&self, failures: u32) {
        say("info", format_args!("store: accepts writes again after {failures} failed"));
    }

    /// A log changed under the reader.
    pub fn notice(&self, file: &Path, notice: &Notice) {
        let level = if matches!(notice, Notice::Rotated { .. }) { "info" } else { "warn" };
        say(level, format_args!("{}: {notice}", file.display()));
    }

    /// Something failed that is tried again by itself (reading a log, purging).
    pub fn failed(&self, what: &str, error: &dyn Display) {
        say("warn", format_args!("{what}: {error}"));
    }

    /// The last line of a run.
    pub fn summary(&self) {
        let Counts { stored, repeated, rejected, dropped, skipped } = self.counts();
        say(
            "info",
            format_args!(
                "stored {stored} (of them repeated {repeated}), rejected {rejected}, dropped {dropped}, skipped {skipped}"
            ),
        );
    }
}

fn say(level: &str, text: std::fmt::Arguments<'_>) {
    // Not eprintln: it panics when whoever read stderr has gone.
    let _ = writeln!(std::io::stderr().lock(), "audit-collector {level} {text}");
}
