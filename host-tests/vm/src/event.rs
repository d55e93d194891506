//! Events on a stream, and their outcomes.

use super::abi::{Direction, Header};

/// What a module did with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next filter gets it.
    Continue,
    /// The filter holds it.
    Paused,
    /// The module sent a local reply: see [`crate::Exchange::local_reply`].
    LocalReply,
    /// The module reset the stream.
    Reset,
}

/// An event on a stream.
#[derive(Clone, Debug)]
pub enum Event {
    /// Headers, and whether they end the stream.
    Headers(Direction, Vec<Header>, bool),
    /// A chunk of the body, and whether it ends the stream. It does not if trailers follow.
    Body(Direction, Vec<u8>, bool),
    /// Trailers, which end the stream.
    Trailers(Direction, Vec<Header>),
}
