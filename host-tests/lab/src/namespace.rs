//! Network namespaces, the cables between them, and the rules in them. Needs `ip` and `tc`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use bedrock_gateway::paths::PathName;
use bedrock_gateway::process::on_path;

use crate::{Error, tools};

/// Prefix of namespace names. The process id follows, so that several runs do not collide.
const PREFIX: &str = "bgw";

/// A network namespace, deleted when dropped.
#[derive(Debug)]
pub struct Namespace(String);

/// Roles; the names of paths are roles too.
const ROLES: [&str; 7] = ["gw", "clients", "vpc", "vpn", "net", "aws", "bedrock"];

/// Fails if this machine cannot make namespaces for `command`; the error says what is missing.
pub fn check(command: &str) -> Result<(), Error> {
    let stop = |why: String| Err(Error::Failed(format!("{command} needs network namespaces: {why}")));
    if !rustix::process::geteuid().is_root() {
        return stop("run it as root".into());
    }
    let missing: Vec<&str> = ["ip", "tc"].into_iter().filter(|tool| on_path(tool).is_none()).collect();
    if !missing.is_empty() {
        return stop(format!("`{}` not found in PATH; Debian's package is iproute2", missing.join("`, `")));
    }
    if on_path("nft").is_none() {
        tools::required(tools::DEBIAN)?;
    }
    Ok(())
}

impl Namespace {
    /// Makes one. Its role is one of [`ROLES`] or a path's name, with a digit where there is more than one.
    pub fn add(role: &str) -> Result<Namespace, Error> {
        let name = format!("{PREFIX}{}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        Ok(Namespace(name))
    }

    /// The file that a thread enters it by.
    pub fn file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    /// Sets up its loopback device.
    pub fn loopback(&self) -> Result<(), Error> {
        run(&mut self.ip(&["link", "set", "lo", "up"])).map(drop)
    }

    /// Sets up a device, an address or a route in it.
    pub fn set(&self, arguments: &[&str]) -> Result<(), Error> {
        run(&mut self.ip(arguments)).map(drop)
    }

    /// Enables forwarding.
    pub fn forwards(&self) -> Result<(), Error> {
        let mut command = self.exec(Path::new("sh"));
        // Replies may take another route than requests.
        let text =
            "echo 1 >/proc/sys/net/ipv4/ip_forward\nfor f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done";
        run(command.args(["-c", text])).map(drop)
    }

    /// `ip` on what is in it.
    fn ip(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["-n", &self.0]).args(arguments);
        command
    }

    /// A program in it. `ip` execs it: the process is the program's own.
    pub fn exec(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        command
    }

    /// Joins it to `end` by the cable `index`; here its end has that name, and there it is `eth0`.
    pub fn link(&self, end: &Namespace, name: &str, index: usize, bandwidth: &str) -> Result<(), Error> {
        join([(self, name, &format!("{}/30", near(index))), (end, "eth0", &format!("{}/30", far(index)))])?;
        for (namespace, device) in [(self, name), (end, "eth0")] {
            let mut shape = Command::new("tc");
            shape.args(["-n", &namespace.0, "qdisc", "add", "dev", device, "root", "tbf", "rate", bandwidth]);
            // A burst of some milliseconds at full speed, and a queue such as a router's.
            run(shape.args(["burst", "1mb", "latency", "50ms"]))?;
        }
        Ok(())
    }

    /// `nft` in it: the machine's, else Debian's from the tools.
    fn nft(&self) -> Result<Command, Error> {
        if on_path("nft").is_some() {
            return Ok(self.exec(Path::new("nft")));
        }
        let mut command = self.exec(Path::new("chroot"));
        command.arg(tools::required(tools::DEBIAN)?).arg("/usr/sbin/nft");
        Ok(command)
    }

    /// Applies nft rules.
    pub fn rules(&self, rules: &str) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::Failed(format!("nft in {}: {error}", self.0));
        let mut command = self.nft()?;
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(rules.as_bytes()).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            Ok(())
        } else {
            Err(Error::Failed(format!("nft refuses these rules:\n{rules}{said}")))
        }
    }

    /// What nft lists, as JSON with numbers for names.
    pub fn list(&self, what: &[&str]) -> Result<Value, Error> {
        let text = run(self.nft()?.args(["-n", "-j", "list"]).args(what))?;
        serde_json::from_str(&text).map_err(|error| Error::Failed(format!("nft listed invalid JSON: {error}")))
    }
}

/// Joins two by a cable, each end with its device's name and its address.
pub fn join(ends: [(&Namespace, &str, &str); 2]) -> Result<(), Error> {
    let [(one, device, _), (other, far, _)] = ends;
    run(&mut one.ip(&["link", "add", device, "type", "veth", "peer", "name", far, "netns", &other.0]))?;
    for (namespace, device, address) in ends {
        run(&mut namespace.ip(&["address", "add", address, "dev", device]))?;
        run(&mut namespace.ip(&["link", "set", device, "up"]))?;
    }
    Ok(())
}

/// The address of the near end of the cable `index`.
pub fn near(index: usize) -> String {
    format!("10.213.{index}.1")
}

/// The address of the far end of the cable `index`.
pub fn far(index: usize) -> String {
    format!("10.213.{index}.2")
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.0]));
    }
}

/// Runs a command that is over at once; its stdout.
pub(crate) fn run(command: &mut Command) -> Result<String, Error> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        // Leaves out scripts.
        .filter(|word| !word.contains('\n'))
        .collect();
    let failed = |why: &str| Error::Failed(format!("`{}` failed: {}", words.join(" "), why.trim()));
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Deletes namespaces of runs that were killed.
pub fn sweep() {
    let names = run(Command::new("ip").args(["netns", "list"])).unwrap_or_default();
    for name in names.lines().filter_map(|line| line.split(' ').next()) {
        if maker(name).is_some_and(|pid| is_gone(Path::new(&format!("/proc/{pid}")))) {
            drop(Namespace(name.to_owned()));
        }
    }
}

/// Whether a process has ended. A zombie is still listed, but has no `exe`.
fn is_gone(process: &Path) -> bool {
    process.join("exe").read_link().is_err()
}

/// The process that made a namespace, by its name.
fn maker(name: &str) -> Option<u32> {
    let (pid, role) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let role = role.trim_end_matches(|last: char| last.is_ascii_digit());
    let known = ROLES.contains(&role) || PathName::ALL.iter().any(|path| path.as_str() == role);
    pid.parse().ok().filter(|_| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_is_not_gone() {
        assert!(!is_gone(Path::new("/proc/self")));
        assert!(is_gone(Path::new("/proc/0")));
    }

    #[test]
    fn knows_its_own_namespaces_only() {
        assert_eq!(maker("bgw17-gw"), Some(17));
        assert_eq!(maker("bgw17-clients"), Some(17));
        assert_eq!(maker("bgw17-aws2"), Some(17));
        assert_eq!(maker("bgw17-internet2"), Some(17));
        for foreign in ["bgw-gw", "bgw17", "bgw17-other", "docker17-gw", "17-gw"] {
            assert_eq!(maker(foreign), None, "{foreign}");
        }
    }
}
