//! Policies for Bedrock allow the actions of the operations that the filter carries, and no others.
//! Source: AWS Service Authorization Reference, "Actions, resources, and condition keys for Amazon Bedrock",
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonbedrock.html>.

use std::collections::BTreeSet;

use filter_core::operation::{GROUPS, OPERATIONS, Operation, OperationGroup, Service};
use filter_core::route::SERVICES;
use serde_json::Value;

use super::{Report, texts};

/// For a caller with a Bedrock API key, besides the operation's own action. It has no resource type.
const BEARER: &str = "bedrock:CallWithBearerToken";

/// The actions that have a resource type. Of the others, a statement that names resources allows nothing. The resource type of
/// ListGuardrails is optional: a call that lists every guardrail names none.
const WITH_RESOURCE: [&str; 18] = [
    "bedrock:ApplyGuardrail",
    "bedrock:CountTokens",
    "bedrock:CreateModelInvocationJob",
    "bedrock:GetAsyncInvoke",
    "bedrock:GetCustomModel",
    "bedrock:GetCustomModelDeployment",
    "bedrock:GetFoundationModel",
    "bedrock:GetGuardrail",
    "bedrock:GetImportedModel",
    "bedrock:GetInferenceProfile",
    "bedrock:GetMarketplaceModelEndpoint",
    "bedrock:GetModelInvocationJob",
    "bedrock:GetPromptRouter",
    "bedrock:GetProvisionedModelThroughput",
    "bedrock:InvokeModel",
    "bedrock:InvokeModelWithResponseStream",
    "bedrock:Retrieve",
    "bedrock:StopModelInvocationJob",
];

/// The operations that the filter sends to Bedrock. It refuses InvokeModelWithBidirectionalStream, whose action the Service
/// Authorization Reference does not list.
pub fn carried() -> impl Iterator<Item = Operation> {
    OPERATIONS.iter().copied().filter(|operation| *operation != Operation::InvokeModelWithBidirectionalStream)
}

/// The actions of the operations of one service.
fn of_service(service: Service) -> BTreeSet<&'static str> {
    carried().filter(|operation| operation.service() == service).map(Operation::iam_action).collect()
}

/// The actions of the operations of a group; `None`: of those that are always carried.
fn of_group(group: Option<OperationGroup>) -> BTreeSet<&'static str> {
    carried().filter(|operation| operation.group() == group).map(Operation::iam_action).collect()
}

/// The actions that a policy has to allow that allows these: of each group with an action in it, all.
fn wanted(allowed: &BTreeSet<&str>) -> BTreeSet<&'static str> {
    let groups = [None].into_iter().chain(GROUPS.map(Some));
    let present = groups.map(of_group).filter(|actions| actions.iter().any(|action| allowed.contains(action)));
    let wanted: BTreeSet<_> = present.flatten().collect();
    if wanted.is_empty() { of_group(None) } else { wanted }
}

pub(super) fn check(report: &mut Report<'_>) {
    if report.resource.kind == "AWS::EC2::VPCEndpoint" {
        let names = texts(report.resource.property("/ServiceName"));
        let Some(service) = names.first().and_then(|name| name.rsplit('.').next()) else { return };
        let Some(service) = SERVICES.into_iter().find(|of| of.name() == service) else { return };
        // What the role may do decides about optional operations.
        let mut wanted = of_service(service);
        if carried().any(|operation| operation.service() == service && operation.takes_api_key()) {
            wanted.insert(BEARER);
        }
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
            let allowed = allowed(value);
            let mut wanted = wanted(&allowed);
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

/// What is wrong with the identity policies of a caller of Bedrock, given as one document: action and problem. `group`: the policy
/// is that of these optional operations; `None`: of all others.
pub fn faults(document: &Value, group: Option<OperationGroup>) -> Vec<(String, String)> {
    compare(document, &of_group(group))
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
