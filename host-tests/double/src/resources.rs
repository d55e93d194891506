//! The resources of an account, read one at a time: custom and imported models, provisioned throughput, prompt routers, Marketplace
//! endpoints and guardrails.
//!
//! Each kind has one resource in each region, with the id [`ID`]. An identifier is refused unless it has the pattern of botocore
//! 1.44.8's service model; one of another account or region is not found. The API Reference has a page for each operation, such as
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_GetGuardrail.html>.

use serde_json::{Value, json};

use super::answer::Answer;
use super::catalogue::ACCOUNT;
use super::context::{Context, MADE, not_found};
use super::converse::Invalid;
use super::operation::{Call, Operation};
use super::patterns::{is_guardrail, is_guardrail_version};

/// The id of each resource.
pub(crate) const ID: &str = "abc123def456";
const MODEL: &str = "foundation-model/amazon.nova-lite-v1:0";

/// Answers an operation that reads a resource.
///
/// # Errors
/// The message of the ValidationException.
pub(crate) fn answer(call: &Call, context: &Context<'_>) -> Result<Answer, Invalid> {
    let label = call.labels.first().map_or("", String::as_str);
    let model = context.arn("", MODEL);
    let found = |name: &str, kind: &str| find(name, label, kind, context);
    check(call.operation, label)?;
    if let Some(planted) = planted(call.operation, label, context) {
        return Ok(Answer::json(&planted));
    }
    let body = match call.operation {
        Operation::GetImportedModel => found("modelIdentifier", "imported-model")?.map(|arn| {
            json!({
                "modelArn": arn, "modelName": "imported", "creationTime": MADE, "instructSupported": true, "modelArchitecture": "llama",
            })
        }),
        Operation::GetCustomModel => found("modelIdentifier", "custom-model/amazon.nova-lite-v1:0")?.map(|arn| {
            json!({
                "modelArn": arn, "modelName": "custom", "creationTime": MADE, "baseModelArn": model, "customizationType": "FINE_TUNING",
                "modelStatus": "Active",
            })
        }),
        Operation::GetCustomModelDeployment => found("customModelDeploymentIdentifier", "custom-model-deployment")?.map(|arn| {
            json!({
                "customModelDeploymentArn": arn, "modelDeploymentName": "deployment", "createdAt": MADE, "status": "Active",
                "modelArn": context.arn(ACCOUNT, &format!("custom-model/amazon.nova-lite-v1:0/{ID}")),
            })
        }),
        Operation::GetProvisionedModelThroughput => found("provisionedModelId", "provisioned-model")?.map(|arn| {
            json!({
                "provisionedModelName": "provisioned", "provisionedModelArn": arn, "modelArn": model, "desiredModelArn": model,
                "foundationModelArn": model, "modelUnits": 1, "desiredModelUnits": 1, "status": "InService", "creationTime": MADE,
                "lastModifiedTime": MADE,
            })
        }),
        Operation::GetPromptRouter => prompt_router(label, context)?,
        Operation::GetMarketplaceModelEndpoint => marketplace_endpoint(label, context)?,
        Operation::ListGuardrails => match context.parameter("guardrailIdentifier") {
            Some(id) => find("guardrailIdentifier", &id, "guardrail", context)?
                .map(|arn| json!({ "guardrails": [guardrail(&arn, "DRAFT"), guardrail(&arn, "1")] })),
            None => Some(json!({
                "guardrails": [guardrail(&context.arn(ACCOUNT, &format!("guardrail/{ID}")), "DRAFT")],
            })),
        },
        Operation::GetGuardrail => {
            let version = context.parameter("guardrailVersion").unwrap_or_else(|| "DRAFT".to_owned());
            if !is_guardrail_version(&version) {
                return Err(invalid("guardrailVersion"));
            }
            let known = ["DRAFT", "1"].contains(&version.as_str());
            found("guardrailIdentifier", "guardrail")?.filter(|_| known).map(|arn| {
                let blocked = "Blocked by the guardrail.";
                json!({
                    "guardrailId": ID, "guardrailArn": arn, "name": "words", "version": version, "status": "READY", "createdAt": MADE,
                    "updatedAt": MADE, "blockedInputMessaging": blocked, "blockedOutputsMessaging": blocked,
                })
            })
        }
        _ => None,
    };
    Ok(body.map_or_else(|| not_found(label), |body| Answer::json(&body)))
}

/// The description of a resource that a test has planted.
pub(crate) fn planted(operation: Operation, label: &str, context: &Context<'_>) -> Option<Value> {
    let own = context.catalogue.resources().iter().filter(|planted| planted.is(label, context.region));
    own.filter_map(|planted| planted.description(operation)).next()
}

/// Refuses an identifier of another form.
fn check(operation: Operation, label: &str) -> Result<(), Invalid> {
    let (name, kind) = match operation {
        Operation::GetCustomModel => ("modelIdentifier", "custom-model"),
        Operation::GetCustomModelDeployment => ("customModelDeploymentIdentifier", "custom-model-deployment"),
        Operation::GetProvisionedModelThroughput => ("provisionedModelId", "provisioned-model"),
        Operation::GetImportedModel => ("modelIdentifier", "imported-model"),
        Operation::GetPromptRouter if is_arn(label, "default-prompt-router") => return Ok(()),
        Operation::GetPromptRouter => return Err(invalid("promptRouterArn")),
        _ => return Ok(()),
    };
    let last = label.rsplit('/').next().unwrap_or_default();
    let is_id = last.len() == 12 && last.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_name = !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if is_name || (is_arn(label, kind) && is_id) { Ok(()) } else { Err(invalid(name)) }
}

/// The ARN of the resource of a kind that an id or an ARN names, if it is in this account and region.
pub(crate) fn find(name: &str, given: &str, kind: &str, context: &Context<'_>) -> Result<Option<String>, Invalid> {
    let arn = context.arn(ACCOUNT, &format!("{kind}/{ID}"));
    let is_id = !given.is_empty() && given.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let fits = match kind {
        "guardrail" => is_guardrail(given),
        _ => is_id || is_arn(given, kind.split('/').next().unwrap_or_default()),
    };
    if !fits {
        return Err(invalid(name));
    }
    Ok((given == ID || given == arn).then_some(arn))
}

/// `arn:aws(-…)?:bedrock:REGION:ACCOUNT:KIND/…`.
pub(crate) fn is_arn(given: &str, kind: &str) -> bool {
    let parts: Vec<&str> = given.splitn(6, ':').collect();
    let [arn, partition, service, region, account, resource] = parts[..] else { return false };
    arn == "arn"
        && (partition == "aws" || partition.starts_with("aws-"))
        && service == "bedrock"
        && !region.is_empty()
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && resource.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.is_empty())
}

pub(crate) fn invalid(name: &str) -> Invalid {
    format!("1 validation error detected: Value at '{name}' failed to satisfy constraint")
}

/// Named by its ARN alone.
fn prompt_router(given: &str, context: &Context<'_>) -> Result<Option<Value>, Invalid> {
    if !is_arn(given, "default-prompt-router") {
        return Err(invalid("promptRouterArn"));
    }
    let model = json!({ "modelArn": context.arn("", MODEL) });
    let known = given == context.arn(ACCOUNT, "default-prompt-router/amazon.nova:1");
    Ok(known.then(|| {
        json!({
            "promptRouterName": "router", "routingCriteria": { "responseQualityDifference": 25.0 }, "createdAt": MADE, "updatedAt": MADE,
            "promptRouterArn": given, "models": [model], "fallbackModel": model, "status": "AVAILABLE", "type": "default",
        })
    }))
}

/// Named by the ARN of SageMaker's endpoint.
fn marketplace_endpoint(given: &str, context: &Context<'_>) -> Result<Option<Value>, Invalid> {
    if !given.starts_with("arn:aws") {
        return Err(invalid("endpointArn"));
    }
    let known = given == format!("arn:aws:sagemaker:{}:{ACCOUNT}:endpoint/market", context.region);
    Ok(known.then(|| {
        json!({ "marketplaceModelEndpoint": {
            "endpointArn": given, "modelSourceIdentifier": "arn:aws:sagemaker:us-east-1:aws:hub-content/SageMakerPublicHub/Model/m/1",
            "status": "REGISTERED", "createdAt": MADE, "updatedAt": MADE, "endpointStatus": "InService",
            "endpointConfig": { "sageMaker": {
                "initialInstanceCount": 1, "instanceType": "ml.g5.xlarge", "executionRole": format!("arn:aws:iam::{ACCOUNT}:role/market"),
            } },
        } })
    }))
}

fn guardrail(arn: &str, version: &str) -> Value {
    json!({
        "id": ID, "arn": arn, "name": "words", "version": version, "status": "READY", "createdAt": MADE, "updatedAt": MADE,
    })
}
