//! What an exchange leaves behind: the facts that the filter knows, as it hands them to Envoy's access log, and the
//! record that the collector makes of them.
//!
//! The filter writes two filter-state objects, each one line of compact JSON: `wasm.bedrock.exchange`
//! ([`ExchangeFacts`], role `gateway` or `combined`) and `wasm.bedrock.attempt` ([`AttemptFacts`], role `signer` or
//! `combined`, overwritten by each attempt). Everything else in a record is Envoy's own: times, bytes, status, path.

use serde::{Deserialize, Serialize};

/// Filter-state key of [`ExchangeFacts`], as Envoy names it.
pub const EXCHANGE_STATE: &str = "wasm.bedrock.exchange";
/// Filter-state key of [`AttemptFacts`], as Envoy names it.
pub const ATTEMPT_STATE: &str = "wasm.bedrock.attempt";
/// Days after which a record expires.
pub const RETENTION_DAYS: u64 = 30;

/// The names by which a DynamoDB table keeps records: its keys, its index and its TTL attribute. The collector makes and
/// reads the table by them, and the template in `infra/` is checked against them.
pub mod table {
    /// Hash key, a text.
    pub const KEY: &str = "request_id";
    /// The index of a day's records.
    pub const INDEX: &str = "by_time";
    /// Hash key of the index, a text: `2026-11-22#07`.
    pub const INDEX_HASH: &str = "day_shard";
    /// Range key of the index, a text.
    pub const INDEX_RANGE: &str = "time";
    /// TTL attribute, a number.
    pub const TTL: &str = "expires_at";
}

/// Token counts of one exchange. `input` excludes what came from or went to the prompt cache, as Bedrock counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Input tokens that were not cached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// Output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Input tokens read from the prompt cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<u64>,
    /// Input tokens written to the prompt cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<u64>,
}

impl Usage {
    /// Field by field, what `self` tells, else what `other` tells.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            input: self.input.or(other.input),
            output: self.output.or(other.output),
            cache_read: self.cache_read.or(other.cache_read),
            cache_write: self.cache_write.or(other.cache_write),
        }
    }
}

impl Usage {
    /// Tokens as Bedrock counts them for its quotas: what is read from the cache is not counted.
    pub fn quota_tokens(&self) -> u64 {
        [self.input, self.output, self.cache_write].into_iter().flatten().fold(0, u64::saturating_add)
    }
}

/// What the gateway role knows of an exchange. Absent fields are unknown, never zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeFacts {
    /// The request id, unique to the exchange; the caller sees it in `x-amzn-requestid` of local replies.
    pub id: String,
    /// Who calls, as the mesh proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The operation's name (`Converse`, `ListFoundationModels` …); absent where the call was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The model id that the client named, decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The route class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Bedrock's own request id (`x-amzn-requestid` of its response).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_id: Option<String>,
    /// The error type of the answer: the filter's own, Bedrock's `x-amzn-errortype`, or that of an exception inside the
    /// event stream (which arrives after a 200).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Tokens, where the response told them.
    #[serde(default)]
    pub usage: Usage,
    /// Where a call that went through the relay was sent: Envoy's log knows of the relay alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relayed: Option<Relayed>,
}

/// What lies behind the relay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// The path of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Tries upstream.
    pub attempts: u32,
}

impl ExchangeFacts {
    /// One line of compact JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // A map of strings and numbers: serialising it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What the signer role knows of the last attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFacts {
    /// The model id or inference profile that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The region that the attempt was signed for.
    pub region: String,
    /// Path and region of this exchange's attempts, itself included (`dx/us-east-1`), in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
    /// Set where Bedrock refused the credentials or the time of an attempt, and the call was signed anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resigned: Option<Resigned>,
}

/// Why a call was signed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resigned {
    /// These credentials (their generation) are expired or invalid.
    Credentials(u64),
    /// The clock was off.
    Clock,
}

/// One exchange, as the collector stores it. Field names are those of the stores and of `audit-collector query --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// The request id: the record's key. Where the filter left no facts, Envoy's stream id.
    pub request_id: String,
    /// When the request's first byte arrived: RFC 3339, UTC, milliseconds (`2026-01-02T03:04:05.678Z`).
    pub time: String,
    /// Who called, as the mesh proves it.
    pub principal: Option<String>,
    /// The client's address, without the port.
    pub source_address: Option<String>,
    /// The operation.
    pub operation: Option<String>,
    /// The model id that the client named.
    pub model_asked: Option<String>,
    /// The model id or inference profile that crossed.
    pub model_sent: Option<String>,
    /// The route class.
    pub route_class: Option<String>,
    /// The region that answered.
    pub region: Option<String>,
    /// The path (`dx`, `vpn`, `internet`) of the last attempt.
    pub path: Option<String>,
    /// Tries upstream; 0 where nothing was sent.
    pub attempts: u32,
    /// HTTP status sent to the client; 0 where the client left before one.
    pub status: u16,
    /// The error type of the answer (`ThrottlingException` …), or Envoy's response flags where Envoy ended it (`UC`).
    pub error_type: Option<String>,
    /// Body bytes received from the client.
    pub bytes_in: u64,
    /// Body bytes sent to the client.
    pub bytes_out: u64,
    /// Input tokens that were not cached.
    pub tokens_in: Option<u64>,
    /// Output tokens.
    pub tokens_out: Option<u64>,
    /// Input tokens read from the prompt cache.
    pub tokens_cache_read: Option<u64>,
    /// Input tokens written to the prompt cache.
    pub tokens_cache_write: Option<u64>,
    /// First byte of the request to last byte of the response, in milliseconds.
    pub latency_ms: u64,
    /// First byte of the request to first byte of the upstream's response, in milliseconds.
    pub first_byte_ms: Option<u64>,
    /// Bedrock's own request id.
    pub upstream_request_id: Option<String>,
    /// When the record expires: epoch seconds, [`RETENTION_DAYS`] after `time`.
    pub expires_at: u64,
}
