//! The gateway's own API, as the operator offers it.

use serde::{Deserialize, Serialize};

/// The gateway's own API: `GET /gateway/v1/status`, `GET /gateway/v1/models`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GatewayApi {
    /// Patterns of the names of callers that may read it; all callers if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<String>>,
}
