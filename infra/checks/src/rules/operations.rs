//! Policies for Bedrock allow the actions of the operations that the filter carries, and no others.
//! Source: AWS Service Authorization Reference, "Actions, resources, and condition keys for Amazon Bedrock",
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonbedrock.html>.

use std::collections::BTreeSet;

use filter_core::operation::{OPERATIONS, Operation, Service};
use serde_json::Value;

use super::{Report, texts};

/// For a caller with a Bedrock API key, besides the operation's own action. It has no resource type.
const BEARER: &str = "bedrock:CallWithBearerToken";

/// The actions that have a resource type. Of the others, a statement that names resources allows nothing. The resource type of
/// ListGuardrails is optional: a call that lists every guardrail names none.
const WITH_RESOURCE: [&str; 13] = [
    "bedrock:ApplyGuardrail",
    "bedrock:CountTokens",
    "bedrock:GetAsyncInvoke",
    "bedrock:GetCustomModel",
    "bedrock:GetFoundationModel",
    "bedrock:GetGuardrail",
    "bedrock:GetImportedModel",
    "bedrock:GetInferenceProfile",
    "bedrock:GetMarketplaceModelEndpoint",
    "bedrock:GetPromptRouter",
    "bedrock:GetProvisionedModelThroughput",
    "bedrock:InvokeModel",
    "bedrock:InvokeModelWithResponseStream",
];

/// The operations that the filter sends to Bedrock. It refuses InvokeModelWithBidirectionalStream, whose action the Service
/// Authorization Reference does not list.
pub fn carried() -> impl Iterator<Item = Operation> {
    OPERATIONS.iter().copied().filter(|operation| *operation != Operation::InvokeModelWithBidirectionalStream)
}

/// The actions of the operations of one service, or of both.
fn wanted(service: Option<Service>) -> BTreeSet<&'static str> {
    carried()
        .filter(|operation| service.is_none_or(|service| operation.service() == service))
        .map(Operation::iam_action)
        .collect()
}

pub(super) fn check(report: &mut Report<'_>) {
    if report.resource.kind == "AWS::EC2::VPCEndpoint" {
        let names = texts(report.resource.property("/ServiceName"));
        let Some(service) = names.first().and_then(|name| name.rsplit('.').next()) else { return };
        let Some(service) = [Service::Bedrock, Service::BedrockRuntime].into_iter().find(|of| of.name() == service)
        else {
            return;
        };
        let mut wanted = wanted(Some(service));
        wanted.insert(BEARER);
        let place = "/Properties/PolicyDocument";
        document(report, report.resource.property("/PolicyDocument"), place, &wanted);
        return;
    }
    identity(report, report.resource.property(""), "/Properties");
}

/// Every policy document of a role, group, user or policy.
fn identity(report: &mut Report<'_>, value: &Value, place: &str) {
    match value {
        Value::Object(object) if object.contains_key("Statement") => {
            let mut wanted = wanted(None);
            let allowed = allowed(value);
            // A policy of its own lets a key be used.
            if allowed.contains(BEARER) {
                wanted.insert(BEARER);
            }
            if allowed.iter().any(|action| *action != BEARER) {
                document(report, value, place, &wanted);
            }
        }
        Value::Object(object) => {
            for (key, inner) in object {
                identity(report, inner, &format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                identity(report, item, &format!("{place}/{index}"));
            }
        }
        _ => {}
    }
}

fn document(report: &mut Report<'_>, document: &Value, place: &str, wanted: &BTreeSet<&str>) {
    for (subject, problem) in compare(document, wanted) {
        report.fault("operations", &format!("{place}/Statement"), subject, problem);
    }
}

/// The actions of Bedrock that a policy allows.
fn allowed(document: &Value) -> BTreeSet<&str> {
    statements(document).flat_map(actions).collect()
}

fn statements(document: &Value) -> impl Iterator<Item = &Value> {
    let all = document.get("Statement").and_then(Value::as_array).into_iter().flatten();
    all.filter(|statement| statement.get("Effect").and_then(Value::as_str) == Some("Allow"))
}

fn actions(statement: &Value) -> Vec<&str> {
    let mut actions = statement.get("Action").map(texts).unwrap_or_default();
    actions.retain(|action| action.starts_with("bedrock:"));
    actions
}

/// What is wrong with the identity policies of a caller of Bedrock, given as one document: action and problem.
pub fn faults(document: &Value) -> Vec<(String, String)> {
    compare(document, &wanted(None))
}

fn compare(document: &Value, wanted: &BTreeSet<&str>) -> Vec<(String, String)> {
    let allowed = allowed(document);
    let mut found = Vec::new();
    for action in wanted.difference(&allowed) {
        let of: Vec<&str> = carried().filter(|of| of.iam_action() == *action).map(Operation::name).collect();
        found.push(((*action).to_owned(), format!("not allowed; the filter carries {}", of.join(", "))));
    }
    for action in allowed.difference(wanted) {
        found.push(((*action).to_owned(), "allowed, but of no operation that is carried here".to_owned()));
    }
    for statement in statements(document) {
        let any = statement.get("Resource").is_some_and(|resource| texts(resource).contains(&"*"));
        for action in actions(statement) {
            if any == WITH_RESOURCE.contains(&action) {
                let problem = if any { "on every resource; name ARNs" } else { "it has no resource type; want *" };
                found.push((action.to_owned(), problem.to_owned()));
            }
        }
    }
    found
}
