//! The metrics of an exchange that is over.
//!
//! A series' name carries its labels (`bedrock_requests;class=any;path=dx;…`), because the ABI has only names. Envoy's
//! `stats_tags` (`envoy/standalone.yaml`) extract them, so that Prometheus sees labels. Labels come from the configuration, from
//! Envoy's endpoints and, for error types, from Bedrock: a client cannot create series.

use audit::Usage;
use std::time::Duration;

/// An exchange that is over.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The route class; absent if the call was refused before it had one.
    pub class: Option<&'a str>,
    /// The path of the last attempt; absent if nothing was sent.
    pub path: Option<&'a str>,
    /// The region of the last attempt.
    pub region: Option<&'a str>,
    /// The model, if the configuration names it.
    pub model: Option<&'a str>,
    /// The error type of the response.
    pub error: Option<&'a str>,
    /// Attempts upstream.
    pub attempts: u64,
    /// Tokens, as far as they are known.
    pub usage: Usage,
    /// From the request's headers to its end.
    pub duration: Duration,
    /// From the request's headers to the response's.
    pub first_byte: Option<Duration>,
}

/// How values of a series combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Values are summed.
    Counter,
    /// Values are distributed over buckets, in milliseconds.
    Histogram,
    /// The last value replaces the others.
    Gauge,
}

/// One value for one series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The series' name, labels included.
    pub name: String,
    /// How values combine.
    pub kind: Kind,
    /// The value.
    pub value: u64,
}

impl Observation<'_> {
    /// What the exchange adds to which series.
    pub fn samples(&self) -> Vec<Sample> {
        let labels = self.labels();
        let mut samples = Vec::with_capacity(8);
        let mut add = |metric: &str, more: &str, kind, value| {
            samples.push(Sample { name: format!("{metric}{labels}{more}"), kind, value });
        };
        add("bedrock_requests", "", Kind::Counter, 1);
        if let Some(error) = self.error {
            add("bedrock_errors", &format!(";type={error}"), Kind::Counter, 1);
        }
        if self.attempts > 1 {
            add("bedrock_failovers", "", Kind::Counter, self.attempts - 1);
        }
        add("bedrock_latency_ms", "", Kind::Histogram, milliseconds(self.duration));
        if let Some(first_byte) = self.first_byte {
            add("bedrock_first_byte_ms", "", Kind::Histogram, milliseconds(first_byte));
        }
        for (kind, tokens) in [
            ("input", self.usage.input),
            ("output", self.usage.output),
            ("cache_read", self.usage.cache_read),
            ("cache_write", self.usage.cache_write),
        ] {
            if let Some(tokens) = tokens.filter(|tokens| *tokens > 0) {
                add("bedrock_tokens", &format!(";kind={kind}"), Kind::Counter, tokens);
            }
        }
        samples
    }

    fn labels(&self) -> String {
        let [class, path, region, model] =
            [self.class, self.path, self.region, self.model].map(|label| label.unwrap_or("none"));
        format!(";class={class};path={path};region={region};model={model}")
    }
}

/// Rules refused a call, or would have. `outcome`: `denied` or `would_deny`; the `rule` is absent if none allows the call.
pub fn rule_refused(outcome: &str, rule: Option<&str>) -> Sample {
    let rule = rule.unwrap_or("none");
    Sample { name: format!("bedrock_rule_refusals;type={outcome};rule={rule}"), kind: Kind::Counter, value: 1 }
}

/// A breaker opened: new calls for a model avoid the region for a while.
pub fn breaker_opened(region: &str) -> Sample {
    Sample { name: format!("bedrock_breaker_opened;region={region}"), kind: Kind::Counter, value: 1 }
}

/// The audit collector was asked to record an intent. `outcome`: `recorded`, `refused` or `unanswered`.
pub fn intent(outcome: &str) -> Sample {
    Sample { name: format!("bedrock_audit_intents;type={outcome}"), kind: Kind::Counter, value: 1 }
}

/// The audit collector did not take a report of this VM.
pub fn report_failed() -> Sample {
    Sample { name: "bedrock_audit_report_failures".to_owned(), kind: Kind::Counter, value: 1 }
}

/// How long a source's credentials may still be used.
pub fn credentials_left(source: &str, left: Duration) -> Sample {
    Sample {
        name: format!("bedrock_credentials_seconds_left;source={source}"),
        kind: Kind::Gauge,
        value: left.as_secs(),
    }
}

/// How long the certificate of a source is still valid.
pub fn certificate_left(source: &str, left: Duration) -> Sample {
    Sample {
        name: format!("bedrock_certificate_seconds_left;source={source}"),
        kind: Kind::Gauge,
        value: left.as_secs(),
    }
}

/// A fetch of a source ended.
pub fn credentials_fetched(source: &str, success: bool) -> Sample {
    let metric = if success { "bedrock_credentials_refreshes" } else { "bedrock_credentials_failures" };
    Sample { name: format!("{metric};source={source}"), kind: Kind::Counter, value: 1 }
}

/// How old the lists of a region are.
pub fn catalogue_age(region: &str, age: Duration) -> Sample {
    Sample { name: format!("bedrock_catalogue_age_seconds;region={region}"), kind: Kind::Gauge, value: age.as_secs() }
}

/// How many models a region offers.
pub fn catalogue_models(region: &str, models: usize) -> Sample {
    Sample { name: format!("bedrock_catalogue_models;region={region}"), kind: Kind::Gauge, value: models as u64 }
}

/// A poll of a region ended.
pub fn catalogue_polled(region: &str, success: bool) -> Sample {
    let metric = if success { "bedrock_catalogue_polls" } else { "bedrock_catalogue_failures" };
    Sample { name: format!("{metric};region={region}"), kind: Kind::Counter, value: 1 }
}

/// How old what AWS has set for a region's data retention is. `source`: of the credentials that read it.
pub fn retention_age(source: &str, region: &str, age: Duration) -> Sample {
    Sample {
        name: format!("bedrock_retention_age_seconds;source={source};region={region}"),
        kind: Kind::Gauge,
        value: age.as_secs(),
    }
}

/// Whether a region's data retention mode is this one.
pub fn retention_mode(source: &str, region: &str, mode: &str, current: bool) -> Sample {
    let name = format!("bedrock_retention_mode;source={source};region={region};type={mode}");
    Sample { name, kind: Kind::Gauge, value: u64::from(current) }
}

/// A poll of a region's data retention ended.
pub fn retention_polled(source: &str, region: &str, success: bool) -> Sample {
    let metric = if success { "bedrock_retention_polls" } else { "bedrock_retention_failures" };
    Sample { name: format!("{metric};source={source};region={region}"), kind: Kind::Counter, value: 1 }
}

/// A lookup of a resource ended. `outcome`: `resolved`, `refused` or `failed`.
pub fn looked_up(outcome: &str) -> Sample {
    Sample { name: format!("bedrock_lookups;type={outcome}"), kind: Kind::Counter, value: 1 }
}

/// How far the machine's clock is off in either direction, in milliseconds.
pub fn clock_offset(offset_ms: i64) -> Sample {
    Sample { name: "bedrock_clock_offset_ms".to_owned(), kind: Kind::Gauge, value: offset_ms.unsigned_abs() }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_counts_once_in_each_series() {
        let observation = Observation {
            class: Some("any"),
            path: Some("vpn"),
            region: Some("us-east-1"),
            model: Some("anthropic.claude-v2:0"),
            error: Some("ThrottlingException"),
            attempts: 2,
            usage: Usage { input: Some(3), output: Some(4), cache_read: Some(0), ..Usage::default() },
            duration: Duration::from_micros(12_900),
            first_byte: Some(Duration::from_millis(5)),
        };
        let labels = ";class=any;path=vpn;region=us-east-1;model=anthropic.claude-v2:0";
        let samples: Vec<_> = observation.samples().into_iter().map(|s| (s.name, s.kind, s.value)).collect();
        let wanted = [
            (format!("bedrock_requests{labels}"), Kind::Counter, 1),
            (format!("bedrock_errors{labels};type=ThrottlingException"), Kind::Counter, 1),
            (format!("bedrock_failovers{labels}"), Kind::Counter, 1),
            (format!("bedrock_latency_ms{labels}"), Kind::Histogram, 12),
            (format!("bedrock_first_byte_ms{labels}"), Kind::Histogram, 5),
            (format!("bedrock_tokens{labels};kind=input"), Kind::Counter, 3),
            (format!("bedrock_tokens{labels};kind=output"), Kind::Counter, 4),
        ];
        assert_eq!(samples, wanted);
    }

    #[test]
    fn unknown_labels_are_none() {
        let nothing = Observation {
            class: None,
            path: None,
            region: None,
            model: None,
            error: None,
            attempts: 0,
            usage: Usage::default(),
            duration: Duration::ZERO,
            first_byte: None,
        };
        let names: Vec<_> = nothing.samples().into_iter().map(|sample| sample.name).collect();
        let labels = ";class=none;path=none;region=none;model=none";
        assert_eq!(names, [format!("bedrock_requests{labels}"), format!("bedrock_latency_ms{labels}")]);
    }
}
