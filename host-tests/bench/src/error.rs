//! Why a run failed.

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
    #[error("{0} is not set; run `cargo xtask bench`")]
    Variable(&'static str),
    #[error("{0} is not installed; run `cargo xtask bench --peers`")]
    Peers(&'static str),
    #[error("no contender is called {0}")]
    Contender(String),
    #[error("the page of `--page` has no line {0}")]
    Page(String),
}
