//! A stream of the downstream chain (roles `gateway` and `combined`).

mod response;

use crate::apply::{apply, apply_woken, reset_response};
use crate::buffered::{self, Buffering};
use crate::collector::{self, Intending};
use crate::connections;
use crate::host::{self, HostError};
use crate::memory::on_wiped_stack;
use crate::plugin::Plugin;
use crate::relay_state::{self, RelayProgress};
use crate::waiting::Waiter;
use audit::notice::{End, Intent};
use audit::{AttemptFacts, ExchangeFacts};
use filter_core::buffers::{Full, UNCOUNTED};
use filter_core::caller::Caller;
use filter_core::config::{Principal, Role};
use filter_core::envoy_names::{ATTEMPT_PROPERTY, ENDPOINT_PATH, ENDPOINT_REGION, EXCHANGE_PROPERTY};
use filter_core::exchange::{Endpoint, Exchange};
use filter_core::intent::IntentError;
use filter_core::principal::PrincipalError;
use filter_core::reply::Refusal;
use filter_core::shared::millis;
use filter_core::step::{RequestBodyMode, RequestEvent, RequestStep, ResponseBodyMode};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};
use std::cell::{Cell, RefCell, RefMut};
use std::rc::{Rc, Weak};

/// Bodies are read in chunks of this size, so that a large one costs no more memory than a small one.
const CHUNK: usize = 64 << 10;
/// Room for what a body that is edited gains.
const ROOM: usize = 16 << 10;
/// Headers up to this size are not counted: the limit of calls bounds them.
const UNCOUNTED_HEADERS: usize = 8 << 10;
/// Measured: 60 KB of headers take up to 250 KB while a call is held.
const COPIES_OF_HEADERS: usize = 4;
/// The header from which SDKs show the request's id.
const REQUEST_ID: &str = "x-amzn-requestid";

/// Without a plugin it refuses.
#[derive(Debug)]
pub(crate) struct Downstream {
    context: u32,
    call: Rc<Call>,
    /// Bytes of the buffered response body that the exchange has seen.
    held: usize,
    response_complete: bool,
    /// Whether the request's headers came here.
    heard: bool,
}

/// An exchange, which its root context wakes if it waits.
#[derive(Debug)]
pub(crate) struct Call {
    this: Weak<Self>,
    context: u32,
    plugin: Option<Rc<Plugin>>,
    exchange: RefCell<Exchange>,
    /// Bytes of the buffered request body that the exchange has seen.
    seen: Cell<usize>,
}

// === impl Call ===

impl Call {
    fn on_request(&self, event: RequestEvent<'_>) -> RequestStep {
        let mut exchange = self.exchange.borrow_mut();
        match (&self.plugin, host::now()) {
            // The one role here that signs.
            (Some(plugin), Ok(now)) if plugin.policy.role == Role::Combined => {
                on_wiped_stack(|| exchange.on_request(event, plugin.context(now)))
            }
            (Some(plugin), Ok(now)) => exchange.on_request(event, plugin.context(now)),
            (None, _) => exchange.refuse(&Refusal::NotConfigured),
            (_, Err(error)) => exchange.refuse(&Refusal::Host(error.to_string())),
        }
    }

    /// Gives the exchange the buffered body again, from its beginning. Returns the step that follows.
    fn read_again(&self, length: u64, complete: bool) -> RequestStep {
        self.seen.set(0);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        loop {
            let wanted = (length - self.seen.get()).min(CHUNK);
            let chunk = match host::request_body(self.seen.get(), wanted) {
                Ok(chunk) if chunk.len() == wanted => chunk,
                Ok(_) => return self.exchange.borrow_mut().refuse(&Refusal::Host(HostError::SHORT_BODY.to_string())),
                Err(error) => return self.exchange.borrow_mut().refuse(&Refusal::Host(error.to_string())),
            };
            self.seen.set(self.seen.get() + wanted);
            let last = self.seen.get() >= length;
            let step = self.on_request(RequestEvent::Body { chunk: &chunk, end_of_stream: last && complete });
            if last || step != RequestStep::AwaitBody {
                return step;
            }
        }
    }

    /// Lets the exchange edit the whole body, which takes that much of the VM's memory for this callback.
    fn edit_body(&self) -> Result<Action, HostError> {
        let length = self.seen.get();
        let mut body = Vec::with_capacity(length + ROOM);
        while body.len() < length {
            let chunk = host::request_body(body.len(), (length - body.len()).min(CHUNK))?;
            if chunk.is_empty() {
                return Err(HostError::SHORT_BODY);
            }
            body.extend(chunk);
        }
        let step = self.on_request(RequestEvent::WholeBody { body: &mut body });
        if !matches!(step, RequestStep::Reply(_)) {
            host::replace_request_body(&body)?;
        }
        if matches!(step, RequestStep::AwaitCredentials | RequestStep::AwaitResolution) {
            self.wait();
        }
        Ok(self.apply(step))
    }

    /// Carries out a step, and counts what the call occupies from then on.
    fn apply(&self, step: RequestStep) -> Action {
        if let RequestStep::RecordIntent(intent) = step {
            return self.record(*intent);
        }
        if matches!(step, RequestStep::Reply(_) | RequestStep::Answer(_)) && !self.may_reply() {
            host::reset_request();
            return Action::Pause;
        }
        self.note();
        let applied = apply(step, self.exchange.borrow().request_id());
        applied.unwrap_or_else(|error| self.fail(error))
    }

    /// Asks the collector to record the intent.
    fn record(&self, intent: Intent) -> Action {
        let Some(plugin) = &self.plugin else { return self.refuse(&Refusal::NotConfigured) };
        self.note();
        let this: Weak<dyn Intending> = Weak::<Self>::clone(&self.this);
        if let Err(error) = collector::record(plugin, self.context, this, intent) {
            let step = self.on_intent(Err(error));
            return step.map_or(Action::Pause, |step| self.apply(step));
        }
        Action::Pause
    }

    fn on_intent(&self, answer: Result<(), IntentError>) -> Option<RequestStep> {
        let mut exchange = self.exchange.borrow_mut();
        match (&self.plugin, host::now()) {
            (Some(plugin), Ok(now)) if plugin.policy.role == Role::Combined => {
                on_wiped_stack(|| exchange.on_intent(answer, plugin.context(now)))
            }
            (Some(plugin), Ok(now)) => exchange.on_intent(answer, plugin.context(now)),
            (None, _) => Some(exchange.refuse(&Refusal::NotConfigured)),
            (_, Err(error)) => Some(exchange.refuse(&Refusal::Host(error.to_string()))),
        }
    }

    /// Lets the root context look after this call on its ticks.
    fn wait(&self) {
        if let (Some(plugin), Some(this)) = (&self.plugin, self.this.upgrade()) {
            let waiter: Rc<dyn Waiter> = this;
            plugin.waiting.add(self.context, &waiter);
        }
    }

    fn note(&self) {
        buffered::note(self.context, self.exchange.borrow().phase());
    }

    fn may_reply(&self) -> bool {
        self.plugin.as_ref().is_none_or(|plugin| buffered::may_reply(self.context, &plugin.policy.budgets))
    }

    fn fail(&self, error: HostError) -> Action {
        self.refuse(&Refusal::Host(error.to_string()))
    }

    pub(crate) fn refuse(&self, refusal: &Refusal) -> Action {
        let step = self.exchange.borrow_mut().refuse(refusal);
        self.apply(step)
    }
}

impl Buffering for Call {
    fn evict(self: Rc<Self>, full: Full) {
        if let (Some(_), Ok(now)) = (&self.plugin, host::now())
            && self.exchange.borrow_mut().evict(full, now)
        {
            self.wait();
        }
    }

    fn caller(&self) -> Caller {
        self.exchange.borrow().caller(host::source_address)
    }
}

impl Waiter for Call {
    fn look(&self) -> bool {
        let mut step = self.on_request(RequestEvent::Tick);
        if let RequestStep::ReadBody { length, complete } = step {
            step = self.read_again(length, complete);
        }
        if step == RequestStep::EditBody {
            let action = self.edit_body().unwrap_or_else(|error| self.fail(error));
            return apply_woken(RequestStep::Continue, |_| action, |error| self.fail(error));
        }
        apply_woken(step, |step| self.apply(step), |error| self.fail(error))
    }
}

impl Intending for Call {
    fn answered(self: Rc<Self>, answer: Result<(), IntentError>) {
        if let Some(step) = self.on_intent(answer)
            && apply_woken(step, |step| self.apply(step), |error| self.fail(error))
        {
            self.wait();
        }
    }
}

// === impl Downstream: the request ===

impl Downstream {
    pub(crate) fn new(context: u32, plugin: Option<Rc<Plugin>>) -> Self {
        collector::begin();
        let exchange = RefCell::new(Exchange::new(host::unique_id()));
        Self {
            context,
            call: Rc::new_cyclic(|this| Call {
                this: Weak::clone(this),
                context,
                plugin,
                exchange,
                seen: Cell::new(0),
            }),
            held: 0,
            response_complete: false,
            heard: false,
        }
    }

    fn exchange(&self) -> RefMut<'_, Exchange> {
        self.call.exchange.borrow_mut()
    }

    fn on_request(&self, event: RequestEvent<'_>) -> Action {
        match self.call.on_request(event) {
            RequestStep::EditBody => self.call.edit_body().unwrap_or_else(|error| self.call.fail(error)),
            step => self.apply(step),
        }
    }

    fn apply(&self, step: RequestStep) -> Action {
        if matches!(step, RequestStep::AwaitCredentials | RequestStep::AwaitResolution) {
            self.call.wait();
        }
        self.call.apply(step)
    }

    /// Makes room for what is buffered. Returns the step if this call itself has to give way.
    fn keep_budgets(&self) -> Option<RequestStep> {
        let plugin = self.call.plugin.as_ref()?;
        let full = buffered::enforce(Some(self.context), self.context, &plugin.policy.budgets)?;
        let step = match host::now() {
            Ok(now) => self.exchange().give_way(full, now),
            Err(error) => self.exchange().refuse(&Refusal::Host(error.to_string())),
        };
        if step == RequestStep::DiscardBody {
            self.call.wait();
        }
        Some(step)
    }

    /// Refuses a call that gives way at once if too many others wait for the end of their bodies.
    fn hurry(&self) -> Option<RequestStep> {
        let plugin = self.call.plugin.as_ref()?;
        let waits = self.exchange().request_body_mode() == RequestBodyMode::Discard;
        if !waits || buffered::may_wait(self.context, &plugin.policy.budgets) {
            return None;
        }
        self.exchange().hurry()
    }

    /// The name that the first source has.
    fn principal(&self) -> Result<Option<String>, PrincipalError> {
        for source in self.call.plugin.iter().flat_map(|plugin| &plugin.policy.principal) {
            let value = match source {
                // Without TLS, or without a certificate, Envoy has no such property, or none of a type that it can give.
                Principal::Mtls {} => host::property(source.property()).unwrap_or_default(),
                Principal::Jwt { .. } => {
                    host::required_property(source.property()).map_err(|_| PrincipalError::Metadata)?
                }
            };
            if let Some(name) = source.name(value)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// The groups of all sources.
    fn groups(&self) -> Result<Vec<String>, PrincipalError> {
        let mut groups = Vec::new();
        for source in self.call.plugin.iter().flat_map(|plugin| &plugin.policy.groups) {
            let value = host::required_property(source.property()).map_err(|_| PrincipalError::Metadata)?;
            groups.extend(source.names(&value)?);
        }
        Ok(groups)
    }

    /// Gives the exchange what it has not seen of the body, of which `body_size` bytes are here.
    fn read_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        let mut mode = self.exchange().request_body_mode();
        while matches!(mode, RequestBodyMode::Hash | RequestBodyMode::Observe) {
            let wanted = body_size.saturating_sub(self.call.seen.get()).min(CHUNK);
            let chunk = match host::request_body(self.call.seen.get(), wanted) {
                Ok(chunk) if chunk.len() == wanted => chunk,
                Ok(_) => {
                    let problem = "the request body is shorter than announced".to_owned();
                    return self.call.refuse(&Refusal::Host(problem));
                }
                Err(error) => return self.call.fail(error),
            };
            self.call.seen.set(self.call.seen.get() + wanted);
            let last = self.call.seen.get() >= body_size;
            let action = self.on_request(RequestEvent::Body { chunk: &chunk, end_of_stream: last && end_of_stream });
            mode = self.exchange().request_body_mode();
            let goes_on = [RequestBodyMode::Hash, RequestBodyMode::Observe, RequestBodyMode::Discard].contains(&mode);
            if last || !goes_on {
                return action;
            }
        }
        // What was hashed of a body before it grew too long is counted already.
        let length = body_size.saturating_sub(self.call.seen.get());
        self.call.seen.set(body_size);
        self.on_request(RequestEvent::UnreadBody { length, end_of_stream })
    }
}

// === impl Downstream: the end ===

impl Downstream {
    /// Lets the collector know the end of a call of which it has an intent.
    fn report_end(&self, facts: &ExchangeFacts, progress: Option<&RelayProgress>) {
        let own = host::property(&[ATTEMPT_PROPERTY]);
        let attempt = progress.and_then(|progress| progress.attempt.as_ref()).or(own.as_ref());
        collector::end(End {
            time_ms: host::now().map(millis).unwrap_or_default(),
            status: host::response_code().unwrap_or_default(),
            exchange: facts.clone(),
            attempt: attempt.and_then(|json| AttemptFacts::from_json(json)),
        });
    }

    fn add_metrics(&self, facts: &ExchangeFacts, progress: Option<&RelayProgress>) {
        let (Some(plugin), Ok(now)) = (&self.call.plugin, host::now()) else { return };
        let text = |path| host::property(path).and_then(|value| String::from_utf8(value).ok());
        let (attempts, path, region) = match (progress, host::attempts()) {
            (Some(progress), _) => (progress.attempts, progress.path.clone(), progress.region.clone()),
            (None, 0) => (0, None, None),
            (None, attempts) => (attempts, text(ENDPOINT_PATH), text(ENDPOINT_REGION)),
        };
        let endpoint = Endpoint { path: path.as_deref(), region: region.as_deref(), attempts };
        for sample in self.exchange().settle(facts, endpoint, plugin.context(now)) {
            plugin.metrics.add(&sample);
        }
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        relay_state::forget(self.exchange().request_id());
        buffered::end(self.context);
        collector::forget(self.context);
    }
}

// === callbacks ===

impl Context for Downstream {
    fn on_http_call_response(&mut self, token: u32, headers: usize, _body_size: usize, _trailers: usize) {
        if let Some(plugin) = self.call.plugin.clone() {
            collector::on_response(&plugin, token, headers > 0, self.context);
        }
    }
}

impl HttpContext for Downstream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        connections::hear();
        self.heard = true;
        if let Some(plugin) = &self.call.plugin {
            collector::announce(plugin, self.context);
        }
        match host::request_headers() {
            Ok(headers) => {
                let (principal, groups) = (self.principal(), self.groups());
                let plugin = self.call.plugin.as_ref();
                let address =
                    plugin.filter(|plugin| plugin.policy.tells_callers_apart()).and_then(|_| host::source_address());
                let event = RequestEvent::Headers { headers: &headers, principal, groups, end_of_stream, address };
                let step = self.call.on_request(event);
                let call: Rc<dyn Buffering> = Rc::<Call>::clone(&self.call);
                let size: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
                let counted = if size > UNCOUNTED_HEADERS { size * COPIES_OF_HEADERS } else { 0 };
                buffered::begin(self.context, &call, counted);
                // A call without a body gives way before it is sent.
                if !matches!(step, RequestStep::Forward(_)) {
                    self.call.note();
                }
                let step = self.keep_budgets().unwrap_or(step);
                self.apply(self.hurry().unwrap_or(step))
            }
            Err(error) => self.call.fail(error),
        }
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        // `body_size` counts all of a buffered body, and the new part of any other.
        let is_buffered = matches!(self.exchange().request_body_mode(), RequestBodyMode::Hash | RequestBodyMode::Hold);
        if !is_buffered {
            self.call.seen.set(0);
        }
        let new = body_size.saturating_sub(self.call.seen.get());
        let whole = end_of_stream && self.call.seen.get() == 0;
        let mut action = self.read_body(body_size, end_of_stream);
        if is_buffered && !(whole && new <= UNCOUNTED) && !self.exchange().is_refused() {
            buffered::grow(self.context, self.call.as_ref(), new);
            if !end_of_stream && let Some(step) = self.keep_budgets() {
                action = self.apply(step);
            }
        }
        if self.exchange().request_body_mode() != RequestBodyMode::Discard {
            return action;
        }
        self.call.seen.set(0);
        host::discard_request_body().map_or_else(|error| self.call.fail(error), |()| action)
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        match host::clear_request_trailers() {
            Ok(()) => self.on_request(RequestEvent::Trailers),
            Err(error) => self.call.fail(error),
        }
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.response_complete = end_of_stream;
        // The response itself is complete; only the audit record lacks facts.
        self.read_response_headers(end_of_stream).unwrap_or_else(|error| {
            if self.exchange().response_body_mode() == ResponseBodyMode::Hold {
                return Self::fail_held(error);
            }
            host::log(LogLevel::Error, &format!("response headers are not read: {error}"));
            Action::Continue
        })
    }

    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        self.response_complete = end_of_stream;
        let mode = self.exchange().response_body_mode();
        match mode {
            ResponseBodyMode::Ignore => Action::Continue,
            ResponseBodyMode::Observe => {
                if let Err(error) = self.observe_response(body_size) {
                    let problem = "the response body is not read, and the audit record may lack its usage";
                    host::log(LogLevel::Error, &format!("{problem}: {error}"));
                }
                Action::Continue
            }
            ResponseBodyMode::Hold => self.hold_response(body_size, end_of_stream).unwrap_or_else(Self::fail_held),
            // A chunk that cannot be rewritten must not pass.
            ResponseBodyMode::Rewrite => self.rewrite_response(body_size, end_of_stream).unwrap_or_else(|error| {
                host::log(LogLevel::Error, &format!("a stream is reset: {error}"));
                reset_response()
            }),
        }
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.response_complete = true;
        let mode = self.exchange().response_body_mode();
        match mode {
            ResponseBodyMode::Hold => self.edit_response().unwrap_or_else(Self::fail_held),
            ResponseBodyMode::Ignore | ResponseBodyMode::Observe | ResponseBodyMode::Rewrite => Action::Continue,
        }
    }

    /// Envoy writes its access logs after this.
    fn on_log(&mut self) {
        // A filter before this one may have answered. Headers that did not end in time (408) are not a request.
        if !self.heard && host::response_code().is_some_and(|code| code != 0 && code != 408) {
            connections::hear();
        }
        let mut facts = self.exchange().facts(self.response_complete);
        if facts.error.is_none() && facts.operation.is_none() {
            let details = host::property(&["response", "code_details"]).unwrap_or_default();
            let error = self.exchange().envoys_error(host::response_code().unwrap_or(0), &details);
            facts.error = error.map(str::to_owned);
        }
        let progress = self.exchange().is_relayed().then(|| relay_state::progress(&facts.id));
        let id = facts.id.clone();
        let lost = |error| host::log(LogLevel::Error, &format!("audit facts of {id} are lost: {error}"));
        if let Some(attempt) = progress.as_ref().and_then(|progress| progress.attempt.as_ref()) {
            host::set_property(ATTEMPT_PROPERTY, attempt).unwrap_or_else(lost);
        }
        facts.relayed = progress.as_ref().map(RelayProgress::facts);
        facts.vm = Some(collector::log());
        if self.exchange().has_intent() {
            self.report_end(&facts, progress.as_ref());
        }
        host::set_property(EXCHANGE_PROPERTY, &facts.to_json()).unwrap_or_else(lost);
        self.add_metrics(&facts, progress.as_ref());
    }
}
