//! Who may call, as AuthorizationPolicies say it.

use serde_json::{Map, Value};

use super::super::Fault;
use super::super::values::visit_objects;
use super::workloads::{Labels, has_all, ports, selected};
use super::{Object, plain};

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

/// A policy among the others: DENY next to ALLOW, and the ports that its workloads have.
pub(super) fn among(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let allowing: Vec<&Object<'_>> = objects
        .iter()
        .filter(|other| other.kind == object.kind && ["", "ALLOW"].contains(&other.text("/spec/action")))
        .filter(|other| other.namespace == object.namespace && overlap(labels(object), labels(other)))
        .collect();
    if object.text("/spec/action") == "DENY" {
        deny(object, &allowing, found);
    }
    reached_ports(object, objects, found);
}

/// DENY is decided before ALLOW, and without an ALLOW everybody else may call.
fn deny(object: &Object<'_>, allowing: &[&Object<'_>], found: &mut Vec<Fault>) {
    for (index, rule) in rules(object).enumerate() {
        let same = allowing.iter().find(|other| rules(other).any(|allowed| allowed.get("from") == rule.get("from")));
        if let Some(other) = same.filter(|_| rule.get("from").is_some()) {
            let problem =
                format!("refuses the callers that {} lets in: DENY is decided first; remove one", other.title);
            found.push(object.fault(&format!("spec.rules[{index}].from"), problem));
        }
        let sources = rule.get("from").and_then(Value::as_array).into_iter().flatten();
        let names = |source: &Value| {
            let keys = source.get("source").and_then(Value::as_object);
            keys.is_some_and(|keys| keys.keys().any(|key| !key.starts_with("not")))
        };
        if allowing.is_empty() && sources.clone().any(names) {
            let problem = "DENY refuses the callers that the rules name and lets all others call; want ALLOW, or check \
                           it together with the policy that allows";
            found.push(object.fault("spec.action", problem));
        }
    }
}

/// Ports of a rule are those of the workload, or of the Gateway that it is.
fn reached_ports(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let none = Labels::new();
    let wanted = labels(object).unwrap_or(&none);
    let mut known: Vec<String> = selected(object.namespace, wanted, objects).flat_map(ports).collect();
    for gateway in objects.iter().filter(|other| other.kind == "Gateway") {
        let selector = gateway.get("/spec/selector").and_then(Value::as_object);
        if overlap(labels(object), selector) {
            known.extend(super::routing::server_ports(gateway));
        }
    }
    if known.is_empty() {
        return;
    }
    known.sort();
    known.dedup();
    visit_objects("spec.rules", object.get("/spec/rules").unwrap_or(&Value::Null), &mut |key, value| {
        for list in ["ports", "notPorts"] {
            let named = value.get(list).and_then(Value::as_array);
            for (index, port) in
                named.into_iter().flatten().map(plain).enumerate().filter(|(_, port)| !known.contains(port))
            {
                let problem = format!("the selected pods have no port {port}; they have {}", known.join(", "));
                found.push(object.fault(&format!("{key}.{list}[{index}]"), problem));
            }
        }
    });
}

fn rules<'a>(object: &'a Object<'_>) -> impl Iterator<Item = &'a Value> {
    object.get("/spec/rules").and_then(Value::as_array).into_iter().flatten()
}

fn labels<'a>(object: &'a Object<'_>) -> Option<&'a Labels> {
    object.get("/spec/selector/matchLabels").and_then(Value::as_object)
}

/// Whether two selectors certainly select a pod in common; none selects all.
pub(super) fn overlap(left: Option<&Labels>, right: Option<&Labels>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return true };
    has_all(left, right) || has_all(right, left)
}
