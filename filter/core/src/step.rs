//! The data between core and shell: events, steps and the context of a decision.

use crate::caller::Address;
use crate::catalogue::CatalogueStore;
use crate::credentials::store::CredentialStore;
use crate::headers::Headers;
use crate::limits::Worker;
use crate::policy::Policy;
use crate::principal::PrincipalError;
use crate::reply::{Answer, Reply};
use crate::shared::Shared;
use audit::notice::Intent;
use std::time::SystemTime;

/// What a decision may depend on besides its event.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The operator's decisions.
    pub policy: &'a Policy,
    /// The Commercial credentials. For role `gateway` only their presence matters.
    pub credentials: &'a CredentialStore,
    /// What the regions offer.
    pub catalogue: &'a CatalogueStore,
    /// What all workers share.
    pub shared: &'a dyn Shared,
    /// This VM among the workers.
    pub worker: &'a Worker,
    /// The wall clock.
    pub now: SystemTime,
}

/// An event of the request, on the downstream side.
#[derive(Debug)]
pub enum RequestEvent<'a> {
    /// All headers.
    Headers {
        /// With pseudo-headers.
        headers: &'a Headers,
        /// The caller's name, as Envoy proved it.
        principal: Result<Option<String>, PrincipalError>,
        /// The caller's groups, as Envoy proved them.
        groups: Result<Vec<String>, PrincipalError>,
        /// Whether the request has no body.
        end_of_stream: bool,
        /// The client's address, where limits need it.
        address: Option<Address>,
    },
    /// The next bytes of a body in mode [`RequestBodyMode::Hash`] or [`RequestBodyMode::Observe`].
    Body {
        /// Bytes that no earlier event had.
        chunk: &'a [u8],
        /// Whether the body ends with them.
        end_of_stream: bool,
    },
    /// The next bytes of a body in any other mode: only their number matters.
    UnreadBody {
        /// Their number.
        length: usize,
        /// Whether the body ends with them.
        end_of_stream: bool,
    },
    /// The whole body, which was buffered, in answer to [`RequestStep::EditBody`].
    WholeBody {
        /// What is to replace the buffered body, if the call goes on.
        body: &'a mut Vec<u8>,
    },
    /// The trailers: the body is over. Trailers themselves do not cross.
    Trailers,
    /// Time has passed; for a call that waits for credentials.
    Tick,
}

/// What to do with the request.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestStep {
    /// Let it pass.
    Continue,
    /// Buffer headers and body until the next body chunk.
    AwaitBody,
    /// Buffer headers and body until a tick finds credentials.
    AwaitCredentials,
    /// Buffer headers and body until a tick finds what the call's model runs.
    AwaitResolution,
    /// Give all of the buffered body again, from its beginning.
    ReadBody {
        /// Its bytes.
        length: u64,
        /// Whether it has ended.
        complete: bool,
    },
    /// Ask the collector to record the intent, and buffer headers and body until it answers.
    RecordIntent(Box<Intent>),
    /// Buffer headers and body until the collector answers.
    AwaitIntent,
    /// Give all of the buffered body as [`RequestEvent::WholeBody`], and carry out the step that follows.
    EditBody,
    /// Hold the headers and drop the buffered body: a reply follows when the body is over.
    DiscardBody,
    /// Replace the headers, set the filter states, let the request go.
    Forward(Forward),
    /// Answer the client; nothing goes upstream.
    Reply(Reply),
    /// The same, with something else than a refusal.
    Answer(Answer),
}

/// How the shell handles the request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBodyMode {
    /// Envoy buffers it, and every byte is given as [`RequestEvent::Body`].
    Hash,
    /// Envoy buffers it; its length is given as [`RequestEvent::UnreadBody`].
    Hold,
    /// It is dropped as it arrives; its length is given as [`RequestEvent::UnreadBody`].
    Discard,
    /// It streams through, and every byte is given as [`RequestEvent::Body`].
    Observe,
    /// It streams through; its length is given as [`RequestEvent::UnreadBody`].
    Stream,
}

/// An event of the response, on the downstream side.
#[derive(Debug)]
pub enum ResponseEvent<'a> {
    /// The headers.
    Headers {
        /// With pseudo-headers.
        headers: &'a Headers,
        /// Whether the response came through the relay. Envoy's own responses do not.
        relayed: bool,
    },
    /// The next bytes of the body, unless its mode is [`ResponseBodyMode::Ignore`].
    Body {
        /// Bytes that no earlier event had.
        chunk: &'a [u8],
    },
    /// The end of a body in mode [`ResponseBodyMode::Rewrite`].
    End {
        /// Whether the sender ended it. `false`: the connection broke.
        complete: bool,
    },
    /// All of a response in mode [`ResponseBodyMode::Hold`], which the sender ended.
    Whole(WholeResponse<'a>),
}

/// A response that was held.
#[derive(Debug, Clone, Copy)]
pub struct WholeResponse<'a> {
    /// With pseudo-headers.
    pub headers: &'a Headers,
    /// The whole body, of which earlier events had every byte.
    pub body: &'a [u8],
    /// The region of the endpoint that it came from.
    pub region: Option<&'a str>,
    /// The operator's decisions.
    pub policy: &'a Policy,
}

/// What to do with the response.
#[derive(Debug, PartialEq, Eq)]
pub enum ResponseStep {
    /// Let it pass.
    Continue,
    /// Replace the chunk with these bytes.
    Replace(Vec<u8>),
    /// Replace the response that was held, and let it go.
    Edit {
        /// All headers, with pseudo-headers.
        headers: Headers,
        /// The whole body.
        body: Vec<u8>,
    },
    /// Reply this instead, and end the upstream's stream.
    Reply(Reply),
    /// Reset the stream, so that the client does not see a clean end.
    Reset,
}

/// How the shell handles the response's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseBodyMode {
    /// It passes unread.
    Ignore,
    /// It passes, and is given as [`ResponseEvent::Body`].
    Observe,
    /// [`ResponseStep::Replace`] says what passes of each chunk; the end is given as [`ResponseEvent::End`].
    Rewrite,
    /// Envoy buffers headers and body, of which every byte is given as [`ResponseEvent::Body`]. The end is given as
    /// [`ResponseEvent::Whole`].
    Hold,
}

/// A request as it goes on.
#[derive(Debug, PartialEq, Eq)]
pub struct Forward {
    /// All headers; no other header goes on.
    pub headers: Headers,
    /// Filter states to set, by property name.
    pub states: Vec<(&'static str, Vec<u8>)>,
    /// For a call that goes to the relay: what the relay finds under the exchange's id.
    pub relayed: Option<RelayedCall>,
}

/// What the gateway role leaves for the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayedCall {
    /// The cluster that the call goes to.
    pub cluster: String,
    /// Its route class.
    pub class: String,
    /// What the signer needs: the handoff as JSON.
    pub handoff: Vec<u8>,
}
