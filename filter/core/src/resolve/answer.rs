//! What Bedrock's answers say of a resource, read within bounds.

use super::rules::MAX_MODELS;
use crate::geography::of_region;
use crate::model::is_resolved;
use crate::operation::Operation;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Longest answer that is read, in bytes. A custom model's has its metrics and hyperparameters.
pub const MAX_BODY: usize = 256 << 10;
/// Most ARNs in an answer. A profile names its model once for each region.
const MAX_ARNS: usize = 128;
/// Longest id of a model, in bytes (`BedrockModelId` of the API Reference has at most 140). A Marketplace model's ARN is longer.
const LONGEST_ID: usize = 256;

/// What an answer names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// Ids of models.
    pub(crate) models: BTreeSet<String>,
    /// Resources, of which Bedrock has to be asked again.
    pub(crate) resources: Vec<String>,
}

/// Why an answer does not say what a resource runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("the answer has {0} bytes, of which at most {MAX_BODY} are read")]
    TooLong(usize),
    // Serde's own words may repeat a text of the answer.
    #[error("the answer has another form, at line {line}, column {column}")]
    Form { line: usize, column: usize },
    #[error("the answer names no {0}")]
    Nothing(&'static str),
    #[error("the answer names '{0}', which is not the ARN of a model")]
    NotAModel(String),
    #[error("the answer names more than {MAX_MODELS} models")]
    TooMany,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    models: Vec<Target>,
    fallback_model: Option<Target>,
    model_arn: Option<String>,
    desired_model_arn: Option<String>,
    foundation_model_arn: Option<String>,
    base_model_arn: Option<String>,
    update_details: Option<Update>,
    marketplace_model_endpoint: Option<Endpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    model_arn: String,
}

/// `CustomModelDeploymentUpdateDetails` of botocore 1.44.8.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Update {
    model_arn: String,
    #[serde(default)]
    update_status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    model_source_identifier: String,
}

/// Reads the answer to an operation that describes a resource.
pub(crate) fn read(operation: Operation, body: &[u8]) -> Result<Named, AnswerError> {
    if body.len() > MAX_BODY {
        return Err(AnswerError::TooLong(body.len()));
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| AnswerError::Form { line: error.line(), column: error.column() })?;
    let needed = |value: Option<String>, name| value.ok_or(AnswerError::Nothing(name));
    let arns: Vec<String> = match operation {
        Operation::GetInferenceProfile => answer.models.into_iter().map(|model| model.model_arn).collect(),
        Operation::GetPromptRouter => {
            // Any of them may run, the fallback too.
            let fallback = answer.fallback_model.ok_or(AnswerError::Nothing("fallback model"))?;
            answer.models.into_iter().chain([fallback]).map(|model| model.model_arn).collect()
        }
        Operation::GetProvisionedModelThroughput => {
            // A custom model here was customised from the foundation model, and so is one that it is changed to
            // (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_UpdateProvisionedModelThroughput.html>).
            let is_base = |arn: &String| arn.contains("::foundation-model/");
            let own = [answer.model_arn, answer.desired_model_arn].into_iter().flatten().filter(is_base);
            own.chain([needed(answer.foundation_model_arn, "foundation model")?]).collect()
        }
        Operation::GetCustomModel => vec![needed(answer.base_model_arn, "base model")?],
        Operation::GetCustomModelDeployment => {
            // Calls may reach either model until an update has ended, and AWS does not say which member has which then.
            let update = answer.update_details.filter(|update| update.update_status != "UpdateFailed");
            let own = needed(answer.model_arn, "custom model")?;
            let other = update.map(|update| update.model_arn).filter(|arn| *arn != own);
            std::iter::once(own).chain(other).collect()
        }
        Operation::GetMarketplaceModelEndpoint => {
            let endpoint = answer.marketplace_model_endpoint.ok_or(AnswerError::Nothing("endpoint"))?;
            return marketplace(endpoint.model_source_identifier);
        }
        _ => Vec::new(),
    };
    named(arns)
}

/// A model of the Marketplace, which has no id of Bedrock's.
fn marketplace(arn: String) -> Result<Named, AnswerError> {
    let is_one = arn.starts_with("arn:aws:sagemaker:") && arn.contains(":hub-content/");
    if !is_one || arn.len() > LONGEST_ID || !arn.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(AnswerError::NotAModel(shown(&arn)));
    }
    Ok(Named { models: BTreeSet::from([arn]), resources: Vec::new() })
}

fn named(arns: Vec<String>) -> Result<Named, AnswerError> {
    if arns.is_empty() {
        return Err(AnswerError::Nothing("model"));
    }
    if arns.len() > MAX_ARNS {
        return Err(AnswerError::TooMany);
    }
    let mut named = Named::default();
    let mut regions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for arn in arns {
        if arn.len() > LONGEST_ID {
            return Err(AnswerError::NotAModel(shown(&arn)));
        }
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        match parts.as_slice() {
            ["arn", "aws", "bedrock", region, "", resource] if is_resolved(&arn) => {
                let id = resource.split_once('/').map_or("", |(_, id)| id);
                regions.entry(id.to_owned()).or_default().insert((*region).to_owned());
            }
            ["arn", "aws", "bedrock", _, _, resource] if is_resolved(&arn) => {
                named.models.insert(resource.split_once('/').map_or("", |(_, id)| id).to_owned());
            }
            ["arn", "aws", "bedrock", ..] => named.resources.push(arn),
            _ => return Err(AnswerError::NotAModel(shown(&arn))),
        }
    }
    for (id, regions) in regions {
        named.models.extend(ids(&id, &regions));
    }
    if named.models.len() + named.resources.len() > MAX_MODELS { Err(AnswerError::TooMany) } else { Ok(named) }
}

/// The ids of a model that runs in these regions. In several it is called as an inference profile of their geography, so that rules
/// for `eu.*` or `global.*` hold. An ARN without a region is a global profile's
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/global-cross-region-inference.html>).
fn ids(id: &str, regions: &BTreeSet<String>) -> Vec<String> {
    let with = |geography: &str| format!("{geography}.{id}");
    if regions.contains("") {
        return vec![with("global")];
    }
    if regions.len() < 2 {
        return vec![id.to_owned()];
    }
    let orders: Vec<&[&str]> = regions.iter().map(|region| of_region(region)).collect();
    let first = orders.first().copied().unwrap_or_default();
    if let Some(shared) = first.iter().find(|geography| orders.iter().all(|order| order.contains(geography))) {
        return vec![with(shared)];
    }
    // No one geography has them all.
    let each: BTreeSet<String> =
        orders.iter().filter_map(|order| order.last()).map(|geography| with(geography)).collect();
    each.into_iter().chain([with("global")]).collect()
}

fn shown(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(LONGEST_ID).collect()
}
