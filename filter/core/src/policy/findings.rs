//! What an operator should know of a policy that is valid.

use super::Policy;
use crate::config::{ConfigError, at, nearest};
use crate::credentials::source::DEFAULT;
use crate::geography::GLOBAL;
use crate::model::Pattern;
use crate::names::RegionName;
use crate::route;

impl Policy {
    /// What an operator should know of a policy that is valid: classes that no call can reach, keys that change nothing, and
    /// sources that no class uses. An empty list promises nothing; only what is certain is reported.
    pub fn findings(&self) -> Vec<ConfigError> {
        let mut findings = route::findings(&self.classes);
        if self.principal.is_empty() {
            let named = self.classes.iter().enumerate().filter(|(_, class)| class.depends_on_principal());
            findings.extend(named.map(|(index, class)| {
                let problem =
                    format!("class '{}' takes no call: without the key `principal` callers have no name", class.name());
                at(format!("route_classes[{index}].principals"), problem)
            }));
            let sticky = self.classes.iter().enumerate().filter(|(_, class)| class.region_sticky());
            findings.extend(sticky.map(|(index, class)| {
                let problem = format!(
                    "class '{}' keeps no caller in its region: without the key `principal` callers have no name",
                    class.name()
                );
                at(format!("route_classes[{index}].region_sticky"), problem)
            }));
        }
        for (index, class) in self.classes.iter().enumerate() {
            let listed = class.operations().unwrap_or_default().iter().enumerate();
            findings.extend(listed.filter_map(|(nth, operation)| {
                let problem = self.check_operation(*operation).err()?;
                Some(at(format!("route_classes[{index}].operations[{nth}]"), problem))
            }));
        }
        let regions: Vec<&RegionName> = self.regions.keys().collect();
        findings.extend(self.rules.findings(!self.principal.is_empty(), !self.groups.is_empty(), &regions));
        findings.extend(self.rules.operations().filter_map(|(key, operation)| {
            let problem = self.check_operation(operation).err()?;
            Some(at(key, problem))
        }));
        if self.catalogue.as_ref().is_some_and(|catalogue| catalogue.global) && !self.residency.lists(GLOBAL) {
            findings.push(at("catalogue.global", "chooses no profile: `residency` does not list `global`"));
        }
        if self.allow.iter().all(|allow| self.deny.iter().any(|deny| deny.covers(allow))) {
            findings.push(at("models.deny", "no model is left: each pattern in `models.allow` is denied"));
        } else {
            self.models_of_classes(&mut findings);
        }
        for (name, key, _) in self.credential_sources.iter().filter(|(name, ..)| *name != DEFAULT) {
            if !self.classes.iter().any(|class| class.credentials() == name) {
                let problem = "no route class uses it, and its keys are fetched all the same; name it in the \
                               `credentials` of a class, or remove it";
                findings.push(at(key, problem));
            }
        }
        findings
    }

    /// Patterns of classes that no model meets which `models` lets through.
    fn models_of_classes(&self, findings: &mut Vec<ConfigError>) {
        for (index, class) in self.classes.iter().enumerate() {
            let patterns = class.models().unwrap_or_default();
            let refusals: Vec<_> = patterns.iter().map(|pattern| self.refusal(pattern)).collect();
            let key = format!("route_classes[{index}].models");
            if !refusals.is_empty() && refusals.iter().all(Option::is_some) {
                let problem = format!("class '{}' takes no call: `models` refuses all of its models", class.name());
                let error = refusals.into_iter().flatten().next().unwrap_or_default();
                findings.push(ConfigError { key, problem, ..error });
                continue;
            }
            for (nth, error) in refusals.into_iter().enumerate() {
                findings.extend(error.map(|error| ConfigError { key: format!("{key}[{nth}]"), ..error }));
            }
        }
    }

    /// Why `models` certainly refuses every model that a pattern matches.
    fn refusal(&self, pattern: &Pattern) -> Option<ConfigError> {
        let text = pattern.as_str();
        if let Some(deny) = self.deny.iter().find(|deny| deny.covers(pattern)) {
            return Some(at("", format!("'{text}' is refused by '{}' in `models.deny`", deny.as_str())));
        }
        if self.allow.iter().any(|allow| allow.may_match_a_model_of(pattern)) {
            return None;
        }
        let allow = self.allow.iter().map(Pattern::as_str);
        Some(ConfigError {
            nearest: nearest(text, allow.clone()).map(str::to_owned),
            known: allow.map(str::to_owned).collect(),
            ..at("", format!("no pattern in `models.allow` allows a model of '{text}'"))
        })
    }
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
