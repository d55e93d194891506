//! `audit-collector rejected`: lists entries that were rejected, and reads them again, with a newer release perhaps.

use std::io::{self, Write};
use std::path::Path;

use audit::text::{visible, visible_json};
use serde_json::json;

use crate::batch::{BATCH_LINES, Batch, Rejected};
use crate::decode;
use crate::store::dynamodb::{DynamoStore, rejected_file};
use crate::store::sqlite::{Retried, SqliteStore};
use crate::store::{Store, StoreError};
use crate::timestamp::timestamp;

/// Entries that are in memory at a time.
const STEP: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum RejectedError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Prints the entries of a SQLite file, oldest first. Returns their number.
pub fn list_sqlite(store: &SqliteStore, json: bool, to: &mut impl Write) -> Result<u64, RejectedError> {
    let (mut after, mut count) = (0, 0);
    loop {
        let entries = store.rejected(after, STEP).map_err(StoreError::from)?;
        let Some(last) = entries.last() else { return Ok(count) };
        after = last.id;
        for kept in &entries {
            print(kept.seen_at, &kept.entry, json, to)?;
            count += 1;
        }
    }
}

/// Prints the entries of a file of JSON lines.
pub fn list_file(file: &Path, json: bool, to: &mut impl Write) -> Result<u64, RejectedError> {
    let (mut count, mut failed) = (0, Ok(()));
    let each = |seen_at, entry: Rejected| {
        count += 1;
        if failed.is_ok() {
            failed = print(seen_at, &entry, json, to);
        }
    };
    rejected_file::read(file, each).map_err(StoreError::from)?;
    failed?;
    Ok(count)
}

/// Stores the entries of a SQLite file that can be decoded now.
pub fn retry_sqlite(store: &SqliteStore) -> Result<Retried, StoreError> {
    Ok(store.retry_rejected(decode::again)?)
}

/// Stores the entries of a file of JSON lines that can be decoded now. The others go back to the file.
pub async fn retry_file(store: &DynamoStore, file: &Path) -> Result<Retried, StoreError> {
    let aside = rejected_file::begin_retry(file)?;
    let (mut records, mut left) = (Vec::new(), Vec::new());
    rejected_file::read(&aside, |_, entry| match decode::again(&entry) {
        Ok(record) => records.push(record),
        Err(error) => left.push(Rejected { reason: error.to_string(), ..entry }),
    })?;
    let mut retried = Retried::default();
    let target = Store::DynamoDb(store.clone());
    while !records.is_empty() {
        let rest = records.split_off(records.len().min(BATCH_LINES));
        // The store puts those that it refuses into its file of rejected entries.
        let written = target.write(&Batch { records, ..Batch::default() }).await?;
        retried.stored += written.stored;
        retried.left += written.refused.len() as u64;
        records = rest;
    }
    retried.left += left.len() as u64;
    rejected_file::finish_retry(file, &left)?;
    Ok(retried)
}

fn print(seen_at: i64, entry: &Rejected, json: bool, to: &mut impl Write) -> io::Result<()> {
    let time = time::OffsetDateTime::from_unix_timestamp(seen_at).ok().and_then(timestamp).unwrap_or_default();
    let Rejected { source, file, offset, reason, whole, .. } = entry;
    if json {
        let entry = json!({
            "seen_at": time, "source": source, "file": file, "offset": offset, "reason": reason, "whole": whole,
            "content": entry.text(),
        });
        writeln!(to, "{}", visible_json(&entry.to_string()))
    } else {
        writeln!(to, "{}", visible(&format!("{time}  {source}  {file} offset {offset}: {reason}")))
    }
}
