//! Environment variables that name programs and packages. `cargo xtask` sets them; nothing is fetched here.

use std::path::{Path, PathBuf};

use crate::Error;

/// The module (`bedrock_filter.wasm`).
pub const MODULE: &str = "BEDROCK_FILTER_WASM";
/// Envoy.
pub const ENVOY: &str = "ENVOY_BIN";
/// The operator's program.
pub const GATEWAY: &str = "BEDROCK_GATEWAY_BIN";
/// The audit collector.
pub const COLLECTOR: &str = "AUDIT_COLLECTOR_BIN";
/// The Bedrock double.
pub const DOUBLE: &str = "BEDROCK_DOUBLE_BIN";
/// The load generator.
pub const LOAD: &str = "BEDROCK_LOAD_BIN";
/// Debian's packages, unpacked ([`crate::machine`]).
pub const DEBIAN: &str = "LAB_DEBIAN_ROOT";

/// A file or directory that a variable names.
///
/// # Errors
/// The variable is not set.
pub fn required(variable: &str) -> Result<PathBuf, Error> {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    value.map(PathBuf::from).ok_or_else(|| Error::Failed(format!("{variable} is not set: run this by `cargo xtask`")))
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where runs write: `target/lab` of the repository, or of `CARGO_TARGET_DIR`.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => std::path::absolute(&dir).unwrap_or_else(|_| dir.into()),
        None => root().join("target"),
    }
}
