//! The configuration as the operator writes it: one JSON document for every role. Unknown keys are refused; what is
//! wrong is named by its key. [`crate::policy::Policy`] is compiled from it once.

use crate::operation::{Operation, Service};
use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The filter's configuration.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this instance of the module does.
    pub role: Role,
    /// How calls are authenticated to Bedrock.
    #[serde(default)]
    pub auth: Auth,
    /// Whether the FIPS endpoints are called (`bedrock-runtime-fips.…`).
    #[serde(default)]
    pub fips: bool,
    /// The Commercial regions that calls may be signed for, by name.
    pub regions: BTreeMap<String, Region>,
    /// How long a path must have been healthy before calls take it again, in seconds; 5 if left out.
    #[serde(default = "default_failback_seconds")]
    pub failback_seconds: u32,
    /// The region that role `combined` signs for; may be left out if `regions` has one entry.
    #[serde(default)]
    pub region: Option<String>,
    /// Inference profile by bare model id, for every region that has no entry of its own.
    #[serde(default)]
    pub inference_profiles: BTreeMap<String, String>,
    /// Model id by alias: the names that the operator gives.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// Which models may be called.
    #[serde(default)]
    pub models: Models,
    /// Where the caller's name comes from; the first that has one wins. Empty: callers have no name.
    #[serde(default)]
    pub principal: Vec<Principal>,
    /// Which calls may take which paths; the first that matches wins. A call that none matches is refused.
    pub route_classes: Vec<RouteClass>,
    /// The cluster of the listener with the module's relay, through which streams go so that one that breaks off ends with an
    /// exception; left out, they go as other calls do, and a client sees its connection break.
    #[serde(default)]
    pub stream_relay: Option<String>,
    /// Longest request body in bytes; 25 MiB if left out. Envoy's buffer limits must be higher.
    #[serde(default = "default_max_body_bytes")]
    pub max_body_bytes: u64,
    /// Where the Commercial credentials come from.
    #[serde(default)]
    pub credentials: Credentials,
    /// Further sources by name, for route classes of other accounts or roles.
    #[serde(default)]
    pub credential_sets: BTreeMap<String, Credentials>,
    /// How long a call waits for the first credentials, in milliseconds; 2000 if left out.
    #[serde(default = "default_credentials_wait_ms")]
    pub credentials_wait_ms: u32,
}

/// What an instance of the module does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// In the downstream chain: cleans, recognises, decides, measures.
    Gateway,
    /// In the upstream chain of a cluster: signs each attempt for the endpoint that it goes to.
    Signer,
    /// Both in the downstream chain, for one region, where an upstream chain cannot be had.
    Combined,
}

/// Where the relay stands. It decides nothing, and so `{"relay": "connection"}` or `{"relay": "http"}` is its whole document.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
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
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Inference profile by bare model id; wins over the general table.
    #[serde(default)]
    pub inference_profiles: BTreeMap<String, String>,
    /// Host names by path and service, where they are not the region's public ones: a VPC endpoint's own name, or one
    /// variant (FIPS, dual-stack) on one path. Host, SNI and signature are for this name.
    #[serde(default)]
    pub hosts: BTreeMap<Path, BTreeMap<Service, String>>,
}

/// Model policy. A pattern has `*` for any run of characters and is held against the model id, an ARN's resource, and
/// both without their geography prefix.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// Patterns of which a model must match one; all are allowed if left out.
    #[serde(default = "all")]
    pub allow: Vec<String>,
    /// Patterns that a model must not match; they win over `allow`.
    #[serde(default)]
    pub deny: Vec<String>,
}

/// A source of the caller's name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum Principal {
    /// The URI SAN of the client's certificate (a SPIFFE id), as Envoy verified it.
    Mtls {},
    /// A claim of the token that Envoy's `jwt_authn` verified.
    Jwt {
        /// The filter's `payload_in_metadata`.
        payload: String,
        /// The claim, a string (`sub`).
        claim: String,
    },
}

/// A rule: which calls may take which paths, in which order. A key left out matches all; a call must match every key.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RouteClass {
    /// The class's name, lower-case letters, digits and `-`: clusters are called `{service}.{name}`.
    pub name: String,
    /// Patterns of model ids. A call that runs no model does not match.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// Operations.
    #[serde(default)]
    pub operations: Option<Vec<Operation>>,
    /// Patterns of callers' names. A call without a name does not match.
    #[serde(default)]
    pub principals: Option<Vec<String>>,
    /// Whether the answer is an event stream (`true`: only such calls; `false`: only others).
    #[serde(default)]
    pub streaming: Option<bool>,
    /// The length of the request's body.
    #[serde(default)]
    pub body_bytes: Option<BodyBytes>,
    /// The paths that calls of this class may take, in order. A path that is not here is never taken.
    pub paths: Vec<Path>,
    /// Which path a caller's calls try first, as shares of the sum; a path that is not named has none. A caller stays on its
    /// side while the weights stay, and a change moves no more callers than it must. Left out: the first of `paths`.
    #[serde(default)]
    pub weights: Option<BTreeMap<Path, u32>>,
    /// The regions that calls of this class may go to, in order; all of the document's, in order of their names, if left out.
    #[serde(default)]
    pub regions: Option<Vec<String>>,
    /// Which region a call tries first, as shares of the sum. Left out: the first of `regions`.
    #[serde(default)]
    pub region_weights: Option<BTreeMap<String, u32>>,
    /// Envoy's routing priority, and with it its circuit breakers' thresholds.
    #[serde(default)]
    pub priority: Priority,
    /// The DSCP value (RFC 2474), 0 to 63, of packets to the upstreams.
    #[serde(default)]
    pub dscp: Option<u8>,
    /// Bandwidth of all calls of the class on a listener together, in KiB/s, both ways together.
    #[serde(default)]
    pub bandwidth_kbps: Option<u64>,
    /// What one caller may use.
    #[serde(default)]
    pub limits: Limits,
    /// The source of the class's credentials, of `credential_sets`; `credentials` if left out.
    #[serde(default)]
    pub credentials: Option<String>,
}

/// Envoy's routing priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// `DEFAULT`
    #[default]
    Default,
    /// `HIGH`
    High,
}

/// What one caller may use, in a minute. Calls without a caller's name share one allowance.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Calls; as many may come at once.
    #[serde(default)]
    pub requests_per_minute: Option<u32>,
    /// Tokens, as Bedrock counts them for its quotas: input, output and written to the cache, not read from it. They are known
    /// when a call is over: it may overdraw, and the next waits until that is paid.
    #[serde(default)]
    pub tokens_per_minute: Option<u32>,
}

/// Bounds of a body's length, in bytes, either included. A body of unannounced length (chunked) counts as longer than any.
#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BodyBytes {
    /// The shortest that matches; 0 if left out.
    #[serde(default)]
    pub min: u64,
    /// The longest that matches; no bound if left out.
    #[serde(default)]
    pub max: Option<u64>,
}

/// A way across.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Direct Connect.
    Dx,
    /// Site-to-site VPN.
    Vpn,
    /// The public endpoints.
    Internet,
}

/// A source of Commercial credentials.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "source", rename_all = "snake_case", deny_unknown_fields)]
pub enum Credentials {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, or `AWS_BEARER_TOKEN_BEDROCK`, from the
    /// VM's environment.
    Environment {},
    /// The endpoint of ECS or of EKS Pod Identity: `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` or `…_FULL_URI` say where,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN` what to show.
    Container {
        /// Envoy's cluster of the endpoint.
        cluster: String,
    },
    /// Version 2 of the instance metadata service, as EC2 and IAM Roles Anywhere's signing helper serve it.
    Imds {
        /// Envoy's cluster of the service.
        cluster: String,
        /// The role whose keys are asked for; the one that the service names, if left out.
        #[serde(default)]
        role: Option<String>,
    },
    /// A secret that holds access keys or a Bedrock API key. Without `using`, from the Secrets Manager Agent.
    SecretsManager {
        /// Envoy's cluster of the agent or of Secrets Manager.
        cluster: String,
        /// The secret's name or ARN.
        secret: String,
        /// Secrets Manager's region, to ask it directly.
        #[serde(default)]
        region: Option<String>,
        /// The credentials that sign the question to Secrets Manager.
        #[serde(default)]
        using: Option<Signer>,
    },
    /// Outbound federation: a token of the GovCloud identity, changed for keys of a Commercial role.
    Federation {
        /// The credentials that sign the question for the token.
        using: Signer,
        /// GovCloud's STS.
        govcloud: Sts,
        /// Commercial STS.
        commercial: Sts,
        /// The Commercial role.
        role_arn: String,
        /// The token's audience, as the role's trust policy has it.
        audience: String,
        /// The session's name, which CloudTrail shows; `bedrock-gateway` if left out.
        #[serde(default = "default_session_name")]
        session_name: String,
        /// How long keys live, 900 to 43200 seconds; 3600 if left out.
        #[serde(default = "default_duration_seconds")]
        duration_seconds: u32,
        /// Tags in the token, which the session carries.
        #[serde(default)]
        tags: BTreeMap<String, String>,
    },
}

/// A source of the GovCloud credentials with which others are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "source", rename_all = "snake_case", deny_unknown_fields)]
pub enum Signer {
    /// As the source of this name.
    Container {
        /// Envoy's cluster of the endpoint.
        cluster: String,
    },
    /// As the source of this name.
    Imds {
        /// Envoy's cluster of the service.
        cluster: String,
        /// The role whose keys are asked for; the one that the service names, if left out.
        #[serde(default)]
        role: Option<String>,
    },
}

/// An endpoint of the Security Token Service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Sts {
    /// Envoy's cluster of it.
    pub cluster: String,
    /// Its region.
    pub region: String,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, as a path from the top: `route_classes[0].paths[1]`; `.` for the document.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration key `{}`: {}", self.key, self.problem)
    }
}

impl Config {
    /// Parses the document.
    ///
    /// # Errors
    /// [`ConfigError`] for what is no JSON, unknown and missing keys, and values of another kind.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        check_keys(json)?;
        parse(json)
    }
}

/// Refuses a document in which an object has a key twice: of a table of models or regions, the last would win in silence.
///
/// # Errors
/// [`ConfigError`] names the object and the key; it is also what no JSON is.
pub fn check_keys(json: &[u8]) -> Result<(), ConfigError> {
    parse::<Unique>(json).map(|Unique| ())
}

impl RelayPlace {
    /// Parses a document, if it is the relay's, which has a key `relay`.
    ///
    /// # Errors
    /// [`ConfigError`], as for the others.
    pub fn parse(json: &[u8]) -> Option<Result<Self, ConfigError>> {
        serde_json::from_slice::<serde_json::Value>(json).ok()?.get("relay")?;
        Some(parse(json).map(|Relay { relay }| relay))
    }
}

/// Any JSON whose objects have each key once.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self, A::Error> {
        while values.next_element::<Self>()?.is_some() {}
        Ok(Self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some((key, Self)) = entries.next_entry::<String, Self>()? {
            if let Some(key) = keys.replace(key) {
                return Err(serde::de::Error::custom(format_args!("the key `{key}` is there twice")));
            }
        }
        Ok(Self)
    }
}

fn parse<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, ConfigError> {
    let mut document = serde_json::Deserializer::from_slice(json);
    let config = serde_path_to_error::deserialize(&mut document)
        .map_err(|error| ConfigError { key: error.path().to_string(), problem: error.inner().to_string() })?;
    document.end().map_err(|error| ConfigError { key: ".".to_owned(), problem: error.to_string() })?;
    Ok(config)
}

impl Default for Models {
    fn default() -> Self {
        Self { allow: all(), deny: Vec::new() }
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self::Environment {}
    }
}

impl Path {
    /// All, in the order in which they are named everywhere.
    pub const ALL: [Self; 3] = [Self::Dx, Self::Vpn, Self::Internet];

    /// The path of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|path| path.name() == name)
    }

    /// The path's name, as in endpoint metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dx => "dx",
            Self::Vpn => "vpn",
            Self::Internet => "internet",
        }
    }
}

impl Principal {
    /// The Envoy property (attribute path) that holds the name.
    pub fn property(&self) -> Vec<&str> {
        match self {
            Self::Mtls {} => vec!["connection", "uri_san_peer_certificate"],
            Self::Jwt { payload, claim } => {
                vec!["metadata", "filter_metadata", "envoy.filters.http.jwt_authn", payload, claim]
            }
        }
    }
}

fn default_session_name() -> String {
    "bedrock-gateway".to_owned()
}

const fn default_duration_seconds() -> u32 {
    3600
}

const fn default_credentials_wait_ms() -> u32 {
    2000
}

const fn default_failback_seconds() -> u32 {
    5
}

const fn default_max_body_bytes() -> u64 {
    25 << 20
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

    #[test]
    fn schema_in_docs_is_current() {
        let mut schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        schema["title"] = "Configuration of the Bedrock gateway filter".into();
        let generated = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let file = format!("{DOCS}/configuration.schema.json");
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&file, &generated).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap();
        assert!(kept == generated, "{file} is old: run UPDATE_SCHEMA=1 cargo test -p filter-core schema");
    }

    #[test]
    fn every_key_is_documented() {
        let page = std::fs::read_to_string(format!("{DOCS}/configuration.md")).unwrap();
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        for key in schema["properties"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("| `{key}` |")), "docs/configuration.md lacks `{key}`");
        }
    }
}
