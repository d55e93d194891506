//! Why a command failed, as its one line on stderr says it.

use std::path::PathBuf;

use crate::tools;

/// Any command's failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that could not be set up.
    #[error(transparent)]
    Tool(#[from] tools::ToolError),
    /// A build.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A file of the command's own.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried ("cannot write").
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A check of `demo` or a step of `test`.
    #[error("{0}")]
    Failed(String),
}

/// Why something is not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo could not be run.
    #[error("cannot run cargo: {0}")]
    Cargo(std::io::Error),
    /// The build failed; Cargo has said why.
    #[error("this failed: cargo {0}")]
    Failed(String),
    /// The standard library for a target is absent.
    #[error("this needs the target {0}; run: rustup target add {0}")]
    Target(String),
}

impl Error {
    /// Names the file in an I/O error.
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { what, path, source }
    }
}
