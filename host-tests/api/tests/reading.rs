//! What the tables call `read` or `passed` is what the filter does.

use api_drift::tables::{Kind, Tables, Verdict};
use filter_core::headers::Headers;
use filter_core::operation::Metering;
use filter_core::usage::eventstream::frame;
use filter_core::usage::{Meter, Reading};

const SERVICE: &str = "bedrock-runtime";

fn reading(metering: Metering, headers: &[(&str, &str)], body: &[u8]) -> Reading {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    let mut meter = Meter::start(metering, 200, &headers.collect::<Headers>(), true);
    meter.feed(body);
    meter.reading(true)
}

/// The names of a structure, and whether the table calls them read.
fn rows(tables: &Tables, kind: Kind, structure: &str) -> Vec<(String, bool)> {
    let prefix = format!("{SERVICE} {structure}");
    let of_kind = tables.iter().filter(|((found, _), _)| *found == kind);
    let rows: Vec<_> = of_kind
        .filter_map(|((_, name), row)| Some((name.strip_prefix(&prefix)?.to_owned(), row.verdict == Verdict::Read)))
        .collect();
    assert!(!rows.is_empty(), "{prefix}");
    rows
}

#[test]
fn counts_are_read_as_the_tables_say() {
    let tables = api_drift::tables().unwrap();
    let json = |body: String| reading(Metering::Json, &[], body.as_bytes()).usage;
    for (member, read) in rows(&tables, Kind::Output, "TokenUsage.") {
        let value = if member == "cacheDetails" { r#"[{"ttl":"5m","inputTokens":7}]"# } else { "7" };
        let usage = json(format!(r#"{{"usage":{{"{member}":{value}}}}}"#));
        assert_eq!(usage != json("{}".to_owned()), read, "TokenUsage.{member}");
    }
    for (member, read) in rows(&tables, Kind::Output, "CacheDetail.") {
        // An entry counts only with both of its members.
        let rest = if member == "ttl" { r#""inputTokens":7"# } else { r#""ttl":"1h""# };
        let usage = json(format!(r#"{{"usage":{{"cacheDetails":[{{{rest}}}]}}}}"#));
        assert_eq!(usage == json("{}".to_owned()), read, "CacheDetail.{member}");
    }
    let units = |body: String| reading(Metering::Guardrail, &[], body.as_bytes()).guardrail;
    for (member, read) in rows(&tables, Kind::Output, "GuardrailUsage.") {
        let found = units(format!(r#"{{"usage":{{"{member}":7}}}}"#));
        assert_eq!(found != units("{}".to_owned()), read, "GuardrailUsage.{member}");
        let trace = format!(
            r#"{{"trace":{{"guardrail":{{"inputAssessment":{{"g":{{"invocationMetrics":{{"usage":{{"{member}":7}}}}}}}}}}}}}}"#
        );
        let found = reading(Metering::Json, &[], trace.as_bytes()).guardrail;
        assert_eq!(found != units("{}".to_owned()), read, "GuardrailUsage.{member} in a trace");
    }
}

#[test]
fn members_of_converse_are_read_as_tables_say() {
    let tables = api_drift::tables().unwrap();
    let none = reading(Metering::Json, &[], b"{}");
    for structure in ["ConverseResponse.", "ConverseStreamMetadataEvent."] {
        for (member, read) in rows(&tables, Kind::Output, structure) {
            let value = match member.as_str() {
                "usage" => r#"{"inputTokens":7}"#,
                "trace" => r#"{"promptRouter":{"invokedModelId":"m"}}"#,
                "performanceConfig" => r#"{"latency":"optimized"}"#,
                "serviceTier" => r#"{"type":"flex"}"#,
                _ => r#"{"inputTokens":7,"latency":"optimized","type":"flex","latencyMs":7}"#,
            };
            let body = format!(r#"{{"{member}":{value}}}"#);
            assert_eq!(reading(Metering::Json, &[], body.as_bytes()) != none, read, "{structure}{member}");
        }
    }
}

#[test]
fn headers_are_read_as_the_tables_say() {
    let tables = api_drift::tables().unwrap();
    let body = br#"{"usage":{"inputTokens":7}}"#;
    let none = reading(Metering::Json, &[], body);
    for (name, read) in rows(&tables, Kind::Response, "") {
        let value = if name == "content-type" { "text/plain" } else { "flex" };
        assert_eq!(reading(Metering::Json, &[(&name, value)], body) != none, read, "{name}");
    }
}

#[test]
fn exceptions_of_streams_are_read() {
    let tables = api_drift::tables().unwrap();
    let mut exceptions = 0;
    for stream in ["ConverseStreamOutput.", "ResponseStream."] {
        let rows = rows(&tables, Kind::Event, stream);
        for (event, read) in rows.iter().filter(|(event, _)| event.ends_with("Exception")) {
            let bytes = frame(&[(":message-type", "exception"), (":exception-type", event)], b"{}");
            let error = reading(Metering::EventStream, &[], &bytes).error;
            let wanted = event[..1].to_uppercase() + &event[1..];
            assert_eq!(error.filter(|_| *read), Some(wanted), "{stream}{event}");
            exceptions += 1;
        }
    }
    assert_eq!(exceptions, 11);
}
