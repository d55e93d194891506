//! Debian packages for VPN instances, such as strongSwan and FRR. They are unpacked into a directory, which is the root
//! of their programs. Nothing is installed on the machine, and root is not needed.
//!
//! They are of the release that the instances have, whatever release of Debian this machine has; on other distributions, of
//! this machine's own. apt verifies downloads with Debian's keys. Versions are not pinned, because Debian removes old
//! versions, and the instances install current ones too. The file `versions` lists them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::{ToolError, once, run};

const WHAT: &str = "Debian's packages";
const PROMETHEUS: &str = "Debian's Prometheus";
const AWS_CLI: &str = "Debian's AWS CLI";
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
    let apt = Apt::new(WHAT, dir)?;
    apt.run(&[&["install", "--no-install-recommends", "--download-only", SYSTEMD][..], &PACKAGES].concat())?;
    let versions = apt.unpack(dir)?;
    // Removes documentation, and `var/run`, which becomes a link.
    for name in ["usr/share/doc", "usr/share/man", "usr/share/locale", "var/run"] {
        let path = dir.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(failed(WHAT, &path))?;
        }
    }
    for name in MERGED {
        let path = dir.join(name);
        if !path.exists() {
            std::os::unix::fs::symlink(Path::new("usr").join(name), &path).map_err(failed(WHAT, &path))?;
        }
    }
    let run = dir.join("var/run");
    std::os::unix::fs::symlink("/run", &run).map_err(failed(WHAT, &run))?;
    for name in OWN.into_iter().chain(["dev", "proc"]) {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).map_err(failed(WHAT, &path))?;
    }
    for (name, text) in USERS {
        let path = dir.join("etc").join(name);
        std::fs::write(&path, text).map_err(failed(WHAT, &path))?;
    }
    let list = dir.join("versions");
    std::fs::write(&list, versions).map_err(failed(WHAT, &list))
}

/// Downloads Prometheus once, which has no digest of its own here: apt verifies it. Returns the program.
pub(crate) fn prometheus(tools: &Path) -> Result<PathBuf, ToolError> {
    let place = tools.join(format!("prometheus-{RELEASE}"));
    once(PROMETHEUS, &place, |dir| {
        let apt = Apt::new(PROMETHEUS, dir)?;
        // Without what it depends on: pages of its own interface.
        apt.run(&["download", "prometheus"])?;
        apt.unpack(dir).map(|_| ())
    })?;
    Ok(place.join("usr/bin/prometheus"))
}

/// Runs the AWS CLI with the Python and libraries of its own release.
const AWS_SCRIPT: &str = r#"#!/bin/sh
root=$(dirname "$0")
libraries=$(echo "$root"/usr/lib/*-linux-gnu)
export PYTHONHOME="$root/usr"
exec "$libraries"/ld-linux-*.so.* --library-path "$libraries" "$root/usr/bin/python3" "$root/usr/bin/aws" "$@"
"#;

/// Downloads version 2 of the AWS CLI once, which PyPI does not have, and what it depends on. Returns the program.
pub(crate) fn aws_cli(tools: &Path) -> Result<PathBuf, ToolError> {
    let place = tools.join(format!("aws-cli-{RELEASE}"));
    once(AWS_CLI, &place, |dir| {
        let apt = Apt::new(AWS_CLI, dir)?;
        apt.run(&["install", "--no-install-recommends", "--download-only", "awscli"])?;
        apt.unpack(dir)?;
        let script = dir.join("aws");
        std::fs::write(&script, AWS_SCRIPT).map_err(failed(AWS_CLI, &script))?;
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).map_err(failed(AWS_CLI, &script))
    })?;
    Ok(place.join("aws"))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ToolError + use<> {
    let path = path.to_path_buf();
    move |source| ToolError::File { what, path, source }
}

/// A separate state of apt without installed packages: apt downloads all dependencies, and the machine's state does not
/// change.
struct Apt {
    what: &'static str,
    state: PathBuf,
    /// A folder with the release's sources.
    sources: Option<PathBuf>,
}

impl Apt {
    /// In a folder of `dir`, with current lists of packages.
    fn new(what: &'static str, dir: &Path) -> Result<Self, ToolError> {
        let mut apt = Self { what, state: dir.join("apt"), sources: None };
        for path in [apt.state.join("lists/partial"), apt.archives().join("partial")] {
            std::fs::create_dir_all(&path).map_err(failed(what, &path))?;
        }
        let status = apt.state.join("status");
        std::fs::write(&status, "").map_err(failed(what, &status))?;
        if let Some(text) = release_sources()? {
            let folder = apt.state.join("sources");
            std::fs::create_dir_all(&folder).map_err(failed(what, &folder))?;
            let file = folder.join("release.sources");
            std::fs::write(&file, text).map_err(failed(what, &file))?;
            apt.sources = Some(folder);
        }
        apt.run(&["update"])?;
        Ok(apt)
    }

    fn archives(&self) -> PathBuf {
        self.state.join("archives")
    }

    fn run(&self, arguments: &[&str]) -> Result<(), ToolError> {
        let mut command = Command::new("apt-get");
        // Where `download` puts its files.
        command.current_dir(self.archives());
        if let Some(folder) = &self.sources {
            command.args(["-o", "Dir::Etc::SourceList=/dev/null", "-o"]);
            command.arg(format!("Dir::Etc::SourceParts={}", folder.display()));
        }
        command.args(["--quiet", "--yes"]);
        for (key, path) in [
            ("Dir::State", &self.state),
            ("Dir::State::Lists", &self.state.join("lists")),
            ("Dir::State::status", &self.state.join("status")),
            ("Dir::Cache", &self.state),
            ("Dir::Cache::archives", &self.archives()),
        ] {
            command.arg("-o").arg(format!("{key}={}", path.display()));
        }
        // The user _apt cannot write here.
        command.args(["-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1", "-o", "Acquire::Languages=none"]);
        command.args(["-o", "Acquire::Retries=3"]).args(arguments);
        run(self.what, "apt-get", HINT, &mut command).map(|_| ())
    }

    /// Unpacks what was downloaded, and removes the state. Returns the packages' versions.
    fn unpack(self, dir: &Path) -> Result<String, ToolError> {
        let archives = self.archives();
        let mut versions = String::new();
        for entry in std::fs::read_dir(&archives).map_err(failed(self.what, &archives))? {
            let path = entry.map_err(failed(self.what, &archives))?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                let mut unpack = Command::new("dpkg-deb");
                run(self.what, "dpkg-deb", "apt-get install dpkg", unpack.arg("-x").arg(&path).arg(dir))?;
                // NAME_VERSION_ARCHITECTURE.deb, with `%3a` for the colon of an epoch.
                let name = path.file_stem().unwrap_or_default().to_string_lossy().replace("%3a", ":");
                versions.push_str(&name);
                versions.push('\n');
            }
        }
        std::fs::remove_dir_all(&self.state).map_err(failed(self.what, &self.state))?;
        Ok(versions)
    }
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
