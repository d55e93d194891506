//! What is certain to be a mistake in valid rules.

use super::{Rule, Rules};
use crate::config::{ConfigError, Effect, RuleMode, at};
use crate::names::RegionName;
use crate::operation::Operation;
use crate::request_body::has_model;
use crate::route::covers_patterns;
use std::time::SystemTime;

impl Rules {
    /// Rules that match no call, or change nothing. `named` and `grouped`: whether callers have names and groups; `regions` are the
    /// document's.
    pub(crate) fn findings(&self, named: bool, grouped: bool, regions: &[&RegionName]) -> Vec<ConfigError> {
        let mut findings = Vec::new();
        for (nth, rule) in self.rules.iter().enumerate() {
            let mut find = |key: &str, problem: String| findings.push(at(format!("rules[{nth}]{key}"), problem));
            let id = &rule.id;
            if rule.principals.is_some() && !named {
                find(
                    ".principals",
                    format!("rule '{id}' matches no call: without the key `principal` callers have no name"),
                );
            }
            if rule.groups.is_some() && !grouped {
                find(
                    ".groups",
                    format!("rule '{id}' matches no call: without the key `groups` callers are in no group"),
                );
            }
            if let (Some(_), Some(operations)) = (&rule.models, &rule.operations)
                && !operations.iter().any(|operation| operation.names_model() || has_model(*operation))
            {
                find(".models", format!("rule '{id}' matches no call: none of its `operations` runs a model"));
            }
            if rule.effect == Effect::Allow
                && let Some(deny) = self.rules.iter().find(|deny| deny.refuses_all_of(rule, regions))
            {
                find("", format!("rule '{id}' allows nothing: rule '{}' denies each of its calls", deny.id));
            }
        }
        findings
    }

    /// The operations of each rule, with their keys.
    pub(crate) fn operations(&self) -> impl Iterator<Item = (String, Operation)> {
        let rules = self.rules.iter().enumerate();
        rules.flat_map(|(nth, rule)| {
            let operations = rule.operations.iter().flatten().enumerate();
            operations.map(move |(index, operation)| (format!("rules[{nth}].operations[{index}]"), *operation))
        })
    }

    /// Rules that are over.
    pub fn expired(&self, now: SystemTime) -> Vec<ConfigError> {
        let over = |(_, rule): &(usize, &Rule)| rule.until.is_some_and(|until| until <= now);
        let over = self.rules.iter().enumerate().filter(over);
        over.map(|(nth, rule)| at(format!("rules[{nth}].until"), format!("rule '{}' is over: remove it", rule.id)))
            .collect()
    }

    /// The place of a rule in the document.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.rules.iter().position(|rule| rule.id == id)
    }
}

impl Rule {
    /// Whether this rule certainly denies each call that `allow` matches.
    fn refuses_all_of(&self, allow: &Self, all: &[&RegionName]) -> bool {
        fn covers<T: PartialEq>(wide: Option<&Vec<T>>, narrow: Option<&Vec<T>>) -> bool {
            wide.is_none_or(|wide| narrow.is_some_and(|narrow| narrow.iter().all(|one| wide.contains(one))))
        }
        let regions = self.regions.as_ref().is_none_or(|own| match &allow.regions {
            Some(narrow) => narrow.iter().all(|region| own.contains(region)),
            None => all.iter().all(|region| own.contains(region)),
        });
        self.effect == Effect::Deny
            && self.mode == RuleMode::Enforce
            && covers(self.operations.as_ref(), allow.operations.as_ref())
            && covers(self.classes.as_ref(), allow.classes.as_ref())
            && covers_patterns(self.principals.as_deref(), allow.principals.as_deref())
            && covers_patterns(self.groups.as_deref(), allow.groups.as_deref())
            && covers_patterns(self.models.as_deref(), allow.models.as_deref())
            && self.from.is_none_or(|from| allow.from.is_some_and(|own| from <= own))
            && self.until.is_none_or(|until| allow.until.is_some_and(|own| own <= until))
            && regions
    }
}
