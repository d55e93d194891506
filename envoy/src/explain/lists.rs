//! Which keys of the document leave models out of a list that its caller is shown.

use filter_core::config::{Config, RuleMode};
use filter_core::operation::Operation;
use filter_core::policy::Policy;

/// Why an answer of Bedrock's loses entries, or why not; empty: the operation does not answer with a list of models.
pub(super) fn of_bedrock(config: &Config, policy: &Policy, operation: Operation) -> Vec<String> {
    if !matches!(operation, Operation::ListFoundationModels | Operation::ListInferenceProfiles) {
        return Vec::new();
    }
    if !policy.hides_models() {
        return vec![
            "the list passes as it is: no `models`, `models` of a class or enforced rule could refuse a model"
                .to_owned(),
        ];
    }
    if !policy.holds_bodies() {
        return vec!["the list passes as it is: role `combined` with `auth: bearer` cannot hold it".to_owned()];
    }
    let mut because =
        vec!["the list loses the models that this caller may not use; these keys decide which".to_owned()];
    because.extend(keys(config));
    because
}

/// Which keys decide what the gateway's own list of models shows.
pub(super) fn of_gateway(config: &Config, policy: &Policy, principal: Option<&str>) -> Vec<String> {
    let taken = |name: &str| policy.class(name).is_some_and(|class| class.takes_caller(principal));
    let classes: Vec<&str> =
        config.route_classes.iter().map(|class| class.name.as_str()).filter(|name| taken(name)).collect();
    let classes = if classes.is_empty() { "none".to_owned() } else { classes.join(", ") };
    let mut because = vec![format!("regions and paths are those of the classes that take this caller: {classes}")];
    because.extend(keys(config));
    because
}

fn keys(config: &Config) -> impl Iterator<Item = String> {
    let patterns =
        |key: String, patterns: &[String]| (!patterns.is_empty()).then(|| format!("`{key}`: {}", patterns.join(", ")));
    let all = config.models.allow.iter().any(|pattern| pattern == "*");
    let allow = patterns("models.allow".to_owned(), if all { &[] } else { &config.models.allow });
    let deny = patterns("models.deny".to_owned(), &config.models.deny);
    let classes = config.route_classes.iter().enumerate().filter_map(move |(index, class)| {
        patterns(format!("route_classes[{index}].models"), class.models.as_deref().unwrap_or_default())
    });
    let rules = config.rules.iter().enumerate().filter(|(_, rule)| rule.mode == RuleMode::Enforce);
    let rules: Vec<String> = rules.map(|(index, rule)| format!("rules[{index}] {}", rule.id)).collect();
    let rules = (!rules.is_empty()).then(|| format!("`rules`: {}", rules.join(", ")));
    let all: Vec<String> = allow.into_iter().chain(deny).chain(classes).chain(rules).collect();
    all.into_iter()
}
