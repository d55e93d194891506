//! A stream of a cluster's upstream chain (role `signer`): one for every attempt.

use crate::apply::{apply, apply_woken, fail, send_reply};
use crate::host::{self, HostError};
use crate::memory::on_wiped_stack;
use crate::plugin::Plugin;
use crate::relay_state;
use crate::waiting::Waiter;
use filter_core::attempt::{Attempt, AttemptInput, MAX_REFUSAL, RetryDecision};
use filter_core::envoy_names::{
    ATTEMPT_PROPERTY, ENDPOINT_PATH, ENDPOINT_REGION, HANDOFF_PROPERTY, LEAVE_HEADER, RETRY_HEADER,
};
use filter_core::reply::Refusal;
use filter_core::step::RequestStep;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Without a plugin it refuses.
#[derive(Debug)]
pub(crate) struct Upstream {
    context: u32,
    call: Option<Rc<Call>>,
}

/// An attempt, which its root context wakes if it waits.
#[derive(Debug)]
struct Call {
    plugin: Rc<Plugin>,
    attempt: RefCell<Attempt>,
    /// Whether a response is held until its body is complete.
    reads_response: Cell<bool>,
}

impl Upstream {
    pub(crate) fn new(context: u32, plugin: Option<Rc<Plugin>>) -> Self {
        let call = plugin
            .map(|plugin| Rc::new(Call { plugin, attempt: RefCell::default(), reads_response: Cell::new(false) }));
        Self { context, call }
    }

    /// To let the body pass would let the held headers go with it.
    fn pass_if_signed(&self) -> Action {
        let signed = self.call.as_ref().is_some_and(|call| call.attempt.borrow().is_signed());
        if signed { Action::Continue } else { Action::Pause }
    }
}

impl Call {
    /// Signs the attempt. A call in the relay leaves its endpoint there.
    fn sign(&self) -> Result<RequestStep, HostError> {
        let headers = host::request_headers()?;
        let handoff = host::property(&[HANDOFF_PROPERTY]);
        let previous = host::property(&[ATTEMPT_PROPERTY]);
        let (path, region) = (host::property(ENDPOINT_PATH), host::property(ENDPOINT_REGION));
        let input = AttemptInput {
            handoff: handoff.as_deref(),
            previous: previous.as_deref(),
            path: path.as_deref(),
            region: region.as_deref(),
        };
        let now = host::now()?;
        let step = on_wiped_stack(|| self.attempt.borrow_mut().request(&headers, input, self.plugin.context(now)));
        if let (RequestStep::Forward(forward), Some(id)) = (&step, self.attempt.borrow().relayed()) {
            let text = |label: Option<Vec<u8>>| label.and_then(|label| String::from_utf8(label).ok());
            let facts = forward.states.iter().find(|(name, _)| *name == ATTEMPT_PROPERTY);
            relay_state::update(id, |progress| {
                progress.attempt = facts.map(|(_, value)| value.clone());
                (progress.path, progress.region, progress.attempts) = (text(path), text(region), host::attempts());
            });
        }
        Ok(step)
    }

    /// Sets the headers of a retry, or holds those of a response without a body so far, or of one that is read. An upstream's own
    /// are removed first.
    fn on_response(&self, end_of_stream: bool) -> Result<Action, HostError> {
        let headers = host::response_headers()?;
        for name in [RETRY_HEADER, LEAVE_HEADER] {
            if headers.get(name).is_some() {
                host::remove_response_header(name)?;
            }
        }
        let context = self.plugin.context(host::now()?);
        let decision = self.attempt.borrow_mut().response(&headers, context);
        self.carry_out(&decision)?;
        let attempt = self.attempt.borrow();
        let reads = !end_of_stream && !decision.retry && attempt.reads_refusal(&headers, context);
        self.reads_response.set(reads);
        let hold = reads || (!end_of_stream && !decision.retry && attempt.holds_headers(&headers, context));
        Ok(if hold { Action::Pause } else { Action::Continue })
    }

    /// Takes what there is of the body of a response that is read. Only one that ends here may be retried: Envoy's router drops the
    /// body of a response that it retries (<https://github.com/envoyproxy/envoy/pull/41879>; seen on Envoy 1.40), and not trailers.
    fn on_response_body(&self, body_size: usize, end_of_stream: bool) -> Result<Action, HostError> {
        if !end_of_stream && body_size <= MAX_REFUSAL {
            return Ok(Action::Pause);
        }
        self.reads_response.set(false);
        if body_size <= MAX_REFUSAL {
            let body = host::response_body(0, body_size)?;
            let decision = self.attempt.borrow().refusal(&body, self.plugin.context(host::now()?));
            self.carry_out(&decision)?;
        }
        Ok(Action::Continue)
    }

    fn carry_out(&self, decision: &RetryDecision) -> Result<(), HostError> {
        for sample in &decision.samples {
            self.plugin.metrics.add(sample);
        }
        if let Some(state) = &decision.state {
            host::set_property(ATTEMPT_PROPERTY, state)?;
            if let Some(id) = self.attempt.borrow().relayed() {
                relay_state::update(id, |progress| progress.attempt = Some(state.clone()));
            }
        }
        if let Some(region) = &decision.leave {
            host::add_response_header(LEAVE_HEADER, region.as_str())?;
        }
        if decision.retry {
            host::add_response_header(RETRY_HEADER, "1")?;
        }
        if let Some(learnt) = &decision.learnt {
            host::log(LogLevel::Info, learnt);
        }
        Ok(())
    }

    /// A response passes if it cannot be decided about.
    fn passes(error: HostError) -> Action {
        host::log(LogLevel::Error, &format!("a response passes without a retry decision: {error}"));
        Action::Continue
    }
}

impl Waiter for Call {
    fn look(&self) -> bool {
        let fail = |error: HostError| fail(error, "");
        match self.sign() {
            Ok(step) => apply_woken(step, |step| apply(step, "").unwrap_or_else(fail), fail),
            Err(error) => {
                fail(error);
                false
            }
        }
    }
}

/// An attempt may end without a response: its client left, or its connection was lost.
impl Drop for Upstream {
    fn drop(&mut self) {
        let Some(call) = self.call.as_ref().filter(|call| call.attempt.borrow().waits_for_end()) else { return };
        if let Ok(now) = host::now() {
            call.attempt.borrow_mut().end(call.plugin.context(now));
        }
    }
}

impl Context for Upstream {}

impl HttpContext for Upstream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let Some(call) = &self.call else { return send_reply(&Refusal::NotConfigured.reply(), "") };
        let step = call.sign();
        if let Ok(RequestStep::AwaitCredentials) = &step {
            let waiter: Rc<dyn Waiter> = Rc::<Call>::clone(call);
            call.plugin.waiting.add(self.context, &waiter);
        }
        step.and_then(|step| apply(step, "")).unwrap_or_else(|error| fail(error, ""))
    }

    fn on_http_request_body(&mut self, _: usize, _: bool) -> Action {
        self.pass_if_signed()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.pass_if_signed()
    }

    /// Headers that are held leave with the first byte of the body, for which the callback of the body continues.
    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let Some(call) = &self.call else { return Action::Continue };
        call.on_response(end_of_stream).unwrap_or_else(Call::passes)
    }

    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        let Some(call) = self.call.as_ref().filter(|call| call.reads_response.get()) else { return Action::Continue };
        call.on_response_body(body_size, end_of_stream).unwrap_or_else(Call::passes)
    }
}
