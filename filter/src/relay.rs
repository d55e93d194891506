//! The relay (`filter_core::relay`): its two places in Envoy, and what the gateway role and it tell one another.
//!
//! Contexts of one VM share nothing by themselves but its memory, so that is where [`Journey`]s are: one for each call on its way
//! through the relay, gone with the gateway role's stream.

use crate::exchange::{answer, carry_out};
use crate::host::{self, HostError};
use filter_core::relay::{self, FirstBytes, RELAY_HEADER, Relayed};
use filter_core::reply::Refusal;
use proxy_wasm::traits::{Context, HttpContext, StreamContext};
use proxy_wasm::types::{Action, LogLevel};
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    static JOURNEYS: RefCell<HashMap<String, Journey>> = RefCell::default();
}

/// A call on its way through the relay.
#[derive(Debug, Default)]
struct Journey {
    sent: Option<Relayed>,
    reached: Reached,
}

/// What became of it.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// What the signer says of its last attempt: a filter state of the relay's stream.
    pub attempt: Option<Vec<u8>>,
    /// The path of that attempt.
    pub path: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// Tries, that one included.
    pub attempts: u64,
    /// Whether a response came.
    pub answered: bool,
    /// Whether it ended as its sender meant.
    pub whole: bool,
}

impl Reached {
    /// As the audit record has it.
    pub fn facts(&self) -> audit::Relayed {
        audit::Relayed { path: self.path.clone(), attempts: u32::try_from(self.attempts).unwrap_or(u32::MAX) }
    }
}

/// Leaves what the relay is to find.
pub fn send(id: &str, relayed: Relayed) {
    let journey = Journey { sent: Some(relayed), reached: Reached::default() };
    JOURNEYS.with_borrow_mut(|journeys| journeys.insert(id.to_owned(), journey));
}

/// What became of a call so far.
pub fn reached(id: &str) -> Reached {
    JOURNEYS.with_borrow(|journeys| journeys.get(id).map(|journey| journey.reached.clone())).unwrap_or_default()
}

/// Adds to what became of a call. One whose client has left is forgotten already.
pub fn note(id: &str, note: impl FnOnce(&mut Reached)) {
    JOURNEYS.with_borrow_mut(|journeys| {
        if let Some(journey) = journeys.get_mut(id) {
            note(&mut journey.reached);
        }
    });
}

/// Forgets a call.
pub fn forget(id: &str) {
    JOURNEYS.with_borrow_mut(|journeys| journeys.remove(id));
}

/// A call in the relay's HTTP chain.
#[derive(Debug, Default)]
pub struct Passage {
    id: String,
}

impl Passage {
    fn pass_on(&mut self) -> Result<Action, HostError> {
        let headers = host::request_headers()?;
        self.id = headers.get_str(RELAY_HEADER).unwrap_or_default().to_owned();
        // Once: a call is one request.
        let sent = JOURNEYS.with_borrow_mut(|journeys| journeys.get_mut(&self.id)?.sent.take());
        if sent.is_none() {
            host::log(LogLevel::Error, &Refusal::NotRelayed.to_string());
        }
        carry_out(relay::pass_on(&headers, sent.as_ref()), &self.id)
    }

    fn ended(&self, end_of_stream: bool) {
        if end_of_stream {
            note(&self.id, |reached| reached.whole = true);
        }
    }
}

impl Context for Passage {}

impl HttpContext for Passage {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.pass_on().unwrap_or_else(|error| answer(&Refusal::Host(error.to_string()).reply(), &self.id))
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        note(&self.id, |reached| reached.answered = true);
        self.ended(end_of_stream);
        Action::Continue
    }

    fn on_http_response_body(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.ended(end_of_stream);
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.ended(true);
        Action::Continue
    }
}

/// A connection from the gateway role to the relay.
#[derive(Debug, Default)]
pub struct Connection {
    begun: bool,
}

impl Connection {
    fn begin(&mut self, size: usize) -> Result<Action, HostError> {
        match relay::as_http_10(host::connection_data(size)?) {
            FirstBytes::Wait => return Ok(Action::Pause),
            FirstBytes::Replaced(bytes) => host::replace_connection_data(&bytes)?,
            FirstBytes::Kept => {}
        }
        self.begun = true;
        Ok(Action::Continue)
    }
}

impl Context for Connection {}

impl StreamContext for Connection {
    fn on_downstream_data(&mut self, size: usize, _: bool) -> Action {
        if self.begun {
            return Action::Continue;
        }
        // As it is, the request is served too; only a stream that breaks off ends another way.
        self.begin(size).unwrap_or_else(|error| {
            host::log(LogLevel::Error, &format!("a stream will break off without an exception: {error}"));
            self.begun = true;
            Action::Continue
        })
    }
}
