//! The entries that could not be decoded, and the records that the store refused.

use std::fmt::Display;

use audit::AuditRecord;
use rusqlite::{Connection, Row, Statement, TransactionBehavior, params};

use super::{Insert, SqliteError, SqliteStore};
use crate::batch::{Inserted, Rejected};

/// Entries of one transaction.
const STEP: usize = 200;
/// Bytes of the text that is kept for people; the entry itself is kept next to it.
const TEXT: usize = 4096;

/// A rejected entry, as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEntry {
    /// Its number in the file.
    pub id: i64,
    /// Seconds since 1970.
    pub seen_at: i64,
    pub entry: Rejected,
}

/// The outcome of reading rejected entries again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retried {
    /// Now records, and no longer among the rejected entries.
    pub stored: u64,
    /// Still rejected.
    pub left: u64,
}

pub(super) struct Reject<'c> {
    insert: Statement<'c>,
    same: Statement<'c>,
}

impl<'c> Reject<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        let sql = "INSERT INTO rejected (seen_at, source, file, start, reason, content, raw, whole) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        let same = "SELECT 1 FROM rejected WHERE source = ? AND file = ? AND reason = ? LIMIT 1";
        Ok(Self { insert: connection.prepare(sql)?, same: connection.prepare(same)? })
    }

    /// Whether a refused record is there.
    pub(super) fn has(&mut self, entry: &Rejected) -> rusqlite::Result<bool> {
        self.same.exists(params![entry.source, entry.file, entry.reason])
    }

    pub(super) fn execute(&mut self, seen_at: i64, entry: &Rejected) -> rusqlite::Result<()> {
        let Rejected { source, file, offset, reason, content, whole } = entry;
        let text = String::from_utf8_lossy(content.get(..TEXT).unwrap_or(content));
        self.insert.execute(params![seen_at, source, file, offset.cast_signed(), reason, text, content, whole])?;
        Ok(())
    }
}

impl SqliteStore {
    /// The rejected entries behind `after`, oldest first, at most `limit`.
    pub fn rejected(&self, after: i64, limit: usize) -> Result<Vec<KeptEntry>, SqliteError> {
        let connection = self.lock();
        let read = || -> rusqlite::Result<Vec<KeptEntry>> {
            let sql = "SELECT rowid, * FROM rejected WHERE rowid > ? ORDER BY rowid LIMIT ?";
            let mut statement = connection.prepare(sql)?;
            let found = statement.query_map(params![after, i64::try_from(limit).unwrap_or(i64::MAX)], kept)?;
            found.collect()
        };
        read().map_err(|cause| self.failed(cause))
    }

    /// Stores the entries that `decode` now makes records of, and removes them from the rejected ones.
    pub fn retry_rejected<E: Display>(
        &self,
        decode: impl Fn(&Rejected) -> Result<AuditRecord, E>,
    ) -> Result<Retried, SqliteError> {
        let (mut retried, mut after) = (Retried::default(), 0);
        loop {
            let entries = self.rejected(after, STEP)?;
            let Some(last) = entries.last() else { return Ok(retried) };
            after = last.id;
            let mut connection = self.lock();
            let mut step = || {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let mut insert = Insert::prepare(&transaction)?;
                let mut remove = transaction.prepare("DELETE FROM rejected WHERE rowid = ?")?;
                let mut keep = transaction.prepare("UPDATE rejected SET reason = ? WHERE rowid = ?")?;
                for KeptEntry { id, entry, .. } in &entries {
                    let reason = match decode(entry) {
                        Ok(record) => match insert.execute(&record)? {
                            Inserted::New | Inserted::Repeated => None,
                            Inserted::Conflict(reason) => Some(reason),
                        },
                        Err(error) => Some(error.to_string()),
                    };
                    match reason {
                        None => retried.stored += remove.execute([id])? as u64,
                        Some(reason) => retried.left += keep.execute(params![reason, id])? as u64,
                    }
                }
                drop((insert, remove, keep));
                transaction.commit()
            };
            step().map_err(|cause| self.failed(cause))?;
        }
    }
}

/// A file of an older release that was not opened to write lacks the last two columns.
fn kept(row: &Row<'_>) -> rusqlite::Result<KeptEntry> {
    let text: String = row.get("content")?;
    let (raw, whole) = match row.get("raw") {
        Ok(raw) => (raw, row.get("whole")?),
        Err(_) => (None, false),
    };
    let raw: Option<Vec<u8>> = raw;
    let entry = Rejected {
        source: row.get("source")?,
        file: row.get("file")?,
        offset: row.get::<_, i64>("start")?.cast_unsigned(),
        reason: row.get("reason")?,
        content: raw.unwrap_or(text.into_bytes()),
        whole,
    };
    Ok(KeptEntry { id: row.get("rowid")?, seen_at: row.get("seen_at")?, entry })
}
