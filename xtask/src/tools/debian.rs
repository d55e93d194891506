//! Debian packages for VPN instances, such as strongSwan and FRR. They are unpacked into a directory, which is the root
//! of their programs. Nothing is installed on the machine, and root is not needed.
//!
//! They are of the release that the instances have, whatever release of Debian this machine has; on other distributions, of
//! this machine's own. apt verifies downloads with Debian's keys. Versions are not pinned, because Debian removes old
//! versions, and the instances install current ones too. The file `versions` lists them.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::{ToolError, once, run};

const WHAT: &str = "Debian's packages";
const HINT: &str = "it is Debian's and Ubuntu's own: run this on one of them, or in a container of Debian 12 or later";
/// The instances' release (infra/templates/govcloud/vpn.yaml), Debian 13.
const RELEASE: &str = "trixie";
/// The keys of Debian's releases, which the package debian-archive-keyring has. Without that of the release, apt uses this
/// machine's own sources.
const KEYS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-trixie-stable.gpg"];
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
/// Debian 13's packages have these directories below `usr` only.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// Directories that each instance has to itself.
const OWN: [&str; 4] = ["etc", "opt", "run", "tmp"];

/// Downloads and unpacks the packages once. Returns the directory.
pub(crate) fn find(tools: &Path) -> Result<PathBuf, ToolError> {
    let names = format!("{RELEASE}{PACKAGES:?}{SYSTEMD}{USERS:?}{OWN:?}");
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
    let parts = state.join("sources");
    let sources = release_sources()?;
    if let Some(text) = &sources {
        std::fs::create_dir_all(&parts).map_err(failed(&parts))?;
        let file = parts.join("release.sources");
        std::fs::write(&file, text).map_err(failed(&file))?;
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        if sources.is_some() {
            command.args(["-o", "Dir::Etc::SourceList=/dev/null", "-o"]);
            command.arg(format!("Dir::Etc::SourceParts={}", parts.display()));
        }
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
    for name in MERGED {
        let path = dir.join(name);
        if !path.exists() {
            std::os::unix::fs::symlink(Path::new("usr").join(name), &path).map_err(failed(&path))?;
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

/// The release's sources, at the archives that this machine's own sources name. `None` on a machine that is not Debian's.
fn release_sources() -> Result<Option<String>, ToolError> {
    if KEYS.iter().any(|key| !Path::new(key).exists()) {
        return Ok(None);
    }
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(SITE)", "Created-By: Packages"]);
    Ok(sources_at(&run(WHAT, "apt-get", HINT, &mut command)?))
}

/// `sites` has the address of an archive on each line, some of them several times.
fn sources_at(sites: &str) -> Option<String> {
    let [keys, _] = KEYS;
    let stanza = |suffix: &str, suites: &str| {
        let site = sites.lines().map(|site| site.trim_end_matches('/')).find(|site| site.ends_with(suffix))?;
        Some(format!("Types: deb\nURIs: {site}\nSuites: {suites}\nComponents: main\nSigned-By: {keys}\n\n"))
    };
    let main = stanza("/debian", &format!("{RELEASE} {RELEASE}-updates"))?;
    Some(main + &stanza("/debian-security", &format!("{RELEASE}-security")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_release_from_the_same_archives() {
        let sites = "https://archive.example/debian/\nhttps://archive.example/debian\nhttps://archive.example/debian-security\n";
        let sources = sources_at(sites).unwrap();
        let lines: Vec<&str> =
            sources.lines().filter(|line| line.starts_with("URIs") || line.starts_with("Suites")).collect();
        let wanted = [
            "URIs: https://archive.example/debian",
            "Suites: trixie trixie-updates",
            "URIs: https://archive.example/debian-security",
            "Suites: trixie-security",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(sources_at("https://archive.example/ubuntu\n"), None);
    }
}
