//! The hosts of the run: AWS's ends, the software gateways, Bedrock's doubles and the gateway's Envoy, in the namespaces of
//! [`Network`].

//!
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::cloud::Cloud;
use super::daemons::{DAEMON_START, IMDS, charon, far_end, frr, router, strongswan, swanctl, write};
use super::network::{BEDROCK, IMDS_ADDRESS, LOCAL, Network, PAIRS, Pair, REMOTE};
use crate::keys::{ACCESS_KEY, REGION, SECRET_KEY};
use crate::machine::{Machine, Root};
use crate::namespace::{far, run, sweep};
use crate::programs::{Programs, listener};
use crate::record::{Request, read, requests};
use crate::{Error, tools};
use bedrock_gateway::process::Process;

const LOCAL_ASN: u32 = 65010;
const REMOTE_ASN: u32 = 64512;
const TABLE: &str = "rtb-0123456789abcdef0";
/// Seconds of health after which the route's holder changes back: short, to keep the run short; 60 on a machine.
const RETURN_ROUNDS: &str = "5";
/// Delays of the paths in milliseconds.
const DELAYS: [(&str, u64); 2] = [("vpn", 40), ("internet", 90)];

/// The hosts; dropping it deletes them.
#[derive(Debug)]
pub(super) struct Hosts {
    // Declared before the namespaces, so that they end first.
    processes: Vec<Process>,
    gateway: Option<std::net::SocketAddr>,
    cloud: Cloud,
    gateways: Vec<Machine>,
    network: Network,
    dir: PathBuf,
}

impl Hosts {
    /// Makes the hosts and starts all but the gateway's Envoy. `timers`: keepalive and hold of BGP at AWS's ends, in seconds.
    pub(super) fn build(dir: &Path, root: &Root, programs: &Programs, timers: (u32, u32)) -> Result<Hosts, Error> {
        sweep();
        let network = Network::build()?;
        let vpc = std::sync::Arc::clone(&network.vpc);
        let on_route = move |_: &str, interface: &str| {
            let pair =
                PAIRS.iter().find(|pair| pair.interface == interface).ok_or("InvalidNetworkInterfaceID.NotFound")?;
            vpc.set(&["route", "replace", REMOTE, "via", pair.lan]).map_err(|error| error.to_string())
        };
        let cloud = Cloud::new(REMOTE, &[TABLE], Box::new(on_route));
        let mut hosts = Hosts {
            processes: Vec::new(),
            gateway: None,
            cloud,
            gateways: Vec::new(),
            network,
            dir: dir.to_path_buf(),
        };
        for (nth, pair) in PAIRS.iter().enumerate() {
            hosts.far_end(nth, pair, root, timers)?;
        }
        hosts.bedrock(root)?;
        for (nth, pair) in PAIRS.iter().enumerate() {
            hosts.gateway_machine(nth, pair, root)?;
        }
        hosts.doubles(programs)?;
        Ok(hosts)
    }

    /// One of AWS's ends: it waits for the other side, with the given key and parameters.
    fn far_end(&mut self, nth: usize, pair: &Pair, root: &Root, timers: (u32, u32)) -> Result<(), Error> {
        let machine = root.machine(&self.dir.join(format!("aws{}", nth + 1)))?;
        let space = self.network.aws.get(nth).ok_or_else(missing)?;
        strongswan(&machine, "  install_routes = no\n")?;
        write(&machine.outside("/etc/swanctl/swanctl.conf"), &swanctl(pair.far, pair.outside, pair.psk))?;
        let [router, _] = pair.within;
        write(&machine.outside("/etc/frr/frr.conf"), &far_end([pair.inside_far, pair.inside_near, router], timers))?;
        let name = format!("aws{}", nth + 1);
        let mut started = vec![charon(&name, &machine, space, &self.dir)?];
        space.set(&["address", "add", &format!("{}/30", pair.inside_far), "dev", "ipsec0"])?;
        space.set(&["link", "set", "ipsec0", "up"])?;
        started.extend(frr(&name, &machine, space, &self.dir)?);
        self.processes.extend(started);
        Ok(())
    }

    /// Commercial's router, which chooses by AS paths, and Bedrock behind it.
    fn bedrock(&mut self, root: &Root) -> Result<(), Error> {
        let machine = root.machine(&self.dir.join("bedrock"))?;
        write(&machine.outside("/etc/frr/frr.conf"), &router(PAIRS.map(|pair| pair.within[1])))?;
        let started = frr("bedrock", &machine, &self.network.bedrock, &self.dir)?;
        self.processes.extend(started);
        Ok(())
    }

    /// A software gateway: what `render` writes, in the places that `apply` puts it, and `watch`.
    fn gateway_machine(&mut self, nth: usize, pair: &Pair, root: &Root) -> Result<(), Error> {
        let name = format!("vpn{}", nth + 1);
        let machine = root.machine(&self.dir.join(&name))?;
        let space = self.network.vpn.get(nth).ok_or_else(missing)?;
        let source = tools::root().join("infra/vpn");
        let vpn = machine.outside("/opt/bedrock-gateway/vpn");
        std::fs::create_dir_all(&vpn).map_err(Error::file("cannot create", &vpn))?;
        for script in ["render.py", "watch.py"] {
            let from = source.join(script);
            std::fs::copy(&from, vpn.join(script)).map_err(Error::file("cannot copy", &from))?;
        }
        let etc = machine.outside("/etc/bedrock-gateway");
        std::fs::create_dir_all(&etc).map_err(Error::file("cannot create", &etc))?;
        write(&etc.join("settings.json"), &settings(pair).to_string())?;
        write(&etc.join("secret.json"), &secret().to_string())?;
        let mut render = machine.exec(Some(space), "/opt/bedrock-gateway/vpn/render.py");
        render.args([
            "--secret",
            "/etc/bedrock-gateway/secret.json",
            "--settings",
            "/etc/bedrock-gateway/settings.json",
        ]);
        render.args(["--out", "/etc/bedrock-gateway/vpn", "--libipsec", "1"]);
        run(&mut render)?;

        let rendered = etc.join("vpn");
        strongswan(&machine, &read(&source.join("strongswan.conf"))?)?;
        for (name, place) in [("swanctl.conf", "/etc/swanctl/swanctl.conf"), ("frr.conf", "/etc/frr/frr.conf")] {
            std::fs::copy(rendered.join(name), machine.outside(place))
                .map_err(Error::file("cannot copy", &rendered))?;
        }
        space.rules(&read(&rendered.join("firewall.nft"))?)?;
        let mut started = vec![charon(&name, &machine, space, &self.dir)?];
        space.set(&["-batch", &rendered.join("interfaces").display().to_string()])?;
        started.extend(frr(&name, &machine, space, &self.dir)?);

        let imds = machine.outside("/opt/imds.py");
        write(&imds, IMDS)?;
        let mac = "02:00:00:00:00:01";
        let mut command = machine.exec(Some(space), "python3");
        command.args(["/opt/imds.py", IMDS_ADDRESS, "80", &format!("mac={mac}")]);
        command.arg(format!("network/interfaces/macs/{mac}/interface-id={}", pair.interface));
        let log = self.dir.join(format!("{name}.imds.log"));
        started.push(Process::start_and_wait("the metadata service", command, &log, DAEMON_START)?.0);

        self.cloud.serve(&pair.name.to_string(), &machine.outside("/opt/bin"), &machine.outside("/opt/cloud"))?;
        let mut command = machine.exec(Some(space), "/opt/bedrock-gateway/vpn/watch.py");
        command.env("BEDROCK_GATEWAY_RETURN_ROUNDS", RETURN_ROUNDS);
        started.push(Process::start("watch", command, &self.dir.join(format!("{name}.watch.log")))?);
        self.processes.extend(started);
        self.gateways.push(machine);
        Ok(())
    }

    /// Bedrock at the end of each path.
    fn doubles(&mut self, programs: &Programs) -> Result<(), Error> {
        let internet = far(0);
        for ((path, delay), (space, address)) in
            DELAYS.iter().zip([(&self.network.bedrock, BEDROCK), (&self.network.internet, internet.as_str())])
        {
            let mut command = space.exec(&programs.double);
            command.args(["serve", "--listen", &format!("{address}:443"), "--region", REGION, "--path-name", path]);
            command.args(["--delay-ms", &delay.to_string(), "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]);
            command.arg("--tls-dir").arg(self.dir.join("tls"));
            command.arg("--record").arg(self.dir.join(format!("{path}.requests.jsonl")));
            let log = self.dir.join(format!("{path}.double.log"));
            self.processes.push(Process::start_and_wait("bedrock-double", command, &log, DAEMON_START)?.0);
        }
        Ok(())
    }

    /// Starts the gateway's Envoy, with the paths vpn and internet.
    pub(super) fn start_gateway(&mut self, programs: &Programs) -> Result<(), Error> {
        let mut command = self.network.gw.exec(&programs.gateway);
        command.args(["up", "--listen", "127.0.0.1:0", "--upstream-ca"]).arg(self.dir.join("tls/ca.pem"));
        command.arg("--access-log").arg(self.dir.join("access.jsonl"));
        command.args(["--path", &format!("vpn={BEDROCK}:443"), "--path", &format!("internet={}:443", far(0))]);
        command
            .env("BEDROCK_GATEWAY_STATE", self.dir.join("state"))
            .env(tools::MODULE, &programs.module)
            .env(tools::ENVOY, &programs.envoy);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env_remove("AWS_SESSION_TOKEN").env_remove("AWS_BEARER_TOKEN_BEDROCK").env_remove("BEDROCK_PATHS");
        let log = self.dir.join("gateway.log");
        let (process, ready) = Process::start_and_wait("the gateway", command, &log, Duration::from_secs(90))?;
        self.processes.push(process);
        self.gateway = listener(&ready);
        Ok(())
    }

    /// Starts a load at this rate per second.
    pub(super) fn load(&self, programs: &Programs, rate: u32, seconds: u64) -> Result<Process, Error> {
        let gateway = self.gateway.ok_or_else(|| Error::Failed("the gateway does not say where it listens".into()))?;
        let mut command = self.network.gw.exec(&programs.load);
        command.args(["--gateway", &gateway.to_string(), "--record"]).arg(self.dir.join("calls.jsonl"));
        command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
        Ok(Process::start("bedrock-load", command, &self.dir.join("load.log"))?)
    }

    /// Whether BGP is up, and has a route, at each gateway.
    pub(super) fn bgp_up(&self) -> Result<Vec<bool>, Error> {
        let mut up = Vec::new();
        for ((machine, space), pair) in self.gateways.iter().zip(&self.network.vpn).zip(PAIRS) {
            let mut command = machine.exec(Some(space), "vtysh");
            // FRR may not listen yet.
            let text = run(command.args(["-c", "show bgp neighbors json"])).unwrap_or_default();
            let neighbour = serde_json::from_str::<Value>(&text).unwrap_or_default();
            let of = |key: &str| neighbour.pointer(&format!("/{}{key}", pair.inside_far));
            let accepted = of("/addressFamilyInfo/ipv4Unicast/acceptedPrefixCounter").and_then(Value::as_u64);
            let established = of("/bgpState").and_then(Value::as_str) == Some("Established");
            up.push(established && accepted.unwrap_or(0) > 0);
        }
        Ok(up)
    }

    /// The gateway that the VPC's routes name.
    pub(super) fn holder(&self) -> Option<char> {
        let routes = self.cloud.routes();
        let named = routes.first()?.as_deref()?;
        PAIRS.iter().find(|pair| pair.interface == named).map(|pair| pair.name)
    }

    /// The namespaces, and the links between them.
    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// The requests that the doubles of Bedrock got.
    pub(super) fn requests(&self) -> Result<Vec<Request>, Error> {
        let mut all = Vec::new();
        for (path, _) in DELAYS {
            all.extend(requests(&read(&self.dir.join(format!("{path}.requests.jsonl")))?, REGION));
        }
        Ok(all)
    }

    /// Calls to AWS that the machines must not make.
    pub(super) fn refused(&self) -> Vec<String> {
        self.cloud.refused()
    }

    /// The directory of its files.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Fails if a process has ended.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        self.processes.iter_mut().try_for_each(|process| Ok(process.check()?))
    }
}

/// A machine's settings, as its template writes them.
fn settings(pair: &Pair) -> Value {
    let other = PAIRS.iter().find(|other| other.name != pair.name).map(|other| other.lan);
    json!({
        "stack": "bedrock-gateway-lab-vpn", "resource": format!("Gateway{}", pair.name.to_ascii_uppercase()),
        "environment": "lab", "name": pair.name.to_string(), "other": other, "bucket": "bedrock-gateway-lab",
        "release": { "key": "release.tar.gz", "sha256": "0".repeat(64) },
        "secret": "arn:aws-us-gov:secretsmanager:us-gov-west-1:111122223333:secret:bedrock-gateway-lab-tunnels",
        "local_cidr": LOCAL, "remote_cidr": REMOTE, "route_tables": [TABLE], "log_group": "/bedrock-gateway/lab/vpn",
    })
}

/// The tunnels' secret. It has second tunnels, as always; they are not used.
fn secret() -> Value {
    let gateway = |pair: &Pair, nth: usize| {
        json!({ "outside": pair.outside, "tunnels": [
            { "outside": pair.far, "inside": pair.inside, "psk": pair.psk },
            { "outside": format!("203.0.113.{}", 10 + nth), "inside": format!("169.254.{}.4/30", 101 + nth),
              "psk": "example.key.that.is.not.used" },
        ] })
    };
    let [a, b] = PAIRS;
    json!({ "local_asn": LOCAL_ASN, "remote_asn": REMOTE_ASN, "gateways": { "a": gateway(&a, 0), "b": gateway(&b, 1) } })
}

fn missing() -> Error {
    Error::Failed("a host is missing".into())
}
