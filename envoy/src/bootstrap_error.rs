//! Why a configuration of Envoy cannot be used.

use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("{}: {message}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// The file lacks something that has to be set.
    #[error("the Envoy configuration has no {0}, which is needed here; start from envoy/base.yaml")]
    Missing(&'static str),
    /// Credentials from a place that is not known here.
    #[error(
        "the Envoy configuration has no cluster `{0}`, which the document's credentials name; its address is not known here"
    )]
    NoSource(String),
    /// Credentials from Commercial STS, which no path reaches.
    #[error("cluster `{cluster}`: no --path reaches STS in {region}; give `internet`, or such as vpn/sts=HOST:443")]
    NoWay {
        /// The cluster.
        cluster: String,
        /// Where.
        region: String,
    },
}
