//! The entries that the operator puts into a call's request metadata, which Bedrock writes into its model invocation logs.
//!
//! InvokeModel and its stream have the metadata in a header, Converse and its stream in the body
//! (<https://docs.aws.amazon.com/bedrock/latest/userguide/cost-mgmt-request-metadata.html>). A client's own entries stay; a client
//! that gives a key of the operator's is refused.

use crate::config::{Auth, Config, ConfigError, Role, at, nearest};
use crate::encoding::hex;
use crate::headers::Headers;
use crate::operation::Operation;
use serde_json::Deserializer;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The header of InvokeModel and its stream.
pub(crate) const HEADER: &str = "x-amzn-bedrock-request-metadata";
/// The member of Converse's body.
pub(crate) const MEMBER: &str = "requestMetadata";
/// Entries of one call (botocore 1.44.8, `RequestMetadata`).
const MAX_ENTRIES: usize = 16;
/// Longest key and longest value in characters (botocore 1.44.8, `RequestMetadataKeyString`, `RequestMetadataValueString`).
const MAX_TEXT: usize = 256;
/// Longest value of the header (botocore 1.44.8, `RequestMetadataJson`).
const MAX_HEADER: usize = 8500;
/// Longest JSON of a client's own metadata that is read, in bytes: all that Bedrock takes, as escapes, and some space.
const MAX_OWN: usize = 64 << 10;

/// The entries that the operator sets.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestMetadata(BTreeMap<String, Source>);

/// Where an entry's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Text(String),
    Principal,
    Class,
    RequestId,
}

/// What the values are taken from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    /// The caller's name.
    pub(crate) principal: Option<&'a str>,
    /// The route class.
    pub(crate) class: &'a str,
    /// The exchange's id: the audit record's key.
    pub(crate) request_id: &'a str,
}

/// Where a body has its metadata, in bytes from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// The first byte of the body's value.
    pub(crate) top: Option<u64>,
    /// The first byte of the value of [`MEMBER`].
    pub(crate) own: Option<u64>,
    /// Whether another member looks like [`MEMBER`].
    pub(crate) alike: bool,
}

/// Whether a member is not [`MEMBER`], and a lenient reader could take it for that.
pub(crate) fn is_alike(member: &str) -> bool {
    let name = member.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    member != MEMBER && name.eq_ignore_ascii_case(MEMBER)
}

/// Why a call's own metadata does not cross.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataProblem {
    /// It is not a map of texts.
    #[error(
        "Value at '{0}' failed to satisfy constraint: want a JSON object whose values are strings, of at most {MAX_OWN} bytes."
    )]
    Shape(&'static str),
    /// The body has no place for the gateway's entries.
    #[error("The request body is not a JSON object, and the gateway writes '{MEMBER}' into it. Nothing was sent.")]
    Body,
    /// A member that a lenient reader could take for the metadata.
    #[error("The request body has a member that differs from '{MEMBER}' in capitals or blanks only. Nothing was sent.")]
    Alike,
    /// A key that only the gateway sets.
    #[error("The key '{key}' in '{place}' is set by the gateway, and no client may give it. Nothing was sent.")]
    Reserved {
        /// The header or the member.
        place: &'static str,
        /// The operator's key.
        key: String,
    },
    /// More entries than Bedrock takes.
    #[error(
        "The request has {given} entries in '{place}', and the gateway adds {added}: Bedrock takes {MAX_ENTRIES}. Nothing was sent."
    )]
    Count {
        /// The header or the member.
        place: &'static str,
        /// How many the client gave.
        given: usize,
        /// How many the gateway adds.
        added: usize,
    },
    /// A longer header than Bedrock takes.
    #[error(
        "The header '{HEADER}' would be longer than {MAX_HEADER} bytes with what the gateway adds to it. Nothing was sent."
    )]
    Length,
}

// === impl RequestMetadata ===

impl RequestMetadata {
    /// Compiles the operator's entries.
    pub(crate) fn compile(config: &Config) -> Result<Self, ConfigError> {
        let given = &config.request_metadata;
        let key_of = |key: &str| format!("request_metadata.{key}");
        if !given.is_empty() && config.role == Role::Combined && config.auth == Some(Auth::Bearer) {
            let problem =
                "role `combined` with `auth: bearer` does not hold bodies, and Converse has its metadata there";
            return Err(at("request_metadata", problem));
        }
        if given.len() > MAX_ENTRIES {
            return Err(at("request_metadata", format!("Bedrock takes {MAX_ENTRIES} entries, not {}", given.len())));
        }
        let mut entries: BTreeMap<String, Source> = BTreeMap::new();
        for (key, value) in given {
            if key.is_empty() || !is_text(key) {
                return Err(at(key_of(key), format!("is not a key that Bedrock takes: want 1 to {ALPHABET}")));
            }
            if let Some(other) = entries.keys().find(|other| other.eq_ignore_ascii_case(key)) {
                return Err(at(key_of(key), format!("differs from '{other}' in capitals only")));
            }
            let source = Source::parse(value).map_err(|problem| {
                let nearest = nearest(value, Source::NAMED.iter().map(|(name, _)| *name)).map(str::to_owned);
                ConfigError { nearest, ..at(key_of(key), problem) }
            })?;
            entries.insert(key.clone(), source);
        }
        Ok(Self(entries))
    }

    /// Whether the gateway writes into the bodies of an operation.
    pub(crate) fn edits_body(&self, operation: Operation) -> bool {
        !self.0.is_empty() && operation.asks_in_body()
    }

    /// Puts the entries into the header of an operation that has one. Of a header that an operation does not have, Bedrock may
    /// make what it likes, so no call may have a key of the gateway's there.
    pub(crate) fn write_header(
        &self,
        operation: Operation,
        values: Values<'_>,
        headers: &mut Headers,
    ) -> Result<(), MetadataProblem> {
        if self.0.is_empty() {
            return Ok(());
        }
        let own = match headers.get(HEADER).filter(|value| !value.is_empty()) {
            Some(value) => serde_json::from_slice(value).map_err(|_| MetadataProblem::Shape(HEADER))?,
            None => BTreeMap::new(),
        };
        self.check(HEADER, &own)?;
        if !operation.has_metadata_header() {
            return Ok(());
        }
        let Some(merged) = self.merged(HEADER, own, values)? else { return Ok(()) };
        if merged.len() > MAX_HEADER {
            return Err(MetadataProblem::Length);
        }
        headers.set(HEADER, merged);
        Ok(())
    }

    /// Puts the entries into a body that is JSON.
    pub(crate) fn write_body(
        &self,
        places: Places,
        values: Values<'_>,
        body: &mut Vec<u8>,
    ) -> Result<(), MetadataProblem> {
        let offset = |place: Option<u64>| place.and_then(|place| usize::try_from(place).ok());
        let top = offset(places.top).filter(|top| body.get(*top) == Some(&b'{')).ok_or(MetadataProblem::Body)?;
        if places.alike {
            return Err(MetadataProblem::Alike);
        }
        let Some(start) = offset(places.own) else {
            let Some(merged) = self.merged(MEMBER, BTreeMap::new(), values)? else { return Ok(()) };
            let behind = top + 1;
            let is_empty = body.iter().skip(behind).find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
            let member = format!("\"{MEMBER}\":{merged}{}", if is_empty { "" } else { "," });
            body.splice(behind..behind, member.into_bytes());
            return Ok(());
        };
        // One value is read, and no more of the body than such a value can have.
        let given = body.get(start..).unwrap_or_default();
        let mut read = Deserializer::from_slice(given.get(..MAX_OWN).unwrap_or(given))
            .into_iter::<Option<BTreeMap<String, String>>>();
        let own = read.next().and_then(Result::ok).ok_or(MetadataProblem::Shape(MEMBER))?.unwrap_or_default();
        let end = start + read.byte_offset();
        self.check(MEMBER, &own)?;
        if let Some(merged) = self.merged(MEMBER, own, values)? {
            body.splice(start..end, merged.into_bytes());
        }
        Ok(())
    }

    /// Refuses what only the gateway sets, in any capitals: tools that read the logs may not tell them apart.
    fn check(&self, place: &'static str, own: &BTreeMap<String, String>) -> Result<(), MetadataProblem> {
        let gives = |set: &str| own.keys().any(|key| set.eq_ignore_ascii_case(key.trim()));
        match self.0.keys().find(|set| gives(set)) {
            Some(set) => Err(MetadataProblem::Reserved { place, key: set.clone() }),
            None => Ok(()),
        }
    }

    /// The JSON of a client's entries and the operator's; `None` if there are none.
    fn merged(
        &self,
        place: &'static str,
        mut entries: BTreeMap<String, String>,
        values: Values<'_>,
    ) -> Result<Option<String>, MetadataProblem> {
        let given = entries.len();
        entries.extend(self.0.iter().filter_map(|(key, source)| Some((key.clone(), source.value(values)?))));
        match entries.len() {
            0 => Ok(None),
            1..=MAX_ENTRIES => Ok(Some(serde_json::json!(entries).to_string())),
            all => Err(MetadataProblem::Count { place, given, added: all - given }),
        }
    }
}

// === impl Source ===

impl Source {
    const NAMED: [(&'static str, Self); 3] =
        [("{principal}", Self::Principal), ("{class}", Self::Class), ("{request_id}", Self::RequestId)];

    fn parse(value: &str) -> Result<Self, String> {
        if let Some((_, source)) = Self::NAMED.iter().find(|(name, _)| *name == value) {
            return Ok(source.clone());
        }
        if value.is_empty() || !is_text(value) {
            let [(first, _), (second, _), (third, _)] = Self::NAMED;
            return Err(format!("{value:?} is neither {first}, {second} nor {third}, nor 1 to {ALPHABET}"));
        }
        Ok(Self::Text(value.to_owned()))
    }

    /// `None`: the caller has no name, and the entry is left out.
    fn value(&self, values: Values<'_>) -> Option<String> {
        Some(match self {
            Self::Text(text) => text.clone(),
            Self::Principal => in_alphabet(values.principal?),
            Self::Class => in_alphabet(values.class),
            Self::RequestId => in_alphabet(values.request_id),
        })
    }
}

// === text ===

/// What Bedrock takes, in words (botocore 1.44.8: `[a-zA-Z0-9\s:_@$#=/+,-.]`).
const ALPHABET: &str = "256 letters, digits, blanks and : _ @ $ # = / + , - .";

fn is_in_alphabet(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" :_@$#=/+,-.".contains(&byte)
}

fn is_text(text: &str) -> bool {
    text.len() <= MAX_TEXT && text.bytes().all(is_in_alphabet)
}

/// Any name as Bedrock takes it, different for different names: a byte outside the alphabet, and `=`, becomes `=` and two
/// hexadecimal digits; the end of a name that is too long becomes `=#` and the name's SHA-256.
fn in_alphabet(name: &str) -> String {
    const HASH: usize = 2 + 64;
    let mut text = String::new();
    let mut room = 0;
    for byte in name.bytes() {
        if byte != b'=' && is_in_alphabet(byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "={byte:02X}");
        }
        if text.len() <= MAX_TEXT - HASH {
            room = text.len();
        }
    }
    if text.len() > MAX_TEXT {
        text.truncate(room);
        text.push_str("=#");
        text.push_str(&hex(&Sha256::digest(name)));
    }
    text
}

#[cfg(test)]
#[path = "request_metadata_tests.rs"]
mod tests;
