//! A line of the JSON access log.

use std::time::{Duration, SystemTime};

use audit::{AuditRecord, EnvoyEntry};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{DecodeError, Entry, present, sorted};

/// The keys of the line that the collector reads. Operators may add others, which are ignored.
#[derive(Debug, Deserialize)]
struct Line {
    start_time: Option<String>,
    source_address: Option<String>,
    source: Option<String>,
    method: Option<String>,
    status: Option<u16>,
    flags: Option<String>,
    details: Option<String>,
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

/// When the exchange of a line ended.
pub fn end(bytes: &[u8]) -> Option<SystemTime> {
    let line: Line = serde_json::from_slice(bytes).ok()?;
    let start = OffsetDateTime::parse(&line.start_time?, &Rfc3339).ok()?;
    SystemTime::from(start).checked_add(Duration::from_millis(line.duration_ms.unwrap_or(0)))
}

/// Decodes a line without its newline.
pub fn record(bytes: &[u8]) -> Result<AuditRecord, DecodeError> {
    let line: Line = serde_json::from_slice(bytes).map_err(DecodeError::Line)?;
    let entry = Entry {
        start: line.start_time.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok()),
        stream_id: present(line.stream_id),
        is_request: present(line.method).is_some(),
        peer: present(line.source),
        details: present(line.details),
        envoy: EnvoyEntry {
            source_address: present(line.source_address),
            status: line.status.unwrap_or(0),
            response_flags: present(line.flags).as_deref().map(sorted),
            bytes_in: line.bytes_in.unwrap_or(0),
            bytes_out: line.bytes_out.unwrap_or(0),
            duration_ms: line.duration_ms.unwrap_or(0),
            first_byte_ms: line.first_byte_ms,
            attempts: line.attempts.unwrap_or(0),
            path: present(line.path),
        },
        exchange: present(line.exchange).map(String::into_bytes),
        attempt: present(line.attempt).map(String::into_bytes),
    };
    entry.record()
}
