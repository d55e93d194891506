//! The rejected entries of a log, in the file `LOG.rejected.jsonl`: the DynamoDB table holds records only.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::error::DynamoError;
use crate::batch::Rejected;
use crate::private_file;
use crate::store::paths::with_suffix;

/// Appends entries that cannot be decoded and records that the store refused.
pub(super) fn append(log: &Path, rejected: &[Rejected], refused: &[(String, String)]) -> Result<(), DynamoError> {
    let mut lines = String::new();
    for Rejected { source, file, offset, reason, content } in rejected {
        let line = json!({"source": source, "file": file, "offset": offset, "reason": reason, "content": content});
        lines += &format!("{line}\n");
    }
    for (id, reason) in refused {
        lines += &format!("{}\n", json!({"source": "store", "request_id": id, "reason": reason}));
    }
    if lines.is_empty() {
        return Ok(());
    }
    let file = with_suffix(log, ".rejected.jsonl");
    let append = || private_file::append(&file)?.write_all(lines.as_bytes());
    append().map_err(|cause| DynamoError::File { file: file.clone(), cause })
}
