//! Access log entry → [`AuditRecord`]. [`line`] and [`als`] parse their source into [`Entry`]; [`Entry::record`] makes
//! the record, so that both sources give equal records of an exchange.

pub mod als;
pub mod line;

use audit::text::visible_json;
use audit::{
    ATTEMPT_STATE, AttemptFacts, AuditRecord, EXCHANGE_STATE, EnvoyEntry, ExchangeFacts, ExchangeKey, RecordKind,
};
use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::batch::Rejected;
use crate::hash::fnv1a;
use crate::timestamp::timestamp;

/// DynamoDB's limit for a hash key, in bytes. It applies to both stores, so that each accepts what the other accepts.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
const MAX_ID: usize = 2048;
/// Envoy's details of a request that its overload manager refused. No filter saw it, and Envoy 1.40 sets no flag.
const OVERLOAD: &str = "overload";
/// Envoy's details of a reply in place of a filter whose VM failed. The filter leaves no facts of it.
const VM_FAILED: &str = "wasm_fail_stream";
/// The error that `local_reply_config` gives either answer.
const REFUSED: &str = "ServiceUnavailableException";

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
    #[error("the entry was not kept as a whole")]
    Cut,
}

/// An access log entry whose filter state is not parsed yet.
#[derive(Debug, Default)]
struct Entry {
    start: Option<OffsetDateTime>,
    stream_id: Option<String>,
    /// Whether Envoy could read a request.
    is_request: bool,
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
        let mut other = Map::new();
        let mut exchange: ExchangeFacts = parse(self.exchange, EXCHANGE_STATE, &mut other)?;
        let attempt: AttemptFacts = parse(self.attempt, ATTEMPT_STATE, &mut other)?;
        let other = (!other.is_empty()).then(|| visible_json(&Value::Object(other).to_string()));
        let id = present(Some(exchange.id.clone())).or(self.stream_id);
        let details = self.details.as_deref().unwrap_or_default();
        if [OVERLOAD, VM_FAILED].contains(&details) {
            exchange.error.get_or_insert_with(|| REFUSED.to_owned());
        }
        let connection = id.is_none() && !self.is_request && details != OVERLOAD;
        let request_id = match id {
            Some(id) if id.len() <= MAX_ID => id,
            other => own_id(start, self.peer.as_deref(), &self.envoy, other.as_deref()),
        };
        let key = ExchangeKey {
            request_id,
            kind: connection.then_some(RecordKind::Connection),
            time: timestamp(start).ok_or(DecodeError::Time)?,
            epoch_seconds: u64::try_from(start.unix_timestamp()).map_err(|_| DecodeError::Time)?,
        };
        Ok(AuditRecord::new(key, self.envoy, exchange, attempt, other))
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

/// What a newer filter added, or writes in another form, goes to `other`: an older collector must not reject its entries.
fn parse<T: DeserializeOwned + Default>(
    json: Option<Vec<u8>>,
    key: &'static str,
    other: &mut Map<String, Value>,
) -> Result<T, DecodeError> {
    let Some(json) = json else { return Ok(T::default()) };
    let mut unknown = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(&json);
    let read = serde_ignored::deserialize(&mut reader, |path| unknown.push(keys(&path)));
    let failed = |cause| DecodeError::Facts { key, cause };
    let name = key.rsplit('.').next().unwrap_or(key);
    match read.and_then(|facts| reader.end().map(|()| facts)) {
        Ok(facts) if unknown.is_empty() => Ok(facts),
        Ok(facts) => {
            let whole: Value = serde_json::from_slice(&json).map_err(failed)?;
            for path in unknown {
                keep(other.entry(name).or_insert_with(|| Value::Object(Map::new())), &path, &whole);
            }
            Ok(facts)
        }
        Err(cause) => {
            let Ok(mut facts) = serde_json::from_slice::<Map<String, Value>>(&json) else { return Err(failed(cause)) };
            let mut base = facts.clone();
            base.retain(|name, _| NEEDED.contains(&name.as_str()));
            let mut strange = Map::new();
            facts.retain(|name, value| {
                let mut one = base.clone();
                one.insert(name.clone(), value.clone());
                let fits = base.contains_key(name) || serde_json::from_value::<T>(Value::Object(one)).is_ok();
                if !fits {
                    strange.insert(name.clone(), value.clone());
                }
                fits
            });
            if strange.is_empty() {
                return Err(failed(cause));
            }
            let rest = parse(Some(Value::Object(facts).to_string().into_bytes()), key, other)?;
            if let Value::Object(kept) = other.entry(name).or_insert_with(|| Value::Object(Map::new())) {
                kept.extend(strange);
            }
            Ok(rest)
        }
    }
}

/// Without these, facts are not facts.
const NEEDED: [&str; 2] = ["id", "region"];

/// The keys that lead to a value.
fn keys(path: &serde_ignored::Path<'_>) -> Vec<String> {
    use serde_ignored::Path;
    match path {
        Path::Root => Vec::new(),
        Path::Seq { parent, .. }
        | Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => keys(parent),
        Path::Map { parent, key } => keys(parent).into_iter().chain([key.clone()]).collect(),
    }
}

/// Copies the value at a path.
fn keep(to: &mut Value, path: &[String], from: &Value) {
    let [key, rest @ ..] = path else { return };
    let (Some(from), Value::Object(to)) = (from.get(key), to) else { return };
    if rest.is_empty() {
        to.insert(key.clone(), from.clone());
    } else {
        keep(to.entry(key).or_insert_with(|| Value::Object(Map::new())), rest, from);
    }
}

/// Decodes an entry that was rejected, by an older release perhaps.
pub fn again(rejected: &Rejected) -> Result<AuditRecord, DecodeError> {
    match rejected.source.as_str() {
        _ if !rejected.whole => Err(DecodeError::Cut),
        "file" => line::record(&rejected.content),
        "als" => {
            let entry = HttpAccessLogEntry::decode(rejected.content.as_slice()).map_err(|_| DecodeError::Cut)?;
            als::record(&entry)
        }
        // A record that the store refused.
        _ => serde_json::from_slice(&rejected.content).map_err(DecodeError::Line),
    }
}
