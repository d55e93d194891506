//! What SQLite keeps in the transaction and DynamoDB cannot: the checkpoint (`LOG.checkpoint.json`) and the rejected
//! lines (`LOG.rejected.jsonl`), in files beside the log, whose life they share.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::DynamoError;
use crate::source::tail::Checkpoint;
use crate::store::Rejected;

/// How far the log was read.
///
/// # Errors
/// [`DynamoError::Beside`].
pub fn checkpoint(log: &Path) -> Result<Option<Checkpoint>, DynamoError> {
    let file = named(log, ".checkpoint.json");
    match fs::read(&file) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|cause| DynamoError::Beside { file, cause: cause.into() })
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(DynamoError::Beside { file, cause }),
    }
}

/// Keeps what gave no record, then the checkpoint, by a rename: it is the old or the new one, however this ends.
pub(super) fn keep(
    log: &Path,
    rejected: &[Rejected],
    refused: &[(String, String)],
    checkpoint: Checkpoint,
) -> Result<(), DynamoError> {
    let file = named(log, ".rejected.jsonl");
    let mut lines = String::new();
    for Rejected { source, file, offset, reason, content } in rejected {
        let line = json!({"source": source, "file": file, "offset": offset, "reason": reason, "content": content});
        lines += &format!("{line}\n");
    }
    for (id, reason) in refused {
        lines += &format!("{}\n", json!({"source": "store", "request_id": id, "reason": reason}));
    }
    if !lines.is_empty() {
        let append = || OpenOptions::new().create(true).append(true).open(&file)?.write_all(lines.as_bytes());
        append().map_err(|cause| DynamoError::Beside { file, cause })?;
    }
    let file = named(log, ".checkpoint.json");
    let fresh = named(log, ".checkpoint.json.tmp");
    let replace = || {
        let mut to = File::create(&fresh)?;
        to.write_all(&serde_json::to_vec(&checkpoint)?)?;
        to.sync_data()?;
        fs::rename(&fresh, &file)
    };
    replace().map_err(|cause: io::Error| DynamoError::Beside { file: file.clone(), cause })
}

fn named(log: &Path, ending: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
