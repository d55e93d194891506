//! Where records are kept: [`sqlite`], embedded, or [`dynamodb`].

pub mod dynamodb;
pub mod sqlite;

use std::path::{Path, PathBuf};

use audit::AuditRecord;
use time::OffsetDateTime;

use crate::query::Query;
use crate::source::tail::Checkpoint;

/// Bytes of a rejected entry that are kept.
const KEPT: usize = 4096;

/// What is written at once: all of it, or none and again.
#[derive(Debug, Default)]
pub struct Batch {
    /// Records, 25 at most.
    pub records: Vec<AuditRecord>,
    /// Entries that gave none.
    pub rejected: Vec<Rejected>,
    /// How far the log of that path is then read.
    pub checkpoint: Option<(PathBuf, Checkpoint)>,
}

/// An entry that gave no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// `file` or `als`.
    pub source: String,
    /// The file, or the name of the log.
    pub file: String,
    /// Where the line starts; the entry's number in its stream.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
    /// The entry's first 4 KiB, as text.
    pub content: String,
}

/// What a store did with a batch.
#[derive(Debug, Default)]
pub struct Written {
    /// Records that are now there.
    pub stored: u64,
    /// Of those, the ones that were known to be there before.
    pub repeated: u64,
    /// Records that the store can never take: request id and why.
    pub refused: Vec<(String, String)>,
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] sqlite::SqliteError),
    /// DynamoDB, or the files beside the log.
    #[error(transparent)]
    DynamoDb(#[from] dynamodb::DynamoError),
}

/// A store.
#[derive(Debug, Clone)]
pub enum Store {
    /// A SQLite file.
    Sqlite(sqlite::SqliteStore),
    /// A DynamoDB table.
    DynamoDb(dynamodb::DynamoStore),
}

// === impl Store ===

impl Store {
    /// Writes a batch. A record that is there stays as it is.
    ///
    /// # Errors
    /// [`StoreError`]: the batch, or a part of it, is not stored, and is to be written again.
    pub async fn write(&self, batch: &Batch) -> Result<Written, StoreError> {
        Ok(match self {
            // SQLite blocks, on the disk and on a lock.
            Self::Sqlite(store) => tokio::task::block_in_place(|| store.write(batch))?,
            Self::DynamoDb(store) => store.write(batch).await?,
        })
    }

    /// How far the log of that path was read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn checkpoint(&self, log: &Path) -> Result<Option<Checkpoint>, StoreError> {
        Ok(match self {
            Self::Sqlite(store) => store.checkpoint(log)?,
            Self::DynamoDb(_) => dynamodb::beside::checkpoint(log)?,
        })
    }

    /// Records that match, newest first. Expired ones are never among them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn query(&self, query: &Query, now: OffsetDateTime) -> Result<Vec<AuditRecord>, StoreError> {
        Ok(match self {
            Self::Sqlite(store) => store.query(query, now)?,
            Self::DynamoDb(store) => store.query(query, now).await?,
        })
    }

    /// Deletes what has expired and tells how many; DynamoDB does so by itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn purge(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite(store) => store.purge(now)?,
            Self::DynamoDb(_) => 0,
        })
    }
}

// === impl Batch ===

impl Batch {
    /// Whether there is nothing to store but a checkpoint.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.rejected.is_empty()
    }
}

// === impl Rejected ===

impl Rejected {
    /// An entry that gave no record, cut to what is kept of it.
    pub fn new(source: &str, file: String, offset: u64, reason: String, content: &[u8]) -> Self {
        let content = String::from_utf8_lossy(content.get(..KEPT).unwrap_or(content)).into_owned();
        Self { source: source.to_owned(), file, offset, reason, content }
    }
}
