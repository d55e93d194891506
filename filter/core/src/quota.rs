//! What a call counts towards an allowance of tokens, as Amazon Bedrock counts it for its quotas:
//! <https://docs.aws.amazon.com/bedrock/latest/userguide/quotas-token-burndown.html>.
//!
//! When a call is sent, its input and the most that it may answer (`max_tokens`) are reserved. When it is over, input, cache writes
//! and output replace the reservation; the output of some models counts several times. Cache reads do not count.

use crate::config::{ConfigError, OutputRate, at};
use crate::model::{self, Pattern, patterns};
use crate::usage::json::{Path, Scanner, Sink};
use audit::{Estimate, Usage};

/// A text has some four bytes a token. A picture has more bytes, so that a call with one reserves more than it uses.
const BYTES_PER_TOKEN: u64 = 4;
/// No known model reads more.
const MAX_INPUT: u64 = 1_000_000;
/// Reserved for the output of a call that does not say how long it may be.
const DEFAULT_OUTPUT: u64 = 4096;
/// How often an output token counts. The page, as it was read in November 2026 from a copy, names Claude 3.7 Sonnet, Sonnet 4 and
/// Opus 4; later Claude models are taken to be like these. All others: once.
const RATES: &[(&str, u32)] = &[
    ("anthropic.claude-3-7-*", 5),
    ("anthropic.claude-3-*", 1),
    ("anthropic.claude-v2*", 1),
    ("anthropic.claude-instant-*", 1),
    ("anthropic.claude-*", 5),
];
const MAX_RATE: u32 = 100;
/// Keys by which models and operations are told how long an answer may be.
const LIMITS: &[&[&str]] = &[
    &["inferenceConfig", "maxTokens"],
    &["inferenceConfig", "max_new_tokens"],
    &["textGenerationConfig", "maxTokenCount"],
    &["max_tokens"],
    &["max_completion_tokens"],
    &["max_tokens_to_sample"],
    &["max_gen_len"],
    &["maxTokens"],
];

/// How often output tokens count, by model.
#[derive(Debug)]
pub(crate) struct OutputRates(Vec<(Pattern, u32)>);

/// What a call asks for, read from its body.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    scanner: Scanner,
    output: OutputLimit,
    bytes: u64,
}

#[derive(Debug, Default)]
struct OutputLimit(Option<u64>);

// === impl OutputRates ===

impl OutputRates {
    /// The document's, which win, and those of AWS's page.
    pub(crate) fn compile(given: &[OutputRate]) -> Result<Self, ConfigError> {
        let mut rates = Vec::new();
        for (index, OutputRate { models, rate }) in given.iter().enumerate() {
            let key = format!("output_rates[{index}]");
            if models.is_empty() {
                return Err(at(format!("{key}.models"), "name a model, or a pattern"));
            }
            if !(1..=MAX_RATE).contains(rate) {
                let problem = format!("want a whole number from 1 to {MAX_RATE}, not {rate}");
                return Err(at(format!("{key}.rate"), problem));
            }
            rates.extend(patterns(&format!("{key}.models"), models)?.into_iter().map(|pattern| (pattern, *rate)));
        }
        for (pattern, rate) in RATES {
            let compiled = patterns("output_rates", &[(*pattern).to_owned()])?;
            rates.extend(compiled.into_iter().map(|pattern| (pattern, *rate)));
        }
        Ok(Self(rates))
    }

    pub(crate) fn of(&self, id: &str) -> u32 {
        let matches = |pattern: &Pattern| model::names(id).any(|name| pattern.matches(name));
        self.0.iter().find(|(pattern, _)| matches(pattern)).map_or(1, |(_, rate)| *rate)
    }
}

// === impl Demand ===

impl Demand {
    pub(crate) fn of_length(bytes: u64) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Reads on in the request's body.
    pub(crate) fn feed(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.scanner.feed(chunk, &mut self.output);
    }

    /// The tokens to reserve.
    pub(crate) fn tokens(&self, rate: u32) -> u64 {
        let output = self.output.0.unwrap_or(DEFAULT_OUTPUT);
        input_of(self.bytes).saturating_add(output.saturating_mul(rate.into()))
    }
}

impl Sink for OutputLimit {
    fn number(&mut self, path: &Path, value: u64) {
        if LIMITS.iter().any(|keys| path.is(keys)) {
            self.0 = Some(self.0.map_or(value, |known| known.max(value)));
        }
    }
}

/// An estimate of the input tokens of a body.
pub(crate) fn input_of(bytes: u64) -> u64 {
    (bytes / BYTES_PER_TOKEN).min(MAX_INPUT)
}

/// An estimate of the output tokens of a response's bytes. An event stream has some 32 for a token: headers, JSON and padding.
pub(crate) fn output_of(bytes: u64, event_stream: bool) -> u64 {
    if event_stream { bytes / 32 } else { bytes / BYTES_PER_TOKEN }
}

/// What a call that is over counts.
pub(crate) fn charge(usage: Usage, estimate: Option<Estimate>, rate: u32) -> u64 {
    let estimate = estimate.unwrap_or_default();
    let input = usage.input.max(estimate.input).unwrap_or_default();
    let output = usage.output.max(estimate.output).unwrap_or_default();
    input.saturating_add(usage.cache_write.unwrap_or_default()).saturating_add(output.saturating_mul(rate.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_counts_as_awss_page_says() {
        let own = OutputRate { models: vec!["amazon.nova-*".to_owned()], rate: 7 };
        let rates = OutputRates::compile(&[own]).unwrap();
        for (id, rate) in [
            ("anthropic.claude-sonnet-4-20250514-v1:0", 5),
            ("us.anthropic.claude-opus-4-20250514-v1:0", 5),
            ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", 5),
            ("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0", 5),
            ("anthropic.claude-3-5-sonnet-20241022-v2:0", 1),
            ("anthropic.claude-v2:1", 1),
            ("amazon.nova-pro-v1:0", 7),
            ("meta.llama3-8b-instruct-v1:0", 1),
        ] {
            assert_eq!(rates.of(id), rate, "{id}");
        }
        let refused = |models: &[&str], rate| {
            let models = models.iter().map(|&model| model.to_owned()).collect();
            OutputRates::compile(&[OutputRate { models, rate }]).unwrap_err().to_string()
        };
        assert!(refused(&[], 2).contains("output_rates[0].models"));
        assert!(refused(&["a"], 0).contains("output_rates[0].rate"));
    }

    #[test]
    fn bodies_say_how_long_the_answer_may_be() {
        for (body, tokens) in [
            (r#"{"messages":[],"inferenceConfig":{"maxTokens":100}}"#, 100),
            (r#"{"max_tokens":7,"messages":[{"max_tokens":9}]}"#, 7),
            (r#"{"textGenerationConfig":{"maxTokenCount":50}}"#, 50),
            (r#"{"max_tokens":5,"max_tokens":80}"#, 80),
            (r#"{"messages":[{"content":[{"text":"\"max_tokens\":1"}]}]}"#, DEFAULT_OUTPUT),
            ("not JSON", DEFAULT_OUTPUT),
        ] {
            for piece in [1, 7, 1000] {
                let mut demand = Demand::default();
                body.as_bytes().chunks(piece).for_each(|chunk| demand.feed(chunk));
                assert_eq!(demand.tokens(5), body.len() as u64 / 4 + 5 * tokens, "{body}");
            }
        }
        assert_eq!(Demand::of_length(u64::MAX).tokens(1), MAX_INPUT + DEFAULT_OUTPUT);
    }

    #[test]
    fn cache_reads_do_not_count() {
        let usage = Usage { input: Some(10), output: Some(3), cache_read: Some(1000), cache_write: Some(4) };
        assert_eq!(charge(usage, None, 5), 29);
        let estimate = Some(Estimate { input: Some(50), output: None });
        assert_eq!(charge(Usage { input: None, ..usage }, estimate, 1), 57);
        assert_eq!(charge(Usage { output: Some(u64::MAX), ..usage }, None, 5), u64::MAX);
    }
}
