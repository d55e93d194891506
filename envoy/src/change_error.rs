//! Why a change of the document is not taken.

use std::path::PathBuf;

/// Why a change is not taken; the old document stays.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The file is gone or closed to us.
    #[error("cannot read it: {0}")]
    Read(std::io::Error),
    /// What Envoy has from its start would have to change.
    #[error("needs a restart, for {keys}: {why}")]
    Restart {
        /// The keys of the document.
        keys: String,
        /// What of Envoy's configuration would change.
        why: String,
    },
    /// Envoy's file cannot be written.
    #[error("cannot write {}: {source}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Envoy said no, or nothing.
    #[error("Envoy has not taken {filter} ({what}); its log says why")]
    Envoy {
        /// The filter.
        filter: String,
        /// What it did instead.
        what: &'static str,
    },
}
