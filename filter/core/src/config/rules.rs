//! Rules, and the groups that they may ask for.

use super::tagged::tagged;
use super::{BodyBytes, is_default};
use crate::names::RegionName;
use crate::operation::Operation;
use serde::{Deserialize, Serialize};

/// A rule: who may call what. A key left out matches all; a call must match every key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The rule's name in answers and audit records: lower-case letters, digits and `-`.
    pub id: String,
    /// What happens to the calls that match.
    pub effect: Effect,
    /// Whether the rule decides, or is only tried.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: RuleMode,
    /// Patterns of callers' names. A call without a name does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<String>>,
    /// Patterns of callers' groups, of which the caller must be in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// Operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<Operation>>,
    /// Patterns of model ids. A call that runs no model does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// Regions. An `allow` matches if every region that may serve the call is listed, a `deny` if any is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<RegionName>>,
    /// Names of route classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// A limit of an `allow`: the length of the request's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<BodyBytes>,
    /// A limit of an `allow`: the most tokens that a call may ask a model to answer. A call that does not say how many is over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// A limit of an `allow`: the most images that a call may show a model. A call whose images have a form that the gateway does not
    /// know is over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_images: Option<u32>,
    /// When the rule begins, as RFC 3339 has it (`2026-12-01T00:00:00Z`); it holds from the start if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// When the rule is over; never if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What happens to the calls that match a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// They are served, unless another rule denies them. Once the document has an enforced rule of this kind, a call needs one.
    Allow,
    /// They are refused.
    Deny,
}

/// Whether a rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RuleMode {
    /// It does.
    #[default]
    Enforce,
    /// It refuses nothing. The audit record says which calls would be refused if it was enforced.
    DryRun,
}

/// A source of the caller's groups.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(tag = "from"))]
#[serde(remote = "Self", rename_all = "snake_case", deny_unknown_fields)]
pub enum GroupSource {
    /// A claim of the token that Envoy's `jwt_authn` verified: a text, or a list of texts.
    Jwt {
        /// The filter's `payload_in_metadata`.
        payload: String,
        /// The claim (`groups`). A call whose claim is something else is refused.
        claim: String,
    },
}

tagged!(GroupSource, "from");
