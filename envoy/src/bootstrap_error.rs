//! Errors of Envoy's configuration.

use std::path::PathBuf;

/// An error of Envoy's configuration.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// I/O error.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("{name}: {problem}")]
    Yaml {
        /// The file, with line and column.
        name: String,
        /// What is wrong there.
        problem: String,
    },
    /// A part that the renderer sets is missing.
    #[error("the Envoy configuration has no {0}, which is needed here; start from envoy/base.yaml")]
    Missing(&'static str),
    /// No address is known for a cluster that fetches credentials.
    #[error(
        "the Envoy configuration has no cluster `{0}`, which the document's credentials name; only the operator knows its \
         address, or for a token its `file`"
    )]
    UnknownSource(String),
    /// A listener has the name that the listener of a token's file would have.
    #[error(
        "the Envoy configuration has a listener `{0}`, and no cluster of this name; choose another `token.cluster`"
    )]
    TokenListener(String),
    /// A token cluster is named with two files.
    #[error("`token.cluster` is `{cluster}` for {} and for {}; want a cluster for each file", files[0], files[1])]
    TwoTokenFiles {
        /// The cluster.
        cluster: String,
        /// The files.
        files: [String; 2],
    },
    /// No cluster has the name of the relay for streams.
    #[error(
        "the Envoy configuration has no cluster `{0}`, which `audit.cluster` names: add it, or leave the key `audit` out"
    )]
    NoCollector(String),
    /// No cluster has the name of the one for polls and lookups.
    #[error("the Envoy configuration has no cluster `{cluster}`, which `{key}` names; leave that key out")]
    NoPolls {
        /// The key of the document.
        key: &'static str,
        /// The cluster.
        cluster: String,
    },
    /// It has no cluster for the relay.
    #[error("the Envoy configuration has no cluster `{0}`, which `stream_relay` names; leave the key out")]
    NoRelay(String),
    /// Envoy would refuse a body before the filter does.
    #[error(
        "`max_body_bytes` is {longest}, and Envoy's routes hold bodies up to {room} bytes: write less, or raise \
         `request_body_buffer_limit` and the clusters' buffer limits in a base of your own (--base)"
    )]
    NoRoomForBodies {
        /// The document's limit.
        longest: u64,
        /// The routes' limit.
        room: u64,
    },
    /// A VPC endpoint of the other kind, FIPS or not.
    #[error("--path {path}: {problem}")]
    Fips {
        /// The path's name.
        path: String,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// No path reaches a Commercial service that the credentials need.
    #[error(
        "cluster `{cluster}`: no --path reaches {service} in {region}; give `internet`, or such as vpn/{service}=HOST:443"
    )]
    NoPathToService {
        /// The cluster.
        cluster: String,
        /// The service, as `--path` names it.
        service: &'static str,
        /// Region of its endpoint.
        region: String,
    },
}
