//! The API of the Lambda-based proxy, as the operator offers it.

use serde::{Deserialize, Serialize};

/// The API of the Lambda-based proxy that the gateway replaces: `POST /v1/bedrock/invoke-model`, `GET /v1/bedrock/models`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LambdaApi {
    /// The first segment of its paths, which was API Gateway's stage; `v1` if left out.
    #[serde(default = "default_stage", skip_serializing_if = "is_default_stage")]
    #[cfg_attr(test, schemars(extend("default" = default_stage())))]
    pub stage: String,
    /// The GovCloud region that its answers name as the source; `us-gov-west-1` if left out.
    #[serde(default = "default_region", skip_serializing_if = "is_default_region")]
    #[cfg_attr(test, schemars(extend("default" = default_region())))]
    pub region: String,
}

fn default_stage() -> String {
    "v1".to_owned()
}

fn is_default_stage(stage: &str) -> bool {
    stage == default_stage()
}

fn default_region() -> String {
    "us-gov-west-1".to_owned()
}

fn is_default_region(region: &str) -> bool {
    region == default_region()
}
