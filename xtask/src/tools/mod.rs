//! Tools that a machine may lack. Each is downloaded once, at a pinned version, and verified against a pinned digest.
//!
//! Each tool is unpacked under another name and then renamed, so that an interrupted installation starts again. The
//! directory's name contains the version, so that versions can coexist.

pub(crate) mod botocore;
mod crates;
pub(crate) mod debian;
pub(crate) mod deny;
pub(crate) mod dynamodb;
pub(crate) mod envoy;
pub(crate) mod java;
pub(crate) mod javascript;
pub(crate) mod needroleshere;
pub(crate) mod node;
pub(crate) mod python;
mod wheel;
pub(crate) mod zig;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use sha2::{Digest, Sha256, Sha512};

/// Errors of installing tools, with a command that helps.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    #[error("{what} needs `{program}`, which is not on PATH; install it: {hint}")]
    Absent {
        what: &'static str,
        program: &'static str,
        /// How to install it on Debian.
        hint: &'static str,
    },
    #[error("cannot set up {what}: this failed, and can be run by hand:\n  {command}\n{output}")]
    Command {
        what: &'static str,
        command: String,
        /// The last lines of its output.
        output: String,
    },
    /// The download's digest differs from the pinned one.
    #[error("{what}: {} has digest {found}, and {pinned} is pinned", file.display())]
    Digest { what: &'static str, file: PathBuf, found: String, pinned: &'static str },
    /// No download for this platform.
    #[error("{what}: no package for {os} on {arch}; {hint}")]
    Platform {
        what: &'static str,
        os: &'static str,
        arch: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A file of the tool's directory.
    #[error("cannot set up {what}: {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
}

/// Creates `place` unless it exists: `fill` gets an empty directory, which is then renamed to `place`.
fn once(what: &'static str, place: &Path, fill: impl FnOnce(&Path) -> Result<(), ToolError>) -> Result<(), ToolError> {
    // Concurrent tests of a process may need the same tool.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if place.exists() {
        return Ok(());
    }
    let part = place.with_extension(format!("{}.part", std::process::id()));
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ToolError::File { what, path, source }
    };
    crate::progress::step(&format!("setting up {what}"), || {
        if part.exists() {
            std::fs::remove_dir_all(&part).map_err(failed(&part))?;
        }
        std::fs::create_dir_all(&part).map_err(failed(&part))?;
        let filled = fill(&part).and_then(|()| match std::fs::rename(&part, place) {
            // Another process has created it.
            Err(_) if place.exists() => Ok(()),
            renamed => renamed.map_err(failed(place)),
        });
        let _ = std::fs::remove_dir_all(&part);
        filled
    })
}

/// The first file with this name in `PATH`.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Runs a command; its output is part of the error if it fails.
fn run(
    what: &'static str,
    program: &'static str,
    hint: &'static str,
    command: &mut Command,
) -> Result<String, ToolError> {
    let output = command.stdin(Stdio::null()).output().map_err(|_| ToolError::Absent { what, program, hint })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().collect();
    let end = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
    let line: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    Err(ToolError::Command { what, command: line.join(" "), output: end.join("\n") })
}

/// The SHA-256 of a file, in hex.
fn sha256(what: &'static str, file: &Path) -> Result<String, ToolError> {
    Ok(hex::encode(Sha256::digest(read(what, file)?)))
}

/// The `sha512-…` of a file, as npm writes it.
fn integrity(what: &'static str, file: &Path) -> Result<String, ToolError> {
    let digest = Sha512::digest(read(what, file)?);
    Ok(format!("sha512-{}", base64::engine::general_purpose::STANDARD.encode(digest)))
}

fn read(what: &'static str, file: &Path) -> Result<Vec<u8>, ToolError> {
    std::fs::read(file).map_err(|source| ToolError::File { what, path: file.to_path_buf(), source })
}

/// The file in `dir` whose name ends with `suffix`.
fn downloaded(what: &'static str, dir: &Path, suffix: &str) -> Result<PathBuf, ToolError> {
    let failed = |source| ToolError::File { what, path: dir.to_path_buf(), source };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.to_string_lossy().ends_with(suffix) {
            return Ok(path);
        }
    }
    Err(failed(std::io::Error::new(std::io::ErrorKind::NotFound, format!("no {suffix} was downloaded"))))
}

/// Refuses a file whose digest is not the pinned one.
fn verify(what: &'static str, file: PathBuf, found: String, pinned: &'static str) -> Result<PathBuf, ToolError> {
    if found == pinned { Ok(file) } else { Err(ToolError::Digest { what, file, found, pinned }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xtask-tools-{}-{name}", std::process::id()))
    }

    #[test]
    fn retries_after_a_failure_and_runs_once() {
        let place = place("once");
        let broken = once("a tool", &place, |part| {
            std::fs::write(part.join("half"), "").unwrap();
            Err(ToolError::Absent { what: "a tool", program: "x", hint: "y" })
        });
        assert!(broken.is_err() && !place.exists());
        once("a tool", &place, |part| {
            assert!(!part.join("half").exists());
            std::fs::write(part.join("whole"), "").unwrap();
            Ok(())
        })
        .unwrap();
        once("a tool", &place, |_| Err(ToolError::Absent { what: "a tool", program: "x", hint: "y" })).unwrap();
        assert!(place.join("whole").exists());
        std::fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn refuses_a_download_with_a_wrong_digest() {
        let file = place("digest");
        std::fs::write(&file, "abc").unwrap();
        let found = sha256("a tool", &file).unwrap();
        assert_eq!(found, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(integrity("a tool", &file).unwrap().starts_with("sha512-3a81oZNherrMQXNJriBBMRLm+k6J"));
        let error = verify("a tool", file.clone(), found, "00").unwrap_err().to_string();
        assert!(error.ends_with("and 00 is pinned"), "{error}");
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn error_shows_the_failed_command() {
        let error = run("a tool", "sh", "-", Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c echo why") && text.ends_with("why"), "{text}");
    }
}
