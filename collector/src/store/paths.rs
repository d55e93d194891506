//! Paths of the files next to another.

use std::path::{Path, PathBuf};

/// `access.log` and `.tmp` → `access.log.tmp`.
pub(crate) fn with_suffix(log: &Path, suffix: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
