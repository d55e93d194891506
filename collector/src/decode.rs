//! What a source says of an exchange → [`AuditRecord`]. Both sources are first read into [`Entry`], and one function
//! makes the record of it: so the same exchange gives equal records, whichever way it came.

use audit::{ATTEMPT_STATE, AttemptFacts, AuditRecord, EXCHANGE_STATE, ExchangeFacts, RETENTION_DAYS};
use envoy_types::pb::envoy::config::core::v3::{Address, address};
use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogType, HttpAccessLogEntry, ResponseFlags};
use envoy_types::pb::google::protobuf::{Any, BytesValue, Duration, StringValue};
use prost::Message;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// DynamoDB's limit for a hash key, in bytes. It holds for every store, so that none takes what another refuses.
const MAX_ID: usize = 2048;

/// `2026-01-02T03:04:05.678Z`: sorts as text in the order of time.
const TIME: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Why an entry gives no record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The line is not a JSON object with the log's fields.
    #[error("not a log entry: {0}")]
    Line(#[source] serde_json::Error),
    /// There is no start time, or it is none.
    #[error("start time is missing or not RFC 3339")]
    Time,
    /// Neither the filter nor Envoy named the exchange, or the name is longer than a key may be.
    #[error("no request id of 1 to {MAX_ID} bytes")]
    Id,
    /// A filter-state object is not the JSON that the filter writes.
    #[error("filter state {key}: {cause}")]
    Facts {
        /// Its key.
        key: &'static str,
        /// What is wrong.
        cause: serde_json::Error,
    },
    /// A filter-state object came as something else than `StringValue` or `BytesValue`.
    #[error("filter state {key} has type {type_url:?}")]
    FactsType {
        /// Its key.
        key: &'static str,
        /// The type it came as.
        type_url: String,
    },
}

/// One exchange as Envoy tells it, before the filter's facts are read.
#[derive(Debug, Default)]
struct Entry {
    /// When the request's first byte arrived.
    start: Option<OffsetDateTime>,
    source_address: Option<String>,
    status: u16,
    /// Envoy's response flags in its own short form (`URX,UF`), in any order.
    flags: Option<String>,
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: u64,
    first_byte_ms: Option<u64>,
    attempts: u32,
    path: Option<String>,
    stream_id: Option<String>,
    exchange: Option<Vec<u8>>,
    attempt: Option<Vec<u8>>,
}

/// One line of the JSON access log. Keys that are not named here are the operator's own, and left alone.
#[derive(Debug, Deserialize)]
struct Line {
    start_time: Option<String>,
    source_address: Option<String>,
    status: Option<u16>,
    flags: Option<String>,
    bytes_in: Option<u64>,
    bytes_out: Option<u64>,
    duration_ms: Option<u64>,
    first_byte_ms: Option<u64>,
    attempts: Option<u32>,
    path: Option<String>,
    stream_id: Option<String>,
    exchange: Option<String>,
    attempt: Option<String>,
}

/// A line of the access log file (without its newline) → its record.
///
/// # Errors
/// [`DecodeError`], by what the line lacks.
pub fn line(bytes: &[u8]) -> Result<AuditRecord, DecodeError> {
    let line: Line = serde_json::from_slice(bytes).map_err(DecodeError::Line)?;
    record(Entry {
        start: line.start_time.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok()),
        source_address: set(line.source_address),
        status: line.status.unwrap_or(0),
        flags: set(line.flags),
        bytes_in: line.bytes_in.unwrap_or(0),
        bytes_out: line.bytes_out.unwrap_or(0),
        duration_ms: line.duration_ms.unwrap_or(0),
        first_byte_ms: line.first_byte_ms,
        attempts: line.attempts.unwrap_or(0),
        path: set(line.path),
        stream_id: set(line.stream_id),
        exchange: set(line.exchange).map(String::into_bytes),
        attempt: set(line.attempt).map(String::into_bytes),
    })
}

/// Whether an entry tells of a finished exchange. Envoy also logs streams at their start, on upgrades, periodically and
/// per upstream attempt, where it is configured to; those would be a second record of the same exchange.
pub fn finished(entry: &HttpAccessLogEntry) -> bool {
    let kind = entry.common_properties.as_ref().map_or(0, |common| common.access_log_type);
    kind == AccessLogType::NotSet as i32 || kind == AccessLogType::DownstreamEnd as i32
}

/// An entry of the gRPC access log → its record.
///
/// # Errors
/// [`DecodeError`], by what the entry lacks.
pub fn als(entry: &HttpAccessLogEntry) -> Result<AuditRecord, DecodeError> {
    let common = entry.common_properties.clone().unwrap_or_default();
    let request = entry.request.as_ref();
    let response = entry.response.as_ref();
    let tag = |name: &str| set(common.custom_tags.get(name).cloned());
    record(Entry {
        start: common.start_time.as_ref().and_then(|start| {
            let whole = OffsetDateTime::from_unix_timestamp(start.seconds).ok()?;
            whole.checked_add(time::Duration::nanoseconds(i64::from(start.nanos)))
        }),
        source_address: common.downstream_remote_address.as_ref().and_then(host),
        status: response
            .and_then(|response| response.response_code.as_ref())
            .and_then(|code| u16::try_from(code.value).ok())
            .unwrap_or(0),
        flags: tag("flags").or_else(|| set(common.response_flags.as_ref().map(short_flags))),
        bytes_in: request.map_or(0, |request| request.request_body_bytes),
        bytes_out: response.map_or(0, |response| response.response_body_bytes),
        duration_ms: common.duration.as_ref().and_then(millis).unwrap_or(0),
        first_byte_ms: common.time_to_first_upstream_rx_byte.as_ref().and_then(millis),
        attempts: common.upstream_request_attempt_count,
        path: tag("path"),
        stream_id: set(Some(common.stream_id.clone())).or_else(|| tag("stream_id")),
        exchange: facts(common.filter_state_objects.get(EXCHANGE_STATE), EXCHANGE_STATE)?,
        attempt: facts(common.filter_state_objects.get(ATTEMPT_STATE), ATTEMPT_STATE)?,
    })
}

/// The one place where a record is made.
fn record(entry: Entry) -> Result<AuditRecord, DecodeError> {
    let start = entry.start.ok_or(DecodeError::Time)?;
    let exchange: Option<ExchangeFacts> = parse(entry.exchange, EXCHANGE_STATE)?;
    let attempt: Option<AttemptFacts> = parse(entry.attempt, ATTEMPT_STATE)?;
    let exchange = exchange.unwrap_or_default();
    // Of a call that went through the relay, Envoy's own log knows no more than that it did.
    let (path, attempts) =
        exchange.relayed.map_or((entry.path, entry.attempts), |relayed| (relayed.path, relayed.attempts));
    let request_id = set(Some(exchange.id)).or(entry.stream_id).filter(|id| id.len() <= MAX_ID);
    Ok(AuditRecord {
        request_id: request_id.ok_or(DecodeError::Id)?,
        time: start.to_utc().format(TIME).map_err(|_| DecodeError::Time)?,
        principal: exchange.principal,
        source_address: entry.source_address,
        operation: exchange.operation,
        model_asked: exchange.model,
        model_sent: attempt.as_ref().and_then(|attempt| attempt.model.clone()),
        route_class: exchange.class,
        region: attempt.and_then(|attempt| set(Some(attempt.region))),
        path,
        attempts,
        status: entry.status,
        error_type: exchange.error.or_else(|| entry.flags.map(sorted)),
        bytes_in: entry.bytes_in,
        bytes_out: entry.bytes_out,
        tokens_in: exchange.usage.input,
        tokens_out: exchange.usage.output,
        tokens_cache_read: exchange.usage.cache_read,
        tokens_cache_write: exchange.usage.cache_write,
        latency_ms: entry.duration_ms,
        first_byte_ms: entry.first_byte_ms,
        upstream_request_id: exchange.upstream_id,
        expires_at: u64::try_from(start.unix_timestamp()).map_err(|_| DecodeError::Time)? + RETENTION_DAYS * 86_400,
    })
}

/// The time as records write it.
///
/// # Errors
/// [`DecodeError::Time`] for years that four digits cannot hold.
pub fn time_text(time: OffsetDateTime) -> Result<String, DecodeError> {
    time.to_utc().format(TIME).map_err(|_| DecodeError::Time)
}

/// Flags in the order of the alphabet: the file has them in the order in which they were set, and Envoy's message lost that.
fn sorted(flags: String) -> String {
    let mut flags: Vec<_> = flags.split(',').collect();
    flags.sort_unstable();
    flags.join(",")
}

/// Envoy prints `-` or nothing for what is absent.
fn set(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty() && text != "-")
}

fn parse<T: serde::de::DeserializeOwned>(json: Option<Vec<u8>>, key: &'static str) -> Result<Option<T>, DecodeError> {
    let Some(json) = json else { return Ok(None) };
    serde_json::from_slice(&json).map(Some).map_err(|cause| DecodeError::Facts { key, cause })
}

/// A filter-state object's bytes. Wasm's state comes as `BytesValue`, and that of Envoy's own filters as `StringValue`;
/// both hold the text in field 1, but each is read as what it says it is.
fn facts(any: Option<&Any>, key: &'static str) -> Result<Option<Vec<u8>>, DecodeError> {
    let Some(any) = any else { return Ok(None) };
    let unknown = || DecodeError::FactsType { key, type_url: any.type_url.clone() };
    let bytes = match any.type_url.rsplit('/').next().unwrap_or_default() {
        "google.protobuf.BytesValue" => BytesValue::decode(any.value.as_slice()).map_err(|_| unknown())?.value,
        "google.protobuf.StringValue" => {
            StringValue::decode(any.value.as_slice()).map_err(|_| unknown())?.value.into_bytes()
        }
        "google.protobuf.Any" => {
            return facts(Some(&Any::decode(any.value.as_slice()).map_err(|_| unknown())?), key);
        }
        _ => return Err(unknown()),
    };
    Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
}

/// An address without its port, as `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%` prints it.
fn host(address: &Address) -> Option<String> {
    match address.address.as_ref()? {
        address::Address::SocketAddress(socket) => set(Some(socket.address.clone())),
        address::Address::Pipe(pipe) => set(Some(pipe.path.clone())),
        address::Address::EnvoyInternalAddress(_) => None,
    }
}

/// Whole milliseconds, cut off as `%DURATION%` cuts them.
fn millis(duration: &Duration) -> Option<u64> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u64::try_from(duration.nanos).ok()?;
    Some(seconds * 1000 + nanos / 1_000_000)
}

/// The flags of an entry without a `flags` tag, in Envoy's short form (stream_info/utility.h). The tag is
/// better, as this message lacks flags that Envoy got since.
fn short_flags(flags: &ResponseFlags) -> String {
    let table = [
        (flags.failed_local_healthcheck, "LH"),
        (flags.no_healthy_upstream, "UH"),
        (flags.upstream_request_timeout, "UT"),
        (flags.local_reset, "LR"),
        (flags.upstream_remote_reset, "UR"),
        (flags.upstream_connection_failure, "UF"),
        (flags.upstream_connection_termination, "UC"),
        (flags.upstream_overflow, "UO"),
        (flags.no_route_found, "NR"),
        (flags.delay_injected, "DI"),
        (flags.fault_injected, "FI"),
        (flags.rate_limited, "RL"),
        (flags.unauthorized_details.is_some(), "UAEX"),
        (flags.rate_limit_service_error, "RLSE"),
        (flags.downstream_connection_termination, "DC"),
        (flags.upstream_retry_limit_exceeded, "URX"),
        (flags.stream_idle_timeout, "SI"),
        (flags.invalid_envoy_request_headers, "IH"),
        (flags.downstream_protocol_error, "DPE"),
        (flags.upstream_max_stream_duration_reached, "UMSDR"),
        (flags.response_from_cache_filter, "RFCF"),
        (flags.no_filter_config_found, "NFCF"),
        (flags.duration_timeout, "DT"),
        (flags.upstream_protocol_error, "UPE"),
        (flags.no_cluster_found, "NC"),
        (flags.overload_manager, "OM"),
        (flags.dns_resolution_failure, "DF"),
        (flags.downstream_remote_reset, "DR"),
    ];
    table.iter().filter(|(set, _)| *set).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}
