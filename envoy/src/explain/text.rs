//! The report for people: sections of plain text.

use std::fmt::{self, Write as _};

use super::report::{Answer, Attempt, Comparison, Limits, Model, RecordedRoute, Refusal, Report, Route};
use super::rules;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Text::default();
        text.section("Request");
        let length = self.request.body_bytes;
        match (&self.request.method, &self.request.path) {
            (Some(method), Some(path)) => text.line(format_args!("{method} {path}, body of {length} bytes")),
            _ => text.line(format_args!("an audit record, body of {length} bytes: route only, no signature")),
        }
        text.notes(&self.notes);
        if let Some(operation) = &self.operation {
            text.section("Operation");
            text.line(format_args!("{}, served by {}", operation.name, operation.service));
        }
        self.model.iter().for_each(|model| text.model(model));
        if !self.classes.is_empty() {
            text.section("Route class");
            for verdict in &self.classes {
                let takes = if verdict.takes { "takes the call" } else { "no" };
                let because = if verdict.because.is_empty() {
                    "it has no conditions".to_owned()
                } else {
                    verdict.because.join("; ")
                };
                text.line(format_args!("route_classes[{}] {}: {takes}: {because}", verdict.index, verdict.class));
            }
            if self.classes.iter().all(|verdict| !verdict.takes) {
                text.line("no class takes the call");
            }
        }
        self.rules.iter().for_each(|verdict| text.rules(verdict));
        self.limits.iter().for_each(|limits| text.limits(limits));
        text.routes(&self.routes, self.relay.as_deref());
        self.record.iter().for_each(|record| text.record(record));
        self.answer.iter().for_each(|answer| text.answer(answer));
        self.refusal.iter().for_each(|refusal| text.refusal(refusal));
        self.attempts.iter().for_each(|attempt| text.attempt(attempt));
        self.aws.iter().for_each(|comparison| text.comparison(comparison));
        f.write_str(&text.0)
    }
}

/// The text so far.
#[derive(Default)]
struct Text(String);

impl Text {
    fn section(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(title);
        self.0.push('\n');
    }

    fn line(&mut self, line: impl fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{}", format!("  {line}").trim_end());
    }

    fn block(&mut self, title: &str, text: &str) {
        self.line(title);
        for line in text.split('\n') {
            let line = format!("    {line}");
            self.0.push_str(line.trim_end());
            self.0.push('\n');
        }
    }

    fn notes(&mut self, notes: &[String]) {
        for note in notes {
            self.line(format_args!("note: {note}"));
        }
    }

    fn model(&mut self, model: &Model) {
        self.section("Model");
        self.line(format_args!("named by the client: {}", model.id.named));
        for step in &model.id.because {
            self.line(format_args!("  {step}"));
        }
        match &model.id.resolved {
            Some(id) => self.line(format_args!("resolved: {id}")),
            None => self.line("refused"),
        }
        for sends in &model.regions {
            self.line(format_args!("sent to {}: {} ({})", sends.region, sends.model, sends.because));
        }
    }

    fn rules(&mut self, verdict: &rules::Verdict) {
        self.section("Rules");
        let rule = verdict.rule.as_ref().map(|rule| format!("rules[{}] {}", rule.index, rule.id));
        let denies = verdict.rule.as_ref().is_some_and(|rule| rule.denies);
        match (verdict.decision, rule) {
            ("allowed", Some(rule)) => self.line(format_args!("{rule} allows the call")),
            ("allowed", None) => self.line("no rule denies the call, and it needs no rule that allows it"),
            ("denied", Some(rule)) if denies => self.line(format_args!("{rule} denies the call")),
            ("denied", Some(rule)) => self.line(format_args!("{rule} allows the call only within its limit")),
            ("denied", None) => self.line("no rule allows the call"),
            (_, Some(rule)) => self.line(format_args!("the call passes; {rule} would refuse it (`mode: dry_run`)")),
            (_, None) => self.line("the call passes; no rule would allow it if those of `mode: dry_run` were enforced"),
        }
        for reason in verdict.because.iter().chain(&verdict.nearest) {
            self.line(format_args!("  {reason}"));
        }
    }

    fn limits(&mut self, limits: &Limits) {
        self.section("Limits");
        let per_minute = |limit: Option<u32>| {
            limit.map_or("no limit".to_owned(), |limit| format!("{limit} a minute for each caller"))
        };
        self.line(format_args!("requests: {}", per_minute(limits.requests_per_minute)));
        self.line(format_args!("tokens: {}", per_minute(limits.tokens_per_minute)));
        if let Some(calls) = limits.concurrent_calls {
            self.line(format_args!("calls at the same time: {calls} for each caller"));
        }
        self.line(format_args!("body: at most {} bytes", limits.max_body_bytes));
        if let Some(rate) = limits.bandwidth_kbps {
            self.line(format_args!("bandwidth: {rate} KiB/s for all calls of the class"));
        }
        if let Some(ms) = limits.first_byte_timeout_ms {
            self.line(format_args!("first byte: within {ms} ms, else the next endpoint is tried"));
        }
        if let Some(seconds) = limits.catalogue_max_age_seconds {
            self.line(format_args!("lists of models (`catalogue`): at most {seconds} s old, else the call is refused"));
        }
        if let Some(dscp) = limits.dscp {
            self.line(format_args!("DSCP: {dscp}"));
        }
    }

    fn routes(&mut self, routes: &[Route], relay: Option<&str>) {
        for (index, route) in routes.iter().enumerate() {
            if index == 0 {
                self.section("Route");
                relay
                    .iter()
                    .for_each(|relay| self.line(format_args!("through cluster {relay} first (`stream_relay`)")));
            }
            let share = |key: &str, weight: Option<(u32, u32)>| {
                weight.map(|(weight, sum)| format!(", {weight} of {sum} calls by `{key}`")).unwrap_or_default()
            };
            let path = share("weights", route.path_weight);
            let region = share("region_weights", route.region_weight);
            self.line(format_args!("cluster {}{path}{region}", route.cluster));
            for (number, one) in (1..).zip(&route.tries) {
                let given = if one.given { "" } else { ", not given by --path" };
                self.line(format_args!("  {number}. {} {} {}{given}", one.path, one.region, one.host));
            }
            if !route.tries.iter().any(|one| one.given) {
                self.line("  no endpoint is left: Envoy answers 503");
            }
        }
    }

    fn record(&mut self, record: &RecordedRoute) {
        self.section("Record");
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        self.line(format_args!(
            "class {}, path {}, region {}",
            shown(&record.class),
            shown(&record.path),
            shown(&record.region)
        ));
        for difference in &record.differs {
            self.line(difference);
        }
    }

    fn answer(&mut self, answer: &Answer) {
        self.section("Answer");
        answer.because.iter().for_each(|reason| self.line(reason));
        if let Some(own) = &answer.own {
            let body = serde_json::to_string_pretty(&own.body).unwrap_or_default();
            self.block(&format!("HTTP/1.1 {}, by the gateway itself:", own.status), &body);
        }
    }

    fn refusal(&mut self, refusal: &Refusal) {
        self.section("Refused by the gateway");
        self.line(format_args!("HTTP/1.1 {}", refusal.status));
        for (name, value) in &refusal.headers {
            self.line(format_args!("{name}: {value}"));
        }
        self.line("");
        self.line(&refusal.body);
    }

    fn attempt(&mut self, attempt: &Attempt) {
        self.section(&format!("First attempt: {} {} {}", attempt.path, attempt.region, attempt.host));
        if let Some(stages) = &attempt.signature {
            self.block("canonical request:", &stages.canonical_request);
            self.block("string to sign:", &stages.string_to_sign);
            self.block("signature:", &stages.signature);
        }
        let headers: String = attempt.headers.iter().map(|(name, value)| format!("\n{name}: {value}")).collect();
        self.block("request as sent:", &format!("{}{headers}", attempt.request_line));
        if !attempt.kept_back.is_empty() {
            self.line(format_args!("headers that do not cross: {}", attempt.kept_back.join(", ")));
        }
    }

    fn comparison(&mut self, comparison: &Comparison) {
        self.section("Compared with AWS's answer");
        if let Some(code) = &comparison.code {
            self.line(format_args!("error: {code}"));
        }
        for difference in &comparison.differences {
            let line = difference.line.map(|line| format!(" (line {line})")).unwrap_or_default();
            self.line(format_args!("{} differs{line}", difference.part.name()));
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
            self.line(format_args!("  gateway: {}", shown(&difference.ours)));
            self.line(format_args!("  AWS:     {}", shown(&difference.aws)));
            self.line(format_args!("  {}", difference.meaning));
        }
        comparison.meaning.iter().for_each(|meaning| self.line(meaning));
    }
}
