//! AWS's DynamoDB Local, from an npm package that contains its jar.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ToolError, integrity, node, once, run, verify};

const PACKAGE: &str = "amplify-dynamodb-simulator";
const VERSION: &str = "2.9.30";
const INTEGRITY: &str =
    "sha512-xTeeRLvzEfqyd5lh3bH4c0kHvSHHmmhD5ZDsHFKAQ5g2Zl6JqlFdutaQhCLHzxEp6Ry1o7TB6niIoXuQAnSewQ==";
const WHAT: &str = "DynamoDB Local";

/// Returns the directory with `DynamoDBLocal.jar` and `DynamoDBLocal_lib`; run it with `java
/// -Djava.library.path=DIR/DynamoDBLocal_lib -jar DIR/DynamoDBLocal.jar -inMemory -port PORT`.
pub(crate) fn find(tools: &Path) -> Result<PathBuf, ToolError> {
    let place = tools.join(format!("dynamodb-local-{VERSION}"));
    let (npm, path) = (node::find(tools)?.join("npm"), node::path(tools)?);
    once(WHAT, &place, |dir| {
        let mut pack = Command::new(npm);
        pack.env("PATH", path);
        pack.args(["pack", "--silent", "--pack-destination"]).arg(dir).arg(format!("{PACKAGE}@{VERSION}"));
        run(WHAT, "npm", node::HINT, &mut pack)?;
        let archive = super::downloaded(WHAT, dir, ".tgz")?;
        let found = integrity(WHAT, &archive)?;
        let archive = verify(WHAT, archive, found, INTEGRITY)?;
        run(WHAT, "tar", "apt-get install tar", Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(dir))?;
        std::fs::remove_file(&archive).map_err(|source| ToolError::File { what: WHAT, path: archive, source })
    })?;
    Ok(place.join("package/emulator"))
}
