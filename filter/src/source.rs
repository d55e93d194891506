//! A call for credentials in the upstream chain of its source's cluster: it gets its headers there, after Envoy's router.

use crate::apply::send_reply;
use crate::host::{self, HostError, SharedData};
use crate::memory::on_wiped_stack;
use filter_core::credentials::hidden_calls;
use filter_core::envoy_names::CALL_HEADER;
use filter_core::reply::Refusal;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};
use std::rc::Rc;

/// The filter in a cluster. While it is there, calls to the cluster come with a handle.
#[derive(Debug)]
pub(crate) struct Place {
    cluster: String,
    id: String,
}

impl Place {
    pub(crate) fn new(cluster: String) -> Self {
        let id = host::unique_id();
        hidden_calls::enter(&cluster, &id, &SharedData);
        Self { cluster, id }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        hidden_calls::exit(&self.cluster, &self.id, &SharedData);
    }
}

/// A call. Without headers that were left for it, it is refused.
#[derive(Debug)]
pub(crate) struct Source {
    place: Rc<Place>,
    passes: bool,
}

impl Source {
    pub(crate) fn new(place: &Rc<Place>) -> Self {
        Self { place: Rc::clone(place), passes: false }
    }

    /// Sets the headers that were left. `false`: there are none.
    fn reveal(&self) -> Result<bool, HostError> {
        let seen = host::request_headers()?;
        let Ok(Some(handle)) = seen.get_only(CALL_HEADER) else { return Ok(false) };
        let Ok(handle) = std::str::from_utf8(handle) else { return Ok(false) };
        on_wiped_stack(|| match hidden_calls::take(handle, &self.place.cluster, &SharedData) {
            Some(left) => host::set_request_headers(&left.reveal(&seen)).map(|()| true),
            None => Ok(false),
        })
    }

    fn pass(&self) -> Action {
        if self.passes { Action::Continue } else { Action::Pause }
    }
}

impl Context for Source {}

impl HttpContext for Source {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let refusal = match self.reveal() {
            Ok(true) => {
                self.passes = true;
                return Action::Continue;
            }
            Ok(false) => Refusal::ForeignCall,
            Err(error) => Refusal::Host(error.to_string()),
        };
        host::log(LogLevel::Error, &format!("cluster '{}': {refusal}", self.place.cluster));
        send_reply(&refusal.reply(), "")
    }

    fn on_http_request_body(&mut self, _: usize, _: bool) -> Action {
        self.pass()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.pass()
    }
}
