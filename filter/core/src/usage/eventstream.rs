//! Reads an `application/vnd.amazon.eventstream` while it passes.
//!
//! A frame (the Smithy specification, "Amazon Event Stream"): u32 total length, u32 headers length, u32 CRC-32 of those
//! eight bytes; headers; payload; u32 CRC-32 of all before it. Big endian. A header: u8 name length, name, u8 type, value.

use super::Tokens;
use super::base64_stream::Decoder;
use crate::scanner::{Path, Scanner, Sink};
use audit::Usage;
use std::borrow::Cow;

/// Prelude (12 bytes) and the closing CRC (4).
const OVERHEAD: u32 = 16;
/// Largest frame that the specification lets a service send: 128 KiB of headers and 16 MiB of payload, with slack for a
/// service that goes beyond it (24 MiB).
const MAX_FRAME: u32 = 24 << 20;
/// The type of a header that is a string.
const STRING: u8 = 7;
/// Header bytes that are kept. Bedrock's headers are some hundred bytes; of longer ones only the beginning is read.
const MAX_HEADERS: usize = 4096;

/// Follows the frames of one stream.
#[derive(Debug)]
pub struct Frames {
    part: Part,
    /// The beginning of a prelude, of headers or of a closing CRC whose end is in the next chunk.
    kept: Vec<u8>,
    crc: crc32fast::Hasher,
    payload_len: u32,
    payload: Payload,
    tokens: Tokens,
    /// ConverseStream's `messageStop` or `metadata` came.
    ended: bool,
    exception: Option<String>,
    error: Option<StreamError>,
}

/// Why a stream is not a complete event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamError {
    /// It ended inside a frame.
    Truncated,
    /// A frame's lengths contradict each other or its size is beyond any service's.
    Length,
    /// The prelude's CRC is wrong.
    PreludeCrc,
    /// The message's CRC is wrong.
    MessageCrc,
}

/// The first twelve bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prelude {
    /// Length of the frame in bytes, prelude and closing CRC included.
    pub total: u32,
    /// Length of its headers.
    pub headers: u32,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Prelude,
    /// Bytes left; kept only if there are not too many.
    Headers(u32),
    Payload(u32),
    Crc,
}

/// How the payload of the current frame is read.
#[derive(Debug, Default)]
enum Payload {
    #[default]
    Ignored,
    /// ConverseStream's `messageStop`.
    Stop,
    /// ConverseStream's `metadata`.
    Metadata(Box<(Scanner, Tokens)>),
    /// An exception's name.
    Exception(String),
    /// InvokeModelWithResponseStream's `chunk`: `{"bytes": base64 of the model's own JSON}`.
    Chunk(Box<(Scanner, Inner)>),
}

/// The model's own JSON, inside the base64 inside the chunk's JSON.
#[derive(Debug, Default)]
struct Inner {
    decoder: Decoder,
    scanner: Scanner,
    tokens: Tokens,
}

impl StreamError {
    /// The name in the audit record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "EventStreamTruncated",
            Self::Length => "EventStreamBadLength",
            Self::PreludeCrc => "EventStreamBadPreludeCrc",
            Self::MessageCrc => "EventStreamBadMessageCrc",
        }
    }
}

impl Prelude {
    /// Its length in bytes.
    pub const LENGTH: usize = 12;

    /// Reads it.
    ///
    /// # Errors
    /// [`StreamError::PreludeCrc`], or [`StreamError::Length`] for lengths that no frame has.
    pub fn read(bytes: &[u8]) -> Result<Self, StreamError> {
        let mut words = bytes.chunks_exact(4).map(word);
        let (total, headers, crc) = (words.next().unwrap_or(0), words.next().unwrap_or(0), words.next().unwrap_or(0));
        if crc32fast::hash(bytes.get(..8).unwrap_or_default()) != crc {
            return Err(StreamError::PreludeCrc);
        }
        let prelude = Self { total, headers };
        prelude.payload().filter(|_| total <= MAX_FRAME).map(|_| prelude).ok_or(StreamError::Length)
    }

    fn payload(self) -> Option<u32> {
        self.total.checked_sub(OVERHEAD)?.checked_sub(self.headers)
    }
}

/// A frame with string headers, of at most 255 bytes of name and 64 KiB of value each.
pub fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(name.len() as u8);
        block.extend_from_slice(name.as_bytes());
        block.push(STRING);
        block.extend_from_slice(&(value.len() as u16).to_be_bytes());
        block.extend_from_slice(value.as_bytes());
    }
    let total = OVERHEAD + block.len() as u32 + payload.len() as u32;
    let mut frame = [total.to_be_bytes(), (block.len() as u32).to_be_bytes()].concat();
    for part in [&[][..], &[&block[..], payload].concat()] {
        frame.extend_from_slice(part);
        frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    }
    frame
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            part: Part::Prelude,
            kept: Vec::new(),
            crc: crc32fast::Hasher::new(),
            payload_len: 0,
            payload: Payload::default(),
            tokens: Tokens::default(),
            ended: false,
            exception: None,
            error: None,
        }
    }
}

impl Frames {
    /// Reads on. After a [`StreamError`] nothing more is read, because frame borders are lost.
    pub fn feed(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() && self.error.is_none() {
            // As nearly always: then nothing is kept, and the CRC is taken at once.
            if let Some((frame, rest)) = self.whole_frame(chunk) {
                chunk = rest;
                self.error = self.read_frame(frame).err();
                continue;
            }
            let wanted = match self.part {
                Part::Prelude => Prelude::LENGTH - self.kept.len(),
                Part::Crc => 4 - self.kept.len(),
                Part::Headers(left) | Part::Payload(left) => left as usize,
            };
            let (piece, rest) = chunk.split_at(wanted.min(chunk.len()));
            chunk = rest;
            if let Err(error) = self.advance(piece, piece.len() == wanted) {
                self.error = Some(error);
            }
        }
    }

    /// Tokens reported up to now.
    pub fn usage(&self) -> Usage {
        self.tokens.usage()
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Whether the event came that ends the stream: ConverseStream's, or the chunk with the counts of the whole call.
    pub fn has_end(&self) -> bool {
        self.ended || self.tokens.has_metrics()
    }

    /// The exception that the stream carried, as the SDKs name it.
    pub fn exception(&self) -> Option<&str> {
        self.exception.as_deref()
    }

    /// Why reading stopped.
    pub fn error(&self) -> Option<StreamError> {
        self.error
    }

    /// Whether the bytes up to now end inside a frame.
    pub fn inside_frame(&self) -> bool {
        !matches!(self.part, Part::Prelude) || !self.kept.is_empty()
    }

    /// The frame that begins here, if all of it is in this chunk, and what follows.
    fn whole_frame<'a>(&self, chunk: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        if self.inside_frame() {
            return None;
        }
        let (total, _) = chunk.split_first_chunk()?;
        let total = u32::from_be_bytes(*total);
        chunk.split_at_checked(total as usize).filter(|_| total >= OVERHEAD)
    }

    /// Reads a frame that is in one piece.
    fn read_frame(&mut self, frame: &[u8]) -> Result<(), StreamError> {
        let prelude = Prelude::read(frame.get(..Prelude::LENGTH).unwrap_or_default())?;
        let (covered, crc) = frame.split_last_chunk().ok_or(StreamError::Length)?;
        if crc32fast::hash(covered) != u32::from_be_bytes(*crc) {
            return Err(StreamError::MessageCrc);
        }
        let rest = covered.get(Prelude::LENGTH..).unwrap_or_default();
        let (headers, payload) = rest.split_at_checked(prelude.headers as usize).ok_or(StreamError::Length)?;
        self.open_payload(headers.get(..headers.len().min(MAX_HEADERS)).unwrap_or_default());
        self.read_payload(payload);
        self.take_payload();
        Ok(())
    }

    /// Takes `piece`, all of which belongs to the current part; `complete` if the part ends with it.
    fn advance(&mut self, piece: &[u8], complete: bool) -> Result<(), StreamError> {
        match self.part {
            Part::Prelude | Part::Crc => {
                let is_prelude = matches!(self.part, Part::Prelude);
                if let Some(whole) = self.whole(piece, complete) {
                    self.part = if is_prelude { self.prelude(&whole)? } else { self.close(&whole)? };
                    self.keep_room(whole);
                }
            }
            Part::Headers(left) => {
                self.crc.update(piece);
                self.part = Part::Headers(left.saturating_sub(piece.len() as u32));
                if let Some(whole) = self.whole(piece, complete) {
                    self.open_payload(&whole);
                    self.keep_room(whole);
                    self.part = self.payload_part();
                }
            }
            Part::Payload(left) => {
                self.crc.update(piece);
                self.read_payload(piece);
                self.part = if complete { Part::Crc } else { Part::Payload(left.saturating_sub(piece.len() as u32)) };
            }
        }
        Ok(())
    }

    /// The bytes of the current part, if it is complete: the piece itself, as nearly always, or what was kept with it.
    fn whole<'a>(&mut self, piece: &'a [u8], complete: bool) -> Option<Cow<'a, [u8]>> {
        let piece = piece.get(..piece.len().min(MAX_HEADERS)).unwrap_or_default();
        if complete && self.kept.is_empty() {
            return Some(Cow::Borrowed(piece));
        }
        self.kept.extend_from_slice(piece);
        self.kept.truncate(MAX_HEADERS);
        complete.then(|| Cow::Owned(std::mem::take(&mut self.kept)))
    }

    /// Keeps the room of bytes that were kept, for others.
    fn keep_room(&mut self, whole: Cow<'_, [u8]>) {
        if let Cow::Owned(mut kept) = whole {
            kept.clear();
            self.kept = kept;
        }
    }

    fn prelude(&mut self, kept: &[u8]) -> Result<Part, StreamError> {
        let prelude = Prelude::read(kept)?;
        self.crc = crc32fast::Hasher::new();
        self.crc.update(kept);
        self.payload_len = prelude.payload().unwrap_or(0);
        self.payload = Payload::Ignored;
        Ok(if prelude.headers > 0 { Part::Headers(prelude.headers) } else { self.payload_part() })
    }

    fn payload_part(&self) -> Part {
        if self.payload_len > 0 { Part::Payload(self.payload_len) } else { Part::Crc }
    }

    fn open_payload(&mut self, headers: &[u8]) {
        let (mut message, mut event, mut exception, mut code) = (None, None, None, None);
        for (name, value) in StringHeaders(headers) {
            match name {
                b":message-type" => message = Some(value),
                b":event-type" => event = Some(value),
                b":exception-type" => exception = Some(value),
                b":error-code" => code = Some(value),
                _ => {}
            }
        }
        self.payload = match (message, event) {
            (Some(b"event"), Some(b"metadata")) => Payload::Metadata(Box::default()),
            (Some(b"event"), Some(b"messageStop")) => Payload::Stop,
            (Some(b"event"), Some(b"chunk")) => Payload::Chunk(Box::default()),
            (Some(b"exception" | b"error"), _) => {
                Payload::Exception(exception_name(exception.or(code).unwrap_or(b"unknown")))
            }
            _ => Payload::Ignored,
        };
    }

    fn read_payload(&mut self, piece: &[u8]) {
        match &mut self.payload {
            Payload::Ignored | Payload::Stop | Payload::Exception(_) => {}
            Payload::Metadata(metadata) => metadata.0.feed(piece, &mut metadata.1),
            Payload::Chunk(chunk) => chunk.0.feed(piece, &mut chunk.1),
        }
    }

    fn close(&mut self, kept: &[u8]) -> Result<Part, StreamError> {
        if self.crc.clone().finalize() != word(kept) {
            return Err(StreamError::MessageCrc);
        }
        self.take_payload();
        Ok(Part::Prelude)
    }

    /// Takes what the frame says. Not before its CRC: a damaged frame says nothing.
    fn take_payload(&mut self) {
        match std::mem::take(&mut self.payload) {
            Payload::Ignored => {}
            Payload::Stop => self.ended = true,
            Payload::Metadata(metadata) => {
                self.ended = true;
                self.tokens.merge(&metadata.1);
            }
            Payload::Chunk(chunk) => self.tokens.merge(&chunk.1.tokens),
            Payload::Exception(name) => drop(self.exception.get_or_insert(name)),
        }
    }
}

impl Sink for Inner {
    fn number(&mut self, _path: &Path, _value: u64) {}

    fn string(&mut self, path: &Path, piece: &[u8]) {
        if path.is(&["bytes"]) {
            let Self { decoder, scanner, tokens } = self;
            decoder.feed(piece, |bytes| scanner.feed(bytes, tokens));
        }
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// `throttlingException` → `ThrottlingException`. Bounded, since it goes into the audit record.
fn exception_name(raw: &[u8]) -> String {
    let mut name: String = raw.iter().take(64).map(|b| char::from(*b)).filter(char::is_ascii_alphanumeric).collect();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    name
}

/// The string headers of a frame, in order; ends at the first malformed header.
struct StringHeaders<'a>(&'a [u8]);

impl<'a> Iterator for StringHeaders<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&name_len, rest) = self.0.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(name_len))?;
            let (&kind, rest) = rest.split_first()?;
            let (len, rest) = match kind {
                0 | 1 => (0, rest),
                2 => (1, rest),
                3 => (2, rest),
                4 => (4, rest),
                5 | 8 => (8, rest),
                9 => (16, rest),
                6 | 7 => {
                    let (len, rest) = rest.split_at_checked(2)?;
                    (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
                }
                _ => return None,
            };
            let (value, rest) = rest.split_at_checked(len)?;
            self.0 = rest;
            if kind == STRING {
                return Some((name, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_frame_counts_nothing() {
        let metadata = |tokens: u64| {
            let json = format!(r#"{{"usage":{{"inputTokens":{tokens},"outputTokens":{tokens}}}}}"#);
            frame(&[(":message-type", "event"), (":event-type", "metadata")], json.as_bytes())
        };
        let exception = frame(&[(":message-type", "exception"), (":exception-type", "throttlingException")], b"{}");
        for whole in [metadata(1_000_000), exception] {
            for at in Prelude::LENGTH..whole.len() {
                let mut damaged = whole.clone();
                damaged[at] ^= 1;
                let mut frames = Frames::default();
                frames.feed(&metadata(7));
                frames.feed(&damaged);
                assert_eq!((frames.usage().input, frames.exception()), (Some(7), None), "byte {at}");
                assert_eq!(frames.error(), Some(StreamError::MessageCrc), "byte {at}");
            }
            let mut frames = Frames::default();
            frames.feed(&whole[..whole.len() - 1]);
            assert_eq!((frames.usage().input, frames.exception()), (None, None), "no CRC yet");
        }
    }
}
