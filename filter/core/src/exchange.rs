//! A call from its headers to its signature, and its response back: the way through the gateway in one place.
//!
//! [`Exchange`] is the downstream side (roles `gateway` and `combined`), [`Attempt`](crate::attempt::Attempt) the upstream side
//! (role `signer`), once for every try. What the one knows and the other needs travels as a [`Handoff`] in Envoy's filter state, not in
//! headers: headers that one attempt changed stay changed for the next.

use crate::breaker::Breaker;
use crate::clock;
use crate::config::{Auth, Role};
use crate::credentials::wallet::{Found, Wallet};
use crate::encoding::hex;
use crate::handoff::{Handoff, crossing, hand_over, sign, to_json};
use crate::headers::Headers;
use crate::limits::Allowance;
use crate::metrics::{Observation, Sample};
use crate::operation::{Call, Home, Method, Operation, arn_region};
use crate::policy::Policy;
use crate::relay::{Ending, RELAY_HEADER, Relayed, Tail};
use crate::reply::{Refusal, Reply};
use crate::route::{Reach, RouteClass, Subject};
use crate::shared::Shared;
use crate::usage::Meter;
use audit::ExchangeFacts;
use sha2::{Digest, Sha256};
use std::time::SystemTime;

/// The header that names the cluster; Envoy's route reads it (`cluster_header`). Clients cannot set it.
pub const CLUSTER_HEADER: &str = "x-bedrock-gateway-cluster";
/// The header that names the route class; Envoy's routes read it. Clients cannot set it.
pub const CLASS_HEADER: &str = "x-bedrock-gateway-class";
/// Filter state that carries the [`Handoff`] (`wasm.bedrock.handoff` for Envoy).
pub const HANDOFF_PROPERTY: &str = "bedrock.handoff";
/// Filter state that carries the route class's name, for Envoy's own replies: no path of it may be left.
pub const CLASS_PROPERTY: &str = "bedrock.class";
/// Filter state that carries [`ExchangeFacts`].
pub const EXCHANGE_PROPERTY: &str = "bedrock.exchange";
/// Filter state that carries [`AttemptFacts`].
pub const ATTEMPT_PROPERTY: &str = "bedrock.attempt";

/// The guardrail that guards a call.
const GUARDRAIL_HEADER: &str = "x-amzn-bedrock-guardrailidentifier";
/// How often the limit a body may be before its client is cut off instead of answered.
const OVERLONG: u64 = 8;
/// Longest request id of Bedrock's that is kept.
const MAX_REQUEST_ID: usize = 64;

/// What every step may depend on, and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The operator's decisions.
    pub policy: &'a Policy,
    /// The Commercial credentials. Only their presence matters to role `gateway`.
    pub wallet: &'a Wallet,
    /// What all workers share.
    pub shared: &'a dyn Shared,
    /// The wall clock.
    pub now: SystemTime,
}

/// What happens to a call on the downstream side.
#[derive(Debug)]
pub enum Event<'a> {
    /// The request's headers, whole.
    RequestHeaders {
        /// With pseudo-headers.
        headers: &'a Headers,
        /// The caller's name, as Envoy proved it.
        principal: Option<String>,
        /// Whether there is no body.
        end_of_stream: bool,
    },
    /// The next piece of the request's body.
    RequestBody {
        /// Bytes that were not shown before.
        chunk: &'a [u8],
        /// Whether it is the last piece.
        end_of_stream: bool,
    },
    /// A piece of the request's body that streams through unread (see [`Exchange::wants_request_body`]).
    RequestBodyPassing {
        /// Its length in bytes.
        length: usize,
        /// Whether it is the last piece.
        end_of_stream: bool,
    },
    /// The request's trailers: the body is over. Trailers themselves do not cross.
    RequestTrailers,
    /// Time has passed; only for a call that waits.
    Tick,
    /// The response's headers.
    ResponseHeaders {
        /// With pseudo-headers.
        headers: &'a Headers,
        /// Whether it came through the relay, and is no answer of Envoy's own.
        relayed: bool,
    },
    /// The next piece of the response's body.
    ResponseBody {
        /// Bytes that were not shown before.
        chunk: &'a [u8],
    },
    /// The response is over; only for one that is rewritten (see [`Exchange::rewrites_response_body`]).
    ResponseEnd {
        /// Whether its sender ended it, and it did not break off.
        whole: bool,
    },
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Let it pass.
    Continue,
    /// Hold the headers (and what came of the body) until more of the body has come.
    AwaitBody,
    /// Hold all of it until credentials have come: the next tick tells.
    AwaitCredentials,
    /// Hold the headers, and throw away what came of the body: the answer follows when it is over.
    Discard,
    /// Replace the request's headers, keep the states, let the request go.
    Forward(Forward),
    /// Answer the client; nothing goes upstream.
    Reply(Reply),
    /// These bytes of the response's body pass, in the place of what came.
    Pass(Vec<u8>),
    /// Cut the client's stream: its end must not be taken for one.
    Cut,
}

/// A request as it goes on.
#[derive(Debug, PartialEq, Eq)]
pub struct Forward {
    /// All headers; there are no others.
    pub headers: Headers,
    /// Filter states to set, by property name.
    pub states: Vec<(&'static str, Vec<u8>)>,
    /// What the relay is to find under the exchange's id, if the call goes there.
    pub relayed: Option<Relayed>,
}

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
    relay: Relay,
}

/// Whether the call went through the relay.
#[derive(Debug, Default)]
enum Relay {
    #[default]
    No,
    Sent,
    Answered(Tail),
}

#[derive(Debug, Default)]
struct Times {
    request: Option<SystemTime>,
    response: Option<SystemTime>,
}

/// Where the last attempt went, as Envoy tells it when the exchange is over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Endpoint<'a> {
    /// Its path label.
    pub path: Option<&'a str>,
    /// Its region label.
    pub region: Option<&'a str>,
    /// Tries up to it, itself included.
    pub attempts: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Start,
    /// Headers held, body being hashed.
    Hashing {
        ready: Box<Ready>,
        hasher: Sha256,
        length: u64,
    },
    /// Ready to go, but for credentials.
    Waiting {
        whole: Box<Whole>,
        since: SystemTime,
        length: u64,
    },
    /// Gone upstream; a body may still stream.
    Forwarded {
        length: u64,
    },
    /// Too long: read to its end, so that the client hears the answer. One that is still sending would take the closed
    /// connection for a failure of the network, and try again.
    Overlong {
        length: u64,
    },
    Refused,
}

/// A call that only lacks its body.
#[derive(Debug)]
struct Ready {
    call: Call,
    headers: Headers,
    way: Way,
}

/// A call that lacks nothing of its own.
#[derive(Debug)]
struct Whole {
    ready: Ready,
    body_sha256: Option<String>,
    content_length: Option<u64>,
}

/// Where a call is sent.
#[derive(Debug, Clone)]
struct Way {
    cluster: String,
    class: String,
    only_region: Option<String>,
    credentials: String,
}

// === impl Exchange ===

impl Exchange {
    /// A new exchange. `id` must be unlike any other, of other processes too: it is the audit record's key. It is not
    /// taken from `x-request-id`, which a client may choose where Envoy is configured to believe its clients.
    pub fn new(id: String) -> Self {
        Self { facts: ExchangeFacts { id, ..ExchangeFacts::default() }, ..Self::default() }
    }

    /// Takes an event.
    pub fn on(&mut self, event: Event<'_>, given: Given<'_>) -> Step {
        let step = match event {
            Event::RequestHeaders { headers, principal, end_of_stream } => {
                self.request_headers(headers, principal, end_of_stream, given)
            }
            Event::RequestBody { chunk, end_of_stream } => self.request_body(chunk, end_of_stream, given),
            Event::RequestBodyPassing { length, end_of_stream } => {
                self.count(length, given.policy).and_then(|()| self.pass(end_of_stream, given.policy))
            }
            Event::RequestTrailers => self.request_body(&[], true, given),
            Event::Tick => self.tick(given),
            Event::ResponseHeaders { headers, relayed } => {
                self.times.response = Some(given.now);
                self.response_headers(headers, relayed);
                Ok(Step::Continue)
            }
            Event::ResponseBody { chunk } => Ok(self.response_body(chunk)),
            Event::ResponseEnd { whole } => Ok(self.response_end(whole)),
        };
        step.unwrap_or_else(|refusal| self.refuse(&refusal))
    }

    /// Refuses the call whatever its state.
    pub fn refuse(&mut self, refusal: &Refusal) -> Step {
        let reply = refusal.reply();
        self.facts.error = Some(reply.error.to_owned());
        self.state = State::Refused;
        Step::Reply(reply)
    }

    /// Whether the request's body must be shown, or only counted.
    pub fn wants_request_body(&self) -> bool {
        matches!(self.state, State::Hashing { .. })
    }

    /// Whether the host holds what came of the request's body: it counts all of it each time then.
    pub fn holds_request_body(&self) -> bool {
        matches!(self.state, State::Hashing { .. } | State::Waiting { .. })
    }

    /// Whether the request's body is only read to come to its end: what is held of it may go.
    pub fn discards_request_body(&self) -> bool {
        matches!(self.state, State::Overlong { .. })
    }

    /// Whether response bodies need to be shown.
    pub fn wants_response_body(&self) -> bool {
        self.meter.wants_body() || self.rewrites_response_body()
    }

    /// Whether the response's body passes as [`Step::Pass`] says, and its end is to be shown.
    pub fn rewrites_response_body(&self) -> bool {
        matches!(self.relay, Relay::Answered(_))
    }

    /// Whether the call went through the relay.
    pub fn is_relayed(&self) -> bool {
        !matches!(self.relay, Relay::No)
    }

    /// The request id: what the client is told, and the audit record's key.
    pub fn request_id(&self) -> &str {
        &self.facts.id
    }

    /// What is known of the exchange now. `complete` says whether the response ended as its sender meant.
    pub fn facts(&self, complete: bool) -> ExchangeFacts {
        let reading = self.meter.reading(complete);
        ExchangeFacts { usage: reading.usage, error: self.facts.error.clone().or(reading.error), ..self.facts.clone() }
    }

    /// Settles the exchange, once it is over: charges the caller's allowance, and tells what it adds to the metrics.
    pub fn settle(&self, facts: &ExchangeFacts, endpoint: Endpoint<'_>, given: Given<'_>) -> Vec<Sample> {
        if let Some(allowance) = facts
            .class
            .as_deref()
            .and_then(|name| given.policy.class(name))
            .and_then(|class| self.allowance(class, given))
        {
            allowance.charge(facts.usage.quota_tokens());
        }
        let since = |end: SystemTime| end.duration_since(self.times.request?).ok();
        let model = self.model.as_deref().map(|id| if given.policy.names_model(id) { id } else { "other" });
        Observation {
            class: facts.class.as_deref(),
            path: endpoint.path,
            region: endpoint.region,
            model,
            error: facts.error.as_deref(),
            attempts: endpoint.attempts,
            usage: facts.usage,
            duration: since(given.now).unwrap_or_default(),
            first_byte: self.times.response.filter(|_| endpoint.attempts > 0).and_then(since),
        }
        .samples()
    }

    /// Clean, recognise, decide: the first act on a request is to forget every header that is not known to cross.
    fn request_headers(
        &mut self,
        headers: &Headers,
        principal: Option<String>,
        end_of_stream: bool,
        given: Given<'_>,
    ) -> Result<Step, Refusal> {
        let policy = given.policy;
        self.times.request = Some(given.now);
        self.facts.principal = principal;
        let call = recognise(headers)?;
        self.operation = Some(call.operation);
        self.facts.operation = Some(call.operation.name().to_owned());
        self.facts.model = call.model().map(str::to_owned);
        if call.operation == Operation::InvokeModelWithBidirectionalStream {
            return Err(Refusal::Bidirectional(call.operation));
        }
        let announced = content_length(headers)?;
        if headers.get("content-encoding").is_some_and(|encoding| encoding != b"identity") {
            return Err(Refusal::EncodedBody);
        }
        let headers = crossing(headers)?;
        let call = resolve(call, policy)?;
        self.model = call.model().map(str::to_owned);
        let subject = Subject {
            operation: call.operation,
            model: call.model(),
            principal: self.facts.principal.as_deref(),
            body_bytes: if end_of_stream { Some(0) } else { announced },
        };
        let class = policy.route_class(subject).ok_or(Refusal::NoRouteClass)?;
        self.facts.class = Some(class.name().to_owned());
        if let Some(allowance) = self.allowance(class, given) {
            allowance.take().map_err(|seconds| Refusal::Throttled { class: class.name().to_owned(), seconds })?;
        }
        match given.wallet.find(class.credentials(), given.shared, given.now) {
            Found::Never => return Err(Refusal::NoCredentials),
            Found::Expired => return Err(Refusal::ExpiredCredentials),
            // It is seen to once the call is whole.
            Found::Awaited | Found::Ready(..) => {}
        }
        if announced.is_some_and(|length| length > policy.max_body_bytes) {
            self.state = State::Overlong { length: 0 };
            return self.pass(end_of_stream, policy);
        }
        let way = self.way(class, &call, &headers, given)?;
        let ready = Ready { call, headers, way };
        if policy.auth == Auth::Bearer {
            // No hash, no hold: the body streams behind the headers.
            let length = if end_of_stream { Some(0) } else { announced };
            return self.forward(Whole { ready, body_sha256: None, content_length: length }, given.now, given);
        }
        self.state = State::Hashing { ready: Box::new(ready), hasher: Sha256::new(), length: 0 };
        if end_of_stream { self.request_body(&[], true, given) } else { Ok(Step::AwaitBody) }
    }

    /// Chooses where the call is tried first, and with it the cluster that tries the rest.
    fn way(&self, class: &RouteClass, call: &Call, headers: &Headers, given: Given<'_>) -> Result<Way, Refusal> {
        let nowhere = || Refusal::NoPath { class: class.name().to_owned() };
        let caller = self.facts.principal.as_deref().unwrap_or(&self.facts.id);
        let first = class.first_path(caller).ok_or_else(nowhere)?;
        let home = match headers.get_str(GUARDRAIL_HEADER) {
            // A guardrail is in one region, whatever it guards.
            Some(guardrail) => arn_region(guardrail).map_or(Home::First, Home::Region),
            None => call.home(),
        };
        let admits = |region: &str| {
            call.model().is_none_or(|model| Breaker::new(given.shared, region, model, given.now).admits())
        };
        let reach = class.reach(home, &self.facts.id, admits).ok_or_else(nowhere)?;
        let only_region = match reach {
            Reach::Only(region) => Some(region.to_owned()),
            Reach::From(_) => None,
        };
        let cluster = class.cluster(call.operation.service(), first, reach);
        let credentials = class.credentials().to_owned();
        Ok(Way { cluster, class: class.name().to_owned(), only_region, credentials })
    }

    fn allowance<'a>(&self, class: &RouteClass, given: Given<'a>) -> Option<Allowance<'a>> {
        let caller = self.facts.principal.as_deref().unwrap_or_default();
        Allowance::new(given.shared, class.limits(), class.name(), caller, given.now)
    }

    fn request_body(&mut self, chunk: &[u8], end_of_stream: bool, given: Given<'_>) -> Result<Step, Refusal> {
        self.count(chunk.len(), given.policy)?;
        match std::mem::take(&mut self.state) {
            State::Hashing { ready, mut hasher, length } => {
                hasher.update(chunk);
                if end_of_stream {
                    let hash = hex(&hasher.finalize());
                    let whole = Whole { ready: *ready, body_sha256: Some(hash), content_length: Some(length) };
                    return self.forward(whole, given.now, given);
                }
                self.state = State::Hashing { ready, hasher, length };
                Ok(Step::AwaitBody)
            }
            state => {
                self.state = state;
                self.pass(end_of_stream, given.policy)
            }
        }
    }

    /// A body that is not read: it streams on, or it is too long and comes to its end here.
    fn pass(&self, end_of_stream: bool, policy: &Policy) -> Result<Step, Refusal> {
        match self.state {
            State::Overlong { .. } if end_of_stream => Err(Refusal::BodyTooLong { limit: policy.max_body_bytes }),
            State::Overlong { .. } => Ok(Step::Discard),
            State::Waiting { .. } => Ok(Step::AwaitCredentials),
            _ => Ok(Step::Continue),
        }
    }

    /// Looks anew for the credentials that a call waits for.
    fn tick(&mut self, given: Given<'_>) -> Result<Step, Refusal> {
        match std::mem::take(&mut self.state) {
            State::Waiting { whole, since, length: passed } => {
                let step = self.forward(*whole, since, given);
                // What came of the body while it waited counts.
                if let State::Waiting { length, .. } | State::Forwarded { length } = &mut self.state {
                    *length = passed;
                }
                step
            }
            state => {
                self.state = state;
                Ok(Step::Continue)
            }
        }
    }

    /// Counts a piece of the body. A request that is held and grows too long is read on, up to [`OVERLONG`] times the
    /// limit; one that has gone upstream is ended at once.
    fn count(&mut self, piece: usize, policy: &Policy) -> Result<(), Refusal> {
        let limit = policy.max_body_bytes;
        let (length, most) = match &mut self.state {
            State::Hashing { length, .. } | State::Forwarded { length } | State::Waiting { length, .. } => {
                (length, limit)
            }
            State::Overlong { length } => (length, limit.saturating_mul(OVERLONG)),
            State::Start | State::Refused => return Ok(()),
        };
        *length = length.saturating_add(piece as u64);
        let length = *length;
        if length <= most {
            return Ok(());
        }
        if matches!(self.state, State::Hashing { .. }) {
            self.state = State::Overlong { length };
            return Ok(());
        }
        Err(Refusal::BodyTooLong { limit })
    }

    /// The request is whole, or whole enough: hand it to the signer, or sign it here if there is none. Without credentials it
    /// waits, `since` then.
    fn forward(&mut self, whole: Whole, since: SystemTime, given: Given<'_>) -> Result<Step, Refusal> {
        let credentials = match given.wallet.find(&whole.ready.way.credentials, given.shared, given.now) {
            Found::Ready(credentials, _) => credentials,
            Found::Never => return Err(Refusal::NoCredentials),
            Found::Expired => return Err(Refusal::ExpiredCredentials),
            Found::Awaited => {
                let waited = given.now.duration_since(since).unwrap_or_default();
                if waited >= given.policy.credentials_wait {
                    return Err(Refusal::AwaitedCredentials);
                }
                // What streams behind the headers is counted from here.
                self.state = State::Waiting { whole: Box::new(whole), since, length: 0 };
                return Ok(Step::AwaitCredentials);
            }
        };
        let Whole { ready, body_sha256, content_length } = whole;
        let Ready { call: Call { operation, labels, query }, headers, way } = ready;
        let Way { cluster, class, only_region, .. } = way;
        // A request that has no body by its method announces none.
        let content_length = content_length.filter(|length| *length > 0 || operation.method() == Method::Post);
        let relay = given.policy.stream_relay.as_deref().filter(|_| operation.streams());
        let relayed = relay.map(|_| self.facts.id.clone());
        let handoff = Handoff {
            class: class.clone(),
            only_region,
            operation,
            labels,
            query,
            body_sha256,
            content_length,
            relayed,
        };
        let mut forward = if given.policy.role == Role::Combined {
            let region = given.policy.own_region().ok_or(Refusal::NotConfigured)?;
            let host = region.host_of_all(handoff.service());
            let now = clock::corrected(given.shared, given.now);
            let (mut signed, facts) = sign(&handoff, &headers, region, &host, &credentials, now)?;
            // The route removes it again: no signer comes behind this one.
            if let Some(value) = headers.get("x-forwarded-proto") {
                signed.push("x-forwarded-proto", value);
            }
            Forward { headers: signed, states: vec![(ATTEMPT_PROPERTY, to_json(&facts))], relayed: None }
        } else {
            hand_over(&handoff, headers)
        };
        if let Some(relay) = relay {
            forward.headers.push(RELAY_HEADER, self.facts.id.as_str());
            forward.headers.push(CLUSTER_HEADER, relay);
            forward.relayed = Some(Relayed { cluster, class: class.clone(), handoff: to_json(&handoff) });
            self.relay = Relay::Sent;
        } else {
            forward.headers.push(CLUSTER_HEADER, cluster);
        }
        forward.headers.push(CLASS_HEADER, class.as_str());
        forward.states.push((CLASS_PROPERTY, class.into_bytes()));
        self.state = State::Forwarded { length: 0 };
        Ok(Step::Forward(forward))
    }

    fn response_headers(&mut self, headers: &Headers, relayed: bool) {
        // The filter's own answer comes back through here too.
        if matches!(self.state, State::Refused) {
            return;
        }
        let status = headers.get_str(":status").and_then(|status| status.parse().ok()).unwrap_or(0);
        self.facts.upstream_id = headers.get_str("x-amzn-requestid").filter(|id| is_id(id)).map(str::to_owned);
        if status >= 400 {
            self.facts.error = headers.get_str("x-amzn-errortype").and_then(error_type);
        }
        if let Some(operation) = self.operation {
            self.meter = Meter::start(operation.metering(), status, headers);
        }
        if relayed {
            self.relay = Relay::Answered(Tail::new(self.meter.reads_event_stream()));
        }
    }

    fn response_body(&mut self, chunk: &[u8]) -> Step {
        let Relay::Answered(tail) = &mut self.relay else {
            self.meter.feed(chunk);
            return Step::Continue;
        };
        let passed = tail.feed(chunk);
        self.meter.feed(&passed);
        Step::Pass(passed)
    }

    fn response_end(&mut self, whole: bool) -> Step {
        let Relay::Answered(tail) = &mut self.relay else { return Step::Continue };
        match tail.end(whole, "The connection to Amazon Bedrock broke off before the stream was complete.") {
            Ending::Whole(last) => {
                self.meter.feed(&last);
                Step::Pass(last)
            }
            Ending::Told(exception) => {
                self.facts.error.get_or_insert_with(|| "ServiceUnavailableException".to_owned());
                Step::Pass(exception)
            }
            Ending::Torn => {
                self.facts.error.get_or_insert_with(|| "StreamBrokenOff".to_owned());
                Step::Cut
            }
        }
    }
}

// === parts ===

fn recognise(headers: &Headers) -> Result<Call, Refusal> {
    let method = headers.get_str(":method").ok_or(Refusal::RequestLine("method"))?;
    let path = headers.get_str(":path").ok_or(Refusal::RequestLine("path"))?;
    Ok(Call::recognise(method, path)?)
}

/// Puts the model that the policy means into the call.
fn resolve(mut call: Call, policy: &Policy) -> Result<Call, Refusal> {
    if call.operation == Operation::StartAsyncInvoke && policy.depends_on_model() {
        return Err(Refusal::HiddenModel(call.operation));
    }
    if let (true, Some(id)) = (call.operation.names_model(), call.labels.first_mut()) {
        *id = policy.resolve_model(id)?;
    }
    Ok(call)
}

fn content_length(headers: &Headers) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get_only("content-length")? else { return Ok(None) };
    let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    Ok(Some(length.ok_or_else(|| Refusal::HeaderValue("content-length".to_owned()))?))
}

fn is_id(text: &str) -> bool {
    (1..=MAX_REQUEST_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// `ThrottlingException:http://…` → `ThrottlingException`.
fn error_type(value: &str) -> Option<String> {
    let name = value.split(':').next().unwrap_or_default();
    let name = name.rsplit('#').next().unwrap_or_default().trim();
    ((1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| name.to_owned())
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
