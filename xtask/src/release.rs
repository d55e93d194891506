//! `cargo xtask release`: what a machine of the gateway installs, in one archive.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::artifacts::{self, COLLECTOR, GATEWAY, Workspace};
use crate::error::Error;
use crate::{dirs, tools};

/// An archive, and the SHA-256 of it in hex.
#[derive(Debug)]
pub struct Release {
    /// The file.
    pub file: PathBuf,
    /// Its digest.
    pub sha256: String,
}

/// Makes `out` (`.tar.gz`) of the module, Envoy, the optimised programs and the files of `infra`.
///
/// # Errors
/// A build, a tool that cannot be set up, or a file.
pub fn make(out: &Path) -> Result<Release, Error> {
    pack_files(
        out,
        &[
            ("bedrock_filter.wasm", artifacts::module()?, 0o644),
            ("envoy", tools::envoy::find(&dirs::tools())?, 0o755),
            (COLLECTOR.name, artifacts::release_build(COLLECTOR)?, 0o755),
            (GATEWAY.name, artifacts::release_build(GATEWAY)?, 0o755),
        ],
    )
}

/// The same of the binaries that the tests run: optimised ones take minutes to build.
pub fn of_this_build(workspace: &Workspace, out: &Path) -> Result<Release, Error> {
    let programs = [COLLECTOR, GATEWAY];
    let mut files = vec![
        ("bedrock_filter.wasm", artifacts::module()?, 0o644),
        ("envoy", tools::envoy::find(&dirs::tools())?, 0o755),
    ];
    for program in programs {
        files.push((program.name, workspace.file(program)?.to_path_buf(), 0o755));
    }
    pack_files(out, &files)
}

/// The same files give the same bytes.
fn pack_files(out: &Path, files: &[(&str, PathBuf, u32)]) -> Result<Release, Error> {
    let folder = out.with_extension("unpacked");
    let made = gather(&folder, files).and_then(|()| pack(&folder, out));
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
        copy(&from, &place.join(name), mode_of(&from)?)?;
    }
    Ok(())
}

/// Whether Git has it as a program.
fn mode_of(file: &Path) -> Result<u32, Error> {
    let found = std::fs::metadata(file).map_err(Error::file("cannot read", file))?.permissions().mode();
    Ok(if found & 0o100 == 0 { 0o644 } else { 0o755 })
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
