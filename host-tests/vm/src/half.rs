//! One direction of a stream: its maps, what is held, and what was sent.

use super::abi::Header;
use super::bytes::Bytes;

/// What the module may do with a map now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    /// Not arrived yet.
    #[default]
    Absent,
    /// In its callback, or held by a pause: read and write.
    Open,
    /// Sent on from a later callback: Envoy still shows it, and writes change nothing on the wire.
    Sent,
    /// Its callback returned Continue: Envoy shows nothing any more.
    Gone,
}

/// A header or trailer map and its phase.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) entries: Vec<Header>,
    pub(super) view: View,
}

impl Map {
    pub(super) fn arrive(&mut self, entries: Vec<Header>) {
        self.entries = entries;
        self.view = View::Open;
    }

    /// Sent on by something other than its own callback.
    pub(super) fn send(&mut self) {
        if self.view == View::Open {
            self.view = View::Sent;
        }
    }
}

/// How a direction is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pause {
    #[default]
    Flowing,
    /// `StopIteration`: later callbacks run, nothing is sent on.
    Iteration,
    /// `StopAllIteration`: later callbacks do not run either.
    All,
}

/// The part of a direction that left the filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The headers were sent.
    pub headers: bool,
    /// The body that was sent.
    pub body: Bytes,
    /// The sizes of the chunks that were sent.
    pub chunks: Vec<usize>,
    /// The trailers were sent.
    pub trailers: bool,
    /// The end of the stream was sent.
    pub end: bool,
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub(super) struct Half {
    pub(super) headers: Map,
    pub(super) trailers: Map,
    pub(super) pause: Pause,
    /// The data that a body callback sees now: the chunk, or all that is buffered and the chunk.
    pub(super) visible: Option<Vec<u8>>,
    /// Data kept back by a pause in a body callback; the next callback sees it too.
    pub(super) buffer: Option<Vec<u8>>,
    /// Data that came while everything was stopped, with its callback still to run.
    pub(super) held: Option<Vec<u8>>,
    /// Trailers that came while everything was stopped.
    pub(super) held_trailers: Option<Vec<Header>>,
    /// The other side has sent its last.
    pub(super) ended: bool,
    pub(super) forwarded: Forwarded,
}

impl Half {
    /// The data a buffer call works on, if there is any in this phase.
    pub(super) fn data(&mut self) -> Option<&mut Vec<u8>> {
        self.visible.as_mut().or(self.buffer.as_mut())
    }

    /// Sends everything held to the next filter.
    pub(super) fn send_all(&mut self) {
        self.pause = Pause::Flowing;
        self.headers.send();
        self.forwarded.headers = true;
        for data in [self.buffer.take(), self.visible.take()].into_iter().flatten() {
            if !data.is_empty() {
                self.forwarded.chunks.push(data.len());
                self.forwarded.body.extend(data);
            }
        }
        if self.trailers.view != View::Absent {
            self.trailers.send();
            self.forwarded.trailers = true;
        }
        self.forwarded.end = self.ended && self.held.is_none() && self.held_trailers.is_none();
    }
}
