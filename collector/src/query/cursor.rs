//! A place in the order of records, newest first: a later query goes on there.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use audit::AuditRecord;

use super::ArgumentError;

/// Comes behind the record with this time and id. Records of one time are in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// In the form of [`timestamp`](crate::timestamp::timestamp).
    pub time: String,
    pub request_id: String,
}

impl Cursor {
    pub fn of(record: &AuditRecord) -> Self {
        Self { time: record.time.clone(), request_id: record.request_id.clone() }
    }
}

impl Ord for Cursor {
    fn cmp(&self, other: &Self) -> Ordering {
        other.time.cmp(&self.time).then_with(|| self.request_id.cmp(&other.request_id))
    }
}

impl PartialOrd for Cursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// An id may hold any character: what a shell or a reader may take for something else is percent-encoded.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.time)?;
        for byte in self.request_id.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let (time, id) = text.split_once('/').ok_or(ArgumentError::Cursor)?;
        let form = "0000-00-00T00:00:00.000Z";
        let alike =
            |(given, wanted): (char, char)| if wanted == '0' { given.is_ascii_digit() } else { given == wanted };
        if time.len() != form.len() || !time.chars().zip(form.chars()).all(alike) {
            return Err(ArgumentError::Cursor);
        }
        let (mut bytes, mut rest) = (Vec::new(), id.as_bytes());
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if *byte == b'%' {
                let (digits, after) = rest.split_at_checked(2).ok_or(ArgumentError::Cursor)?;
                let digits = std::str::from_utf8(digits).map_err(|_| ArgumentError::Cursor)?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|_| ArgumentError::Cursor)?);
                rest = after;
            } else {
                bytes.push(*byte);
            }
        }
        let request_id = String::from_utf8(bytes).map_err(|_| ArgumentError::Cursor)?;
        Ok(Self { time: time.to_owned(), request_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_survives() {
        for id in ["8ef0476d-6ace", "", "a b/%/\u{202e}é\0", "envoy-1-10.1.2.3:44-00ff"] {
            let cursor = Cursor { time: "2026-01-02T03:04:05.678Z".to_owned(), request_id: id.to_owned() };
            let text = cursor.to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            assert_eq!(text.parse::<Cursor>().ok(), Some(cursor));
        }
        for text in [
            "",
            "x",
            "2026-01-02T03:04:05.678Z",
            "2026-01-02/x",
            "2026-01-02T03:04:05.678Z/%4",
            "2026-01-02T03:04:05.678Z/%zz",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
