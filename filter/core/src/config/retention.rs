//! How the regions must retain data, as the operator writes it.

use super::is_default;
use crate::names::RegionName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The regions' data retention. The gateway polls GetAccountDataRetention and GetProject of each region of a class with `retention`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DataRetention {
    /// Seconds between two polls of a region, 5 to 3600; 60 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_seconds: Option<u32>,
    /// Seconds after which what was read counts no more, from twice `refresh_seconds` to 86400; five times `refresh_seconds` if left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
    /// The mode that models have by themselves, where account and project leave it to the model; the first match wins. No API says
    /// it, so this is the operator's statement. A model without one has no known mode there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelRetention>,
    /// Ids of the projects that calls may name, by region, besides `default`. A call of a class with `retention` that names another is
    /// refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub projects: BTreeMap<RegionName, Vec<String>>,
    /// The cluster of the listener that sends polls on. `bedrock-gateway` sets it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cluster: Option<String>,
}

/// The mode that models have by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ModelRetention {
    /// Patterns of model ids. `*` alone takes calls too whose model is not in their path.
    pub models: Vec<String>,
    /// The mode.
    pub mode: RetentionMode,
}

/// A mode that says how data is retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RetentionMode {
    /// Nothing is retained.
    None,
    /// AWS may review the data. The model's provider does not get it.
    AwsReview,
    /// The data may be shared with the model's provider.
    ProviderDataShare,
}

/// What a class demands of the data retention of the regions that its calls go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Retention {
    /// The mode of the class's first region, whichever that is.
    Same,
    /// `none`
    None,
    /// `aws_review`
    AwsReview,
    /// `provider_data_share`
    ProviderDataShare,
}

impl RetentionMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::AwsReview, Self::ProviderDataShare];

    /// Its name at AWS.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::AwsReview => "aws_review",
            Self::ProviderDataShare => "provider_data_share",
        }
    }
}

impl fmt::Display for RetentionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Retention {
    /// The mode, unless it is the first region's.
    pub const fn mode(self) -> Option<RetentionMode> {
        match self {
            Self::Same => None,
            Self::None => Some(RetentionMode::None),
            Self::AwsReview => Some(RetentionMode::AwsReview),
            Self::ProviderDataShare => Some(RetentionMode::ProviderDataShare),
        }
    }
}
