//! Reads the token counts of a response while it passes, in constant memory and without delaying a byte.
//!
//! Sources, of which the first with counts wins: response headers, the JSON body, the event stream.

mod base64_stream;
pub mod eventstream;
pub mod serving;
mod units;

use crate::headers::Headers;
use crate::operation::Metering;
use crate::quota;
use crate::scanner::{Path, Scanner, Sink};
use audit::{Estimate, GuardrailUnits, Serving, StreamOutcome, Usage};
use eventstream::{Frames, StreamError};
use serving::Served;
use units::{CacheDetail, add_units};

/// No call uses more tokens of a kind. A larger count is an error, which must not lock a caller out.
const MOST_TOKENS: u64 = 100_000_000;

/// Watches one response.
#[derive(Debug, Default)]
pub struct Meter {
    body: Body,
    headers: Usage,
    /// Of the response's headers.
    served: Serving,
    /// Whether a model answers and its tokens are reported: with a success, to an operation that runs one.
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
    /// What the response says of how it was served.
    pub served: Serving,
    /// The model that a prompt router chose.
    pub invoked: Option<String>,
    /// What guardrails processed.
    pub guardrail: GuardrailUnits,
    /// How the event stream ended, as far as it came.
    pub stream: Option<StreamOutcome>,
}

#[derive(Debug, Default)]
enum Body {
    #[default]
    Unwatched,
    Json(Box<(Scanner, Tokens)>),
    Stream(Box<Frames>),
}

impl Meter {
    /// Starts at the response headers of an operation. `traced` says that the request asked for a guardrail's trace.
    pub fn start(metering: Metering, status: u16, headers: &Headers, traced: bool) -> Self {
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
            ..Usage::default()
        };
        // Only the body divides cache writes by their time.
        let lacks = counted.input.is_none() || counted.cache_write.is_some_and(|tokens| tokens > 0);
        // No content type: assume the operation's default.
        let is = |kind: &str| headers.get("content-type").is_none_or(|given| given.starts_with(kind.as_bytes()));
        let body = match metering {
            Metering::EventStream | Metering::UncountedStream if is("application/vnd.amazon.eventstream") => {
                Body::Stream(Box::default())
            }
            Metering::Json if (lacks || traced) && is("application/json") => Body::Json(Box::default()),
            Metering::Guardrail if is("application/json") => Body::Json(Box::default()),
            Metering::Json
            | Metering::EventStream
            | Metering::UncountedStream
            | Metering::Guardrail
            | Metering::Free => Body::Unwatched,
        };
        let runs = matches!(metering, Metering::Json | Metering::EventStream);
        Self { body, headers: counted, served: serving::of_headers(headers), runs, bytes: 0 }
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
            Body::Json(json) => json.0.feed(chunk, &mut json.1),
            Body::Stream(frames) => frames.feed(chunk),
        }
    }

    /// What was reported up to now. `complete` says whether the sender ended the response: an event stream that ends inside a
    /// frame is truncated then.
    pub fn reading(&self, complete: bool) -> Reading {
        let (none, unknown) = (Tokens::default(), None);
        let (tokens, error, stream) = match &self.body {
            Body::Unwatched => (&none, unknown, None),
            Body::Json(json) => (&json.1, unknown, None),
            Body::Stream(frames) => {
                let error = frames.exception().map(str::to_owned);
                let broken =
                    || frames.error().or((complete && frames.inside_frame()).then_some(StreamError::Truncated));
                let error = error.or_else(|| broken().map(|error| error.name().to_owned()));
                // A stream without counts has no event that ends it.
                let at_end = if self.runs { frames.has_end() } else { complete };
                let ended = at_end && error.is_none();
                let stream = if ended { StreamOutcome::Complete } else { StreamOutcome::Incomplete };
                (frames.tokens(), error, Some(stream))
            }
        };
        Reading {
            usage: self.headers.or(&tokens.usage()),
            error,
            served: self.served.clone().or(tokens.served.serving()),
            invoked: tokens.served.invoked(),
            guardrail: tokens.guardrail,
            stream,
        }
    }

    /// What a response did not report, estimated from the bytes of request and response. A stream whose client leaves before the
    /// last frame costs as much as others, and so does a body that cannot be read. `None` if all was reported, or if the response is
    /// complete and reports nothing, as for models that are not counted in tokens.
    pub fn estimate(&self, request_bytes: u64, complete: bool) -> Option<Estimate> {
        let Reading { usage, error, .. } = self.reading(complete);
        let is_stream = self.reads_event_stream();
        let whole = complete
            && match &self.body {
                Body::Json(json) => !json.0.gave_up(),
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
/// `amazon-bedrock-invocationMetrics.…` (the last chunk of a stream; it counts for the whole call and wins); and what the
/// response says besides.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tokens {
    usage: Usage,
    metrics: Usage,
    detail: CacheDetail,
    guardrail: GuardrailUnits,
    served: Served,
}

impl Tokens {
    /// Later counts replace earlier ones: counts in a stream are cumulative. A guardrail's units are those of a part.
    pub(crate) fn merge(&mut self, later: &Self) {
        self.usage = later.usage.or(&self.usage);
        self.metrics = later.metrics.or(&self.metrics);
        self.guardrail = self.guardrail.plus(&later.guardrail);
        self.served.merge(&later.served);
    }

    pub(crate) fn usage(&self) -> Usage {
        self.metrics.or(&self.usage)
    }

    /// Whether the counts of the whole call came, with which a stream of a model's own ends.
    pub(crate) fn has_metrics(&self) -> bool {
        self.metrics != Usage::default()
    }
}

impl Sink for Tokens {
    fn number(&mut self, path: &Path, value: u64) {
        if value > MOST_TOKENS {
            return;
        }
        if path.is(&["usage", "cacheDetails", "", "inputTokens"]) {
            self.detail.tokens(value, &mut self.usage);
            return;
        }
        let plain = || path.last_under(&["usage"]).or_else(|| path.last_under(&["message", "usage"]));
        let by_time = || {
            let caches = [&["usage", "cache_creation"][..], &["message", "usage", "cache_creation"]];
            caches.into_iter().find_map(|parents| path.last_under(parents))
        };
        let (usage, key) = if let Some(key) = path.last_under(&["amazon-bedrock-invocationMetrics"]) {
            (&mut self.metrics, key)
        } else if let Some(key) = plain().or_else(by_time) {
            (&mut self.usage, key)
        } else {
            add_units(path, path.last_behind(["invocationMetrics", "usage"]), value, &mut self.guardrail);
            return;
        };
        let field = match key {
            "inputTokens" | "input_tokens" | "prompt_tokens" | "inputTokenCount" => &mut usage.input,
            "outputTokens" | "output_tokens" | "completion_tokens" | "outputTokenCount" => &mut usage.output,
            "cacheReadInputTokens" | "cache_read_input_tokens" | "cacheReadInputTokenCount" => &mut usage.cache_read,
            "cacheWriteInputTokens" | "cache_creation_input_tokens" | "cacheWriteInputTokenCount" => {
                &mut usage.cache_write
            }
            "ephemeral_5m_input_tokens" => &mut usage.cache_write_5m,
            "ephemeral_1h_input_tokens" => &mut usage.cache_write_1h,
            // ApplyGuardrail's.
            key => {
                add_units(path, Some(key), value, &mut self.guardrail);
                return;
            }
        };
        *field = Some(value);
    }

    fn string(&mut self, path: &Path, piece: &[u8]) {
        if path.is(&["usage", "cacheDetails", "", "ttl"]) {
            self.detail.time(piece, &mut self.usage);
        } else {
            self.served.string(path, piece);
        }
    }
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
