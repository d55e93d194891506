//! Finds classes that no call can reach. Only what is certain is reported.

use super::RouteClass;
use crate::config::{BodyBytes, ConfigError, at};
use crate::model::Pattern;
use crate::operation::{OPERATIONS, Operation};

/// Problems of valid classes, by key.
pub(crate) fn findings(classes: &[RouteClass]) -> Vec<ConfigError> {
    let mut findings = Vec::new();
    for (index, class) in classes.iter().enumerate() {
        let key = format!("route_classes[{index}]");
        if class.possible_operations().is_empty() {
            findings
                .push(at(&key, format!("no call matches class '{}': its conditions exclude each other", class.name)));
        } else if let Some(earlier) = classes.iter().take(index).find(|earlier| earlier.covers(class)) {
            let problem = format!(
                "class '{}' is never reached: '{}' before it takes every call that it would; move it up, or narrow '{}'",
                class.name, earlier.name, earlier.name
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

impl RouteClass {
    /// Whether this class certainly matches every call that `other` matches.
    fn covers(&self, other: &Self) -> bool {
        other.possible_operations().into_iter().all(|operation| self.may_match(operation))
            && covers_patterns(self.models.as_deref(), other.models.as_deref())
            && covers_patterns(self.principals.as_deref(), other.principals.as_deref())
            && covers_lengths(self.body_bytes, other.body_bytes)
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
fn covers_patterns(wide: Option<&[Pattern]>, narrow: Option<&[Pattern]>) -> bool {
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
