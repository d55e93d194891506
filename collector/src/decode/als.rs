//! An entry of Envoy's gRPC access log service.

use audit::{ATTEMPT_STATE, AuditRecord, EXCHANGE_STATE, EnvoyEntry};
use envoy_types::pb::envoy::config::core::v3::{Address, RequestMethod, address, socket_address};
use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogType, HttpAccessLogEntry, ResponseFlags};
use envoy_types::pb::google::protobuf::{Any, BytesValue, Duration, StringValue};
use prost::Message;
use time::OffsetDateTime;

use super::{DecodeError, Entry, present, sorted};

/// Whether the entry reports a finished exchange. Envoy can also log streams at their start, on upgrades, periodically
/// and per upstream attempt; those would be second records of the same exchange.
pub fn finished(entry: &HttpAccessLogEntry) -> bool {
    let kind = entry.common_properties.as_ref().map_or(0, |common| common.access_log_type);
    kind == AccessLogType::NotSet as i32 || kind == AccessLogType::DownstreamEnd as i32
}

pub fn record(entry: &HttpAccessLogEntry) -> Result<AuditRecord, DecodeError> {
    let common = entry.common_properties.clone().unwrap_or_default();
    let request = entry.request.as_ref();
    let response = entry.response.as_ref();
    let tag = |name: &str| present(common.custom_tags.get(name).cloned());
    let flags = tag("flags").or_else(|| present(common.response_flags.as_ref().map(short_flags)));
    let entry = Entry {
        start: common.start_time.as_ref().and_then(|start| {
            let whole = OffsetDateTime::from_unix_timestamp(start.seconds).ok()?;
            whole.checked_add(time::Duration::nanoseconds(i64::from(start.nanos)))
        }),
        stream_id: present(Some(common.stream_id.clone())).or_else(|| tag("stream_id")),
        is_request: request.is_some_and(|request| request.request_method != RequestMethod::MethodUnspecified as i32),
        peer: common.downstream_remote_address.as_ref().and_then(host_and_port),
        details: response.and_then(|response| present(Some(response.response_code_details.clone()))),
        envoy: EnvoyEntry {
            source_address: common.downstream_remote_address.as_ref().and_then(host),
            status: response
                .and_then(|response| response.response_code.as_ref())
                .and_then(|code| u16::try_from(code.value).ok())
                .unwrap_or(0),
            response_flags: flags.as_deref().map(sorted),
            bytes_in: request.map_or(0, |request| request.request_body_bytes),
            bytes_out: response.map_or(0, |response| response.response_body_bytes),
            duration_ms: common.duration.as_ref().and_then(millis).unwrap_or(0),
            first_byte_ms: common.time_to_first_upstream_rx_byte.as_ref().and_then(millis),
            attempts: common.upstream_request_attempt_count,
            path: tag("path"),
        },
        exchange: filter_state(common.filter_state_objects.get(EXCHANGE_STATE), EXCHANGE_STATE)?,
        attempt: filter_state(common.filter_state_objects.get(ATTEMPT_STATE), ATTEMPT_STATE)?,
    };
    entry.record()
}

/// The bytes of a filter-state object. Wasm filters' state arrives as `BytesValue`, that of Envoy's own filters as
/// `StringValue`.
fn filter_state(any: Option<&Any>, key: &'static str) -> Result<Option<Vec<u8>>, DecodeError> {
    let Some(any) = any else { return Ok(None) };
    let unknown = || DecodeError::FactsType { key, type_url: any.type_url.clone() };
    let bytes = match any.type_url.rsplit('/').next().unwrap_or_default() {
        "google.protobuf.BytesValue" => BytesValue::decode(any.value.as_slice()).map_err(|_| unknown())?.value,
        "google.protobuf.StringValue" => {
            StringValue::decode(any.value.as_slice()).map_err(|_| unknown())?.value.into_bytes()
        }
        "google.protobuf.Any" => {
            return filter_state(Some(&Any::decode(any.value.as_slice()).map_err(|_| unknown())?), key);
        }
        _ => return Err(unknown()),
    };
    Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
}

/// An address without its port, as `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%` prints it.
fn host(address: &Address) -> Option<String> {
    match address.address.as_ref()? {
        address::Address::SocketAddress(socket) => present(Some(socket.address.clone())),
        address::Address::Pipe(pipe) => present(Some(pipe.path.clone())),
        address::Address::EnvoyInternalAddress(_) => None,
    }
}

/// An address as `%DOWNSTREAM_REMOTE_ADDRESS%` prints it.
fn host_and_port(address: &Address) -> Option<String> {
    let host = host(address)?;
    match address.address.as_ref()? {
        address::Address::SocketAddress(socket) => match socket.port_specifier {
            Some(socket_address::PortSpecifier::PortValue(port)) if host.contains(':') => {
                Some(format!("[{host}]:{port}"))
            }
            Some(socket_address::PortSpecifier::PortValue(port)) => Some(format!("{host}:{port}")),
            _ => Some(host),
        },
        _ => Some(host),
    }
}

/// Whole milliseconds, truncated as `%DURATION%` truncates them.
fn millis(duration: &Duration) -> Option<u64> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u64::try_from(duration.nanos).ok()?;
    Some(seconds * 1000 + nanos / 1_000_000)
}

/// The flags in Envoy's short form (`stream_info/utility.h`). The `flags` tag is preferred: newer flags have no field in
/// this message.
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
