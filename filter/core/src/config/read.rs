//! Reads configuration types from JSON, with every error at its key and in the operator's terms.
//!
//! serde_json's own errors speak of Rust's types ("expected u8"), and lose the path below tables and tagged objects.

use super::error::ConfigError;
use super::json::{Json, TAGS};
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
use std::fmt;

/// Reads a value.
///
/// # Errors
/// [`ConfigError`] names the key, relative to `json`.
pub(super) fn read<T: DeserializeOwned>(json: &Json) -> Result<T, ConfigError> {
    T::deserialize(Reader(json)).map_err(|ReadError { segments, error }| {
        let path: String = segments.into_iter().rev().collect();
        let path = path.strip_prefix('.').unwrap_or(&path);
        ConfigError { key: if path.is_empty() { "." } else { path }.to_owned(), ..*error }
    })
}

struct Reader<'a>(&'a Json);

/// An error on its way up: each level adds its segment of the path.
#[derive(Debug)]
struct ReadError {
    /// `.name` or `[index]`, the innermost first.
    segments: Vec<String>,
    /// Boxed, because results with large errors are slow to return.
    error: Box<ConfigError>,
}

impl ReadError {
    fn new(problem: String) -> Self {
        Self { segments: Vec::new(), error: Box::new(ConfigError::new("", problem)) }
    }

    fn below(mut self, segment: String) -> Self {
        self.segments.push(segment);
        self
    }

    fn unknown(kind: &str, name: &str, known: &[&'static str]) -> Self {
        let error = ConfigError::unknown("", kind, name, known.iter().copied());
        Self { segments: Vec::new(), error: Box::new(error) }
    }
}

impl std::error::Error for ReadError {}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error.problem)
    }
}

impl serde::de::Error for ReadError {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self::new(problem.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        let wanted = plain(wanted);
        Self::new(match (found, wanted.as_str()) {
            (Unexpected::Unit, "an object") => "has no value (null); want an object, `{}` for an empty one".to_owned(),
            (Unexpected::Unit, _) => format!("has no value (null); want {wanted}"),
            (Unexpected::Str(text), "a list") => {
                format!("want a list, not the string '{text}': write it in brackets, [ ]")
            }
            _ => format!("want {wanted}, not {}", plain_value(found)),
        })
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::invalid_type(found, wanted)
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Self::unknown("value", name, known)
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::unknown("key", name, known)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new("is missing".to_owned()).below(format!(".{name}"))
    }
}

/// What is wanted, without the names of Rust's types.
fn plain(wanted: &dyn Expected) -> String {
    let wanted = wanted.to_string();
    let whole = |most: u64| format!("a whole number from 0 to {most}");
    match wanted.as_str() {
        "u8" => whole(u8::MAX.into()),
        "u16" => whole(u16::MAX.into()),
        "u32" => whole(u32::MAX.into()),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        _ => wanted,
    }
}

fn plain_value(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(value) => format!("the string '{value}'"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        _ => "another kind of value".to_owned(),
    }
}

impl Json {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Unsigned(value) => Unexpected::Unsigned(*value),
            Self::Signed(value) => Unexpected::Signed(*value),
            Self::Float(value) => Unexpected::Float(*value),
            Self::String(value) => Unexpected::Str(value),
            Self::Array(_) => Unexpected::Seq,
            Self::Object(_) => Unexpected::Map,
        }
    }
}

impl<'de> Reader<'de> {
    fn refuse<T>(&self, wanted: &dyn Expected) -> Result<T, ReadError> {
        Err(serde::de::Error::invalid_type(self.0.unexpected(), wanted))
    }

    fn number<V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Json::Unsigned(value) => visitor.visit_u64(*value),
            Json::Signed(value) => visitor.visit_i64(*value),
            _ => self.refuse(&visitor),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(*value),
            Json::Float(value) => visitor.visit_f64(*value),
            Json::Unsigned(_) | Json::Signed(_) => self.number(visitor),
            Json::String(_) => self.deserialize_str(visitor),
            Json::Array(_) => self.deserialize_seq(visitor),
            Json::Object(_) => self.deserialize_map(visitor),
        }
    }

    // The other functions give a visitor only what it may expect, which keeps the module small.

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Json::Bool(value) => visitor.visit_bool(*value),
            _ => self.refuse(&visitor),
        }
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.number(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.number(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Json::String(value) => visitor.visit_borrowed_str(value),
            _ => self.refuse(&visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Json::Array(values) => visitor.visit_seq(Elements(values.iter().enumerate())),
            _ => self.refuse(&visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.0 {
            Json::Object(entries) => visitor.visit_map(Entries::new(entries)),
            _ => self.refuse(&visitor),
        }
    }

    /// serde would take a list for a struct, by the order of its fields.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.0 {
            Json::Object(entries) => visitor.visit_map(Entries::new(entries)),
            _ => self.refuse(&"an object"),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if *self.0 == Json::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.0 {
            Json::String(name) => visitor.visit_enum(StrDeserializer::new(name)),
            _ => self.refuse(&"a string"),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u16 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

struct Elements<'a>(std::iter::Enumerate<std::slice::Iter<'a, Json>>);

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some((index, value)) = self.0.next() else { return Ok(None) };
        seed.deserialize(Reader(value)).map(Some).map_err(|error| error.below(format!("[{index}]")))
    }
}

struct Entries<'a> {
    entries: std::vec::IntoIter<&'a (String, Json)>,
    value: Option<&'a (String, Json)>,
}

impl<'a> Entries<'a> {
    fn new(entries: &'a [(String, Json)]) -> Self {
        let mut entries: Vec<_> = entries.iter().collect();
        // Tags first: see `tagged`.
        entries.sort_by_key(|(key, _)| !TAGS.contains(&key.as_str()));
        Self { entries: entries.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        self.value = self.entries.next();
        let Some((key, _)) = self.value else { return Ok(None) };
        let read = seed.deserialize(IntoDeserializer::<ReadError>::into_deserializer(key.as_str()));
        read.map(Some).map_err(|error| error.below(format!(".{key}")))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some((key, value)) = self.value.take() else { return Err(ReadError::new("has no value".to_owned())) };
        seed.deserialize(Reader(value)).map_err(|error| error.below(format!(".{key}")))
    }
}
