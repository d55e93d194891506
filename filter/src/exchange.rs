//! Envoy's HTTP callbacks as events for `filter_core`, and its steps carried out.

use crate::host::{self, HostError};
use crate::relay;
use crate::root::Plugin;
use crate::waiting::Sleeper;
use audit::ExchangeFacts;
use filter_core::attempt::{self, RETRY_HEADER, Told};
use filter_core::exchange::{ATTEMPT_PROPERTY, EXCHANGE_PROPERTY, Endpoint, Event, Exchange, HANDOFF_PROPERTY, Step};
use filter_core::reply::{Refusal, Reply};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};
use std::cell::{RefCell, RefMut};
use std::rc::Rc;

/// Bodies are read in pieces of this size, so that a large one costs no more memory than a small one.
const PIECE: usize = 64 << 10;
/// Where Envoy keeps the labels of the endpoint that an attempt goes to.
const ENDPOINT_PATH: &[&str] = &["xds", "upstream_host_metadata", "filter_metadata", "bedrock", "path"];
const ENDPOINT_REGION: &[&str] = &["xds", "upstream_host_metadata", "filter_metadata", "bedrock", "region"];
const ATTEMPTS: &[&str] = &["upstream", "request_attempt_count"];

/// The header by which SDKs tell their users the request's id.
const REQUEST_ID: &str = "x-amzn-requestid";

/// A stream of the downstream chain: roles `gateway` and `combined`.
#[derive(Debug)]
pub struct Downstream {
    context: u32,
    plugin: Option<Rc<Plugin>>,
    call: Rc<Held>,
    /// Bytes of the held request body that the exchange has seen.
    seen: usize,
    response_complete: bool,
}

/// An exchange, which its root context wakes if it waits.
#[derive(Debug)]
struct Held(RefCell<Exchange>);

/// A stream of a cluster's upstream chain: role `signer`, one for every attempt.
#[derive(Debug)]
pub struct Attempt {
    context: u32,
    plugin: Option<Rc<Plugin>>,
    attempt: Rc<Try>,
}

/// An attempt, likewise.
#[derive(Debug, Default)]
struct Try(RefCell<attempt::Attempt>);

// === impl Downstream ===

impl Downstream {
    /// A new stream; without a plugin it refuses.
    pub fn new(context: u32, plugin: Option<Rc<Plugin>>) -> Self {
        let call = Rc::new(Held(RefCell::new(Exchange::new(host::unique_id()))));
        Self { context, plugin, call, seen: 0, response_complete: false }
    }

    fn exchange(&self) -> RefMut<'_, Exchange> {
        self.call.0.borrow_mut()
    }

    fn on(&mut self, event: Event<'_>) -> Action {
        let step = match (&self.plugin, host::now()) {
            (Some(plugin), Ok(now)) => self.exchange().on(event, plugin.given(now)),
            (None, _) => self.exchange().refuse(&Refusal::NotConfigured),
            (_, Err(error)) => self.exchange().refuse(&Refusal::Host(error.to_string())),
        };
        if let (Step::AwaitCredentials, Some(plugin)) = (&step, &self.plugin) {
            let sleeper: Rc<dyn Sleeper> = Rc::<Held>::clone(&self.call);
            plugin.waiting.add(self.context, &sleeper);
        }
        self.call.carry_out(step)
    }

    fn fail(&mut self, error: HostError) -> Action {
        self.call.fail(error)
    }

    fn principal(&self) -> Option<String> {
        let sources = self.plugin.iter().flat_map(|plugin| &plugin.policy.principal);
        sources.filter_map(|source| String::from_utf8(host::property(&source.property())?).ok()).next()
    }
}

impl Held {
    fn carry_out(&self, step: Step) -> Action {
        let carried = carry_out(step, self.0.borrow().request_id());
        carried.unwrap_or_else(|error| self.fail(error))
    }

    fn fail(&self, error: HostError) -> Action {
        let refusal = Refusal::Host(error.to_string());
        let mut exchange = self.0.borrow_mut();
        exchange.refuse(&refusal);
        answer(&refusal.reply(), exchange.request_id())
    }
}

impl Sleeper for Held {
    fn look(&self, plugin: &Plugin) -> bool {
        let step = match host::now() {
            Ok(now) => self.0.borrow_mut().on(Event::Tick, plugin.given(now)),
            Err(error) => self.0.borrow_mut().refuse(&Refusal::Host(error.to_string())),
        };
        wake(step, |step| self.carry_out(step), |error| self.fail(error))
    }
}

impl Context for Downstream {}

impl HttpContext for Downstream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        match host::request_headers() {
            Ok(headers) => {
                let principal = self.principal();
                self.on(Event::RequestHeaders { headers: &headers, principal, end_of_stream })
            }
            Err(error) => self.fail(error),
        }
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        if !self.exchange().holds_request_body() {
            self.seen = 0;
        }
        let action = self.read_body(body_size, end_of_stream);
        if !self.exchange().discards_request_body() {
            return action;
        }
        self.seen = 0;
        host::discard_request_body().map_or_else(|error| self.fail(error), |()| action)
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        match host::clear_request_trailers() {
            Ok(()) => self.on(Event::RequestTrailers),
            Err(error) => self.fail(error),
        }
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.response_complete = end_of_stream;
        match host::response_headers() {
            Ok(headers) => {
                // Envoy's own answer to what it could not read, or got no answer for: the client is told our id.
                if headers.get(REQUEST_ID).is_none()
                    && let Err(error) = host::add_response_header(REQUEST_ID, self.exchange().request_id())
                {
                    host::log(LogLevel::Error, &format!("a response leaves without its id: {error}"));
                }
                let relayed = self.exchange().is_relayed();
                let relayed = relayed && relay::reached(self.exchange().request_id()).answered;
                self.on(Event::ResponseHeaders { headers: &headers, relayed })
            }
            // The answer itself is whole; only the audit knows less of it.
            Err(error) => {
                host::log(LogLevel::Error, &format!("response headers unread: {error}"));
                Action::Continue
            }
        }
    }

    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        self.response_complete = end_of_stream;
        if self.exchange().rewrites_response_body() {
            return self.rewrite(body_size, end_of_stream).unwrap_or_else(|error| {
                // What passed would lack what could not be read.
                host::log(LogLevel::Error, &format!("a stream is cut off: {error}"));
                cut()
            });
        }
        let mut start = 0;
        while start < body_size && self.exchange().wants_response_body() {
            let chunk = host::response_body(start, (body_size - start).min(PIECE)).unwrap_or_default();
            if chunk.is_empty() {
                host::log(LogLevel::Error, "response body unread: usage may be missing from the audit");
                break;
            }
            start += chunk.len();
            self.on(Event::ResponseBody { chunk: &chunk });
        }
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.response_complete = true;
        Action::Continue
    }

    /// Envoy's access logs are written after this.
    fn on_log(&mut self) {
        let mut facts = self.exchange().facts(self.response_complete);
        let relayed = self.exchange().is_relayed();
        let reached = relayed.then(|| relay::reached(&facts.id));
        if let Some(reached) = &reached {
            facts.relayed = Some(reached.facts());
            if let Some(attempt) = &reached.attempt
                && let Err(error) = host::set_property(ATTEMPT_PROPERTY, attempt)
            {
                host::log(LogLevel::Error, &format!("audit facts of {} lost: {error}", facts.id));
            }
        }
        if let Err(error) = host::set_property(EXCHANGE_PROPERTY, &facts.to_json()) {
            host::log(LogLevel::Error, &format!("audit facts of {} lost: {error}", facts.id));
        }
        self.count(&facts, reached.as_ref());
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        relay::forget(self.exchange().request_id());
    }
}

impl Downstream {
    fn count(&self, facts: &ExchangeFacts, reached: Option<&relay::Reached>) {
        let (Some(plugin), Ok(now)) = (&self.plugin, host::now()) else { return };
        let text = |path| host::property(path).and_then(|value| String::from_utf8(value).ok());
        let (attempts, path, region) = match reached {
            Some(reached) => (reached.attempts, reached.path.clone(), reached.region.clone()),
            None if attempts() > 0 => (attempts(), text(ENDPOINT_PATH), text(ENDPOINT_REGION)),
            None => (0, None, None),
        };
        let endpoint = Endpoint { path: path.as_deref(), region: region.as_deref(), attempts };
        for sample in self.exchange().settle(facts, endpoint, plugin.given(now)) {
            plugin.metrics.add(&sample);
        }
    }

    /// The response of a call that came through the relay: what passes of this piece of it, and how it ends.
    fn rewrite(&mut self, body_size: usize, end_of_stream: bool) -> Result<Action, HostError> {
        let (mut passed, mut start) = (Vec::new(), 0);
        while start < body_size {
            let chunk = host::response_body(start, (body_size - start).min(PIECE))?;
            if chunk.is_empty() {
                return Err(HostError::SHORT_BODY);
            }
            start += chunk.len();
            let Some(bytes) = self.rewritten(Event::ResponseBody { chunk: &chunk }) else { return Ok(cut()) };
            passed.extend(bytes);
        }
        if end_of_stream {
            let whole = relay::reached(self.exchange().request_id()).whole;
            let Some(bytes) = self.rewritten(Event::ResponseEnd { whole }) else { return Ok(cut()) };
            passed.extend(bytes);
        }
        host::replace_response_body(&passed)?;
        Ok(Action::Continue)
    }

    /// What passes; `None`, the stream is to be cut.
    fn rewritten(&mut self, event: Event<'_>) -> Option<Vec<u8>> {
        let plugin = self.plugin.as_ref()?;
        let now = host::now().ok()?;
        match self.exchange().on(event, plugin.given(now)) {
            Step::Pass(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn read_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        while self.exchange().wants_request_body() {
            // While the request is held, `body_size` counts all of the body that is here.
            let wanted = body_size.saturating_sub(self.seen).min(PIECE);
            let chunk = match host::request_body(self.seen, wanted) {
                Ok(chunk) if chunk.len() == wanted => chunk,
                Ok(_) => return self.on_short_body(),
                Err(error) => return self.fail(error),
            };
            self.seen += wanted;
            let last = self.seen >= body_size;
            let action = self.on(Event::RequestBody { chunk: &chunk, end_of_stream: last && end_of_stream });
            if last || !self.exchange().discards_request_body() && !self.exchange().wants_request_body() {
                return action;
            }
        }
        // What was read of it before it grew too long is counted.
        let length = body_size.saturating_sub(self.seen);
        self.seen = body_size;
        self.on(Event::RequestBodyPassing { length, end_of_stream })
    }

    fn on_short_body(&mut self) -> Action {
        let refusal = Refusal::Host("the request body is shorter than announced".to_owned());
        let mut exchange = self.exchange();
        exchange.refuse(&refusal);
        answer(&refusal.reply(), exchange.request_id())
    }
}

// === impl Attempt ===

impl Attempt {
    /// A new attempt; without a plugin it refuses.
    pub fn new(context: u32, plugin: Option<Rc<Plugin>>) -> Self {
        Self { context, plugin, attempt: Rc::default() }
    }

    /// Whether Envoy tries again is said here, and only here: an upstream cannot say it.
    fn judge(&self) -> Result<(), HostError> {
        let Some(plugin) = &self.plugin else { return Ok(()) };
        let headers = host::response_headers()?;
        if headers.get(RETRY_HEADER).is_some() {
            host::remove_response_header(RETRY_HEADER)?;
        }
        let answered = self.attempt.0.borrow().response(&headers, plugin.given(host::now()?));
        for sample in &answered.samples {
            plugin.metrics.add(sample);
        }
        if let Some(state) = &answered.state {
            host::set_property(ATTEMPT_PROPERTY, state)?;
            if let Some(id) = self.attempt.0.borrow().relayed() {
                relay::note(id, |reached| reached.attempt = Some(state.clone()));
            }
        }
        if answered.retry { host::add_response_header(RETRY_HEADER, "1") } else { Ok(()) }
    }
}

impl Try {
    /// Signs; a call that came through the relay leaves there where it went.
    fn sign(&self, plugin: &Plugin) -> Result<Step, HostError> {
        let headers = host::request_headers()?;
        let handoff = host::property(&[HANDOFF_PROPERTY]);
        let previous = host::property(&[ATTEMPT_PROPERTY]);
        let (path, region) = (host::property(ENDPOINT_PATH), host::property(ENDPOINT_REGION));
        let told = Told {
            handoff: handoff.as_deref(),
            previous: previous.as_deref(),
            path: path.as_deref(),
            region: region.as_deref(),
        };
        let step = self.0.borrow_mut().request(&headers, told, plugin.given(host::now()?));
        if let (Step::Forward(forward), Some(id)) = (&step, self.0.borrow().relayed()) {
            let text = |label: Option<Vec<u8>>| label.and_then(|label| String::from_utf8(label).ok());
            relay::note(id, |reached| {
                reached.attempt =
                    forward.states.iter().find(|(name, _)| *name == ATTEMPT_PROPERTY).map(|(_, value)| value.clone());
                (reached.path, reached.region, reached.attempts) = (text(path), text(region), attempts());
            });
        }
        Ok(step)
    }
}

impl Sleeper for Try {
    fn look(&self, plugin: &Plugin) -> bool {
        let fail = |error: HostError| answer(&Refusal::Host(error.to_string()).reply(), "");
        match self.sign(plugin) {
            Ok(step) => wake(step, |step| carry_out(step, "").unwrap_or_else(fail), fail),
            Err(error) => {
                fail(error);
                false
            }
        }
    }
}

impl Context for Attempt {}

impl HttpContext for Attempt {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let Some(plugin) = &self.plugin else { return answer(&Refusal::NotConfigured.reply(), "") };
        let step = self.attempt.sign(plugin);
        if let Ok(Step::AwaitCredentials) = &step {
            let sleeper: Rc<dyn Sleeper> = Rc::<Try>::clone(&self.attempt);
            plugin.waiting.add(self.context, &sleeper);
        }
        step.and_then(|step| carry_out(step, ""))
            .unwrap_or_else(|error| answer(&Refusal::Host(error.to_string()).reply(), ""))
    }

    fn on_http_request_body(&mut self, _: usize, _: bool) -> Action {
        // To let the body pass would let the held headers go with it.
        if self.attempt.0.borrow().is_signed() { Action::Continue } else { Action::Pause }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        if self.attempt.0.borrow().is_signed() { Action::Continue } else { Action::Pause }
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if let Err(error) = self.judge() {
            host::log(LogLevel::Error, &format!("an answer passes without a look at it: {error}"));
        }
        Action::Continue
    }
}

// === steps ===

/// Tries up to now, the one that goes on included.
fn attempts() -> u64 {
    host::property(ATTEMPTS).and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes)
}

pub(crate) fn carry_out(step: Step, request_id: &str) -> Result<Action, HostError> {
    match step {
        Step::Continue => Ok(Action::Continue),
        Step::AwaitBody | Step::AwaitCredentials | Step::Discard => Ok(Action::Pause),
        Step::Reply(reply) => Ok(answer(&reply, request_id)),
        Step::Forward(forward) => {
            // The headers last: nothing that follows a failure may leave the request ready to go.
            for (name, value) in &forward.states {
                host::set_property(name, value)?;
            }
            host::set_request_headers(&forward.headers)?;
            if let Some(relayed) = forward.relayed {
                relay::send(request_id, relayed);
            }
            Ok(Action::Continue)
        }
        // Of a response's body, which is seen to where it is read.
        Step::Pass(_) | Step::Cut => Ok(Action::Continue),
    }
}

/// Cuts the client's response off, so that its end is not taken for one.
fn cut() -> Action {
    host::reset_response();
    Action::Pause
}

/// Carries out what a stream that was woken is to do. Says whether it waits still.
fn wake(step: Step, carry_out: impl FnOnce(Step) -> Action, fail: impl FnOnce(HostError) -> Action) -> bool {
    if step == Step::AwaitCredentials {
        return true;
    }
    if carry_out(step) == Action::Continue
        && let Err(error) = host::continue_request()
    {
        fail(error);
    }
    false
}

/// Answers the client, or cuts it off if even that cannot be done; either way nothing goes upstream.
pub(crate) fn answer(reply: &Reply, request_id: &str) -> Action {
    if let Err(error) = host::send_reply(reply.status, "bedrock_gateway", &reply.headers(request_id), &reply.body()) {
        host::log(LogLevel::Error, &format!("request {request_id} reset, since its reply failed: {error}"));
        host::reset_request();
    }
    Action::Pause
}
