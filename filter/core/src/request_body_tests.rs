use super::*;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

fn read(
    operation: Operation,
    body: &[u8],
    cuts: impl Iterator<Item = usize>,
) -> Result<Vec<(String, String)>, BodyProblem> {
    let mut reader = RequestBody::of(operation).unwrap();
    let mut rest = body;
    for cut in cuts {
        let (chunk, behind) = rest.split_at(cut.min(rest.len()));
        reader.feed(chunk);
        rest = behind;
    }
    reader.feed(rest);
    let values = reader.values()?;
    Ok(values.into_iter().map(|value| (value.member.name.to_owned(), value.text)).collect())
}

fn converse(body: &str) -> Result<Vec<(String, String)>, String> {
    read(Operation::Converse, body.as_bytes(), std::iter::empty()).map_err(|problem| problem.to_string())
}

#[test]
fn members_are_found_in_any_order() {
    const GUARDRAIL: &str = "guardrailConfig.guardrailIdentifier";
    for (body, wanted) in [
        ("", &[][..]),
        ("{}", &[]),
        (r#"{"messages":[{"content":[{"text":"hi"}]}]}"#, &[]),
        (r#"{"guardrailConfig":{"guardrailIdentifier":"g1","guardrailVersion":"1"}}"#, &[(GUARDRAIL, "g1")]),
        (r#"{"guardrailConfig":{"trace":"enabled","guardrailIdentifier":"g1"},"messages":[]}"#, &[(GUARDRAIL, "g1")]),
        (
            r#"{"projectIdentifier":"p","guardrailConfig":{"guardrailIdentifier":"g"}}"#,
            &[(GUARDRAIL, "g"), ("projectIdentifier", "p")],
        ),
        // Escapes are letters like others.
        (
            r#"{"guardrail\u0043onfig":{"\u0067uardrailIdentifier":"arn:aws:bedrock:us-west-2:1\/x"}}"#,
            &[(GUARDRAIL, "arn:aws:bedrock:us-west-2:1/x")],
        ),
        // What is not at its place is a client's text.
        (r#"{"messages":[{"guardrailConfig":{"guardrailIdentifier":"no"}}]}"#, &[]),
        (r#"{"guardrailConfig":[{"guardrailIdentifier":"no"}]}"#, &[]),
        (r#"{"additionalModelRequestFields":{"projectIdentifier":"no"},"x":{"guardrailConfig":{}}}"#, &[]),
        (r#"[{"projectIdentifier":"no"}]"#, &[]),
        (r#"{"guardrailConfig":{"guardrailIdentifier":null},"projectIdentifier":7}"#, &[]),
        (r#"{"guardrailConfig.guardrailIdentifier":"no"}"#, &[]),
    ] {
        let wanted: Vec<_> = wanted.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        assert_eq!(converse(body), Ok(wanted), "{body}");
    }
}

#[test]
fn bodies_that_can_be_misread_are_refused() {
    let long = format!(r#"{{"projectIdentifier":"{}"}}"#, "p".repeat(MAX_VALUE + 1));
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(1024), "]".repeat(1024));
    for (body, wanted) in [
        (r#"{"projectIdentifier":"a","projectIdentifier":"a"}"#, "'projectIdentifier' more than once"),
        (r#"{"projectIdentifier":null,"projectIdentif\u0069er":"a"}"#, "'projectIdentifier' more than once"),
        (r#"{"guardrailConfig":{},"guardrailConfig":{"guardrailIdentifier":"a"}}"#, "'guardrailConfig' more than once"),
        (
            r#"{"guardrailConfig":{"guardrailIdentifier":"a","guardrailIdentifier":"b"}}"#,
            "'guardrailConfig.guardrailIdentifier' more than once",
        ),
        (r#"{"projectIdentifier":"a b"}"#, "Value at 'projectIdentifier'"),
        (r#"{"projectIdentifier":"a\u00e9"}"#, "Value at 'projectIdentifier'"),
        (long.as_str(), "Value at 'projectIdentifier'"),
        (deep.as_str(), "not JSON: it is nested deeper than 1024 levels at byte 1028"),
        ("{", "not JSON: it ends early"),
        (r#"{"a":1}}"#, "not JSON: byte 7 cannot stand there"),
        (r#"{"a":1,}"#, "not JSON: byte 7 cannot stand there"),
        ("{'a':1}", "not JSON: byte 1 cannot stand there"),
        (r#"{"a":1 /* no */}"#, "not JSON: byte 7 cannot stand there"),
        ("\u{feff}{}", "not JSON: byte 0 cannot stand there"),
        (r#"{"a":NaN}"#, "not JSON: byte 5 cannot stand there"),
    ] {
        let problem = converse(body).unwrap_err();
        assert!(problem.contains(wanted), "{body}: {problem}");
    }
}

#[test]
fn all_members_have_room() {
    for &operation in crate::operation::OPERATIONS {
        let members: Vec<_> = members(operation).map(|member| member.name).collect();
        assert!(members.len() * LEVELS <= 128, "{operation}: {members:?}");
        assert!(members.iter().all(|name| name.split('.').count() <= LEVELS), "{operation}: {members:?}");
        assert!(members.iter().all(|name| name.split('.').all(|key| key.len() <= 40)), "{operation}: {members:?}");
    }
    let converse: Vec<_> = members(Operation::Converse).map(|member| member.name).collect();
    assert_eq!(converse, ["guardrailConfig.guardrailIdentifier", "projectIdentifier"]);
}

// === serde_json is the oracle ===

/// What a body is to serde_json: the strings at the members' paths, and whether a key of such a path is repeated.
#[derive(Debug, Default, PartialEq)]
struct Oracle {
    values: Vec<(String, String)>,
    repeated: bool,
}

/// A JSON value with the order and the repetitions of its keys.
enum Json {
    Object(Vec<(String, Json)>),
    Text(String),
    Other,
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
                Ok(Json::Other)
            }
            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
                while list.next_element::<Json>()?.is_some() {}
                Ok(Json::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Json::Object(members))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Json {
    fn collect(&self, path: &[&str], oracle: &mut Oracle) {
        match (self, path) {
            (Self::Object(members), [key, below @ ..]) => {
                let named: Vec<_> = members.iter().filter(|(name, _)| name == key).collect();
                oracle.repeated |= named.len() > 1;
                named.iter().for_each(|(_, value)| value.collect(below, oracle));
            }
            (Self::Text(text), []) if !text.is_empty() => oracle.values.push((String::new(), text.clone())),
            _ => {}
        }
    }
}

/// `None`: not JSON. `Some(None)`: a text on which the two may differ.
fn oracle(body: &[u8]) -> Option<Option<Oracle>> {
    // Bytes that are not UTF-8 are wrong outside of strings only.
    let text = std::str::from_utf8(body).ok()?;
    let json: Json = match serde_json::from_str(text) {
        Ok(json) => json,
        Err(error) => {
            let differs = ["surrogate", "hex escape", "out of range", "recursion limit"];
            return differs.iter().any(|part| error.to_string().contains(part)).then_some(None);
        }
    };
    let mut oracle = Oracle::default();
    for member in members(Operation::Converse) {
        let first = oracle.values.len();
        json.collect(&member.name.split('.').collect::<Vec<_>>(), &mut oracle);
        for value in oracle.values.iter_mut().skip(first) {
            member.name.clone_into(&mut value.0);
        }
    }
    Some(Some(oracle))
}

/// A generator of bodies (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % bound
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn key(&mut self) -> &'static str {
        self.of(&[
            "guardrailConfig",
            "guardrailIdentifier",
            "projectIdentifier",
            "messages",
            "",
            "a",
            "guardrail\\u0043onfig",
            "project\\u0049dentifier",
            "a key that is longer than any key that is looked for",
            "\\ud83d\\ude00",
            "é",
        ])
    }

    fn space(&mut self) -> &'static str {
        self.of(&["", "", "", " ", "\n\t", "\r"])
    }

    fn value(&mut self, depth: usize, out: &mut String) {
        out.push_str(self.space());
        match self.below(if depth > 5 { 6 } else { 9 }) {
            0 | 1 => {
                let text = self.of(&[
                    "\"g1\"",
                    "\"arn:aws:bedrock:us-west-2:111122223333:project/p\"",
                    "\"\\\"}{\"",
                    "\"\\u0067\\/\\n\"",
                    "\"é\"",
                    "\"\\ud83d\\ude00\"",
                    "\"\"",
                ]);
                out.push_str(text);
            }
            2 | 3 => out.push_str(self.of(&["0", "-0", "12", "-1.5e+3", "1E9", "0.1", "18446744073709551616"])),
            4 | 5 => out.push_str(self.of(&["true", "false", "null"])),
            6 => {
                out.push('[');
                for index in 0..self.below(4) {
                    out.push_str(if index > 0 { "," } else { "" });
                    self.value(depth + 1, out);
                }
                out.push(']');
            }
            _ => self.object(depth, out),
        }
        out.push_str(self.space());
    }

    fn object(&mut self, depth: usize, out: &mut String) {
        out.push('{');
        for index in 0..self.below(5) {
            let key = self.key();
            out.push_str(if index > 0 { "," } else { "" });
            out.push_str(self.space());
            out.push_str(&format!("\"{key}\"{}:", self.space()));
            self.value(depth + 1, out);
        }
        out.push('}');
    }

    /// A body, in half of the cases with a few bytes changed, added or lost.
    fn body(&mut self) -> Vec<u8> {
        let mut text = String::new();
        self.object(0, &mut text);
        let mut body = text.into_bytes();
        for _ in 0..self.below(2) * self.below(4) {
            let bytes = b"{}[]\",:\\u0123e.-+tfn \x00\x1f\xff\xc3\xc0\xc1\xe0\xed\xf0\xf4\x80\x9f\xbf/";
            let byte = bytes[self.below(bytes.len())];
            let at = self.below(body.len().max(1));
            match self.below(3) {
                0 if at < body.len() => body[at] = byte,
                1 if at < body.len() => drop(body.remove(at)),
                _ => body.insert(at, byte),
            }
        }
        body
    }
}

fn agrees(body: &[u8], cuts: impl Iterator<Item = usize>) -> bool {
    let read = read(Operation::Converse, body, cuts);
    let shown = || String::from_utf8_lossy(body).into_owned();
    let valid = matches!(oracle(body), Some(Some(_)));
    match oracle(body) {
        Some(None) => {}
        None if body.is_empty() => assert_eq!(read, Ok(Vec::new())),
        None => assert!(matches!(read, Err(BodyProblem::Json(_))), "{read:?} of {}", shown()),
        Some(Some(oracle)) if oracle.repeated => {
            assert!(matches!(read, Err(BodyProblem::Repeated(_))), "{read:?} of {}", shown());
        }
        Some(Some(oracle)) if oracle.values.iter().all(|(_, text)| text.bytes().all(|b| b.is_ascii_graphic())) => {
            assert_eq!(read, Ok(oracle.values), "{}", shown());
        }
        Some(Some(_)) => assert!(matches!(read, Err(BodyProblem::Value(_))), "{read:?} of {}", shown()),
    }
    valid
}

/// `SCANNED_BODIES` says how many; 1,000,000 take some minutes.
#[test]
fn reads_generated_bodies_as_serde_json_does() {
    let count = std::env::var("SCANNED_BODIES").ok().map_or(20_000, |count| count.parse().unwrap());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut valid = 0;
    for _ in 0..count {
        let body = random.body();
        let mut cuts = Random(random.0 | 1);
        let most = 1 + cuts.below(64);
        valid += usize::from(agrees(&body, std::iter::repeat_with(|| cuts.below(most)).take(body.len())));
    }
    assert!((count / 3..count * 9 / 10).contains(&valid), "{valid} of {count} are JSON");
}

/// `SCANNED_CUTS` says how many bodies are cut at every place.
#[test]
fn a_body_may_be_cut_anywhere() {
    let count = std::env::var("SCANNED_CUTS").ok().map_or(200, |count| count.parse().unwrap());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..count {
        let body = random.body();
        for cut in 0..=body.len() {
            agrees(&body, std::iter::once(cut));
        }
        agrees(&body, std::iter::repeat_n(1, body.len()));
    }
}
