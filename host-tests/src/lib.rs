//! What the tests find outside their package.
#![allow(clippy::panic, reason = "a test that cannot go on fails")]

use std::path::PathBuf;

/// The built filter, named by `BEDROCK_FILTER_WASM`. There is no fallback: an older module would pass for the new one.
pub fn module() -> PathBuf {
    required("BEDROCK_FILTER_WASM")
}

/// A file or directory that `cargo xtask test` names in the environment.
///
/// # Panics
/// The variable is not set.
pub fn required(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    value.unwrap_or_else(|| panic!("{variable} is not set: run this test by `cargo xtask test -- NAME`")).into()
}
