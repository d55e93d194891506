//! Event streams as Bedrock answers ConverseStream: a frame for each word, and the tokens in the last frame.

use bedrock_double::eventstream::event;
use bytes::Bytes;

/// The bytes of a long stream.
pub(crate) const LONG: usize = 1_000_000;
/// The model whose streams are slow, as a path names it.
pub(crate) const SLOW: &str = "amazon.nova-lite-v1%3A0";

/// The first frame.
pub(crate) fn start() -> Vec<u8> {
    event("messageStart", br#"{"p":"abcdefghijklmnop","role":"assistant"}"#)
}

/// A frame of one word. `p` pads it, as Bedrock does.
pub(crate) fn word() -> Vec<u8> {
    event(
        "contentBlockDelta",
        br#"{"contentBlockIndex":0,"delta":{"text":" word"},"p":"abcdefghijklmnopqrstuvwxyzABCD"}"#,
    )
}

/// The last frames: the end of the message, and the tokens.
pub(crate) fn end() -> Vec<u8> {
    let mut frames = event("contentBlockStop", br#"{"contentBlockIndex":0,"p":"abcdefghijkl"}"#);
    frames.extend(event("messageStop", br#"{"p":"abcdefgh","stopReason":"end_turn"}"#));
    let usage = br#"{"metrics":{"latencyMs":300},"p":"abcdef","usage":{"inputTokens":30,"outputTokens":4500,"totalTokens":4530}}"#;
    frames.extend(event("metadata", usage));
    frames
}

/// A stream of at least so many bytes.
pub(crate) fn stream(bytes: usize) -> Bytes {
    let (mut stream, word, end) = (start(), word(), end());
    while stream.len() + end.len() < bytes {
        stream.extend_from_slice(&word);
    }
    stream.extend(end);
    stream.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames' types, found by their lengths.
    fn types(stream: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            // A header's name, its type, the length of its value.
            let at = 12 + 1 + ":event-type".len() + 1;
            let size = usize::from(u16::from_be_bytes(rest[at..at + 2].try_into().unwrap()));
            found.push(String::from_utf8(rest[at + 2..at + 2 + size].to_vec()).unwrap());
            rest = &rest[length..];
        }
        found
    }

    #[test]
    fn a_stream_is_whole_and_ends_with_tokens() {
        let stream = stream(LONG);
        assert!((LONG..LONG + 1_000).contains(&stream.len()), "{}", stream.len());
        let types = types(&stream);
        assert_eq!(types.first().unwrap(), "messageStart");
        assert_eq!(types[types.len() - 3..], ["contentBlockStop", "messageStop", "metadata"]);
        assert!(types[1..types.len() - 3].iter().all(|name| name == "contentBlockDelta") && types.len() > 4_000);
        assert!(stream.ends_with(&end()));
    }
}
