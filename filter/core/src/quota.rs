//! What a call counts towards an allowance of tokens, as Amazon Bedrock counts it for its quotas:
//! <https://docs.aws.amazon.com/bedrock/latest/userguide/quotas-token-burndown.html>.
//!
//! When a call is sent, its input and the most that it may answer (`max_tokens`) are reserved. When it is over, input, cache writes
//! and output replace the reservation; the output of some models counts several times. Cache reads do not count.

use crate::config::{ConfigError, OutputRate, at};
use crate::model::{self, Pattern, patterns};
use crate::operation::Operation;
use crate::scanner::{Path, Scanner, Sink};
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
/// Keys by which models and operations are told how long an answer may be
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html> and its pages, and Converse's `inferenceConfig`).
const LIMITS: &[&[&str]] = &[
    &["inferenceConfig", "maxTokens"],
    &["inferenceConfig", "max_new_tokens"],
    &["textGenerationConfig", "maxTokenCount"],
    &["max_tokens"],
    &["max_completion_tokens"],
    &["max_tokens_to_sample"],
    &["max_new_tokens"],
    &["max_gen_len"],
    &["maxTokens"],
    &["maxTokenCount"],
];
/// Keys by which models are asked for several answers: `n` of
/// [OpenAI](https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-openai.html) and
/// [Jamba](https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-jamba.html), `num_generations` of
/// [Cohere](https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-cohere-command.html), `numResults` of
/// [Jurassic-2](https://docs.ai21.com/docs/j2-complete-api-ref). No page of AWS's has the others.
const ANSWERS: &[&[&str]] =
    &[&["n"], &["num_generations"], &["numResults"], &["num_results"], &["candidateCount"], &["best_of"]];
/// No known model gives more answers: OpenAI's `n` may be 128.
const MAX_ANSWERS: u64 = 128;
/// Where Converse has a model's own parameters.
const MODELS_OWN: &str = "additionalModelRequestFields";
/// A body of unknown length is reserved in parts of so many bytes, before they pass.
const PART: u64 = 16 << 10;

/// How often output tokens count, by model.
#[derive(Debug)]
pub(crate) struct OutputRates(Vec<(Pattern, u32)>);

/// What a call asks for, read from its body.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    scanner: Scanner,
    output: Output,
    /// Bytes that have passed.
    bytes: u64,
    /// Bytes that are reserved for, if the body passes while it is read.
    expected: u64,
}

/// How much a call may be answered.
#[derive(Debug, Default)]
struct Output {
    tokens: Option<u64>,
    answers: Option<u64>,
    /// How many of the keys have something else than a whole number.
    unread: u32,
    /// How often Converse's limit, and each of the objects that hold a limit, is there.
    converse: u32,
    inference_configs: u32,
    generation_configs: u32,
}

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
    /// Of a body that passes while it is read: its length, if it is known.
    pub(crate) fn streaming(length: Option<u64>) -> Self {
        Self { expected: length.unwrap_or(PART), ..Self::default() }
    }

    /// Reads on in the request's body. Returns whether the bytes are more than is reserved for.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> bool {
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        self.scanner.feed(chunk, &mut self.output);
        let more = self.bytes > self.expected;
        if more {
            self.expected = self.bytes.saturating_add(PART);
        }
        more
    }

    /// The body is complete.
    pub(crate) fn end(&mut self) {
        self.expected = self.bytes;
    }

    /// The most tokens that the complete body asks a model to answer; `None` if it does not say how many where the operation reads it,
    /// or cannot be read. Other operations than these have no limit, or have it inside another body.
    pub(crate) fn asked(&self, operation: Operation) -> Option<u64> {
        self.scanner.finish().ok()?;
        let output = &self.output;
        let reads = match operation {
            Operation::Converse | Operation::ConverseStream => output.converse > 0,
            Operation::InvokeModel | Operation::InvokeModelWithResponseStream => true,
            _ => false,
        };
        let is_plain = output.unread == 0 && output.inference_configs <= 1 && output.generation_configs <= 1;
        Some(output.tokens.filter(|_| reads && is_plain)?.saturating_mul(output.answers()))
    }

    /// The tokens to reserve.
    pub(crate) fn tokens(&self, rate: u32) -> u64 {
        let output = self.output.tokens.unwrap_or(DEFAULT_OUTPUT).saturating_mul(self.output.answers());
        input_of(self.expected).saturating_add(output.saturating_mul(rate.into()))
    }
}

impl Output {
    fn answers(&self) -> u64 {
        self.answers.unwrap_or(1).clamp(1, MAX_ANSWERS)
    }
}

/// Of several values the largest counts: which of them a model takes is not documented.
impl Sink for Output {
    fn begin(&mut self, path: &Path, _: u64) {
        if LIMITS.iter().chain(ANSWERS).any(|keys| path.is_in(MODELS_OWN, keys)) {
            self.unread = self.unread.saturating_add(1);
        }
        for (key, count) in
            [("inferenceConfig", &mut self.inference_configs), ("textGenerationConfig", &mut self.generation_configs)]
        {
            *count = count.saturating_add(path.is(&[key]).into());
        }
    }

    fn number(&mut self, path: &Path, value: u64) {
        self.converse = self.converse.saturating_add(path.is(&["inferenceConfig", "maxTokens"]).into());
        let names = |keys: &&[&str]| path.is_in(MODELS_OWN, keys);
        if LIMITS.iter().any(names) {
            self.tokens = self.tokens.max(Some(value));
        } else if ANSWERS.iter().any(names) {
            self.answers = self.answers.max(Some(value));
        } else {
            return;
        }
        self.unread = self.unread.saturating_sub(1);
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
            (r#"{"inferenceConfig":{"maxTokens":10},"additionalModelRequestFields":{"max_tokens":900}}"#, 900),
            (r#"{"additionalModelRequestFields":{"max_tokens":9},"inferenceConfig":{"maxTokens":10}}"#, 10),
            (r#"{"additionalModelRequestFields":{"inferenceConfig":{"max_new_tokens":900}}}"#, 900),
            (r#"{"additionalModelRequestFields":{"textGenerationConfig":{"maxTokenCount":900}}}"#, 900),
            (r#"{"additionalModelRequestFields":{"max_completion_tokens":900}}"#, 900),
            (r#"{"additionalModelRequestFields":{"max_gen_len":900}}"#, 900),
            (r#"{"additionalModelRequestFields":{"maxTokenCount":900}}"#, 900),
            (r#"{"additionalModelRequestFields":{"other":{"max_tokens":900}}}"#, DEFAULT_OUTPUT),
            (r#"{"max_tokens":10,"n":16}"#, 160),
            (r#"{"num_generations":5,"max_tokens":10}"#, 50),
            (r#"{"maxTokens":10,"numResults":3,"n":1}"#, 30),
            (r#"{"max_tokens":10,"n":18446744073709551615}"#, 1280),
            (r#"{"max_tokens":10,"n":0}"#, 10),
            (r#"{"additionalModelRequestFields":{"n":2}}"#, 2 * DEFAULT_OUTPUT),
            (r#"{"messages":[{"n":16}]}"#, DEFAULT_OUTPUT),
            (r#"{"messages":[{"content":[{"text":"\"max_tokens\":1"}]}]}"#, DEFAULT_OUTPUT),
            ("not JSON", DEFAULT_OUTPUT),
        ] {
            for piece in [1, 7, 1000] {
                let mut demand = Demand::default();
                body.as_bytes().chunks(piece).for_each(|chunk| _ = demand.feed(chunk));
                demand.end();
                assert_eq!(demand.tokens(5), body.len() as u64 / 4 + 5 * tokens, "{body}");
            }
        }
        assert_eq!(Demand::streaming(Some(u64::MAX)).tokens(1), MAX_INPUT + DEFAULT_OUTPUT);
    }

    #[test]
    fn what_a_body_asks_for_is_known_or_not() {
        for (body, asked) in [
            (r#"{"messages":[],"inferenceConfig":{"maxTokens":100}}"#, Some(100)),
            (r#"{"max_tokens":10,"n":3}"#, Some(30)),
            (r#"{"inferenceConfig":{"maxTokens":10},"additionalModelRequestFields":{"max_tokens":900}}"#, Some(900)),
            (r#"{"messages":[{"max_tokens":9}]}"#, None),
            (r#"{"max_tokens":1e9}"#, None),
            (r#"{"max_tokens":10,"max_gen_len":1e9}"#, None),
            (r#"{"max_tokens":10,"max_tokens":"900"}"#, None),
            (r#"{"max_tokens":10,"n":2.0}"#, None),
            (r#"{"max_tokens":99999999999999999999}"#, None),
            (r#"{"max_tokens":10"#, None),
            ("", None),
            ("not JSON", None),
        ] {
            let mut demand = Demand::default();
            demand.feed(body.as_bytes());
            assert_eq!(demand.asked(Operation::InvokeModel), asked, "{body}");
        }
    }

    #[test]
    fn limits_that_no_model_gets_do_not_count() {
        use Operation::{Converse, InvokeModel, Rerank, StartAsyncInvoke};
        for (operation, body, asked) in [
            (Converse, r#"{"inferenceConfig":{"maxTokens":9}}"#, Some(9)),
            // Members that Converse does not have.
            (Converse, r#"{"max_tokens":1}"#, None),
            (Converse, r#"{"inferenceConfig":{"max_new_tokens":1}}"#, None),
            (Converse, r#"{"additionalModelRequestFields":{"max_tokens":1}}"#, None),
            // The other one may be taken.
            (Converse, r#"{"inferenceConfig":{"maxTokens":1},"inferenceConfig":{}}"#, None),
            (InvokeModel, r#"{"textGenerationConfig":{"maxTokenCount":1},"textGenerationConfig":{}}"#, None),
            (InvokeModel, r#"{"inferenceConfig":{"max_new_tokens":1},"inferenceConfig":null}"#, None),
            // The model's body is inside.
            (StartAsyncInvoke, r#"{"modelId":"a.b","max_tokens":1,"modelInput":{"max_tokens":64000}}"#, None),
            (Rerank, r#"{"max_tokens":1}"#, None),
        ] {
            let mut demand = Demand::default();
            demand.feed(body.as_bytes());
            assert_eq!(demand.asked(operation), asked, "{operation} {body}");
        }
    }

    #[test]
    fn bytes_are_reserved_before_they_pass() {
        let mut demand = Demand::streaming(None);
        for part in 0..100 {
            let reserved = demand.tokens(1);
            let more = demand.feed(&[b' '; 1000]);
            assert!(demand.tokens(1) >= DEFAULT_OUTPUT + (part + 1) * 250);
            assert_eq!(more, demand.tokens(1) > reserved, "{part}");
        }
        demand.end();
        assert_eq!(demand.tokens(1), DEFAULT_OUTPUT + 25_000);
        let mut known = Demand::streaming(Some(5000));
        assert!(!known.feed(&[b' '; 5000]));
    }

    #[test]
    fn cache_reads_do_not_count() {
        let usage = Usage {
            input: Some(10),
            output: Some(3),
            cache_read: Some(1000),
            cache_write: Some(4),
            ..Usage::default()
        };
        assert_eq!(charge(usage, None, 5), 29);
        let estimate = Some(Estimate { input: Some(50), output: None });
        assert_eq!(charge(Usage { input: None, ..usage }, estimate, 1), 57);
        assert_eq!(charge(Usage { output: Some(u64::MAX), ..usage }, None, 5), u64::MAX);
    }
}
