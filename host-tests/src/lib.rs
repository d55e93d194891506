//! Files that the tests need from outside their package.
#![allow(clippy::panic, reason = "a test that cannot go on fails")]

use std::path::PathBuf;

/// The built filter, named by `BEDROCK_FILTER_WASM`. It has no fallback: a test must not run an older module.
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
