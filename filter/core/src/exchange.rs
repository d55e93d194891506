//! One exchange on the downstream side (roles `gateway` and `combined`), as a state machine: a call from its headers to its
//! departure, and its response back.
//!
//! Read [`Exchange::on_request`] first; [`pending`](crate::pending) has the parts of a call before it leaves. The upstream side
//! (role `signer`) is [`Attempt`](crate::attempt::Attempt), once for every try. What it needs to know travels as a
//! [`Handoff`](crate::handoff::Handoff) in Envoy's filter state, not in headers: headers that one attempt changed stay changed
//! for the next.

mod facts;
mod held;
mod judge;
mod lambda;
mod own_api;
mod resolving;
mod response;

pub use facts::Endpoint;
pub use response::changes_protocol;

use crate::buffers::{Full, Phase};
use crate::config::{Auth, Role};
use crate::credentials::store::CredentialStatus;
use crate::frame_guard::FrameGuard;
use crate::gateway_api;
use crate::handoff::crossing;
use crate::headers::Headers;
use crate::intent::{IntentError, IntentState, mode_fact};
use crate::inventory::{Member, Names};
use crate::operation::{CallError, Operation};
use crate::pending::{Hashing, PendingCall, PreparedCall, Route, content_length, recognise, resolve, unknown_path};
use crate::pins::{self, Pins};
use crate::policy::{Policy, Viewer};
use crate::reply::{Answer, Refusal, Reply, is_grpc, names_other_charset};
use crate::request_body::{RequestBody, members};
use crate::request_metadata::{MetadataProblem, Places, Values};
use crate::route::Subject;
use crate::rules::Body;
use crate::shared::millis;
use crate::spending::Spending;
use crate::step::{Context, RequestBodyMode, RequestEvent, RequestStep};
use crate::usage::Meter;
use crate::usage::serving;
use audit::ExchangeFacts;
use audit::notice::Intent;
use held::Edit;
use judge::Asked;
use resolving::Resolution;
use sha2::Digest as _;
use std::time::{Duration, SystemTime};

/// Bodies longer than this multiple of the limit get a reset, not a 413.
const OVERLONG: u64 = 8;
/// How long a call whose buffered body was dropped may go on sending before it is refused.
const PATIENCE: Duration = Duration::from_secs(2);

/// One exchange on the downstream side.
#[derive(Debug, Default)]
pub struct Exchange {
    state: State,
    facts: ExchangeFacts,
    meter: Meter,
    times: Times,
    operation: Option<Operation>,
    /// The model as the policy means it.
    model: Option<String>,
    /// The caller's groups.
    groups: Vec<String>,
    /// What the body asks for, if the rules decide when it is complete.
    undecided: Option<Box<Asked>>,
    /// The inference profiles that the rules let the call go by, if they depend on them.
    profiles: Option<Vec<String>>,
    spending: Spending,
    /// What is known of the resource that it names.
    resolution: Resolution,
    intent: IntentState,
    /// What reads the request's body, while it is held.
    body: Option<Box<RequestBody>>,
    /// Whether the request asks for a guardrail's trace.
    traced: bool,
    /// Bytes of the request's body.
    body_bytes: u64,
    relay: Relay,
    /// What is changed in the response, and how many bytes of its body are held for that.
    edit: Option<Edit>,
    held: usize,
    /// Whether the call is of the Lambda-based proxy's API.
    lambda: bool,
    /// Whether Envoy turns its replies to this call into gRPC's form.
    translated: bool,
    /// The status of the gateway's own reply.
    reply_status: Option<u16>,
}

/// How far the request is.
#[derive(Debug, Default)]
enum State {
    #[default]
    Start,
    /// A call of the Lambda-based proxy's API, which is held whole before anything is decided.
    Unwrapping { headers: Headers, caller: Box<lambda::Caller>, length: u64 },
    /// Held until it is known what its model runs. The body is read when the call begins again.
    Resolving { waiting: Box<resolving::Waiting>, length: u64 },
    /// Headers held, body being read.
    Reading { pending: Box<PendingCall>, hashing: Hashing, length: u64 },
    /// Body complete, and about to be edited.
    Editing { pending: Box<PendingCall>, places: Places },
    /// Complete, but for credentials or its intent.
    Waiting { prepared: Box<PreparedCall>, since: SystemTime, length: u64 },
    /// Gone upstream; a body may still stream.
    Forwarded { length: u64 },
    /// Refused, while the client is still sending. The body is read to its end before the reply, or `until` a time: the client
    /// would take the closed connection for a network failure, and try again.
    Discarding {
        refusal: Refusal,
        length: u64,
        until: Option<SystemTime>,
        /// Whether the part that was buffered has been dropped. A client that sends nothing more gets its reply without it.
        dropped: bool,
    },
    /// Or answered by the gateway itself.
    Refused,
}

/// Whether the call goes through the relay.
#[derive(Debug, Default)]
enum Relay {
    #[default]
    Unused,
    /// The request is on its way; the response may still come from elsewhere, such as Envoy.
    Requested,
    /// The response comes through the relay, and its end is checked.
    Streaming(FrameGuard),
}

#[derive(Debug, Default)]
struct Times {
    request: Option<SystemTime>,
    response: Option<SystemTime>,
}

// === impl Exchange: the request ===

impl Exchange {
    /// A new exchange. `id` must be unique, across processes too: it is the audit record's key. It is not taken from
    /// `x-request-id`, which a client may choose where Envoy is configured to trust its clients.
    pub fn new(id: String) -> Self {
        Self { facts: ExchangeFacts { id, ..ExchangeFacts::default() }, ..Self::default() }
    }

    /// Takes an event of the request.
    pub fn on_request(&mut self, event: RequestEvent<'_>, context: Context<'_>) -> RequestStep {
        let step = match event {
            RequestEvent::Headers { headers, principal, groups, end_of_stream, address } => {
                self.request_headers(headers, (principal, groups, address), end_of_stream, context)
            }
            RequestEvent::Body { chunk, end_of_stream } => self.request_body(chunk, end_of_stream, context),
            RequestEvent::UnreadBody { length, end_of_stream } => {
                self.count(length, context.policy).and_then(|()| self.pass(end_of_stream))
            }
            RequestEvent::WholeBody { body } => self.edit_body(body, context),
            RequestEvent::Trailers if matches!(self.state, State::Reading { hashing: Hashing::Envoys, .. }) => {
                Err(Refusal::Trailers)
            }
            RequestEvent::Trailers => self.request_body(&[], true, context),
            RequestEvent::Tick => self.tick(context),
        };
        step.unwrap_or_else(|refusal| self.refuse(&refusal))
    }

    /// Refuses the call whatever its state.
    pub fn refuse(&mut self, refusal: &Refusal) -> RequestStep {
        let reply = self.reply(refusal);
        self.facts.error = Some(reply.error.to_owned());
        self.reply_status = Some(reply.status);
        self.state = State::Refused;
        RequestStep::Reply(reply)
    }

    /// The reply in the form of the API that the client calls.
    fn reply(&self, refusal: &Refusal) -> Reply {
        Reply { lambda: self.lambda, ..refusal.reply() }
    }

    /// Answers a call that nothing is sent for.
    fn answer(&mut self, answer: Answer) -> RequestStep {
        self.reply_status = Some(answer.status);
        self.state = State::Refused;
        RequestStep::Answer(answer)
    }

    /// How the request's body is handled from now on.
    pub fn request_body_mode(&self) -> RequestBodyMode {
        match self.state {
            State::Reading { .. } => RequestBodyMode::Hash,
            State::Waiting { .. } if self.spending.reads_body() => RequestBodyMode::Hash,
            State::Unwrapping { .. } | State::Resolving { .. } | State::Editing { .. } | State::Waiting { .. } => {
                RequestBodyMode::Hold
            }
            State::Discarding { .. } => RequestBodyMode::Discard,
            State::Forwarded { .. } if self.spending.reads_body() => RequestBodyMode::Observe,
            State::Start | State::Forwarded { .. } | State::Refused => RequestBodyMode::Stream,
        }
    }

    /// How far the call is, as far as its memory is concerned.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Start
            | State::Unwrapping { .. }
            | State::Resolving { .. }
            | State::Reading { .. }
            | State::Editing { .. }
            | State::Waiting { .. } => Phase::Held,
            State::Forwarded { .. } => Phase::Sent,
            State::Discarding { dropped: false, .. } => Phase::Leaving,
            State::Discarding { dropped: true, .. } => Phase::Dropped,
            State::Refused => Phase::Refused,
        }
    }

    /// Cleans, recognises, decides. The first act on a request is to drop every header that is not known to cross.
    fn request_headers(
        &mut self,
        headers: &Headers,
        (principal, groups, address): lambda::Caller,
        end_of_stream: bool,
        context: Context<'_>,
    ) -> Result<RequestStep, Refusal> {
        let policy = context.policy;
        self.times.request.get_or_insert(context.now);
        self.translated = is_grpc(headers);
        if let Some(asked) = policy.lambda_api.as_ref().filter(|_| !self.lambda).and_then(|api| api.asked(headers)) {
            return self.lambda_headers(asked, headers, (principal, groups, address), end_of_stream, context);
        }
        if policy.api_readers.is_some()
            && let Some(asked) = gateway_api::asked(headers)
        {
            return self.own_api(asked, headers, (principal, groups, address), context);
        }
        let principal = principal.map(|name| self.facts.principal = name);
        let groups = groups.map(|groups| self.groups = groups);
        let call = recognise(headers).inspect_err(|refusal| {
            self.facts.unknown_path =
                matches!(refusal, Refusal::Call(CallError::Unknown)).then(|| unknown_path(headers));
        })?;
        self.operation = Some(call.operation);
        self.facts.operation = Some(call.operation.name().to_owned());
        self.facts.model = call.model().map(str::to_owned);
        principal?;
        groups?;
        if self.translated {
            return Err(Refusal::Grpc);
        }
        policy.access.check(headers, self.facts.principal.as_deref())?;
        policy.check_operation(call.operation)?;
        if call.operation == Operation::InvokeModelWithBidirectionalStream {
            return Err(Refusal::Bidirectional(call.operation));
        }
        let announced = content_length(headers)?;
        if headers.get("content-encoding").is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            return Err(Refusal::EncodedBody);
        }
        let all = headers;
        let mut headers = crossing(all, &policy.headers)?;
        self.facts.asked = serving::of_headers(&headers);
        self.facts.project = headers.get_str(pins::PROJECT).map(str::to_owned);
        self.traced = headers.get_str("x-amzn-bedrock-trace").is_some_and(|trace| trace.starts_with("ENABLED"));
        let call = resolve(call, context)?;
        policy.check_described(&call, self.viewer(context.now))?;
        self.edit = self.edit.or_else(|| Edit::of(call.operation, policy));
        let mut pins = Pins::of(&call, &headers, policy)?;
        self.model = call.model().map(str::to_owned);
        let body_bytes = if end_of_stream { Some(0) } else { announced };
        if let Some(step) = self.look_up(&call, (all, address, end_of_stream), body_bytes, context)? {
            return Ok(step);
        }
        let principal = self.facts.principal.as_deref();
        let subject = Subject { operation: call.operation, model: call.model(), principal, body_bytes };
        let class = policy.class_of(subject, self.resolution.runs.as_deref())?.ok_or(Refusal::NoRouteClass)?;
        self.facts.class = Some(class.name().to_owned());
        self.facts.audit = mode_fact(class.audit());
        self.intent = IntentState::of(class.audit());
        if let Some(id) = call.model() {
            self.check_place(id, class, &mut pins)?;
        }
        // Without a signature the body need not be held, if it decides nothing. A WasmPlugin of Istio cannot hold it.
        let decides = |member: &'static Member| {
            member.names == Names::Model || class.regions().len() > 1 || class.retention().is_some()
        };
        let signs = policy.auth != Auth::Bearer;
        let operation = call.operation;
        let edits = policy.request_metadata.edits_body(operation);
        let decides = policy.rules.limit_bodies() || members(operation).any(decides);
        let waited = self.resolution.has_waited();
        let holds = signs || edits || self.lambda || waited || (policy.role == Role::Gateway && decides);
        self.judge_headers(&call, &pins, Body { bytes: body_bytes, awaited: holds, ..Body::default() }, context)?;
        policy.request_metadata.write_header(operation, self.metadata_values(), &mut headers)?;
        let output_rate = self.model.as_deref().map_or(1, |model| match self.resolution.runs.as_deref() {
            Some(runs) => runs.iter().map(|model| policy.output_rates.of(model)).max().unwrap_or(1),
            None => policy.output_rates.of(model),
        });
        self.spending.take(class, self.caller(|| address), operation, output_rate, context)?;
        let principal = self.facts.principal.as_deref();
        let no_session = || Refusal::NoSession { class: class.name().to_owned() };
        let credentials = class.credential_id(principal).ok_or_else(no_session)?;
        match context.credentials.ask(&credentials, context.shared, context.now) {
            CredentialStatus::Missing => return Err(Refusal::NoCredentials),
            CredentialStatus::Expired => return Err(Refusal::ExpiredCredentials),
            // A call waits for credentials only once it is complete.
            CredentialStatus::Pending | CredentialStatus::Queued(_) | CredentialStatus::Usable { .. } => {}
        }
        if announced.is_some_and(|length| length > policy.max_body_bytes) {
            let refusal = Refusal::BodyTooLong { limit: policy.max_body_bytes };
            self.state = State::Discarding { refusal, length: 0, until: None, dropped: true };
            return self.pass(end_of_stream);
        }
        let route = Route::new(class, credentials, principal.unwrap_or(&self.facts.id), &self.facts.id)?;
        let pending = PendingCall { call, headers, route, pins };
        if !holds {
            self.spending.stream(body_bytes, end_of_stream, context)?;
            return self.forward(pending.with_streaming_body(body_bytes), context.now, context);
        }
        self.body = RequestBody::of(operation).map(Box::new);
        if (self.body.is_some() || (self.asks_rules() && policy.rules.enforce()))
            && names_other_charset(&pending.headers)
        {
            return Err(Refusal::Charset);
        }
        // What is put into the buffer later, or read from it again, is hashed here.
        let announced = announced.filter(|_| !edits && !self.lambda && !waited);
        let hashing = Hashing::of(policy, announced);
        self.state = State::Reading { pending: Box::new(pending), hashing, length: 0 };
        if end_of_stream { self.request_body(&[], true, context) } else { Ok(RequestStep::AwaitBody) }
    }

    fn request_body(
        &mut self,
        chunk: &[u8],
        end_of_stream: bool,
        context: Context<'_>,
    ) -> Result<RequestStep, Refusal> {
        self.count(chunk.len(), context.policy)?;
        match std::mem::take(&mut self.state) {
            State::Reading { mut pending, mut hashing, length } => {
                let edits = context.policy.request_metadata.edits_body(pending.call.operation);
                // A body that is edited is hashed afterwards.
                if let (Hashing::Here(hasher), false) = (&mut hashing, edits) {
                    hasher.update(chunk);
                }
                if let Some(body) = &mut self.body {
                    body.feed(chunk);
                }
                self.spending.read_held(chunk, end_of_stream, context)?;
                self.judge_chunk(chunk, context.policy);
                if end_of_stream {
                    let places = self.body.as_ref().map(|body| body.places());
                    let named = match self.body.take() {
                        Some(body) => self.read(*body, &mut pending, context.policy)?,
                        None => Vec::new(),
                    };
                    self.judge_body(&pending, &named, length, context)?;
                    if let Some(places) = places.filter(|_| edits) {
                        if length == 0 {
                            return Err(MetadataProblem::Body.into());
                        }
                        self.state = State::Editing { pending, places };
                        return Ok(RequestStep::EditBody);
                    }
                    return self.forward(pending.with_body(hashing, length), context.now, context);
                }
                self.state = State::Reading { pending, hashing, length };
                Ok(RequestStep::AwaitBody)
            }
            state @ (State::Waiting { .. } | State::Forwarded { .. }) => {
                self.state = state;
                self.spending.read_passing(chunk, end_of_stream, context)?;
                self.pass(end_of_stream)
            }
            state => {
                self.state = state;
                self.pass(end_of_stream)
            }
        }
    }

    /// Puts the operator's request metadata into the body.
    fn edit_body(&mut self, body: &mut Vec<u8>, context: Context<'_>) -> Result<RequestStep, Refusal> {
        let (pending, places) = match std::mem::take(&mut self.state) {
            State::Editing { pending, places } => (pending, places),
            State::Unwrapping { headers, caller, .. } => return self.unwrap_call((&headers, *caller), body, context),
            _ => return Err(Refusal::NotConfigured),
        };
        context.policy.request_metadata.write_body(places, self.metadata_values(), body)?;
        let mut hashing = Hashing::of(context.policy, None);
        if let Hashing::Here(hasher) = &mut hashing {
            hasher.update(&body);
        }
        self.forward(pending.with_body(hashing, body.len() as u64), context.now, context)
    }

    fn viewer(&self, now: SystemTime) -> Viewer<'_> {
        Viewer { principal: self.facts.principal.as_deref(), groups: &self.groups, now }
    }

    fn metadata_values(&self) -> Values<'_> {
        Values {
            principal: self.facts.principal.as_deref(),
            class: self.facts.class.as_deref().unwrap_or_default(),
            request_id: &self.facts.id,
        }
    }

    /// Takes what a body asks for and names. Returns the models among it.
    fn read(&mut self, body: RequestBody, pending: &mut PendingCall, policy: &Policy) -> Result<Vec<String>, Refusal> {
        if pending.call.operation.asks_in_body() {
            self.facts.asked = body.serving();
        }
        let values = body.values()?;
        for value in &values {
            match value.member.names {
                Names::Model => _ = self.facts.model.get_or_insert_with(|| value.text.clone()),
                Names::Project => self.facts.project = Some(value.text.clone()),
                _ => {}
            }
        }
        let models = pending.name(values, policy)?;
        if let Some(model) = models.first() {
            self.model = Some(model.clone());
        }
        Ok(models)
    }

    /// Takes a part of the body that is not read.
    fn pass(&mut self, end_of_stream: bool) -> Result<RequestStep, Refusal> {
        match &mut self.state {
            State::Resolving { waiting, .. } => {
                waiting.complete |= end_of_stream;
                Ok(RequestStep::AwaitResolution)
            }
            State::Discarding { refusal, .. } if end_of_stream => Err(refusal.clone()),
            State::Discarding { .. } => Ok(RequestStep::DiscardBody),
            State::Waiting { .. } if self.intent == IntentState::Asked => Ok(RequestStep::AwaitIntent),
            State::Waiting { .. } => Ok(RequestStep::AwaitCredentials),
            State::Unwrapping { .. } => Ok(if end_of_stream { RequestStep::EditBody } else { RequestStep::AwaitBody }),
            State::Start | State::Reading { .. } | State::Editing { .. } | State::Forwarded { .. } | State::Refused => {
                Ok(RequestStep::Continue)
            }
        }
    }

    /// Gives way to other calls, in the callback of this stream, before the call is sent. What is buffered is dropped at once; the
    /// reply follows when the client has sent what it is sending.
    pub fn give_way(&mut self, full: Full, now: SystemTime) -> RequestStep {
        if self.discard(full, true, now) {
            return RequestStep::DiscardBody;
        }
        self.relay = Relay::Unused;
        self.refuse(&Refusal::BuffersFull(full))
    }

    /// Refuses a call that gives way, while its client is still sending.
    pub fn hurry(&mut self) -> Option<RequestStep> {
        let State::Discarding { refusal, .. } = &self.state else { return None };
        let refusal = refusal.clone();
        Some(self.refuse(&refusal))
    }

    /// Gives way in the callback of another stream. Returns whether the call was buffered; then ticks have to look after it.
    pub fn evict(&mut self, full: Full, now: SystemTime) -> bool {
        self.discard(full, false, now)
    }

    fn discard(&mut self, full: Full, dropped: bool, now: SystemTime) -> bool {
        let (State::Unwrapping { length, .. }
        | State::Resolving { length, .. }
        | State::Reading { length, .. }
        | State::Waiting { length, .. }) = &self.state
        else {
            return false;
        };
        let (refusal, until) = (Refusal::BuffersFull(full), Some(now + PATIENCE));
        self.state = State::Discarding { refusal, length: *length, until, dropped };
        true
    }

    /// Looks again for the credentials that a call waits for, and for the time of a reply.
    fn tick(&mut self, context: Context<'_>) -> Result<RequestStep, Refusal> {
        match std::mem::take(&mut self.state) {
            State::Waiting { prepared, since, length: counted } => {
                let step = self.forward(*prepared, since, context);
                // The part of the body that arrived during the wait counts.
                if let State::Waiting { length, .. } | State::Forwarded { length } = &mut self.state {
                    *length = counted;
                }
                step
            }
            State::Resolving { waiting, length } => self.resume(waiting, length, context),
            State::Discarding { refusal, until: Some(until), dropped, .. } if !dropped || until <= context.now => {
                Err(refusal)
            }
            state => {
                let waits = matches!(state, State::Discarding { .. });
                self.state = state;
                Ok(if waits { RequestStep::DiscardBody } else { RequestStep::Continue })
            }
        }
    }

    /// Counts a part of the body. A request that is held and grows too long is read on, up to [`OVERLONG`] times the limit;
    /// one that has gone upstream is ended at once.
    fn count(&mut self, part: usize, policy: &Policy) -> Result<(), Refusal> {
        let limit = policy.max_body_bytes;
        self.body_bytes = self.body_bytes.saturating_add(part as u64);
        if let State::Discarding { dropped, .. } = &mut self.state {
            *dropped = true;
        }
        let (length, most) = match &mut self.state {
            State::Unwrapping { length, .. }
            | State::Resolving { length, .. }
            | State::Reading { length, .. }
            | State::Forwarded { length }
            | State::Waiting { length, .. } => (length, limit),
            State::Discarding { length, .. } => (length, limit.saturating_mul(OVERLONG)),
            State::Start | State::Editing { .. } | State::Refused => return Ok(()),
        };
        *length = length.saturating_add(part as u64);
        let length = *length;
        if length <= most {
            return Ok(());
        }
        let refusal = Refusal::BodyTooLong { limit };
        if matches!(self.state, State::Unwrapping { .. } | State::Resolving { .. } | State::Reading { .. }) {
            self.state = State::Discarding { refusal, length, until: None, dropped: true };
            return Ok(());
        }
        Err(refusal)
    }

    /// What a call without an intent waits for; `None`: it may leave.
    fn await_intent(&mut self) -> Option<RequestStep> {
        match self.intent {
            IntentState::Unneeded | IntentState::Recorded => None,
            IntentState::Needed => {
                self.intent = IntentState::Asked;
                let time_ms = self.times.request.map_or(0, millis);
                Some(RequestStep::RecordIntent(Box::new(Intent { time_ms, exchange: self.facts(false) })))
            }
            IntentState::Asked => Some(RequestStep::AwaitIntent),
        }
    }

    /// Takes the collector's answer to the intent. `None`: the call does not wait for it any more.
    pub fn on_intent(&mut self, answer: Result<(), IntentError>, context: Context<'_>) -> Option<RequestStep> {
        let (State::Waiting { .. }, IntentState::Asked) = (&self.state, self.intent) else { return None };
        Some(match answer {
            Ok(()) => {
                self.intent = IntentState::Recorded;
                self.on_request(RequestEvent::Tick, context)
            }
            Err(error) => {
                let class = self.facts.class.clone().unwrap_or_default();
                self.refuse(&Refusal::NoIntent { class, error })
            }
        })
    }

    /// Sends the call on. Without credentials it waits; it has waited from `since`.
    fn forward(
        &mut self,
        prepared: PreparedCall,
        since: SystemTime,
        context: Context<'_>,
    ) -> Result<RequestStep, Refusal> {
        let status = context.credentials.ask(prepared.credentials(), context.shared, context.now);
        match status {
            CredentialStatus::Missing => Err(Refusal::NoCredentials),
            CredentialStatus::Expired => Err(Refusal::ExpiredCredentials),
            CredentialStatus::Pending | CredentialStatus::Queued(_) => {
                let waited = context.now.duration_since(since).unwrap_or_default();
                if waited >= context.policy.credentials_wait {
                    return Err(match status {
                        CredentialStatus::Queued(seconds) => Refusal::SessionQueue { seconds },
                        _ => Refusal::PendingCredentials,
                    });
                }
                // Counts what streams behind the headers.
                self.state = State::Waiting { prepared: Box::new(prepared), since, length: 0 };
                Ok(RequestStep::AwaitCredentials)
            }
            CredentialStatus::Usable { credentials, .. } => {
                if let Some(step) = self.await_intent() {
                    self.state = State::Waiting { prepared: Box::new(prepared), since, length: 0 };
                    return Ok(step);
                }
                let forward = prepared.depart(&self.facts.id, self.profiles.take(), &credentials, context)?;
                if forward.relayed.is_some() {
                    self.relay = Relay::Requested;
                }
                self.state = State::Forwarded { length: 0 };
                Ok(RequestStep::Forward(forward))
            }
        }
    }
}

#[cfg(test)]
mod session_tests;
#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
