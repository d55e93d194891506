//! What the machines use has the names that the policies of GovCloud's endpoints (govcloud/network.yaml) allow, and a secret's
//! key can be used.
//! Source: AWS PrivateLink guide, "Control access to VPC endpoints using endpoint policies",
//! <https://docs.aws.amazon.com/vpc/latest/privatelink/vpc-endpoints-access.html>: a call needs both policies.

use serde_json::Value;

use super::{Report, texts};

/// Type, property of its name, and how the name begins.
const NAMED: [(&str, &str, &str); 5] = [
    ("AWS::AutoScaling::AutoScalingGroup", "AutoScalingGroupName", "bedrock-gateway-"),
    ("AWS::DynamoDB::Table", "TableName", "bedrock-gateway-"),
    ("AWS::Logs::LogGroup", "LogGroupName", "/bedrock-gateway/"),
    ("AWS::SSM::Parameter", "Name", "/bedrock-gateway/"),
    ("AWS::SecretsManager::Secret", "Name", "bedrock/"),
];

/// Service of an action, and the part of an ARN that a parameter's pattern must demand for it.
const ARNS: [(&str, &str); 2] = [("dynamodb:", ":table/bedrock-gateway-"), ("secretsmanager:", ":secret:bedrock/")];

const READ: &str = "secretsmanager:GetSecretValue";
const DECRYPT: &str = "kms:Decrypt";

pub(super) fn check(report: &mut Report<'_>) {
    let resource = report.resource;
    for (_, property, prefix) in NAMED.iter().filter(|(kind, ..)| *kind == resource.kind) {
        let name = resource.property(&format!("/{property}"));
        if !texts(name).iter().any(|name| name.starts_with(prefix)) {
            let problem = format!("want a name that begins with {prefix}; the endpoints' policies allow no other");
            report.fault("reach", "/Properties", *property, problem);
        }
    }
    if resource.kind != "AWS::EC2::VPCEndpoint" {
        documents(report, resource.property(""), "/Properties");
    }
}

/// Every policy document of the resource.
fn documents(report: &mut Report<'_>, value: &Value, place: &str) {
    match value {
        Value::Object(object) => {
            if let Some(statements) = object.get("Statement") {
                policy(report, statements, &format!("{place}/Statement"));
            }
            for (key, inner) in object {
                documents(report, inner, &format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                documents(report, item, &format!("{place}/{index}"));
            }
        }
        _ => {}
    }
}

fn policy(report: &mut Report<'_>, statements: &Value, place: &str) {
    let (mut reads, mut decrypts) = (false, false);
    for statement in statements.as_array().into_iter().flatten().flat_map(branches) {
        let actions = statement.get("Action").map(texts).unwrap_or_default();
        let resource = statement.get("Resource").unwrap_or(&Value::Null);
        reads |= actions.contains(&READ);
        decrypts |= actions.contains(&DECRYPT)
            && statement
                .pointer("/Condition/StringEquals/kms:ViaService")
                .is_some_and(|via| texts(via).contains(&"secretsmanager.${AWS::Region}.amazonaws.com"));
        if actions.contains(&"s3:GetObject") {
            objects(report, resource, place);
        }
        let named = resource.get("Ref").and_then(Value::as_str);
        let wanted = ARNS.iter().find(|(service, _)| actions.iter().any(|action| action.starts_with(service)));
        if let (Some(parameter), Some((_, part))) = (named, wanted) {
            pattern(report, parameter, part, place);
        }
    }
    if reads && !decrypts {
        let problem = format!("missing next to {READ}: a secret under a key of the account cannot be read");
        report.fault("reach", place, DECRYPT, problem);
    }
}

/// A role is changed before its machines are. So it allows every release and configuration of the bucket, or a machine that
/// starts again during an update could not read its own. The digests in its settings decide which it accepts.
fn objects(report: &mut Report<'_>, resource: &Value, place: &str) {
    for text in texts(resource) {
        let key = text.split_once(":::").and_then(|(_, object)| object.split_once('/')).map_or("", |(_, key)| key);
        if !["release/*", "config/*"].contains(&key) {
            let problem = "want release/* or config/*: a machine of the former release must read its own";
            report.fault("reach", place, text, problem);
        }
    }
}

/// A statement, or those of its conditions (`Fn::If`).
fn branches(statement: &Value) -> Vec<&Value> {
    match statement.get("Fn::If").and_then(Value::as_array) {
        Some(parts) => parts.iter().skip(1).flat_map(branches).collect(),
        None => vec![statement],
    }
}

/// A parameter with an ARN refuses what the endpoint would deny, and says why.
fn pattern(report: &mut Report<'_>, parameter: &str, part: &str, place: &str) {
    let template = report.template;
    let Some(declared) = template.document.pointer(&format!("/Parameters/{parameter}")) else { return };
    let text = |key: &str| declared.get(key).and_then(Value::as_str).unwrap_or_default();
    let said = part.rsplit(':').next().and_then(|name| name.rsplit("table/").next()).unwrap_or(part);
    if !text("AllowedPattern").contains(part) || !text("ConstraintDescription").contains(said) {
        let problem =
            format!("want AllowedPattern and ConstraintDescription with {part}; the endpoint allows no other");
        report.fault("reach", place, parameter, problem);
    }
}
