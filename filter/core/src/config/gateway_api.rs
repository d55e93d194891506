//! The gateway's own API, as the operator offers it.

use super::Snapshot;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The gateway's own API: `GET /gateway/v1/status`, `GET /gateway/v1/models`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GatewayApi {
    /// Patterns of the names of callers that may read it; all callers if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<String>>,
    /// What Bedrock offers in regions of GovCloud, by region, as `bedrock-gateway catalogue snapshot` prints it. The list of models shows
    /// it next to what Commercial offers. The gateway itself never asks GovCloud.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub govcloud: BTreeMap<String, Snapshot>,
}
