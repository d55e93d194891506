//! `cargo xtask release`: packs an archive for one processor architecture, which operators unpack and gateway instances
//! install.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use sha2::{Digest as _, Sha256};

use crate::artifacts::{self, COLLECTOR, GATEWAY, Workspace};
use crate::error::Error;
use crate::{dirs, tools};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// x86-64
    #[value(name = "x86_64")]
    X86_64,
    /// Arm, 64 bits
    #[value(name = "aarch64")]
    Aarch64,
}

/// Files of Envoy's configuration in the archive.
const CONFIGURATION: [&str; 4] = ["base.yaml", "cluster.yaml", "example.yaml", "standalone.yaml"];
/// Folders of `infra` in the archive: all except the developers' checks.
const INFRA: [&str; 8] = ["dashboards", "environments", "instance", "lib", "policies", "router", "templates", "vpn"];

/// An archive, and its SHA-256 in hex.
#[derive(Debug)]
pub(crate) struct Release {
    pub file: PathBuf,
    pub sha256: String,
}

impl Arch {
    /// This machine's architecture.
    pub(crate) fn own() -> Arch {
        if std::env::consts::ARCH == "aarch64" { Arch::Aarch64 } else { Arch::X86_64 }
    }

    fn as_str(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        }
    }

    /// Static binaries with musl run on any Linux, with any C library.
    fn target(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64-unknown-linux-musl",
            Arch::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }
}

/// Builds the archive: `out`, or `target/bedrock-gateway-VERSION-ARCH.tar.gz`.
pub(crate) fn make(arch: Arch, out: Option<&Path>) -> Result<Release, Error> {
    let name = format!("bedrock-gateway-{}-{}.tar.gz", env!("CARGO_PKG_VERSION"), arch.as_str());
    let default = dirs::target().join(name);
    let programs = artifacts::static_build(&[COLLECTOR, GATEWAY], arch.target())?;
    let mut files = vec![
        ("bedrock_filter.wasm", artifacts::module()?, 0o644),
        ("envoy", tools::envoy::pinned(&dirs::tools(), arch.as_str())?, 0o755),
    ];
    files.extend([COLLECTOR.name, GATEWAY.name].into_iter().zip(programs).map(|(name, file)| (name, file, 0o755)));
    pack_files(out.unwrap_or(&default), &files)
}

/// Packs the debug build's binaries, for tests: optimised, static ones take minutes to build.
pub(crate) fn make_from_debug(workspace: &Workspace, out: &Path) -> Result<Release, Error> {
    let mut files = vec![
        ("bedrock_filter.wasm", artifacts::module()?, 0o644),
        ("envoy", tools::envoy::find(&dirs::tools())?, 0o755),
    ];
    for program in [COLLECTOR, GATEWAY] {
        files.push((program.name, workspace.file(program)?.to_path_buf(), 0o755));
    }
    pack_files(out, &files)
}

/// The archive is reproducible: the same files give the same bytes.
fn pack_files(out: &Path, files: &[(&str, PathBuf, u32)]) -> Result<Release, Error> {
    let folder = out.with_extension("unpacked");
    let _ = std::fs::remove_dir_all(&folder);
    let made = gather(&folder, files).and_then(|()| pack(&folder, out));
    let removed = std::fs::remove_dir_all(&folder).map_err(Error::file("cannot remove", &folder));
    made.and(removed)?;
    let sha256 = digest(out)?;
    Ok(Release { file: out.to_path_buf(), sha256 })
}

fn gather(folder: &Path, files: &[(&str, PathBuf, u32)]) -> Result<(), Error> {
    let root = dirs::root();
    create(folder)?;
    for (name, from, mode) in files {
        copy(from, &folder.join(name), *mode)?;
    }
    for name in CONFIGURATION {
        create(&folder.join("envoy-config"))?;
        copy(&root.join("envoy").join(name), &folder.join("envoy-config").join(name), 0o644)?;
    }
    tree(&root.join("envoy/istio"), &folder.join("envoy-config/istio"))?;
    // The programs' messages name its pages.
    tree(&root.join("docs"), &folder.join("docs"))?;
    copy(&root.join("LICENSE"), &folder.join("LICENSE"), 0o644)?;
    let infra = root.join("infra");
    create(&folder.join("infra"))?;
    for name in ["certificate", "deploy"] {
        copy(&infra.join(name), &folder.join("infra").join(name), 0o755)?;
    }
    for name in INFRA {
        tree(&infra.join(name), &folder.join("infra").join(name))?;
    }
    checksums(folder)
}

/// Copies a directory recursively.
fn tree(from: &Path, to: &Path) -> Result<(), Error> {
    create(to)?;
    for entry in std::fs::read_dir(from).map_err(Error::file("cannot read", from))? {
        let from = entry.map_err(Error::file("cannot read", from))?.path();
        let name = from.file_name().unwrap_or_default();
        if from.is_dir() && name != "__pycache__" {
            tree(&from, &to.join(name))?;
        } else if from.is_file() {
            copy(&from, &to.join(name), mode_of(&from)?)?;
        }
    }
    Ok(())
}

/// `SHA256SUMS`, for `sha256sum --check`.
fn checksums(folder: &Path) -> Result<(), Error> {
    let mut files = Vec::new();
    files_below(folder, &mut files)?;
    files.sort();
    let mut text = String::new();
    for file in files {
        let name = file.strip_prefix(folder).unwrap_or(&file);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {}", digest(&file)?, name.display());
    }
    let file = folder.join("SHA256SUMS");
    std::fs::write(&file, text).map_err(Error::file("cannot write", &file))
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(Error::file("cannot read", folder))? {
        let path = entry.map_err(Error::file("cannot read", folder))?.path();
        if path.is_dir() {
            files_below(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn digest(file: &Path) -> Result<String, Error> {
    Ok(hex::encode(Sha256::digest(std::fs::read(file).map_err(Error::file("cannot read", file))?)))
}

fn create(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(Error::file("cannot create", folder))
}

/// The mode of the file as Git records it: executable or not.
fn mode_of(file: &Path) -> Result<u32, Error> {
    let found = std::fs::metadata(file).map_err(Error::file("cannot read", file))?.permissions().mode();
    Ok(if found & 0o100 == 0 { 0o644 } else { 0o755 })
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), Error> {
    std::fs::copy(from, to).map_err(Error::file("cannot copy", from))?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode)).map_err(Error::file("cannot change", to))
}

/// Runs GNU tar and gzip with fixed times, owners and order.
fn pack(folder: &Path, out: &Path) -> Result<(), Error> {
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--use-compress-program=gzip -n -1",
    ]);
    tar.arg("-cf").arg(out).arg("-C").arg(folder).arg(".");
    let status = tar.status().map_err(Error::file("cannot run", "tar"))?;
    if status.success() { Ok(()) } else { Err(Error::Failed(format!("tar ended with {status}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_archive() {
        let dir = std::env::temp_dir().join(format!("release-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let program = dir.join("program");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        let make = |name: &str| pack_files(&dir.join(name), &[("program", program.clone(), 0o755)]).unwrap();
        assert_eq!(make("one.tar.gz").sha256, make("two.tar.gz").sha256);
        let listed = Command::new("tar").arg("-tf").arg(dir.join("one.tar.gz")).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        for name in [
            "./SHA256SUMS",
            "./infra/certificate",
            "./infra/deploy",
            "./infra/lib/plan.sh",
            "./infra/vpn/render.py",
            "./envoy-config/base.yaml",
            "./docs/audit.md",
            "./LICENSE",
        ] {
            assert!(listed.lines().any(|line| line == name), "{name} is missing");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
