//! AWS's service models of Bedrock, from botocore's wheel on PyPI. pip verifies it against the index's digest: a version that
//! is asked for, or the newest, has no digest pinned here. Only JSON is taken from it, and none of its code runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ToolError, downloaded, once, python, run};

const WHAT: &str = "botocore's service models";
/// Unpacks the files of the wheel whose names begin so.
const UNPACK: &str = "import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
wheel.extractall(sys.argv[2], [name for name in wheel.namelist() if name.startswith('botocore/data/bedrock')])";

/// Models of one version.
pub(crate) struct Models {
    pub version: String,
    /// botocore's directory `data`.
    pub data: PathBuf,
}

/// Returns the models of a version, or of the newest that this Python can have.
pub(crate) fn find(tools: &Path, version: Option<&str>) -> Result<Models, ToolError> {
    let of = |version: &str| {
        let place = tools.join(format!("botocore-{version}"));
        (Models { version: version.to_owned(), data: place.join("botocore/data") }, place)
    };
    if let Some((models, place)) = version.map(of)
        && place.exists()
    {
        return Ok(models);
    }
    let part = tools.join(format!("botocore.{}.part", std::process::id()));
    let found = download(&part, version).and_then(|(wheel, version)| {
        let (models, place) = of(&version);
        once(WHAT, &place, |dir| {
            let mut unpack = Command::new(python::interpreter(WHAT)?);
            run(WHAT, "python3", python::HINT, unpack.args(["-c", UNPACK]).arg(&wheel).arg(dir)).map(drop)
        })?;
        Ok(models)
    });
    let _ = std::fs::remove_dir_all(&part);
    found
}

/// Downloads the wheel, and returns its file and version.
fn download(dir: &Path, version: Option<&str>) -> Result<(PathBuf, String), ToolError> {
    let mut download = Command::new(python::interpreter(WHAT)?);
    download.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    download.args(["--only-binary=:all:", "--dest"]).arg(dir);
    download.arg(version.map_or_else(|| "botocore".to_owned(), |version| format!("botocore=={version}")));
    run(WHAT, "python3", python::HINT, &mut download)?;
    let wheel = downloaded(WHAT, dir, ".whl")?;
    let version = version_of(&wheel).ok_or_else(|| {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "its name has no version");
        ToolError::File { what: WHAT, path: wheel.clone(), source }
    })?;
    Ok((wheel, version))
}

/// `botocore-1.44.8-py3-none-any.whl` → `1.44.8`
fn version_of(wheel: &Path) -> Option<String> {
    wheel.file_name()?.to_str()?.split('-').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_the_wheels_name() {
        assert_eq!(version_of(Path::new("/x-y/botocore-1.44.8-py3-none-any.whl")).as_deref(), Some("1.44.8"));
        assert_eq!(version_of(Path::new("botocore.whl")), None);
    }
}
