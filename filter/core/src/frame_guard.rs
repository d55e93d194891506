//! The end of a response that came through the relay: whole frames pass, and an exception follows if the stream breaks off.

use crate::usage::eventstream::{Prelude, frame};

/// A frame is held back up to this length; Bedrock's are some kilobytes. A longer one passes as it arrives, and if it breaks off
/// the client's stream is reset.
const MAX_HELD: usize = 256 << 10;

/// Lets only whole frames of a response pass, so that an exception can follow at any time.
#[derive(Debug)]
pub struct FrameGuard {
    held: Vec<u8>,
    state: Passing,
    /// The exception of a stream that breaks off, as SDKs name it.
    exception: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Passing {
    /// Whole frames.
    Frames,
    /// Bytes left of a frame that is too long to be held.
    Long(usize),
    /// Everything: the response is not an event stream, or its frames are malformed.
    Opaque,
}

/// How a response ends.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The sender ended it: these bytes were held back.
    Complete(Vec<u8>),
    /// It broke off at the end of a frame, or in a frame of which nothing has passed: these bytes are an exception.
    Exception(Vec<u8>),
    /// It broke off inside a frame of which a part has passed: nothing can follow, and the stream must be reset.
    Reset,
}

impl FrameGuard {
    /// Guards a response; `event_stream` says whether it is an event stream, and `exception` what SDKs raise if it breaks off
    /// ([`Operation::stream_exception`](crate::operation::Operation::stream_exception)).
    pub fn new(event_stream: bool, exception: &'static str) -> Self {
        Self { held: Vec::new(), state: if event_stream { Passing::Frames } else { Passing::Opaque }, exception }
    }

    /// The exception of a stream that breaks off.
    pub fn exception(&self) -> &'static str {
        self.exception
    }

    /// Takes the next bytes and returns those that pass.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(chunk);
        let mut passed = 0;
        loop {
            let rest = self.held.get(passed..).unwrap_or_default();
            let (take, next) = match self.state {
                Passing::Opaque => (rest.len(), Passing::Opaque),
                Passing::Long(left) if left > rest.len() => (rest.len(), Passing::Long(left - rest.len())),
                Passing::Long(left) => (left, Passing::Frames),
                Passing::Frames => match frame_length(rest) {
                    Some(Ok(length)) if length <= rest.len() => (length, Passing::Frames),
                    Some(Ok(length)) if length > MAX_HELD => (0, Passing::Long(length)),
                    Some(Err(())) => (0, Passing::Opaque),
                    Some(Ok(_)) | None => break,
                },
            };
            self.state = next;
            passed += take;
            if take == rest.len() {
                break;
            }
        }
        let rest = self.held.split_off(passed);
        std::mem::replace(&mut self.held, rest)
    }

    /// Ends the response. `complete` says whether its sender ended it; otherwise the exception carries `message`.
    pub fn end(&mut self, complete: bool, message: &str) -> StreamEnd {
        let held = std::mem::take(&mut self.held);
        match self.state {
            _ if complete => StreamEnd::Complete(held),
            Passing::Frames => StreamEnd::Exception(exception(self.exception, message)),
            Passing::Long(_) | Passing::Opaque => StreamEnd::Reset,
        }
    }
}

/// The length of the frame that begins here; `None` if its prelude is incomplete.
fn frame_length(bytes: &[u8]) -> Option<Result<usize, ()>> {
    let prelude = Prelude::read(bytes.get(..Prelude::LENGTH)?);
    Some(prelude.map(|prelude| prelude.total as usize).map_err(|_| ()))
}

/// The exception that SDKs raise as `name`; in a frame it begins with a lower-case letter.
fn exception(name: &str, message: &str) -> Vec<u8> {
    let mut name = name.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    let headers =
        [(":exception-type", name.as_str()), (":content-type", "application/json"), (":message-type", "exception")];
    frame(&headers, serde_json::json!({ "message": message }).to_string().as_bytes())
}

#[cfg(test)]
#[path = "frame_guard_tests.rs"]
mod tests;
