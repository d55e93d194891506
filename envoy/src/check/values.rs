//! Reads values of Envoy's and Istio's configuration.

use serde_json::Value;

/// A whole number, as it is or in a wrapper (`{ value: 5 }`).
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.get("value")?.as_u64())
}

/// How many endpoints a cluster has.
pub(super) fn endpoints(cluster: &Value) -> u64 {
    let groups = cluster.pointer("/load_assignment/endpoints").and_then(Value::as_array);
    let lists = groups.into_iter().flatten().filter_map(|group| group.get("lb_endpoints")?.as_array());
    lists.map(|endpoints| endpoints.len() as u64).sum()
}

/// Visits every object with its key.
pub(super) fn visit_objects<'a>(key: &str, value: &'a Value, visit: &mut dyn FnMut(&str, &'a Value)) {
    match value {
        Value::Object(object) => {
            visit(key, value);
            for (name, value) in object {
                visit_objects(&if key.is_empty() { name.clone() } else { format!("{key}.{name}") }, value, visit);
            }
        }
        Value::Array(values) => {
            values
                .iter()
                .enumerate()
                .for_each(|(number, value)| visit_objects(&format!("{key}[{number}]"), value, visit));
        }
        _ => {}
    }
}
