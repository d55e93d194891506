//! Streams pass Envoy twice, so that a stream whose upstream breaks off ends with an exception that SDKs raise by name.
//!
//! When an upstream breaks off after its response began, Envoy resets the client's stream at once, and no filter can intervene.
//! So the gateway role sends streams to a listener inside the same Envoy, the relay, which sends them upstream. Between the two
//! is HTTP/1.0, where a response without a length ends with its connection: the reset arrives as an end there, and the gateway
//! role closes the stream with an exception ([`FrameGuard`](crate::frame_guard::FrameGuard)). Envoy answers in HTTP/1.0 if the
//! request is HTTP/1.0. Its own requests are HTTP/1.1, so [`as_http_10`] rewrites the request line.
//!
//! Both ends run in one VM, on one worker thread, and share call data in its memory. The request carries only the exchange's id.

use crate::envoy_names::{CLASS_HEADER, CLASS_PROPERTY, CLUSTER_HEADER, HANDOFF_PROPERTY, RELAY_HEADER};
use crate::headers::Headers;
use crate::reply::Refusal;
use crate::step::{Forward, RelayedCall, RequestStep};

/// The version in a request line and the end of that line (RFC 9112, section 3).
const HTTP_11: &[u8] = b" HTTP/1.1\r\n";
const HTTP_10: &[u8] = b" HTTP/1.0\r\n";
/// Longest request line: Envoy's limit for all headers.
const MAX_REQUEST_LINE: usize = 60 << 10;

/// The request as the relay sends it on. `relayed` is what the gateway role left under the id in [`RELAY_HEADER`].
pub fn pass_on(headers: &Headers, relayed: Option<&RelayedCall>) -> RequestStep {
    let Some(RelayedCall { cluster, class, handoff }) = relayed else {
        return RequestStep::Reply(Refusal::NotRelayed.reply());
    };
    let own = [RELAY_HEADER, CLUSTER_HEADER, CLASS_HEADER];
    let kept = headers.iter().filter(|(name, _)| !own.contains(name));
    let mut headers: Headers = kept.map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    headers.push(CLUSTER_HEADER, cluster.as_str());
    headers.push(CLASS_HEADER, class.as_str());
    let states = vec![(HANDOFF_PROPERTY, handoff.clone()), (CLASS_PROPERTY, class.clone().into_bytes())];
    RequestStep::Forward(Forward { headers, states, relayed: None })
}

/// What to do with the first bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// Wait for the rest of the request line.
    Wait,
    /// Replace them with these.
    Replace(Vec<u8>),
    /// Keep them: they do not begin a request of HTTP/1.1.
    Keep,
}

/// Makes a request of HTTP/1.1 one of HTTP/1.0, by its request line.
pub fn as_http_10(mut bytes: Vec<u8>) -> FirstBytes {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_REQUEST_LINE { FirstBytes::Wait } else { FirstBytes::Keep };
    };
    let start = (end + 1).saturating_sub(HTTP_11.len());
    match bytes.get_mut(start..=end) {
        Some(version) if version == HTTP_11 => version.copy_from_slice(HTTP_10),
        _ => return FirstBytes::Keep,
    }
    FirstBytes::Replace(bytes)
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
