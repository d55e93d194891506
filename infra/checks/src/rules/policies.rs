//! IAM policies: no wildcards, trust bound to audience and subject, no ARN with a literal partition.
//! Source: AWS IAM User Guide, "IAM JSON policy elements reference".

use serde_json::Value;

use super::{Report, texts};

const WEB_IDENTITY: &str = "sts:AssumeRoleWithWebIdentity";
/// AWS services that may assume roles of this project.
const SERVICES: [&str; 4] =
    ["ec2.amazonaws.com", "vpc-flow-logs.amazonaws.com", "rolesanywhere.amazonaws.com", "lambda.amazonaws.com"];

pub(super) fn check(report: &mut Report<'_>) {
    let properties = report.resource.property("");
    visit(report, properties, "/Properties", false);
}

/// Visits every value: policy statements at any depth, and ARNs.
fn visit(report: &mut Report<'_>, value: &Value, place: &str, trust: bool) {
    match value {
        Value::String(text) => {
            for literal in ["arn:aws:", "arn:aws-us-gov:"] {
                if text.contains(literal) {
                    let problem = "a literal partition; write arn:${AWS::Partition}: or take the ARN as a parameter";
                    report.fault("partition", place, literal, problem);
                }
            }
            // A policy as a string: a condition's key can then contain a parameter.
            if text.trim_start().starts_with('{') && text.contains("Statement") {
                match serde_json::from_str::<Value>(text) {
                    Ok(policy) => statements(report, &policy, place, trust),
                    Err(error) => report.fault("policy-json", place, "policy", error.to_string()),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                visit(report, item, &format!("{place}/{index}"), trust);
            }
        }
        Value::Object(object) => {
            if object.contains_key("Effect") {
                statement(report, value, place, trust);
            }
            for (key, inner) in object {
                let trust = trust || key == "AssumeRolePolicyDocument";
                visit(report, inner, &format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")), trust);
            }
        }
        _ => {}
    }
}

/// The statements of a policy that is a string.
fn statements(report: &mut Report<'_>, policy: &Value, place: &str, trust: bool) {
    for entry in policy.get("Statement").and_then(Value::as_array).into_iter().flatten() {
        statement(report, entry, place, trust);
    }
}

fn statement(report: &mut Report<'_>, statement: &Value, place: &str, trust: bool) {
    let part = |key: &str| statement.get(key).unwrap_or(&Value::Null);
    if part("Effect").as_str() != Some("Allow") {
        return;
    }
    for key in ["NotAction", "NotResource", "NotPrincipal"] {
        if !part(key).is_null() {
            report.fault("wildcard", place, key, "allows everything that it does not name; name what is allowed");
        }
    }
    for action in texts(part("Action")).into_iter().filter(|action| action.contains('*')) {
        report.fault("wildcard", place, action, "a wildcard in an action; name the actions");
    }
    for resource in texts(part("Resource")) {
        if resource == "*" {
            report.fault("wildcard", place, "Resource *", "every resource; name them");
        }
    }
    let principal = part("Principal");
    if texts(principal).contains(&"*") || principal.get("AWS").is_some_and(|aws| texts(aws).contains(&"*")) {
        report.fault("wildcard", place, "Principal *", "any principal; name it");
    }
    if trust {
        trusted(report, statement, place);
    }
}

fn trusted(report: &mut Report<'_>, statement: &Value, place: &str) {
    let principal = statement.get("Principal").unwrap_or(&Value::Null);
    for service in principal.get("Service").map(texts).unwrap_or_default() {
        if !SERVICES.contains(&service) {
            report.fault("trust", place, service, format!("an unexpected service; want one of {SERVICES:?}"));
        }
    }
    let web = statement.get("Action").is_some_and(|action| texts(action).contains(&WEB_IDENTITY));
    if principal.get("Federated").is_none() && !web {
        return;
    }
    if !web {
        report.fault("trust", place, "Action", format!("a federated principal without {WEB_IDENTITY}"));
    }
    let equal = statement.pointer("/Condition/StringEquals").and_then(Value::as_object);
    let condition = |suffix: &str| {
        let found = equal.into_iter().flatten().find(|(key, _)| key.ends_with(suffix));
        found.and_then(|(_, value)| value.as_str()).map(str::to_owned)
    };
    match condition(":aud") {
        Some(audience) => {
            let audience = resolved(report, &audience);
            if audience != AUDIENCE {
                let problem = format!("the audience is {audience:?}; the gateway's tokens have {AUDIENCE:?}");
                report.fault("trust", place, "aud", problem);
            }
        }
        None => report.fault("trust", place, "aud", "no StringEquals on the token's audience"),
    }
    match condition(":sub") {
        Some(subject) if !subject.contains('*') => {}
        Some(_) => report.fault("trust", place, "sub", "a wildcard in the token's subject"),
        None => report.fault(
            "trust",
            place,
            "sub",
            "no StringEquals on the token's subject: any role of the account could assume it",
        ),
    }
}

/// The audience of the gateway's tokens, the only one that `infra/policies/govcloud-gateway.json` allows.
const AUDIENCE: &str = "bedrock-gateway";

/// The default of the parameter if the text is `${Parameter}`, else the text.
fn resolved(report: &Report<'_>, text: &str) -> String {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let default = name.and_then(|name| report.template.default(name)).and_then(Value::as_str);
    default.unwrap_or(text).to_owned()
}
