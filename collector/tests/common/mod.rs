//! Shared test data.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod program;

use std::time::Duration;

use audit::{AuditRecord, Kind, RETENTION_DAYS, RecordKind};
use audit_collector::query::{Cursor, KindFilter, Query, Status};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A line of the access log, as the filter and Envoy write it.
pub(crate) fn line(id: &str) -> String {
    let exchange =
        format!(r#"{{"id":"{id}","operation":"Converse","model":"sonnet","usage":{{"input":7,"output":9}}}}"#);
    let now = audit_collector::timestamp::timestamp(OffsetDateTime::now_utc()).unwrap();
    let line = serde_json::json!({
        "start_time": now, "source_address": "10.1.2.3", "status": 200, "flags": "-", "bytes_in": 5, "bytes_out": 11,
        "duration_ms": 30, "first_byte_ms": 20, "attempts": 1, "path": "dx", "stream_id": "s", "exchange": exchange,
        "attempt": r#"{"model":"us.sonnet","region":"us-east-1"}"#,
    });
    format!("{line}\n")
}

/// A line of that time.
pub(crate) fn line_of(id: &str, time: &str) -> String {
    let mut line: Value = serde_json::from_str(&line(id)).unwrap();
    line["start_time"] = time.into();
    format!("{line}\n")
}

/// The line that gives that record of [`record`].
pub(crate) fn line_as(record: &AuditRecord) -> String {
    let AuditRecord { request_id, time, .. } = record;
    let mut line: Value = serde_json::from_str(&line_of(request_id, time)).unwrap();
    let exchange = serde_json::json!({
        "id": request_id, "principal": record.principal, "operation": record.operation, "model": record.model_asked,
        "usage": { "input": record.tokens_in, "output": record.tokens_out },
    });
    line["exchange"] = exchange.to_string().into();
    line["attempt"] = serde_json::json!({ "model": record.model_sent, "region": "" }).to_string().into();
    line["duration_ms"] = record.latency_ms.into();
    for key in ["bytes_in", "bytes_out"] {
        line[key] = 0.into();
    }
    format!("{line}\n")
}

/// The line of a call that its VM logged under this number.
pub(crate) fn numbered_line(id: &str, vm: &str, envoy: &str, number: u64, audit: Option<&str>) -> String {
    let mut line: Value = serde_json::from_str(&line(id)).unwrap();
    let mut facts: Value = serde_json::from_str(line["exchange"].as_str().unwrap()).unwrap();
    facts["vm"] = serde_json::json!({"id": vm, "envoy": envoy, "begun": number, "logged": number, "in_flight": 0});
    if let Some(audit) = audit {
        facts["audit"] = audit.into();
    }
    line["exchange"] = facts.to_string().into();
    format!("{line}\n")
}

/// A line whose first kilobyte is that of every other one, as with an application inference profile's ARN.
pub(crate) fn line_like_others(id: &str) -> String {
    let line = line(id);
    let (before, after) = line.split_once("us.sonnet").unwrap();
    assert!(before.len() < 40, "the attempt comes first: {line}");
    format!("{before}{}{after}", "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/".repeat(15))
}

/// A record of `time` (RFC 3339, milliseconds).
pub(crate) fn record(id: &str, time: &str) -> AuditRecord {
    let seconds = OffsetDateTime::parse(time, &Rfc3339).unwrap().unix_timestamp();
    AuditRecord {
        request_id: id.to_owned(),
        time: time.to_owned(),
        principal: Some("spiffe://mesh/ns/app/sa/chat".to_owned()),
        operation: Some("Converse".to_owned()),
        model_asked: Some("sonnet".to_owned()),
        model_sent: Some("us.anthropic.sonnet".to_owned()),
        path: Some("dx".to_owned()),
        attempts: 1,
        status: 200,
        tokens_in: Some(7),
        tokens_out: Some(9),
        latency_ms: 31,
        expires_at: u64::try_from(seconds).unwrap() + RETENTION_DAYS * 86_400,
        ..AuditRecord::default()
    }
}

/// Kinds of a first and a second record under one id, and which of them is kept.
pub(crate) const REPLACEMENTS: [(Option<&str>, Option<&str>, usize); 10] = [
    (Some("outcome_unknown"), None, 1),
    (Some("unlogged"), None, 1),
    (Some("outcome_unknown"), Some("unlogged"), 1),
    (Some("unlogged"), Some("outcome_unknown"), 0),
    (Some("unlogged"), Some("unlogged"), 0),
    (None, Some("unlogged"), 0),
    (None, Some("outcome_unknown"), 0),
    (Some("hole"), Some("hole"), 0),
    (Some("vm_end"), Some("vm_end"), 0),
    (Some("connection"), Some("outcome_unknown"), 0),
];

/// A record of that kind, with a time of its own.
pub(crate) fn of_kind(id: &str, kind: Option<&str>) -> AuditRecord {
    let age = match kind {
        None | Some("connection") => 30,
        Some("unlogged") => 31,
        Some(_) => 32,
    };
    AuditRecord { kind: kind.map(str::to_owned), ..record(id, &ago(age)) }
}

/// A record with a value in every field.
pub(crate) fn full_record(id: &str, time: &str) -> AuditRecord {
    let fields = AuditRecord::FIELDS.iter().zip(1..).map(|(field, number)| {
        let value = match field.kind {
            Kind::Text => Value::from(format!("a {}", field.name)),
            Kind::Integer => Value::from(number),
        };
        (field.name.to_owned(), value)
    });
    let full: AuditRecord = serde_json::from_value(Value::Object(fields.collect::<Map<_, _>>())).unwrap();
    let key = record(id, time);
    AuditRecord { request_id: key.request_id, time: key.time, expires_at: key.expires_at, ..full }
}

/// Records that differ in what queries ask for, and queries that find some of them.
pub(crate) fn filtered() -> (Vec<AuditRecord>, Vec<Query>) {
    let some = |n: usize, every: usize, text: &str| n.is_multiple_of(every).then(|| format!("{text}{}", n % 4));
    let records = (0..80_usize).map(|n| AuditRecord {
        principal: some(n, 2, "spiffe://mesh/sa/"),
        source_address: some(n, 3, "10.0.0."),
        operation: Some(["Converse", "InvokeModel"][n % 2].to_owned()),
        model_asked: some(n, 3, "sonnet-"),
        model_sent: some(n, 4, "us.sonnet-"),
        route_class: some(n, 5, "class"),
        region: some(n, 3, "us-east-"),
        path: some(n, 2, "dx"),
        status: [200, 200, 429, 503, 0, 599][n % 6],
        error_type: some(n, 7, "ThrottlingException"),
        access_key_id: some(n, 2, "ASIA"),
        session: some(n, 3, "arn:aws:sts::1:assumed-role/r/"),
        upstream_request_id: some(n, 2, "up-"),
        kind: n.is_multiple_of(9).then(|| ["connection", "unlogged"][n % 2].to_owned()),
        ..record(&format!("r{n:02}"), &ago(86_400 - 3600 * (n / 3) as i64))
    });
    let text = |text: &str| Some(text.to_owned());
    let all = || Query { limit: 1000, ..Query::default() };
    let queries = vec![
        all(),
        Query { principal: text("sa/0"), ..all() },
        Query { source_address: text("10.0.0.1"), ..all() },
        Query { operation: text("invokemodel"), ..all() },
        Query { model: text("sonnet-2"), ..all() },
        Query { class: text("class1"), path: text("dx2"), ..all() },
        Query { region: text("us-east-2"), ..all() },
        Query { status: Some(Status::Class(5)), ..all() },
        Query { status: Some(Status::Is(0)), ..all() },
        Query { error_type: text("Throttling"), ..all() },
        Query { access_key_id: text("ASIA2"), since: Some(ago(40_000)), ..all() },
        Query { session: text("role/r/1"), until: Some(ago(40_000)), ..all() },
        Query { upstream_request_id: text("up-2"), ..all() },
        Query { kind: KindFilter::Is(RecordKind::Connection), ..all() },
        Query { kind: KindFilter::Calls, ..all() },
        Query { kind: KindFilter::Exchange, status: Some(Status::Class(4)), ..all() },
        Query { path: text("none"), ..all() },
        Query { status: Some(Status::Class(2)), limit: 5, ..all() },
    ];
    (records.collect(), queries)
}

/// What a query finds among records.
pub(crate) fn expected(records: &[AuditRecord], query: &Query) -> Vec<String> {
    let mut found: Vec<_> = records.iter().filter(|record| query.matches(record)).collect();
    found.sort_by_cached_key(|record| Cursor::of(record));
    found.into_iter().take(query.limit).map(|record| record.request_id.clone()).collect()
}

/// The timestamp of that many seconds ago.
pub(crate) fn ago(seconds: i64) -> String {
    audit_collector::timestamp::timestamp(OffsetDateTime::now_utc() - time::Duration::seconds(seconds)).unwrap()
}

/// Waits until `done`, for at most ten seconds.
pub(crate) async fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited ten seconds for {what}");
}
