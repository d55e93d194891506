//! Debian packages for VPN instances, such as strongSwan and FRR. They are unpacked into a directory, which is the root
//! of their programs. Nothing is installed on the machine, and root is not needed.
//!
//! apt verifies downloads with Debian's keys. Versions are not pinned, because Debian removes old versions, and the
//! instances install current ones too. The file `versions` lists them.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::{ToolError, once, run};

const WHAT: &str = "Debian's packages";
const HINT: &str = "it is Debian's and Ubuntu's own: run this on one of them, or in a container of Debian 12 or later";
/// apt adds their dependencies.
const PACKAGES: [&str; 12] = [
    "charon-systemd",
    "coreutils",
    "dash",
    "frr",
    "iproute2",
    "iputils-ping",
    // Provides ESP in user space if the kernel has none.
    "libcharon-extra-plugins",
    "libstrongswan-standard-plugins",
    "nftables",
    "python3",
    "shellcheck",
    "strongswan-swanctl",
];
/// Used only to verify unit files.
const SYSTEMD: &str = "systemd";
/// Users and groups that FRR looks up.
const USERS: [(&str, &str); 2] = [
    ("passwd", "root:x:0:0::/:/bin/sh\nfrr:x:998:998::/:/usr/sbin/nologin\n"),
    ("group", "root:x:0:\nfrr:x:998:\nfrrvty:x:997:frr\n"),
];
/// Directories that each instance has to itself.
const OWN: [&str; 4] = ["etc", "opt", "run", "tmp"];

/// Downloads and unpacks the packages once. Returns the directory.
pub(crate) fn find(tools: &Path) -> Result<PathBuf, ToolError> {
    let names = format!("{PACKAGES:?}{SYSTEMD}{USERS:?}{OWN:?}");
    let place = tools.join(format!("debian-{}", hex::encode(Sha256::digest(names)).get(..12).unwrap_or_default()));
    once(WHAT, &place, fetch)?;
    Ok(place)
}

fn fetch(dir: &Path) -> Result<(), ToolError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ToolError::File { what: WHAT, path, source }
    };
    // A separate apt state without installed packages: apt downloads all dependencies, and the machine's state does not
    // change.
    let state = dir.join("apt");
    let archives = state.join("archives");
    for path in [state.join("lists/partial"), archives.join("partial")] {
        std::fs::create_dir_all(&path).map_err(failed(&path))?;
    }
    let status = state.join("status");
    std::fs::write(&status, "").map_err(failed(&status))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["--quiet", "--yes"]);
        for (key, path) in [
            ("Dir::State", &state),
            ("Dir::State::Lists", &state.join("lists")),
            ("Dir::State::status", &status),
            ("Dir::Cache", &state),
            ("Dir::Cache::archives", &archives),
        ] {
            command.arg("-o").arg(format!("{key}={}", path.display()));
        }
        // The user _apt cannot write here.
        command.args(["-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1", "-o", "Acquire::Languages=none"]);
        command.args(["-o", "Acquire::Retries=3"]).args(arguments);
        run(WHAT, "apt-get", HINT, &mut command)
    };
    apt(&["update"])?;
    apt(&[&["install", "--no-install-recommends", "--download-only", SYSTEMD][..], &PACKAGES].concat())?;

    let mut versions = String::new();
    for entry in std::fs::read_dir(&archives).map_err(failed(&archives))? {
        let path = entry.map_err(failed(&archives))?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(WHAT, "dpkg-deb", "apt-get install dpkg", Command::new("dpkg-deb").arg("-x").arg(&path).arg(dir))?;
            // NAME_VERSION_ARCHITECTURE.deb, with `%3a` for the colon of an epoch.
            let name = path.file_stem().unwrap_or_default().to_string_lossy().replace("%3a", ":");
            versions.push_str(&name);
            versions.push('\n');
        }
    }
    std::fs::remove_dir_all(&state).map_err(failed(&state))?;
    // Removes documentation, and `var/run`, which becomes a link.
    for name in ["usr/share/doc", "usr/share/man", "usr/share/locale", "var/run"] {
        let path = dir.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(failed(&path))?;
        }
    }
    let run = dir.join("var/run");
    std::os::unix::fs::symlink("/run", &run).map_err(failed(&run))?;
    for name in OWN.into_iter().chain(["dev", "proc"]) {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).map_err(failed(&path))?;
    }
    for (name, text) in USERS {
        let path = dir.join("etc").join(name);
        std::fs::write(&path, text).map_err(failed(&path))?;
    }
    let list = dir.join("versions");
    std::fs::write(&list, versions).map_err(failed(&list))
}
