//! What the workspace itself builds: the module and the binaries. Cargo decides whether there is anything to do; it is
//! quiet unless it compiles.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::test::variables;
use crate::{dirs, progress};

/// The module's target.
pub const WASM_TARGET: &str = "wasm32-wasip1";

/// Why something is not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo could not be run.
    #[error("cannot run cargo: {0}")]
    Cargo(std::io::Error),
    /// The build failed; Cargo has said why.
    #[error("this failed: cargo {0}")]
    Failed(String),
    /// The standard library for the module's target is absent.
    #[error("the module needs the target {WASM_TARGET}; run: rustup target add {WASM_TARGET}")]
    Target,
}

/// The Proxy-Wasm module.
pub fn module() -> Result<PathBuf, BuildError> {
    if let Some(file) = given(variables::MODULE) {
        return Ok(file);
    }
    target_library()?;
    build("the module", &["build", "--release", "--target", WASM_TARGET, "--package", "bedrock-filter"])?;
    Ok(module_file())
}

/// Where the module is when it is built.
pub fn module_file() -> PathBuf {
    given(variables::MODULE).unwrap_or_else(|| dirs::target().join(WASM_TARGET).join("release/bedrock_filter.wasm"))
}

/// The audit collector.
pub fn collector() -> Result<PathBuf, BuildError> {
    binary(variables::COLLECTOR, "audit-collector", &["--package", "audit-collector", "--bin", "audit-collector"])
}

/// The audit collector, optimised: the one that is deployed.
pub fn collector_release() -> Result<PathBuf, BuildError> {
    if let Some(file) = given(variables::COLLECTOR) {
        return Ok(file);
    }
    build("audit-collector", &["build", "--release", "--package", "audit-collector", "--bin", "audit-collector"])?;
    Ok(dirs::target().join("release/audit-collector"))
}

/// The Bedrock double of the demonstration and the tests.
pub fn bedrock_double() -> Result<PathBuf, BuildError> {
    // Without the default features there is no Wasm compiler to build.
    binary(
        variables::DOUBLE,
        "bedrock-double",
        &["--package", "host-tests", "--bin", "bedrock-double", "--no-default-features"],
    )
}

/// The load generator of `chaos` and `vpn`.
pub fn bedrock_load() -> Result<PathBuf, BuildError> {
    binary(
        variables::LOAD,
        "bedrock-load",
        &["--package", "host-tests", "--bin", "bedrock-load", "--no-default-features"],
    )
}

fn binary(variable: &str, name: &str, arguments: &[&str]) -> Result<PathBuf, BuildError> {
    if let Some(file) = given(variable) {
        return Ok(file);
    }
    build(name, &[&["build"], arguments].concat())?;
    Ok(dirs::target().join("debug").join(name))
}

/// A file that was built already, named by an environment variable.
fn given(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// `cargo` as it runs this, in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(dirs::root()).env("CARGO_TARGET_DIR", dirs::target());
    // What the outer cargo says of this package would make crates that look at it (ring) be built again each time.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Builds, and shows Cargo's lines from the first one that says it compiles (or fails).
fn build(what: &str, arguments: &[&str]) -> Result<(), BuildError> {
    let mut command = cargo();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(BuildError::Cargo)?;
    let mut shown = false;
    let mut held: Vec<String> = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let word = line.trim_start();
            if shown {
                if !word.starts_with("Compiling") && !word.starts_with("Downloaded") {
                    eprintln!("{line}");
                }
            } else if word.starts_with("Compiling") {
                progress::say(&format!("building {what} …"));
                shown = true;
            } else {
                held.push(line);
            }
        }
    }
    let status = child.wait().map_err(BuildError::Cargo)?;
    if status.success() {
        return Ok(());
    }
    if !shown {
        held.iter().for_each(|line| eprintln!("{line}"));
    }
    Err(BuildError::Failed(arguments.join(" ")))
}

/// Adds the module's target to the toolchain if it is not there.
pub fn target_library() -> Result<(), BuildError> {
    if has_target_library() {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", WASM_TARGET]).current_dir(dirs::root()).stdin(Stdio::null());
    add.stdout(Stdio::null()).stderr(Stdio::null());
    let added = progress::step("adding the target wasm32-wasip1", || add.status());
    if added.is_ok_and(|status| status.success()) && has_target_library() { Ok(()) } else { Err(BuildError::Target) }
}

fn has_target_library() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut print = Command::new(rustc);
    print.args(["--print", "target-libdir", "--target", WASM_TARGET]).current_dir(dirs::root());
    print.stderr(Stdio::null()).output().is_ok_and(|output| {
        let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        std::fs::read_dir(Path::new(&dir)).is_ok_and(|mut files| files.next().is_some())
    })
}
