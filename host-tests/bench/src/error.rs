//! Why a run failed.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Arguments(#[from] lexopt::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Tls(#[from] bedrock_double::tls::TlsError),
    #[error(transparent)]
    Wat(#[from] wat::Error),
    #[error("a call failed: {0}")]
    Call(String),
    #[error("bedrock-gateway: {0}")]
    Gateway(String),
    #[error("the module: {0}")]
    Module(String),
    #[error("{0} is not set; run `cargo xtask bench`, and with `--peers` for other gateways")]
    Variable(&'static str),
    #[error("no contender is called {0}")]
    Contender(String),
    #[error("no port from 20000 to 32000 is free")]
    Ports,
    #[error("--seconds {0}: at least 5")]
    Seconds(u64),
    #[error("the page of `--page` has no line {0}")]
    Page(String),
}

/// The file that an environment variable names.
pub(crate) fn variable(name: &'static str) -> Result<PathBuf, Error> {
    std::env::var_os(name).map(PathBuf::from).ok_or(Error::Variable(name))
}
