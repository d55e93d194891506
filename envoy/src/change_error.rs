//! Why a change of the document is not taken.

use std::path::PathBuf;

/// Why a change is not taken; the old document stays.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Read(std::io::Error),
    /// The change needs other clusters or routes, which are fixed when Envoy starts.
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
        /// The cause.
        source: std::io::Error,
    },
    /// Envoy rejected the filter, or did not read it in time.
    #[error("Envoy has not taken {filter} ({what}); its log says why")]
    Envoy {
        /// The filter.
        filter: String,
        /// What it did instead.
        what: &'static str,
    },
}
