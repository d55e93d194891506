//! The facts that the filter writes to Envoy's filter state. Envoy's access log prints both objects; the signer also
//! reads its own between attempts.

use serde::{Deserialize, Serialize};

/// Filter-state key of [`ExchangeFacts`], as Envoy names it.
pub const EXCHANGE_STATE: &str = "wasm.bedrock.exchange";
/// Filter-state key of [`AttemptFacts`], as Envoy names it.
pub const ATTEMPT_STATE: &str = "wasm.bedrock.attempt";

/// Token counts of one exchange, as Bedrock reports them: `input` excludes tokens read from or written to the prompt
/// cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Of these, the tokens that stay for five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_5m: Option<u64>,
    /// Of these, the tokens that stay for an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<u64>,
}

impl Usage {
    /// Each field of `self`, or that of `other` where `self` has none.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            input: self.input.or(other.input),
            output: self.output.or(other.output),
            cache_read: self.cache_read.or(other.cache_read),
            cache_write: self.cache_write.or(other.cache_write),
            cache_write_5m: self.cache_write_5m.or(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.or(other.cache_write_1h),
        }
    }
}

/// Units that guardrails processed, as Bedrock bills them by policy. Word filters and free units are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardrailUnits {
    /// Text units of the content filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<u64>,
    /// Images of the content filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<u64>,
    /// Text units of denied topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<u64>,
    /// Text units of the filters of sensitive information.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitive: Option<u64>,
    /// Text units of the contextual grounding check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grounding: Option<u64>,
    /// Text units of automated reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
}

impl GuardrailUnits {
    /// Whether no guardrail reported units.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The sums.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        Self {
            content: sum(self.content, other.content),
            image: sum(self.image, other.image),
            topic: sum(self.topic, other.topic),
            sensitive: sum(self.sensitive, other.sensitive),
            grounding: sum(self.grounding, other.grounding),
            reasoning: sum(self.reasoning, other.reasoning),
        }
    }
}

/// Bedrock's choices that change what a call costs and how fast it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The service tier: `default`, `priority`, `flex`, `reserved`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The latency mode: `standard`, `optimized`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
}

impl Serving {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each field of `self`, or that of `other` where `self` has none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { tier: self.tier.or(other.tier), latency: self.latency.or(other.latency) }
    }
}

/// How an event stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamOutcome {
    /// The event came that ends it.
    Complete,
    /// It did not.
    Incomplete,
}

impl StreamOutcome {
    /// Its name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Token counts that the gateway estimated from bytes, because the response did not report them to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Input tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// Output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
}

/// Facts of the gateway role. An absent field is unknown, never zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeFacts {
    /// The request id, unique to the exchange. Local replies carry it as `x-amzn-requestid`.
    pub id: String,
    /// The caller, as the mesh proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The operation's name (`Converse`, `ListFoundationModels` …); absent if the request matches no operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The API that the client called, if not Bedrock's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// The model id that the client named, decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The models that it runs, with commas between, if its id does not say that and the gateway found it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_models: Option<String>,
    /// The project that the request names, as it names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The route class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The rule that decided about the call, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What the rules decided; absent if the document has none, or the call was refused before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_decision: Option<RuleDecision>,
    /// Bedrock's request id (`x-amzn-requestid` of its response).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_id: Option<String>,
    /// The error type of the response: the filter's own, Bedrock's `x-amzn-errortype`, or that of an exception in the
    /// event stream (which follows a status of 200).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Token counts of the response.
    #[serde(default)]
    pub usage: Usage,
    /// Estimates of counts that the response lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// What the request asked for.
    #[serde(default, skip_serializing_if = "Serving::is_empty")]
    pub asked: Serving,
    /// What the response says it got.
    #[serde(default, skip_serializing_if = "Serving::is_empty")]
    pub served: Serving,
    /// The model that a prompt router chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoked: Option<String>,
    /// What guardrails processed.
    #[serde(default, skip_serializing_if = "GuardrailUnits::is_empty")]
    pub guardrail: GuardrailUnits,
    /// How the response's event stream ended; absent for a response without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamOutcome>,
    /// Method and path of a request that matches no operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_path: Option<String>,
    /// Set for a call that went through the relay: Envoy's log has only the hop to the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relayed: Option<Relayed>,
    /// How the route class is audited; absent for the default, `best_effort`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditMode>,
    /// The VM that handled the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmFacts>,
}

/// What the rules decided about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleDecision {
    /// It was let pass.
    Allowed,
    /// It was refused.
    Denied,
    /// It was let pass, and rules that are only tried would have refused it.
    WouldDeny,
}

impl RuleDecision {
    /// Its name in records and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::WouldDeny => "would_deny",
        }
    }
}

/// What a route class demands of the audit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditMode {
    /// A call leaves only once the collector has its intent on disk.
    Required,
    /// A call leaves without waiting; lost records are counted.
    #[default]
    BestEffort,
    /// The collector keeps no record.
    Off,
}

impl AuditMode {
    /// Its name in configuration and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::BestEffort => "best_effort",
            Self::Off => "off",
        }
    }
}

/// A worker's VM and its counters, when it logged the call. The counters begin with the VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmFacts {
    /// The VM's random id.
    pub id: String,
    /// The random id that all VMs of one Envoy process share.
    pub envoy: String,
    /// Calls that began.
    pub begun: u64,
    /// Calls that were logged, this one included: its number in the VM, from 1 without gaps.
    pub logged: u64,
    /// Calls that have begun and are not logged yet.
    pub in_flight: u64,
}

/// The upstream side of a relayed call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// The path of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Upstream attempts.
    pub attempts: u32,
}

impl ExchangeFacts {
    /// One line of compact JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Most are not longer. Serialising strings and numbers cannot fail.
        let mut json = Vec::with_capacity(512);
        serde_json::to_writer(&mut json, self).map(|()| json).unwrap_or_default()
    }
}

/// Facts of the signer role, of the last attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFacts {
    /// The model id or inference profile that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The region that the attempt was signed for.
    pub region: String,
    /// The access key id that signed; absent with a Bedrock API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// The ARN of the role session of that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The claim `jti` of the web identity token that the session was issued for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// The data retention mode of the region when the attempt was signed, where its class demands one and the mode is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
    /// Path and region (`dx/us-east-1`) of the exchange's attempts in order, this one included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
    /// Set after Bedrock refused an attempt's credentials or time and the call was signed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resigned: Option<Resigned>,
    /// The attempt, from 1, whose model Bedrock refused to run on demand. The next one was to go by an inference profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_on_demand: Option<u32>,
}

impl AttemptFacts {
    /// Reads the filter state of an attempt; `None` if it is not one.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

/// Why a call was signed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resigned {
    /// The credentials of this generation are expired or invalid.
    Credentials(u64),
    /// The local clock was wrong.
    Clock,
}
