//! Access log entry → [`AuditRecord`]. [`line`] and [`als`] parse their source into [`Entry`]; [`Entry::record`] makes
//! the record, so that both sources give equal records of an exchange.

pub mod als;
pub mod line;

use audit::{ATTEMPT_STATE, AttemptFacts, AuditRecord, EXCHANGE_STATE, EnvoyEntry, ExchangeFacts, ExchangeKey};
use time::OffsetDateTime;

use crate::hash::fnv1a;
use crate::timestamp::timestamp;

/// DynamoDB's limit for a hash key, in bytes. It applies to both stores, so that each accepts what the other accepts.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
const MAX_ID: usize = 2048;
/// Envoy's details of a request that its overload manager refused. No filter saw it, and Envoy 1.40 sets no flag.
const OVERLOAD: &str = "overload";
/// The error that `local_reply_config` gives the answer.
const OVERLOAD_ERROR: &str = "ServiceUnavailableException";

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not a log entry: {0}")]
    Line(#[source] serde_json::Error),
    #[error("start time is missing or not RFC 3339")]
    Time,
    #[error("filter state {key}: {cause}")]
    Facts { key: &'static str, cause: serde_json::Error },
    #[error("filter state {key} has type {type_url:?}")]
    FactsType { key: &'static str, type_url: String },
}

/// An access log entry whose filter state is not parsed yet.
#[derive(Debug, Default)]
struct Entry {
    start: Option<OffsetDateTime>,
    stream_id: Option<String>,
    /// The client's address with its port.
    peer: Option<String>,
    /// Envoy's details of the response.
    details: Option<String>,
    envoy: EnvoyEntry,
    /// JSON of [`ExchangeFacts`].
    exchange: Option<Vec<u8>>,
    /// JSON of [`AttemptFacts`].
    attempt: Option<Vec<u8>>,
}

impl Entry {
    fn record(self) -> Result<AuditRecord, DecodeError> {
        let start = self.start.ok_or(DecodeError::Time)?;
        let mut exchange: ExchangeFacts = parse(self.exchange, EXCHANGE_STATE)?;
        let attempt: AttemptFacts = parse(self.attempt, ATTEMPT_STATE)?;
        let id = present(Some(exchange.id.clone())).or(self.stream_id);
        let overloaded = self.details.as_deref() == Some(OVERLOAD);
        if overloaded {
            exchange.error.get_or_insert_with(|| OVERLOAD_ERROR.to_owned());
        }
        let connection = id.is_none() && !overloaded;
        let request_id = match id {
            Some(id) if id.len() <= MAX_ID => id,
            other => own_id(start, self.peer.as_deref(), &self.envoy, other.as_deref()),
        };
        let key = ExchangeKey {
            request_id,
            connection,
            time: timestamp(start).ok_or(DecodeError::Time)?,
            epoch_seconds: u64::try_from(start.unix_timestamp()).map_err(|_| DecodeError::Time)?,
        };
        Ok(AuditRecord::new(key, self.envoy, exchange, attempt))
    }
}

/// An id for an entry without a usable one, so that no client can cause an entry that is rejected: Envoy has no stream id
/// for a request whose headers it could not read. It is made of values that both sources have, so that an entry that comes
/// again has the same id.
fn own_id(start: OffsetDateTime, peer: Option<&str>, envoy: &EnvoyEntry, too_long: Option<&str>) -> String {
    let peer = peer.or(envoy.source_address.as_deref()).unwrap_or_default();
    let rest = format!("{} {} {} {too_long:?}", envoy.status, envoy.bytes_in, envoy.bytes_out);
    // A Unix socket's address can be long.
    let peer: String = peer.chars().take(64).collect();
    format!("envoy-{}-{peer}-{:016x}", start.unix_timestamp_nanos(), fnv1a(rest.as_bytes()))
}

/// Envoy prints `-` or nothing for an absent value.
fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty() && text != "-")
}

/// The two sources order response flags differently: the file as they were set, the gRPC message by field.
fn sorted(flags: &str) -> String {
    let mut flags: Vec<_> = flags.split(',').collect();
    flags.sort_unstable();
    flags.join(",")
}

fn parse<T: serde::de::DeserializeOwned + Default>(json: Option<Vec<u8>>, key: &'static str) -> Result<T, DecodeError> {
    let Some(json) = json else { return Ok(T::default()) };
    serde_json::from_slice(&json).map_err(|cause| DecodeError::Facts { key, cause })
}
