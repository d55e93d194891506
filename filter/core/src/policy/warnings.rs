//! What an operator of a valid policy may not expect.

use super::Policy;
use crate::config::{Anonymous, ConfigError, at};

impl Policy {
    /// Classes that restrict named callers, and that a caller leaves by proving no name: its calls are then taken by a class
    /// that allows more. An empty list promises nothing about classes that depend on models.
    /// And classes that would leave a new account's regions out, whose data retention mode is each model's own.
    pub fn warnings(&self) -> Vec<ConfigError> {
        let mut warnings: Vec<ConfigError> = self.unstated_retention().into_iter().collect();
        if self.access.anonymous() == Anonymous::Refuse {
            return warnings;
        }
        for (index, class) in self.classes.iter().enumerate().filter(|(_, class)| class.depends_on_principal()) {
            let later = self.classes.iter().skip(index + 1).filter(|other| !other.depends_on_principal());
            let wider = later.filter(|other| other.shares_calls_with(class)).find_map(|other| {
                let more = other.allows_more_than(class)?;
                Some((other.name(), more))
            });
            if let Some((other, more)) = wider {
                let problem = format!(
                    "a caller without a name is not in class '{}' and is served by class '{other}', which has {more}: \
                     require names with `anonymous: refuse`, or restrict '{other}' too",
                    class.name()
                );
                warnings.push(at(format!("route_classes[{index}].principals"), problem));
            }
        }
        warnings
    }

    fn unstated_retention(&self) -> Option<ConfigError> {
        let class = self.classes.iter().find(|class| class.retention().is_some())?;
        let problem = format!(
            "without a statement here, a region has no known mode where account and project leave it to the model (`inherit`, as in a new \
             account, or `default`), and class '{}' does not fail over to it",
            class.name()
        );
        self.retention.as_ref().filter(|rules| !rules.states_models()).map(|_| at("data_retention.models", problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn warnings(classes: Value, change: Value) -> Vec<String> {
        let mut document = json!({
            "role": "gateway", "regions": {"us-east-1": {}, "us-west-2": {}}, "principal": [{"from": "mtls"}],
            "route_classes": classes,
        });
        for (key, value) in change.as_object().unwrap() {
            document[key] = value.clone();
        }
        let policy = Policy::parse(document.to_string().as_bytes(), None).unwrap();
        policy.warnings().into_iter().map(|warning| format!("{}: {}", warning.key, warning.problem)).collect()
    }

    #[test]
    fn a_class_that_is_left_by_being_nobody() {
        let private = json!({"name": "private-only", "principals": ["spiffe://m/*"], "paths": ["dx"]});
        let any = json!({"name": "any", "paths": ["dx", "internet"]});
        let found = warnings(json!([private, any]), json!({}));
        assert_eq!(
            found,
            [
                "route_classes[0].principals: a caller without a name is not in class 'private-only' and is served by class \
              'any', which has path internet: require names with `anonymous: refuse`, or restrict 'any' too"
            ]
        );
        assert_eq!(warnings(json!([private, any]), json!({"anonymous": "refuse"})), Vec::<String>::new());
        assert_eq!(warnings(json!([private]), json!({})), Vec::<String>::new(), "nobody is served");
        assert_eq!(warnings(json!([any, private]), json!({})), Vec::<String>::new(), "a name changes nothing");
    }

    #[test]
    fn a_class_that_leaves_new_accounts_out() {
        let class = json!([{"name": "any", "paths": ["dx"], "retention": "none"}]);
        let found = warnings(class.clone(), json!({"data_retention": {"cluster": "polls"}}));
        assert!(found.len() == 1 && found[0].starts_with("data_retention.models: without a statement"), "{found:?}");
        let stated = json!({"cluster": "polls", "models": [{"models": ["a.*"], "mode": "none"}]});
        assert_eq!(warnings(class, json!({ "data_retention": stated })), Vec::<String>::new());
    }

    #[test]
    fn every_restriction_is_looked_at() {
        let named = |more: Value| {
            let mut class = json!({"name": "named", "principals": ["*"], "paths": ["dx", "vpn"]});
            class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            class
        };
        let any = |more: Value| {
            let mut class = json!({"name": "any", "paths": ["vpn", "dx"]});
            class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            class
        };
        for (class, other, wanted) in [
            (json!({}), json!({}), None),
            (json!({"regions": ["us-east-1"]}), json!({}), Some("region us-west-2")),
            (json!({"limits": {"requests_per_minute": 9}}), json!({}), Some("more requests a minute")),
            (
                json!({"limits": {"tokens_per_minute": 9}}),
                json!({"limits": {"tokens_per_minute": 10}}),
                Some("more tokens a minute"),
            ),
            (json!({"limits": {"tokens_per_minute": 9}}), json!({"limits": {"tokens_per_minute": 9}}), None),
            (json!({"bandwidth_kbps": 9}), json!({}), Some("more bandwidth")),
            (
                json!({"operations": ["Converse"], "regions": ["us-east-1"]}),
                json!({"operations": ["ConverseStream"]}),
                None,
            ),
            (json!({"models": ["a.*"], "regions": ["us-east-1"]}), json!({"models": ["b.*"]}), None),
            (
                json!({"models": ["a.b*"], "regions": ["us-east-1"]}),
                json!({"models": ["a.*"]}),
                Some("region us-west-2"),
            ),
        ] {
            let found = warnings(json!([named(class.clone()), any(other.clone())]), json!({}));
            match wanted {
                Some(more) => assert!(
                    found.len() == 1 && found[0].contains(&format!("has {more}: ")),
                    "{class} {other}: {found:?}"
                ),
                None => assert!(found.is_empty(), "{class} {other}: {found:?}"),
            }
        }
    }
}
