//! The response of a stream of the downstream chain: it passes, is rewritten, or is held and edited.

use super::{CHUNK, Downstream, REQUEST_ID};
use crate::apply::{reset_response, send_reply, send_response};
use crate::buffered;
use crate::host::{self, HostError};
use crate::relay_state;
use filter_core::envoy_names::ENDPOINT_REGION;
use filter_core::step::{ResponseBodyMode, ResponseEvent, ResponseStep, WholeResponse};
use proxy_wasm::types::{Action, LogLevel};

impl Downstream {
    pub(super) fn read_response_headers(&self, end_of_stream: bool) -> Result<Action, HostError> {
        let mut headers = host::response_headers()?;
        let restored = self.exchange().restored(&headers, host::response_code);
        if let Some(restored) = restored {
            host::set_response_headers(&restored)?;
            headers = restored;
        }
        // Envoy's own responses lack the id.
        if headers.get(REQUEST_ID).is_none()
            && let Err(error) = host::add_response_header(REQUEST_ID, self.exchange().request_id())
        {
            host::log(LogLevel::Error, &format!("a response leaves without its id: {error}"));
        }
        let mut exchange = self.exchange();
        let relayed = exchange.is_relayed() && relay_state::progress(exchange.request_id()).answered;
        let step = exchange.on_response(ResponseEvent::Headers { headers: &headers, relayed }, host::now()?);
        if let ResponseStep::Reply(reply) = step {
            return Ok(send_reply(&reply, exchange.request_id()));
        }
        if exchange.response_body_mode() != ResponseBodyMode::Hold {
            return Ok(Action::Continue);
        }
        drop(exchange);
        if end_of_stream { self.edit_response() } else { Ok(Action::Pause) }
    }

    /// Shows the exchange the body, as long as it looks.
    pub(super) fn observe_response(&self, body_size: usize) -> Result<(), HostError> {
        let mut start = 0;
        while start < body_size && self.exchange().response_body_mode() == ResponseBodyMode::Observe {
            let chunk = host::response_body(start, (body_size - start).min(CHUNK))?;
            if chunk.is_empty() {
                return Err(HostError::SHORT_BODY);
            }
            start += chunk.len();
            self.exchange().on_response(ResponseEvent::Body { chunk: &chunk }, host::now()?);
        }
        Ok(())
    }

    /// Holds this part of the body, and edits the response at its end.
    pub(super) fn hold_response(&mut self, body_size: usize, end_of_stream: bool) -> Result<Action, HostError> {
        while self.held < body_size {
            let chunk = host::response_body(self.held, (body_size - self.held).min(CHUNK))?;
            if chunk.is_empty() {
                return Err(HostError::SHORT_BODY);
            }
            self.held += chunk.len();
            buffered::grow(self.context, self.call.as_ref(), chunk.len());
            let mut exchange = self.exchange();
            let step = exchange.on_response(ResponseEvent::Body { chunk: &chunk }, host::now()?);
            if let ResponseStep::Reply(reply) = step {
                return Ok(send_reply(&reply, exchange.request_id()));
            }
        }
        if end_of_stream { self.edit_response() } else { Ok(Action::Pause) }
    }

    /// Lets the exchange edit the whole response, which takes that much of the VM's memory for this callback.
    pub(super) fn edit_response(&self) -> Result<Action, HostError> {
        let Some(plugin) = &self.call.plugin else { return Ok(reset_response()) };
        let mut body = Vec::with_capacity(self.held);
        while body.len() < self.held {
            let chunk = host::response_body(body.len(), self.held - body.len())?;
            if chunk.is_empty() {
                return Err(HostError::SHORT_BODY);
            }
            body.extend(chunk);
        }
        let headers = host::response_headers()?;
        let region = host::property(ENDPOINT_REGION).and_then(|region| String::from_utf8(region).ok());
        let response =
            WholeResponse { headers: &headers, body: &body, region: region.as_deref(), policy: &plugin.policy };
        let mut exchange = self.exchange();
        match exchange.on_response(ResponseEvent::Whole(response), host::now()?) {
            ResponseStep::Continue => Ok(Action::Continue),
            // Envoy takes no body for a response that came without one.
            ResponseStep::Edit { headers, body } if self.held == 0 => Ok(send_response(&headers, &body)),
            ResponseStep::Edit { headers, body } => {
                host::replace_response_body(&body)?;
                host::set_response_headers(&headers)?;
                Ok(Action::Continue)
            }
            ResponseStep::Reply(reply) => Ok(send_reply(&reply, exchange.request_id())),
            ResponseStep::Replace(_) | ResponseStep::Reset => Ok(reset_response()),
        }
    }

    /// The response must not pass as it is: part of it may be hidden from this caller.
    pub(super) fn fail_held(error: HostError) -> Action {
        host::log(LogLevel::Error, &format!("a response that has to be edited is reset: {error}"));
        reset_response()
    }

    /// Replaces this part of the body by what may pass of it, and completes the end.
    pub(super) fn rewrite_response(&self, body_size: usize, end_of_stream: bool) -> Result<Action, HostError> {
        let (mut passed, mut start) = (Vec::new(), 0);
        while start < body_size {
            let chunk = host::response_body(start, (body_size - start).min(CHUNK))?;
            if chunk.is_empty() {
                return Err(HostError::SHORT_BODY);
            }
            start += chunk.len();
            let Some(bytes) = self.rewritten(ResponseEvent::Body { chunk: &chunk })? else {
                return Ok(reset_response());
            };
            if passed.is_empty() { passed = bytes } else { passed.extend(bytes) }
        }
        if end_of_stream {
            let complete = relay_state::progress(self.exchange().request_id()).complete;
            let Some(bytes) = self.rewritten(ResponseEvent::End { complete })? else { return Ok(reset_response()) };
            passed.extend(bytes);
        }
        host::replace_response_body(&passed)?;
        Ok(Action::Continue)
    }

    /// The bytes that pass; `None`: the stream must be reset.
    fn rewritten(&self, event: ResponseEvent<'_>) -> Result<Option<Vec<u8>>, HostError> {
        match self.exchange().on_response(event, host::now()?) {
            ResponseStep::Replace(bytes) => Ok(Some(bytes)),
            ResponseStep::Continue | ResponseStep::Edit { .. } | ResponseStep::Reply(_) | ResponseStep::Reset => {
                Ok(None)
            }
        }
    }
}
