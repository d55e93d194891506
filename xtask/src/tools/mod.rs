//! What the commands need and a machine may lack: fetched once, at a pinned version, checked against a pinned digest.
//!
//! Each tool is unpacked next to its place and renamed into it, so that an interrupted set-up is begun anew; its
//! directory's name holds the version, so that a new pin is fetched and an old one stays.

pub mod debian;
pub mod deny;
pub mod dynamodb;
pub mod envoy;
pub mod java;
pub mod javascript;
pub mod node;
pub mod python;
mod wheel;
pub mod zig;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use sha2::{Digest, Sha256, Sha512};

/// Why something could not be set up, with the command that helps.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// A program that is not on the machine.
    #[error("{what} needs `{program}`, which is not on PATH; install it: {hint}")]
    Absent {
        /// What was being set up.
        what: &'static str,
        /// The program.
        program: &'static str,
        /// How to get it on Debian and its like.
        hint: &'static str,
    },
    /// A command failed.
    #[error("cannot set up {what}: this failed, and can be run by hand:\n  {command}\n{output}")]
    Command {
        /// What was being set up.
        what: &'static str,
        /// The command.
        command: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A download is not what was pinned.
    #[error("{what}: {} has digest {found}, and {pinned} is pinned", file.display())]
    Digest {
        /// What was being set up.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Its digest.
        found: String,
        /// The pinned one.
        pinned: &'static str,
    },
    /// No download for this machine.
    #[error("{what}: no package for {os} on {arch}; {hint}")]
    Platform {
        /// What was being set up.
        what: &'static str,
        /// The operating system.
        os: &'static str,
        /// The processor.
        arch: &'static str,
        /// What helps.
        hint: &'static str,
    },
    /// The tools' directory.
    #[error("cannot set up {what}: {}: {source}", path.display())]
    File {
        /// What was being set up.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Makes `place` by `fill`, which is given an empty directory that becomes `place`. Nothing happens where it exists.
fn once(what: &'static str, place: &Path, fill: impl FnOnce(&Path) -> Result<(), ToolError>) -> Result<(), ToolError> {
    // Tests of one process ask for the same tool at the same time.
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
            // Another process has set it up meanwhile.
            Err(_) if place.exists() => Ok(()),
            renamed => renamed.map_err(failed(place)),
        });
        let _ = std::fs::remove_dir_all(&part);
        filled
    })
}

/// The first executable of that name in `PATH`.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Runs a set-up command quietly; its output shows when it fails.
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

/// The one file in `dir` whose name ends so.
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
    fn begins_anew_after_a_failure_and_then_leaves_alone() {
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
    fn refuses_a_download_that_is_not_the_pinned_one() {
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
    fn a_failed_command_is_shown_as_it_can_be_run() {
        let error = run("a tool", "sh", "-", Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c echo why") && text.ends_with("why"), "{text}");
    }
}
