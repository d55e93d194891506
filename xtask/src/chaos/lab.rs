//! Hosts as network namespaces: one with the gateway and its clients, and one at the end of each path.
//!
//! Each path is a veth pair of its own bandwidth (`tc tbf`). Its latency is the double's at its end, since few kernels of
//! build machines have netem: it delays answers, not handshakes. Nothing is connected to the machine's own network.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::fault::{Fault, TABLE};
use crate::Error;
use crate::demo::{ACCESS_KEY, REGION, SECRET_KEY};
use crate::paths::{PathName, PathSpec};
use crate::process::{self, Process};

/// The paths: their delay in milliseconds and their bandwidth, as `tc` writes it.
const PATHS: [(PathName, u64, &str); 3] =
    [(PathName::Dx, 10, "1gbit"), (PathName::Vpn, 40, "250mbit"), (PathName::Internet, 90, "100mbit")];
/// Of namespaces' names; the process's id follows, so that several run side by side.
const PREFIX: &str = "bgw";

/// The hosts, which are gone when it is dropped.
#[derive(Debug)]
pub struct Lab {
    gateway: Namespace,
    hosts: Vec<Host>,
    tls: PathBuf,
}

/// The end of a path.
#[derive(Debug)]
struct Host {
    // Before the namespace: it ends first.
    double: Option<Process>,
    namespace: Namespace,
    path: PathName,
    delay_ms: u64,
    address: String,
    program: PathBuf,
    dir: PathBuf,
    h2: bool,
}

/// A network namespace, deleted when dropped.
#[derive(Debug)]
struct Namespace(String);

impl Lab {
    /// Says what is missing where the machine cannot make one.
    pub fn check() -> Result<(), Error> {
        let stop = |why: String| Err(Error::Failed(format!("chaos needs hosts of its own: {why}")));
        if !rustix::process::geteuid().is_root() {
            return stop("network namespaces are made by root; run it as root".into());
        }
        let missing: Vec<&str> =
            ["ip", "tc", "nft"].into_iter().filter(|tool| process::on_path(tool).is_none()).collect();
        if !missing.is_empty() {
            let packages = "Debian's packages are iproute2 and nftables";
            return stop(format!("`{}` not found in PATH; {packages}", missing.join("`, `")));
        }
        Ok(())
    }

    /// Makes the hosts and starts a double in each; `h2`: whether they offer HTTP/2.
    pub fn build(dir: &Path, double: &Path, h2: bool) -> Result<Lab, Error> {
        sweep();
        let tls = dir.join("tls");
        let gateway = Namespace::add("gw")?;
        run(&mut gateway.ip(&["link", "set", "lo", "up"]))?;
        let mut lab = Lab { gateway, hosts: Vec::new(), tls };
        for (index, (path, delay_ms, bandwidth)) in PATHS.into_iter().enumerate() {
            let namespace = Namespace::add(path.as_str())?;
            link(&lab.gateway, &namespace, path.as_str(), index, bandwidth)?;
            nft(&namespace, TABLE)?;
            let mut host = Host {
                double: None,
                namespace,
                path,
                delay_ms,
                address: format!("{}:443", far(index)),
                program: double.to_path_buf(),
                dir: dir.to_path_buf(),
                h2,
            };
            host.serve()?;
            lab.hosts.push(host);
        }
        Ok(lab)
    }

    /// The paths, as the gateway is to know them.
    pub fn paths(&self) -> Vec<(PathName, String)> {
        self.hosts.iter().map(|host| (host.path, host.address.clone())).collect()
    }

    /// What the gateway verifies the doubles against.
    pub fn ca(&self) -> PathBuf {
        self.tls.join("ca.pem")
    }

    /// `program` in the gateway's host.
    pub fn at_gateway(&self, program: &Path) -> Command {
        self.gateway.exec(program)
    }

    /// Breaks a path.
    pub fn cut(&mut self, path: PathName, fault: Fault) -> Result<(), Error> {
        let Some(host) = self.host(path) else { return Ok(()) };
        match (fault, &host.double) {
            (Fault::Refuse, _) => host.double = None,
            (Fault::Unavailable, Some(double)) => double.signal(Signal::USR1),
            _ => nft(&host.namespace, fault.rules())?,
        }
        Ok(())
    }

    /// Mends what was done to a path.
    pub fn restore(&mut self, path: PathName, fault: Fault) -> Result<(), Error> {
        let Some(host) = self.host(path) else { return Ok(()) };
        match (fault, &host.double) {
            (Fault::Refuse, _) => host.serve()?,
            (Fault::Unavailable, Some(double)) => double.signal(Signal::USR2),
            _ => nft(&host.namespace, "flush chain ip chaos input\nflush chain ip chaos output\n")?,
        }
        Ok(())
    }

    /// The IP packets that arrived at the end of a path.
    pub fn arrived(&mut self, path: PathName) -> Result<u64, Error> {
        let Some(host) = self.host(path) else { return Ok(0) };
        let nft = Path::new("nft");
        let text = run(host.namespace.exec(nft).args(["list", "counter", "ip", "chaos", "arrived"]))?;
        let mut words = text.split_whitespace();
        let count = words.find(|word| *word == "packets").and_then(|_| words.next()?.parse().ok());
        count.ok_or_else(|| Error::Failed(format!("no count of packets in what nft says: {text}")))
    }

    /// Fails if a double has ended by itself.
    pub fn check_doubles(&mut self) -> Result<(), Error> {
        self.hosts.iter_mut().filter_map(|host| host.double.as_mut()).try_for_each(|double| Ok(double.check()?))
    }

    fn host(&mut self, path: PathName) -> Option<&mut Host> {
        self.hosts.iter_mut().find(|host| host.path == path)
    }
}

impl Host {
    fn serve(&mut self) -> Result<(), Error> {
        let mut command = self.namespace.exec(&self.program);
        command.args(["serve", "--listen", &self.address, "--region", REGION, "--path-name", self.path.as_str()]);
        command.args([
            "--delay-ms",
            &self.delay_ms.to_string(),
            "--access-key",
            ACCESS_KEY,
            "--secret-key",
            SECRET_KEY,
        ]);
        command.arg("--tls-dir").arg(self.dir.join("tls"));
        if !self.h2 {
            command.arg("--no-h2");
        }
        let log = self.dir.join(format!("double-{}.log", self.path));
        self.double = Some(Process::start_and_wait("bedrock-double", command, &log, Duration::from_secs(10))?.0);
        Ok(())
    }
}

impl Namespace {
    fn add(role: &str) -> Result<Namespace, Error> {
        let name = format!("{PREFIX}{}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        Ok(Namespace(name))
    }

    /// `ip` on what is in it.
    fn ip(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["-n", &self.0]).args(arguments);
        command
    }

    /// A program in it. `ip` execs it: the process is the program's own.
    fn exec(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.0]));
    }
}

/// Joins two hosts by a cable; at the gateway its end has the path's name.
fn link(gateway: &Namespace, end: &Namespace, name: &str, index: usize, bandwidth: &str) -> Result<(), Error> {
    run(&mut gateway.ip(&["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &end.0]))?;
    for (namespace, device, address) in [(gateway, name, near(index)), (end, "eth0", far(index))] {
        run(&mut namespace.ip(&["address", "add", &format!("{address}/30"), "dev", device]))?;
        run(&mut namespace.ip(&["link", "set", device, "up"]))?;
        let mut shape = Command::new("tc");
        shape.args(["-n", &namespace.0, "qdisc", "add", "dev", device, "root", "tbf", "rate", bandwidth]);
        // A burst of some milliseconds at full speed, and a queue such as a router's.
        run(shape.args(["burst", "1mb", "latency", "50ms"]))?;
    }
    Ok(())
}

fn near(index: usize) -> String {
    format!("10.213.{index}.1")
}

fn far(index: usize) -> String {
    format!("10.213.{index}.2")
}

fn nft(namespace: &Namespace, rules: &str) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Failed(format!("nft in {}: {error}", namespace.0));
    let mut command = namespace.exec(Path::new("nft"));
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

/// Runs a command that is over at once; its stdout.
fn run(command: &mut Command) -> Result<String, Error> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let failed = |why: &str| Error::Failed(format!("`{}` failed: {}", words.join(" "), why.trim()));
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Deletes namespaces of runs that were killed.
fn sweep() {
    let names = run(Command::new("ip").args(["netns", "list"])).unwrap_or_default();
    for name in names.lines().filter_map(|line| line.split(' ').next()) {
        if maker(name).is_some_and(|pid| is_gone(Path::new(&format!("/proc/{pid}")))) {
            drop(Namespace(name.to_owned()));
        }
    }
}

/// Whether a process has ended. One that nobody has waited for yet is still listed, but has no program.
fn is_gone(process: &Path) -> bool {
    process.join("exe").read_link().is_err()
}

/// The process that made a namespace, by its name.
fn maker(name: &str) -> Option<u32> {
    let (pid, role) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let known = role == "gw" || PathName::ALL.iter().any(|path| path.as_str() == role);
    pid.parse().ok().filter(|_| known)
}

/// `--path` of `up` for a path.
pub fn path_argument(path: PathName, address: &str) -> Result<String, Error> {
    let argument = format!("{path}={address}");
    // Parsed here, so that a mistake is this command's and not its child's.
    argument.parse::<PathSpec>()?;
    Ok(argument)
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
        assert_eq!(maker("bgw17-internet"), Some(17));
        for foreign in ["bgw-gw", "bgw17", "bgw17-other", "docker17-gw", "17-gw"] {
            assert_eq!(maker(foreign), None, "{foreign}");
        }
    }
}
