//! Compiles rules, and names what is wrong with them.

use super::index::Index;
use super::{Rule, Rules};
use crate::config::{self, Config, ConfigError, Effect, Role, RuleMode, at};
use crate::model::{Pattern, patterns};
use crate::names::RegionName;
use std::collections::BTreeSet;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const EMPTY: &str = "an empty list matches no call; leave the key out to match all";
const NOT_ALLOW: &str =
    "is a limit of a rule with `effect: allow`: let an `allow` have the limit, so that calls over it are not allowed";

/// Compiles the document's rules.
pub(crate) fn compile(config: &Config) -> Result<Rules, ConfigError> {
    let mut rules = Vec::with_capacity(config.rules.len());
    let mut ids = BTreeSet::new();
    for (nth, rule) in config.rules.iter().enumerate() {
        rules.push(rule_of(rule, config, &|key| format!("rules[{nth}].{key}"))?);
        if !ids.insert(rule.id.as_str()) {
            return Err(at(format!("rules[{nth}].id"), format!("'{}' is there twice", rule.id)));
        }
    }
    // The signer decides nothing, and a document has many of them.
    if config.role == Role::Signer {
        rules.clear();
    }
    let allows = |mode: &dyn Fn(RuleMode) -> bool| {
        rules.iter().any(|rule: &Rule| rule.effect == Effect::Allow && mode(rule.mode))
    };
    Ok(Rules {
        index: Index::new(&rules),
        needs_allow: allows(&|mode| mode == RuleMode::Enforce),
        tries_allow: allows(&|_| true),
        limits_bodies: rules
            .iter()
            .any(|rule| rule.body_bytes.is_some() || rule.max_tokens.is_some() || rule.max_images.is_some()),
        limits_tokens: rules.iter().any(|rule| rule.max_tokens.is_some()),
        limits_images: rules.iter().any(|rule| rule.max_images.is_some()),
        names_models: rules.iter().any(|rule| rule.models.is_some()),
        enforces_models: rules.iter().any(|rule| rule.models.is_some() && rule.mode == RuleMode::Enforce),
        denies_models: rules
            .iter()
            .any(|rule| rule.models.is_some() && rule.effect == Effect::Deny && rule.mode == RuleMode::Enforce),
        rules,
    })
}

fn rule_of(rule: &config::Rule, config: &Config, key: &dyn Fn(&str) -> String) -> Result<Rule, ConfigError> {
    let id = &rule.id;
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(at(key("id"), format!("'{id}' is not a rule's id: want lower-case letters, digits and '-'")));
    }
    for (name, is_empty) in [
        ("principals", rule.principals.as_ref().is_some_and(Vec::is_empty)),
        ("groups", rule.groups.as_ref().is_some_and(Vec::is_empty)),
        ("operations", rule.operations.as_ref().is_some_and(Vec::is_empty)),
        ("models", rule.models.as_ref().is_some_and(Vec::is_empty)),
        ("regions", rule.regions.as_ref().is_some_and(Vec::is_empty)),
        ("classes", rule.classes.as_ref().is_some_and(Vec::is_empty)),
    ] {
        if is_empty {
            return Err(at(key(name), EMPTY));
        }
    }
    let list =
        |name: &str, texts: &Option<Vec<String>>| texts.as_ref().map(|texts| patterns(&key(name), texts)).transpose();
    check_names(config, rule, key)?;
    check_limits(rule, key)?;
    let time = |name: &str, text: &Option<String>| text.as_ref().map(|text| time_of(&key(name), text)).transpose();
    let (from, until) = (time("from", &rule.from)?, time("until", &rule.until)?);
    if let (Some(from), Some(until)) = (from, until)
        && until <= from
    {
        return Err(at(key("until"), "is not after `from`: the rule never matches"));
    }
    Ok(Rule {
        id: id.clone(),
        effect: rule.effect,
        mode: rule.mode,
        principals: list("principals", &rule.principals)?,
        groups: rule.groups.as_ref().map(|texts| groups(&key("groups"), texts)).transpose()?,
        operations: rule.operations.clone(),
        models: list("models", &rule.models)?,
        regions: rule.regions.clone(),
        classes: rule.classes.clone(),
        body_bytes: rule.body_bytes,
        max_tokens: rule.max_tokens,
        max_images: rule.max_images,
        from,
        until,
    })
}

/// Regions and classes have to be the document's.
fn check_names(config: &Config, rule: &config::Rule, key: &dyn Fn(&str) -> String) -> Result<(), ConfigError> {
    for (index, region) in rule.regions.iter().flatten().enumerate() {
        if !config.regions.contains_key(region) {
            let known = config.regions.keys().map(RegionName::as_str);
            return Err(ConfigError::unknown(key(&format!("regions[{index}]")), "region", region.as_str(), known));
        }
    }
    for (index, class) in rule.classes.iter().flatten().enumerate() {
        let known = config.route_classes.iter().map(|class| class.name.as_str());
        if !known.clone().any(|name| name == class) {
            return Err(ConfigError::unknown(key(&format!("classes[{index}]")), "class", class, known));
        }
    }
    Ok(())
}

fn check_limits(rule: &config::Rule, key: &dyn Fn(&str) -> String) -> Result<(), ConfigError> {
    for (name, is_set) in [
        ("body_bytes", rule.body_bytes.is_some()),
        ("max_tokens", rule.max_tokens.is_some()),
        ("max_images", rule.max_images.is_some()),
    ] {
        if is_set && rule.effect != Effect::Allow {
            return Err(at(key(name), NOT_ALLOW));
        }
    }
    if rule.body_bytes.is_some_and(|bounds| bounds.max.is_some_and(|max| max < bounds.min)) {
        return Err(at(key("body_bytes"), "`max` is less than `min`: no call matches"));
    }
    if rule.max_tokens == Some(0) {
        return Err(at(key("max_tokens"), "0 lets nothing through; leave the key out for no limit"));
    }
    Ok(())
}

/// Patterns of groups, whose names may have blanks and letters of any language.
fn groups(key: &str, texts: &[String]) -> Result<Vec<Pattern>, ConfigError> {
    for (index, text) in texts.iter().enumerate() {
        if text.is_empty() || text.chars().any(char::is_control) {
            let problem = format!("{text:?} is not a pattern: want visible characters, with '*' for any run");
            return Err(at(format!("{key}[{index}]"), problem));
        }
    }
    Ok(texts.iter().map(|text| Pattern::new(text.as_str())).collect())
}

fn time_of(key: &str, text: &str) -> Result<SystemTime, ConfigError> {
    OffsetDateTime::parse(text, &Rfc3339).map(SystemTime::from).map_err(|_| {
        at(key, format!("'{text}' is not a time as RFC 3339 has it: want one such as '2026-12-01T00:00:00Z'"))
    })
}
