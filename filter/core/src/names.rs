//! The names that configuration, policy and renderer share: partitions, paths and Commercial regions.

use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// An AWS partition that the gateway knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// `aws`
    Commercial,
    /// `aws-us-gov`
    GovCloud,
}

/// A way across the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PathName {
    /// Direct Connect.
    Dx,
    /// Site-to-site VPN.
    Vpn,
    /// The public endpoints.
    Internet,
}

/// The name of a Commercial region, such as `us-east-1`. It becomes part of host names, so its form is strict.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RegionName(String);

/// A path name outside the closed list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown path '{0}'; known: dx, vpn, internet")]
pub struct UnknownPath(pub String);

/// Why a text is not a [`RegionName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegionNameError {
    /// It does not have the form of a region name.
    #[error("'{0}' is not a region name, such as us-east-1")]
    Form(String),
    /// It is a region of another partition.
    #[error("'{0}' is not in the Commercial partition, where the gateway's calls go")]
    Partition(String),
}

/// Beginnings of region names of partitions that the gateway does not know: China, the isolated regions and the European
/// Sovereign Cloud (botocore's `partitions.json`).
const FOREIGN: [&str; 4] = ["cn-", "us-iso", "eu-iso", "eusc-"];

// === impl Partition ===

impl Partition {
    /// The partition's name, as in ARNs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commercial => "aws",
            Self::GovCloud => "aws-us-gov",
        }
    }

    /// The partition of a region name; `None` if the name is malformed or of a partition that the gateway does not know.
    pub fn of_region(name: &str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("us-gov-") {
            return is_region_form(&format!("us-{rest}")).then_some(Self::GovCloud);
        }
        (is_region_form(name) && !is_foreign(name)).then_some(Self::Commercial)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl PathName ===

impl PathName {
    /// All paths, in the order in which documents and messages name them.
    pub const ALL: [Self; 3] = [Self::Dx, Self::Vpn, Self::Internet];

    /// The name, as in configuration, endpoint metadata and audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dx => "dx",
            Self::Vpn => "vpn",
            Self::Internet => "internet",
        }
    }
}

impl fmt::Display for PathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PathName {
    type Err = UnknownPath;

    fn from_str(text: &str) -> Result<Self, UnknownPath> {
        Self::ALL.into_iter().find(|path| path.as_str() == text).ok_or_else(|| UnknownPath(text.to_owned()))
    }
}

// === impl RegionName ===

impl RegionName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Maps keyed by regions are looked up by endpoint labels.
impl Borrow<str> for RegionName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for RegionName {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl FromStr for RegionName {
    type Err = RegionNameError;

    fn from_str(text: &str) -> Result<Self, RegionNameError> {
        if text.starts_with("us-gov-") || is_foreign(text) {
            return Err(RegionNameError::Partition(text.to_owned()));
        }
        if is_region_form(text) { Ok(Self(text.to_owned())) } else { Err(RegionNameError::Form(text.to_owned())) }
    }
}

impl<'de> Deserialize<'de> for RegionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for RegionName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RegionName".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[a-z]{2}-[a-z]+-[1-9][0-9]?$" })
    }
}

/// `AREA-DIRECTION-NUMBER`: two letters, letters, a number from 1 to 99.
fn is_region_form(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let letters = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase());
    let [area, direction, number] = parts.as_slice() else { return false };
    area.len() == 2
        && letters(area)
        && letters(direction)
        && matches!(number.as_bytes(), [b'1'..=b'9'] | [b'1'..=b'9', b'0'..=b'9'])
}

fn is_foreign(name: &str) -> bool {
    FOREIGN.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_names_are_commercial_only() {
        for name in ["us-east-1", "ap-southeast-2", "eu-central-1", "il-central-1", "us-west-10"] {
            assert_eq!(name.parse::<RegionName>().map(|region| region.to_string()).as_deref(), Ok(name));
            assert_eq!(Partition::of_region(name), Some(Partition::Commercial), "{name}");
        }
        for name in
            ["us-gov-west-1", "cn-north-1", "us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1", "eusc-de-east-1"]
        {
            assert_eq!(name.parse::<RegionName>(), Err(RegionNameError::Partition(name.to_owned())));
        }
        for name in
            ["", "us-east", "us_east_1", "us-east-1.evil.example", "US-EAST-1", "us-east-0", "us-east-1a", "u-e-1"]
        {
            assert_eq!(name.parse::<RegionName>(), Err(RegionNameError::Form(name.to_owned())));
            assert_eq!(Partition::of_region(name), None, "{name}");
        }
    }

    #[test]
    fn partitions_are_told_by_region() {
        for (name, partition) in [
            ("us-gov-west-1", Some(Partition::GovCloud)),
            ("us-gov-east-1", Some(Partition::GovCloud)),
            ("us-gov-west-1.evil.example", None),
            ("us-gov-", None),
            ("cn-north-1", None),
            ("us-iso-east-1", None),
        ] {
            assert_eq!(Partition::of_region(name), partition, "{name}");
        }
        assert_eq!([Partition::Commercial, Partition::GovCloud].map(Partition::as_str), ["aws", "aws-us-gov"]);
    }

    #[test]
    fn path_names_round_trip() {
        for path in PathName::ALL {
            assert_eq!(path.to_string().parse(), Ok(path));
        }
        assert_eq!("DX".parse::<PathName>().unwrap_err().to_string(), "unknown path 'DX'; known: dx, vpn, internet");
    }
}
