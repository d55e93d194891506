//! The API of the Lambda-based proxy that the gateway replaces: its requests become requests of Bedrock's API, and Bedrock's
//! answers get its form.
//!
//! Source: version 1 of that proxy (<https://github.com/freshie/bedrock-cross-partition-inferencing>, `lambda/lambda_function.py`).
//! It answers every failure with 500 and one message; the gateway keeps the form, and gives the true status, code and message.

use crate::config::{self, Auth, ConfigError, Role, at};
use crate::headers::Headers;
use crate::json_object::{Object, ObjectProblem};
use crate::operation::{CallError, OPERATIONS, Operation};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;
use serde_json::value::RawValue;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const JSON: &str = "application/json";
/// The first segment of the gateway's own API.
const GATEWAY_STAGE: &str = "gateway";
/// Set in the body of every call to a model of Anthropic's, whatever the client sent.
const ANTHROPIC_VERSION: (&str, &str) = ("anthropic_version", "\"bedrock-2023-05-31\"");

/// The API, where the operator offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LambdaApi {
    stage: String,
    region: String,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// `POST /v1/bedrock/invoke-model`
    Invoke,
    /// `GET /v1/bedrock/models`
    Models,
    /// `GET /v1/bedrock/invoke-model`: where calls go.
    Route,
}

/// Why the body of a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeProblem {
    /// The envelope.
    #[error("The request body is not as this API has it: {0}.")]
    Envelope(#[from] ObjectProblem),
    /// What the model gets.
    #[error("The member 'body' of the request is not what a model takes: {0}.")]
    Body(ObjectProblem),
}

impl LambdaApi {
    pub(crate) fn compile(config: &config::LambdaApi, (role, auth): (Role, Auth)) -> Result<Self, ConfigError> {
        let config::LambdaApi { stage, region } = config;
        if role == Role::Combined && auth == Auth::Bearer {
            let problem = "role `combined` with `auth: bearer` cannot hold bodies, and these name their model inside: leave the key out";
            return Err(at("lambda_api", problem));
        }
        if stage == GATEWAY_STAGE {
            return Err(at("lambda_api.stage", "paths of the gateway's own API begin with 'gateway'"));
        }
        let plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if !plain(stage) {
            return Err(at(
                "lambda_api.stage",
                format!("{stage:?} is not one segment of letters, digits, `-` and `_`"),
            ));
        }
        let first = |operation: &Operation| operation.template().split('/').nth(1) == Some(stage);
        if let Some(operation) = OPERATIONS.iter().find(|operation| first(operation)) {
            return Err(at("lambda_api.stage", format!("paths of {operation} begin with '{stage}'")));
        }
        if !region.starts_with("us-gov-") || !plain(region) {
            return Err(at("lambda_api.region", format!("{region:?} is not a region of GovCloud's")));
        }
        Ok(Self { stage: stage.clone(), region: region.clone() })
    }

    /// What a request asks for; `None` if its path is not below the stage. Later versions of the proxy had the same paths
    /// below `vpn` too.
    pub(crate) fn asked(&self, headers: &Headers) -> Option<Result<Asked, CallError>> {
        let path = headers.get_str(":path")?.split(['?', '#']).next()?;
        let rest = path.strip_prefix('/')?.strip_prefix(self.stage.as_str())?.strip_prefix('/')?;
        Some(match (headers.get_str(":method")?, rest.strip_prefix("vpn/").unwrap_or(rest)) {
            ("POST", "bedrock/invoke-model") => Ok(Asked::Invoke),
            ("GET", "bedrock/models") => Ok(Asked::Models),
            ("GET", "bedrock/invoke-model") => Ok(Asked::Route),
            _ => Err(CallError::Unknown),
        })
    }
}

// === requests ===

/// The request for the list of models.
pub(crate) fn list_models(headers: &Headers) -> Headers {
    request(headers, Operation::ListFoundationModels, &[], &[])
}

/// The InvokeModel request in an envelope, and its body. `resolve` gives the model that an id stands for.
pub(crate) fn invocation(
    headers: &Headers,
    envelope: &[u8],
    resolve: impl Fn(&str) -> String,
) -> Result<(Headers, Vec<u8>), EnvelopeProblem> {
    let envelope = Object::parse(envelope, &["modelId", "contentType", "accept", "body"])?;
    let problem = ObjectProblem::Member("modelId", "the id of a model");
    let model = envelope.text("modelId")?.filter(|model| !model.is_empty()).ok_or(problem)?;
    let kind = |name| {
        let text = envelope.text(name)?.unwrap_or_else(|| JSON.to_owned());
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if plain { Ok(text) } else { Err(ObjectProblem::Member(name, "a content type")) }
    };
    let (content_type, accept) = (kind("contentType")?, kind("accept")?);
    let wanted = "an object, or the JSON text of one";
    let body = envelope.get("body")?.ok_or(ObjectProblem::Member("body", wanted))?.get();
    let body = if body.starts_with('"') {
        serde_json::from_str(body).map_err(|_| ObjectProblem::Member("body", wanted))?
    } else {
        body.to_owned()
    };
    let (name, version) = ANTHROPIC_VERSION;
    let object = Object::parse(body.as_bytes(), &[name]).map_err(EnvelopeProblem::Body)?;
    let is_anthropic = [model.clone(), resolve(&model)].iter().any(|id| id.to_ascii_lowercase().contains("anthropic"));
    let body = match object.get(name).map_err(EnvelopeProblem::Body)? {
        _ if !is_anthropic => body,
        Some(value) => object.with(value, version),
        None => object.with_first(&format!("\"{name}\":{version}")),
    };
    let length = body.len().to_string();
    let own = [("content-type", content_type.as_str()), ("accept", &accept), ("content-length", &length)];
    Ok((request(headers, Operation::InvokeModel, &[model], &own), body.into_bytes()))
}

/// A request of Bedrock's API with the client's headers, but for those that the envelope has.
fn request(headers: &Headers, operation: Operation, labels: &[String], own: &[(&str, &str)]) -> Headers {
    const REPLACED: [&str; 5] = [":method", ":path", "content-type", "accept", "content-length"];
    let others = headers.iter().filter(|(name, _)| !REPLACED.contains(name));
    let mut request: Headers = others.map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    request.push(":method", operation.method().as_str());
    request.push(":path", operation.path(labels, ""));
    for (name, value) in own {
        request.push(*name, *value);
    }
    request
}

// === answers ===

/// The headers that a success has besides.
pub(crate) const PARTITIONS: [(&str, &str); 2] =
    [("x-source-partition", "govcloud"), ("x-destination-partition", "commercial")];

/// A model of ListFoundationModels, with the members that the API shows.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Model<'a> {
    #[serde(borrow)]
    model_id: Option<&'a RawValue>,
    #[serde(borrow)]
    model_name: Option<&'a RawValue>,
    #[serde(borrow)]
    provider_name: Option<&'a RawValue>,
    #[serde(borrow, serialize_with = "list")]
    input_modalities: Option<&'a RawValue>,
    #[serde(borrow, serialize_with = "list")]
    output_modalities: Option<&'a RawValue>,
    #[serde(borrow, serialize_with = "flag")]
    response_streaming_supported: Option<&'a RawValue>,
    #[serde(borrow, serialize_with = "list")]
    customizations_supported: Option<&'a RawValue>,
    #[serde(borrow, serialize_with = "list")]
    inference_types_supported: Option<&'a RawValue>,
}

fn list<S: Serializer>(value: &Option<&RawValue>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => serializer.collect_seq([(); 0]),
    }
}

fn flag<S: Serializer>(value: &Option<&RawValue>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => serializer.serialize_bool(false),
    }
}

/// A model's answer.
pub(crate) fn invoked(body: &[u8], content_type: Option<&str>) -> Result<Vec<u8>, ObjectProblem> {
    let body = std::str::from_utf8(body).map_err(|_| ObjectProblem::NotAnObject)?;
    Ok(json!({ "body": body, "contentType": content_type.unwrap_or(JSON) }).to_string().into_bytes())
}

/// A failure.
pub(crate) fn failure(code: &str, message: &str, request_id: &str) -> Vec<u8> {
    json!({ "error": { "code": code, "message": message, "requestId": request_id } }).to_string().into_bytes()
}

/// The message of a failure of Bedrock's or Envoy's.
pub(crate) fn message(body: &[u8], status: u16) -> String {
    const NAMES: [&str; 2] = ["message", "Message"];
    let object = Object::parse(body, &NAMES).ok();
    let text = |name| object.as_ref()?.text(name).ok().flatten();
    NAMES.into_iter().find_map(text).unwrap_or_else(|| format!("Amazon Bedrock answered with status {status}."))
}

impl LambdaApi {
    /// The list of models that a region has.
    pub(crate) fn models(
        &self,
        answer: &[u8],
        region: &str,
        request_id: &str,
        now: SystemTime,
    ) -> Result<Vec<u8>, ObjectProblem> {
        const MEMBER: &str = "modelSummaries";
        let value = Object::parse(answer, &[MEMBER])?.get(MEMBER)?;
        let models = value.and_then(|value| serde_json::from_str::<Vec<Model<'_>>>(value.get()).ok());
        let models = models.ok_or(ObjectProblem::Member(MEMBER, "a list of models"))?;
        let about = json!({ "region": region, "partition": "aws", "description": format!("{} - Commercial AWS", long_name(region)) });
        let source = json!({ "partition": "AWS GovCloud", "region": self.region, "requestId": request_id });
        let total = models.len();
        // Tables of texts: serialising them cannot fail.
        let models = serde_json::to_string(&models).unwrap_or_default();
        let time = json!(timestamp(now));
        let body = format!(
            "{{\"region\":{about},\"models\":{models},\"totalModels\":{total},\"timestamp\":{time},\"source\":{source}}}"
        );
        Ok(body.into_bytes())
    }

    /// Where calls go.
    pub(crate) fn route(&self, request_id: &str, now: SystemTime) -> Vec<u8> {
        let answer = json!({
            "message": "Cross-Partition Inference Proxy",
            "status": "operational",
            "routing": {
                "source": { "partition": "AWS GovCloud", "region": self.region, "service": "Bedrock gateway" },
                "destination": { "partition": "AWS Commercial", "service": "Amazon Bedrock" },
            },
            "request_info": { "request_id": request_id, "timestamp": timestamp(now) },
            "endpoints": {
                "bedrock_proxy": format!("/{}/bedrock/invoke-model", self.stage),
                "methods": ["GET (info)", "POST (inference)"],
            },
        });
        answer.to_string().into_bytes()
    }
}

/// As `datetime.utcnow().isoformat() + "Z"` writes it: microseconds, if there are any.
fn timestamp(now: SystemTime) -> String {
    let time = OffsetDateTime::from(now);
    let time = time.replace_nanosecond(time.microsecond() * 1000).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}

fn long_name(region: &str) -> &str {
    match region {
        "us-east-1" => "US East (N. Virginia)",
        "us-east-2" => "US East (Ohio)",
        "us-west-2" => "US West (Oregon)",
        other => other,
    }
}

#[cfg(test)]
#[path = "lambda_api_tests.rs"]
mod tests;
