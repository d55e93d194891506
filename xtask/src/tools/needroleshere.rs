//! needroleshere, a client of IAM Roles Anywhere that shares no code with AWS's, built from crates.io.

use std::path::{Path, PathBuf};

use super::{ToolError, crates};

const VERSION: &str = "0.4.0";

/// Builds it once, which takes two minutes of one core. With rustls, the machine needs no headers of OpenSSL.
pub(crate) fn find(tools: &Path) -> Result<PathBuf, ToolError> {
    crates::install(tools, "needroleshere", VERSION, &["--no-default-features", "--features", "rustls"])
}
