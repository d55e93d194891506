//! The Proxy-Wasm ABI 0.2.1: statuses, map types, and the wire form of a header map.

use super::bytes::Bytes;

/// A header. Names are lower case, as in Envoy; values are any bytes.
pub type Header = (String, Bytes);

/// The status that a host call returns, with the numbers of proxy-wasm's `WasmResult`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// The call succeeded.
    Ok = 0,
    /// The header, property, key or queue does not exist.
    NotFound = 1,
    /// An argument is wrong; also a header map that is closed in this phase.
    BadArgument = 2,
    /// In Envoy: the property's value is null, or a message without a wire form.
    SerializationFailure = 3,
    /// An argument cannot be parsed.
    ParseFailure = 4,
    /// The queue is empty.
    Empty = 7,
    /// The shared data changed since it was read.
    CasMismatch = 8,
    /// Another failure of the host.
    InternalFailure = 10,
}

/// A direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to upstream.
    Request,
    /// Upstream to client.
    Response,
}

/// A header map of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapType {
    Headers(Direction),
    Trailers(Direction),
    CallHeaders,
    CallTrailers,
}

impl MapType {
    /// `None` for unknown numbers and for the gRPC maps, which this host does not have.
    pub(super) fn from_abi(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Headers(Direction::Request),
            1 => Self::Trailers(Direction::Request),
            2 => Self::Headers(Direction::Response),
            3 => Self::Trailers(Direction::Response),
            6 => Self::CallHeaders,
            7 => Self::CallTrailers,
            _ => return None,
        })
    }
}

/// The wire form: count, then all name and value lengths, then each name and value, NUL-ended.
pub(super) fn encode_pairs(pairs: &[Header]) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::new();
    if pairs.is_empty() {
        return out;
    }
    out.extend(number(pairs.len()));
    for (name, value) in pairs {
        out.extend(number(name.len()));
        out.extend(number(value.len()));
    }
    for (name, value) in pairs {
        out.extend(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

/// The reverse of [`encode_pairs`]. Names become lower case, as in Envoy.
pub(super) fn decode_pairs(bytes: &[u8]) -> Result<Vec<Header>, String> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let number = |at: usize| -> Result<usize, String> {
        let field = bytes
            .get(at..at + 4)
            .and_then(|field| <[u8; 4]>::try_from(field).ok())
            .ok_or_else(|| format!("header pairs of {} bytes end inside a length at {at}", bytes.len()))?;
        Ok(u32::from_le_bytes(field) as usize)
    };
    let count = number(0)?;
    let mut at = 4 + count * 8;
    let mut text = |size: usize, what: &str| -> Result<Vec<u8>, String> {
        let value = bytes
            .get(at..at + size)
            .ok_or_else(|| format!("header pairs: a {what} of {size} bytes at {at} runs over the end"))?;
        at += size;
        if bytes.get(at) != Some(&0) {
            return Err(format!("header pairs: the {what} ending at {at} is not followed by NUL"));
        }
        at += 1;
        Ok(value.to_vec())
    };
    let mut pairs = Vec::new();
    for n in 0..count {
        let name = text(number(4 + n * 8)?, "name")?;
        let value = text(number(8 + n * 8)?, "value")?;
        pairs.push((header_name(name)?, value.into()));
    }
    if at != bytes.len() {
        return Err(format!("header pairs: {} bytes left over", bytes.len() - at));
    }
    Ok(pairs)
}

/// A header name in lower case.
pub(super) fn header_name(name: Vec<u8>) -> Result<String, String> {
    let text = String::from_utf8(name).map_err(|error| format!("a header name is not UTF-8: {error}"))?;
    if text.is_empty() {
        return Err("a header name is empty".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}
