//! Python environments with the packages that a requirements file pins.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::{ToolError, once, read, run};

const WHAT: &str = "Python packages";
pub(crate) const HINT: &str = "apt-get install python3 python3-venv";

/// Returns `python3` from `PATH`.
pub(crate) fn interpreter(what: &'static str) -> Result<PathBuf, ToolError> {
    super::on_path("python3").ok_or(ToolError::Absent { what, program: "python3", hint: HINT })
}

/// Returns the interpreter of a virtual environment with the packages and their dependencies.
pub(crate) fn find(tools: &Path, requirements: &Path) -> Result<PathBuf, ToolError> {
    with(tools, requirements, &[])
}

/// The same without dependencies and without the packages' check of the Python version: the file lists the needed
/// dependencies.
pub(crate) fn find_without_dependencies(tools: &Path, requirements: &Path) -> Result<PathBuf, ToolError> {
    with(tools, requirements, &["--no-deps", "--ignore-requires-python"])
}

fn with(tools: &Path, requirements: &Path, options: &[&str]) -> Result<PathBuf, ToolError> {
    let pins = hex::encode(Sha256::digest(read(WHAT, requirements)?));
    let place = tools.join(format!("python-{}", pins.get(..12).unwrap_or_default()));
    let python = interpreter(WHAT)?;
    once(WHAT, &place, |dir| {
        run(WHAT, "python3", HINT, Command::new(&python).args(["-m", "venv", "--without-pip"]).arg(dir))?;
        let site = dir.join("site");
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]);
        install
            .args(options)
            .args(["--only-binary=:all:", "--target"])
            .arg(&site)
            .arg("--requirement")
            .arg(requirements);
        run(WHAT, "python3", HINT, &mut install)?;
        link(dir)
    })?;
    Ok(place.join("bin/python3"))
}

/// Adds the packages by a relative path, so that the environment can be renamed.
fn link(dir: &Path) -> Result<(), ToolError> {
    let failed = |source| ToolError::File { what: WHAT, path: dir.to_path_buf(), source };
    for entry in std::fs::read_dir(dir.join("lib")).map_err(failed)? {
        let packages = entry.map_err(failed)?.path().join("site-packages");
        if packages.is_dir() {
            std::fs::write(packages.join("site.pth"), "../../../site\n").map_err(failed)?;
        }
    }
    Ok(())
}
