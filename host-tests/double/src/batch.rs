//! Batch jobs (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_CreateModelInvocationJob.html>, and the pages of the other
//! three operations).
//!
//! Each region has one job with the id [`ID`]. What is required, the patterns and the bounds are those of botocore 1.44.8's service
//! model. A role of another account, or of another partition, cannot be passed
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html>).

use serde_json::{Value, json};

use super::answer::Answer;
use super::catalogue::ACCOUNT;
use super::context::{Context, MADE, not_found};
use super::converse::Invalid;
use super::operation::{Call, Operation};
use super::resources::{ID, find, invalid};

/// Answers an operation of batch jobs.
///
/// # Errors
/// The message of the ValidationException.
pub(crate) fn answer(call: &Call, context: &Context<'_>) -> Result<Answer, Invalid> {
    let label = call.labels.first().map_or("", String::as_str);
    let found = || find("jobIdentifier", label, "model-invocation-job", context);
    Ok(match call.operation {
        Operation::CreateModelInvocationJob => create(context)?,
        Operation::ListModelInvocationJobs => {
            list_bounds(context)?;
            Answer::json(&json!({ "invocationJobSummaries": [job(&arn(context), context)] }))
        }
        Operation::GetModelInvocationJob => match found()? {
            Some(arn) => Answer::json(&job(&arn, context)),
            None => not_found(label),
        },
        _ => match found()? {
            Some(_) => Answer::json(&json!({})),
            None => not_found(label),
        },
    })
}

fn create(context: &Context<'_>) -> Result<Answer, Invalid> {
    let body = context.body;
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    for key in ["jobName", "roleArn", "modelId", "inputDataConfig", "outputDataConfig"] {
        body.get(key).ok_or(format!("{key} is required"))?;
    }
    if !text("jobName").is_some_and(is_name) {
        return Err(invalid("jobName"));
    }
    // botocore fills it in, so that a request that is sent twice makes one job.
    if text("clientRequestToken").is_some_and(|token| !is_token(token)) {
        return Err(invalid("clientRequestToken"));
    }
    for place in ["/inputDataConfig/s3InputDataConfig/s3Uri", "/outputDataConfig/s3OutputDataConfig/s3Uri"] {
        if !body.pointer(place).and_then(Value::as_str).is_some_and(|uri| uri.starts_with("s3://")) {
            return Err(format!("{} must be an S3 URI", place.trim_start_matches('/').replace('/', ".")));
        }
    }
    if body
        .get("timeoutDurationInHours")
        .is_some_and(|hours| !hours.as_u64().is_some_and(|hours| (24..=168).contains(&hours)))
    {
        return Err(invalid("timeoutDurationInHours"));
    }
    if body.get("modelInvocationType").is_some_and(|kind| !matches!(kind.as_str(), Some("InvokeModel" | "Converse"))) {
        return Err(invalid("modelInvocationType"));
    }
    let role = text("roleArn").unwrap_or_default();
    if !role.starts_with("arn:aws") || !role.contains(":role/") {
        return Err(invalid("roleArn"));
    }
    if !role.starts_with(&format!("arn:aws:iam::{ACCOUNT}:role/")) {
        return Ok(Answer::error(403, "AccessDeniedException", "Cross-account pass role is not allowed."));
    }
    Ok(Answer::json(&json!({ "jobArn": arn(context) })))
}

/// `[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9\\+\\-\\.]){0,63}`, at most 63.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// `[a-zA-Z0-9]{1,256}(-*[a-zA-Z0-9]){0,256}`, at most 256.
fn is_token(token: &str) -> bool {
    let is_alphanumeric = |end: char| end.is_ascii_alphanumeric();
    (1..=256).contains(&token.len())
        && token.starts_with(is_alphanumeric)
        && token.ends_with(is_alphanumeric)
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn list_bounds(context: &Context<'_>) -> Result<(), Invalid> {
    let status = context.parameter("statusEquals");
    let statuses = [
        "Submitted",
        "InProgress",
        "Completed",
        "Failed",
        "Stopping",
        "Stopped",
        "PartiallyCompleted",
        "Expired",
        "Validating",
        "Scheduled",
    ];
    if status.is_some_and(|status| !statuses.contains(&status.as_str())) {
        return Err(invalid("statusEquals"));
    }
    let most = context.parameter("maxResults").map(|text| text.parse::<u32>());
    match most {
        Some(most) if !most.as_ref().is_ok_and(|most| (1..=1000).contains(most)) => Err(invalid("maxResults")),
        _ => Ok(()),
    }
}

fn arn(context: &Context<'_>) -> String {
    context.arn(ACCOUNT, &format!("model-invocation-job/{ID}"))
}

fn job(arn: &str, context: &Context<'_>) -> Value {
    json!({
        "jobArn": arn, "jobName": "nightly", "modelId": context.arn("", "foundation-model/amazon.nova-lite-v1:0"),
        "roleArn": format!("arn:aws:iam::{ACCOUNT}:role/batch"), "status": "InProgress", "submitTime": MADE, "lastModifiedTime": MADE,
        "inputDataConfig": { "s3InputDataConfig": { "s3Uri": "s3://bucket/in/" } },
        "outputDataConfig": { "s3OutputDataConfig": { "s3Uri": "s3://bucket/out/" } },
    })
}
