//! What the rules say of the call: by its headers or, where these do not decide, when its body is complete.

use super::Exchange;
use crate::catalogue::choice;
use crate::images::Images;
use crate::operation::{Call, Operation};
use crate::pending::PendingCall;
use crate::pins::Pins;
use crate::policy::Policy;
use crate::quota::Demand;
use crate::reply::Refusal;
use crate::request_body::has_model;
use crate::route::RouteClass;
use crate::rules::{Body, Decision, Denial, ModelId, Models, Subject};
use crate::step::Context;
use audit::RuleDecision;
use std::borrow::Cow;

/// What a body asks for, read as it arrives.
#[derive(Debug, Default)]
pub(super) struct Asked {
    demand: Demand,
    images: Images,
}

impl Exchange {
    /// Judges the call by what is known before its model: a rule that denies it whatever it runs.
    pub(super) fn judge_caller(&mut self, operation: Operation, context: Context<'_>) -> Result<(), Refusal> {
        if !context.policy.rules.enforce() {
            return Ok(());
        }
        let subject = Subject {
            operation,
            principal: self.facts.principal.as_deref(),
            groups: &self.groups,
            models: Models::default(),
            class: "",
            regions: &[],
            body: Body::default(),
            now: context.now,
        };
        // Rules that ask for models, classes or regions do not match.
        let Decision::Denied(denial @ Denial::Rule(id)) = context.policy.rules.decide(&subject) else { return Ok(()) };
        let refusal = denial.refusal(&subject);
        self.facts.rule_decision = Some(RuleDecision::Denied);
        self.facts.rule = Some(id.to_owned());
        Err(refusal.into())
    }

    /// Judges the call by its headers.
    pub(super) fn judge_headers(
        &mut self,
        call: &Call,
        pins: &Pins,
        body: Body,
        context: Context<'_>,
    ) -> Result<(), Refusal> {
        if context.policy.rules.is_empty() {
            return Ok(());
        }
        let named = self.model.clone();
        if !self.judge((call, pins), named.as_slice(), body, context)? {
            self.undecided = Some(Box::default());
        }
        Ok(())
    }

    /// Whether the rules ask what the body asks for.
    pub(super) fn asks_rules(&self) -> bool {
        self.undecided.is_some()
    }

    /// Reads on in the body.
    pub(super) fn judge_chunk(&mut self, chunk: &[u8], policy: &Policy) {
        let Some(asked) = &mut self.undecided else { return };
        if policy.rules.limit_tokens() {
            asked.demand.feed(chunk);
        }
        if policy.rules.limit_images() {
            asked.images.feed(chunk);
        }
    }

    /// Judges the call by its complete body, which names these models.
    pub(super) fn judge_body(
        &mut self,
        pending: &PendingCall,
        named: &[String],
        length: u64,
        context: Context<'_>,
    ) -> Result<(), Refusal> {
        let Some(asked) = self.undecided.take() else { return Ok(()) };
        let own = self.model.clone();
        let named = if named.is_empty() { own.as_slice() } else { named };
        let operation = pending.call.operation;
        let body = Body {
            bytes: Some(length),
            max_tokens: asked.demand.asked(operation),
            images: asked.images.count(operation, pending.call.model()),
            awaited: false,
        };
        self.judge((&pending.call, &pending.pins), named, body, context).map(|_| ())
    }

    /// Returns whether the rules have decided.
    fn judge(
        &mut self,
        (call, pins): (&Call, &Pins),
        named: &[String],
        body: Body,
        context: Context<'_>,
    ) -> Result<bool, Refusal> {
        let policy = context.policy;
        let class = self.facts.class.as_deref().and_then(|name| policy.class(name)).ok_or(Refusal::NoRouteClass)?;
        let runs = self.resolution.runs.as_deref();
        let own = self.model.as_deref();
        let runs_of = |id: &str| runs.filter(|_| own == Some(id)).or_else(|| policy.entry(id)).unwrap_or_default();
        let models: Vec<ModelId<'_>> = named.iter().map(|id| ModelId::running(id, runs_of(id))).collect();
        let profiles = profiles(call, class, context);
        let profiles: Vec<&str> = profiles.iter().map(AsRef::as_ref).collect();
        let subject = Subject {
            operation: call.operation,
            principal: self.facts.principal.as_deref(),
            groups: &self.groups,
            models: Models {
                named: &models,
                profiles: &profiles,
                hidden: models.is_empty() && has_model(call.operation),
            },
            class: class.name(),
            regions: class.regions_of(&pins.scope(call)),
            body,
            now: context.now,
        };
        let (decision, rule, denial) = match policy.rules.decide(&subject) {
            Decision::Later if body.awaited => return Ok(false),
            Decision::Later => (RuleDecision::Denied, None, Some(Denial::NoAllow)),
            Decision::Allowed(rule) => (RuleDecision::Allowed, rule, None),
            Decision::WouldDeny(denial) => (RuleDecision::WouldDeny, denial.rule(), None),
            Decision::Denied(denial) => (RuleDecision::Denied, denial.rule(), Some(denial)),
        };
        self.profiles = permitted(call, class, &subject, context);
        self.facts.rule_decision = Some(decision);
        self.facts.rule = rule.map(str::to_owned);
        let Some(denial) = denial else { return Ok(true) };
        // Of a model that is not known, rules take the worst.
        let refusal = denial.refusal(&subject).into();
        let depends = policy.rules.depends_on_model(denial);
        Err(self.resolution.take_unknown().filter(|_| depends).unwrap_or(refusal))
    }
}

/// The inference profiles that regions of the class call the model by.
fn profiles<'a>(call: &'a Call, class: &RouteClass, context: Context<'a>) -> Vec<Cow<'a, str>> {
    let policy = context.policy;
    let Some(id) = call.model().filter(|_| call.operation.takes_profile() && policy.rules.name_models()) else {
        return Vec::new();
    };
    let regions = class.regions().iter().filter_map(|name| policy.region(name.as_str()));
    let sent = regions.filter_map(|region| choice::sent_id(call.operation, id, region, context));
    sent.filter(|sent| sent != id).collect()
}

/// The inference profiles by which a call may be sent that the rules let pass, if a rule may deny one: those that it was judged by,
/// and those that it may be sent by once Bedrock has refused to run its model on demand. A poll may change the choice until then.
fn permitted(call: &Call, class: &RouteClass, subject: &Subject<'_>, context: Context<'_>) -> Option<Vec<String>> {
    let policy = context.policy;
    let depends = policy.catalogue.is_some() && policy.rules.deny_models() && call.operation.takes_profile();
    let id = call.model().filter(|_| depends)?;
    let mut permitted: Vec<String> = subject.models.profiles.iter().map(|profile| (*profile).to_owned()).collect();
    let regions = class.regions().iter().filter_map(|name| policy.region(name.as_str()));
    for profile in regions.filter_map(|region| choice::by_profile(call.operation, id, region, context)) {
        let alone = [profile.as_str()];
        let models = Models { profiles: &alone, ..subject.models };
        let passes = |decision| matches!(decision, Decision::Allowed(_) | Decision::WouldDeny(_));
        if !permitted.contains(&profile) && passes(policy.rules.decide(&Subject { models, ..*subject })) {
            permitted.push(profile);
        }
    }
    Some(permitted)
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
