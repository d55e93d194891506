//! Calls the gateway with the AWS SDK for Rust: `matrix-client CA.pem`. The environment and the rows that it prints are those of
//! `matrix.py`.

use std::error::Error;

use aws_config::BehaviorVersion;
use aws_sdk_bedrockruntime::Client;
use aws_sdk_bedrockruntime::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_bedrockruntime::meta::PKG_VERSION;
use aws_sdk_bedrockruntime::primitives::Blob;
use aws_sdk_bedrockruntime::types::{
    ContentBlock, ConversationRole, ConverseStreamOutput, Message, ResponseStream, TokenUsage,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use serde_json::{Value, json};

const MODEL: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";
/// The gateway's policy refuses it.
const DENIED: &str = "anthropic.claude-3-haiku-20240307-v1:0";
const QUESTION: &str = "hello there, how do you do?";

/// The name and the message of an error.
type Failed = (String, String);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let ca = std::fs::read(std::env::args().nth(1).ok_or("the file of the gateway's CA is missing")?)?;
    let tls = TlsContext::builder().with_trust_store(TrustStore::empty().with_pem_certificate(ca)).build()?;
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    let http = http.tls_context(tls).build_https();
    let client = Client::new(&aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await);
    row("Converse", false, converse(&client, MODEL).await);
    row("ConverseStream", true, converse_stream(&client).await);
    row("InvokeModel", false, invoke(&client).await);
    row("InvokeModelWithResponseStream", true, invoke_stream(&client).await);
    row("refused", false, converse(&client, DENIED).await);
    Ok(())
}

fn row(call: &str, streams: bool, result: Result<Value, Failed>) {
    let mut row = json!({
        "client": "AWS SDK for Rust", "version": PKG_VERSION, "call": call, "streams": streams,
    });
    let more = result.unwrap_or_else(|(error, message)| json!({ "error": error, "message": message }));
    if let (Some(row), Some(more)) = (row.as_object_mut(), more.as_object()) {
        row.extend(more.clone());
    }
    println!("{row}");
}

fn raised<E, R>(error: SdkError<E, R>) -> Failed
where
    SdkError<E, R>: ProvideErrorMetadata + Error + 'static,
{
    let name = error.code().unwrap_or("no code").to_owned();
    let message = error.message().map(str::to_owned);
    (name, message.unwrap_or_else(|| DisplayErrorContext(&error).to_string()))
}

/// An answer without something that it must have.
fn lacks(what: &str) -> Failed {
    ("incomplete".to_owned(), format!("the answer has no {what}"))
}

fn message() -> Message {
    let message = Message::builder().role(ConversationRole::User).content(ContentBlock::Text(QUESTION.to_owned()));
    message.build().expect("it has a role and content")
}

fn body() -> Blob {
    let messages = json!([{ "role": "user", "content": QUESTION }]);
    let body = json!({ "anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": messages });
    Blob::new(body.to_string())
}

fn counts(usage: Option<&TokenUsage>) -> Result<(i32, i32), Failed> {
    usage.map(|usage| (usage.input_tokens(), usage.output_tokens())).ok_or_else(|| lacks("usage"))
}

async fn converse(client: &Client, model: &str) -> Result<Value, Failed> {
    let response = client.converse().model_id(model).messages(message()).send().await.map_err(raised)?;
    let (input, output) = counts(response.usage())?;
    let message = response.output().and_then(|output| output.as_message().ok()).ok_or_else(|| lacks("message"))?;
    let text = message.content().first().and_then(|block| block.as_text().ok()).ok_or_else(|| lacks("text"))?;
    Ok(json!({ "text": text, "input": input, "output": output }))
}

async fn converse_stream(client: &Client) -> Result<Value, Failed> {
    let mut response = client.converse_stream().model_id(MODEL).messages(message()).send().await.map_err(raised)?;
    let (mut text, mut events, mut usage) = (String::new(), 0, None);
    while let Some(event) = response.stream.recv().await.map_err(raised)? {
        events += 1;
        match event {
            ConverseStreamOutput::ContentBlockDelta(event) => {
                text += event.delta().and_then(|delta| delta.as_text().ok()).map_or("", String::as_str);
            }
            ConverseStreamOutput::Metadata(event) => usage = event.usage,
            _ => {}
        }
    }
    let (input, output) = counts(usage.as_ref())?;
    Ok(json!({ "text": text, "input": input, "output": output, "events": events }))
}

async fn invoke(client: &Client) -> Result<Value, Failed> {
    let call = client.invoke_model().model_id(MODEL).content_type("application/json").body(body());
    let response = call.send().await.map_err(raised)?;
    let message: Value = serde_json::from_slice(response.body().as_ref()).map_err(|_| lacks("JSON"))?;
    let usage = &message["usage"];
    let (input, output) = (&usage["input_tokens"], &usage["output_tokens"]);
    Ok(json!({ "text": message["content"][0]["text"], "input": input, "output": output }))
}

async fn invoke_stream(client: &Client) -> Result<Value, Failed> {
    let call = client.invoke_model_with_response_stream().model_id(MODEL).content_type("application/json").body(body());
    let mut response = call.send().await.map_err(raised)?;
    let (mut text, mut events, mut last) = (String::new(), 0, Value::Null);
    while let Some(event) = response.body.recv().await.map_err(raised)? {
        let ResponseStream::Chunk(part) = event else { continue };
        events += 1;
        let bytes = part.bytes().map(Blob::as_ref).unwrap_or_default();
        last = serde_json::from_slice(bytes).map_err(|_| lacks("JSON"))?;
        text += last["delta"]["text"].as_str().unwrap_or_default();
    }
    let metrics = &last["amazon-bedrock-invocationMetrics"];
    let (input, output) = (&metrics["inputTokenCount"], &metrics["outputTokenCount"]);
    Ok(json!({ "text": text, "input": input, "output": output, "events": events }))
}
