//! Reranking and knowledge bases: the operations of `bedrock-agent-runtime`
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Agents_for_Amazon_Bedrock_Runtime.html>).
//!
//! Each region has one knowledge base, [`KNOWLEDGE_BASE`]. What is required and the bounds are those of botocore 1.44.8's service
//! model.

use serde_json::{Value, json};

use super::answer::Answer;
use super::catalogue::ACCOUNT;
use super::context::{Context, not_found};
use super::converse::Invalid;
use super::eventstream::event;
use super::operation::{Call, Operation};
use super::resources::invalid;

/// The id of the knowledge base.
const KNOWLEDGE_BASE: &str = "KB12345678";
const SESSION: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
const CONFIGURATION: &str = "/retrieveAndGenerateConfiguration";

/// The model that a body names.
pub(crate) fn model(body: &Value) -> Option<&str> {
    let places = [
        "/rerankingConfiguration/bedrockRerankingConfiguration/modelConfiguration/modelArn",
        "/retrievalConfiguration/vectorSearchConfiguration/rerankingConfiguration/bedrockRerankingConfiguration/modelConfiguration/modelArn",
        "/retrieveAndGenerateConfiguration/knowledgeBaseConfiguration/modelArn",
        "/retrieveAndGenerateConfiguration/externalSourcesConfiguration/modelArn",
    ];
    places.iter().find_map(|place| body.pointer(place)?.as_str())
}

/// Answers an operation of the service.
///
/// # Errors
/// The message of the ValidationException.
pub(crate) fn answer(call: &Call, context: &Context<'_>) -> Result<Answer, Invalid> {
    let body = context.body;
    match call.operation {
        Operation::Rerank => rerank(body),
        Operation::Retrieve => retrieve(call.labels.first().map_or("", String::as_str), context),
        _ => generate(call.operation, context),
    }
}

fn text<'a>(value: &'a Value, place: &str) -> Option<&'a str> {
    value.pointer(place)?.as_str()
}

/// Whether a member has one of these values.
fn is(value: &Value, place: &str, wanted: &[&str]) -> bool {
    text(value, place).is_some_and(|text| wanted.contains(&text))
}

fn rerank(body: &Value) -> Result<Answer, Invalid> {
    let list = |key: &str| body.get(key).and_then(Value::as_array).ok_or(format!("{key} is required"));
    let (queries, sources) = (list("queries")?, list("sources")?);
    if queries.len() != 1 {
        return Err(invalid("queries"));
    }
    let is_query = |query: &Value| is(query, "/type", &["TEXT"]) && text(query, "/textQuery/text").is_some();
    if !queries.iter().all(is_query) {
        return Err(invalid("queries.1.member"));
    }
    if !(1..=1000).contains(&sources.len()) {
        return Err(invalid("sources"));
    }
    let is_source = |source: &Value| {
        is(source, "/type", &["INLINE"]) && is(source, "/inlineDocumentSource/type", &["TEXT", "JSON"])
    };
    if !sources.iter().all(is_source) {
        return Err(invalid("sources.member"));
    }
    if !is(body, "/rerankingConfiguration/type", &["BEDROCK_RERANKING_MODEL"]) || model(body).is_none() {
        return Err(invalid("rerankingConfiguration"));
    }
    let results: Vec<Value> = (0..sources.len())
        .map(|index| json!({ "index": index, "relevanceScore": 1.0 / (index as f64 + 1.0) }))
        .collect();
    Ok(Answer::json(&json!({ "results": results })))
}

fn retrieve(label: &str, context: &Context<'_>) -> Result<Answer, Invalid> {
    let is_id = label.len() == 10 && label.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_arn = label.starts_with("arn:aws") && label.contains(":knowledge-base/");
    if !is_id && !is_arn {
        return Err(invalid("knowledgeBaseId"));
    }
    let query = context.body.get("retrievalQuery").ok_or("retrievalQuery is required")?;
    if text(query, "/text").is_some_and(|text| text.chars().count() > 20_000) {
        return Err(invalid("retrievalQuery.text"));
    }
    if label != KNOWLEDGE_BASE && label != context.arn(ACCOUNT, &format!("knowledge-base/{KNOWLEDGE_BASE}")) {
        return Ok(not_found(label));
    }
    Ok(Answer::json(&json!({ "retrievalResults": [{
        "content": { "text": "hello there", "type": "TEXT" }, "score": 0.5,
        "location": { "type": "S3", "s3Location": { "uri": "s3://bucket/document" } },
    }] })))
}

fn generate(operation: Operation, context: &Context<'_>) -> Result<Answer, Invalid> {
    let body = context.body;
    let input = text(body, "/input/text").ok_or("input.text is required")?;
    if input.chars().count() > 1000 {
        return Err(invalid("input.text"));
    }
    let configuration = body.pointer(CONFIGURATION).ok_or("retrieveAndGenerateConfiguration is required")?;
    let known = match text(configuration, "/type") {
        Some("KNOWLEDGE_BASE") => {
            let id = configuration.pointer("/knowledgeBaseConfiguration/knowledgeBaseId").and_then(Value::as_str);
            id.ok_or_else(|| invalid("retrieveAndGenerateConfiguration.knowledgeBaseConfiguration"))? == KNOWLEDGE_BASE
        }
        Some("EXTERNAL_SOURCES") => true,
        _ => return Err(invalid("retrieveAndGenerateConfiguration.type")),
    };
    if model(body).is_none() {
        return Err(invalid("retrieveAndGenerateConfiguration"));
    }
    if !known {
        return Ok(not_found("the knowledge base"));
    }
    // A session is continued by the id that an answer gave.
    let session = body.get("sessionId").and_then(Value::as_str);
    if session.is_some_and(|session| session != SESSION) {
        return Err(format!(
            "Session with Id {} is not valid. Please check and try again.",
            session.unwrap_or_default()
        ));
    }
    let output = format!("echo: {input}");
    if operation == Operation::RetrieveAndGenerate {
        return Ok(Answer::json(&json!({ "sessionId": SESSION, "output": { "text": output }, "citations": [] })));
    }
    let mut frames: Vec<Vec<u8>> = output
        .split_inclusive(' ')
        .map(|part| event("output", json!({ "text": part }).to_string().as_bytes()))
        .collect();
    frames.push(event("citation", json!({ "retrievedReferences": [] }).to_string().as_bytes()));
    let headers = vec![
        ("content-type", "application/vnd.amazon.eventstream".to_owned()),
        ("x-amzn-bedrock-knowledge-base-session-id", SESSION.to_owned()),
    ];
    Ok(Answer::stream(headers, frames))
}
