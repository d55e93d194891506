//! Streams that go through Envoy twice, so that one that breaks off ends as a stream: with an exception that SDKs raise by name.
//!
//! When an upstream breaks off after its response began, Envoy resets the client's stream at once, and no filter has a say. So
//! the gateway role sends streams to a listener inside the same Envoy (role `relay`), and that sends them upstream. Between the
//! two is HTTP/1.0, where a response without a length ends when its connection does: what is a reset there is an end here, and
//! the gateway role closes the stream by an exception ([`Tail`]). HTTP/1.0 is Envoy's answer to a request of that version;
//! Envoy's own requests are HTTP/1.1, and [`as_http_10`] changes that on their way.
//!
//! Both ends are in one VM, on one worker thread. What they tell one another never leaves it: the request carries no more than
//! the exchange's id.

use crate::exchange::{CLASS_HEADER, CLASS_PROPERTY, CLUSTER_HEADER, Forward, HANDOFF_PROPERTY, Step};
use crate::headers::Headers;
use crate::reply::Refusal;
use crate::usage::eventstream::{Prelude, frame};

/// The header by which the relay knows the exchange. Clients cannot set it.
pub const RELAY_HEADER: &str = "x-bedrock-gateway-relay";
/// What is held back of a frame until it is whole: Bedrock's are some kilobytes. A longer one passes as it comes, and if it is cut
/// the client's connection is too.
const MAX_HELD: usize = 256 << 10;
/// The version in a request line and the end of that line (RFC 9112, section 3).
const HTTP_11: &[u8] = b" HTTP/1.1\r\n";
const HTTP_10: &[u8] = b" HTTP/1.0\r\n";
/// Where a request line has ended, at the latest: Envoy's limit for all headers.
const MAX_REQUEST_LINE: usize = 60 << 10;

/// What the gateway role leaves for the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// The cluster that the call goes to.
    pub cluster: String,
    /// Its route class.
    pub class: String,
    /// What the signer needs.
    pub handoff: Vec<u8>,
}

/// The request as the relay sends it on. `relayed` is what the gateway role left under the id in [`RELAY_HEADER`].
pub fn pass_on(headers: &Headers, relayed: Option<&Relayed>) -> Step {
    let Some(Relayed { cluster, class, handoff }) = relayed else {
        return Step::Reply(Refusal::NotRelayed.reply());
    };
    let own = [RELAY_HEADER, CLUSTER_HEADER, CLASS_HEADER];
    let kept = headers.iter().filter(|(name, _)| !own.contains(name));
    let mut headers: Headers = kept.map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    headers.push(CLUSTER_HEADER, cluster.as_str());
    headers.push(CLASS_HEADER, class.as_str());
    let states = vec![(HANDOFF_PROPERTY, handoff.clone()), (CLASS_PROPERTY, class.clone().into_bytes())];
    Step::Forward(Forward { headers, states, relayed: None })
}

/// The first bytes of a connection, or what is to be done with them.
#[derive(Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// The request line is not whole yet.
    Wait,
    /// These stand in their place.
    Replaced(Vec<u8>),
    /// They begin no request of HTTP/1.1: they stay as they are.
    Kept,
}

/// Makes a request of HTTP/1.1 one of HTTP/1.0, by its request line.
pub fn as_http_10(mut bytes: Vec<u8>) -> FirstBytes {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_REQUEST_LINE { FirstBytes::Wait } else { FirstBytes::Kept };
    };
    let start = (end + 1).saturating_sub(HTTP_11.len());
    match bytes.get_mut(start..=end) {
        Some(version) if version == HTTP_11 => version.copy_from_slice(HTTP_10),
        _ => return FirstBytes::Kept,
    }
    FirstBytes::Replaced(bytes)
}

/// The end of a response that came through the relay, watched: only whole frames pass, so that an exception can follow.
#[derive(Debug)]
pub struct Tail {
    held: Vec<u8>,
    state: Passing,
}

#[derive(Debug, Clone, Copy)]
enum Passing {
    /// Whole frames.
    Frames,
    /// Bytes left of a frame that is too long to be held.
    Long(usize),
    /// What is no event stream, or none any more.
    Opaque,
}

/// How a response ends.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// With these bytes, which were held back.
    Whole(Vec<u8>),
    /// It broke off between two frames, or in one of which nothing has passed: with these bytes, an exception.
    Told(Vec<u8>),
    /// It broke off in the middle of what has passed: nothing can follow, and the client's stream is to be cut.
    Torn,
}

impl Tail {
    /// Watches a response; `event_stream` says whether it is one.
    pub fn new(event_stream: bool) -> Self {
        Self { held: Vec::new(), state: if event_stream { Passing::Frames } else { Passing::Opaque } }
    }

    /// Takes the next bytes; gives those that pass.
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

    /// The response is over; `whole` says whether its sender ended it. Otherwise `message` is what the client is told.
    pub fn end(&mut self, whole: bool, message: &str) -> Ending {
        let held = std::mem::take(&mut self.held);
        match self.state {
            _ if whole => Ending::Whole(held),
            Passing::Frames => Ending::Told(exception(message)),
            Passing::Long(_) | Passing::Opaque => Ending::Torn,
        }
    }
}

/// The length of the frame that begins here; `None`, its prelude is not whole.
fn frame_length(bytes: &[u8]) -> Option<Result<usize, ()>> {
    let prelude = Prelude::read(bytes.get(..Prelude::LENGTH)?);
    Some(prelude.map(|prelude| prelude.total as usize).map_err(|_| ()))
}

/// The exception that SDKs raise as `ServiceUnavailableException`: ConverseStream's and InvokeModelWithResponseStream's models both
/// have it.
fn exception(message: &str) -> Vec<u8> {
    let headers = [
        (":exception-type", "serviceUnavailableException"),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ];
    frame(&headers, serde_json::json!({ "message": message }).to_string().as_bytes())
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
