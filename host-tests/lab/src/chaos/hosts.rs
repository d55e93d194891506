//! The hosts of a run: one with the gateway, one with its clients, and one at the end of each path to each region.
//!
//! Each is a network namespace behind a veth pair with a bandwidth limit (`tc tbf`). The double at its end adds the path's
//! latency to answers, not to handshakes: few kernels of build machines have netem. Nothing is connected to the machine's
//! network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::fault::{Fault, TABLE};
use crate::Error;
use crate::keys::{ACCESS_KEY, SECRET_KEY};
use crate::namespace::{Namespace, far, near, sweep};
use crate::record::{Request, requests};
use bedrock_gateway::paths::{PathName, PathSpec};
use bedrock_gateway::process::Process;

/// The paths: their delay in milliseconds and their bandwidth, as `tc` writes it.
const PATHS: [(PathName, u64, &str); 3] =
    [(PathName::Dx, 10, "1gbit"), (PathName::Vpn, 40, "250mbit"), (PathName::Internet, 90, "100mbit")];

/// The link between clients and gateway: its number, after those of paths, and its bandwidth. Without a limit, clients would
/// send as fast as memory is copied.
const CLIENTS: (usize, &str) = (200, "1gbit");

/// The hosts; dropping it deletes them.
#[derive(Debug)]
pub struct Hosts {
    gateway: Namespace,
    clients: Namespace,
    path_hosts: Vec<Host>,
    tls: PathBuf,
}

/// The end of a path.
#[derive(Debug)]
struct Host {
    // Before the namespace: it ends first.
    double: Option<Process>,
    namespace: Namespace,
    path: PathName,
    region: &'static str,
    delay_ms: u64,
    address: String,
    program: PathBuf,
    /// Its files, but for their extension.
    files: PathBuf,
    tls: PathBuf,
    h2: bool,
}

/// The packets that arrived with a DSCP value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marked {
    /// IP packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Hosts {
    /// Makes the hosts and starts a double in each, which serves its region only; `h2`: whether they offer HTTP/2.
    pub fn build(dir: &Path, double: &Path, h2: bool, regions: &[&'static str]) -> Result<Hosts, Error> {
        sweep();
        let tls = dir.join("tls");
        let gateway = Namespace::add("gw")?;
        gateway.loopback()?;
        let clients = Namespace::add("clients")?;
        let (index, bandwidth) = CLIENTS;
        gateway.link(&clients, "clients", index, bandwidth)?;
        let mut hosts = Hosts { gateway, clients, path_hosts: Vec::new(), tls };
        for (nth, region) in regions.iter().enumerate() {
            for (path, delay_ms, bandwidth) in PATHS {
                let name = if nth == 0 { path.to_string() } else { format!("{path}{}", nth + 1) };
                let namespace = Namespace::add(&name)?;
                let index = hosts.path_hosts.len();
                hosts.gateway.link(&namespace, &name, index, bandwidth)?;
                namespace.rules(TABLE)?;
                let mut host = Host {
                    double: None,
                    namespace,
                    path,
                    region,
                    delay_ms,
                    address: format!("{}:443", far(index)),
                    program: double.to_path_buf(),
                    files: dir.join(name),
                    tls: hosts.tls.clone(),
                    h2,
                };
                host.serve()?;
                hosts.path_hosts.push(host);
            }
        }
        Ok(hosts)
    }

    /// The `--listen` and `--path` arguments of `up`.
    pub fn arguments(&self) -> Result<Vec<String>, Error> {
        let lone =
            self.path_hosts.iter().all(|host| self.path_hosts.first().is_some_and(|first| first.region == host.region));
        let mut arguments = vec!["--listen".to_owned(), format!("{}:0", near(CLIENTS.0))];
        for host in &self.path_hosts {
            let region = if lone { String::new() } else { format!("@{}", host.region) };
            let argument = format!("{}{region}={}", host.path, host.address);
            // Parsed here, so that this command reports a mistake.
            argument.parse::<PathSpec>()?;
            arguments.extend(["--path".to_owned(), argument]);
        }
        Ok(arguments)
    }

    /// The certificate authority of the doubles.
    pub fn ca(&self) -> PathBuf {
        self.tls.join("ca.pem")
    }

    /// `program` in the gateway's host.
    pub fn at_gateway(&self, program: &Path) -> Command {
        self.gateway.exec(program)
    }

    /// `program` in the clients' host.
    pub fn at_clients(&self, program: &Path) -> Command {
        self.clients.exec(program)
    }

    /// Breaks a path.
    pub fn cut(&mut self, path: PathName, fault: Fault) -> Result<(), Error> {
        self.path_hosts.iter_mut().filter(|host| host.path == path).try_for_each(|host| host.cut(fault))
    }

    /// Ends the fault of a path.
    pub fn restore(&mut self, path: PathName, fault: Fault) -> Result<(), Error> {
        self.path_hosts.iter_mut().filter(|host| host.path == path).try_for_each(|host| host.restore(fault))
    }

    /// Makes a region answer calls to a model with this status, over every path.
    pub fn throttle(&self, region: &str, status: u16, model: &str) -> Result<(), Error> {
        self.say(region, &format!("throttle-{status}-{model}"))
    }

    /// Ends a region's throttling.
    pub fn relent(&self, region: &str) -> Result<(), Error> {
        self.say(region, "")
    }

    fn say(&self, region: &str, fault: &str) -> Result<(), Error> {
        self.path_hosts.iter().filter(|host| host.region == region).try_for_each(|host| host.say(fault))
    }

    /// The IP packets that arrived at the end of a path.
    pub fn arrived(&self, path: PathName) -> Result<u64, Error> {
        Ok(self.marks(path)?.values().map(|marked| marked.packets).sum())
    }

    /// The packets that arrived at the end of a path, by DSCP value.
    pub fn marks(&self, path: PathName) -> Result<BTreeMap<u64, Marked>, Error> {
        let mut all: BTreeMap<u64, Marked> = BTreeMap::new();
        for host in self.path_hosts.iter().filter(|host| host.path == path) {
            for (dscp, marked) in marks(&host.namespace.list(&["set", "ip", "chaos", "arrived"])?) {
                let sum = all.entry(dscp).or_default();
                (sum.packets, sum.bytes) = (sum.packets + marked.packets, sum.bytes + marked.bytes);
            }
        }
        Ok(all)
    }

    /// The requests that the doubles got, with their verdicts.
    pub fn requests(&self) -> Result<Vec<Request>, Error> {
        let mut all = Vec::new();
        for host in &self.path_hosts {
            let file = host.requests_file();
            let text = std::fs::read_to_string(&file).map_err(Error::file("cannot read", &file))?;
            all.extend(requests(&text, host.region));
        }
        Ok(all)
    }

    /// Fails if a double has ended by itself.
    pub fn check_doubles(&mut self) -> Result<(), Error> {
        self.path_hosts.iter_mut().filter_map(|host| host.double.as_mut()).try_for_each(|double| Ok(double.check()?))
    }
}

impl Host {
    fn serve(&mut self) -> Result<(), Error> {
        let mut command = self.namespace.exec(&self.program);
        command.args(["serve", "--listen", &self.address, "--region", self.region, "--path-name", self.path.as_str()]);
        command.args(["--delay-ms", &self.delay_ms.to_string()]);
        command.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]);
        command.arg("--tls-dir").arg(&self.tls).arg("--record").arg(self.requests_file());
        command.arg("--fault-file").arg(self.fault_file());
        if !self.h2 {
            command.arg("--no-h2");
        }
        let log = self.files.with_extension("log");
        self.double = Some(Process::start_and_wait("bedrock-double", command, &log, Duration::from_secs(10))?.0);
        Ok(())
    }

    fn cut(&mut self, fault: Fault) -> Result<(), Error> {
        match fault {
            Fault::Refuse => self.double = None,
            Fault::Unavailable => self.say("status-503")?,
            Fault::Slow => self.say("slow-2s")?,
            Fault::Reset | Fault::Silent | Fault::Loss => self.namespace.rules(fault.rules())?,
        }
        Ok(())
    }

    fn restore(&mut self, fault: Fault) -> Result<(), Error> {
        match fault {
            Fault::Refuse => self.serve(),
            Fault::Unavailable | Fault::Slow => self.say(""),
            Fault::Reset | Fault::Silent | Fault::Loss => {
                self.namespace.rules("flush chain ip chaos input\nflush chain ip chaos output\n")
            }
        }
    }

    /// Sets the double's fault. A rename, so that the double never reads half a word.
    fn say(&self, fault: &str) -> Result<(), Error> {
        let (file, new) = (self.fault_file(), self.files.with_extension("fault.new"));
        std::fs::write(&new, fault).map_err(Error::file("cannot write", &new))?;
        std::fs::rename(&new, &file).map_err(Error::file("cannot write", &file))
    }

    fn fault_file(&self) -> PathBuf {
        self.files.with_extension("fault")
    }

    fn requests_file(&self) -> PathBuf {
        self.files.with_extension("requests.jsonl")
    }
}

/// The elements of nft's set of DSCP values, with their counters.
fn marks(listed: &Value) -> Vec<(u64, Marked)> {
    let parts = listed.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let elements = parts.filter_map(|part| part.pointer("/set/elem")?.as_array()).flatten();
    let of = |element: &Value| {
        let number = |key: &str| element.pointer(key)?.as_u64();
        let marked = Marked { packets: number("/elem/counter/packets")?, bytes: number("/elem/counter/bytes")? };
        Some((number("/elem/val")?, marked))
    };
    elements.filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_nft_counts() {
        let listed = json!({ "nftables": [
            { "metainfo": { "version": "1.0.6" } },
            { "set": { "name": "arrived", "elem": [
                { "elem": { "val": 10, "counter": { "packets": 3, "bytes": 120 } } },
                { "elem": { "val": 0, "counter": { "packets": 1, "bytes": 40 } } },
            ] } },
        ] });
        let (bulk, rest) = (Marked { packets: 3, bytes: 120 }, Marked { packets: 1, bytes: 40 });
        assert_eq!(marks(&listed), [(10, bulk), (0, rest)]);
        assert_eq!(marks(&json!({ "nftables": [{ "set": { "name": "arrived" } }] })), []);
    }
}
