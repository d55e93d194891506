//! What the account's own resources run, as the operator configures it.

use super::is_default;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the resources run whose ids do not name a model: application inference profiles, prompt routers, provisioned and custom
/// models, deployments, Marketplace endpoints. The gateway asks Bedrock where a rule depends on the model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// How long an answer of Bedrock counts, in seconds, 5 to 86400; 300 if left out. 0: Bedrock is never asked, and only `runs`
    /// counts.
    #[serde(default = "default_refresh_seconds", skip_serializing_if = "is_default_refresh_seconds")]
    #[cfg_attr(test, schemars(extend("default" = default_refresh_seconds())))]
    pub refresh_seconds: u32,
    /// The ids of the models that a resource runs, by the ARN or id that callers name. Bedrock is not asked about these.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runs: BTreeMap<String, Vec<String>>,
    /// The cluster of the listener that sends the calls on. `bedrock-gateway` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

const fn default_refresh_seconds() -> u32 {
    300
}

fn is_default_refresh_seconds(value: &u32) -> bool {
    *value == default_refresh_seconds()
}
