//! Access log entry → [`AuditRecord`]. [`line`] and [`als`] parse their source into [`Entry`]; [`Entry::record`] makes
//! the record, so that both sources give equal records of an exchange.

pub mod als;
pub mod line;

use audit::{ATTEMPT_STATE, AttemptFacts, AuditRecord, EXCHANGE_STATE, EnvoyEntry, ExchangeFacts, ExchangeKey};
use time::OffsetDateTime;

use crate::timestamp::timestamp;

/// DynamoDB's limit for a hash key, in bytes. It applies to both stores, so that each accepts what the other accepts.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
const MAX_ID: usize = 2048;

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not a log entry: {0}")]
    Line(#[source] serde_json::Error),
    #[error("start time is missing or not RFC 3339")]
    Time,
    #[error("no request id of 1 to {MAX_ID} bytes")]
    Id,
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
    envoy: EnvoyEntry,
    /// JSON of [`ExchangeFacts`].
    exchange: Option<Vec<u8>>,
    /// JSON of [`AttemptFacts`].
    attempt: Option<Vec<u8>>,
}

impl Entry {
    fn record(self) -> Result<AuditRecord, DecodeError> {
        let start = self.start.ok_or(DecodeError::Time)?;
        let exchange: ExchangeFacts = parse(self.exchange, EXCHANGE_STATE)?;
        let attempt: AttemptFacts = parse(self.attempt, ATTEMPT_STATE)?;
        let request_id = present(Some(exchange.id.clone())).or(self.stream_id).filter(|id| id.len() <= MAX_ID);
        let key = ExchangeKey {
            request_id: request_id.ok_or(DecodeError::Id)?,
            time: timestamp(start).ok_or(DecodeError::Time)?,
            epoch_seconds: u64::try_from(start.unix_timestamp()).map_err(|_| DecodeError::Time)?,
        };
        Ok(AuditRecord::new(key, self.envoy, exchange, attempt))
    }
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
