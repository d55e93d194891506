//! Parses `--path NAME[/SERVICE][@REGION]=HOST:PORT`.

use std::str::FromStr;

pub use filter_core::names::PathName;
use filter_core::names::{RegionName, RegionNameError, UnknownPath};

/// Errors of `--path` and `--region`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No `=`: only `internet` has default addresses.
    #[error(
        "want NAME=HOST:PORT or NAME@REGION=HOST:PORT, such as dx=10.1.0.10:443; only `internet` may be given alone, for \
         Bedrock's public endpoints"
    )]
    MissingAddress(String),
    /// Not the name of a path.
    #[error(transparent)]
    Name(#[from] UnknownPath),
    /// The part after `=` is wrong.
    #[error("{why}; want HOST:PORT, with the port from 1 to 65535")]
    Address {
        /// The path.
        name: PathName,
        /// The text after `=`.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The same path, service and region twice.
    #[error("--path {0} is given twice; a path has one address for a service in a region")]
    Duplicate(String),
    /// No call goes to the path's region.
    #[error("--path {label}: no call goes to {region}; give it by --region, or in the document's `regions`")]
    Unused {
        /// The path, with its region.
        label: String,
        /// The region.
        region: String,
    },
    /// Not a service that paths can reach.
    #[error("unknown service '{0}'; known: bedrock-runtime, bedrock, bedrock-agent-runtime, sts, rolesanywhere")]
    UnknownService(String),
    /// Not a region of the Commercial partition.
    #[error(transparent)]
    Region(#[from] RegionNameError),
}

/// The service that returns a role's keys for a token (docs/credentials.md, `federation`).
pub const STS: &str = "sts";
/// The service that returns a role's keys for a certificate (docs/credentials.md, `roles_anywhere`).
pub const ROLES_ANYWHERE: &str = "rolesanywhere";
/// Services that may have their own address on a path, as interface endpoints do.
const SERVICES: [&str; 5] = ["bedrock-runtime", "bedrock", "bedrock-agent-runtime", STS, ROLES_ANYWHERE];

/// A path, and the address that Envoy connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSpec {
    /// The path's name.
    pub name: PathName,
    /// The service that this address serves; `None` for all of Bedrock's, unless they have their own address.
    pub service: Option<&'static str>,
    /// The region that this address serves; `None` for all regions without their own address.
    pub region: Option<RegionName>,
    /// The address; `None` for the public endpoints.
    pub address: Option<Address>,
}

/// An address as Envoy resolves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A DNS name or an IP address (IPv6 without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
}

impl PathSpec {
    /// Bedrock's public endpoints.
    pub const PUBLIC: PathSpec = PathSpec { name: PathName::Internet, service: None, region: None, address: None };

    /// `dx`, `dx@us-east-1`, or `dx/bedrock@us-east-1`.
    pub fn label(&self) -> String {
        let service = self.service.map(|service| format!("/{service}")).unwrap_or_default();
        let region = self.region.as_ref().map(|region| format!("@{}", region.as_str())).unwrap_or_default();
        format!("{}{service}{region}", self.name)
    }
}

/// The most specific path to a service in a region: by service first, then by region. A path with an address but no
/// service is for Bedrock, and does not reach the services of credentials.
pub fn find<'a>(paths: &'a [PathSpec], name: PathName, service: &str, region: &str) -> Option<&'a PathSpec> {
    let is_bedrock = ![STS, ROLES_ANYWHERE].contains(&service);
    let reaches = |path: &&PathSpec| {
        let serves = path.service.map_or(is_bedrock || path.address.is_none(), |own| own == service);
        path.name == name && serves && path.region.as_ref().is_none_or(|own| own.as_str() == region)
    };
    paths.iter().filter(reaches).max_by_key(|path| (path.service.is_some(), path.region.is_some()))
}

impl FromStr for PathSpec {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let (label, address) = text.split_once('=').map_or((text, None), |(label, address)| (label, Some(address)));
        let (label, region) = label.split_once('@').map_or((label, None), |(label, region)| (label, Some(region)));
        let (name, service) = label.split_once('/').map_or((label, None), |(name, service)| (name, Some(service)));
        let name: PathName = name.parse()?;
        let known = |name: &str| SERVICES.into_iter().find(|known| *known == name);
        let service =
            service.map(|name| known(name).ok_or_else(|| PathError::UnknownService(name.to_owned()))).transpose()?;
        let region = region.map(str::parse::<RegionName>).transpose()?;
        let address = match address {
            Some(address) => address,
            None if name == PathName::Internet => return Ok(PathSpec { name, service, region, address: None }),
            None => return Err(PathError::MissingAddress(text.to_owned())),
        };
        let wrong = |why| PathError::Address { name, address: address.to_owned(), why };
        let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let port =
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("the port is not a number in range"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(|| wrong("the bracket is not closed"))?,
            None if host.contains(':') => return Err(wrong("an IPv6 address needs brackets")),
            None => host,
        };
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || !host.bytes().all(valid) {
            return Err(wrong("the host is neither a name nor an address"));
        }
        Ok(PathSpec { name, service, region, address: Some(Address { host: host.to_owned(), port }) })
    }
}

/// Sorts paths by name, and refuses duplicates.
pub fn in_order(mut paths: Vec<PathSpec>) -> Result<Vec<PathSpec>, PathError> {
    paths.sort_by_key(|path| (path.name, path.service, path.region.clone()));
    for pair in paths.windows(2) {
        if let [first, second] = pair
            && (first.name, first.service, &first.region) == (second.name, second.service, &second.region)
        {
            return Err(PathError::Duplicate(first.label()));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_names_addresses_and_ports() {
        for (text, name, host, port) in [
            ("dx=[fd00::1]:8443", PathName::Dx, "fd00::1", 8443),
            ("internet=egress.example.com:443", PathName::Internet, "egress.example.com", 443),
        ] {
            let address = Some(Address { host: host.to_owned(), port });
            assert_eq!(text.parse(), Ok(PathSpec { name, service: None, region: None, address }));
        }
        assert_eq!("internet".parse(), Ok(PathSpec::PUBLIC));
        let west = "us-west-2".parse::<RegionName>().ok();
        assert_eq!("internet@us-west-2".parse(), Ok(PathSpec { region: west.clone(), ..PathSpec::PUBLIC }));
        assert_eq!("dx@us-west-2=a:1".parse::<PathSpec>().unwrap().region, west);
    }

    #[test]
    fn prefers_an_address_for_the_region() {
        let paths: Vec<PathSpec> =
            ["dx=a:1", "dx@us-west-2=b:1", "vpn@us-west-2=c:1"].iter().map(|text| text.parse().unwrap()).collect();
        let host = |name, region| Some(find(&paths, name, "bedrock", region)?.address.as_ref()?.host.as_str());
        assert_eq!(host(PathName::Dx, "us-east-1"), Some("a"));
        assert_eq!(host(PathName::Dx, "us-west-2"), Some("b"));
        assert_eq!(host(PathName::Vpn, "us-west-2"), Some("c"));
        assert_eq!(host(PathName::Vpn, "us-east-1"), None);
    }

    #[test]
    fn prefers_an_address_for_the_service() {
        let texts =
            ["vpn=a:1", "vpn/bedrock=b:1", "vpn/sts@us-west-2=c:1", "dx=d:1", "dx/rolesanywhere=e:1", "internet"];
        let paths: Vec<PathSpec> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let label = |name, service, region| find(&paths, name, service, region).map(PathSpec::label);
        assert_eq!(label(PathName::Vpn, "bedrock-runtime", "us-east-1").as_deref(), Some("vpn"));
        assert_eq!(label(PathName::Vpn, "bedrock", "us-east-1").as_deref(), Some("vpn/bedrock"));
        assert_eq!(label(PathName::Vpn, "sts", "us-west-2").as_deref(), Some("vpn/sts@us-west-2"));
        assert_eq!(label(PathName::Vpn, "sts", "us-east-1"), None);
        assert_eq!(label(PathName::Dx, "sts", "us-east-1"), None);
        assert_eq!(label(PathName::Internet, "sts", "us-east-1").as_deref(), Some("internet"));
        assert_eq!(label(PathName::Vpn, "rolesanywhere", "us-west-2"), None);
        assert_eq!(label(PathName::Dx, "rolesanywhere", "us-east-1").as_deref(), Some("dx/rolesanywhere"));
        assert_eq!(label(PathName::Internet, "rolesanywhere", "us-east-1").as_deref(), Some("internet"));
    }

    #[test]
    fn refuses_a_malformed_path_with_a_reason() {
        for (text, part) in [
            ("dx", "NAME=HOST:PORT"),
            ("direct=1.2.3.4:443", "known: dx, vpn, internet"),
            ("dx=1.2.3.4", "the port is missing"),
            ("dx=1.2.3.4:0", "not a number in range"),
            ("dx=1.2.3.4:70000", "not a number in range"),
            ("dx=:443", "neither a name nor an address"),
            ("dx=a b:443", "neither a name nor an address"),
            ("dx=https://host:443", "needs brackets"),
            ("dx=fd00::1:443", "needs brackets"),
            ("dx=[fd00::1:443", "not closed"),
            ("dx@=1.2.3.4:443", "is not a region name"),
            ("dx@us-gov-west-1=1.2.3.4:443", "Commercial partition"),
            ("vpn@us-east-1", "NAME@REGION=HOST:PORT"),
            ("vpn/s3=1.2.3.4:443", "unknown service 's3'"),
        ] {
            let error = text.parse::<PathSpec>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn sorts_paths_and_refuses_duplicates() {
        let parse = |text: &str| text.parse::<PathSpec>().unwrap();
        let ordered = in_order(vec![parse("internet=a:1"), parse("dx=b:1"), parse("vpn=c:1")]).unwrap();
        assert_eq!(ordered.iter().map(|path| path.name).collect::<Vec<_>>(), PathName::ALL);
        assert_eq!(in_order(vec![parse("dx=a:1"), parse("dx=b:1")]), Err(PathError::Duplicate("dx".to_owned())));
        let (east, west) = (parse("dx@us-east-1=a:1"), parse("dx@us-west-2=b:1"));
        assert!(in_order(vec![east.clone(), parse("dx=c:1"), west]).is_ok());
        assert_eq!(in_order(vec![east.clone(), east]), Err(PathError::Duplicate("dx@us-east-1".to_owned())));
    }
}
