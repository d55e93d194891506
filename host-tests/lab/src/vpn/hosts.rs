//! The hosts of the run.
//!
//! ```text
//!  gw ── vpc ──┬── vpn1 (gateway a) ══╗        ╔══ aws1 ──┐
//!  Envoy       └── vpn2 (gateway b) ══╬══ net ═╬══ aws2 ──┴── bedrock
//!   └── internet                      ╝        ╚
//! ```
//! `vpc` is the VPC's routers: its route to Commercial is the one that gateways claim. `net` is the network between
//! the outside addresses; it counts packets and can drop them. With ESP in charon, all tunnels of one charon share a
//! device, so each gateway has one tunnel here, and each of AWS's two ends is a separate host, as it is at AWS.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cloud::Cloud;
use crate::keys::{ACCESS_KEY, REGION, SECRET_KEY};
use crate::machine::{Machine, Root};
use crate::namespace::{Namespace, far, join, run, sweep};
use crate::programs::{Programs, listener};
use crate::record::{Request, read, requests};
use crate::{Error, tools};
use bedrock_gateway::process::Process;

/// A metadata service, in Python.
pub const IMDS: &str = include_str!("imds.py");
/// The configuration of AWS's ends and Commercial's router; names in `@` are replaced.
const FAR_SWANCTL: &str = include_str!("far/swanctl.conf");
const FAR_FRR: &str = include_str!("far/frr.conf");
const ROUTER_FRR: &str = include_str!("far/router.conf");
const IMDS_ADDRESS: &str = "169.254.169.254";
/// The two sides.
const LOCAL: &str = "10.20.0.0/16";
const REMOTE: &str = "10.100.0.0/16";
const LOCAL_ASN: u32 = 65010;
const REMOTE_ASN: u32 = 64512;
/// Bedrock's address in Commercial.
const BEDROCK: &str = "10.100.9.9";
const TABLE: &str = "rtb-0123456789abcdef0";
/// Seconds of health after which the route's holder changes back: short, to keep the run short; 60 on a machine.
const RETURN_ROUNDS: &str = "5";
/// The device's number, major 10 and minor 200.
const TUN: u64 = 10 << 8 | 200;
/// Time for a daemon to listen.
const DAEMON_START: Duration = Duration::from_secs(20);
/// Delays of the paths in milliseconds.
const DELAYS: [(&str, u64); 2] = [("vpn", 40), ("internet", 90)];

/// A gateway's addresses and those of AWS's end of its tunnel.
#[derive(Debug, Clone, Copy)]
struct Pair {
    name: char,
    interface: &'static str,
    lan: &'static str,
    lan_router: &'static str,
    outside: &'static str,
    outside_router: &'static str,
    far: &'static str,
    far_router: &'static str,
    inside: &'static str,
    inside_near: &'static str,
    inside_far: &'static str,
    /// Between AWS's end and Bedrock.
    within: [&'static str; 2],
    psk: &'static str,
}

const PAIRS: [Pair; 2] = [
    Pair {
        name: 'a',
        interface: "eni-0000000000000000a",
        lan: "10.20.1.10",
        lan_router: "10.20.1.1",
        outside: "198.51.100.2",
        outside_router: "198.51.100.1",
        far: "203.0.113.2",
        far_router: "203.0.113.1",
        inside: "169.254.101.0/30",
        inside_near: "169.254.101.2",
        inside_far: "169.254.101.1",
        within: ["10.100.1.1", "10.100.1.2"],
        psk: "example.key.of.the.first.tunnel",
    },
    Pair {
        name: 'b',
        interface: "eni-0000000000000000b",
        lan: "10.20.2.10",
        lan_router: "10.20.2.1",
        outside: "198.51.100.6",
        outside_router: "198.51.100.5",
        far: "203.0.113.6",
        far_router: "203.0.113.5",
        inside: "169.254.102.0/30",
        inside_near: "169.254.102.2",
        inside_far: "169.254.102.1",
        within: ["10.100.2.1", "10.100.2.2"],
        psk: "example.key.of.the.second.tunnel",
    },
];

/// Packets between the outside addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// IKE: UDP 500, and UDP 4500 with IKE's marker, and NAT keepalives.
    pub ike: u64,
    /// ESP in UDP 4500 of gateway a and of b.
    pub esp: [u64; 2],
    /// Anything else.
    pub other: u64,
}

/// The hosts; dropping it deletes them.
#[derive(Debug)]
pub struct Hosts {
    // Declared before the namespaces, so that they end first.
    processes: Vec<Process>,
    gateway: Option<std::net::SocketAddr>,
    cloud: Cloud,
    gateways: Vec<Machine>,
    spaces: Spaces,
    dir: PathBuf,
}

#[derive(Debug)]
struct Spaces {
    gw: Namespace,
    vpn: [Namespace; 2],
    net: Namespace,
    aws: [Namespace; 2],
    bedrock: Namespace,
    internet: Namespace,
    // Its routes are changed by the cloud too, by its name.
    vpc: std::sync::Arc<Namespace>,
}

/// Fails if ESP cannot run in user space; the error says what is missing.
pub fn check() -> Result<(), Error> {
    let tun = "/dev/net/tun";
    let why = match std::fs::metadata(tun) {
        // Opens it, since the file exists without the kernel's driver.
        Ok(file) if file.rdev() == TUN => match std::fs::File::options().read(true).write(true).open(tun) {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        },
        Ok(_) => "it is another device".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::Failed(format!("vpn needs {tun} for ESP in user space: {why}")))
}

impl Hosts {
    /// Makes the hosts and starts all but the gateway's Envoy. `timers`: keepalive and hold of BGP at AWS's ends, in seconds.
    pub fn build(dir: &Path, root: &Root, programs: &Programs, timers: (u32, u32)) -> Result<Hosts, Error> {
        sweep();
        let spaces = Spaces::add()?;
        spaces.wire()?;
        let vpc = std::sync::Arc::clone(&spaces.vpc);
        let on_route = move |_: &str, interface: &str| {
            let pair =
                PAIRS.iter().find(|pair| pair.interface == interface).ok_or("InvalidNetworkInterfaceID.NotFound")?;
            vpc.set(&["route", "replace", REMOTE, "via", pair.lan]).map_err(|error| error.to_string())
        };
        let cloud = Cloud::new(REMOTE, &[TABLE], Box::new(on_route));
        let mut hosts =
            Hosts { processes: Vec::new(), gateway: None, cloud, gateways: Vec::new(), spaces, dir: dir.to_path_buf() };
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
        let space = self.spaces.aws.get(nth).ok_or_else(missing)?;
        strongswan(&machine, "  install_routes = no\n")?;
        let swanctl = FAR_SWANCTL.replace("@FAR@", pair.far).replace("@OUTSIDE@", pair.outside);
        write(&machine.outside("/etc/swanctl/swanctl.conf"), &swanctl.replace("@PSK@", pair.psk))?;
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
        let started = frr("bedrock", &machine, &self.spaces.bedrock, &self.dir)?;
        self.processes.extend(started);
        Ok(())
    }

    /// A software gateway: what `render` writes, in the places that `apply` puts it, and `watch`.
    fn gateway_machine(&mut self, nth: usize, pair: &Pair, root: &Root) -> Result<(), Error> {
        let name = format!("vpn{}", nth + 1);
        let machine = root.machine(&self.dir.join(&name))?;
        let space = self.spaces.vpn.get(nth).ok_or_else(missing)?;
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
            DELAYS.iter().zip([(&self.spaces.bedrock, BEDROCK), (&self.spaces.internet, internet.as_str())])
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
    pub fn start_gateway(&mut self, programs: &Programs) -> Result<(), Error> {
        let mut command = self.spaces.gw.exec(&programs.gateway);
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
    pub fn load(&self, programs: &Programs, rate: u32, seconds: u64) -> Result<Process, Error> {
        let gateway = self.gateway.ok_or_else(|| Error::Failed("the gateway does not say where it listens".into()))?;
        let mut command = self.spaces.gw.exec(&programs.load);
        command.args(["--gateway", &gateway.to_string(), "--record"]).arg(self.dir.join("calls.jsonl"));
        command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
        Ok(Process::start("bedrock-load", command, &self.dir.join("load.log"))?)
    }

    /// Whether BGP is up, and has a route, at each gateway.
    pub fn bgp_up(&self) -> Result<Vec<bool>, Error> {
        let mut up = Vec::new();
        for ((machine, space), pair) in self.gateways.iter().zip(&self.spaces.vpn).zip(PAIRS) {
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
    pub fn holder(&self) -> Option<char> {
        let routes = self.cloud.routes();
        let named = routes.first()?.as_deref()?;
        PAIRS.iter().find(|pair| pair.interface == named).map(|pair| pair.name)
    }

    /// The packets so far.
    pub fn seen(&self) -> Result<Seen, Error> {
        let listed = self.spaces.net.list(&["counters", "table", "ip", "observer"])?;
        let parts = listed.get("nftables").and_then(Value::as_array).into_iter().flatten();
        let mut seen = Seen::default();
        for counter in parts.filter_map(|part| part.get("counter")) {
            let packets = counter.get("packets").and_then(Value::as_u64).unwrap_or(0);
            match counter.get("name").and_then(Value::as_str) {
                Some("ike") => seen.ike = packets,
                Some("esp_a") => seen.esp[0] = packets,
                Some("esp_b") => seen.esp[1] = packets,
                _ => seen.other = packets,
            }
        }
        Ok(seen)
    }

    /// Drops every packet of gateway a's tunnel, both ways.
    pub fn cut(&self) -> Result<(), Error> {
        let address = PAIRS[0].outside;
        self.spaces.net.rules(&format!(
            "add rule ip observer cut ip saddr {address} drop\nadd rule ip observer cut ip daddr {address} drop\n"
        ))
    }

    /// Restores the tunnel.
    pub fn restore(&self) -> Result<(), Error> {
        self.spaces.net.rules("flush chain ip observer cut\n")
    }

    /// The requests that the doubles of Bedrock got.
    pub fn requests(&self) -> Result<Vec<Request>, Error> {
        let mut all = Vec::new();
        for (path, _) in DELAYS {
            all.extend(requests(&read(&self.dir.join(format!("{path}.requests.jsonl")))?, REGION));
        }
        Ok(all)
    }

    /// Calls to AWS that the machines must not make.
    pub fn refused(&self) -> Vec<String> {
        self.cloud.refused()
    }

    /// The directory of its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Fails if a process has ended.
    pub fn check(&mut self) -> Result<(), Error> {
        self.processes.iter_mut().try_for_each(|process| Ok(process.check()?))
    }
}

impl Seen {
    /// What has crossed since.
    pub fn since(&self, before: &Seen) -> Seen {
        Seen {
            ike: self.ike.saturating_sub(before.ike),
            esp: self.esp_since(before),
            other: self.other.saturating_sub(before.other),
        }
    }

    pub fn esp_since(&self, before: &Seen) -> [u64; 2] {
        let ([a, b], [was_a, was_b]) = (self.esp, before.esp);
        [a.saturating_sub(was_a), b.saturating_sub(was_b)]
    }
}

impl Spaces {
    fn add() -> Result<Spaces, Error> {
        Ok(Spaces {
            gw: Namespace::add("gw")?,
            vpn: [Namespace::add("vpn1")?, Namespace::add("vpn2")?],
            net: Namespace::add("net")?,
            aws: [Namespace::add("aws1")?, Namespace::add("aws2")?],
            bedrock: Namespace::add("bedrock")?,
            internet: Namespace::add("internet")?,
            vpc: std::sync::Arc::new(Namespace::add("vpc")?),
        })
    }

    fn wire(&self) -> Result<(), Error> {
        let Spaces { gw, vpn, net, aws, bedrock, internet, vpc } = self;
        for space in [gw, net, bedrock, internet, vpc].into_iter().chain(vpn).chain(aws) {
            space.loopback()?;
        }
        gw.link(internet, "internet", 0, "100mbit")?;
        join([(gw, "lan", "10.20.0.10/24"), (vpc, "gw", "10.20.0.1/24")])?;
        gw.set(&["route", "add", "default", "via", "10.20.0.1"])?;
        for (((pair, vpn), aws), nth) in PAIRS.iter().zip(vpn).zip(aws).zip(1..) {
            let lan = format!("{}/24", pair.lan);
            join([(vpn, "lan", &lan), (vpc, &format!("vpn{nth}"), &format!("{}/24", pair.lan_router))])?;
            vpn.set(&["route", "add", LOCAL, "via", pair.lan_router])?;
            for (space, device, address, router) in [
                (vpn, format!("vpn{nth}"), pair.outside, pair.outside_router),
                (aws, format!("aws{nth}"), pair.far, pair.far_router),
            ] {
                join([(space, "out", &format!("{address}/30")), (net, &device, &format!("{router}/30"))])?;
                space.set(&["route", "add", "default", "via", router])?;
            }
            let [bedrock_end, aws_end] = pair.within;
            let to = format!("{bedrock_end}/24");
            join([(aws, "in", &format!("{aws_end}/24")), (bedrock, &format!("aws{nth}"), &to)])?;
            aws.set(&["route", "add", REMOTE, "via", bedrock_end])?;
            vpn.set(&["address", "add", &format!("{IMDS_ADDRESS}/32"), "dev", "lo"])?;
            aws.forwards()?;
            vpn.forwards()?;
        }
        bedrock.set(&["address", "add", &format!("{BEDROCK}/32"), "dev", "lo"])?;
        vpc.forwards()?;
        net.forwards()?;
        net.rules(&observer())
    }
}

/// Counts packets, after the rules of the cut: IKE, each gateway's ESP, anything else. On port 4500 IKE begins with four zeros and ESP
/// with its SPI; a keepalive is one byte.
fn observer() -> String {
    let [a, b] = PAIRS.map(|pair| pair.outside);
    format!(
        "table ip observer {{
  counter ike {{ }}
  counter esp_a {{ }}
  counter esp_b {{ }}
  counter other {{ }}
  chain cut {{
    type filter hook forward priority 0;
  }}
  chain across {{
    type filter hook forward priority 10;
    udp sport 500 udp dport 500 counter name ike return
    udp sport 4500 udp dport 4500 @th,64,32 0 counter name ike return
    udp sport 4500 udp dport 4500 udp length 9 counter name ike return
    udp sport 4500 udp dport 4500 ip saddr {a} counter name esp_a return
    udp sport 4500 udp dport 4500 ip daddr {a} counter name esp_a return
    udp sport 4500 udp dport 4500 ip saddr {b} counter name esp_b return
    udp sport 4500 udp dport 4500 ip daddr {b} counter name esp_b return
    counter name other
  }}
}}
"
    )
}

/// charon's plugins and its log; `more` are further settings.
fn strongswan(machine: &Machine, more: &str) -> Result<(), Error> {
    let more = if more.contains("charon-systemd") { more.to_owned() } else { format!("charon-systemd {{\n{more}}}\n") };
    let text = format!(
        "charon-systemd {{\n  load = random nonce openssl gcm hmac kdf sha2 kernel-libipsec kernel-netlink socket-default \
         vici\n  # libipsec always adds routes: behind all others.\n  routing_table_prio = 40000\n  \
         filelog {{\n    stderr {{\n      default = 1\n    }}\n  }}\n}}\nswanctl {{\n  load = random openssl\n}}\n{more}"
    );
    write(&machine.outside("/etc/strongswan.conf"), &text)
}

/// Starts charon and gives it its connections.
fn charon(name: &str, machine: &Machine, space: &Namespace, dir: &Path) -> Result<Process, Error> {
    let command = machine.exec(Some(space), "charon-systemd");
    let mut process = Process::start("charon", command, &dir.join(format!("{name}.charon.log")))?;
    let start = Instant::now();
    // Its socket exists before it listens.
    while let Err(error) = run(machine.exec(Some(space), "swanctl").args(["--load-all", "--noprompt"])) {
        process.check()?;
        if start.elapsed() > DAEMON_START {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(process)
}

/// Waits for a daemon's socket.
fn listens(process: &mut Process, socket: &Path) -> Result<(), Error> {
    let start = Instant::now();
    while !socket.exists() {
        process.check()?;
        if start.elapsed() > DAEMON_START {
            return Err(process.not_ready(DAEMON_START).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// FRR's configuration at AWS's end of a tunnel: the inside addresses of this end and the other, the address of Commercial's router;
/// and BGP's timers.
pub fn far_end([far, near, router]: [&str; 3], (keepalive, hold): (u32, u32)) -> String {
    let text = FAR_FRR.replace("@FAR@", far).replace("@NEAR@", near).replace("@ROUTER@", router);
    text.replace("@KEEPALIVE@", &keepalive.to_string()).replace("@HOLD@", &hold.to_string())
}

/// FRR's configuration at Commercial's router: the addresses of both ends.
pub fn router([one, two]: [&str; 2]) -> String {
    ROUTER_FRR.replace("@ONE@", one).replace("@TWO@", two)
}

/// Starts FRR: its routes in the kernel, and BGP.
pub fn frr(name: &str, machine: &Machine, space: &Namespace, dir: &Path) -> Result<Vec<Process>, Error> {
    // No PAM in this root.
    write(&machine.outside("/etc/frr/vtysh.conf"), "username root nopassword\n")?;
    let run = machine.outside("/run/frr");
    // The user frr of the packages' root.
    std::os::unix::fs::chown(&run, Some(998), Some(998)).map_err(Error::file("cannot change", &run))?;
    let start = |daemon: &str| {
        let mut command = machine.exec(Some(space), daemon);
        command.args(["-f", "/etc/frr/frr.conf", "-A", "127.0.0.1", "--log", "stdout"]);
        Process::start(daemon, command, &dir.join(format!("{name}.{daemon}.log")))
    };
    let mut zebra = start("zebra")?;
    // Otherwise bgpd retries only after ten seconds.
    listens(&mut zebra, &run.join("zserv.api"))?;
    Ok(vec![zebra, start("bgpd")?])
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

fn write(file: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(file, text).map_err(Error::file("cannot write", file))
}

fn missing() -> Error {
    Error::Failed("a host is missing".into())
}
