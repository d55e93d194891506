//! Words count as tokens, so that a test can compute the usage.

use serde_json::{Value, json};

/// The number of words of the question that an answer repeats.
const ECHO_WORDS: usize = 64;

/// A part of a conversation, in its order: system first, then the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text of the user, the system or the assistant.
    Text(&'a str),
    /// The end of a cached prefix.
    CachePoint,
}

/// The usage of a call.
///
/// A token is a word between white space. Words before the first cache point count as read from the cache, words between
/// the first and the last as written to it, and the rest as input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Words after the last cache point.
    pub input: usize,
    /// Words of the reply.
    pub output: usize,
    /// Words read from and written to the cache; absent without a cache point.
    pub cached: Option<(usize, usize)>,
}

#[must_use]
pub fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// `echo:` and the first words of the question.
#[must_use]
pub fn echo(question: &str, max_words: usize) -> (String, bool) {
    let said: Vec<&str> = std::iter::once("echo:").chain(question.split_whitespace().take(ECHO_WORDS)).collect();
    let cut = said.len() > max_words;
    let kept: Vec<String> =
        said.into_iter().take(max_words).map(|word| word.chars().take(ECHO_WORDS).collect()).collect();
    (kept.join(" "), cut)
}

impl Usage {
    /// Counts a conversation and its reply.
    #[must_use]
    pub fn count(pieces: &[Piece<'_>], reply: &str) -> Self {
        let (mut before, mut between, mut since, mut seen) = (0, 0, 0, false);
        for piece in pieces {
            match piece {
                Piece::Text(text) => since += words(text),
                Piece::CachePoint => {
                    *(if seen { &mut between } else { &mut before }) += since;
                    (since, seen) = (0, true);
                }
            }
        }
        Self { input: since, output: words(reply), cached: seen.then_some((before, between)) }
    }

    /// In the form of Converse; the total includes what was cached.
    #[must_use]
    pub fn converse(&self) -> Value {
        let (read, write) = self.cached.unwrap_or_default();
        let mut out = json!({ "inputTokens": self.input, "outputTokens": self.output, "totalTokens": self.input + self.output + read + write });
        if let (Some(_), Some(object)) = (self.cached, out.as_object_mut()) {
            object.insert("cacheReadInputTokens".to_owned(), read.into());
            object.insert("cacheWriteInputTokens".to_owned(), write.into());
        }
        out
    }

    /// In the form of Anthropic's Messages.
    #[must_use]
    pub fn anthropic(&self) -> Value {
        let (read, write) = self.cached.unwrap_or_default();
        json!({ "input_tokens": self.input, "cache_read_input_tokens": read, "cache_creation_input_tokens": write, "output_tokens": self.output })
    }

    /// The headers of InvokeModel.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut out = vec![
            ("x-amzn-bedrock-input-token-count", self.input.to_string()),
            ("x-amzn-bedrock-output-token-count", self.output.to_string()),
        ];
        if let Some((read, write)) = self.cached {
            out.push(("x-amzn-bedrock-cache-read-input-token-count", read.to_string()));
            out.push(("x-amzn-bedrock-cache-write-input-token-count", write.to_string()));
        }
        out
    }

    /// `amazon-bedrock-invocationMetrics`, at the end of an InvokeModel stream.
    #[must_use]
    pub fn metrics(&self, latency_ms: u64) -> Value {
        let mut out = json!({
            "inputTokenCount": self.input, "outputTokenCount": self.output, "invocationLatency": latency_ms, "firstByteLatency": latency_ms,
        });
        if let (Some((read, write)), Some(object)) = (self.cached, out.as_object_mut()) {
            object.insert("cacheReadInputTokenCount".to_owned(), read.into());
            object.insert("cacheWriteInputTokenCount".to_owned(), write.into());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_words_around_cache_points() {
        use Piece::{CachePoint, Text};
        for (pieces, want) in [
            (vec![], (0, None)),
            (vec![Text("a b"), Text("c")], (3, None)),
            (vec![Text("a b"), CachePoint, Text("c")], (1, Some((2, 0)))),
            (vec![Text("a b"), CachePoint, Text("c"), CachePoint, Text("d e f")], (3, Some((2, 1)))),
            (vec![Text("a"), CachePoint], (0, Some((1, 0)))),
        ] {
            let usage = Usage::count(&pieces, "two words");
            assert_eq!((usage.input, usage.cached, usage.output), (want.0, want.1, 2), "{pieces:?}");
        }
    }

    #[test]
    fn echoes_within_bounds() {
        assert_eq!(echo("hi  there", 10), ("echo: hi there".to_owned(), false));
        assert_eq!(echo("hi there", 2), ("echo: hi".to_owned(), true));
        assert!(echo(&"x".repeat(1 << 20), 10).0.len() < 100);
    }
}
