//! InvokeModel and its stream, in the shapes of the providers whose bodies differ.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::Answer;
use super::converse::{Invalid, Question, millis};
use super::eventstream::event;
use super::usage::{Piece, Usage, echo};

/// The version of Anthropic's Messages that AWS documents for Bedrock.
const ANTHROPIC_VERSION: &str = "bedrock-2023-05-31";
/// The version that Anthropic's SDK for Python (2.12) sends to Bedrock.
const ANTHROPIC_SDK_VERSION: &str = "2026-10-21";

/// The shape of a provider's bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Anthropic,
    Nova,
    Embedding,
    Llama,
    Other,
}

impl Family {
    /// By the model's name. For ARNs and fault models, by the body.
    fn of(model: &str, body: &Value) -> Self {
        match model {
            _ if model.starts_with("anthropic.") => Self::Anthropic,
            _ if model.starts_with("amazon.nova") => Self::Nova,
            _ if model.contains("embed") => Self::Embedding,
            _ if model.starts_with("meta.") => Self::Llama,
            _ if body.get("anthropic_version").is_some() => Self::Anthropic,
            _ => Self::Other,
        }
    }
}

/// A parsed request.
#[derive(Debug)]
pub struct Prompt<'a> {
    family: Family,
    model: &'a str,
    pieces: Vec<Piece<'a>>,
    reply: String,
    stop: &'static str,
}

impl<'a> Prompt<'a> {
    /// Checks a body against the shape of its family.
    ///
    /// # Errors
    /// The message of the ValidationException.
    pub fn read(model: &'a str, body: &'a Value) -> Result<Self, Invalid> {
        let family = Family::of(model, body);
        if !body.is_object() {
            return Err(
                "Malformed input request: #: expected type: JSONObject, please reformat your input and try again."
                    .to_owned(),
            );
        }
        let (pieces, last, max_words) = match family {
            Family::Anthropic => anthropic(model, body)?,
            Family::Nova => {
                let messages = body.get("messages").ok_or_else(|| required("messages"))?;
                (texts(messages), last_text(messages), usize::MAX)
            }
            Family::Embedding => {
                let text = body.get("inputText").or_else(|| body.get("texts")).ok_or_else(|| required("inputText"))?;
                (texts_of(text), String::new(), 0)
            }
            Family::Llama => {
                let prompt = body.get("prompt").and_then(Value::as_str).ok_or_else(|| required("prompt"))?;
                (vec![Piece::Text(prompt)], prompt.to_owned(), usize::MAX)
            }
            Family::Other => (texts(body), last_text(body), usize::MAX),
        };
        let (reply, cut) = if family == Family::Embedding { (String::new(), false) } else { echo(&last, max_words) };
        Ok(Self { family, model, pieces, reply, stop: if cut { "max_tokens" } else { "end_turn" } })
    }

    /// The words of the prompt, cached ones included.
    #[must_use]
    pub fn input_tokens(&self) -> usize {
        let usage = self.usage();
        let (read, write) = usage.cached.unwrap_or_default();
        usage.input + read + write
    }

    fn usage(&self) -> Usage {
        Usage::count(&self.pieces, &self.reply)
    }

    /// The answer of InvokeModel, with token headers.
    #[must_use]
    pub fn answer(&self, latency: Duration, with_usage: bool) -> Answer {
        let usage = self.usage();
        let mut body = match self.family {
            Family::Anthropic => json!({
                "id": "msg_bdrk_double", "type": "message", "role": "assistant", "model": self.model,
                "content": [{ "type": "text", "text": self.reply }],
                "stop_reason": self.stop, "stop_sequence": null, "usage": usage.anthropic(),
            }),
            Family::Nova => json!({
                "output": { "message": { "role": "assistant", "content": [{ "text": self.reply }] } },
                "stopReason": self.stop, "usage": usage.converse(),
            }),
            Family::Embedding => {
                json!({ "embedding": [0.25, -0.5, 0.125], "inputTextTokenCount": usage.input })
            }
            Family::Llama => json!({
                "generation": self.reply, "prompt_token_count": usage.input, "generation_token_count": usage.output, "stop_reason": "stop",
            }),
            Family::Other => json!({ "completion": self.reply, "stop_reason": self.stop }),
        };
        let mut answer_headers = Vec::new();
        if with_usage {
            answer_headers = usage.headers();
        } else if let Some(object) = body.as_object_mut() {
            object.retain(|name, _| name != "usage" && !name.ends_with("oken_count") && !name.ends_with("TokenCount"));
        }
        let mut answer = Answer::json(&body);
        answer.headers.append(&mut answer_headers);
        answer.headers.push(("x-amzn-bedrock-invocation-latency", millis(latency).to_string()));
        answer
    }

    /// The frames of InvokeModelWithResponseStream: `chunk` events with the provider's own events within.
    #[must_use]
    pub fn frames(&self, latency: Duration, with_usage: bool) -> Vec<Vec<u8>> {
        let usage = self.usage();
        let words = || self.reply.split_inclusive(' ');
        let mut events: Vec<Value> = match self.family {
            Family::Anthropic => {
                let mut started = usage.anthropic();
                if let Some(object) = started.as_object_mut() {
                    object.insert("output_tokens".to_owned(), 1.into());
                }
                let message = json!({
                    "id": "msg_bdrk_double", "type": "message", "role": "assistant", "model": self.model, "content": [],
                    "stop_reason": null, "stop_sequence": null, "usage": started,
                });
                let mut out = vec![
                    json!({ "type": "message_start", "message": message }),
                    json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
                ];
                out.extend(words().map(|word| json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": word } })));
                out.push(json!({ "type": "content_block_stop", "index": 0 }));
                out.push(json!({
                    "type": "message_delta", "delta": { "stop_reason": self.stop, "stop_sequence": null },
                    "usage": { "output_tokens": usage.output },
                }));
                out.push(json!({ "type": "message_stop" }));
                out
            }
            Family::Nova => {
                let mut out = vec![json!({ "messageStart": { "role": "assistant" } })];
                out.extend(
                    words().map(
                        |word| json!({ "contentBlockDelta": { "delta": { "text": word }, "contentBlockIndex": 0 } }),
                    ),
                );
                out.push(json!({ "contentBlockStop": { "contentBlockIndex": 0 } }));
                out.push(json!({ "messageStop": { "stopReason": self.stop } }));
                out.push(json!({ "metadata": { "usage": usage.converse() } }));
                out
            }
            Family::Llama => words().map(|word| json!({ "generation": word, "stop_reason": null })).collect(),
            Family::Embedding | Family::Other => words().map(|word| json!({ "completion": word })).collect(),
        };
        let metrics = usage.metrics(millis(latency));
        if let (true, Some(last)) = (with_usage, events.last_mut().and_then(Value::as_object_mut)) {
            last.insert("amazon-bedrock-invocationMetrics".to_owned(), metrics);
        }
        events
            .iter()
            .map(|one| json!({ "bytes": STANDARD.encode(one.to_string()), "p": "abcdefghij" }))
            .map(|chunk| event("chunk", chunk.to_string().as_bytes()))
            .collect()
    }
}

fn required(key: &str) -> Invalid {
    format!("Malformed input request: #: required key [{key}] not found, please reformat your input and try again.")
}

/// Whether a model takes the role `system` after a user's turn: Claude Opus 4.8 and later ones do
/// (<https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-8>). Bedrock's own pages do not name it; Claude Code
/// 2.1 sends it to Bedrock, and repeats the call without it after a 400.
fn takes_system_turns(model: &str) -> bool {
    ["anthropic.claude-opus-4-8", "anthropic.claude-opus-5"].iter().any(|known| model.starts_with(known))
}

/// Anthropic's Messages: pieces, the last user's text, and `max_tokens`.
fn anthropic<'a>(model: &str, body: &'a Value) -> Result<(Vec<Piece<'a>>, String, usize), Invalid> {
    let version = body.get("anthropic_version").ok_or("anthropic_version: Field required")?;
    if version != ANTHROPIC_VERSION && version != ANTHROPIC_SDK_VERSION {
        return Err(format!("anthropic_version: {version} is not supported; {ANTHROPIC_VERSION:?} is"));
    }
    if let Some(extra) = ["model", "stream"].into_iter().find(|key| body.get(key).is_some()) {
        return Err(format!("{extra}: Extra inputs are not permitted"));
    }
    let max =
        body.get("max_tokens").and_then(Value::as_u64).filter(|max| *max > 0).ok_or("max_tokens: Field required")?;
    let messages = body.get("messages").and_then(Value::as_array).ok_or("messages: Field required")?;
    if messages.is_empty() {
        return Err("messages: at least one message is required".to_owned());
    }
    let mut pieces = body.get("system").map(texts_of).unwrap_or_default();
    let mut last = String::new();
    let mut after_user = false;
    for (nth, message) in messages.iter().enumerate() {
        let content = message.get("content").ok_or(format!("messages.{nth}.content: Field required"))?;
        let said = texts_of(content);
        let role = message.get("role").and_then(Value::as_str);
        match role {
            Some("user") => last = joined(&said),
            Some("assistant") => {}
            Some("system") if after_user && takes_system_turns(model) => {}
            _ => {
                return Err(format!("messages.{nth}.role: Input should be 'user' or 'assistant'"));
            }
        }
        after_user = role == Some("user");
        pieces.extend(said);
    }
    Ok((pieces, last, usize::try_from(max).unwrap_or(usize::MAX)))
}

/// Text as a string, or as blocks that may end a cached prefix.
fn texts_of(content: &Value) -> Vec<Piece<'_>> {
    match content {
        Value::String(text) => vec![Piece::Text(text)],
        Value::Array(blocks) => blocks
            .iter()
            .flat_map(|block| {
                let text = block.as_str().or_else(|| block.get("text")?.as_str()).map(Piece::Text);
                let point = block.get("cache_control").or_else(|| block.get("cachePoint")).map(|_| Piece::CachePoint);
                text.into_iter().chain(point)
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Every text in messages of any other form, or under `prompt` and `inputText`.
fn texts(body: &Value) -> Vec<Piece<'_>> {
    let messages = body.as_array().or_else(|| body.get("messages")?.as_array());
    match messages {
        Some(messages) => messages.iter().filter_map(|message| message.get("content")).flat_map(texts_of).collect(),
        None => ["prompt", "inputText"].iter().filter_map(|key| body.get(key)).flat_map(texts_of).collect(),
    }
}

fn last_text(body: &Value) -> String {
    let pieces = texts(body);
    let last = pieces.iter().rev().find(|piece| matches!(piece, Piece::Text(_)));
    last.map(|piece| joined(std::slice::from_ref(piece))).unwrap_or_default()
}

fn joined(pieces: &[Piece<'_>]) -> String {
    let texts = pieces.iter().filter_map(|piece| if let Piece::Text(text) = piece { Some(*text) } else { None });
    texts.collect::<Vec<_>>().join(" ")
}

/// CountTokens: the words of either form of its input.
///
/// # Errors
/// The message of the ValidationException.
pub fn count_tokens(model: &str, body: &Value) -> Result<Answer, Invalid> {
    let input = body.get("input").and_then(Value::as_object).ok_or("input is required")?;
    let mut members = input.iter();
    let tokens = match (members.next(), members.next()) {
        (Some((name, converse)), None) if name == "converse" => Question::read(converse, true)?.input_tokens(),
        (Some((name, invoke)), None) if name == "invokeModel" => {
            let body = invoke.get("body").and_then(Value::as_str).ok_or("input.invokeModel.body is required")?;
            let decoded = STANDARD.decode(body).map_err(|e| format!("input.invokeModel.body is not base64: {e}"))?;
            let body: Value =
                serde_json::from_slice(&decoded).map_err(|e| format!("input.invokeModel.body is not JSON: {e}"))?;
            Prompt::read(model, &body)?.input_tokens()
        }
        _ => return Err("input must have exactly one member of invokeModel, converse".to_owned()),
    };
    Ok(Answer::json(&json!({ "inputTokens": tokens })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anthropic_bodies_are_checked() {
        let good = json!({ "anthropic_version": ANTHROPIC_VERSION, "max_tokens": 16, "messages": [{ "role": "user", "content": "hi there" }] });
        let prompt = Prompt::read("anthropic.x", &good).unwrap();
        assert_eq!((prompt.reply.as_str(), prompt.input_tokens()), ("echo: hi there", 2));
        for key in ["anthropic_version", "max_tokens", "messages"] {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(key);
            assert!(Prompt::read("anthropic.x", &bad).is_err(), "{key}");
        }
        for (key, value) in [
            ("model", json!("x")),
            ("stream", json!(true)),
            ("anthropic_version", json!("2023-06-01")),
            ("messages", json!([])),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            assert!(Prompt::read("anthropic.x", &bad).is_err(), "{key}");
        }
    }

    #[test]
    fn newer_models_take_turns_of_the_system() {
        let body = |roles: &[&str]| {
            let messages: Vec<Value> = roles.iter().map(|role| json!({ "role": role, "content": "hi" })).collect();
            json!({ "anthropic_version": ANTHROPIC_VERSION, "max_tokens": 16, "messages": messages })
        };
        let takes = |model: &str, roles: &[&str]| Prompt::read(model, &body(roles)).is_ok();
        assert!(takes("anthropic.claude-opus-5-5", &["user", "system"]));
        assert!(takes("anthropic.claude-opus-4-8", &["user", "system", "assistant", "user"]));
        assert!(!takes("anthropic.claude-opus-5-5", &["system", "user"]));
        assert!(!takes("anthropic.claude-opus-5-5", &["user", "assistant", "system"]));
        assert!(!takes("anthropic.claude-opus-4-7", &["user", "system"]));
    }

    #[test]
    fn counts_both_forms_of_count_tokens() {
        let tokens = |body: &Value| count_tokens("anthropic.x", body).map(|answer| format!("{:?}", answer.body));
        let inner = json!({ "anthropic_version": ANTHROPIC_VERSION, "max_tokens": 1, "messages": [{ "role": "user", "content": "a b c" }] });
        let invoke = json!({ "input": { "invokeModel": { "body": STANDARD.encode(inner.to_string()) } } });
        let converse =
            json!({ "input": { "converse": { "messages": [{ "role": "user", "content": [{ "text": "a b c" }] }] } } });
        for body in [invoke, converse] {
            assert!(tokens(&body).unwrap().contains(r#"inputTokens\":3"#));
        }
        assert!(tokens(&json!({ "input": {} })).is_err());
    }
}
