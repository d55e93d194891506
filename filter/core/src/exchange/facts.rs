//! What is known of an exchange, for its record and for the metrics.

use super::{Exchange, Relay, State};
use crate::caller::{Address, Caller};
use crate::metrics::{self, Observation, Sample};
use crate::operation::Operation;
use crate::quota;
use crate::step::Context;
use audit::{Estimate, ExchangeFacts, RuleDecision};
use std::time::SystemTime;

/// How Envoy's response code details begin where `jwt_authn` refuses a token.
const TOKEN_REFUSED: &[u8] = b"jwt_authn";

/// Where the last attempt went, as Envoy reports it when the exchange is over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Endpoint<'a> {
    /// Its path label.
    pub path: Option<&'a str>,
    /// Its region label.
    pub region: Option<&'a str>,
    /// Attempts up to it, itself included.
    pub attempts: u64,
}

impl Exchange {
    /// Whether the call goes through the relay.
    pub fn is_relayed(&self) -> bool {
        !matches!(self.relay, Relay::Unused)
    }

    /// The request id: what the client sees, and the audit record's key.
    pub fn request_id(&self) -> &str {
        &self.facts.id
    }

    /// Whether the client left after its call was sent to a model, and before the response began.
    fn is_abandoned(&self) -> bool {
        matches!(self.state, State::Forwarded { .. })
            && self.times.response.is_none()
            && self.operation.is_some_and(Operation::uses_tokens)
    }

    /// Whether the collector may have an intent of the call, and has to be told of its end.
    pub fn has_intent(&self) -> bool {
        self.intent.was_asked()
    }

    /// Whether the gateway has refused the call.
    pub fn is_refused(&self) -> bool {
        matches!(self.state, State::Refused)
    }

    /// Who calls: `address` is asked for if the caller has no name.
    pub fn caller(&self, address: impl FnOnce() -> Option<Address>) -> Caller {
        self.facts.principal.as_deref().map_or_else(|| Caller::nameless(address()), Caller::named)
    }

    /// What is known of the exchange now. `complete` says whether the sender ended the response.
    pub fn facts(&self, complete: bool) -> ExchangeFacts {
        let reading = self.meter.reading(complete);
        ExchangeFacts {
            usage: reading.usage,
            served: reading.served,
            invoked: reading.invoked,
            guardrail: reading.guardrail,
            stream: reading.stream,
            estimate: if self.is_abandoned() {
                Some(Estimate { input: Some(quota::input_of(self.body_bytes)), output: None })
            } else {
                self.meter.estimate(self.body_bytes, complete)
            },
            error: self.facts.error.clone().or(reading.error),
            ..self.facts.clone()
        }
    }

    /// The error of a request that Envoy refused before its filters: the one that `local_reply_config` gives its reply of this
    /// status and these details.
    pub fn envoys_error(&self, status: u16, details: &[u8]) -> Option<&'static str> {
        match (&self.state, self.times.request, status) {
            (State::Start, None, 500..) => Some("ServiceUnavailableException"),
            (State::Start, None, 1..500) if details.starts_with(TOKEN_REFUSED) => Some("AccessDeniedException"),
            // Envoy's replies to gRPC's requests have the status 200.
            (State::Start, None, 1..500) => Some("ValidationException"),
            _ => None,
        }
    }

    /// Settles the exchange when it is over: charges the caller's allowance, and returns what it adds to the metrics.
    pub fn settle(&self, facts: &ExchangeFacts, endpoint: Endpoint<'_>, context: Context<'_>) -> Vec<Sample> {
        self.spending.settle(facts, self.is_abandoned(), context);
        let since = |end: SystemTime| end.duration_since(self.times.request?).ok();
        let model = self.model.as_deref().map(|id| if context.policy.names_model(id) { id } else { "other" });
        let mut samples = Observation {
            class: facts.class.as_deref(),
            path: endpoint.path,
            region: endpoint.region,
            model,
            error: facts.error.as_deref(),
            attempts: endpoint.attempts,
            usage: facts.usage,
            duration: since(context.now).unwrap_or_default(),
            first_byte: self.times.response.filter(|_| endpoint.attempts > 0).and_then(since),
        }
        .samples();
        if let Some(decision) = facts.rule_decision.filter(|decision| *decision != RuleDecision::Allowed) {
            samples.push(metrics::rule_refused(decision.name(), facts.rule.as_deref()));
        }
        samples
    }
}
