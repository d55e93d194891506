//! `--path NAME=HOST:PORT` and `--region`, parsed.

use std::fmt;
use std::str::FromStr;

/// Why an argument is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No `=`, though only the internet has addresses of its own.
    #[error(
        "want NAME=HOST:PORT, such as dx=10.1.0.10:443; only `internet` may stand alone, for Bedrock's public endpoints"
    )]
    Form(String),
    /// A name outside the closed list.
    #[error("there is no path of that name; there are dx, vpn and internet")]
    Name(String),
    /// The part after `=`.
    #[error("{why}; want HOST:PORT, with the port from 1 to 65535")]
    Address {
        /// The path.
        name: PathName,
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The same name twice.
    #[error("--path {0} is given twice; a path has one address")]
    Twice(PathName),
    /// A region that is none.
    #[error("not a region's name, such as us-east-1")]
    Region(String),
    /// A region of another partition.
    #[error("not in the Commercial partition, which is where the gateway's calls go")]
    Partition(String),
}

/// A way across.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathName {
    /// Direct Connect.
    Dx,
    /// Site-to-site VPN.
    Vpn,
    /// The internet.
    Internet,
}

impl PathName {
    /// All, in the order in which `any` tries them.
    pub const ALL: [PathName; 3] = [PathName::Dx, PathName::Vpn, PathName::Internet];

    /// The name, as in configuration, metadata and audit records.
    pub fn as_str(self) -> &'static str {
        match self {
            PathName::Dx => "dx",
            PathName::Vpn => "vpn",
            PathName::Internet => "internet",
        }
    }
}

impl fmt::Display for PathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A path and where it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSpec {
    /// Which path.
    pub name: PathName,
    /// Where both services are reached; absent, at their public endpoints.
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
    pub const PUBLIC: PathSpec = PathSpec { name: PathName::Internet, address: None };
}

impl FromStr for PathSpec {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text == PathName::Internet.as_str() {
            return Ok(PathSpec::PUBLIC);
        }
        let (name, address) = text.split_once('=').ok_or_else(|| PathError::Form(text.to_owned()))?;
        let name = PathName::ALL
            .into_iter()
            .find(|known| known.as_str() == name)
            .ok_or_else(|| PathError::Name(text.to_owned()))?;
        let wrong = |why| PathError::Address { name, address: address.to_owned(), why };
        let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let port =
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("the port is no number in range"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(|| wrong("the bracket is not closed"))?,
            None if host.contains(':') => return Err(wrong("an IPv6 address needs brackets")),
            None => host,
        };
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || !host.bytes().all(valid) {
            return Err(wrong("the host is neither a name nor an address"));
        }
        Ok(PathSpec { name, address: Some(Address { host: host.to_owned(), port }) })
    }
}

/// Puts paths in the order in which they are tried, and refuses a name given twice.
pub fn in_order(mut paths: Vec<PathSpec>) -> Result<Vec<PathSpec>, PathError> {
    paths.sort_by_key(|path| path.name);
    for pair in paths.windows(2) {
        if let [first, second] = pair
            && first.name == second.name
        {
            return Err(PathError::Twice(first.name));
        }
    }
    Ok(paths)
}

/// A region of the Commercial partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region(String);

impl Region {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Region {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let parts: Vec<&str> = text.split('-').collect();
        let word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
        let number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let formed =
            parts.len() >= 3 && parts.split_last().is_some_and(|(last, words)| number(last) && words.iter().all(word));
        if !formed {
            return Err(PathError::Region(text.to_owned()));
        }
        if ["us-gov-", "cn-", "us-iso", "eu-isoe-", "eusc-"].iter().any(|prefix| text.starts_with(prefix)) {
            return Err(PathError::Partition(text.to_owned()));
        }
        Ok(Region(text.to_owned()))
    }
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
            assert_eq!(text.parse(), Ok(PathSpec { name, address }));
        }
        assert_eq!("internet".parse(), Ok(PathSpec::PUBLIC));
    }

    #[test]
    fn refuses_what_is_no_path_and_says_why() {
        for (text, part) in [
            ("dx", "NAME=HOST:PORT"),
            ("direct=1.2.3.4:443", "there are dx, vpn and internet"),
            ("dx=1.2.3.4", "the port is missing"),
            ("dx=1.2.3.4:0", "no number in range"),
            ("dx=1.2.3.4:70000", "no number in range"),
            ("dx=:443", "neither a name nor an address"),
            ("dx=a b:443", "neither a name nor an address"),
            ("dx=https://host:443", "needs brackets"),
            ("dx=fd00::1:443", "needs brackets"),
            ("dx=[fd00::1:443", "not closed"),
        ] {
            let error = text.parse::<PathSpec>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn orders_paths_and_refuses_a_name_given_twice() {
        let parse = |text: &str| text.parse::<PathSpec>().unwrap();
        let ordered = in_order(vec![parse("internet=a:1"), parse("dx=b:1"), parse("vpn=c:1")]).unwrap();
        assert_eq!(ordered.iter().map(|path| path.name).collect::<Vec<_>>(), PathName::ALL);
        assert_eq!(in_order(vec![parse("dx=a:1"), parse("dx=b:1")]), Err(PathError::Twice(PathName::Dx)));
    }

    #[test]
    fn takes_regions_of_the_commercial_partition_only() {
        for region in ["us-east-1", "ap-southeast-2", "eu-central-1"] {
            assert_eq!(region.parse::<Region>().unwrap().as_str(), region);
        }
        for region in ["us-gov-west-1", "cn-north-1", "us-iso-east-1"] {
            assert!(matches!(region.parse::<Region>(), Err(PathError::Partition(_))), "{region}");
        }
        for region in ["", "us-east", "us_east_1", "us-east-1.evil.example", "US-EAST-1"] {
            assert!(matches!(region.parse::<Region>(), Err(PathError::Region(_))), "{region}");
        }
    }
}
