//! Converse and ConverseStream: checks the shape of the request and echoes its text.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::eventstream::event;
use super::usage::{Piece, Usage, echo};

/// Members of the request, from botocore's model.
const MEMBERS: &[&str] = &[
    "messages",
    "system",
    "inferenceConfig",
    "toolConfig",
    "guardrailConfig",
    "projectIdentifier",
    "additionalModelRequestFields",
    "promptVariables",
    "additionalModelResponseFieldPaths",
    "requestMetadata",
    "performanceConfig",
    "serviceTier",
    "outputConfig",
];

/// Members of the union ContentBlock.
const BLOCKS: &[&str] = &[
    "text",
    "image",
    "document",
    "video",
    "audio",
    "toolUse",
    "toolResult",
    "guardContent",
    "cachePoint",
    "reasoningContent",
    "citationsContent",
    "searchResult",
    "toolAddition",
    "toolRemoval",
];

/// A parsed request: the text to echo and to count.
#[derive(Debug)]
pub struct Question<'a> {
    pieces: Vec<Piece<'a>>,
    last: String,
    max_words: usize,
}

/// The message of a ValidationException.
pub type Invalid = String;

impl<'a> Question<'a> {
    /// Checks the shape. `needs_messages` is false for a managed prompt, which has its own messages.
    ///
    /// # Errors
    /// The message of the ValidationException.
    pub fn read(body: &'a Value, needs_messages: bool) -> Result<Self, Invalid> {
        let body = body.as_object().ok_or("The request body is not a JSON object.")?;
        if let Some(extra) = body.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
            return Err(format!(
                "Malformed input request: #: extraneous key [{extra}] is not permitted, please reformat your input and try again."
            ));
        }
        let max_words = inference_config(body.get("inferenceConfig"))?;
        let mut out = Self { pieces: Vec::new(), last: String::new(), max_words };
        for (nth, block) in list(body.get("system"), "system")?.iter().enumerate() {
            let (kind, value) = union(block, &["text", "guardContent", "cachePoint"], &format!("system.{nth}"))?;
            out.take(kind, value);
        }
        let messages = list(body.get("messages"), "messages")?;
        if messages.is_empty() && needs_messages {
            return Err("The value at messages is empty. Provide at least one message and try again.".to_owned());
        }
        let mut roles = ["user", "assistant"].iter().cycle();
        for (nth, message) in messages.iter().enumerate() {
            let at = format!("messages.{nth}");
            let role = message.get("role").and_then(Value::as_str).ok_or(format!("{at}: role is required"))?;
            if roles.next().is_none_or(|wanted| *wanted != role) {
                return Err(
                    "A conversation must start with a user message and alternate between user and assistant roles. Make sure the conversation \
                     alternates between user and assistant roles and try again."
                        .to_owned(),
                );
            }
            let content = list(message.get("content"), &format!("{at}.content"))?;
            if content.is_empty() {
                return Err(format!(
                    "The content field in the Message object at {at} is empty. Add a ContentBlock object to the content field and try again."
                ));
            }
            if role == "user" {
                out.last.clear();
            }
            for (nth, block) in content.iter().enumerate() {
                let (kind, value) = union(block, BLOCKS, &format!("{at}.content.{nth}"))?;
                out.take(kind, value);
                if let ("text", "user", Some(text)) = (kind, role, value.as_str()) {
                    out.last.push_str(text);
                    out.last.push(' ');
                }
            }
        }
        Ok(out)
    }

    /// Text counts in its position, also inside a tool's result.
    fn take(&mut self, kind: &str, value: &'a Value) {
        match kind {
            "text" => self.pieces.extend(value.as_str().map(Piece::Text)),
            "cachePoint" => self.pieces.push(Piece::CachePoint),
            "toolResult" => {
                let inner = value.get("content").and_then(Value::as_array).into_iter().flatten();
                self.pieces.extend(inner.filter_map(|block| block.get("text")?.as_str()).map(Piece::Text));
            }
            _ => {}
        }
    }

    /// The words of the prompt, cached ones included.
    #[must_use]
    pub fn input_tokens(&self) -> usize {
        let usage = Usage::count(&self.pieces, "");
        let (read, write) = usage.cached.unwrap_or_default();
        usage.input + read + write
    }

    fn reply(&self) -> (String, &'static str, Usage) {
        let (text, cut) = echo(&self.last, self.max_words);
        let usage = Usage::count(&self.pieces, &text);
        (text, if cut { "max_tokens" } else { "end_turn" }, usage)
    }

    /// The answer of Converse.
    #[must_use]
    pub fn answer(&self, latency: Duration, with_usage: bool) -> Answer {
        let (text, stop, usage) = self.reply();
        let mut out = json!({
            "output": { "message": { "role": "assistant", "content": [ { "text": text } ] } },
            "stopReason": stop,
            "metrics": { "latencyMs": millis(latency) },
        });
        if let (true, Some(object)) = (with_usage, out.as_object_mut()) {
            object.insert("usage".to_owned(), usage.converse());
        }
        Answer::json(&out)
    }

    /// The frames of ConverseStream, one a word.
    #[must_use]
    pub fn frames(&self, latency: Duration, with_usage: bool) -> Vec<Vec<u8>> {
        let (text, stop, usage) = self.reply();
        // `p` pads events, so that their length does not give away the words.
        let mut frames = vec![named("messageStart", &json!({ "role": "assistant", "p": "abcd" }))];
        for word in text.split_inclusive(' ') {
            frames.push(named(
                "contentBlockDelta",
                &json!({ "contentBlockIndex": 0, "delta": { "text": word }, "p": "ab" }),
            ));
        }
        frames.push(named("contentBlockStop", &json!({ "contentBlockIndex": 0, "p": "a" })));
        frames.push(named("messageStop", &json!({ "stopReason": stop, "p": "a" })));
        if with_usage {
            let metadata =
                json!({ "usage": usage.converse(), "metrics": { "latencyMs": millis(latency) }, "p": "abc" });
            frames.push(named("metadata", &metadata));
        }
        frames
    }
}

fn named(event_type: &str, payload: &Value) -> Vec<u8> {
    event(event_type, payload.to_string().as_bytes())
}

/// Whole milliseconds, at least one.
#[must_use]
pub fn millis(latency: Duration) -> u64 {
    u64::try_from(latency.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The bound on the reply's words.
fn inference_config(config: Option<&Value>) -> Result<usize, Invalid> {
    let Some(config) = config else {
        return Ok(usize::MAX);
    };
    let config: &Map<String, Value> = config.as_object().ok_or("inferenceConfig is not an object")?;
    for (name, value) in config {
        let fits = match name.as_str() {
            "maxTokens" => value.as_u64().is_some_and(|n| n >= 1),
            "temperature" | "topP" => value.as_f64().is_some_and(|n| (0.0..=1.0).contains(&n)),
            "stopSequences" => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            _ => false,
        };
        if !fits {
            return Err(format!("inferenceConfig.{name} does not have a value that is permitted"));
        }
    }
    let max = config.get("maxTokens").and_then(Value::as_u64).unwrap_or(u64::MAX);
    Ok(usize::try_from(max).unwrap_or(usize::MAX))
}

fn list<'a>(value: Option<&'a Value>, at: &str) -> Result<&'a [Value], Invalid> {
    match value {
        None => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(format!("{at} is not a list")),
    }
}

/// A union's one member.
fn union<'a>(value: &'a Value, members: &[&str], at: &str) -> Result<(&'a str, &'a Value), Invalid> {
    let object = value.as_object().ok_or(format!("{at} is not an object"))?;
    let mut entries = object.iter();
    match (entries.next(), entries.next()) {
        (Some((name, value)), None) if members.contains(&name.as_str()) => Ok((name, value)),
        _ => Err(format!("{at} must have exactly one member of {}", members.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_conversation() {
        for body in [
            json!([]),
            json!({}),
            json!({ "messages": [] }),
            json!({ "messages": {} }),
            json!({ "messages": [{ "role": "assistant", "content": [{ "text": "x" }] }] }),
            json!({ "messages": [{ "role": "user", "content": [] }] }),
            json!({ "messages": [{ "role": "user", "content": "x" }] }),
            json!({ "messages": [{ "role": "user", "content": [{ "texts": "x" }] }] }),
            json!({ "messages": [{ "role": "user", "content": [{ "text": "x", "image": {} }] }] }),
            json!({ "messages": [{ "role": "user", "content": [{ "text": "x" }] }, { "role": "user", "content": [{ "text": "x" }] }] }),
            json!({ "messages": [{ "role": "user", "content": [{ "text": "x" }] }], "model": "x" }),
            json!({ "messages": [{ "role": "user", "content": [{ "text": "x" }] }], "inferenceConfig": { "maxTokens": 0 } }),
        ] {
            assert!(Question::read(&body, true).is_err(), "{body}");
        }
        assert!(Question::read(&json!({}), false).is_ok(), "a managed prompt brings its messages");
    }

    #[test]
    fn counts_and_echoes_the_last_turn() {
        let body = json!({
            "system": [{ "text": "be brief" }, { "cachePoint": { "type": "default" } }],
            "messages": [
                { "role": "user", "content": [{ "text": "one two" }] },
                { "role": "assistant", "content": [{ "text": "three" }] },
                { "role": "user", "content": [{ "toolResult": { "toolUseId": "t", "content": [{ "text": "four" }] } }, { "text": "five six" }] },
            ],
        });
        let question = Question::read(&body, true).unwrap();
        let (text, stop, usage) = question.reply();
        assert_eq!((text.as_str(), stop), ("echo: five six", "end_turn"));
        assert_eq!(usage, Usage { input: 6, output: 3, cached: Some((2, 0)) });
        assert_eq!(question.input_tokens(), 8);
    }
}
