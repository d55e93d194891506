//! The records that the collector makes of what it knows itself.

use std::time::Duration;

use audit::notice::{End, Intent};
use audit::{AttemptFacts, AuditMode, AuditRecord, EnvoyEntry, ExchangeFacts, ExchangeKey, RecordKind};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::numbers::{Hole, Seen};
use super::vms::{Envoy, Vm};
use crate::timestamp::timestamp;

/// A record of that kind, without more than its key.
fn bare(kind: RecordKind, request_id: String, time: &str) -> AuditRecord {
    let seconds = OffsetDateTime::parse(time, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp);
    let epoch_seconds = u64::try_from(seconds).unwrap_or(0);
    let key = ExchangeKey { request_id, kind: Some(kind), time: time.to_owned(), epoch_seconds };
    AuditRecord::new(key, EnvoyEntry::default(), ExchangeFacts::default(), AttemptFacts::default(), None)
}

/// The id of what a VM or an Envoy does for the nth time.
fn id_of(kind: RecordKind, of: &str, time: u32) -> String {
    let name = kind.name();
    if time <= 1 { format!("{name}-{of}") } else { format!("{name}-{of}-{time}") }
}

pub(super) fn vm_start(id: &str, vm: &Vm, time: &str) -> AuditRecord {
    AuditRecord {
        vm: Some(id.to_owned()),
        envoy: Some(vm.envoy.clone()),
        ..bare(RecordKind::VmStart, id_of(RecordKind::VmStart, id, vm.lives), time)
    }
}

/// `until`: when it was taken as ended.
pub(super) fn vm_end(id: &str, vm: &Vm, until: &str) -> AuditRecord {
    let time = vm.complete.as_ref().map_or_else(|| vm.since.clone(), end_of);
    AuditRecord {
        vm: Some(id.to_owned()),
        envoy: Some(vm.envoy.clone()),
        vm_begun: Some(vm.known()),
        vm_logged: Some(vm.known_logged()),
        lost: Some(vm.lost),
        lost_at_most: Some(vm.lost_at_most),
        until: Some(until.to_owned()),
        ..bare(RecordKind::VmEnd, id_of(RecordKind::VmEnd, id, vm.lives), &time)
    }
}

pub(super) fn envoy_start(id: &str, envoy: &Envoy, time: &str) -> AuditRecord {
    AuditRecord {
        envoy: Some(id.to_owned()),
        ..bare(RecordKind::EnvoyStart, id_of(RecordKind::EnvoyStart, id, envoy.lives), time)
    }
}

/// The sums of its VMs, from `time` to `until`.
pub(super) fn envoy_end(id: &str, envoy: &Envoy, (lost, at_most): (u64, u64), time: &str, until: &str) -> AuditRecord {
    AuditRecord {
        envoy: Some(id.to_owned()),
        lost: Some(lost),
        lost_at_most: Some(at_most),
        until: Some(until.to_owned()),
        ..bare(RecordKind::EnvoyEnd, id_of(RecordKind::EnvoyEnd, id, envoy.lives), time)
    }
}

/// `now` ends a hole that no entry follows.
pub(super) fn hole(id: &str, vm: &Vm, hole: &Hole, now: &str) -> AuditRecord {
    let Hole { first, last, before, after } = hole;
    let time = before.as_ref().map_or(&vm.since, |before| &before.time);
    AuditRecord {
        vm: Some(id.to_owned()),
        envoy: Some(vm.envoy.clone()),
        lost: Some(last - first + 1),
        until: Some(after.as_ref().map_or_else(|| now.to_owned(), end_of)),
        ..bare(RecordKind::Hole, format!("hole-{id}-{first}-{last}"), time)
    }
}

/// Lines of a log that may be lost, it is not known how many. `why` is the name of an error.
pub(super) fn gap(id: &str, why: &str, time: &str, until: &str) -> AuditRecord {
    AuditRecord {
        error_type: Some(why.to_owned()),
        until: Some(until.to_owned()),
        ..bare(RecordKind::Hole, format!("hole-{id}"), time)
    }
}

/// A call of whose end nothing is known.
pub(super) fn outcome_unknown(intent: Intent, until: &str) -> AuditRecord {
    let (kind, until) = (RecordKind::OutcomeUnknown, Some(until.to_owned()));
    of_exchange(kind, intent.time_ms, intent.exchange, EnvoyEntry::default(), None, until)
}

/// A call whose end the gateway reported, and the log does not have.
pub(super) fn unlogged(began_ms: u64, end: End) -> AuditRecord {
    let End { time_ms, status, exchange, attempt } = end;
    let tried = attempt.as_ref().map(|attempt| attempt.tried.as_slice()).unwrap_or_default();
    let path = tried.last().and_then(|tried| tried.split('/').next()).map(str::to_owned);
    let attempts = u32::try_from(tried.len()).unwrap_or(u32::MAX);
    let duration_ms = time_ms.saturating_sub(began_ms);
    let envoy = EnvoyEntry { status, duration_ms, attempts, path, ..EnvoyEntry::default() };
    of_exchange(RecordKind::Unlogged, began_ms, exchange, envoy, attempt, None)
}

fn of_exchange(
    kind: RecordKind,
    time_ms: u64,
    mut exchange: ExchangeFacts,
    envoy: EnvoyEntry,
    attempt: Option<AttemptFacts>,
    until: Option<String>,
) -> AuditRecord {
    exchange.audit.get_or_insert(AuditMode::Required);
    let time = time_of(i64::try_from(time_ms).unwrap_or(0));
    let key = ExchangeKey { request_id: exchange.id.clone(), kind: Some(kind), time, epoch_seconds: time_ms / 1000 };
    // An intent's number would be that of another call.
    let numbered = kind == RecordKind::Unlogged;
    let record = AuditRecord::new(key, envoy, exchange, attempt.unwrap_or_default(), None);
    AuditRecord {
        vm_logged: record.vm_logged.filter(|_| numbered),
        vm_in_flight: record.vm_in_flight.filter(|_| numbered),
        until,
        ..record
    }
}

/// The timestamp of milliseconds since 1970.
pub(super) fn time_of(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok();
    time.and_then(timestamp).unwrap_or_else(|| "1970-01-01T00:00:00.000Z".to_owned())
}

/// When a call was logged.
fn end_of(seen: &Seen) -> String {
    let time = OffsetDateTime::parse(&seen.time, &Rfc3339).ok();
    let time = time.and_then(|time| time.checked_add(Duration::from_millis(seen.lasted).try_into().ok()?));
    time.and_then(timestamp).unwrap_or_else(|| seen.time.clone())
}
