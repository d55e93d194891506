//! Who may do what: statements without wildcards, trust in the right audience, ARNs of the right partition.
//! Source: AWS IAM User Guide, "IAM JSON policy elements reference".

use serde_json::Value;

use super::{Report, texts};

/// The action by which a web identity becomes a role.
const WEB_IDENTITY: &str = "sts:AssumeRoleWithWebIdentity";
/// Services of AWS that roles of this project are for.
const SERVICES: [&str; 4] =
    ["ec2.amazonaws.com", "vpc-flow-logs.amazonaws.com", "rolesanywhere.amazonaws.com", "lambda.amazonaws.com"];

pub(super) fn check(report: &mut Report<'_>) {
    let properties = report.resource.property("");
    walk(report, properties, "/Properties", false);
}

/// Looks at every value: statements of policies wherever they stand, and ARNs.
fn walk(report: &mut Report<'_>, value: &Value, place: &str, trust: bool) {
    match value {
        Value::String(text) => {
            for literal in ["arn:aws:", "arn:aws-us-gov:"] {
                if text.contains(literal) {
                    let problem = "a partition in clear; write arn:${AWS::Partition}: or take the ARN as a parameter";
                    report.fault("partition", place, literal, problem);
                }
            }
            // A policy as one text, so that a condition's key can hold a parameter.
            if text.trim_start().starts_with('{') && text.contains("Statement") {
                match serde_json::from_str::<Value>(text) {
                    Ok(policy) => statements(report, &policy, place, trust),
                    Err(error) => report.fault("policy-json", place, "policy", error.to_string()),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(report, item, &format!("{place}/{index}"), trust);
            }
        }
        Value::Object(object) => {
            if object.contains_key("Effect") {
                statement(report, value, place, trust);
            }
            for (key, inner) in object {
                let trust = trust || key == "AssumeRolePolicyDocument";
                walk(report, inner, &format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")), trust);
            }
        }
        _ => {}
    }
}

/// The statements of a policy that was text.
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
            report.fault("wildcard", place, key, "allows what it does not name; name what is allowed");
        }
    }
    for action in texts(part("Action")).into_iter().filter(|action| action.contains('*')) {
        report.fault("wildcard", place, action, "an action with a wildcard; name the actions");
    }
    for resource in texts(part("Resource")) {
        if resource == "*" {
            report.fault("wildcard", place, "Resource *", "every resource; name them");
        }
    }
    let principal = part("Principal");
    if texts(principal).contains(&"*") || principal.get("AWS").is_some_and(|aws| texts(aws).contains(&"*")) {
        report.fault("wildcard", place, "Principal *", "anyone; name who");
    }
    if trust {
        trusted(report, statement, place);
    }
}

/// Who a role trusts.
fn trusted(report: &mut Report<'_>, statement: &Value, place: &str) {
    let principal = statement.get("Principal").unwrap_or(&Value::Null);
    for service in principal.get("Service").map(texts).unwrap_or_default() {
        if !SERVICES.contains(&service) {
            report.fault("trust", place, service, format!("a service that no role is for; they are {SERVICES:?}"));
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
            let meant = resolved(report, &audience);
            if meant != AUDIENCE {
                let problem = format!("the audience {meant:?}; the gateway's tokens are for {AUDIENCE:?}");
                report.fault("trust", place, "aud", problem);
            }
        }
        None => report.fault("trust", place, "aud", "no StringEquals on the token's audience"),
    }
    match condition(":sub") {
        Some(subject) if !subject.contains('*') => {}
        Some(_) => report.fault("trust", place, "sub", "a wildcard in the token's subject"),
        None => report.fault("trust", place, "sub", "no StringEquals on the token's subject: anyone of the account"),
    }
}

/// The audience of the gateway's tokens: `infra/policies/govcloud-gateway.json` lets it ask for this one only.
const AUDIENCE: &str = "bedrock-gateway";

/// `${Parameter}` as its default.
fn resolved(report: &Report<'_>, text: &str) -> String {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let default = name.and_then(|name| report.template.default(name)).and_then(Value::as_str);
    default.unwrap_or(text).to_owned()
}
