//! The part of an audit record that comes from Envoy's access log.

/// Identifies an exchange and its start. The decoder checks both before it makes a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeKey {
    /// [`ExchangeFacts::id`](crate::ExchangeFacts::id); Envoy's stream id where the filter left no facts; an id that the
    /// decoder makes where Envoy has none either.
    pub request_id: String,
    /// What the record describes, if it is not an exchange that Envoy logged.
    pub kind: Option<RecordKind>,
    /// RFC 3339, UTC, milliseconds (`2026-01-02T03:04:05.678Z`).
    pub time: String,
    /// The same time in whole seconds since 1970.
    pub epoch_seconds: u64,
}

/// What a record describes that is not of an exchange which Envoy logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A connection on which Envoy could read no request.
    Connection,
    /// An exchange with an intent, of whose end nothing is known.
    OutcomeUnknown,
    /// An exchange whose end the gateway reported, and Envoy's log does not have.
    Unlogged,
    /// A worker's VM started.
    VmStart,
    /// A worker's VM ended.
    VmEnd,
    /// Envoy started.
    EnvoyStart,
    /// Envoy ended.
    EnvoyEnd,
    /// Exchanges of a VM that have no record, though later ones have.
    Hole,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Connection,
        Self::OutcomeUnknown,
        Self::Unlogged,
        Self::VmStart,
        Self::VmEnd,
        Self::EnvoyStart,
        Self::EnvoyEnd,
        Self::Hole,
    ];

    /// Whether the record is of a call.
    pub const fn is_call(self) -> bool {
        matches!(self, Self::OutcomeUnknown | Self::Unlogged)
    }

    /// The value of the record's field `kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Unlogged => "unlogged",
            Self::VmStart => "vm_start",
            Self::VmEnd => "vm_end",
            Self::EnvoyStart => "envoy_start",
            Self::EnvoyEnd => "envoy_end",
            Self::Hole => "hole",
        }
    }
}

/// Envoy's own measurements of an exchange, read from either access log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvoyEntry {
    /// The client's address, without the port.
    pub source_address: Option<String>,
    /// HTTP status sent to the client; 0 if the client left before one was sent.
    pub status: u16,
    /// Response flags in Envoy's short form, sorted and separated by commas (`UF,URX`).
    pub response_flags: Option<String>,
    /// Request body bytes from the client.
    pub bytes_in: u64,
    /// Response body bytes to the client.
    pub bytes_out: u64,
    /// First byte of the request to last byte of the response.
    pub duration_ms: u64,
    /// First byte of the request to first byte of the upstream's response.
    pub first_byte_ms: Option<u64>,
    /// Upstream attempts that Envoy counted. For a relayed stream it counts the hop to the relay.
    pub attempts: u32,
    /// The path in the metadata of the last endpoint. The relay's endpoint has none.
    pub path: Option<String>,
}
