//! Why a command failed, as its one line on stderr says it.

use std::path::PathBuf;

use crate::explain::error::ExplainError;
use crate::{bootstrap_error, change_error, check, credentials, document, net, paths, platform, process, tls};

/// Any command's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `--path`, `--region`.
    #[error(transparent)]
    Path(#[from] paths::PathError),
    /// The environment's AWS credentials.
    #[error(transparent)]
    Credentials(#[from] credentials::CredentialsError),
    /// The filter's document.
    #[error(transparent)]
    Document(#[from] document::DocumentError),
    /// A change of the document while the gateway runs.
    #[error(transparent)]
    Change(#[from] change_error::ChangeError),
    /// Envoy's configuration.
    #[error(transparent)]
    Bootstrap(#[from] bootstrap_error::BootstrapError),
    /// The CA that upstreams are verified against.
    #[error(transparent)]
    NoBundle(#[from] platform::NoBundle),
    /// A listening address.
    #[error(transparent)]
    Address(#[from] net::AddressError),
    /// A child process.
    #[error(transparent)]
    Process(#[from] process::ProcessError),
    /// The development certificate.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Files that `check` finds fault with.
    #[error(transparent)]
    Check(#[from] check::CheckError),
    /// A request that `explain` cannot explain.
    #[error(transparent)]
    Explain(#[from] ExplainError),
    /// A file of the command's own.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried ("cannot write").
        what: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Anything else, in words.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Names the file in an I/O error.
    pub fn file(what: &str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let (what, path) = (what.to_owned(), path.into());
        move |source| Error::File { what, path, source }
    }
}
