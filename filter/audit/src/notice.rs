//! What the gateway tells the collector while calls run, over a local socket: HTTP `POST` with a JSON body. 204 means that it
//! is on disk; any other status means that it is not.

use serde::{Deserialize, Serialize};

use crate::facts::{AttemptFacts, ExchangeFacts};

/// Where an [`Intent`] goes.
pub const INTENTS: &str = "/v1/intents";
/// Where a [`VmReport`] goes.
pub const REPORTS: &str = "/v1/reports";

/// A call that is about to leave for Bedrock. An exchange has one intent, whatever its attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// When the call began, in milliseconds since 1970.
    pub time_ms: u64,
    /// What is known of the call before it leaves; its VM's counters are those of now, and `logged` does not count this call.
    pub exchange: ExchangeFacts,
}

/// A VM's counters, and the ends of calls since its last report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmReport {
    /// The VM's random id.
    pub vm: String,
    /// The random id that all VMs of one Envoy process share.
    pub envoy: String,
    /// When the report was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// Calls that began.
    pub begun: u64,
    /// Calls that were logged.
    pub logged: u64,
    /// The VM begins no call beyond this number without another report, if it can send one. So it bounds what a crash loses.
    pub may_begin: u64,
    /// Ends of calls that have an intent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<End>,
}

/// The end of an exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When it ended, in milliseconds since 1970.
    pub time_ms: u64,
    /// HTTP status sent to the client; 0 if the client left first.
    pub status: u16,
    /// The facts that Envoy's log has too.
    pub exchange: ExchangeFacts,
    /// The same of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<AttemptFacts>,
}

impl Intent {
    /// One line of compact JSON.
    pub fn to_json(&self) -> Vec<u8> {
        json(self)
    }
}

impl VmReport {
    /// One line of compact JSON.
    pub fn to_json(&self) -> Vec<u8> {
        json(self)
    }
}

fn json(notice: &impl Serialize) -> Vec<u8> {
    // Serialising texts and numbers cannot fail.
    serde_json::to_vec(notice).unwrap_or_default()
}
