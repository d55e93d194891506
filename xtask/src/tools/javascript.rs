//! JavaScript packages that a `package-lock.json` pins.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::{ToolError, node, once, read, run};

const WHAT: &str = "JavaScript packages";

/// Returns a directory whose `node_modules` has the packages that `clients` pins.
pub(crate) fn find(tools: &Path, clients: &Path) -> Result<PathBuf, ToolError> {
    let lock = clients.join("package-lock.json");
    let pins = hex::encode(Sha256::digest(read(WHAT, &lock)?));
    let place = tools.join(format!("js-{}", pins.get(..12).unwrap_or_default()));
    let (npm, path) = (node::find(tools)?.join("npm"), node::path(tools)?);
    once(WHAT, &place, |dir| {
        for name in ["package.json", "package-lock.json"] {
            let from = clients.join(name);
            let failed = |source| ToolError::File { what: WHAT, path: from.clone(), source };
            std::fs::copy(&from, dir.join(name)).map_err(failed)?;
        }
        let mut install = Command::new(npm);
        install.env("PATH", path);
        install.args(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(dir);
        run(WHAT, "npm", node::HINT, &mut install).map(drop)
    })?;
    Ok(place)
}
