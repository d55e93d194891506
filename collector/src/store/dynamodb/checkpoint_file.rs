//! The checkpoint of a log, in the file `LOG.checkpoint.json`: DynamoDB has no transaction that could hold it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::error::DynamoError;
use crate::checkpoint::Checkpoint;
use crate::private_file;
use crate::store::paths::with_suffix;

const SUFFIX: &str = ".checkpoint.json";

pub fn read(log: &Path) -> Result<Option<Checkpoint>, DynamoError> {
    let file = with_suffix(log, SUFFIX);
    let failed = |cause| DynamoError::File { file: file.clone(), cause };
    match fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|cause| failed(cause.into())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed(cause)),
    }
}

/// Replaces the file by a rename: after a crash it holds the old or the new checkpoint.
pub(super) fn write(log: &Path, checkpoint: &Checkpoint) -> Result<(), DynamoError> {
    let file = with_suffix(log, SUFFIX);
    let new = with_suffix(log, ".checkpoint.json.tmp");
    let replace = || {
        let mut to = private_file::create(&new)?;
        to.write_all(&serde_json::to_vec(checkpoint)?)?;
        to.sync_data()?;
        fs::rename(&new, &file)
    };
    replace().map_err(|cause: io::Error| DynamoError::File { file: file.clone(), cause })
}
