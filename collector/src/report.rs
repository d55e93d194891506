//! Counts events and prints each as one line on stderr. Log content is never printed, since a line that cannot be
//! decoded may hold anything; the `rejected` table keeps it.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use audit::text::visible;
use audit::{AuditRecord, RecordKind};
use time::OffsetDateTime;

use crate::health::envoy::losses::{Event, Window};
use crate::health::state::State;
use crate::stderr;
use crate::timestamp::timestamp;

/// Most of the records of a batch that are printed one by one.
const FOUND: usize = 20;

#[derive(Debug, Default)]
pub struct Report {
    stored: AtomicU64,
    repeated: AtomicU64,
    rejected: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    dropped_reported: AtomicU64,
    skipped: AtomicU64,
    gaps: AtomicU64,
    lost: AtomicU64,
    unlogged: AtomicU64,
    unknown: AtomicU64,
    expired: AtomicU64,
    expired_reported: AtomicU64,
    health: State,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that a store accepted, repeated ones included.
    pub stored: u64,
    /// Records that the store was seen to have already.
    pub repeated: u64,
    /// Entries that cannot be decoded, and records that a store refused.
    pub rejected: u64,
    /// Of these, records that a store refused.
    pub refused: u64,
    /// Access log service entries dropped from a full buffer.
    pub dropped: u64,
    /// Access log service entries that are not the end of an HTTP exchange, and entries of calls that are not audited.
    pub skipped: u64,
    /// Parts of the log of which lines may be lost.
    pub gaps: u64,
    /// Calls without a record: of holes, and of VMs that ended.
    pub lost: u64,
    /// Calls that ended, and that the log does not have.
    pub unlogged: u64,
    /// Calls with an intent, of whose end nothing is known.
    pub unknown: u64,
    /// Stored records that had expired by then: queries do not show them, and the next purge deletes them.
    pub expired: u64,
}

/// A change of the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    #[error("reading {} from its start", name.display())]
    Opened { name: PathBuf },
    #[error("{} is read to its end, offset {offset}", name.display())]
    Finished { name: PathBuf, offset: u64 },
    #[error("{} repeats a part that was read up to offset {offset}; reading goes on there", name.display())]
    Continued { name: PathBuf, offset: u64 },
    #[error("{} is older than the checkpoint of an older release, and taken as read", name.display())]
    TakenAsRead { name: PathBuf },
    #[error("truncated or overwritten after offset {offset}; lines written after the last read are lost")]
    Truncated { offset: u64 },
    #[error(
        "a part of the log (inode {inode}) is missing: {unread} bytes after offset {offset} were not read, and those \
         written later"
    )]
    Gone { inode: u64, offset: u64, unread: u64 },
    #[error("{} is not read: {reason}", name.display())]
    NotRead { name: PathBuf, reason: String },
}

impl Notice {
    /// Whether lines may be lost.
    pub fn is_gap(&self) -> bool {
        matches!(self, Self::Truncated { .. } | Self::Gone { .. } | Self::NotRead { .. })
    }
}

impl Report {
    pub fn counts(&self) -> Counts {
        Counts {
            stored: self.stored.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            unlogged: self.unlogged.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
        }
    }

    pub fn stored(&self, stored: u64, repeated: u64) {
        self.stored.fetch_add(stored, Ordering::Relaxed);
        self.repeated.fetch_add(repeated, Ordering::Relaxed);
    }

    /// An entry cannot be decoded.
    pub fn rejected(&self, source: &str, file: &str, offset: u64, reason: &str) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        say("warn", format_args!("rejected {source} entry: {file} offset {offset}: {reason}"));
    }

    /// A store can never accept a record.
    pub fn refused(&self, request_id: &str, reason: &str) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        say("error", format_args!("store refused record {request_id:?}: {reason}"));
    }

    /// Prints the first drop at once; [`Self::print_dropped`] prints later ones.
    pub fn dropped(&self) {
        if self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            self.print_dropped();
        }
    }

    /// Prints the number of dropped entries if it grew since the last print.
    pub fn print_dropped(&self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if self.dropped_reported.swap(dropped, Ordering::Relaxed) != dropped {
            say("error", format_args!("dropped {dropped} access log service entries so far: the buffer is full"));
        }
    }

    /// Prints the first expired record at once; [`Self::print_expired`] prints later ones.
    pub fn expired(&self, count: u64) {
        if count > 0 && self.expired.fetch_add(count, Ordering::Relaxed) == 0 {
            self.print_expired();
        }
    }

    /// Prints the number of expired records if it grew since the last print.
    pub fn print_expired(&self) {
        let expired = self.expired.load(Ordering::Relaxed);
        if self.expired_reported.swap(expired, Ordering::Relaxed) != expired {
            say(
                "warn",
                format_args!(
                    "{expired} records so far are older than {} days, and deleted soon: old parts of the log, or a wrong \
                     clock",
                    audit::RETENTION_DAYS
                ),
            );
        }
    }

    /// The collector made records of what it found.
    pub fn found(&self, records: &[AuditRecord]) {
        records.iter().take(FOUND).for_each(|record| self.print_found(record));
        let of = |kind: RecordKind| records.iter().filter(move |record| record.kind.as_deref() == Some(kind.name()));
        let lost = of(RecordKind::Hole).chain(of(RecordKind::VmEnd)).filter_map(|record| record.lost).sum();
        self.lost.fetch_add(lost, Ordering::Relaxed);
        self.unlogged.fetch_add(of(RecordKind::Unlogged).count() as u64, Ordering::Relaxed);
        self.unknown.fetch_add(of(RecordKind::OutcomeUnknown).count() as u64, Ordering::Relaxed);
        if let Some(more) = records.len().checked_sub(FOUND).filter(|more| *more > 0) {
            say("error", format_args!("{more} more records like these; `audit-collector completeness` lists them"));
        }
    }

    fn print_found(&self, record: &AuditRecord) {
        let is = |kind: RecordKind| record.kind.as_deref() == Some(kind.name());
        let AuditRecord { request_id: id, time, .. } = record;
        let [vm, envoy, until] = [&record.vm, &record.envoy, &record.until].map(|text| text.as_deref().unwrap_or("-"));
        let (lost, at_most) = (record.lost.unwrap_or(0), record.lost_at_most.unwrap_or(0));
        // `vm_start-ID-2`: it had been taken as ended.
        let again = is(RecordKind::VmStart) && !id.ends_with(vm);
        if again {
            say("warn", format_args!("VM {vm} of Envoy {envoy} is seen again: it had not ended"));
        } else if is(RecordKind::Hole) && record.lost.is_none() {
            let why = record.error_type.as_deref().unwrap_or("-");
            say("error", format_args!("{id}: calls logged from {time} to {until} may have no record: {why}"));
        } else if is(RecordKind::Hole) {
            say("error", format_args!("{id}: {lost} calls of VM {vm}, logged from {time} to {until}, have no record"));
        } else if is(RecordKind::VmEnd) {
            let level = if at_most > 0 { "error" } else { "info" };
            say(
                level,
                format_args!(
                    "VM {vm} of Envoy {envoy} has ended: {lost} calls from {time} to {until} have no record, at most {at_most}"
                ),
            );
        } else if is(RecordKind::Unlogged) {
            say("error", format_args!("call {id} of {time} is not in the log; its record is of the gateway's report"));
        } else if is(RecordKind::OutcomeUnknown) {
            say("error", format_args!("call {id} of {time} has an intent, and its end is not known"));
        }
    }

    pub fn skipped(&self, count: u64) {
        self.skipped.fetch_add(count, Ordering::Relaxed);
    }

    pub fn store_down(&self, error: &dyn Display, wait: Duration) {
        say("warn", format_args!("store: {error}; retrying in {} ms", wait.as_millis()));
    }

    pub fn store_up(&self, failures: u32) {
        say("info", format_args!("store: accepts writes again; failed attempts: {failures}"));
    }

    pub fn notice(&self, file: &Path, notice: &Notice) {
        if notice.is_gap() {
            self.gaps.fetch_add(1, Ordering::Relaxed);
        }
        let level = if notice.is_gap() || matches!(notice, Notice::TakenAsRead { .. }) { "warn" } else { "info" };
        say(level, format_args!("{}: {notice}", file.display()));
    }

    /// Envoy could not write to its log files, or its logger dropped entries of the feed.
    pub fn lost(&self, event: &Event) {
        match event {
            Event::Began(Window { from, lost, failed_writes, .. }) => {
                self.gaps.fetch_add(1, Ordering::Relaxed);
                say(
                    "error",
                    format_args!(
                        "Envoy cannot write its log files: {failed_writes} writes failed; entries since {} are lost, at most \
                         {lost} so far. Is the disk full?",
                        text(*from)
                    ),
                );
            }
            Event::Ended(Window { from, to, lost, failed_writes }) => say(
                "error",
                format_args!(
                    "Envoy writes its log files again: at most {lost} entries between {} and {} are lost, in {failed_writes} \
                     failed writes",
                    text(*from),
                    text(to.unwrap_or_else(SystemTime::now))
                ),
            ),
            Event::FeedDropped(total) => {
                say("error", format_args!("Envoy dropped {total} entries of the access log service so far"));
            }
        }
    }

    pub fn answers_again(&self) {
        say("info", format_args!("Envoy's admin address answers again"));
    }

    /// What the tasks of the run do.
    pub fn health(&self) -> &State {
        &self.health
    }

    pub fn stopped_in_backlog(&self, file: &Path) {
        say("info", format_args!("{}: stopped before its end; the next start reads on there", file.display()));
    }

    pub fn failed(&self, what: &str, error: &dyn Display) {
        say("warn", format_args!("{what}: {error}"));
    }

    /// By that many milliseconds; back if negative.
    pub fn clock_stepped(&self, ahead: i64) {
        let (seconds, way) = (ahead.unsigned_abs() as f64 / 1000.0, if ahead < 0 { "back" } else { "ahead" });
        say("warn", format_args!("the machine's clock stepped {seconds:.1} s {way}"));
    }

    pub fn summary(&self) {
        let Counts { stored, repeated, rejected, dropped, skipped, gaps, lost, unlogged, unknown, expired, .. } =
            self.counts();
        say(
            "info",
            format_args!(
                "stored {stored} ({repeated} repeated), rejected {rejected}, dropped {dropped}, skipped {skipped}, gaps {gaps}, expired {expired}, lost {lost}, unlogged {unlogged}, unknown {unknown}"
            ),
        );
    }
}

fn text(time: SystemTime) -> String {
    timestamp(OffsetDateTime::from(time)).unwrap_or_default()
}

fn say(level: &str, text: std::fmt::Arguments<'_>) {
    let text = text.to_string();
    stderr::line(format!("audit-collector {level} {}\n", visible(&text)));
}
