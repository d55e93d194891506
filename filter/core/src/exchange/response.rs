//! The response of an exchange: usage is read as it passes, and a relayed stream's end is checked.

use super::{Exchange, Relay, State, held};
use crate::frame_guard::{FrameGuard, StreamEnd};
use crate::headers::Headers;
use crate::operation::Operation;
use crate::reply::{Refusal, restored};
use crate::step::{ResponseBodyMode, ResponseEvent, ResponseStep};
use crate::usage::Meter;
use std::time::SystemTime;

/// 101 Switching Protocols (RFC 9110, section 15.2.2).
const SWITCHING_PROTOCOLS: &[u8] = b"101";
/// Longest request id of Bedrock's that is kept.
const MAX_REQUEST_ID: usize = 64;
/// What the client of a stream is told if it ends early.
const BROKEN_OFF: &str = "The connection to Amazon Bedrock broke off before the stream was complete.";

impl Exchange {
    /// Takes an event of the response. `now` is the wall clock.
    pub fn on_response(&mut self, event: ResponseEvent<'_>, now: SystemTime) -> ResponseStep {
        match event {
            ResponseEvent::Headers { headers, relayed } => {
                self.times.response = Some(now);
                self.response_headers(headers, relayed)
            }
            ResponseEvent::Body { chunk } => self.response_body(chunk),
            ResponseEvent::End { complete } => self.response_end(complete),
            ResponseEvent::Whole(response) => self.edit_response(response, now),
        }
    }

    /// The headers of a reply that Envoy turned into gRPC's form, as they were meant. `envoys_status` asks for the status
    /// of a reply of Envoy's own.
    pub fn restored(&self, headers: &Headers, envoys_status: impl FnOnce() -> Option<u16>) -> Option<Headers> {
        // No gRPC call is forwarded, so the response is a reply of the gateway's or Envoy's own.
        let own = self.translated || self.reply_status.is_some();
        own.then(|| restored(headers, self.reply_status.or_else(envoys_status)))?
    }

    /// How the response's body is handled from now on.
    pub fn response_body_mode(&self) -> ResponseBodyMode {
        match self.relay {
            Relay::Streaming(_) => ResponseBodyMode::Rewrite,
            Relay::Unused | Relay::Requested if self.edit.is_some() => ResponseBodyMode::Hold,
            Relay::Unused | Relay::Requested if self.meter.wants_body() => ResponseBodyMode::Observe,
            Relay::Unused | Relay::Requested => ResponseBodyMode::Ignore,
        }
    }

    fn response_headers(&mut self, headers: &Headers, relayed: bool) -> ResponseStep {
        // The filter's own reply comes back through here too.
        if matches!(self.state, State::Refused) {
            self.edit = None;
            return ResponseStep::Continue;
        }
        let status = held::status_of(headers);
        if changes_protocol(headers) {
            return self.refuse_response(&Refusal::SwitchedProtocols);
        }
        self.edit = self.edit.take().filter(|edit| edit.applies(status));
        self.facts.upstream_id = headers.get_str("x-amzn-requestid").filter(|id| is_id(id)).map(str::to_owned);
        if status >= 400 {
            self.facts.error = headers.get_str("x-amzn-errortype").and_then(error_type);
        }
        if let Some(operation) = self.operation {
            self.meter = Meter::start(operation.metering(), status, headers, self.traced);
        }
        if relayed {
            let exception = self.operation.map_or("ServiceUnavailableException", Operation::stream_exception);
            self.relay = Relay::Streaming(FrameGuard::new(self.meter.reads_event_stream(), exception));
        }
        ResponseStep::Continue
    }

    fn response_body(&mut self, chunk: &[u8]) -> ResponseStep {
        let Relay::Streaming(guard) = &mut self.relay else {
            self.meter.feed(chunk);
            return self.hold(chunk.len());
        };
        let passed = guard.feed(chunk);
        self.meter.feed(&passed);
        ResponseStep::Replace(passed)
    }

    /// Replies something else than the response, of which nothing has passed.
    pub(super) fn refuse_response(&mut self, refusal: &Refusal) -> ResponseStep {
        let reply = self.reply(refusal);
        self.facts.error = Some(reply.error.to_owned());
        self.edit = None;
        self.state = State::Refused;
        ResponseStep::Reply(reply)
    }

    fn response_end(&mut self, complete: bool) -> ResponseStep {
        let Relay::Streaming(guard) = &mut self.relay else { return ResponseStep::Continue };
        let name = guard.exception();
        match guard.end(complete, BROKEN_OFF) {
            StreamEnd::Complete(last) => {
                self.meter.feed(&last);
                ResponseStep::Replace(last)
            }
            StreamEnd::Exception(exception) => {
                self.facts.error.get_or_insert_with(|| name.to_owned());
                ResponseStep::Replace(exception)
            }
            StreamEnd::Reset => {
                self.facts.error.get_or_insert_with(|| "StreamBrokenOff".to_owned());
                ResponseStep::Reset
            }
        }
    }
}

/// Whether a response asks to go on in another protocol. Envoy would carry bytes both ways from there on, and such a response
/// has no end.
pub fn changes_protocol(headers: &Headers) -> bool {
    headers.get(":status") == Some(SWITCHING_PROTOCOLS)
}

fn is_id(text: &str) -> bool {
    (1..=MAX_REQUEST_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// `ThrottlingException:http://…` → `ThrottlingException`.
fn error_type(value: &str) -> Option<String> {
    let name = value.split(':').next().unwrap_or_default();
    let name = name.rsplit('#').next().unwrap_or_default().trim();
    ((1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| name.to_owned())
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
