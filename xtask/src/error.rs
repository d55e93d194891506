//! Errors of commands, printed as one line on stderr.

use std::path::PathBuf;

use crate::tools;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Tool(#[from] tools::ToolError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("{what} {}: {source}", path.display())]
    File {
        /// Such as "cannot write".
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// A check of `demo` or a step of `test`.
    #[error("{0}")]
    Failed(String),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("cannot run cargo: {0}")]
    Cargo(std::io::Error),
    #[error("cannot run rustc: {0}")]
    Rustc(std::io::Error),
    #[error("rustc names neither its folder nor its commit")]
    UnknownRustc,
    /// The build failed; Cargo has printed the cause.
    #[error("this failed: cargo {0}")]
    Failed(String),
    #[error("this needs the target {0}; run: rustup target add {0}")]
    Target(String),
}

impl Error {
    /// Names the file in an I/O error.
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { what, path, source }
    }
}
