//! A Python with the packages that a requirements file pins: the SDKs of the tests, the checks of the templates.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::{ToolError, once, read, run};

const WHAT: &str = "Python packages";
/// How to get Python.
pub const HINT: &str = "apt-get install python3 python3-venv";

/// Python 3 on `PATH`.
pub fn interpreter(what: &'static str) -> Result<PathBuf, ToolError> {
    super::on_path("python3").ok_or(ToolError::Absent { what, program: "python3", hint: HINT })
}

/// The interpreter of a virtual environment with these packages in it, and what they depend on.
pub fn find(tools: &Path, requirements: &Path) -> Result<PathBuf, ToolError> {
    with(tools, requirements, &[])
}

/// The same with these packages alone, whichever Python they ask for: the file names what is needed of what they depend on.
pub fn find_alone(tools: &Path, requirements: &Path) -> Result<PathBuf, ToolError> {
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

/// Makes the environment find its packages by a relative name, so that it can be renamed into its place.
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
