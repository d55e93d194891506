//! A machine of the lab: programs of Debian packages with their own files, in a network namespace.
//!
//! The packages are unpacked in a directory, which becomes the programs' root. Nothing is installed. `cargo xtask` fetches
//! them and names the directory in the environment ([`crate::tools::DEBIAN`]).

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::namespace::{Namespace, run};
use crate::{Error, tools};

/// The packages whose versions a report names.
const NAMED: [&str; 3] = ["charon-systemd", "frr", "nftables"];

/// Mounts what a program needs into its root, in a new mount namespace, and execs the program:
/// ROOT FILES PROGRAM ARGUMENTS.
const ENTER: &str = r#"set -e
root=$1 files=$2
shift 2
for name in dev proc; do mount --rbind "/$name" "$root/$name"; done
for name in etc opt run tmp; do mount --bind "$files/$name" "$root/$name"; done
exec chroot "$root" "$@""#;
/// `PATH` in the root.
const PATH: &str = "/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/frr";

/// The unpacked packages.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

/// The packages' programs with their own files.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    files: PathBuf,
}

/// The unpacked packages.
///
/// # Errors
/// The environment does not name them.
pub fn find() -> Result<Root, Error> {
    Ok(Root(tools::required(tools::DEBIAN)?))
}

impl Root {
    /// `charon-systemd 5.9.8-5+deb12u6, frr …`.
    pub fn versions(&self) -> Result<String, Error> {
        let file = self.0.join("versions");
        let list = std::fs::read_to_string(&file).map_err(Error::file("cannot read", &file))?;
        let of = |line: &str| {
            let (name, rest) = line.split_once('_')?;
            let (version, _) = rest.split_once('_')?;
            NAMED.contains(&name).then(|| format!("{name} {version}"))
        };
        let mut named: Vec<String> = list.lines().filter_map(of).collect();
        named.sort();
        Ok(named.join(", "))
    }

    /// The file of a program that runs without chroot.
    pub fn file(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// A machine whose /etc (at first the packages'), /opt, /run and /tmp are in `files`.
    pub fn machine(&self, files: &Path) -> Result<Machine, Error> {
        for name in ["opt/bin", "run/frr", "tmp"] {
            let path = files.join(name);
            std::fs::create_dir_all(&path).map_err(Error::file("cannot create", &path))?;
        }
        let mut copy = Command::new("cp");
        copy.arg("-R").arg(self.0.join("etc")).arg(files);
        run(&mut copy)?;
        Ok(Machine { root: self.0.clone(), files: files.to_path_buf() })
    }
}

impl Machine {
    /// Where a file of /etc, /opt, /run or /tmp is for those outside.
    pub fn outside(&self, path: &str) -> PathBuf {
        self.files.join(path.trim_start_matches('/'))
    }

    /// A program of it, in the network of `namespace`; or in one without any device, which needs no root.
    pub fn exec(&self, namespace: Option<&Namespace>, program: &str) -> Command {
        let mut command = match namespace {
            Some(namespace) => {
                let mut command = namespace.exec(Path::new("unshare"));
                command.arg("--mount");
                command
            }
            None => {
                let mut command = Command::new("unshare");
                if !rustix::process::geteuid().is_root() {
                    command.args(["--user", "--map-root-user"]);
                }
                command.args(["--mount", "--net"]);
                command
            }
        };
        command.args(["--", "sh", "-c", ENTER, "sh"]).arg(&self.root).arg(&self.files).arg(program);
        command.env("PATH", path());
        command
    }
}

/// The root's places first, then those that `unshare`, `mount` and `chroot` are found in.
fn path() -> std::ffi::OsString {
    let mut path = std::ffi::OsString::from(PATH);
    if let Some(own) = std::env::var_os("PATH").filter(|own| !own.as_bytes().is_empty()) {
        path.push(":");
        path.push(own);
    }
    path
}
