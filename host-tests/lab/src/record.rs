//! The records of a run: the load's calls, the gateway's exchanges, the doubles' requests.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::Error;

/// A call, as the load generator records it.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// `call`, `stream`, `thinker` or `bulk`.
    pub kind: String,
    /// When it was begun, in milliseconds since 1970.
    pub start_ms: u64,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// The answer's status; 0 if there was none.
    pub status: u16,
    /// `ok`, the exception's type, or how it broke.
    pub end: String,
}

/// An exchange, as the gateway's access log records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// When it was begun, in milliseconds since 1970.
    pub start_ms: u64,
    /// The path of its last attempt; none where nothing was sent.
    pub path: Option<String>,
    /// The region that its last attempt was signed for.
    pub region: Option<String>,
    /// How many attempts it took.
    pub attempts: u64,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Who called.
    pub principal: Option<String>,
    /// The model that the client named.
    pub model: Option<String>,
}

/// A request, as a double records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When its body was whole, in milliseconds since 1970.
    pub ms: u64,
    /// The region of the double.
    pub region: &'static str,
    /// The model or inference profile; none for a health check.
    pub model: Option<String>,
    /// The answer's status; 0 if there was none.
    pub status: u16,
    /// What was wrong with it: unsigned, signed for another region, a header that must not cross …
    pub violation: Option<String>,
}

impl Call {
    /// When it ended, in milliseconds since 1970.
    pub fn end_ms(&self) -> u64 {
        self.start_ms + std::time::Duration::from_secs_f64(self.ms.max(0.0) / 1000.0).as_millis() as u64
    }

    /// Whether it must not fail. A stream that has begun can only end with an exception.
    pub fn must_hold(&self) -> bool {
        self.kind != "stream"
    }
}

/// Reads the load generator's lines.
pub fn calls(text: &str) -> Vec<Call> {
    let of = |line: &str| {
        let value: Value = serde_json::from_str(line).ok()?;
        Some(Call {
            kind: value.get("kind")?.as_str()?.to_owned(),
            start_ms: value.get("start_ms")?.as_u64()?,
            ms: value.get("ms")?.as_f64()?,
            status: value.get("status")?.as_u64()?.try_into().ok()?,
            end: value.get("end")?.as_str()?.to_owned(),
        })
    };
    text.lines().filter_map(of).collect()
}

/// Reads the access log's lines.
pub fn exchanges(text: &str) -> Vec<Exchange> {
    let of = |line: &str| {
        let value: Value = serde_json::from_str(line).ok()?;
        let facts = |key: &str| serde_json::from_str::<Value>(value.get(key)?.as_str()?).ok();
        let (exchange, attempt) = (facts("exchange").unwrap_or_default(), facts("attempt").unwrap_or_default());
        // Of a stream, Envoy's own log knows only that it went to the relay.
        let reached = exchange.get("relayed").unwrap_or(&value);
        let number = |facts: &Value, key: &str| facts.get(key).and_then(Value::as_u64).unwrap_or(0);
        let text = |facts: &Value, key: &str| facts.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Exchange {
            start_ms: epoch_ms(&value, "start_time")?,
            path: text(reached, "path"),
            region: text(&attempt, "region"),
            attempts: number(reached, "attempts"),
            bytes_in: number(&value, "bytes_in"),
            principal: text(&exchange, "principal"),
            model: text(&exchange, "model"),
        })
    };
    text.lines().filter_map(of).collect()
}

/// Reads the lines of a region's double.
pub fn requests(text: &str, region: &'static str) -> Vec<Request> {
    let of = |line: &str| {
        let value: Value = serde_json::from_str(line).ok()?;
        Some(Request {
            ms: epoch_ms(&value, "time")?,
            region,
            model: value.pointer("/labels/0").and_then(Value::as_str).map(str::to_owned),
            status: value.get("status")?.as_u64()?.try_into().ok()?,
            violation: value.pointer("/verdict/message").and_then(Value::as_str).map(str::to_owned),
        })
    };
    text.lines().filter_map(of).collect()
}

fn epoch_ms(value: &Value, key: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(value.get(key)?.as_str()?, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// Of these calls those that failed, by cause.
pub fn failures<'a>(calls: impl Iterator<Item = &'a Call>) -> BTreeMap<String, usize> {
    let mut causes = BTreeMap::new();
    for call in calls.filter(|call| call.end != "ok") {
        *causes.entry(format!("{} {}", call.status, call.end)).or_insert(0) += 1;
    }
    causes
}

/// What the doubles found wrong, as lines of a verdict; nothing, if they found nothing.
pub fn violations(what: impl std::fmt::Display, requests: &[Request]) -> Vec<String> {
    let mut causes: BTreeMap<&str, usize> = BTreeMap::new();
    for violation in requests.iter().filter_map(|request| request.violation.as_deref()) {
        *causes.entry(violation).or_default() += 1;
    }
    causes.iter().map(|(cause, count)| format!("{what}: {count} requests must not have been sent: {cause}")).collect()
}

/// The value that `share` of all do not exceed; 0 of none.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// A part of a whole, from 0 to 1; 0 of nothing.
pub fn ratio(part: u64, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A file's text.
pub fn read(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file).map_err(Error::file("cannot read", file))
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or_default()
}

#[cfg(test)]
/// Records to test with.
pub mod tests {
    use super::*;

    /// A call that got 200.
    pub fn call(kind: &str, start_ms: u64, ms: f64, end: &str) -> Call {
        Call { kind: kind.into(), start_ms, ms, status: 200, end: end.into() }
    }

    /// An exchange without a principal.
    pub fn exchange(start_ms: u64, path: Option<&str>, attempts: u64) -> Exchange {
        let path = path.map(str::to_owned);
        Exchange { start_ms, path, region: None, attempts, bytes_in: 0, principal: None, model: None }
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut hundred: Vec<f64> = (1..=100).map(f64::from).rev().collect();
        assert_eq!(percentile(&mut hundred, 0.5), 50.0);
        assert_eq!(percentile(&mut hundred, 0.99), 99.0);
        assert_eq!(percentile(&mut hundred, 1.0), 100.0);
        assert_eq!(percentile(&mut [], 0.99), 0.0);
    }

    #[test]
    fn reads_every_source() {
        let line = r#"{"kind":"call","start_ms":1795381200123,"ms":12.5,"status":200,"end":"ok"}"#;
        assert_eq!(calls(&format!("{line}\nnot json\n")), [call("call", 1_795_381_200_123, 12.5, "ok")]);
        let log = r#"{"start_time":"2026-11-22T21:00:00.123Z","path":"vpn","attempts":2,"bytes_in":20,"status":200,"exchange":"{\"id\":\"1\",\"principal\":\"p-0001\",\"model\":\"m\"}","attempt":"{\"region\":\"us-west-2\"}"}
{"start_time":"2026-11-22T21:00:00.124Z","path":null,"attempts":0,"status":503,"exchange":null,"attempt":null}
{"start_time":"2026-11-22T21:00:00.125Z","path":null,"attempts":1,"status":200,"exchange":"{\"relayed\":{\"path\":\"vpn\",\"attempts\":2}}","attempt":null}"#;
        let first = Exchange {
            region: Some("us-west-2".into()),
            principal: Some("p-0001".into()),
            model: Some("m".into()),
            bytes_in: 20,
            ..exchange(1_795_381_200_123, Some("vpn"), 2)
        };
        let relayed = exchange(1_795_381_200_125, Some("vpn"), 2);
        assert_eq!(exchanges(log), [first, exchange(1_795_381_200_124, None, 0), relayed]);
        let record = r#"{"time":"2026-11-22T21:00:00.123Z","labels":["us.m"],"verdict":{"kind":"signed"},"status":429}
{"time":"2026-11-22T21:00:00.124Z","labels":[],"verdict":{"kind":"refused","status":403,"message":"no"},"status":403}"#;
        let good = Request {
            ms: 1_795_381_200_123,
            region: "us-east-1",
            model: Some("us.m".into()),
            status: 429,
            violation: None,
        };
        let bad =
            Request { ms: 1_795_381_200_124, model: None, status: 403, violation: Some("no".into()), ..good.clone() };
        assert_eq!(requests(record, "us-east-1"), [good, bad.clone()]);
        assert_eq!(violations("x", &[bad.clone(), bad]), ["x: 2 requests must not have been sent: no"]);
    }
}
