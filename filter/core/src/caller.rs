//! Who calls, as quotas and budgets tell callers apart: by name, else by address.

use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};

/// Where a client is: an IPv4 address, or the 64 bits of an IPv6 address that a network gives a host to choose from
/// (RFC 4291, section 2.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(IpAddr);

/// Who calls. No name equals an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    Name(String),
    Address(Address),
    /// All whose connection has no address of the Internet Protocol.
    Unknown,
}

impl Address {
    /// Reads Envoy's property `source.address` (`10.1.2.3:5678`, `[fd00::1]:5678`). `None`: not of the Internet Protocol, such
    /// as a Unix socket or a listener inside this Envoy.
    pub fn of(address: &[u8]) -> Option<Self> {
        let address = std::str::from_utf8(address).ok()?;
        Some(Self(match address.parse::<SocketAddr>().ok()?.ip().to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & (u128::MAX << 64)).into()),
            ip @ IpAddr::V4(_) => ip,
        }))
    }
}

impl Caller {
    /// A caller that Envoy has proved the name of.
    pub fn named(principal: &str) -> Self {
        Self(Kind::Name(principal.to_owned()))
    }

    /// A caller without a name.
    pub fn nameless(address: Option<Address>) -> Self {
        Self(address.map_or(Kind::Unknown, Kind::Address))
    }

    /// Adds the caller to a hash. What follows it must have a fixed length.
    pub(crate) fn hash(&self, hasher: &mut Sha256) {
        match &self.0 {
            Kind::Name(name) => {
                hasher.update([0]);
                hasher.update(name.as_bytes());
            }
            Kind::Address(Address(IpAddr::V4(ip))) => {
                hasher.update([4]);
                hasher.update(ip.octets());
            }
            Kind::Address(Address(IpAddr::V6(ip))) => {
                hasher.update([6]);
                hasher.update(ip.octets());
            }
            Kind::Unknown => hasher.update([1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Address {
        Address::of(text.as_bytes()).unwrap()
    }

    fn hash(caller: &Caller) -> Vec<u8> {
        let mut hasher = Sha256::new();
        caller.hash(&mut hasher);
        hasher.finalize().to_vec()
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        assert_eq!(read("10.1.2.3:1"), read("10.1.2.3:65535"));
        assert_ne!(read("10.1.2.3:1"), read("10.1.2.4:1"));
        assert_eq!(read("[::ffff:10.1.2.3]:1"), read("10.1.2.3:1"));
        assert_eq!(read("[fd00:0:0:1::1]:1"), read("[fd00:0:0:1:ffff::9]:2"));
        assert_ne!(read("[fd00:0:0:1::1]:1"), read("[fd00:0:0:2::1]:1"));
        for other in [&b"/run/gateway.sock"[..], b"envoy://streams/streams", b"", b"10.1.2.3", b"\xff"] {
            assert_eq!(Address::of(other), None);
        }
    }

    #[test]
    fn no_name_spells_an_address() {
        let of = |text: &str| Caller::nameless(Address::of(text.as_bytes()));
        let names = ["", "10.0.0.1", "\0\x0a\0\0\x01", "\n\0\0\x01", "[::1]", "::1", "\x01", "\x04\n\0\0\x01"];
        let mut all: Vec<Caller> = names.iter().map(|name| Caller::named(name)).collect();
        all.extend([of("10.0.0.1:1"), of("[::a00:1]:1"), of("[fd00::1]:1"), of("/run/x.sock")]);
        let hashes: std::collections::BTreeSet<Vec<u8>> = all.iter().map(hash).collect();
        assert_eq!(hashes.len(), all.len());
        assert_eq!(hash(&of("[::ffff:10.0.0.1]:1")), hash(&of("10.0.0.1:2")));
    }
}
