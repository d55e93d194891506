//! Route classes: which calls may take which paths, and what their callers may use.

use super::{Retention, is_default};
use crate::names::{PathName, RegionName};
use crate::operation::Operation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A rule: which calls may take which paths, in which order. A key left out matches all; a call must match every key.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RouteClass {
    /// The class's name, lower-case letters, digits and `-`: clusters are called `{service}.{name}`.
    pub name: String,
    /// Patterns of model ids. A call that runs no model does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// Operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<Operation>>,
    /// Patterns of callers' names. A call without a name does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principals: Option<Vec<String>>,
    /// Whether the response is an event stream (`true`: only such calls; `false`: only others).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streaming: Option<bool>,
    /// The length of the request's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<BodyBytes>,
    /// The paths that calls of this class may take, in order. A path that is not listed is never taken.
    pub paths: Vec<PathName>,
    /// Which path a caller's calls try first, as shares of the sum; a path that is not named has none. A caller keeps its
    /// path while the weights stay, and a change moves as few callers as possible. Left out: the first of `paths`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<BTreeMap<PathName, u32>>,
    /// The regions that calls of this class may go to, in order; all of the document's, in order of their names, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<RegionName>>,
    /// Which region a call tries first, where `region_weights` do not say it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub region_order: RegionOrder,
    /// Which region a call tries first, as shares of the sum. Left out: by `region_order`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_weights: Option<BTreeMap<RegionName, u32>>,
    /// Whether `region_weights` choose by caller instead of by call: a caller keeps its region while the weights stay, and its
    /// prompt caches with it. Calls without a principal are distributed one by one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub region_sticky: bool,
    /// The data retention mode that a region must have for calls of this class. A region with another mode, or without a known one, is
    /// never called; if none is left, the call is refused. No demand if left out. Needs the document's `data_retention`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Envoy's routing priority, and with it its circuit breakers' thresholds.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// The DSCP value (RFC 2474), 0 to 63, of packets to the upstreams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
    /// Bandwidth of all calls of the class on a listener together, in KiB/s, both ways together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_kbps: Option<u64>,
    /// How long an attempt may take until the first byte of its response's body, in milliseconds, 100 to 3600000. Then the call
    /// is tried on the next path, and after the last in the next region. Bedrock may run and bill it each time. No limit if left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_timeout_ms: Option<u32>,
    /// The age in seconds beyond which a region's lists (`catalogue`) decide no call of the class: twice
    /// `catalogue.refresh_seconds` to 2592000. Such a call goes to another region of the class, or is refused. Left out, the last
    /// lists decide whatever their age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue_max_age_seconds: Option<u32>,
    /// What one caller may use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// The source of the class's credentials, of `credential_sets`; `credentials` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// Whose role session signs the class's calls.
    #[serde(default, skip_serializing_if = "is_default")]
    pub session: SessionScope,
    /// What the class demands of the audit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub audit: AuditMode,
}

/// Which region a call tries first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RegionOrder {
    /// The first of `regions`.
    #[default]
    Listed,
    /// The one whose first byte came soonest of late, by model. A region is left only for a clearly faster one.
    Fastest,
}

/// Whose role session signs a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionScope {
    /// The gateway's, which all callers share.
    #[default]
    Shared,
    /// The caller's own, which has its name. Calls of callers without a name are refused.
    Principal,
}

/// What a route class demands of the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AuditMode {
    /// A call leaves only once the collector has it on disk. Needs the document's `audit`.
    Required,
    /// A call leaves without waiting; records that are lost are counted.
    #[default]
    BestEffort,
    /// The collector keeps no record of the class's calls.
    Off,
}

/// Envoy's routing priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// `DEFAULT`
    #[default]
    Default,
    /// `HIGH`
    High,
}

/// A DSCP value: six bits (RFC 2474).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Dscp(u8);

/// What one caller may use. A caller without a name is told by its address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Calls; as many may come at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Tokens in a minute, as Bedrock counts them for its quotas: input, written to the cache, and output, which counts several times
    /// for some models (`output_rates`). A call reserves its input and `max_tokens`; when it is over, what it used counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
    /// Calls at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_calls: Option<u32>,
}

impl Limits {
    /// Whether each limit of another class holds here too.
    pub(crate) fn bind_like(self, other: Self) -> bool {
        let Self { requests_per_minute, tokens_per_minute, concurrent_calls } = other;
        is_within(self.requests_per_minute, requests_per_minute)
            && is_within(self.tokens_per_minute, tokens_per_minute)
            && is_within(self.concurrent_calls, concurrent_calls)
    }
}

/// Whether a bound is at most as large as another. None is the largest.
pub(crate) fn is_within<T: PartialOrd>(own: Option<T>, other: Option<T>) -> bool {
    other.is_none_or(|other| own.is_some_and(|own| own <= other))
}

/// Bounds of a body's length, in bytes, either included. A body of unannounced length (chunked) counts as longer than any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BodyBytes {
    /// The shortest that matches; 0 if left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub min: u64,
    /// The longest that matches; no bound if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

impl BodyBytes {
    /// Whether a body of this length is within the bounds.
    pub fn has(self, length: u64) -> bool {
        self.min <= length && self.max.is_none_or(|max| length <= max)
    }
}

impl Dscp {
    /// The largest value.
    pub const MAX: u8 = 63;

    /// The value, 0 to [`Dscp::MAX`].
    pub fn value(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Dscp {
    type Error = String;

    fn try_from(value: u8) -> Result<Self, String> {
        if value <= Self::MAX { Ok(Self(value)) } else { Err(format!("want {WANT_DSCP}, not {value}")) }
    }
}

const WANT_DSCP: &str = "a whole number from 0 to 63";

impl<'de> Deserialize<'de> for Dscp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl serde::de::Visitor<'_> for Number {
            type Value = Dscp;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(WANT_DSCP)
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Dscp, E> {
                let dscp = u8::try_from(value).ok().and_then(|value| Dscp::try_from(value).ok());
                dscp.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Unsigned(value), &self))
            }
        }
        deserializer.deserialize_u8(Number)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Dscp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Dscp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": 0, "maximum": Dscp::MAX })
    }
}
