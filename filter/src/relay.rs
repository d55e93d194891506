//! The relay (`filter_core::relay`): its two places in Envoy.

use crate::apply::{apply, fail, send_reply};
use crate::host::{self, HostError};
use crate::relay_state;
use filter_core::envoy_names::RELAY_HEADER;
use filter_core::exchange::changes_protocol;
use filter_core::relay::{self, FirstBytes};
use filter_core::reply::Refusal;
use proxy_wasm::traits::{Context, HttpContext, StreamContext};
use proxy_wasm::types::{Action, LogLevel};

/// A call in the relay's HTTP chain.
#[derive(Debug, Default)]
pub(crate) struct RelayHttp {
    id: String,
}

impl RelayHttp {
    fn pass_on(&mut self) -> Result<Action, HostError> {
        let headers = host::request_headers()?;
        self.id = headers.get_str(RELAY_HEADER).unwrap_or_default().to_owned();
        let call = relay_state::take(&self.id);
        if call.is_none() {
            // A client may leave while its call is on its way here.
            let level = if relay_state::has_left(&self.id) { LogLevel::Debug } else { LogLevel::Error };
            host::log(level, &Refusal::NotRelayed.to_string());
        }
        apply(relay::pass_on(&headers, call.as_ref()), &self.id)
    }

    fn note_end(&self, end_of_stream: bool) {
        if end_of_stream {
            relay_state::update(&self.id, |progress| progress.complete = true);
        }
    }
}

impl Context for RelayHttp {}

impl HttpContext for RelayHttp {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.pass_on().unwrap_or_else(|error| fail(error, &self.id))
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        // The gateway role's side of the relay is HTTP/1.0 and would wait for what follows.
        if host::response_headers().is_ok_and(|headers| changes_protocol(&headers)) {
            return send_reply(&Refusal::SwitchedProtocols.reply(), &self.id);
        }
        relay_state::update(&self.id, |progress| progress.answered = true);
        self.note_end(end_of_stream);
        Action::Continue
    }

    fn on_http_response_body(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.note_end(end_of_stream);
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.note_end(true);
        Action::Continue
    }
}

/// A connection from the gateway role to the relay.
#[derive(Debug, Default)]
pub(crate) struct RelayConnection {
    /// Whether its first request line has passed.
    begun: bool,
}

impl RelayConnection {
    fn begin(&mut self, size: usize) -> Result<Action, HostError> {
        match relay::as_http_10(host::connection_data(size)?) {
            FirstBytes::Wait => return Ok(Action::Pause),
            FirstBytes::Replace(bytes) => host::replace_connection_data(&bytes)?,
            FirstBytes::Keep => {}
        }
        self.begun = true;
        Ok(Action::Continue)
    }
}

impl Context for RelayConnection {}

impl StreamContext for RelayConnection {
    fn on_downstream_data(&mut self, size: usize, _: bool) -> Action {
        if self.begun {
            return Action::Continue;
        }
        // An unchanged request is served too; only the end of a broken stream differs.
        self.begin(size).unwrap_or_else(|error| {
            host::log(LogLevel::Error, &format!("a stream that breaks off will end without an exception: {error}"));
            self.begun = true;
            Action::Continue
        })
    }
}
