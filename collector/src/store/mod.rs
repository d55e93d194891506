//! Where records are kept: [`sqlite`], an embedded file, or [`dynamodb`].

pub mod dynamodb;
pub(crate) mod paths;
pub mod sqlite;

use std::path::Path;
use std::time::Duration;

use audit::{AuditRecord, FieldValue};
pub use sqlite::{Checked, PurgeLimits, Purged};
use time::OffsetDateTime;

use crate::batch::{Batch, Rejected, Written};
use crate::checkpoint::Checkpoint;
use crate::clock::Reading;
use crate::query::{Found, Progress, Query};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Sqlite(#[from] sqlite::SqliteError),
    #[error(transparent)]
    DynamoDb(#[from] dynamodb::DynamoError),
    #[error("ledger: {0}")]
    Ledger(String),
    #[error("stopped during a write")]
    Stopped,
}

#[derive(Debug, Clone)]
pub enum Store {
    Sqlite(sqlite::SqliteStore),
    DynamoDb(dynamodb::DynamoStore),
}

impl Store {
    /// Writes a batch. A stored record is never replaced: one that comes again is counted, and another one under its id is
    /// refused.
    ///
    /// # Errors
    /// The batch, or a part of it, is not stored and must be written again.
    pub async fn write(&self, batch: &Batch) -> Result<Written, StoreError> {
        Ok(match self {
            // SQLite blocks on the disk and on locks.
            Self::Sqlite(store) => tokio::task::block_in_place(|| store.write(batch))?,
            Self::DynamoDb(store) => store.write(batch).await?,
        })
    }

    /// As [`Self::write`]. A record that the store has already expires when this one does, if that is later.
    pub async fn import(&self, batch: &Batch) -> Result<Written, StoreError> {
        Ok(match self {
            Self::Sqlite(store) => tokio::task::block_in_place(|| store.import(batch))?,
            Self::DynamoDb(store) => store.import(batch).await?,
        })
    }

    /// Hands the rejected entries to `each`.
    pub fn rejected(&self, mut each: impl FnMut(&Rejected)) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => {
                let mut after = 0;
                loop {
                    let entries = store.rejected(after, 200)?;
                    let Some(last) = entries.last() else { return Ok(()) };
                    after = last.id;
                    entries.iter().for_each(|kept| each(&kept.entry));
                }
            }
            Self::DynamoDb(store) => Ok(store.rejected(each)?),
        }
    }

    /// Fails if what is written is lost: SQLite's file is not in its place any more.
    pub fn check_place(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => Ok(store.check_place()?),
            Self::DynamoDb(_) => Ok(()),
        }
    }

    /// Reads all of SQLite's file, for damage.
    pub fn check_pages(&self, limit: Option<Duration>) -> Result<Checked, StoreError> {
        match self {
            Self::Sqlite(store) => Ok(store.check_pages(limit)?),
            Self::DynamoDb(_) => Ok(Checked::Whole),
        }
    }

    /// How far the log at that path was read.
    pub fn checkpoint(&self, log: &Path) -> Result<Option<Checkpoint>, StoreError> {
        Ok(match self {
            Self::Sqlite(store) => store.checkpoint(log)?,
            Self::DynamoDb(_) => dynamodb::checkpoint_file::read(log)?,
        })
    }

    /// Hands matching records that have not expired to `each`, newest first, until it returns false.
    pub async fn scan(
        &self,
        query: &Query,
        now: OffsetDateTime,
        each: impl FnMut(AuditRecord) -> bool,
        progress: &mut Progress,
    ) -> Result<Found, StoreError> {
        Ok(match self {
            Self::Sqlite(store) => store.scan(query, now, each, progress)?,
            Self::DynamoDb(store) => store.scan(query, now, each, progress).await?,
        })
    }

    /// Hands the values of those fields of each matching record to `each`, in any order, until it returns false.
    pub async fn visit(
        &self,
        query: &Query,
        fields: &[&'static str],
        now: OffsetDateTime,
        each: impl FnMut(&[FieldValue<'_>]) -> bool,
        progress: &mut Progress,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.visit(query, fields, now, each, progress)?,
            Self::DynamoDb(store) => store.visit(query, fields, now, each, progress).await?,
        }
        Ok(())
    }

    /// Deletes expired records, until `stopped`. None with DynamoDB, whose TTL does it by itself.
    pub fn purge(
        &self,
        now: &Reading,
        limits: PurgeLimits,
        stopped: impl Fn() -> bool,
    ) -> Result<Option<Purged>, StoreError> {
        Ok(match self {
            Self::Sqlite(store) => Some(store.purge(now, limits, stopped)?),
            Self::DynamoDb(_) => None,
        })
    }
}
