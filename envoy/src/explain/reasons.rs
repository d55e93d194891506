//! Why core decided so: which condition of a route class did not match, and how a model got its id. To find the
//! condition, core is asked about a class that has only this one.

use filter_core::config::{Config, Models, RouteClass as Rule};
use filter_core::model::{Pattern, names};
use filter_core::names::RegionName;
use filter_core::operation::Operation;
use filter_core::policy::Policy;
use filter_core::route::Subject;
use serde::Serialize;

/// A class that was asked whether it takes the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The class's name.
    pub class: String,
    /// The index in `route_classes`, from 0.
    pub index: usize,
    /// Whether it took the call.
    pub takes: bool,
    /// The conditions that matched; for a class that did not take the call, the first that did not.
    pub because: Vec<String>,
}

/// The conditions of a class, in the order in which core tries them.
#[derive(Debug, Clone, Copy)]
enum Condition {
    Operations,
    Models,
    Principals,
    Streaming,
    BodyBytes,
}

const CONDITIONS: [Condition; 5] =
    [Condition::Operations, Condition::Models, Condition::Principals, Condition::Streaming, Condition::BodyBytes];

/// The classes up to the one that takes the call, or all.
pub(super) fn classes(config: &Config, call: Subject<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (index, rule) in config.route_classes.iter().enumerate() {
        let conditions = CONDITIONS.into_iter().filter_map(|condition| Some((condition, alone(rule, condition)?)));
        let conditions: Vec<_> = conditions.map(|(condition, rule)| (condition, takes(config, rule, call))).collect();
        let failed = conditions.iter().find(|(_, takes)| !takes);
        let because = match failed {
            Some((condition, _)) => vec![mismatch(rule, *condition, call)],
            None => conditions.iter().map(|(condition, _)| matched(rule, *condition, call)).collect(),
        };
        let takes = failed.is_none();
        verdicts.push(Verdict { class: rule.name.clone(), index, takes, because });
        if takes {
            break;
        }
    }
    verdicts
}

/// The class with this condition only; `None` if it does not have the condition.
fn alone(rule: &Rule, condition: Condition) -> Option<Rule> {
    let mut one =
        Rule { operations: None, models: None, principals: None, streaming: None, body_bytes: None, ..rule.clone() };
    match condition {
        Condition::Operations => one.operations = Some(rule.operations.clone()?),
        Condition::Models => one.models = Some(rule.models.clone()?),
        Condition::Principals => one.principals = Some(rule.principals.clone()?),
        Condition::Streaming => one.streaming = Some(rule.streaming?),
        Condition::BodyBytes => one.body_bytes = Some(rule.body_bytes?),
    }
    Some(one)
}

fn takes(config: &Config, rule: Rule, call: Subject<'_>) -> bool {
    let alone = Config { route_classes: vec![rule], ..config.clone() };
    Policy::compile(&alone, None).is_ok_and(|policy| policy.route_class(call).is_some())
}

fn mismatch(rule: &Rule, condition: Condition, call: Subject<'_>) -> String {
    let operation = call.operation;
    match condition {
        Condition::Operations => format!("`operations` does not list {operation}"),
        Condition::Models => match call.model {
            Some(model) => format!("no pattern of `models` matches {model}"),
            None => format!("it has `models`, and {operation} names no model in its path"),
        },
        Condition::Principals => match call.principal {
            Some(name) => format!("no pattern of `principals` matches {name}"),
            None => "it has `principals`, and the caller has no name".to_owned(),
        },
        Condition::Streaming if operation.streams() => {
            format!("`streaming` is false, and the response of {operation} is an event stream")
        }
        Condition::Streaming => format!("`streaming` is true, and the response of {operation} is not an event stream"),
        Condition::BodyBytes => {
            let (min, max) = rule.body_bytes.map_or((0, None), |bounds| (bounds.min, bounds.max));
            match (call.body_bytes, max) {
                (None, _) => "`body_bytes` has a `max`, and the length of the body is not announced".to_owned(),
                (Some(length), _) if length < min => {
                    format!("the body has {length} bytes, less than `body_bytes.min` ({min})")
                }
                (Some(length), max) => {
                    format!("the body has {length} bytes, more than `body_bytes.max` ({})", max.unwrap_or(u64::MAX))
                }
            }
        }
    }
}

fn matched(rule: &Rule, condition: Condition, call: Subject<'_>) -> String {
    let pattern = |key: &str, patterns: &Option<Vec<String>>, name: Option<&str>| {
        let mut patterns = patterns.iter().flatten();
        let matches = |pattern: &&String| name.is_some_and(|name| is_known_by(pattern, name, key == "models"));
        let pattern = patterns.find(matches).map(String::as_str).unwrap_or_default();
        format!("`{key}`: {pattern} matches {}", name.unwrap_or_default())
    };
    match condition {
        Condition::Operations => format!("`operations` lists {}", call.operation),
        Condition::Models => pattern("models", &rule.models, call.model),
        Condition::Principals => pattern("principals", &rule.principals, call.principal),
        Condition::Streaming => format!("`streaming` is {}", call.operation.streams()),
        Condition::BodyBytes => match call.body_bytes {
            Some(length) => format!("`body_bytes`: the body has {length} bytes"),
            None => "`body_bytes`: the length of the body is not announced, which counts as longer than any".to_owned(),
        },
    }
}

pub(super) fn is_known_by(pattern: &str, name: &str, is_model: bool) -> bool {
    let compiled = Pattern::new(pattern);
    if is_model { names(name).any(|name| compiled.matches(name)) } else { compiled.matches(name) }
}

/// How a model got the id that crosses, step by step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Model {
    /// As the client named it.
    pub named: String,
    /// As rules and tables know it; absent if it is refused.
    pub resolved: Option<String>,
    /// The reason.
    pub because: Vec<String>,
}

/// How a model gets the id that crosses.
pub(super) fn model(config: &Config, policy: &Policy, named: &str) -> Model {
    let mut because = Vec::new();
    let id = match config.aliases.get(named) {
        Some(id) => {
            because.push(format!("`aliases.{named}` is {id}"));
            id.as_str()
        }
        None => named,
    };
    let commercial = policy.to_commercial(id);
    match &commercial {
        Ok(same) if *same == id => {}
        Ok(other) => because.push(format!("{id} is an id of the GovCloud partition; the Commercial one is {other}")),
        Err(error) => because.push(error.to_string()),
    }
    if let Ok(id) = commercial {
        because.push(rule(&config.models, id));
        if policy.residency().is_closed() {
            let allowed = || format!("`residency` lets a call be sent by {id}");
            because.push(policy.check_residency(id).map_or_else(|refusal| refusal.to_string(), |()| allowed()));
        }
    }
    Model { named: named.to_owned(), resolved: policy.resolve_model(named).ok(), because }
}

/// The pattern of `models` that lets a model pass or refuses it.
fn rule(models: &Models, id: &str) -> String {
    let find = |patterns: &[String]| patterns.iter().position(|pattern| is_known_by(pattern, id, true));
    let shown = |key: &str, patterns: &[String], index: usize| {
        format!("`models.{key}[{index}]` ({})", patterns.get(index).map(String::as_str).unwrap_or_default())
    };
    match (find(&models.deny), find(&models.allow)) {
        (Some(index), _) => format!("{} refuses {id}", shown("deny", &models.deny, index)),
        (None, Some(index)) => format!("{} allows {id}", shown("allow", &models.allow, index)),
        (None, None) => format!("no pattern of `models.allow` matches {id}"),
    }
}

/// Why a model is sent to a region by this id.
pub(super) fn profile(config: &Config, operation: Operation, id: &str, region: &RegionName) -> String {
    if !operation.takes_profile() {
        return format!("{operation} takes no inference profile");
    }
    let own = config.regions.get(region).is_some_and(|own| own.inference_profiles.contains_key(id));
    if own {
        format!("inference profile of `regions.{region}.inference_profiles`")
    } else if config.inference_profiles.contains_key(id) {
        "inference profile of `inference_profiles`".to_owned()
    } else {
        "no inference profile of this id in the document".to_owned()
    }
}
