//! Rules: who may call what, and when. As in AWS IAM, a `deny` that matches wins, and once the document has an `allow`, a call
//! needs one that matches (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>).
//!
//! Some conditions are known only when the body is complete: a model or a resource that it names, and limits. So a condition is
//! met, not met, or decided [later](Match::Later). Where the body is not read, what it would have said counts against the call:
//! an `allow` does not match, and a `deny` does.

mod compile;
mod findings;
mod index;

pub(crate) use compile::compile;

use crate::config::{BodyBytes, Effect, RuleMode};
use crate::model::{self, Pattern};
use crate::names::RegionName;
use crate::operation::Operation;
use index::Index;
use std::fmt;
use std::time::SystemTime;

/// The document's rules.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    index: Index,
    /// Whether an enforced rule allows.
    needs_allow: bool,
    /// Whether any rule allows.
    tries_allow: bool,
    limits_bodies: bool,
    limits_tokens: bool,
    limits_images: bool,
    names_models: bool,
    /// Whether an enforced one does.
    enforces_models: bool,
    denies_models: bool,
}

#[derive(Debug)]
struct Rule {
    id: String,
    effect: Effect,
    mode: RuleMode,
    principals: Option<Vec<Pattern>>,
    groups: Option<Vec<Pattern>>,
    operations: Option<Vec<Operation>>,
    models: Option<Vec<Pattern>>,
    regions: Option<Vec<RegionName>>,
    classes: Option<Vec<String>>,
    body_bytes: Option<BodyBytes>,
    max_tokens: Option<u64>,
    max_images: Option<u32>,
    from: Option<SystemTime>,
    until: Option<SystemTime>,
}

/// What rules are matched against.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The operation.
    pub operation: Operation,
    /// The caller's name.
    pub principal: Option<&'a str>,
    /// The caller's groups.
    pub groups: &'a [String],
    /// The models that run.
    pub models: Models<'a>,
    /// The name of the route class.
    pub class: &'a str,
    /// The regions that may serve the call.
    pub regions: &'a [RegionName],
    /// The body.
    pub body: Body,
    /// The time.
    pub now: SystemTime,
}

/// The models that a call runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Models<'a> {
    /// Those that it names, as resolved. Each must be allowed.
    pub named: &'a [ModelId<'a>],
    /// Inference profiles that may be sent in place of these.
    pub profiles: &'a [&'a str],
    /// Whether it runs one that it does not name, as far as is known.
    pub hidden: bool,
}

/// A model as a call names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelId<'a> {
    id: &'a str,
    /// Whether the id says which model runs.
    resolved: bool,
    /// Else what it runs, as far as that is known.
    runs: &'a [String],
}

/// What is known of a request's body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Body {
    /// Its length.
    pub bytes: Option<u64>,
    /// The most tokens that it asks a model to answer.
    pub max_tokens: Option<u64>,
    /// How many images it shows a model.
    pub images: Option<u32>,
    /// Whether it is read, and is not complete.
    pub awaited: bool,
}

/// What the rules say of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It is served, because of this rule if any.
    Allowed(Option<&'a str>),
    /// It is served, and would be refused if each rule was enforced.
    WouldDeny(Denial<'a>),
    /// It is refused.
    Denied(Denial<'a>),
    /// The body decides.
    Later,
}

/// Why the rules refuse a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial<'a> {
    /// This rule denies it.
    Rule(&'a str),
    /// This rule would allow it, but for its limit.
    Limit(&'a str, Limit),
    /// No rule allows it.
    NoAllow,
}

/// Why the rules refuse a call, as its caller is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleRefusal {
    /// A rule denies it.
    #[error("the gateway's rule '{0}' denies this call")]
    Denied(String),
    /// It is over a rule's limit.
    #[error("the gateway's rule '{rule}' allows this call only with {limit}")]
    Limit {
        /// The rule.
        rule: String,
        /// What the rule allows.
        limit: Limit,
    },
    /// No rule allows it.
    #[error("no rule of the gateway allows {caller} to call {operation}{model}")]
    NoAllow {
        /// Who calls.
        caller: String,
        /// The operation.
        operation: Operation,
        /// The model, if the call names one.
        model: String,
    },
}

/// A limit of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `body_bytes`
    Bytes(BodyBytes),
    /// `max_tokens`
    Tokens(u64),
    /// `max_images`
    Images(u32),
}

/// Whether a condition is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    No,
    /// As far as is known; the body decides.
    Later,
    Yes,
}

/// The first rule of one effect, in the document's order.
#[derive(Debug, Clone, Copy, Default)]
struct First {
    matches: Option<usize>,
    /// Whether one may still match.
    later: bool,
    /// The first that would match, but for its limit.
    over: Option<(usize, Limit)>,
}

// === impl Rules ===

impl Rules {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether some rule is enforced.
    pub(crate) fn enforce(&self) -> bool {
        self.rules.iter().any(|rule| rule.mode == RuleMode::Enforce)
    }

    /// Whether some rule asks for models.
    pub(crate) fn name_models(&self) -> bool {
        self.names_models
    }

    /// Whether some enforced rule asks for models. A rule that is only tried makes no call wait.
    pub(crate) fn enforce_models(&self) -> bool {
        self.enforces_models
    }

    /// Whether some enforced rule denies models.
    pub(crate) fn deny_models(&self) -> bool {
        self.denies_models
    }

    /// Whether some rule limits bodies, so that they have to be complete before the call leaves.
    pub fn limit_bodies(&self) -> bool {
        self.limits_bodies
    }

    /// Whether some rule limits the tokens that a body asks for.
    pub(crate) fn limit_tokens(&self) -> bool {
        self.limits_tokens
    }

    /// Whether some rule limits the images of a body.
    pub(crate) fn limit_images(&self) -> bool {
        self.limits_images
    }

    /// What the rules say of a call. It is never [later](Decision::Later) once the body is complete.
    pub fn decide(&self, call: &Subject<'_>) -> Decision<'_> {
        let (mut enforced, mut tried) = ([First::default(); 2], [First::default(); 2]);
        self.index.candidates(call, |nth| {
            let Some(rule) = self.rules.get(nth) else { return };
            // Nothing outweighs a deny; an earlier one is named instead.
            let is_denial = rule.effect == Effect::Deny && rule.mode == RuleMode::Enforce;
            if enforced.first().is_some_and(|deny| deny.matches.is_some_and(|first| !is_denial || first <= nth)) {
                return;
            }
            let firsts = if rule.mode == RuleMode::Enforce { &mut enforced } else { &mut tried };
            let [deny, allow] = firsts;
            rule.add(nth, call, if rule.effect == Effect::Deny { deny } else { allow });
        });
        let decision = self.verdict(enforced, self.needs_allow);
        let Decision::Allowed(rule) = decision else { return decision };
        let ([deny, allow], [tried_deny, tried_allow]) = (enforced, tried);
        match self.verdict([deny.or(tried_deny), allow.or(tried_allow)], self.tries_allow) {
            Decision::Denied(denial) => Decision::WouldDeny(denial),
            Decision::Allowed(tried) => Decision::Allowed(rule.or(tried)),
            other => other,
        }
    }

    /// Whether another model might pass where the rules refuse a call.
    pub(crate) fn depends_on_model(&self, denial: Denial<'_>) -> bool {
        self.rules.iter().filter(|rule| rule.models.is_some()).any(|rule| match denial {
            Denial::Rule(id) => rule.id == id,
            Denial::NoAllow => rule.effect == Effect::Allow,
            // Its rule takes the model.
            Denial::Limit(..) => false,
        })
    }

    fn verdict(&self, [deny, allow]: [First; 2], needs_allow: bool) -> Decision<'_> {
        let id = |nth: usize| self.rules.get(nth).map_or("", |rule| rule.id.as_str());
        if let Some(nth) = deny.matches {
            return Decision::Denied(Denial::Rule(id(nth)));
        }
        if deny.later || (needs_allow && allow.matches.is_none() && allow.later) {
            return Decision::Later;
        }
        match (allow.matches, allow.over) {
            (Some(nth), _) => Decision::Allowed(Some(id(nth))),
            (None, _) if !needs_allow => Decision::Allowed(None),
            (None, Some((nth, limit))) => Decision::Denied(Denial::Limit(id(nth), limit)),
            (None, None) => Decision::Denied(Denial::NoAllow),
        }
    }
}

// === impl Denial, Limit ===

impl<'a> Denial<'a> {
    /// The rule that decided.
    pub fn rule(self) -> Option<&'a str> {
        match self {
            Self::Rule(id) | Self::Limit(id, _) => Some(id),
            Self::NoAllow => None,
        }
    }

    pub(crate) fn refusal(self, call: &Subject<'_>) -> RuleRefusal {
        match self {
            Self::Rule(id) => RuleRefusal::Denied(id.to_owned()),
            Self::Limit(id, limit) => RuleRefusal::Limit { rule: id.to_owned(), limit },
            Self::NoAllow => RuleRefusal::NoAllow {
                caller: call.principal.map_or_else(|| "a caller without a name".to_owned(), |name| format!("'{name}'")),
                operation: call.operation,
                model: call.models.named.first().map(|model| format!(" with model '{}'", model.id)).unwrap_or_default(),
            },
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(BodyBytes { min: 0, max: Some(max) }) => write!(f, "a body of at most {max} bytes"),
            Self::Bytes(BodyBytes { min, max: Some(max) }) => write!(f, "a body of {min} to {max} bytes"),
            Self::Bytes(BodyBytes { min, max: None }) => write!(f, "a body of at least {min} bytes"),
            Self::Tokens(max) => write!(f, "a body that asks for at most {max} tokens (`max_tokens` or its like)"),
            Self::Images(max) => write!(
                f,
                "a body with at most {max} images, in a form that the gateway knows: Converse's, or that of Claude or Nova in InvokeModel"
            ),
        }
    }
}

// === impl First ===

impl First {
    /// The first of both.
    fn or(self, other: Self) -> Self {
        let first = |own: Option<usize>, other: Option<usize>| own.into_iter().chain(other).min();
        let over = [self.over, other.over].into_iter().flatten().min_by_key(|(nth, _)| *nth);
        Self { matches: first(self.matches, other.matches), later: self.later || other.later, over }
    }
}

// === impl Rule ===

impl Rule {
    /// Notes what this rule, the `nth`, says of a call.
    fn add(&self, nth: usize, call: &Subject<'_>, first: &mut First) {
        if first.matches.is_some_and(|first| first <= nth) {
            return;
        }
        let matches = self.matches(call);
        if matches == Match::No {
            return;
        }
        match self.exceeded(call) {
            Ok(within) => match matches.min(within) {
                Match::Yes => first.matches = Some(nth),
                _ => first.later = true,
            },
            Err(limit) => {
                if first.over.is_none_or(|(first, _)| nth < first) {
                    first.over = Some((nth, limit));
                }
            }
        }
    }

    /// Whether the call meets every condition. Limits are not conditions.
    fn matches(&self, call: &Subject<'_>) -> Match {
        let any = |patterns: &[Pattern], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        let is_in_force =
            self.from.is_none_or(|from| from <= call.now) && self.until.is_none_or(|until| call.now < until);
        let is_met = is_in_force
            && self.operations.as_ref().is_none_or(|operations| operations.contains(&call.operation))
            && self.classes.as_ref().is_none_or(|classes| classes.iter().any(|class| class == call.class))
            && self.principals.as_ref().is_none_or(|patterns| call.principal.is_some_and(|name| any(patterns, name)))
            && self.groups.as_ref().is_none_or(|patterns| call.groups.iter().any(|group| any(patterns, group)));
        if !is_met {
            return Match::No;
        }
        let models = self.models.as_ref().map_or(Match::Yes, |patterns| self.matches_models(patterns, call));
        models.min(self.regions.as_ref().map_or(Match::Yes, |regions| self.matches_regions(regions, call)))
    }

    fn matches_models(&self, patterns: &[Pattern], call: &Subject<'_>) -> Match {
        let Models { named, profiles, hidden } = call.models;
        if named.is_empty() && !hidden {
            return Match::No;
        }
        if patterns.iter().any(Pattern::takes_all) {
            return Match::Yes;
        }
        let names = |id: &str| model::names(id).any(|name| patterns.iter().any(|pattern| pattern.matches(name)));
        let vouch = |id: &str| patterns.iter().any(|pattern| model::vouches(pattern, id));
        let allows = |id: &str| if model::is_resolved(id) { names(id) } else { vouch(id) };
        let denies = |id: &str| names(id) || !model::is_resolved(id);
        let met = match self.effect {
            Effect::Allow => named.iter().all(|model| {
                let runs_allowed = || !model.runs.is_empty() && model.runs.iter().all(|id| allows(id));
                if model.resolved { names(model.id) } else { vouch(model.id) || runs_allowed() }
            }),
            Effect::Deny => {
                let runs_denied = |model: &ModelId<'_>| model.runs.is_empty() || model.runs.iter().any(|id| denies(id));
                named.iter().any(|model| names(model.id) || (!model.resolved && runs_denied(model)))
                    || profiles.iter().any(|id| names(id))
            }
        };
        match (self.effect, met) {
            // What the body has yet to name can only add to this.
            (Effect::Allow, false) => Match::No,
            (Effect::Deny, true) => Match::Yes,
            _ if hidden && call.body.awaited => Match::Later,
            (Effect::Allow, true) if hidden => Match::No,
            (Effect::Deny, false) if !hidden => Match::No,
            _ => Match::Yes,
        }
    }

    fn matches_regions(&self, regions: &[RegionName], call: &Subject<'_>) -> Match {
        let listed = call.regions.iter().filter(|region| regions.contains(region)).count();
        match self.effect {
            _ if listed == 0 => Match::No,
            _ if listed == call.regions.len() => Match::Yes,
            // What the body names may leave one region.
            _ if call.body.awaited => Match::Later,
            Effect::Allow => Match::No,
            Effect::Deny => Match::Yes,
        }
    }

    /// Whether the call is within the limits, or the limit that it exceeds.
    fn exceeded(&self, call: &Subject<'_>) -> Result<Match, Limit> {
        let within = |value: Option<u64>, fits: &dyn Fn(u64) -> bool| match value {
            Some(value) if fits(value) => Match::Yes,
            None if call.body.awaited => Match::Later,
            _ => Match::No,
        };
        let mut all = Match::Yes;
        if let Some(bounds) = self.body_bytes {
            let fits = |bytes| bounds.min <= bytes && bounds.max.is_none_or(|max| bytes <= max);
            all = all.min(within(call.body.bytes, &fits));
            if all == Match::No {
                return Err(Limit::Bytes(bounds));
            }
        }
        if let Some(max) = self.max_tokens.filter(|_| call.runs_model()) {
            all = all.min(within(call.body.max_tokens, &|tokens| tokens <= max));
            if all == Match::No {
                return Err(Limit::Tokens(max));
            }
        }
        if let Some(max) = self.max_images.filter(|_| call.runs_model()) {
            all = all.min(within(call.body.images.map(u64::from), &|images| images <= u64::from(max)));
            if all == Match::No {
                return Err(Limit::Images(max));
            }
        }
        Ok(all)
    }
}

// === impl Subject, ModelId ===

impl Subject<'_> {
    /// Whether a model may run that answers with tokens.
    fn runs_model(&self) -> bool {
        self.operation.uses_tokens()
            || self.models.hidden
            || (!self.operation.names_model() && !self.models.named.is_empty())
    }
}

impl<'a> ModelId<'a> {
    /// A model by its id, as resolved.
    pub fn new(id: &'a str) -> Self {
        Self::running(id, &[])
    }

    /// The same, and what it runs if its id does not say that.
    pub fn running(id: &'a str, runs: &'a [String]) -> Self {
        Self { id, resolved: model::is_resolved(id), runs }
    }

    /// Whether every model is known that runs.
    fn is_known(&self) -> bool {
        self.resolved || (!self.runs.is_empty() && self.runs.iter().all(|id| model::is_resolved(id)))
    }
}

#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod tests;
