//! cargo-deny, from `PATH` or built from crates.io.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ToolError, crates, on_path};

const VERSION: &str = "0.20.2";
const WHAT: &str = "cargo-deny";

pub(crate) fn find(tools: &Path) -> Result<PathBuf, ToolError> {
    if let Some(program) = on_path("cargo-deny").filter(|program| is_wanted(program)) {
        return Ok(program);
    }
    crates::install(tools, WHAT, VERSION, &[])
}

fn is_wanted(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(VERSION))
}
