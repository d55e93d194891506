//! What the rules decided about the call, and why.

use audit::RuleDecision;
use filter_core::config::{Config, Effect, Rule, RuleMode};
use filter_core::route::Subject;
use serde::Serialize;

use super::reasons::is_known_by;

/// How many rules that do not match are shown.
const NEAREST: usize = 5;

/// What the rules decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// `allowed`, `denied` or `would_deny`.
    pub decision: &'static str,
    /// The rule that decided; absent if none did.
    pub rule: Option<Named>,
    /// The conditions of the rule, as the call meets them.
    pub because: Vec<String>,
    /// Where no rule allows the call: rules for this caller, and what of them the call does not meet.
    pub nearest: Vec<String>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Its id.
    pub id: String,
    /// The index in `rules`, from 0.
    pub index: usize,
    /// Whether it denies.
    pub denies: bool,
}

/// The verdict of a call whose record has this decision and rule.
pub(super) fn verdict(
    config: &Config,
    (decision, id): (RuleDecision, Option<&str>),
    call: Subject<'_>,
    groups: &[String],
) -> Verdict {
    let found = config.rules.iter().enumerate().find(|(_, rule)| Some(rule.id.as_str()) == id);
    let allows = config.rules.iter().enumerate().filter(|(_, rule)| rule.effect == Effect::Allow);
    let counts = |rule: &Rule| decision == RuleDecision::WouldDeny || rule.mode == RuleMode::Enforce;
    let nearest = allows.filter(|(_, rule)| counts(rule)).filter_map(|(index, rule)| {
        let conditions = conditions(rule, call, groups);
        let caller = conditions.iter().filter(|condition| condition.of_caller);
        let is_callers = caller.clone().all(|condition| condition.met.is_ok());
        let unmet = conditions.iter().find_map(|condition| condition.met.as_ref().err());
        let unmet = unmet.map_or("it is not in force, or `regions` or a limit refuses the call", String::as_str);
        is_callers.then(|| format!("rules[{index}] {}: {unmet}", rule.id))
    });
    Verdict {
        decision: decision.name(),
        because: found.map(|(_, rule)| met(rule, call, groups)).unwrap_or_default(),
        nearest: if found.is_none() && decision != RuleDecision::Allowed {
            nearest.take(NEAREST).collect()
        } else {
            Vec::new()
        },
        rule: found.map(|(index, rule)| Named { id: rule.id.clone(), index, denies: rule.effect == Effect::Deny }),
    }
}

/// A condition of a rule.
struct Condition {
    of_caller: bool,
    /// How the call meets it, or does not.
    met: Result<String, String>,
}

fn met(rule: &Rule, call: Subject<'_>, groups: &[String]) -> Vec<String> {
    conditions(rule, call, groups).into_iter().filter_map(|condition| condition.met.ok()).collect()
}

fn conditions(rule: &Rule, call: Subject<'_>, groups: &[String]) -> Vec<Condition> {
    let mut all = Vec::new();
    let mut add = |of_caller, met| all.push(Condition { of_caller, met });
    let find = |key: &str, patterns: &[String], names: &[&str]| {
        let pairs = patterns.iter().flat_map(|pattern| names.iter().map(move |name| (pattern, *name)));
        let found = pairs.into_iter().find(|(pattern, name)| is_known_by(pattern, name, key == "models"));
        match found {
            Some((pattern, name)) => Ok(format!("`{key}`: {pattern} matches {name}")),
            None if names.is_empty() => Err(format!("it has `{key}`, and the call has none")),
            None => Err(format!("no pattern of `{key}` matches {}", names.join(", "))),
        }
    };
    if let Some(patterns) = &rule.principals {
        add(true, find("principals", patterns, call.principal.as_slice()));
    }
    if let Some(patterns) = &rule.groups {
        add(true, find("groups", patterns, &groups.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    if let Some(operations) = &rule.operations {
        let operation = call.operation;
        let listed = operations.contains(&operation);
        let met = format!("`operations` lists {operation}");
        add(false, if listed { Ok(met) } else { Err(format!("`operations` does not list {operation}")) });
    }
    if let Some(patterns) = &rule.models {
        add(false, find("models", patterns, call.model.as_slice()));
    }
    all
}
