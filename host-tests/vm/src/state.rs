//! The state of one VM: contexts, shared data, metrics, calls, logs.

use std::collections::{BTreeMap, VecDeque};

use wasmtime::{Memory, StoreLimits, TypedFunc};

use super::abi::{Direction, Header, MapType, Status};
use super::effects::{LocalReply, Log, OutCall, Refused};
use super::fault::{Refusal, misuse};
use super::half::{Half, Map, View};
use super::wasi::Wasi;

/// What `get_property` answers for a path.
#[derive(Clone, Debug)]
pub(super) enum Property {
    Value(Vec<u8>),
    Status(Status),
}

pub(super) type Properties = BTreeMap<Vec<u8>, Property>;

#[derive(Debug, Default)]
pub(super) struct Root {
    pub(super) name: String,
    pub(super) configuration: Vec<u8>,
    pub(super) configuring: bool,
    pub(super) tick_ms: u32,
    pub(super) properties: Properties,
    pub(super) stop_iteration: bool,
    pub(super) buffer_limit: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) root: u32,
    /// Streams of one exchange share its filter state.
    pub(super) exchange: usize,
    pub(super) created: bool,
    /// In `on_log`, where every map can be read again.
    pub(super) logging: bool,
    pub(super) request: Half,
    pub(super) response: Half,
    pub(super) properties: Properties,
    pub(super) local_reply: Option<LocalReply>,
    pub(super) reset: bool,
}

impl Stream {
    pub(super) fn new(root: u32, exchange: usize) -> Self {
        Self {
            root,
            exchange,
            created: false,
            logging: false,
            request: Half::default(),
            response: Half::default(),
            properties: Properties::new(),
            local_reply: None,
            reset: false,
        }
    }

    pub(super) fn half(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }
}

#[derive(Debug)]
pub(super) enum Context {
    Root(Root),
    Stream(Box<Stream>),
}

/// What a host call asked for and Envoy does after the callback has returned.
#[derive(Debug)]
pub(super) enum Deferred {
    Resume(u32, Direction),
    Reply(u32, LocalReply),
    Reset(u32),
}

/// The answer to an [`OutCall`], while the module's callback runs.
#[derive(Debug, Default)]
pub(super) struct CallAnswer {
    /// The context that made the call. As in Envoy, the response is in no other.
    pub(super) context: u32,
    pub(super) headers: Vec<Header>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<Header>,
}

/// A counter or gauge (`value`), or a histogram (`records`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metric {
    pub(super) value: u64,
    pub(super) records: Vec<u64>,
}

pub(super) struct State {
    pub(super) memory: Option<Memory>,
    pub(super) allocate: Option<TypedFunc<u32, u32>>,
    pub(super) limits: StoreLimits,
    pub(super) wasi: Wasi,
    pub(super) vm_configuration: Vec<u8>,
    pub(super) log_level: u32,
    pub(super) logs: Vec<Log>,
    pub(super) refused: Vec<Refused>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) contexts: BTreeMap<u32, Context>,
    pub(super) next_context: u32,
    /// The callback that runs, empty between callbacks.
    pub(super) callback: &'static str,
    pub(super) current: u32,
    pub(super) effective: Option<u32>,
    pub(super) deferred: Vec<Deferred>,
    pub(super) filter_states: Vec<BTreeMap<String, Vec<u8>>>,
    pub(super) shared: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    pub(super) next_cas: u32,
    pub(super) queues: Vec<(Vec<u8>, VecDeque<Vec<u8>>)>,
    /// By id: type (two low bits of the id) and name.
    pub(super) metric_ids: Vec<(u32, String)>,
    pub(super) metrics: BTreeMap<String, Metric>,
    pub(super) clusters: Vec<String>,
    pub(super) calls: Vec<OutCall>,
    pub(super) next_token: u32,
    pub(super) answer: Option<CallAnswer>,
    pub(super) failed: Option<String>,
}

impl State {
    /// Adds a line behind what the module has written until now.
    pub(super) fn log(&mut self, line: Log) {
        self.log_written();
        self.logs.push(line);
    }

    /// Brings what the module wrote on its standard output and error into the log.
    pub(super) fn log_written(&mut self) {
        self.logs.extend(self.wasi.written());
    }

    /// The context that host calls work on: `set_effective_context` moves it for the rest of a callback.
    pub(super) fn active(&self) -> u32 {
        self.effective.unwrap_or(self.current)
    }

    pub(super) fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        match self.contexts.get_mut(&id) {
            Some(Context::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn root(&mut self, id: u32) -> Option<&mut Root> {
        match self.contexts.get_mut(&id) {
            Some(Context::Root(root)) => Some(root),
            _ => None,
        }
    }

    pub(super) fn active_stream(&mut self) -> Option<&mut Stream> {
        let id = self.active();
        self.stream(id)
    }

    /// A map to be read. `BadArgument` is what Envoy answers where there is none.
    pub(super) fn map(&mut self, kind: MapType) -> Result<&[Header], Refusal> {
        if let MapType::CallHeaders | MapType::CallTrailers = kind {
            let active = self.active();
            let Some(answer) = self.answer.as_ref().filter(|answer| answer.context == active) else {
                return Err(Status::BadArgument.into());
            };
            return Ok(if kind == MapType::CallHeaders { &answer.headers } else { &answer.trailers });
        }
        let Some(stream) = self.active_stream() else {
            return Err(Status::BadArgument.into());
        };
        let logging = stream.logging;
        let map = stream_map(stream, kind)?;
        match map.view {
            View::Open | View::Sent => Ok(&map.entries),
            View::Gone if logging => Ok(&map.entries),
            View::Absent | View::Gone => Err(Status::BadArgument.into()),
        }
    }

    /// A map to be written.
    pub(super) fn map_mut(&mut self, kind: MapType) -> Result<&mut Vec<Header>, Refusal> {
        let Some(stream) = self.active_stream() else {
            return Err(Status::BadArgument.into());
        };
        let replied = stream.local_reply.is_some();
        let map = stream_map(stream, kind)?;
        match map.view {
            View::Open => Ok(&mut map.entries),
            View::Sent if replied => Ok(&mut map.entries),
            View::Sent => misuse(format!("{kind:?} was sent already; the change would have no effect")),
            View::Absent | View::Gone => Err(Status::BadArgument.into()),
        }
    }
}

fn stream_map(stream: &mut Stream, kind: MapType) -> Result<&mut Map, Refusal> {
    match kind {
        MapType::Headers(direction) => Ok(&mut stream.half(direction).headers),
        MapType::Trailers(direction) => Ok(&mut stream.half(direction).trailers),
        MapType::CallHeaders | MapType::CallTrailers => Err(Status::BadArgument.into()),
    }
}
