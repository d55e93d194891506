//! Programs that are built from crates.io.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ToolError, once, run};

/// Builds a crate once, with the versions of its own lock file. Returns the program of the crate's name.
pub(super) fn install(tools: &Path, what: &'static str, version: &str, options: &[&str]) -> Result<PathBuf, ToolError> {
    let place = tools.join(format!("{what}-{version}"));
    once(what, &place, |dir| {
        let mut install = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // A debug build without debug information takes a quarter of the time, and is fast enough.
        install.env("CARGO_PROFILE_DEV_DEBUG", "0");
        install.args(["install", "--debug", "--locked", "--quiet", "--version", version]).args(options);
        install.arg("--root").arg(dir).arg(what).arg("--target-dir").arg(dir.join("build"));
        run(what, "cargo", "https://rustup.rs", &mut install)?;
        let build = dir.join("build");
        std::fs::remove_dir_all(&build).map_err(|source| ToolError::File { what, path: build, source })
    })?;
    Ok(place.join("bin").join(what))
}
