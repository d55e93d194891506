//! Why a request cannot be explained.

use std::path::PathBuf;

use filter_core::config::ConfigError;

use super::build_report::NotThere;
use super::subject::RequestError;

/// Why a request cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// REQUEST.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// `--region`.
    #[error(transparent)]
    NotThere(#[from] NotThere),
    /// The document, or credentials in the environment.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `--error-body`: the file cannot be read.
    #[error("--error-body {}: cannot read it: {error}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// `--error-body`: the file holds something else.
    #[error("--error-body {}: neither JSON nor XML with a message; want the body of AWS's 403", .0.display())]
    ErrorBody(PathBuf),
}
