//! A JSON object as it is written, so that one value can be replaced and all other bytes stay.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// An object's text, and those of its members that matter. The others are checked, not kept: there may be millions.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    text: &'a str,
    members: Members<'a>,
}

/// Why a text is not an object with the members that matter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectProblem {
    /// Not JSON in UTF-8, or another value.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// Which value counts is not defined (RFC 8259, section 4).
    #[error("it has the member '{0}' more than once")]
    Repeated(&'static str),
    /// A member is missing, or is of another type.
    #[error("its member '{0}' is not {1}")]
    Member(&'static str, &'static str),
}

impl<'a> Object<'a> {
    /// Parses a text, which ends with the object. `names` are the members that matter.
    pub(crate) fn parse(bytes: &'a [u8], names: &[&'static str]) -> Result<Self, ObjectProblem> {
        let text = std::str::from_utf8(bytes).map_err(|_| ObjectProblem::NotAnObject)?;
        let mut parser = serde_json::Deserializer::from_str(text);
        let members = parser.deserialize_map(Wanted(names)).and_then(|members| parser.end().map(|()| members));
        Ok(Self { text, members: members.map_err(|_| ObjectProblem::NotAnObject)? })
    }

    /// The value of a member, which must not be there twice.
    pub(crate) fn get(&self, name: &'static str) -> Result<Option<&'a RawValue>, ObjectProblem> {
        let mut values = self.members.wanted.iter().filter(|(known, _)| *known == name).map(|(_, value)| *value);
        let value = values.next();
        if values.next().is_some() { Err(ObjectProblem::Repeated(name)) } else { Ok(value) }
    }

    /// The text of a member that is a string, or `null`.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<String>, ObjectProblem> {
        let Some(value) = self.get(name)? else { return Ok(None) };
        serde_json::from_str(value.get()).map_err(|_| ObjectProblem::Member(name, "a string"))
    }

    /// The object with another text in place of one of its values.
    pub(crate) fn with(&self, value: &RawValue, instead: &str) -> String {
        // The value is a part of the text.
        let start = value.get().as_ptr().addr().saturating_sub(self.text.as_ptr().addr());
        let end = start.saturating_add(value.get().len());
        let (before, after) = (self.text.get(..start), self.text.get(end..));
        [before.unwrap_or_default(), instead, after.unwrap_or_default()].concat()
    }

    /// The object with a member before all others.
    pub(crate) fn with_first(&self, member: &str) -> String {
        let (before, after) = self.text.split_once('{').unwrap_or_default();
        let comma = if self.members.is_empty { "" } else { "," };
        format!("{before}{{{member}{comma}{after}")
    }
}

#[derive(Debug)]
struct Members<'a> {
    /// Each member at most twice, which is once too often.
    wanted: Vec<(&'static str, &'a RawValue)>,
    is_empty: bool,
}

/// Collects the members of these names.
struct Wanted<'n>(&'n [&'static str]);

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members { wanted: Vec::new(), is_empty: true };
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            members.is_empty = false;
            let times = |name: &str| members.wanted.iter().filter(|(known, _)| *known == name).count();
            if let Some(name) = self.0.iter().find(|name| **name == key && times(name) < 2) {
                members.wanted.push((*name, value));
            }
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_replaced() {
        let text = " {\"a\" : 1.50, \"b\\u0062\": [ 2 ] ,\"c\":\"ä\"}\n";
        let object = Object::parse(text.as_bytes(), &["a", "bb", "c", "d"]).unwrap();
        let value = object.get("bb").unwrap().unwrap();
        assert_eq!(object.with(value, "[]"), " {\"a\" : 1.50, \"b\\u0062\": [] ,\"c\":\"ä\"}\n");
        assert_eq!(object.with_first("\"n\":0"), format!(" {{\"n\":0,{}", &text[2..]));
        assert_eq!(Object::parse(b" { }", &[]).unwrap().with_first("\"n\":0"), " {\"n\":0 }");
        assert_eq!(object.text("c"), Ok(Some("ä".to_owned())));
        assert_eq!(object.text("a"), Err(ObjectProblem::Member("a", "a string")));
        assert_eq!(object.text("d"), Ok(None));
        assert_eq!(Object::parse(br#"{"a":null}"#, &["a"]).unwrap().text("a"), Ok(None));
    }

    #[test]
    fn refuses_what_two_readers_read_differently() {
        for text in ["", "[]", "null", "{", "{} x", "\u{feff}{}", r#"{"a":NaN}"#, r#"{"a":01}"#, "{\"a\":1,}"] {
            assert_eq!(
                Object::parse(text.as_bytes(), &["a", "bb", "c", "d"]).err(),
                Some(ObjectProblem::NotAnObject),
                "{text}"
            );
        }
        assert_eq!(Object::parse(b"{\"a\xff\":1}", &[]).err(), Some(ObjectProblem::NotAnObject));
        let object = Object::parse(br#"{"a":1,"b":2,"\u0061":3,"b":4}"#, &["a", "c"]).unwrap();
        assert_eq!(object.get("a").err(), Some(ObjectProblem::Repeated("a")));
        assert!(object.get("c").unwrap().is_none());
    }
}
