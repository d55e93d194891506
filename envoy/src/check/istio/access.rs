//! Who may call, as AuthorizationPolicies say it.

use serde_json::{Map, Value};

use super::super::Fault;
use super::super::bootstrap::visit_objects;
use super::Object;

/// Who may call: `AUDIT` refuses nobody, and an empty list is not a condition.
pub(super) fn authorization(object: &Object<'_>, found: &mut Vec<Fault>) {
    let action = object.text("/spec/action");
    if !["", "ALLOW", "DENY"].contains(&action) {
        let problem = format!("{action} refuses nobody; want ALLOW (or DENY)");
        found.push(object.fault("spec.action", problem));
    }
    let rules = object.get("/spec/rules").and_then(Value::as_array);
    if rules.is_none_or(Vec::is_empty) && action != "ALLOW" && !action.is_empty() {
        found.push(object.fault("spec.rules", "is empty: it refuses nobody"));
    }
    if rules.is_none_or(Vec::is_empty) && ["ALLOW", ""].contains(&action) {
        found.push(object.fault("spec.rules", "is empty: it refuses everybody"));
    }
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let all = rule.as_object().is_none_or(Map::is_empty);
        if all && ["ALLOW", ""].contains(&action) {
            found.push(object.fault(&format!("spec.rules[{index}]"), "has no condition: everybody may call"));
        }
        if rule.get("from").is_some_and(|from| from.as_array().is_none_or(Vec::is_empty)) {
            found.push(object.fault(&format!("spec.rules[{index}].from"), "is empty, which is not a condition"));
        }
    }
    visit_objects("spec.rules", object.get("/spec/rules").unwrap_or(&Value::Null), &mut |key, value| {
        for list in ["namespaces", "principals", "serviceAccounts", "ports", "hosts", "paths", "methods"] {
            if value.get(list).and_then(Value::as_array).is_some_and(Vec::is_empty) {
                found.push(
                    object.fault(&format!("{key}.{list}"), "is empty, which is not a condition: everybody would match"),
                );
            }
        }
        let names = value.get("namespaces").and_then(Value::as_array);
        if names.into_iter().flatten().any(|name| name == "*") {
            found.push(object.fault(&format!("{key}.namespaces"), "`*` lets every namespace of the mesh call"));
        }
    });
}
