//! How a ConverseStream ended, read from its frames (their form: [`bedrock_double::eventstream`]).

/// A frame's prelude: two lengths and their CRC.
const PRELUDE: usize = 12;

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEnd {
    /// With its metadata, which is the last event.
    Complete,
    /// With an exception in the stream.
    Exception(String),
    /// In any other way: a client that only counts bytes takes it for whole.
    Short(&'static str),
}

/// The bytes of a stream.
#[derive(Debug, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// More of it.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// How it ended.
    #[must_use]
    pub fn ending(&self) -> StreamEnd {
        let mut rest = self.0.as_slice();
        let mut last = StreamEnd::Short("no frame");
        while !rest.is_empty() {
            let Some((frame, after)) = split(rest) else {
                return StreamEnd::Short("a frame is cut or fails its CRC");
            };
            last = kind(frame);
            rest = after;
        }
        last
    }
}

/// The first frame and what is after it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let total = usize::try_from(number(bytes, 0)?).ok()?;
    let (frame, rest) = bytes.split_at_checked(total)?;
    let (covered, crc) = frame.split_at_checked(total.checked_sub(4)?)?;
    (number(crc, 0)? == crc32fast::hash(covered)).then_some((frame, rest))
}

/// What an event at the end of a stream says of it.
fn kind(frame: &[u8]) -> StreamEnd {
    let headers = number(frame, 4).and_then(|length| frame.get(PRELUDE..)?.get(..usize::try_from(length).ok()?));
    let headers = headers.unwrap_or_default();
    if let Some(name) = header(headers, ":exception-type") {
        return StreamEnd::Exception(name);
    }
    match header(headers, ":event-type").as_deref() {
        Some("metadata") => StreamEnd::Complete,
        _ => StreamEnd::Short("no metadata at its end"),
    }
}

/// A string header's value.
fn header(mut headers: &[u8], wanted: &str) -> Option<String> {
    while let Some((length, rest)) = headers.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        // Type 7, a string, is all that Bedrock uses.
        let rest = rest.strip_prefix(&[7])?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        if name == wanted.as_bytes() {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        headers = rest;
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bedrock_double::eventstream::{event, exception, with_bad_crc};

    fn ending(frames: &[Vec<u8>]) -> StreamEnd {
        let mut all = Frames::default();
        frames.iter().for_each(|frame| all.add(frame));
        all.ending()
    }

    #[test]
    fn reads_how_a_stream_ended() {
        let (word, last) = (event("contentBlockDelta", b"{}"), event("metadata", b"{}"));
        assert_eq!(ending(&[word.clone(), last.clone()]), StreamEnd::Complete);
        let thrown = exception("modelStreamErrorException", b"{}");
        assert_eq!(ending(&[word.clone(), thrown]), StreamEnd::Exception("modelStreamErrorException".to_owned()));
        assert_eq!(ending(std::slice::from_ref(&word)), StreamEnd::Short("no metadata at its end"));
        assert_eq!(ending(&[word.clone(), last[..9].to_vec()]), StreamEnd::Short("a frame is cut or fails its CRC"));
        assert_eq!(ending(&[word, with_bad_crc(last)]), StreamEnd::Short("a frame is cut or fails its CRC"));
        assert_eq!(ending(&[]), StreamEnd::Short("no frame"));
    }
}
