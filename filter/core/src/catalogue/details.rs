//! What a region's list says of a model besides the ids by which it is called. It decides no call, so a part that cannot be read is
//! left out, and the list stays good.

use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Longest word that is kept, in bytes (`EMBEDDING` is the longest known).
const LONGEST_WORD: usize = 16;
/// Most words of a list.
const MAX_WORDS: usize = 8;
/// Longest time that is kept, in bytes: with nanoseconds and an offset.
const LONGEST_TIME: usize = 35;

/// Members of a `FoundationModelSummary`, as they are written
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_FoundationModelSummary.html>).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written<'a> {
    /// `inputModalities`
    pub(super) input: Option<&'a RawValue>,
    /// `outputModalities`
    pub(super) output: Option<&'a RawValue>,
    /// `responseStreamingSupported`
    pub(super) streaming: Option<&'a RawValue>,
    /// `modelLifecycle`
    pub(super) lifecycle: Option<&'a RawValue>,
}

/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_FoundationModelLifecycle.html>)
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle<'a> {
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    end_of_life_time: Option<&'a RawValue>,
}

/// What a list says of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Details<'a> {
    input: &'a str,
    output: &'a str,
    streaming: &'a str,
    status: &'a str,
    end_of_life: &'a str,
}

impl Written<'_> {
    /// As a line of [`Offers`](super::offers::Offers) has it: `INPUT OUTPUT STREAMING STATUS END`, each empty if it is not known.
    pub(super) fn line(self) -> String {
        let lifecycle = read::<Lifecycle<'_>>(self.lifecycle);
        let (status, end) = lifecycle.map_or((None, None), |lifecycle| (lifecycle.status, lifecycle.end_of_life_time));
        let streaming = match read(self.streaming) {
            Some(true) => "y",
            Some(false) => "n",
            None => "",
        };
        let status = read::<&str>(status).filter(|status| is_word(status)).unwrap_or_default();
        let end = read::<&str>(end).filter(|end| is_time(end)).unwrap_or_default();
        let (input, output) = (words(self.input), words(self.output));
        format!("{input} {output} {streaming} {status} {end}")
    }
}

impl<'a> Details<'a> {
    /// From a line.
    pub(super) fn read(line: &'a str) -> Self {
        let mut parts = line.split(' ');
        let mut next = || parts.next().unwrap_or_default();
        Self { input: next(), output: next(), streaming: next(), status: next(), end_of_life: next() }
    }

    /// What a request may have (`TEXT`, `IMAGE` …).
    pub fn input(self) -> Option<Vec<&'a str>> {
        listed(self.input)
    }

    /// What an answer may have.
    pub fn output(self) -> Option<Vec<&'a str>> {
        listed(self.output)
    }

    /// Whether the answer can be a stream.
    pub fn streaming(self) -> Option<bool> {
        (!self.streaming.is_empty()).then_some(self.streaming == "y")
    }

    /// Where it is in its life (`ACTIVE`, `LEGACY`).
    pub fn status(self) -> Option<&'a str> {
        Some(self.status).filter(|status| !status.is_empty())
    }

    /// When it ends (RFC 3339).
    pub fn end_of_life(self) -> Option<&'a str> {
        Some(self.end_of_life).filter(|end| !end.is_empty())
    }
}

fn read<'a, T: Deserialize<'a>>(value: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(value?.get()).ok()
}

fn listed(words: &str) -> Option<Vec<&str>> {
    (!words.is_empty()).then(|| words.split(',').collect())
}

/// A list of words. One that is left out would make the rest wrong.
fn words(value: Option<&RawValue>) -> String {
    let words: Vec<&str> = read(value).unwrap_or_default();
    if words.len() <= MAX_WORDS && words.iter().all(|word| is_word(word)) { words.join(",") } else { String::new() }
}

fn is_word(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    (1..=LONGEST_WORD).contains(&text.len()) && text.bytes().all(known)
}

fn is_time(text: &str) -> bool {
    text.len() <= LONGEST_TIME
        && text.is_ascii()
        && !text.contains(' ')
        && OffsetDateTime::parse(text, &Rfc3339).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).unwrap()
    }

    #[test]
    fn a_list_says_what_a_model_does() {
        let lifecycle =
            json!({"status": "LEGACY", "legacyTime": "2026-09-01T00:00:00Z", "endOfLifeTime": "2027-03-01T00:00:00Z"});
        let [input, output, streaming, lifecycle] =
            [json!(["TEXT", "IMAGE"]), json!(["TEXT"]), json!(true), lifecycle].map(|value| raw(&value));
        let written = Written {
            input: Some(&input),
            output: Some(&output),
            streaming: Some(&streaming),
            lifecycle: Some(&lifecycle),
        };
        let line = written.line();
        assert_eq!(line, "TEXT,IMAGE TEXT y LEGACY 2027-03-01T00:00:00Z");
        let details = Details::read(&line);
        assert_eq!((details.input(), details.output()), (Some(vec!["TEXT", "IMAGE"]), Some(vec!["TEXT"])));
        assert_eq!((details.streaming(), details.status()), (Some(true), Some("LEGACY")));
        assert_eq!(details.end_of_life(), Some("2027-03-01T00:00:00Z"));
        let details = Details::read("");
        assert_eq!((details.input(), details.streaming(), details.status()), (None, None, None));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for value in [
            json!(null),
            json!("TEXT"),
            json!(["TEXT", 1]),
            json!(["TEXT", "a b"]),
            json!(["TEXT", "A\nB"]),
            json!(["A".repeat(17)]),
            json!(["A", "B", "C", "D", "E", "F", "G", "H", "I"]),
            json!({"status": "active now"}),
            json!({"endOfLifeTime": 1_800_000_000}),
            json!({"endOfLifeTime": "2027-03-01"}),
            json!({"endOfLifeTime": "2027-03-01 00:00:00Z"}),
        ] {
            let raw = raw(&value);
            let raw = Some(raw.as_ref());
            // serde takes a list for a struct.
            let lifecycle = raw.filter(|_| !value.is_array());
            let line = Written { input: raw, output: raw, streaming: raw, lifecycle }.line();
            assert_eq!(line, "    ", "{value}");
        }
    }
}
