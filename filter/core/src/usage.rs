//! Reads the token counts of a response while it passes, in constant memory and without delaying a byte.
//!
//! Sources, of which the first with counts wins: response headers, the JSON body, the event stream.

mod base64_stream;
pub mod eventstream;
pub mod json;

use crate::headers::Headers;
use crate::operation::Metering;
use crate::quota;
use audit::{Estimate, Usage};
use eventstream::{Frames, StreamError};
use json::{Path, Scanner, Sink};

/// No call uses more tokens of a kind. A larger count is an error, which must not lock a caller out.
const MOST_TOKENS: u64 = 100_000_000;

/// Watches one response.
#[derive(Debug, Default)]
pub struct Meter {
    body: Body,
    headers: Usage,
    /// Whether a model answers: with a success, to an operation that runs one.
    runs: bool,
    /// Bytes of the body, as far as it was read.
    bytes: u64,
}

/// What a response reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Tokens, as far as they are known.
    pub usage: Usage,
    /// The exception that came inside the stream (`throttlingException` in the frame, here as the SDKs name it:
    /// `ThrottlingException`), or why the stream is not a complete event stream.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
enum Body {
    #[default]
    Unwatched,
    Json(Box<Scanner>, Tokens),
    Stream(Box<Frames>),
}

impl Meter {
    /// Starts at the response headers of an operation.
    pub fn start(metering: Metering, status: u16, headers: &Headers) -> Self {
        if metering == Metering::Free || !(200..300).contains(&status) {
            return Self::default();
        }
        let count = |name| {
            let value = headers.get(name).and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
            value.filter(|count| *count <= MOST_TOKENS)
        };
        let counted = Usage {
            input: count("x-amzn-bedrock-input-token-count"),
            output: count("x-amzn-bedrock-output-token-count"),
            cache_read: count("x-amzn-bedrock-cache-read-input-token-count"),
            cache_write: count("x-amzn-bedrock-cache-write-input-token-count"),
        };
        // No content type: assume the operation's default.
        let is = |kind: &str| headers.get("content-type").is_none_or(|given| given.starts_with(kind.as_bytes()));
        let body = match metering {
            Metering::EventStream if is("application/vnd.amazon.eventstream") => Body::Stream(Box::default()),
            Metering::Json if counted.input.is_none() && is("application/json") => {
                Body::Json(Box::default(), Tokens::default())
            }
            Metering::Json | Metering::EventStream | Metering::Free => Body::Unwatched,
        };
        Self { body, headers: counted, runs: true, bytes: 0 }
    }

    /// Whether the body has counts; if not, the shell need not copy it.
    pub fn wants_body(&self) -> bool {
        !matches!(self.body, Body::Unwatched)
    }

    /// Whether the body is an event stream.
    pub fn reads_event_stream(&self) -> bool {
        matches!(self.body, Body::Stream(_))
    }

    /// Reads the next part of the body.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        match &mut self.body {
            Body::Unwatched => {}
            Body::Json(scanner, tokens) => scanner.feed(chunk, tokens),
            Body::Stream(frames) => frames.feed(chunk),
        }
    }

    /// What was reported up to now. `complete` says whether the sender ended the response: an event stream that ends inside a
    /// frame is truncated then.
    pub fn reading(&self, complete: bool) -> Reading {
        let (usage, error) = match &self.body {
            Body::Unwatched => (Usage::default(), None),
            Body::Json(_, tokens) => (tokens.usage(), None),
            Body::Stream(frames) => {
                let error = frames.exception().map(str::to_owned);
                let broken =
                    || frames.error().or((complete && frames.inside_frame()).then_some(StreamError::Truncated));
                (frames.usage(), error.or_else(|| broken().map(|error| error.name().to_owned())))
            }
        };
        Reading { usage: self.headers.or(&usage), error }
    }

    /// What a response did not report, estimated from the bytes of request and response. A stream whose client leaves before the
    /// last frame costs as much as others, and so does a body that cannot be read. `None` if all was reported, or if the response is
    /// complete and reports nothing, as for models that are not counted in tokens.
    pub fn estimate(&self, request_bytes: u64, complete: bool) -> Option<Estimate> {
        let Reading { usage, error } = self.reading(complete);
        let is_stream = self.reads_event_stream();
        let whole = complete
            && match &self.body {
                Body::Json(scanner, _) => !scanner.gave_up(),
                // Each stream that ends well reports its counts.
                Body::Stream(_) => error.is_none() && usage.output.is_some(),
                Body::Unwatched => true,
            };
        let from_headers = self.headers.output.is_some();
        if !self.runs || whole || from_headers {
            return None;
        }
        let output = quota::output_of(self.bytes, is_stream).max(usage.output.unwrap_or_default());
        let input = usage.input.is_none().then(|| quota::input_of(request_bytes));
        Some(Estimate { input, output: Some(output) })
    }
}

/// Collects token counts from where Bedrock's APIs and the models' own formats have them:
/// `usage.…` (Converse, Anthropic, OpenAI), `message.usage.…` (Anthropic's `message_start`) and
/// `amazon-bedrock-invocationMetrics.…` (the last chunk of a stream; it counts for the whole call and wins).
#[derive(Debug, Default, Clone)]
pub(crate) struct Tokens {
    usage: Usage,
    metrics: Usage,
}

impl Tokens {
    /// Later counts replace earlier ones: counts in a stream are cumulative.
    pub(crate) fn merge(&mut self, later: &Self) {
        self.usage = later.usage.or(&self.usage);
        self.metrics = later.metrics.or(&self.metrics);
    }

    pub(crate) fn usage(&self) -> Usage {
        self.metrics.or(&self.usage)
    }
}

impl Sink for Tokens {
    fn number(&mut self, path: &Path, value: u64) {
        if value > MOST_TOKENS {
            return;
        }
        let plain = || path.last_under(&["usage"]).or_else(|| path.last_under(&["message", "usage"]));
        let (usage, key) = if let Some(key) = path.last_under(&["amazon-bedrock-invocationMetrics"]) {
            (&mut self.metrics, key)
        } else if let Some(key) = plain() {
            (&mut self.usage, key)
        } else {
            return;
        };
        let field = match key {
            "inputTokens" | "input_tokens" | "prompt_tokens" | "inputTokenCount" => &mut usage.input,
            "outputTokens" | "output_tokens" | "completion_tokens" | "outputTokenCount" => &mut usage.output,
            "cacheReadInputTokens" | "cache_read_input_tokens" | "cacheReadInputTokenCount" => &mut usage.cache_read,
            "cacheWriteInputTokens" | "cache_creation_input_tokens" | "cacheWriteInputTokenCount" => {
                &mut usage.cache_write
            }
            _ => return,
        };
        *field = Some(value);
    }
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
