//! `cargo xtask release`: what a machine of the gateway installs, in one archive.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::{Error, artifacts, dirs, tools};

/// An archive, and the SHA-256 of it in hex.
#[derive(Debug)]
pub struct Release {
    /// The file.
    pub file: PathBuf,
    /// Its digest.
    pub sha256: String,
}

/// Makes `out` (`.tar.gz`) of the module, Envoy, the collector, `infra/instance` and `infra/vpn`. The same files give the same bytes.
///
/// # Errors
/// A build, a tool that cannot be set up, or a file.
pub fn make(out: &Path) -> Result<Release, Error> {
    let files = [
        ("bedrock_filter.wasm", artifacts::module()?, 0o644),
        ("envoy", tools::envoy::find(&dirs::tools())?, 0o755),
        ("audit-collector", artifacts::collector_release()?, 0o755),
    ];
    let folder = out.with_extension("unpacked");
    let made = gather(&folder, &files).and_then(|()| pack(&folder, out));
    let removed = std::fs::remove_dir_all(&folder).map_err(Error::file("cannot remove", &folder));
    made.and(removed)?;
    let bytes = std::fs::read(out).map_err(Error::file("cannot read", out))?;
    Ok(Release { file: out.to_path_buf(), sha256: hex::encode(Sha256::digest(bytes)) })
}

fn gather(folder: &Path, files: &[(&str, PathBuf, u32)]) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(Error::file("cannot create", folder))?;
    for (name, from, mode) in files {
        copy(from, &folder.join(name), *mode)?;
    }
    scripts("instance", folder)?;
    scripts("vpn", folder)
}

/// What is in this folder of `infra`.
fn scripts(name: &str, folder: &Path) -> Result<(), Error> {
    let (source, place) = (dirs::root().join("infra").join(name), folder.join(name));
    std::fs::create_dir_all(&place).map_err(Error::file("cannot create", &place))?;
    for entry in std::fs::read_dir(&source).map_err(Error::file("cannot read", &source))? {
        let from = entry.map_err(Error::file("cannot read", &source))?.path();
        let name = from.file_name().unwrap_or_default();
        // Scripts have no extension; what has one is read.
        let mode = if from.extension().is_none() { 0o755 } else { 0o644 };
        copy(&from, &place.join(name), mode)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), Error> {
    std::fs::copy(from, to).map_err(Error::file("cannot copy", from))?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode)).map_err(Error::file("cannot change", to))
}

/// GNU tar and gzip, told to leave out what differs from run to run: times, owners, order.
fn pack(folder: &Path, out: &Path) -> Result<(), Error> {
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--use-compress-program=gzip -n -6",
    ]);
    tar.arg("-cf").arg(out).arg("-C").arg(folder).arg(".");
    let status = tar.status().map_err(Error::file("cannot run", "tar"))?;
    if status.success() { Ok(()) } else { Err(Error::Failed(format!("tar ends with {status}"))) }
}
