//! A placeholder for the release archive, which takes minutes to build. `tests/instance.rs` tests a real one.

use std::path::Path;
use std::process::Command;

use crate::Error;
use crate::aws_mock::write;

/// The processor of an ELF file, in its header.
pub const X86_64: u8 = 62;
/// As [`X86_64`].
pub const AARCH64: u8 = 183;
/// The files without which `infra/deploy` refuses an archive.
const FILES: [&str; 6] =
    ["SHA256SUMS", "audit-collector", "bedrock_filter.wasm", "envoy", "infra/instance/install", "infra/vpn/install"];

/// Writes an archive with all that `infra/deploy` looks for, except `without`, for this processor. `sums` is its `SHA256SUMS`.
///
/// # Errors
/// A file cannot be written, or tar fails.
pub fn placeholder(archive: &Path, processor: u8, without: &str, sums: &str) -> Result<(), Error> {
    let folder = archive.with_extension("files");
    for file in FILES.into_iter().filter(|file| *file != without) {
        write(&folder.join(file), if file == "SHA256SUMS" { sums } else { "" })?;
    }
    let mut header = [0; 64];
    header[18] = processor;
    let program = folder.join("audit-collector");
    std::fs::write(&program, header).map_err(Error::file("cannot write", &program))?;
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(archive).arg("-C").arg(&folder).arg(".");
    let status = tar.status().map_err(Error::file("cannot run", "tar"))?;
    std::fs::remove_dir_all(&folder).map_err(Error::file("cannot remove", &folder))?;
    if status.success() { Ok(()) } else { Err(Error::Failed(format!("tar ended with {status}"))) }
}
