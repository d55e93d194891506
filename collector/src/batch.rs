//! What sources hand to stores, and what stores report back.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use audit::{AuditMode, AuditRecord, RecordKind};

use crate::checkpoint::Checkpoint;

/// Feed entries that are stored without waiting for more.
pub const BATCH_ITEMS: usize = 25;
/// Most entries of one batch, and of one transaction.
pub const BATCH_LINES: usize = 1_000;
/// How long a batch that is not full waits for more entries.
pub const BATCH_WAIT: Duration = Duration::from_millis(200);
/// Bytes of a rejected entry's content that are kept. Envoy's lines are shorter.
const REJECTED_BYTES: usize = 64 * 1024;

/// Where a batch comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Origin {
    /// Made by the collector, or stored again.
    #[default]
    Own,
    File,
    /// The access log service.
    Feed,
}

/// Written as a whole, or written again.
#[derive(Debug, Default)]
pub struct Batch {
    pub origin: Origin,
    /// At most [`BATCH_LINES`].
    pub records: Vec<AuditRecord>,
    /// Records of calls that are not audited: they are counted, and not stored.
    pub off: Vec<AuditRecord>,
    pub rejected: Vec<Rejected>,
    /// The log's path, and how far it is read once this batch is stored.
    pub checkpoint: Option<(PathBuf, Checkpoint)>,
}

/// An entry that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// `file` or `als`.
    pub source: String,
    /// The file's path, or the log name that Envoy sends.
    pub file: String,
    /// The line's byte offset, or the entry's number in its stream.
    pub offset: u64,
    pub reason: String,
    /// The line, or the encoded `HTTPAccessLogEntry`: its first 64 KiB.
    pub content: Vec<u8>,
    /// `content` is all of it, so that it can be decoded again.
    pub whole: bool,
}

/// A store's result for a batch.
#[derive(Debug, Default)]
pub struct Written {
    /// Records now in the store, repeated ones included.
    pub stored: u64,
    /// Records that the store was seen to have already.
    pub repeated: u64,
    /// Records that the store can never accept, with the request id as `file`. The store keeps them with the rejected
    /// entries.
    pub refused: Vec<Rejected>,
    /// Rejected entries that could not be kept, and why.
    pub lost: Option<(usize, String)>,
}

impl Batch {
    /// True if there is nothing to store except a checkpoint.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.rejected.is_empty() && self.off.is_empty()
    }

    /// Adds the record of a log entry.
    pub fn add(&mut self, record: AuditRecord) {
        let off = record.audit.as_deref() == Some(AuditMode::Off.name());
        if off { &mut self.off } else { &mut self.records }.push(record);
    }

    /// The records of all log entries.
    pub fn seen(&self) -> impl Iterator<Item = &AuditRecord> {
        self.records.iter().chain(&self.off)
    }
}

/// The outcome of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    New,
    /// The store had it.
    Repeated,
    /// The store has another one under its id, for this reason.
    Conflict(String),
}

impl Inserted {
    /// The outcome of a record whose id `stored` has already. Fields that one of them lacks do not differ: another release
    /// may have stored it.
    pub fn compare(stored: &AuditRecord, record: &AuditRecord) -> Self {
        // The collector's own: another one says no more.
        if is_own(record) {
            return Self::Repeated;
        }
        if stored.time != record.time {
            return Self::Conflict(format!("its request id belongs to another exchange, of {}", stored.time));
        }
        match stored.differing_field(record) {
            None => Self::Repeated,
            Some(field) => Self::Conflict(format!("the stored record of its exchange has another {field}")),
        }
    }
}

/// The kinds of stored records that a record replaces: the log says more of an exchange than the gateway's end, and this more
/// than its intent.
pub fn replaced_by(record: &AuditRecord) -> &'static [RecordKind] {
    match &record.kind {
        Some(kind) if kind == RecordKind::Unlogged.name() => &[RecordKind::OutcomeUnknown],
        _ if is_own(record) => &[],
        _ => &[RecordKind::OutcomeUnknown, RecordKind::Unlogged],
    }
}

/// Whether the collector made the record by itself, not of an access log entry.
pub fn is_own(record: &AuditRecord) -> bool {
    record.kind.as_ref().is_some_and(|kind| kind != RecordKind::Connection.name())
}

impl Written {
    pub fn count(&mut self, record: &AuditRecord, inserted: Inserted) {
        match inserted {
            Inserted::New => self.stored += 1,
            Inserted::Repeated => {
                self.stored += 1;
                self.repeated += 1;
            }
            Inserted::Conflict(reason) => self.refuse(record, reason),
        }
    }

    pub fn refuse(&mut self, record: &AuditRecord, reason: String) {
        let content = serde_json::to_vec(record).unwrap_or_default();
        self.refused.push(Rejected::new("store", record.request_id.clone(), 0, reason, &content));
    }
}

impl Rejected {
    pub fn new(source: &str, file: String, offset: u64, reason: String, content: &[u8]) -> Self {
        let kept = content.get(..REJECTED_BYTES).unwrap_or(content);
        let whole = !content.is_empty() && kept.len() == content.len();
        Self { source: source.to_owned(), file, offset, reason, content: kept.to_vec(), whole }
    }

    /// The content for people.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.content)
    }
}
