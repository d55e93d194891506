//! Finds classes that no call can reach. Only what is certain is reported.

use super::RouteClass;
use crate::config::{BodyBytes, ConfigError, at};
use crate::model::Pattern;
use crate::operation::{OPERATIONS, Operation};
use std::collections::BTreeSet;

/// Problems of valid classes, by key.
pub(crate) fn findings(classes: &[RouteClass]) -> Vec<ConfigError> {
    let mut findings = Vec::new();
    for (index, class) in classes.iter().enumerate() {
        let key = format!("route_classes[{index}]");
        let operations = class.possible_operations();
        if operations.is_empty() {
            findings
                .push(at(&key, format!("no call matches class '{}': its conditions exclude each other", class.name)));
        } else if let Some(names) = covering(class, classes.get(..index).unwrap_or_default(), &operations) {
            let (names, take) = (names.join(" and "), if names.len() == 1 { "takes" } else { "take" });
            let problem = format!(
                "class '{}' is never reached: {names} before it {take} every call that it would; move it up, or narrow {names}",
                class.name
            );
            findings.push(at(&key, problem));
        }
        if class.paths.is_empty() {
            let problem = format!("class '{}' has no path: BEDROCK_PATHS names none of its paths", class.name);
            findings.push(at(format!("{key}.paths"), problem));
        }
    }
    findings
}

/// The classes, quoted, of which for each operation one takes every call that `class` would; `None` if calls are left.
fn covering(class: &RouteClass, earlier: &[RouteClass], operations: &[Operation]) -> Option<Vec<String>> {
    let covers =
        |index: usize, operation: Operation| earlier.get(index).is_some_and(|earlier| earlier.covers(class, operation));
    // One that takes all is a better reason than several.
    let one = (0..earlier.len()).find(|index| operations.iter().all(|operation| covers(*index, *operation)));
    let found: BTreeSet<usize> = match one {
        Some(one) => BTreeSet::from([one]),
        None => {
            let first = |operation: &Operation| (0..earlier.len()).find(|index| covers(*index, *operation));
            operations.iter().map(first).collect::<Option<_>>()?
        }
    };
    Some(found.into_iter().filter_map(|index| Some(format!("'{}'", earlier.get(index)?.name))).collect())
}

impl RouteClass {
    /// Whether this class certainly matches every call of an operation that `other` matches.
    fn covers(&self, other: &Self, operation: Operation) -> bool {
        // A call of such an operation always has a model.
        let all_models = operation.names_model() && self.models.iter().flatten().any(Pattern::takes_all);
        self.may_match(operation)
            && (all_models || covers_patterns(self.models.as_deref(), other.models.as_deref()))
            && covers_patterns(self.principals.as_deref(), other.principals.as_deref())
            && covers_lengths(self.body_bytes, other.body_bytes)
    }

    /// Whether a call may match both classes, as far as operations and models decide.
    pub(crate) fn shares_calls_with(&self, other: &Self) -> bool {
        let operations = other.possible_operations();
        let models = match (&self.models, &other.models) {
            (Some(own), Some(other)) => {
                own.iter().any(|own| other.iter().any(|other| own.covers(other) || other.covers(own)))
            }
            _ => true,
        };
        models && self.possible_operations().iter().any(|operation| operations.contains(operation))
    }

    /// What a call has in this class that it lacks in another.
    pub(crate) fn allows_more_than(&self, other: &Self) -> Option<String> {
        let wider = |limit: Option<u64>, own: Option<u64>| limit.is_some_and(|limit| own.is_none_or(|own| own > limit));
        let (limits, own) = (other.limits, self.limits);
        if let Some(path) = self.own_paths.iter().find(|path| !other.own_paths.contains(path)) {
            return Some(format!("path {path}"));
        }
        if let Some(region) = self.regions.iter().find(|region| !other.regions.contains(region)) {
            return Some(format!("region {region}"));
        }
        if wider(limits.requests_per_minute.map(u64::from), own.requests_per_minute.map(u64::from)) {
            return Some("more requests a minute".to_owned());
        }
        if wider(limits.tokens_per_minute.map(u64::from), own.tokens_per_minute.map(u64::from)) {
            return Some("more tokens a minute".to_owned());
        }
        if wider(limits.concurrent_calls.map(u64::from), own.concurrent_calls.map(u64::from)) {
            return Some("more calls at the same time".to_owned());
        }
        wider(other.bandwidth_kbps, self.bandwidth_kbps).then(|| "more bandwidth".to_owned())
    }

    /// The operations of which a call could match, as far as the operation decides.
    fn possible_operations(&self) -> Vec<Operation> {
        OPERATIONS.iter().copied().filter(|operation| self.may_match(*operation)).collect()
    }

    fn may_match(&self, operation: Operation) -> bool {
        self.operations.as_ref().is_none_or(|operations| operations.contains(&operation))
            && self.streaming.is_none_or(|streaming| streaming == operation.streams())
            && (self.models.is_none() || operation.names_model())
    }
}

/// Whether each of the narrow patterns is covered by one of the wide ones. `None` matches everything.
pub(crate) fn covers_patterns(wide: Option<&[Pattern]>, narrow: Option<&[Pattern]>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        // A call without a name matches no pattern, so even `*` does not cover everything.
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|narrow| wide.iter().any(|wide| wide.covers(narrow))),
    }
}

fn covers_lengths(wide: Option<BodyBytes>, narrow: Option<BodyBytes>) -> bool {
    let bounds =
        |bounds: Option<BodyBytes>| bounds.map_or((0, u64::MAX), |bounds| (bounds.min, bounds.max.unwrap_or(u64::MAX)));
    let ((wide_min, wide_max), (min, max)) = (bounds(wide), bounds(narrow));
    wide_min <= min && max <= wide_max
}
