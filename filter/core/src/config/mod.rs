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
mod route_class;
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
pub(crate) use route_class::is_within;
pub use route_class::{AuditMode, BodyBytes, Dscp, Limits, Priority, RegionOrder, RouteClass, SessionScope};
pub use rules::{Effect, GroupSource, Rule, RuleMode};
pub use source_cluster::SourceCluster;
pub use sources::{CertificateSource, Credentials, Signer, Sts, TokenFile};

use crate::names::{PathName, RegionName};
use crate::operation::{OperationGroup, Service};
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
    /// Bodies of these lengths are hashed by Envoy's own filter (`bedrock.hash`), if the client announces them. WebAssembly has no
    /// instruction for SHA-256, the processor has. Left out, the module hashes every body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envoy_hashes_body_bytes: Option<BodyBytes>,
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
