//! The network namespaces of the run, and the links between them.
//!
//! ```text
//!  gw ── vpc ──┬── vpn1 (gateway a) ══╗        ╔══ aws1 ──┐
//!  Envoy       └── vpn2 (gateway b) ══╬══ net ═╬══ aws2 ──┴── bedrock
//!   └── internet                      ╝        ╚
//! ```
//! `vpc` is the VPC's routers: its route to Commercial is the one that gateways claim. `net` is the network between
//! the outside addresses; it counts packets and can drop them. With ESP in charon, all tunnels of one charon share a
//! device, so each gateway has one tunnel here, and each of AWS's two ends is a separate host, as it is at AWS.

use std::sync::Arc;

use serde_json::Value;

use crate::Error;
use crate::namespace::{Namespace, join};

pub(super) const IMDS_ADDRESS: &str = "169.254.169.254";
/// The two sides.
pub(super) const LOCAL: &str = "10.20.0.0/16";
pub(super) const REMOTE: &str = "10.100.0.0/16";
/// Bedrock's address in Commercial.
pub(super) const BEDROCK: &str = "10.100.9.9";

/// A gateway's addresses and those of AWS's end of its tunnel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub name: char,
    pub interface: &'static str,
    pub lan: &'static str,
    pub lan_router: &'static str,
    pub outside: &'static str,
    pub outside_router: &'static str,
    pub far: &'static str,
    pub far_router: &'static str,
    pub inside: &'static str,
    pub inside_near: &'static str,
    pub inside_far: &'static str,
    /// Between AWS's end and Bedrock.
    pub within: [&'static str; 2],
    pub psk: &'static str,
}

pub(super) const PAIRS: [Pair; 2] = [
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
pub(super) struct Seen {
    /// IKE: UDP 500, and UDP 4500 with IKE's marker, and NAT keepalives.
    pub ike: u64,
    /// ESP in UDP 4500 of gateway a and of b.
    pub esp: [u64; 2],
    /// Anything else.
    pub other: u64,
}

/// The namespaces; dropping it deletes them.
#[derive(Debug)]
pub(super) struct Network {
    pub gw: Namespace,
    pub vpn: [Namespace; 2],
    pub net: Namespace,
    pub aws: [Namespace; 2],
    pub bedrock: Namespace,
    pub internet: Namespace,
    // Its routes are changed by the cloud too, by its name.
    pub vpc: Arc<Namespace>,
}

impl Seen {
    /// What has crossed since.
    pub(super) fn since(&self, before: &Seen) -> Seen {
        Seen {
            ike: self.ike.saturating_sub(before.ike),
            esp: self.esp_since(before),
            other: self.other.saturating_sub(before.other),
        }
    }

    pub(super) fn esp_since(&self, before: &Seen) -> [u64; 2] {
        let ([a, b], [was_a, was_b]) = (self.esp, before.esp);
        [a.saturating_sub(was_a), b.saturating_sub(was_b)]
    }
}

impl Network {
    /// Adds the namespaces and links them.
    pub(super) fn build() -> Result<Network, Error> {
        let network = Network {
            gw: Namespace::add("gw")?,
            vpn: [Namespace::add("vpn1")?, Namespace::add("vpn2")?],
            net: Namespace::add("net")?,
            aws: [Namespace::add("aws1")?, Namespace::add("aws2")?],
            bedrock: Namespace::add("bedrock")?,
            internet: Namespace::add("internet")?,
            vpc: Arc::new(Namespace::add("vpc")?),
        };
        network.link()?;
        Ok(network)
    }

    fn link(&self) -> Result<(), Error> {
        let Network { gw, vpn, net, aws, bedrock, internet, vpc } = self;
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

    /// The packets so far.
    pub(super) fn seen(&self) -> Result<Seen, Error> {
        let listed = self.net.list(&["counters", "table", "ip", "observer"])?;
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
    pub(super) fn cut(&self) -> Result<(), Error> {
        let address = PAIRS[0].outside;
        self.net.rules(&format!(
            "add rule ip observer cut ip saddr {address} drop\nadd rule ip observer cut ip daddr {address} drop\n"
        ))
    }

    /// Restores the tunnel.
    pub(super) fn restore(&self) -> Result<(), Error> {
        self.net.rules("flush chain ip observer cut\n")
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
