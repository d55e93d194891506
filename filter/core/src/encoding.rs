//! Percent-encoding as SigV4 requires it (RFC 3986: unreserved characters stay, all others become `%XX`, upper case), and the
//! segments of a path.

/// Why a text cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A `%` that two hexadecimal digits do not follow.
    #[error("a '%' is not followed by two hexadecimal digits")]
    Escape,
    /// The decoded bytes are not UTF-8.
    #[error("the decoded text is not UTF-8")]
    Utf8,
}

/// Appends `bytes` percent-encoded; only `A-Z a-z 0-9 - . _ ~` stay.
pub fn encode_into(bytes: &[u8], out: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.extend(HEX.get(usize::from(nibble)));
            }
        }
    }
}

/// A text percent-encoded.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    encode_into(text.as_bytes(), &mut encoded);
    encoded
}

/// The segments of a path, without empty and dot segments (RFC 3986, 5.2.4).
pub fn path_segments(path: &str) -> Vec<&str> {
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    kept
}

/// Bytes in hexadecimal, lower case.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    let mut text = Vec::with_capacity(bytes.len() * 2);
    text.extend(digits);
    String::from_utf8(text).unwrap_or_default()
}

/// Decodes `%XX` once.
///
/// # Errors
/// A stray `%`, or bytes that are not UTF-8.
pub fn decode(text: &str) -> Result<String, DecodeError> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { hex_digit(rest.next())? << 4 | hex_digit(rest.next())? } else { byte });
    }
    String::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
}

/// The canonical form of a query: each name and value decoded and encoded once, sorted by name, then value. A `+` is a
/// space, as servers read queries.
///
/// # Errors
/// As [`decode`].
pub fn canonical_query(query: &str) -> Result<String, DecodeError> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((encode_once(name)?, encode_once(value)?));
    }
    pairs.sort();
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(pairs.join("&"))
}

fn encode_once(text: &str) -> Result<String, DecodeError> {
    Ok(encode(&decode(&text.replace('+', " "))?))
}

fn hex_digit(byte: Option<u8>) -> Result<u8, DecodeError> {
    match byte {
        Some(b @ b'0'..=b'9') => Ok(b - b'0'),
        Some(b @ b'a'..=b'f') => Ok(b - b'a' + 10),
        Some(b @ b'A'..=b'F') => Ok(b - b'A' + 10),
        _ => Err(DecodeError::Escape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_become_canonical() {
        for (wire, canonical) in [
            ("", ""),
            ("byProvider=anthropic&byInferenceType=ON_DEMAND", "byInferenceType=ON_DEMAND&byProvider=anthropic"),
            ("a", "a="),
            ("a=b=c", "a=b%3Dc"),
            ("t=2026-01-02T03%3A04%3A05Z", "t=2026-01-02T03%3A04%3A05Z"),
            ("n=a+b&n=a%2Bb", "n=a%20b&n=a%2Bb"),
            ("x=%c3%a4&&", "x=%C3%A4"),
        ] {
            assert_eq!(canonical_query(wire).as_deref(), Ok(canonical), "{wire}");
        }
        assert_eq!(canonical_query("a=%"), Err(DecodeError::Escape));
        assert_eq!(canonical_query("a=%ff"), Err(DecodeError::Utf8));
    }
}
