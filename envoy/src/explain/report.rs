//! The output of `explain` as data: `--json` prints it, and `text.rs` writes it for people. It holds no secret.

use filter_core::names::{PathName, RegionName};
use serde::Serialize;

use super::compare::Difference;
use super::reasons::{self, Verdict};
use super::rules;

/// What `explain` says about a request.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Assumptions and hints.
    pub notes: Vec<String>,
    /// The request line.
    pub request: Line,
    /// The operation; absent if none has this method and path.
    pub operation: Option<Operation>,
    /// The model, if the operation names one.
    pub model: Option<Model>,
    /// The classes up to the one that took the call.
    pub classes: Vec<Verdict>,
    /// What the rules decided; absent if the document has none, or the call was refused before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<rules::Verdict>,
    /// What the class allows.
    pub limits: Option<Limits>,
    /// The clusters that the call may be sent to.
    pub routes: Vec<Route>,
    /// The cluster of the relay that a stream goes through first.
    pub relay: Option<String>,
    /// Where a record says that its call went.
    pub record: Option<RecordedRoute>,
    /// What is shown to the caller, where the gateway answers or leaves something out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The gateway's own reply, if the call is refused.
    pub refusal: Option<Refusal>,
    /// The first attempts, one for each host.
    pub attempts: Vec<Attempt>,
    /// AWS's refusal, compared.
    pub aws: Option<Comparison>,
}

/// A request line.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Line {
    /// The method; absent for a record.
    pub method: Option<String>,
    /// Path and query; absent for a record.
    pub path: Option<String>,
    /// The length of the body in bytes.
    pub body_bytes: u64,
}

/// An operation.
#[derive(Debug, Clone, Serialize)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// The service that serves it.
    pub service: &'static str,
}

/// The model of a call.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// From the client's name to the id that rules and tables know.
    #[serde(flatten)]
    pub id: reasons::Model,
    /// What is sent to each region.
    pub regions: Vec<RegionModel>,
}

/// What is sent to a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegionModel {
    /// The region.
    pub region: RegionName,
    /// The model or inference profile.
    pub model: String,
    /// The reason.
    pub because: String,
}

/// What a class allows, and what its calls are given.
#[derive(Debug, Clone, Serialize)]
pub struct Limits {
    /// Calls of one caller in a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens of one caller in a minute.
    pub tokens_per_minute: Option<u32>,
    /// Calls of one caller at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_calls: Option<u32>,
    /// Longest body in bytes.
    pub max_body_bytes: u64,
    /// KiB/s of all calls of the class together.
    pub bandwidth_kbps: Option<u64>,
    /// Milliseconds until the first byte of a response, after which another endpoint is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_timeout_ms: Option<u128>,
    /// Seconds beyond which the lists of a region decide no call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalogue_max_age_seconds: Option<u32>,
    /// DSCP of the packets to the upstreams.
    pub dscp: Option<u8>,
}

/// A cluster that the call may be sent to.
#[derive(Debug, Clone, Serialize)]
pub struct Route {
    /// Its name in Envoy.
    pub cluster: String,
    /// The weight of the first path and the sum of all weights; absent: the path does not depend on weights.
    pub path_weight: Option<(u32, u32)>,
    /// The weight of the first region and the sum of all weights; absent: the region does not depend on weights.
    pub region_weight: Option<(u32, u32)>,
    /// Where the call is tried, in order.
    pub tries: Vec<Try>,
}

/// An endpoint where a call is tried.
#[derive(Debug, Clone, Serialize)]
pub struct Try {
    /// The path.
    pub path: PathName,
    /// The region.
    pub region: RegionName,
    /// The host name.
    pub host: String,
    /// Whether `--path` gives this path; without `--path`, every path is given.
    pub given: bool,
}

/// Where a record says that its call went.
#[derive(Debug, Clone, Serialize)]
pub struct RecordedRoute {
    /// The class.
    pub class: Option<String>,
    /// The path.
    pub path: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// What the document decides differently now.
    pub differs: Vec<String>,
}

/// The gateway's own reply.
#[derive(Debug, Clone, Serialize)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// An answer that the gateway gives, or changes.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// The gateway's own; absent if Bedrock answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnAnswer>,
    /// The keys that decide what is shown.
    pub because: Vec<String>,
}

/// An answer of the gateway's own API.
#[derive(Debug, Clone, Serialize)]
pub struct OwnAnswer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: serde_json::Value,
}

/// A first attempt.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    /// The path.
    pub path: PathName,
    /// The region.
    pub region: RegionName,
    /// The host.
    pub host: String,
    /// Absent with `auth: bearer`.
    pub signature: Option<Stages>,
    /// The request line as sent.
    pub request_line: String,
    /// The headers as sent, secrets masked.
    pub headers: Vec<(String, String)>,
    /// Headers of the client that do not cross.
    pub kept_back: Vec<String>,
}

/// The stages of a signature, the session token masked.
#[derive(Debug, Clone, Serialize)]
pub struct Stages {
    /// The canonical request.
    pub canonical_request: String,
    /// The string to sign.
    pub string_to_sign: String,
    /// The signature.
    pub signature: String,
}

/// AWS's refusal, compared with an attempt.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The error's code.
    pub code: Option<String>,
    /// What differs.
    pub differences: Vec<Difference>,
    /// What the refusal means if nothing differs or nothing can be compared.
    pub meaning: Option<String>,
}
