//! Runs callbacks, and then acts as Envoy's filter manager does.

use wasmtime::{Instance, Store, WasmParams, WasmResults};

use super::abi::{Direction, Header};
use super::bytes::Bytes;
use super::effects::LocalReply;
use super::event::Outcome;
use super::fault::{Fault, Misuse};
use super::half::{Pause, View};
use super::state::{Context, Deferred, State, Stream};

/// The lowest log level whose lines a trap's text includes: a Rust panic logs its message.
const ERROR: u32 = 4;

pub(super) struct Machine {
    pub(super) store: Store<State>,
    pub(super) instance: Instance,
    /// Streams that ended, for tests to read.
    pub(super) finished: std::collections::BTreeMap<u32, Box<Stream>>,
    /// Seconds that a callback may take.
    pub(super) callback_limit: u64,
}

impl Machine {
    pub(super) fn state(&mut self) -> &mut State {
        self.store.data_mut()
    }

    pub(super) fn new_context(&mut self, context: Context) -> u32 {
        let state = self.state();
        state.next_context += 1;
        let id = state.next_context;
        state.contexts.insert(id, context);
        id
    }

    /// A stream under way or one that ended.
    pub(super) fn any_stream(&mut self, id: u32) -> Option<&mut Stream> {
        if let Some(Context::Stream(stream)) = self.store.data_mut().contexts.get_mut(&id) {
            return Some(stream);
        }
        self.finished.get_mut(&id).map(|stream| &mut **stream)
    }

    /// Runs an export in a context; `None` if the module has no such export, which in Envoy means Continue.
    pub(super) fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &'static str,
        context: u32,
        parameters: P,
    ) -> Result<Option<R>, Fault> {
        if let Some(text) = &self.store.data().failed {
            return Err(Fault::Poisoned(text.clone()));
        }
        let Some(function) = self.instance.get_func(&mut self.store, name) else {
            return Ok(None);
        };
        let function = match function.typed::<P, R>(&self.store) {
            Ok(function) => function,
            Err(error) => {
                return Err(self.fail(Fault::Misuse { callback: name.into(), text: format!("{error:#}") }));
            }
        };
        let logged = {
            let state = self.state();
            state.callback = name;
            state.current = context;
            state.effective = None;
            state.logs.len()
        };
        self.store.set_epoch_deadline(self.callback_limit + 1);
        let result = function.call(&mut self.store, parameters);
        let state = self.state();
        state.log_written();
        state.callback = "";
        state.current = 0;
        state.effective = None;
        let error = match result {
            Ok(result) => return Ok(Some(result)),
            Err(error) => error,
        };
        let fault = match error.downcast_ref::<Misuse>() {
            Some(Misuse(text)) => Fault::Misuse { callback: name.into(), text: text.clone() },
            None => {
                let mut text = format!("{error:#}");
                for line in state.logs.iter().skip(logged).filter(|line| line.level >= ERROR) {
                    text.push_str("\nit logged: ");
                    text.push_str(&line.text);
                }
                Fault::Trap { callback: name.into(), text }
            }
        };
        Err(self.fail(fault))
    }

    /// Poisons the VM.
    fn fail(&mut self, fault: Fault) -> Fault {
        let state = self.state();
        state.deferred.clear();
        state.failed = Some(fault.to_string());
        fault
    }

    fn misuse(&mut self, callback: &str, text: impl Into<String>) -> Fault {
        self.fail(Fault::Misuse { callback: callback.to_owned(), text: text.into() })
    }

    /// The half of a stream that is known to exist.
    fn half(&mut self, id: u32, direction: Direction) -> Result<&mut super::half::Half, Fault> {
        if self.store.data_mut().stream(id).is_none() {
            return Err(self.misuse("the test", format!("stream {id} has ended")));
        }
        match self.store.data_mut().stream(id) {
            Some(stream) => Ok(stream.half(direction)),
            None => Err(Fault::Poisoned(format!("stream {id} has ended"))),
        }
    }

    /// The stream gets no more callbacks in this direction: it was answered or reset.
    fn over(&mut self, id: u32) -> bool {
        let state = self.state();
        let pending = state
            .deferred
            .iter()
            .any(|action| matches!(action, Deferred::Reply(to, _) | Deferred::Reset(to) if *to == id));
        pending || state.stream(id).is_none_or(|stream| stream.reset)
    }

    /// Whether a callback returned Pause.
    fn pauses(&mut self, callback: &'static str, action: Option<u32>) -> Result<bool, Fault> {
        match action {
            None | Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(other) => Err(self.misuse(callback, format!("{other} is neither Continue nor Pause"))),
        }
    }

    pub(super) fn outcome(&mut self, id: u32, direction: Direction) -> Outcome {
        let Some(stream) = self.any_stream(id) else {
            return Outcome::Reset;
        };
        if stream.reset {
            Outcome::Reset
        } else if stream.local_reply.is_some() {
            Outcome::LocalReply
        } else if stream.half(direction).pause == Pause::Flowing {
            Outcome::Continue
        } else {
            Outcome::Paused
        }
    }

    pub(super) fn headers(&mut self, id: u32, direction: Direction, map: Vec<Header>, end: bool) -> Result<(), Fault> {
        let callback = match direction {
            Direction::Request => "proxy_on_request_headers",
            Direction::Response => "proxy_on_response_headers",
        };
        if let Some(stream) = self.state().stream(id)
            && !stream.created
        {
            stream.created = true;
            let root = stream.root;
            self.call::<_, ()>("proxy_on_context_create", id, (id, root))?;
        }
        let count = u32::try_from(map.len()).unwrap_or(u32::MAX);
        let half = self.half(id, direction)?;
        half.headers.arrive(map);
        half.ended = end;
        let action = self.call::<_, u32>(callback, id, (id, count, u32::from(end)))?;
        let pauses = self.pauses(callback, action)?;
        let over = self.over(id);
        let allowed = self.stop_iteration(id);
        let half = self.half(id, direction)?;
        if over {
            half.pause = Pause::All;
        } else if pauses {
            half.pause = if allowed { Pause::Iteration } else { Pause::All };
        } else {
            half.headers.view = View::Gone;
            half.forwarded.headers = true;
            half.forwarded.end = end;
        }
        self.settle()
    }

    pub(super) fn body(&mut self, id: u32, direction: Direction, chunk: Vec<u8>, end: bool) -> Result<(), Fault> {
        let callback = match direction {
            Direction::Request => "proxy_on_request_body",
            Direction::Response => "proxy_on_response_body",
        };
        let limit = self.buffer_limit(id);
        let half = self.half(id, direction)?;
        half.ended = end;
        if half.pause == Pause::All {
            half.held.get_or_insert_default().extend(chunk);
            return Ok(());
        }
        let buffered = half.buffer.is_some();
        let visible = match half.buffer.take() {
            Some(mut buffer) => {
                buffer.extend(chunk);
                buffer
            }
            None => chunk,
        };
        let size = visible.len();
        half.visible = Some(visible);
        if buffered && limit.is_some_and(|limit| size > limit) {
            // Envoy's reply when the buffer is over its limit.
            let (status, details) = match direction {
                Direction::Request => (413, "request_payload_too_large"),
                Direction::Response => (500, "response_payload_too_large"),
            };
            half.pause = Pause::All;
            half.visible = None;
            let reply = LocalReply { status, headers: Vec::new(), body: Bytes::default(), details: details.to_owned() };
            self.state().deferred.push(Deferred::Reply(id, reply));
            return self.settle();
        }
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let action = self.call::<_, u32>(callback, id, (id, size, u32::from(end)))?;
        let pauses = self.pauses(callback, action)?;
        let over = self.over(id);
        let half = self.half(id, direction)?;
        if over {
            half.visible = None;
            half.pause = Pause::All;
        } else if pauses {
            half.buffer = half.visible.take();
            half.pause = Pause::Iteration;
        } else {
            half.send_all();
        }
        self.settle()
    }

    pub(super) fn trailers(&mut self, id: u32, direction: Direction, map: Vec<Header>) -> Result<(), Fault> {
        let callback = match direction {
            Direction::Request => "proxy_on_request_trailers",
            Direction::Response => "proxy_on_response_trailers",
        };
        let half = self.half(id, direction)?;
        half.ended = true;
        if half.pause == Pause::All {
            half.held_trailers = Some(map);
            return Ok(());
        }
        let count = u32::try_from(map.len()).unwrap_or(u32::MAX);
        half.trailers.arrive(map);
        let action = self.call::<_, u32>(callback, id, (id, count))?;
        let pauses = self.pauses(callback, action)?;
        let over = self.over(id);
        let half = self.half(id, direction)?;
        if over {
            half.pause = Pause::All;
        } else if pauses {
            half.pause = Pause::Iteration;
        } else {
            half.send_all();
            half.trailers.view = View::Gone;
        }
        self.settle()
    }

    /// Carries out the deferred actions of the last callback in order. They may run further callbacks.
    pub(super) fn settle(&mut self) -> Result<(), Fault> {
        for action in std::mem::take(&mut self.state().deferred) {
            match action {
                Deferred::Resume(id, direction) => self.resume(id, direction)?,
                Deferred::Reply(id, reply) => self.reply(id, reply)?,
                Deferred::Reset(id) => {
                    if let Some(stream) = self.state().stream(id) {
                        stream.reset = true;
                    }
                }
            }
        }
        Ok(())
    }

    fn resume(&mut self, id: u32, direction: Direction) -> Result<(), Fault> {
        if self.over(id) || self.state().stream(id).is_some_and(|stream| stream.local_reply.is_some()) {
            return Ok(());
        }
        let half = self.half(id, direction)?;
        match half.pause {
            Pause::Flowing => Err(self
                .misuse("proxy_continue_stream", format!("the {direction:?} is not paused: it would be sent twice"))),
            Pause::Iteration => {
                half.send_all();
                if direction == Direction::Request {
                    // Envoy drops its pointers to the request's maps here, and not to the response's.
                    half.headers.view = View::Gone;
                    if half.trailers.view != View::Absent {
                        half.trailers.view = View::Gone;
                    }
                }
                Ok(())
            }
            Pause::All => {
                let (held, trailers) = (half.held.take(), half.held_trailers.take());
                half.pause = Pause::Flowing;
                half.headers.view = View::Gone;
                half.forwarded.headers = true;
                let end = half.ended && trailers.is_none();
                match held {
                    Some(held) => self.body(id, direction, held, end)?,
                    None => half.forwarded.end = end,
                }
                match trailers {
                    Some(trailers) => self.trailers(id, direction, trailers),
                    None => Ok(()),
                }
            }
        }
    }

    /// A local reply runs the filter's own response callbacks, as any response does.
    fn reply(&mut self, id: u32, reply: LocalReply) -> Result<(), Fault> {
        let map = reply_map(&reply);
        let Some(stream) = self.state().stream(id) else {
            return Ok(());
        };
        stream.request.pause = Pause::All;
        let response = &mut stream.response;
        let body = reply.body.to_vec();
        match (response.headers.view, response.forwarded.headers) {
            (View::Absent, _) => {
                stream.local_reply = Some(reply);
                self.headers(id, Direction::Response, map, body.is_empty())?;
                if !body.is_empty() && !self.over(id) {
                    self.body(id, Direction::Response, body, true)?;
                }
                Ok(())
            }
            (_, false) => {
                response.headers.entries = map;
                response.headers.view = View::Gone;
                stream.local_reply = Some(reply);
                Ok(())
            }
            (_, true) => Err(self
                .misuse("proxy_send_local_response", "the response's headers were sent: Envoy would reset the stream")),
        }
    }

    fn stop_iteration(&mut self, id: u32) -> bool {
        let state = self.state();
        let root = state.stream(id).map(|stream| stream.root);
        root.and_then(|root| state.root(root)).is_some_and(|root| root.stop_iteration)
    }

    fn buffer_limit(&mut self, id: u32) -> Option<usize> {
        let state = self.state();
        let root = state.stream(id).map(|stream| stream.root)?;
        state.root(root)?.buffer_limit
    }
}

/// The header map that Envoy makes of a local reply.
fn reply_map(reply: &LocalReply) -> Vec<Header> {
    let mut map = vec![(":status".to_owned(), reply.status.to_string().into())];
    map.extend(reply.headers.iter().cloned());
    if reply.body.is_empty() {
        map.retain(|(name, _)| name != "content-length" && name != "content-type");
    } else {
        map.retain(|(name, _)| name != "content-length");
        map.push(("content-length".to_owned(), reply.body.len().to_string().into()));
        if !map.iter().any(|(name, _)| name == "content-type") {
            map.push(("content-type".to_owned(), "text/plain".into()));
        }
    }
    map
}
