//! The answers of operations that run no model: the catalogue of `bedrock`, guardrails and asynchronous invocations.

use serde_json::{Value, json};

use super::answer::Answer;
use super::batch;
use super::catalogue::{ACCOUNT, Model};
use super::context::{Context, MADE, not_found};
use super::converse::Invalid;
use super::fault::error_type_of;
use super::operation::{Call, Operation};
use super::patterns::is_project;
use super::resources;
use super::retention::id_of;
use super::usage::words;

impl Context<'_> {
    fn model(&self, model: &Model) -> Value {
        let inference: Vec<&str> = match (model.listed_on_demand, model.prefixes.is_empty()) {
            (true, true) => vec!["ON_DEMAND"],
            (true, false) => vec!["ON_DEMAND", "INFERENCE_PROFILE"],
            (false, _) => vec!["INFERENCE_PROFILE"],
        };
        json!({
            "modelArn": self.arn("", &format!("foundation-model/{}", model.id)),
            "modelId": model.id,
            "modelName": model.id.split_once('.').map_or(model.id.as_str(), |(_, name)| name),
            "providerName": provider_name(&model.provider),
            "inputModalities": ["TEXT"],
            "outputModalities": [output_modality(model)],
            "responseStreamingSupported": model.mode == "chat",
            "customizationsSupported": [],
            "inferenceTypesSupported": inference,
            "modelLifecycle": lifecycle(model),
        })
    }

    fn profile(&self, prefix: &str, model: &Model) -> Value {
        let id = format!("{prefix}.{}", model.id);
        json!({
            "inferenceProfileName": format!("{} {}", prefix.to_uppercase(), model.id),
            "description": format!("Routes requests to {} in regions of {prefix}.", model.id),
            "createdAt": MADE, "updatedAt": MADE,
            "inferenceProfileArn": self.arn(ACCOUNT, &format!("inference-profile/{id}")),
            "models": [{ "modelArn": self.arn("", &format!("foundation-model/{}", model.id)) }],
            "inferenceProfileId": id, "status": "ACTIVE", "type": "SYSTEM_DEFINED",
        })
    }
}

/// Answers an operation that runs no model.
///
/// # Errors
/// The message of the ValidationException.
pub(crate) fn answer(call: &Call, context: &Context<'_>) -> Result<Answer, Invalid> {
    let label = call.labels.first().map_or("", String::as_str);
    Ok(match call.operation {
        Operation::ListFoundationModels => foundation_models(context),
        Operation::GetFoundationModel => match context.catalogue.find(label) {
            Some(model) => Answer::json(&json!({ "modelDetails": context.model(model) })),
            None => not_found(label),
        },
        Operation::GetFoundationModelAvailability => match context.catalogue.find(label) {
            Some(model) => Answer::json(&json!({
                "modelId": model.id, "agreementAvailability": { "status": "AVAILABLE" }, "authorizationStatus": "AUTHORIZED",
                "entitlementAvailability": "AVAILABLE", "regionAvailability": "AVAILABLE",
            })),
            None => not_found(label),
        },
        Operation::ListInferenceProfiles => inference_profiles(context)?,
        Operation::GetInferenceProfile => inference_profile(label, context)?,
        Operation::ListImportedModels => Answer::json(&json!({ "modelSummaries": [{
            "modelArn": context.arn(ACCOUNT, "imported-model/abc123def456"), "modelName": "imported", "creationTime": MADE,
            "instructSupported": true, "modelArchitecture": "llama",
        }] })),
        Operation::ListCustomModels => Answer::json(&json!({ "modelSummaries": [{
            "modelArn": context.arn(ACCOUNT, "custom-model/amazon.nova-lite-v1:0/abc123def456"), "modelName": "custom", "creationTime": MADE,
            "baseModelArn": context.arn("", "foundation-model/amazon.nova-lite-v1:0"), "baseModelName": "Nova Lite",
            "customizationType": "FINE_TUNING", "ownerAccountId": ACCOUNT, "modelStatus": "Active",
        }] })),
        Operation::ListProvisionedModelThroughputs => {
            let model = context.arn("", "foundation-model/amazon.nova-lite-v1:0");
            Answer::json(&json!({ "provisionedModelSummaries": [{
                "provisionedModelName": "provisioned", "provisionedModelArn": context.arn(ACCOUNT, "provisioned-model/abc123def456"),
                "modelArn": model, "desiredModelArn": model, "foundationModelArn": model, "modelUnits": 1, "desiredModelUnits": 1,
                "status": "InService", "creationTime": MADE, "lastModifiedTime": MADE,
            }] }))
        }
        Operation::ListPromptRouters => {
            let model = json!({ "modelArn": context.arn("", "foundation-model/amazon.nova-lite-v1:0") });
            Answer::json(&json!({ "promptRouterSummaries": [{
                "promptRouterName": "router", "routingCriteria": { "responseQualityDifference": 25.0 }, "createdAt": MADE, "updatedAt": MADE,
                "promptRouterArn": context.arn(ACCOUNT, "default-prompt-router/amazon.nova:1"), "models": [model], "fallbackModel": model,
                "status": "AVAILABLE", "type": "default",
            }] }))
        }
        Operation::ListMarketplaceModelEndpoints => Answer::json(&json!({ "marketplaceModelEndpoints": [{
            "endpointArn": format!("arn:aws:sagemaker:{}:{ACCOUNT}:endpoint/market", context.region), "modelSourceIdentifier": "market",
            "status": "REGISTERED", "createdAt": MADE, "updatedAt": MADE,
        }] })),
        Operation::GetImportedModel
        | Operation::GetCustomModel
        | Operation::GetCustomModelDeployment
        | Operation::GetProvisionedModelThroughput
        | Operation::GetPromptRouter
        | Operation::GetMarketplaceModelEndpoint
        | Operation::ListGuardrails
        | Operation::GetGuardrail => resources::answer(call, context)?,
        Operation::GetAccountDataRetention => account_retention(context),
        Operation::GetProject => project(label, context)?,
        Operation::CreateModelInvocationJob
        | Operation::GetModelInvocationJob
        | Operation::ListModelInvocationJobs
        | Operation::StopModelInvocationJob => batch::answer(call, context)?,
        Operation::ApplyGuardrail => apply_guardrail(call, context)?,
        Operation::InvokeGuardrailChecks => guardrail_checks(context.body)?,
        Operation::StartAsyncInvoke => start_async(context)?,
        Operation::GetAsyncInvoke => {
            if !label.starts_with("arn:aws:bedrock:") || !label.contains(":async-invoke/") {
                return Err(
                    "1 validation error detected: Value at 'invocationArn' failed to satisfy constraint".to_owned()
                );
            }
            Answer::json(&async_invocation(label, context))
        }
        Operation::ListAsyncInvokes => {
            let arn = context.arn(ACCOUNT, "async-invoke/abc123def456");
            Answer::json(&json!({ "asyncInvokeSummaries": [async_invocation(&arn, context)] }))
        }
        Operation::InvokeModel
        | Operation::InvokeModelWithResponseStream
        | Operation::Converse
        | Operation::ConverseStream
        | Operation::CountTokens
        | Operation::Rerank
        | Operation::Retrieve
        | Operation::RetrieveAndGenerate
        | Operation::RetrieveAndGenerateStream => {
            Answer::error(500, "InternalServerException", "the double ran no model for this operation")
        }
    })
}

/// A model with an end is a legacy one until then
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_FoundationModelLifecycle.html>).
fn lifecycle(model: &Model) -> Value {
    match &model.end {
        None => json!({ "status": "ACTIVE", "startOfLifeTime": MADE }),
        Some(day) => json!({
            "status": "LEGACY", "startOfLifeTime": MADE, "legacyTime": MADE, "endOfLifeTime": format!("{day}T00:00:00Z"),
        }),
    }
}

fn provider_name(provider: &str) -> String {
    let mut letters = provider.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn output_modality(model: &Model) -> &'static str {
    match model.mode.as_str() {
        "embedding" => "EMBEDDING",
        mode if mode.starts_with("image") => "IMAGE",
        _ => "TEXT",
    }
}

fn foundation_models(context: &Context<'_>) -> Answer {
    let provider = context.parameter("byProvider").map(|name| name.to_lowercase());
    let modality = context.parameter("byOutputModality");
    let inference = context.parameter("byInferenceType");
    let customised = context.parameter("byCustomizationType").is_some();
    let models: Vec<Value> = context
        .catalogue
        .models()
        .iter()
        .filter(|model| !customised && provider.as_ref().is_none_or(|provider| *provider == model.provider))
        .filter(|model| modality.as_ref().is_none_or(|modality| modality == output_modality(model)))
        .map(|model| context.model(model))
        .filter(|model| {
            inference.as_ref().is_none_or(|wanted| {
                model["inferenceTypesSupported"].as_array().is_some_and(|of| of.iter().any(|t| t == wanted))
            })
        })
        .collect();
    Answer::json(&json!({ "modelSummaries": models }))
}

/// Pages of at most `maxResults`; the token is the number of profiles passed. Forms:
/// <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_ListInferenceProfiles.html>.
fn inference_profiles(context: &Context<'_>) -> Result<Answer, Invalid> {
    let number = |name: &str, default: usize| match context.parameter(name) {
        None => Ok(default),
        Some(text) => text.parse::<usize>().map_err(|_| format!("{name} is not valid: {text:?}")),
    };
    let size = number("maxResults", 100)?;
    if !(1..=1000).contains(&size) {
        return Err("maxResults must be from 1 to 1000".to_owned());
    }
    // `NextToken`: 1 to 2048 characters, none of them white space. The double knows those that it gave.
    let from = number("nextToken", 0)?;
    let application = match context.parameter("type").as_deref() {
        Some("APPLICATION") => true,
        None | Some("SYSTEM_DEFINED") => false,
        Some(other) => return Err(format!("type must be SYSTEM_DEFINED or APPLICATION, not {other:?}")),
    };
    let all: Vec<Value> = match application {
        true => vec![application_profile("abc123def456", context)],
        false => {
            context.catalogue.profiles(context.region).map(|(prefix, model)| context.profile(prefix, model)).collect()
        }
    };
    let page: Vec<&Value> = all.iter().skip(from).take(size).collect();
    let mut out = json!({ "inferenceProfileSummaries": page });
    let next = from.saturating_add(size);
    if let (true, Some(object)) = (next < all.len(), out.as_object_mut()) {
        object.insert("nextToken".to_owned(), next.to_string().into());
    }
    Ok(Answer::json(&out))
}

fn application_profile(name: &str, context: &Context<'_>) -> Value {
    let model = context.arn("", "foundation-model/anthropic.claude-3-5-sonnet-20241022-v2:0");
    json!({
        "inferenceProfileName": "application", "createdAt": MADE, "updatedAt": MADE, "models": [{ "modelArn": model }],
        "inferenceProfileArn": context.arn(ACCOUNT, &format!("application-inference-profile/{name}")),
        "inferenceProfileId": name, "status": "ACTIVE", "type": "APPLICATION",
    })
}

/// By id or ARN, of this account and region: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_GetInferenceProfile.html>.
fn inference_profile(label: &str, context: &Context<'_>) -> Result<Answer, Invalid> {
    let is_known = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-:.".contains(&b));
    let kinds = ["inference-profile", "application-inference-profile"];
    let in_arn = kinds.iter().any(|kind| resources::is_arn(label, kind))
        && is_known(label.rsplit('/').next().unwrap_or_default());
    if !in_arn && !is_known(label) {
        return Err(resources::invalid("inferenceProfileIdentifier"));
    }
    if let Some(planted) = resources::planted(Operation::GetInferenceProfile, label, context) {
        return Ok(Answer::json(&planted));
    }
    let own = context.arn(ACCOUNT, &format!("application-inference-profile/{}", resources::ID));
    if label == own || label == resources::ID {
        return Ok(Answer::json(&application_profile(resources::ID, context)));
    }
    let prefix = context.arn(ACCOUNT, "inference-profile/");
    let id = label.strip_prefix(&prefix).unwrap_or(label);
    let found = context
        .catalogue
        .profiles(context.region)
        .find(|(prefix, model)| id.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) == Some(&model.id));
    Ok(found.map_or_else(|| not_found(label), |(prefix, model)| Answer::json(&context.profile(prefix, model))))
}

/// Forms: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_GetAccountDataRetention.html>.
fn account_retention(context: &Context<'_>) -> Answer {
    let good = || Answer::json(&json!({ "mode": context.retention.account, "updatedAt": MADE }));
    unreadable(context).unwrap_or_else(good)
}

/// Forms: botocore 1.44.8, `GetProjectResponse`. An ARN must be of the account and the region.
fn project(given: &str, context: &Context<'_>) -> Result<Answer, Invalid> {
    if !is_project(given) {
        return Err(resources::invalid("projectIdentifier"));
    }
    if let Some(failed) = unreadable(context) {
        return Ok(failed);
    }
    let id = id_of(given);
    let arn = context.arn(ACCOUNT, &format!("project/{id}"));
    let Some(mode) = context.retention.projects.get(id).filter(|_| given == id || given == arn) else {
        return Ok(Answer::error(404, "ResourceNotFoundException", "The specified project was not found."));
    };
    Ok(Answer::json(&json!({
        "id": id, "arn": arn, "name": "A project", "status": "active", "createdAt": MADE, "dataRetention": { "mode": mode },
    })))
}

fn unreadable(context: &Context<'_>) -> Option<Answer> {
    let status = context.retention.fault?;
    Some(Answer::error(status, error_type_of(status), "The data retention is answered so."))
}

/// Intervenes when the text says `forbidden`.
fn apply_guardrail(call: &Call, context: &Context<'_>) -> Result<Answer, Invalid> {
    let source = context.body.get("source").and_then(Value::as_str);
    if !matches!(source, Some("INPUT" | "OUTPUT")) {
        return Err("source must be INPUT or OUTPUT".to_owned());
    }
    let content = context.body.get("content").and_then(Value::as_array).ok_or("content is required")?;
    let texts: Vec<&str> = content.iter().filter_map(|block| block.get("text")?.get("text")?.as_str()).collect();
    let blocked = texts.iter().any(|text| text.contains("forbidden"));
    let characters: usize = texts.iter().map(|text| text.chars().count()).sum();
    let assessment = match blocked {
        true => {
            json!([{ "wordPolicy": { "customWords": [{ "match": "forbidden", "action": "BLOCKED", "detected": true }], "managedWordLists": [] } }])
        }
        false => json!([]),
    };
    Ok(Answer::json(&json!({
        "usage": {
            "topicPolicyUnits": 0, "contentPolicyUnits": 0, "wordPolicyUnits": 1, "sensitiveInformationPolicyUnits": 0,
            "sensitiveInformationPolicyFreeUnits": 0, "contextualGroundingPolicyUnits": 0,
        },
        "action": if blocked { "GUARDRAIL_INTERVENED" } else { "NONE" },
        "outputs": if blocked { json!([{ "text": "Blocked by the guardrail." }]) } else { json!([]) },
        "assessments": assessment,
        "guardrailCoverage": { "textCharacters": { "guarded": characters, "total": characters } },
        "actionReason": format!("guardrail {}", call.labels.join(" version ")),
    })))
}

/// Every requested check, without findings.
fn guardrail_checks(body: &Value) -> Result<Answer, Invalid> {
    let messages = body.get("messages").and_then(Value::as_array).ok_or("messages is required")?;
    let checks = body.get("checks").and_then(Value::as_object).ok_or("checks is required")?;
    let blocks = messages.iter().filter_map(|message| message.get("content")?.as_array()).flatten();
    let units: usize = blocks.filter_map(|block| block.get("text")?.as_str()).map(words).sum();
    let (mut results, mut usage) = (serde_json::Map::new(), serde_json::Map::new());
    for (check, list) in
        [("contentFilter", "categories"), ("promptAttack", "categories"), ("sensitiveInformation", "entities")]
    {
        let Some(wanted) = checks.get(check) else {
            continue;
        };
        let names = wanted.get(list).and_then(Value::as_array).ok_or(format!("checks.{check}.{list} is required"))?;
        let found: Vec<Value> = match check {
            "sensitiveInformation" => Vec::new(),
            _ => names
                .iter()
                .map(|name| json!({ "category": name.get("category").unwrap_or(name), "severityScore": 0.0 }))
                .collect(),
        };
        results.insert(check.to_owned(), json!({ "results": found }));
        usage.insert(check.to_owned(), json!({ "textUnits": units }));
    }
    Ok(Answer::json(&json!({ "results": results, "usage": usage })))
}

fn start_async(context: &Context<'_>) -> Result<Answer, Invalid> {
    for key in ["modelId", "modelInput", "outputDataConfig"] {
        context.body.get(key).ok_or(format!("{key} is required"))?;
    }
    let bucket = context.body.pointer("/outputDataConfig/s3OutputDataConfig/s3Uri").and_then(Value::as_str);
    if !bucket.is_some_and(|uri| uri.starts_with("s3://")) {
        return Err("outputDataConfig.s3OutputDataConfig.s3Uri must be an S3 URI".to_owned());
    }
    Ok(Answer::json(&json!({ "invocationArn": context.arn(ACCOUNT, "async-invoke/abc123def456") })))
}

fn async_invocation(arn: &str, context: &Context<'_>) -> Value {
    json!({
        "invocationArn": arn, "modelArn": context.arn("", "foundation-model/amazon.nova-reel-v1:0"), "status": "Completed",
        "submitTime": MADE, "lastModifiedTime": MADE, "endTime": MADE,
        "outputDataConfig": { "s3OutputDataConfig": { "s3Uri": "s3://bucket/prefix" } },
    })
}
