//! cargo-deny, from `PATH` or built from crates.io.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ToolError, on_path, once, run};

const VERSION: &str = "0.20.2";
const WHAT: &str = "cargo-deny";

pub(crate) fn find(tools: &Path) -> Result<PathBuf, ToolError> {
    if let Some(program) = on_path("cargo-deny").filter(|program| is_wanted(program)) {
        return Ok(program);
    }
    let place = tools.join(format!("cargo-deny-{VERSION}"));
    once(WHAT, &place, |dir| {
        let mut install = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // A debug build without debug information takes a quarter of the time, and is fast enough for one workspace.
        install.env("CARGO_PROFILE_DEV_DEBUG", "0");
        install.args(["install", "--debug", "--locked", "--quiet", "--version", VERSION, "--root"]).arg(dir).arg(WHAT);
        install.arg("--target-dir").arg(dir.join("build"));
        run(WHAT, "cargo", "https://rustup.rs", &mut install)?;
        let build = dir.join("build");
        std::fs::remove_dir_all(&build).map_err(|source| ToolError::File { what: WHAT, path: build, source })
    })?;
    Ok(place.join("bin/cargo-deny"))
}

fn is_wanted(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(VERSION))
}
