//! The project's own rules for templates, which `cfn-lint` and `checkov` do not have.
//!
//! A rule reports faults, each with its line. An exception goes next to the resource, with its reason:
//! ```yaml
//! Metadata:
//!   bedrock-gateway:
//!     allow:
//!       - { rule: wildcard, subject: "kms:*", why: "a key policy speaks of its own key only" }
//! ```
//! An exception that no fault needs is a fault itself.

mod audit;
pub mod balancer;
mod connectivity;
mod encryption;
mod landing;
mod logs;
mod network;
pub mod operations;
mod policies;
mod reach;

use std::fmt;

use serde_json::Value;

use super::template::{Resource, Template};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The rule.
    pub rule: &'static str,
    /// Below `infra/templates`.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// The resource's logical id; empty for the template itself.
    pub resource: String,
    /// The action or property. An exception names it.
    pub subject: String,
    /// What is wrong, and what is wanted.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, file, line, resource, subject, problem } = self;
        write!(f, "{file}:{line}: [{rule}] {resource}: {subject}: {problem}")
    }
}

/// Collects the faults of one resource.
struct Report<'a> {
    template: &'a Template,
    resource: Resource<'a>,
    faults: Vec<Fault>,
}

impl Report<'_> {
    /// `place` is a JSON pointer inside the resource (`/Properties/…`).
    fn fault(&mut self, rule: &'static str, place: &str, subject: impl Into<String>, problem: impl Into<String>) {
        let resource = self.resource.id.to_owned();
        self.faults.push(Fault {
            rule,
            file: self.template.file.clone(),
            line: self.template.line(&format!("/Resources/{resource}{place}")),
            resource,
            subject: subject.into(),
            problem: problem.into(),
        });
    }
}

/// Every fault of these templates without an exception, file by file.
pub fn check(templates: &[Template]) -> Vec<Fault> {
    templates.iter().flat_map(faults).collect()
}

fn faults(template: &Template) -> Vec<Fault> {
    let mut found = Vec::new();
    if template.document.pointer("/Parameters/Environment").is_none() {
        found.push(Fault {
            rule: "environment",
            file: template.file.clone(),
            line: template.line("/Parameters"),
            resource: String::new(),
            subject: "Parameters".to_owned(),
            problem: "no parameter Environment, which names the stack's resources".to_owned(),
        });
    }
    for resource in template.resources() {
        let mut report = Report { template, resource, faults: Vec::new() };
        policies::check(&mut report);
        encryption::check(&mut report);
        network::check(&mut report);
        connectivity::check(&mut report);
        audit::check(&mut report);
        operations::check(&mut report);
        balancer::check(&mut report);
        reach::check(&mut report);
        logs::check(&mut report);
        landing::check(&mut report);
        let wrong = apply_exceptions(&mut report);
        report.faults.extend(wrong);
        found.append(&mut report.faults);
    }
    found
}

/// The number of `checkov` exceptions in a template (`Metadata: checkov: skip`).
pub fn checkov_exceptions(template: &Template) -> usize {
    let lists = template.resources().filter_map(|resource| resource.body.pointer("/Metadata/checkov/skip")?.as_array());
    lists.map(Vec::len).sum()
}

/// Removes the faults that the resource's exceptions name, and returns a fault for each wrong exception.
fn apply_exceptions(report: &mut Report<'_>) -> Vec<Fault> {
    let place = "/Metadata/bedrock-gateway/allow";
    let Some(entries) = report.resource.body.pointer(place) else { return Vec::new() };
    let mut wrong = Report { template: report.template, resource: report.resource, faults: Vec::new() };
    for (index, entry) in entries.as_array().into_iter().flatten().enumerate() {
        let text = |key| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let (rule, subject) = (text("rule"), text("subject"));
        let before = report.faults.len();
        report.faults.retain(|fault| fault.rule != rule || fault.subject != subject);
        let problem = if text("why").trim().is_empty() {
            "the exception has no reason (`why`)"
        } else if report.faults.len() == before {
            "no fault needs this exception; remove it"
        } else {
            continue;
        };
        wrong.fault("exception", &format!("{place}/{index}"), format!("{rule} {subject}"), problem);
    }
    wrong.faults
}

/// The strings of a value: a string, a function of one string (`Fn::Sub`), or a list of these.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(object) => match object.get("Fn::Sub") {
            Some(Value::Array(parts)) => parts.first().map(texts).unwrap_or_default(),
            Some(text) => texts(text),
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Whether a value is given; `AWS::NoValue` counts as absent.
fn given(value: &Value) -> bool {
    !value.is_null() && value.get("Ref").and_then(Value::as_str) != Some("AWS::NoValue")
}

/// `true` as a YAML boolean or as a string.
fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true) || value.as_str() == Some("true")
}
