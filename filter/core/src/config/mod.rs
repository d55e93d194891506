//! The configuration as the operator writes it: one JSON document for every role. Unknown keys are refused, and errors name
//! the key. [`Policy`](crate::policy::Policy) is compiled from it once.

mod connections;
mod error;
mod gateway_api;
mod json;
mod lambda_api;
mod locate;
mod nearest;
mod read;
mod resolve;
mod retention;
mod rules;
mod source_cluster;
mod sources;
mod tagged;

pub use connections::Connections;
pub(crate) use error::at;
pub use error::{ConfigError, Position};
pub use gateway_api::GatewayApi;
pub use lambda_api::LambdaApi;
pub use locate::locate;
pub use nearest::nearest;
pub use resolve::Resolve;
pub use retention::{DataRetention, ModelRetention, Retention, RetentionMode};
pub use rules::{Effect, GroupSource, Rule, RuleMode};
pub use source_cluster::SourceCluster;
pub use sources::{CertificateSource, Credentials, Signer, Sts, TokenFile};

use crate::names::{PathName, RegionName};
use crate::operation::{Operation, OperationGroup, Service};
use json::Json;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tagged::tagged;

/// The filter's configuration.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this instance of the module does.
    pub role: Role,
    /// How calls are authenticated to Bedrock; `sigv4` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Whether the FIPS endpoints are called (`bedrock-runtime-fips.…`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub fips: bool,
    /// The Commercial regions that calls may be signed for, by name.
    pub regions: BTreeMap<RegionName, Region>,
    /// How long a path must have been healthy before calls take it again, in seconds; 5 if left out.
    #[serde(default = "default_failback_seconds", skip_serializing_if = "is_default_failback_seconds")]
    #[cfg_attr(test, schemars(extend("default" = default_failback_seconds())))]
    pub failback_seconds: u32,
    /// The region that role `combined` signs for; may be left out if `regions` has one entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<RegionName>,
    /// Inference profile by bare model id, for every region that has no entry of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inference_profiles: BTreeMap<String, String>,
    /// Which models and inference profiles each region offers, by its own lists. Left out, the gateway does not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<Catalogue>,
    /// How the regions retain data, for classes with `retention`. Left out, the gateway does not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_retention: Option<DataRetention>,
    /// What application inference profiles, prompt routers and other resources run whose ids do not name a model. Left out, a call that
    /// names one is refused where a rule depends on the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve: Option<Resolve>,
    /// Model id by alias: the names that the operator gives.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, String>,
    /// Which models may be called.
    #[serde(default, skip_serializing_if = "is_default")]
    pub models: Models,
    /// The geographies by whose inference profiles calls may be sent: `us`, `eu`, `apac`, `au`, `jp`, `in`, `ca`, `global`. An
    /// empty list: by none, so that each call runs in the region that it is sent to. Any if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residency: Option<Vec<String>>,
    /// Numbers of the operator's accounts in GovCloud. An ARN of one of them names nothing in Commercial Bedrock, and is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub govcloud_accounts: Vec<String>,
    /// Which headers cross.
    #[serde(default, skip_serializing_if = "is_default")]
    pub headers: Headers,
    /// Entries that the gateway sets in the request metadata of InvokeModel, Converse and their streams, by key. A value is
    /// `{principal}`, `{class}`, `{request_id}` or fixed text. Bedrock writes them into its model invocation logs. A call that
    /// gives one of the keys itself is refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub request_metadata: BTreeMap<String, String>,
    /// Groups of operations that are carried besides the others; none if left out. An operation of another group is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub optional_operations: Vec<OperationGroup>,
    /// The API of the Lambda-based proxy that the gateway replaces, for clients that are written for it. Left out, its paths are
    /// unknown (404).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lambda_api: Option<LambdaApi>,
    /// The gateway's own API: `GET /gateway/v1/status` and `GET /gateway/v1/models`. Left out, its paths are unknown (404).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_api: Option<GatewayApi>,
    /// Where the caller's name comes from; the first source that has one wins. Empty: callers have no name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub principal: Vec<Principal>,
    /// Where the caller's groups come from; those of all sources together. Empty: callers are in no group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupSource>,
    /// Whether callers without a name are served.
    #[serde(default, skip_serializing_if = "is_default")]
    pub anonymous: Anonymous,
    /// The host names that the gateway is called by, besides `localhost`, IP addresses and Bedrock's own names; any name
    /// if left out. `*.` in front takes every name below. A call with another host is refused: a web page whose name resolves to the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// The origins of web pages that may call (`https://app.example`); none if left out. SDKs outside a browser have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// Which calls may take which paths; the first that matches wins. A call that none matches is refused.
    pub route_classes: Vec<RouteClass>,
    /// Who may call what, after `models`, `anonymous` and the route class. A matching `deny` refuses the call; if the document
    /// has an enforced `allow`, a call needs one that matches. Empty: whatever a class takes is served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// The cluster of the listener with the module's relay. Streams go through it, so that a stream whose upstream breaks off
    /// ends with an exception. Left out, streams go as other calls do, and a client sees its connection break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_relay: Option<String>,
    /// Longest request body in bytes; 25 MiB if left out. Envoy's buffer limits must be higher.
    #[serde(default = "default_max_body_bytes", skip_serializing_if = "is_default_max_body_bytes")]
    #[cfg_attr(test, schemars(extend("default" = default_max_body_bytes())))]
    pub max_body_bytes: u64,
    /// How much the bodies of all calls together may occupy in Envoy's memory.
    #[serde(default, skip_serializing_if = "is_default")]
    pub buffers: Buffers,
    /// How often output tokens count towards `tokens_per_minute`; the first match wins. They win over AWS's table, in which most
    /// Claude models count five-fold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_rates: Vec<OutputRate>,
    /// Where the Commercial credentials come from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub credentials: Credentials,
    /// Further sources by name, for route classes of other accounts or roles.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credential_sets: BTreeMap<String, Credentials>,
    /// The audit collector. Left out, it gets no intents and no counters, and lost records are found by the access log alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// How long a call waits for the first credentials, in milliseconds; 2000 if left out.
    #[serde(default = "default_credentials_wait_ms", skip_serializing_if = "is_default_credentials_wait_ms")]
    #[cfg_attr(test, schemars(extend("default" = default_credentials_wait_ms())))]
    pub credentials_wait_ms: u32,
}

/// What an instance of the module does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// In the downstream chain: cleans, recognises, decides, measures.
    Gateway,
    /// In the upstream chain of a cluster: signs each attempt for the endpoint that it goes to.
    Signer,
    /// Both in the downstream chain, for one region, where no upstream chain is available.
    Combined,
}

/// Where the relay runs. It decides nothing, so `{"relay": "connection"}` or `{"relay": "http"}` is its whole document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayPlace {
    /// A network filter before the relay's connection manager.
    Connection,
    /// An HTTP filter in it.
    Http,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Relay {
    relay: RelayPlace,
}

/// How calls are authenticated to Bedrock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// AWS Signature Version 4, over the body too: the body is held until its hash is known.
    #[default]
    Sigv4,
    /// A Bedrock API key as bearer token: the body streams through.
    Bearer,
}

/// A Commercial region.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Inference profile by bare model id; wins over the general table.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inference_profiles: BTreeMap<String, String>,
    /// Host names by path and service, where they differ from the region's public ones: a VPC endpoint's name, or one
    /// variant (FIPS, dual-stack) on one path. Host, SNI and signature are for this name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<PathName, BTreeMap<Service, String>>,
}

/// The live catalogue. The gateway polls ListFoundationModels and ListInferenceProfiles of each region.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Seconds between two polls of a region, 5 to 86400; 300 if left out. 0: regions are never polled, and `snapshot` says what they
    /// offer.
    #[serde(default = "default_refresh_seconds", skip_serializing_if = "is_default_refresh_seconds")]
    #[cfg_attr(test, schemars(extend("default" = default_refresh_seconds())))]
    pub refresh_seconds: u32,
    /// Whether a `global.` profile may be chosen for a bare model id. It may run a call in any Commercial region.
    #[serde(default, skip_serializing_if = "is_default")]
    pub global: bool,
    /// The cluster of the listener that sends polls on. `bedrock-gateway` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// What regions offer before the first poll, as `bedrock-gateway catalogue snapshot` prints it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub snapshot: BTreeMap<RegionName, Snapshot>,
}

/// What a region offered when its lists were saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Ids of the models that can be called by their bare id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_demand: Vec<String>,
    /// Ids of system-defined inference profiles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
}

/// Model policy. A pattern has `*` for any run of characters. It is matched against the model id, an ARN's resource, and
/// both without their geography prefix.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// Patterns of which a model must match one; all models are allowed if left out.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    #[cfg_attr(test, schemars(extend("default" = all())))]
    pub allow: Vec<String>,
    /// Patterns that a model must not match; they win over `allow`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// Headers that cross to Bedrock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Headers {
    /// Names of headers `x-amzn-bedrock-…` that the gateway does not know yet. A call with another such header is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
}

/// What happens to a caller without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Anonymous {
    /// It is served, by the first class without `principals` that takes its call.
    #[default]
    Allow,
    /// Its calls are refused.
    Refuse,
}

/// A source of the caller's name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(tag = "from"))]
#[serde(remote = "Self", rename_all = "snake_case", deny_unknown_fields)]
pub enum Principal {
    /// The URI SAN of the client's certificate (a SPIFFE id), as Envoy verified it.
    Mtls {},
    /// A claim of the token that Envoy's `jwt_authn` verified.
    Jwt {
        /// The filter's `payload_in_metadata`.
        payload: String,
        /// The claim (`sub`). A call whose claim is not text is refused.
        claim: String,
    },
}

tagged!(Principal, "from");

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

/// The audit collector, as the gateway role reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// The cluster of the collector's socket (`audit-collector run --intents`).
    pub cluster: String,
    /// How long a call of a class with `audit: required` waits for its intent, in milliseconds, 10 to 60000; 2000 if left out.
    #[serde(default = "default_deadline_ms", skip_serializing_if = "is_default_deadline_ms")]
    #[cfg_attr(test, schemars(extend("default" = default_deadline_ms())))]
    pub deadline_ms: u32,
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

/// How often the output tokens of models count towards `tokens_per_minute`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OutputRate {
    /// Patterns of model ids.
    pub models: Vec<String>,
    /// 1 to 100.
    pub rate: u32,
}

/// How much the bodies of all calls together may occupy in Envoy's memory. Over a budget, the largest user of it gives
/// way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Buffers {
    /// Bytes in all of Envoy; 268435456 (256 MiB) if left out, or `caller_bytes` if that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Bytes of one caller; 134217728 (128 MiB) if left out, or `connection_bytes` if that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_bytes: Option<u64>,
    /// Bytes of one connection; 67108864 (64 MiB) if left out, or twice `max_body_bytes` if that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_bytes: Option<u64>,
    /// Calls at the same time, of which one caller may have half; 4096 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
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

// === parsing ===

impl Config {
    /// Parses the document.
    ///
    /// # Errors
    /// [`ConfigError`] for text that is not JSON, repeated, unknown and missing keys, and values of another kind.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        read_unique(&Json::parse(json)?)
    }

    /// Parses a document for an instance of another role: the document may name any role, or none.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_for(json: &[u8], role: Role) -> Result<Self, ConfigError> {
        let mut document = Json::parse(json)?;
        let name = match role {
            Role::Gateway => "gateway",
            Role::Signer => "signer",
            Role::Combined => "combined",
        };
        check_unique(&document)?;
        if document.get("role").is_some() {
            // Overwritten below, but a role that does not exist is a mistake all the same.
            let _: Config = read::read(&document)?;
        }
        document.set("role", Json::String(name.to_owned()));
        read::read(&document)
    }

    /// The clusters that polls go through, each with the key that names it.
    pub fn poll_clusters(&self) -> Vec<(&'static str, &str)> {
        let catalogue = self.catalogue.as_ref().and_then(|own| own.cluster.as_deref());
        let retention = self.data_retention.as_ref().and_then(|own| own.cluster.as_deref());
        let resolve = self.resolve.as_ref().and_then(|own| own.cluster.as_deref());
        let named =
            [("catalogue.cluster", catalogue), ("data_retention.cluster", retention), ("resolve.cluster", resolve)];
        named.into_iter().filter_map(|(key, cluster)| Some((key, cluster?))).collect()
    }

    /// The document as JSON text, without the keys that have their default value.
    pub fn to_json(&self) -> String {
        // A struct of tables and texts, whose keys are all texts: serialising it cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl RelayPlace {
    /// Parses a document, if it is the relay's, which has a key `relay`.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse(json: &[u8]) -> Option<Result<Self, ConfigError>> {
        let document = Json::parse(json).ok()?;
        document.get("relay")?;
        Some(read_unique(&document).map(|Relay { relay }| relay))
    }
}

/// Refuses a document in which an object has a key twice: of a table of models or regions, one would win in silence.
fn check_unique(document: &Json) -> Result<(), ConfigError> {
    let Some((name, path)) = document.repeated_key() else { return Ok(()) };
    Err(at(path.trim_start_matches('.'), format!("the key `{name}` is there twice")))
}

fn read_unique<T: serde::de::DeserializeOwned>(document: &Json) -> Result<T, ConfigError> {
    check_unique(document)?;
    read::read(document)
}

// === values ===

impl Audit {
    /// A collector behind a cluster.
    pub fn new(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), deadline_ms: default_deadline_ms() }
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

// === defaults ===

impl Default for Models {
    fn default() -> Self {
        Self { allow: all(), deny: Vec::new() }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn default_credentials_wait_ms() -> u32 {
    2000
}

fn is_default_credentials_wait_ms(value: &u32) -> bool {
    *value == default_credentials_wait_ms()
}

const fn default_refresh_seconds() -> u32 {
    300
}

fn is_default_refresh_seconds(value: &u32) -> bool {
    *value == default_refresh_seconds()
}

const fn default_deadline_ms() -> u32 {
    2000
}

fn is_default_deadline_ms(value: &u32) -> bool {
    *value == default_deadline_ms()
}

const fn default_failback_seconds() -> u32 {
    5
}

fn is_default_failback_seconds(value: &u32) -> bool {
    *value == default_failback_seconds()
}

const fn default_max_body_bytes() -> u64 {
    25 << 20
}

fn is_default_max_body_bytes(value: &u64) -> bool {
    *value == default_max_body_bytes()
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

fn is_all(patterns: &[String]) -> bool {
    patterns == all()
}

#[cfg(test)]
mod tests;
