//! A JSON document with the order and the repetitions of its keys, which serde_json's own value loses.

use super::error::ConfigError;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The keys of objects that say of which kind the object is.
pub(super) const TAGS: [&str; 2] = ["source", "from"];

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// # Errors
    /// [`ConfigError`] with the position at which the text stops being JSON.
    pub(super) fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        serde_json::from_slice(text).map_err(|error| ConfigError::not_json(&error))
    }

    /// The value of a key of an object.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(entries) = self else { return None };
        entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Sets a key of an object, before all others if it is new.
    pub(super) fn set(&mut self, name: &str, value: Self) {
        if let Self::Object(entries) = self {
            entries.retain(|(key, _)| key != name);
            entries.insert(0, (name.to_owned(), value));
        }
    }

    /// The first key that an object has twice, and its path: of two entries of a table one would win in silence.
    pub(super) fn repeated_key(&self) -> Option<(&str, String)> {
        fn below(value: &Json, segment: String) -> Option<(&str, String)> {
            value.repeated_key().map(|(key, path)| (key, segment + &path))
        }
        match self {
            Self::Object(entries) => {
                for (index, (key, _)) in entries.iter().enumerate() {
                    if entries.iter().take(index).any(|(earlier, _)| earlier == key) {
                        return Some((key, format!(".{key}")));
                    }
                }
                entries.iter().find_map(|(key, value)| below(value, format!(".{key}")))
            }
            Self::Array(values) => {
                values.iter().enumerate().find_map(|(index, value)| below(value, format!("[{index}]")))
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Signed(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Json::Object(entries))
    }
}
