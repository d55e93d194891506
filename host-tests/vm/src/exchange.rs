//! A stream through a plugin, driven by a test.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::Vm;
use super::abi::{Direction, Header, Status};
use super::bytes::Bytes;
use super::effects::LocalReply;
use super::event::{Event, Outcome};
use super::fault::Fault;
use super::half::{Forwarded, View};
use super::machine::Machine;
use super::state::{Context, Property, Stream};

/// A stream: events in the order of a connection, then [`done`](Self::done).
///
/// The event methods panic with the [`Fault`] if the module traps or misuses the host; [`try_event`](Self::try_event)
/// returns it.
pub struct Exchange {
    pub(super) machine: Rc<RefCell<Machine>>,
    pub(super) id: u32,
    pub(super) filter_state: usize,
    /// An attempt in an upstream filter chain: Envoy runs no `on_log` there.
    pub(super) upstream: bool,
}

/// A header map of pairs; names become lower case.
pub fn headers<N: AsRef<str>, V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (N, V)>) -> Vec<Header> {
    pairs.into_iter().map(|(name, value)| (name.as_ref().to_ascii_lowercase(), Bytes::from(value.as_ref()))).collect()
}

/// All values of a name, in order, as text.
pub fn values(map: &[Header], wanted: &str) -> Vec<String> {
    map.iter()
        .filter(|(name, _)| name == wanted)
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .collect()
}

#[expect(clippy::panic, reason = "a test ends where its module went wrong")]
#[track_caller]
fn lived<T>(result: Result<T, Fault>) -> T {
    match result {
        Ok(value) => value,
        Err(fault) => panic!("{fault}"),
    }
}

impl Exchange {
    /// Sets a property in Envoy's encoding: text as it is, numbers as eight bytes little endian.
    #[must_use]
    pub fn property(self, path: &[&str], value: impl AsRef<[u8]>) -> Self {
        self.with_property(path, Property::Value(value.as_ref().to_vec()))
    }

    /// Makes `get_property` return this status for a path.
    #[must_use]
    pub fn property_status(self, path: &[&str], status: Status) -> Self {
        self.with_property(path, Property::Status(status))
    }

    fn with_property(self, path: &[&str], property: Property) -> Self {
        self.stream(|stream| stream.properties.insert(path.join("\0").into_bytes(), property));
        self
    }

    /// Request headers.
    #[track_caller]
    pub fn request_headers<N: AsRef<str>, V: AsRef<[u8]>>(
        &self,
        map: impl IntoIterator<Item = (N, V)>,
        end: bool,
    ) -> Outcome {
        lived(self.try_event(Event::Headers(Direction::Request, headers(map), end)))
    }

    /// A chunk of the request's body.
    #[track_caller]
    pub fn request_body(&self, chunk: impl AsRef<[u8]>, end: bool) -> Outcome {
        lived(self.try_event(Event::Body(Direction::Request, chunk.as_ref().to_vec(), end)))
    }

    /// Request trailers.
    #[track_caller]
    pub fn request_trailers<N: AsRef<str>, V: AsRef<[u8]>>(&self, map: impl IntoIterator<Item = (N, V)>) -> Outcome {
        lived(self.try_event(Event::Trailers(Direction::Request, headers(map))))
    }

    /// Response headers.
    #[track_caller]
    pub fn response_headers<N: AsRef<str>, V: AsRef<[u8]>>(
        &self,
        map: impl IntoIterator<Item = (N, V)>,
        end: bool,
    ) -> Outcome {
        lived(self.try_event(Event::Headers(Direction::Response, headers(map), end)))
    }

    /// A chunk of the response's body.
    #[track_caller]
    pub fn response_body(&self, chunk: impl AsRef<[u8]>, end: bool) -> Outcome {
        lived(self.try_event(Event::Body(Direction::Response, chunk.as_ref().to_vec(), end)))
    }

    /// Response trailers.
    #[track_caller]
    pub fn response_trailers<N: AsRef<str>, V: AsRef<[u8]>>(&self, map: impl IntoIterator<Item = (N, V)>) -> Outcome {
        lived(self.try_event(Event::Trailers(Direction::Response, headers(map))))
    }

    /// Any event.
    ///
    /// # Errors
    /// The module trapped or misused the host, or the event is out of order (headers twice, data after the end).
    pub fn try_event(&self, event: Event) -> Result<Outcome, Fault> {
        let mut machine = self.machine.borrow_mut();
        let direction = match &event {
            Event::Headers(direction, ..) | Event::Body(direction, ..) | Event::Trailers(direction, _) => *direction,
        };
        if let Some(text) = &machine.state().failed {
            return Err(Fault::Poisoned(text.clone()));
        }
        let wrong = |text: &str| Fault::Misuse { callback: "the test".to_owned(), text: format!("{text}: {event:?}") };
        let Some(stream) = machine.state().stream(self.id) else {
            return Err(wrong("after done()"));
        };
        if stream.reset || (stream.local_reply.is_some() && direction == Direction::Request) {
            // The rest of the request meets an answered stream; no callback runs.
            return Ok(machine.outcome(self.id, direction));
        }
        if stream.local_reply.is_some() {
            return Err(wrong("the module has sent a local reply"));
        }
        let half = stream.half(direction);
        let began = half.headers.view != View::Absent;
        if began == matches!(event, Event::Headers(..)) || half.ended {
            return Err(wrong("out of order"));
        }
        match event {
            Event::Headers(_, map, end) => machine.headers(self.id, direction, map, end)?,
            Event::Body(_, chunk, end) => machine.body(self.id, direction, chunk, end)?,
            Event::Trailers(_, map) => machine.trailers(self.id, direction, map)?,
        }
        Ok(machine.outcome(self.id, direction))
    }

    /// Ends the stream in Envoy's order: log (downstream streams only), done, delete.
    #[track_caller]
    pub fn done(&self) {
        lived(self.try_done());
    }

    /// As [`done`](Self::done).
    ///
    /// # Errors
    /// The module trapped or misused the host.
    pub fn try_done(&self) -> Result<(), Fault> {
        let mut machine = self.machine.borrow_mut();
        let Some(stream) = machine.state().stream(self.id) else {
            return Ok(());
        };
        if stream.created {
            if !self.upstream {
                stream.logging = true;
                machine.call::<_, ()>("proxy_on_log", self.id, self.id)?;
                if let Some(stream) = machine.state().stream(self.id) {
                    stream.logging = false;
                }
            }
            machine.call::<_, u32>("proxy_on_done", self.id, self.id)?;
            machine.call::<_, ()>("proxy_on_delete", self.id, self.id)?;
            machine.state().deferred.clear();
        }
        // Envoy cancels the calls that the stream itself has made.
        machine.state().calls.retain(|call| call.context != self.id);
        if let Some(Context::Stream(stream)) = machine.state().contexts.remove(&self.id) {
            machine.finished.insert(self.id, stream);
        }
        Ok(())
    }

    /// The request's outcome so far; a call's answer or a tick may change it.
    pub fn request_outcome(&self) -> Outcome {
        self.machine.borrow_mut().outcome(self.id, Direction::Request)
    }

    /// As [`request_outcome`](Self::request_outcome).
    pub fn response_outcome(&self) -> Outcome {
        self.machine.borrow_mut().outcome(self.id, Direction::Response)
    }

    /// The request's headers as they are now.
    pub fn request_map(&self) -> Vec<Header> {
        self.stream(|stream| stream.request.headers.entries.clone())
    }

    /// The request's trailers as they are now.
    pub fn request_trailer_map(&self) -> Vec<Header> {
        self.stream(|stream| stream.request.trailers.entries.clone())
    }

    /// The response's headers as they are now; of a local reply too.
    pub fn response_map(&self) -> Vec<Header> {
        self.stream(|stream| stream.response.headers.entries.clone())
    }

    /// The part of the request that the next filter got.
    pub fn forwarded_request(&self) -> Forwarded {
        self.stream(|stream| stream.request.forwarded.clone())
    }

    /// The part of the response that the client got.
    pub fn forwarded_response(&self) -> Forwarded {
        self.stream(|stream| stream.response.forwarded.clone())
    }

    /// The local reply.
    pub fn local_reply(&self) -> Option<LocalReply> {
        self.stream(|stream| stream.local_reply.clone())
    }

    /// All filter state of the exchange, by full name (`wasm.…`).
    pub fn filter_states(&self) -> BTreeMap<String, Vec<u8>> {
        let mut machine = self.machine.borrow_mut();
        machine.state().filter_states.get(self.filter_state).cloned().unwrap_or_default()
    }

    /// One filter state, by full name (`wasm.…`).
    pub fn filter_state(&self, name: &str) -> Option<Vec<u8>> {
        self.filter_states().remove(name)
    }

    /// The VM of this stream.
    pub fn vm(&self) -> Vm {
        Vm { machine: Rc::clone(&self.machine) }
    }

    #[expect(clippy::panic, reason = "an Exchange without a stream is a bug of this host")]
    fn stream<T>(&self, read: impl FnOnce(&mut Stream) -> T) -> T {
        match self.machine.borrow_mut().any_stream(self.id) {
            Some(stream) => read(stream),
            None => panic!("stream {} is unknown", self.id),
        }
    }
}
