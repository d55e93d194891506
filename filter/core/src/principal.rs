//! The caller's name and groups: texts that Envoy verified.
//!
//! Envoy gives a module a property of any type as bytes: a claim that is the number 1.0 as its eight bytes, a list as a
//! serialised message. Such bytes may spell another caller's name. So a claim is read from all of the stream's metadata, which
//! Envoy gives as the protobuf message `envoy.config.core.v3.Metadata`, where each value has its type.

use crate::config::{GroupSource, Principal};

/// Envoy's filter that verifies tokens; it writes their payloads to its metadata.
const JWT_AUTHN: &[u8] = b"envoy.filters.http.jwt_authn";

/// Most groups of a caller: each is looked up for each call.
const MAX_GROUPS: usize = 1000;

/// Why a caller's name cannot be used. A caller with such a name is not one without a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// The claim is there, and is not text.
    #[error("the claim '{claim}' of the caller's token is {kind}, not text")]
    Claim {
        /// The claim.
        claim: String,
        /// What it is.
        kind: &'static str,
    },
    /// The claim of groups is there, and is neither text nor a list of texts.
    #[error("the claim '{claim}' of the caller's token is {kind}, not text or a list of texts")]
    Groups {
        /// The claim.
        claim: String,
        /// What it is.
        kind: String,
    },
    /// The name in the certificate is not text.
    #[error("the URI in the caller's certificate is not UTF-8")]
    Certificate,
    /// Envoy does not give the metadata, or not as the message.
    #[error("Envoy's metadata of the call cannot be read")]
    Metadata,
}

impl Principal {
    /// Envoy's property (attribute path) in which the name is.
    pub fn property(&self) -> &'static [&'static str] {
        match self {
            Self::Mtls {} => &["connection", "uri_san_peer_certificate"],
            Self::Jwt { .. } => &["metadata"],
        }
    }

    /// The name in the property's value, if the caller has one.
    ///
    /// # Errors
    /// [`PrincipalError`] if there is something else than text in its place.
    pub fn name(&self, value: Vec<u8>) -> Result<Option<String>, PrincipalError> {
        match self {
            Self::Mtls {} => {
                let name = String::from_utf8(value).map_err(|_| PrincipalError::Certificate)?;
                Ok(Some(name).filter(|name| !name.is_empty()))
            }
            Self::Jwt { payload, claim } => {
                let value = find(&value, payload, claim).ok_or(PrincipalError::Metadata)?;
                let not_text = |kind| Err(PrincipalError::Claim { claim: claim.clone(), kind });
                match value {
                    None => Ok(None),
                    Some(Value::Text("")) => not_text("empty"),
                    Some(Value::Text(text)) => Ok(Some(text.to_owned())),
                    Some(value) => not_text(value.kind()),
                }
            }
        }
    }
}

impl GroupSource {
    /// Envoy's property (attribute path) in which the groups are.
    pub fn property(&self) -> &'static [&'static str] {
        &["metadata"]
    }

    /// The groups in the property's value.
    ///
    /// # Errors
    /// [`PrincipalError`] if there is something else than texts in their place.
    pub fn names(&self, value: &[u8]) -> Result<Vec<String>, PrincipalError> {
        let Self::Jwt { payload, claim } = self;
        let not_texts = |kind: String| PrincipalError::Groups { claim: claim.clone(), kind };
        let text = |value: Value<'_>| match value {
            Value::Text("") => Err("an empty text"),
            Value::Text(text) => Ok(text.to_owned()),
            other => Err(other.kind()),
        };
        let list = match find(value, payload, claim).ok_or(PrincipalError::Metadata)? {
            None => return Ok(Vec::new()),
            Some(Value::List(list)) => list,
            Some(value) => return Ok(vec![text(value).map_err(|kind| not_texts(kind.to_owned()))?]),
        };
        let mut names = Vec::new();
        for field in Fields(list) {
            let (number, field) = field.ok_or(PrincipalError::Metadata)?;
            if number == 1 {
                let one = field.bytes().and_then(value_of).ok_or(PrincipalError::Metadata)?;
                if names.len() >= MAX_GROUPS {
                    return Err(not_texts(format!("a list of more than {MAX_GROUPS}")));
                }
                names.push(text(one).map_err(|kind| not_texts(format!("a list with {kind}")))?);
            }
        }
        Ok(names)
    }
}

/// A `google.protobuf.Value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Text(&'a str),
    /// A `ListValue`.
    List(&'a [u8]),
    Other(&'static str),
}

impl Value<'_> {
    fn kind(self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Other(kind) => kind,
        }
    }
}

/// A claim in a `Metadata`: its `filter_metadata` (1) is a map of `Struct`s, whose `fields` (1) is a map of `Value`s.
/// `None`: not such a message. `Some(None)`: no such claim.
fn find<'a>(metadata: &'a [u8], payload: &str, claim: &str) -> Option<Option<Value<'a>>> {
    let Some(filter) = entry(metadata, JWT_AUTHN)? else { return Some(None) };
    let Some(payload) = entry(filter, payload.as_bytes())? else { return Some(None) };
    // A payload that is not an object has no claims.
    let Some(payload) = last(payload, 5)? else { return Some(None) };
    let Some(found) = entry(payload.bytes()?, claim.as_bytes())? else { return Some(None) };
    value_of(found).map(Some)
}

/// The type of a `Value`, and its text.
fn value_of(message: &[u8]) -> Option<Value<'_>> {
    let mut found = Value::Other("null");
    for field in Fields(message) {
        let (number, field) = field?;
        found = match number {
            2 => Value::Other("a number"),
            3 => Value::Text(std::str::from_utf8(field.bytes()?).ok()?),
            4 => Value::Other("true or false"),
            5 => Value::Other("an object"),
            6 => Value::List(field.bytes()?),
            _ => Value::Other("null"),
        };
    }
    Some(found)
}

// === protobuf ===

/// A field's content.
#[derive(Debug, Clone, Copy)]
enum Field<'a> {
    Scalar,
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Scalar => None,
        }
    }
}

/// The fields of a message with their numbers; `None` where the message is malformed, which ends it.
#[derive(Debug)]
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => {
                self.varint()?;
                Field::Scalar
            }
            1 => self.take(8).map(|_| Field::Scalar)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Field::Scalar)?,
            _ => return None,
        };
        Some((tag >> 3, field))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// The last field with a number: the one that counts, as in every reader of protobuf.
fn last(message: &[u8], wanted: u64) -> Option<Option<Field<'_>>> {
    let mut found = None;
    for field in Fields(message) {
        let (number, field) = field?;
        if number == wanted {
            found = Some(field);
        }
    }
    Some(found)
}

/// The value of a key in the map that is field 1: each entry has its key in field 1 and its value, a message, in field 2.
fn entry<'a>(message: &'a [u8], key: &[u8]) -> Option<Option<&'a [u8]>> {
    let mut found = None;
    for field in Fields(message) {
        let (number, field) = field?;
        if number != 1 {
            continue;
        }
        let entry = field.bytes()?;
        let own = last(entry, 1)?.map_or(Some(&[][..]), Field::bytes)?;
        if own == key {
            found = Some(last(entry, 2)?.map_or(Some(&[][..]), Field::bytes)?);
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(mut value: usize, out: &mut Vec<u8>) {
        while value > 0x7f {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        varint(content.len(), &mut out);
        out.extend_from_slice(content);
        out
    }

    fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        entries
            .iter()
            .flat_map(|(key, value)| bytes(1, &[bytes(1, key.as_bytes()), bytes(2, value)].concat()))
            .collect()
    }

    fn number(value: f64) -> Vec<u8> {
        [&[0x11], value.to_le_bytes().as_slice()].concat()
    }

    /// Metadata with a token's claims, next to other filters' and other tokens'.
    fn metadata(claims: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let other = bytes(5, &map(&[("sub", bytes(3, b"other"))]));
        let filter = map(&[("other", other.clone()), ("jwt", bytes(5, &map(claims)))]);
        let typed = bytes(2, &[bytes(1, b"x"), bytes(2, &bytes(1, b"type.googleapis.com/x"))].concat());
        [map(&[("a.filter", map(&[("jwt", other)])), ("envoy.filters.http.jwt_authn", filter)]), typed].concat()
    }

    fn jwt() -> Principal {
        Principal::Jwt { payload: "jwt".to_owned(), claim: "sub".to_owned() }
    }

    #[test]
    fn a_claim_that_is_text_is_the_name() {
        let long = "x".repeat(300);
        for name in ["alice", "ünïcode", long.as_str()] {
            let value = metadata(&[("iat", number(1.0)), ("sub", bytes(3, name.as_bytes()))]);
            assert_eq!(jwt().name(value), Ok(Some(name.to_owned())), "{name}");
        }
    }

    #[test]
    fn callers_without_the_claim_have_no_name() {
        let payload = map(&[("envoy.filters.http.jwt_authn", map(&[("jwt", bytes(3, b"text"))]))]);
        for value in
            [Vec::new(), metadata(&[]), metadata(&[("su", bytes(3, b"x"))]), map(&[("x", Vec::new())]), payload]
        {
            assert_eq!(jwt().name(value), Ok(None));
        }
    }

    #[test]
    fn refuses_claims_that_are_not_text() {
        // As a number, its eight bytes spell a name.
        let spelt = f64::from_le_bytes(*b"operator");
        for (value, kind) in [
            (number(1.0), "a number"),
            (number(spelt), "a number"),
            (vec![0x20, 1], "true or false"),
            (vec![0x08, 0], "null"),
            (Vec::new(), "null"),
            (bytes(6, &bytes(1, &bytes(3, b"operator"))), "a list"),
            (bytes(5, &map(&[("operator", bytes(3, b"operator"))])), "an object"),
            (bytes(3, b""), "empty"),
        ] {
            let error = jwt().name(metadata(&[("sub", value)])).unwrap_err();
            assert_eq!(error, PrincipalError::Claim { claim: "sub".to_owned(), kind });
        }
    }

    fn groups() -> GroupSource {
        GroupSource::Jwt { payload: "jwt".to_owned(), claim: "groups".to_owned() }
    }

    fn list(values: &[Vec<u8>]) -> Vec<u8> {
        bytes(6, &values.iter().flat_map(|value| bytes(1, value)).collect::<Vec<_>>())
    }

    #[test]
    fn groups_are_a_text_or_a_list_of_texts() {
        let of = |value| groups().names(&metadata(&[("sub", bytes(3, b"alice")), ("groups", value)])).unwrap();
        assert_eq!(of(bytes(3, b"admins")), ["admins"]);
        assert_eq!(of(list(&[bytes(3, b"admins"), bytes(3, "Größe 7".as_bytes())])), ["admins", "Größe 7"]);
        assert_eq!(of(list(&[])), [""; 0]);
        assert_eq!(groups().names(&metadata(&[])), Ok(Vec::new()));
        assert_eq!(groups().names(b""), Ok(Vec::new()));
    }

    #[test]
    fn refuses_groups_that_are_not_text() {
        let spelt = number(f64::from_le_bytes(*b"operator"));
        for (value, kind) in [
            (spelt.clone(), "a number"),
            (vec![0x20, 1], "true or false"),
            (vec![0x08, 0], "null"),
            (bytes(5, &map(&[("admins", bytes(3, b"admins"))])), "an object"),
            (bytes(3, b""), "an empty text"),
            (list(&[bytes(3, b"admins"), spelt]), "a list with a number"),
            (list(&[list(&[bytes(3, b"admins")])]), "a list with a list"),
            (list(&[bytes(3, b"")]), "a list with an empty text"),
            (list(&[Vec::new()]), "a list with null"),
            (list(&vec![bytes(3, b"x"); 1001]), "a list of more than 1000"),
        ] {
            let error = groups().names(&metadata(&[("groups", value)])).unwrap_err();
            assert_eq!(error, PrincipalError::Groups { claim: "groups".to_owned(), kind: kind.to_owned() });
        }
        assert_eq!(groups().names(&[0x0b]), Err(PrincipalError::Metadata));
        assert_eq!(groups().names(&metadata(&[("groups", bytes(6, &[0x0a, 9]))])), Err(PrincipalError::Metadata));
    }

    #[test]
    fn refuses_malformed_metadata() {
        let good = metadata(&[("sub", bytes(3, b"alice"))]);
        for length in 1..good.len() {
            // A whole message that ends before the claim has none.
            let result = jwt().name(good.get(..length).unwrap_or_default().to_vec());
            assert!(matches!(result, Err(PrincipalError::Metadata) | Ok(None)) || length > good.len() - 40, "{length}");
        }
        assert_eq!(jwt().name(metadata(&[("sub", bytes(3, b"\xff"))])), Err(PrincipalError::Metadata));
        assert_eq!(jwt().name(vec![0x0a, 0xff]), Err(PrincipalError::Metadata));
        assert_eq!(jwt().name(vec![0xff; 20]), Err(PrincipalError::Metadata));
        assert_eq!(jwt().name(vec![0x0b]), Err(PrincipalError::Metadata));
    }

    #[test]
    fn a_certificates_name_is_text() {
        let mtls = Principal::Mtls {};
        assert_eq!(mtls.name(b"spiffe://x/a".to_vec()), Ok(Some("spiffe://x/a".to_owned())));
        assert_eq!(mtls.name(Vec::new()), Ok(None));
        assert_eq!(mtls.name(vec![0xff]), Err(PrincipalError::Certificate));
    }
}
