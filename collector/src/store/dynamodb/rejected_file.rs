//! The rejected entries in a file of JSON lines: the DynamoDB table holds records only.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::error::DynamoError;
use crate::batch::Rejected;
use crate::private_file;
use crate::store::paths::with_suffix;

/// The file while its entries are read again.
const RETRY: &str = ".retry";

/// One line.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(default)]
    seen_at: i64,
    source: String,
    #[serde(default)]
    file: String,
    #[serde(default)]
    offset: u64,
    reason: String,
    /// As text, for people too.
    #[serde(default)]
    content: String,
    /// In hexadecimal, if the content is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    /// Older releases kept 4 KiB.
    whole: Option<bool>,
}

/// Appends entries that cannot be decoded and records that the store refused.
pub(super) fn append(file: &Path, rejected: &[Rejected]) -> Result<(), DynamoError> {
    let seen_at = OffsetDateTime::now_utc().unix_timestamp();
    let mut lines = String::new();
    for Rejected { source, file, offset, reason, content, whole } in rejected {
        let text = std::str::from_utf8(content);
        let entry = Entry {
            seen_at,
            source: source.clone(),
            file: file.clone(),
            offset: *offset,
            reason: reason.clone(),
            content: text.unwrap_or_default().to_owned(),
            hex: text.is_err().then(|| content.iter().map(|byte| format!("{byte:02x}")).collect()),
            whole: Some(*whole),
        };
        lines += &serde_json::to_string(&entry).unwrap_or_default();
        lines.push('\n');
    }
    if lines.is_empty() {
        return Ok(());
    }
    let append = || private_file::append(file)?.write_all(lines.as_bytes());
    append().map_err(|cause| DynamoError::File { file: file.to_owned(), cause })
}

/// Calls `each` with the time and content of each entry, the oldest first.
pub fn read(file: &Path, mut each: impl FnMut(i64, Rejected)) -> Result<(), DynamoError> {
    let failed = |cause| DynamoError::File { file: file.to_owned(), cause };
    for line in BufReader::new(File::open(file).map_err(failed)?).lines() {
        let entry: Entry = serde_json::from_str(&line.map_err(failed)?).map_err(|cause| failed(cause.into()))?;
        let Entry { seen_at, source, file, offset, reason, content, hex, whole } = entry;
        let whole = whole.unwrap_or((1..4096).contains(&content.len()) && source == "file");
        let content = hex.map_or(content.into_bytes(), |hex| from_hex(&hex));
        each(seen_at, Rejected { source, file, offset, reason, content, whole });
    }
    Ok(())
}

/// Sets the entries aside, so that a running collector may append others. The new path's entries stay until
/// [`finish_retry`].
pub fn begin_retry(file: &Path) -> Result<std::path::PathBuf, DynamoError> {
    let aside = with_suffix(file, RETRY);
    // One that is there is from a retry that did not end.
    let begin = || if aside.exists() { Ok(()) } else { fs::rename(file, &aside) };
    begin().map_err(|cause: io::Error| DynamoError::File { file: file.to_owned(), cause })?;
    Ok(aside)
}

/// Appends the entries that are still rejected, and removes those that were set aside.
pub fn finish_retry(file: &Path, left: &[Rejected]) -> Result<(), DynamoError> {
    append(file, left)?;
    fs::remove_file(with_suffix(file, RETRY)).map_err(|cause| DynamoError::File { file: file.to_owned(), cause })
}

fn from_hex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap_or(0)).collect()
}
