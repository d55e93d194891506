//! Rules for a retry that has to leave the region: labels of endpoints, the choice by them, and the filter that names the region.

use filter_core::envoy_names::{LEAVE_HEADER, LEAVE_KEY};
use serde_json::Value;

use crate::bootstrap::needs_to_leave;

use super::{At, Fault};

const SAME: &str = "after a 429 Envoy would try the same region again, on its next path";

/// A cluster with several regions, of which one has several endpoints.
pub(super) fn cluster(at: &At<'_>, key: &str, cluster: &Value, found: &mut Vec<Fault>) {
    let groups = cluster.pointer("/load_assignment/endpoints").and_then(Value::as_array);
    let lists = groups.into_iter().flatten().filter_map(|group| group.get("lb_endpoints")?.as_array());
    let labels = lists.flatten().filter_map(|endpoint| endpoint.pointer("/metadata/filter_metadata"));
    let labels: Vec<(&str, Option<&Value>)> = labels
        .filter_map(|labels| {
            Some((
                labels.pointer("/bedrock/region")?.as_str()?,
                labels.get("envoy.lb").and_then(|lb| lb.get(LEAVE_KEY)),
            ))
        })
        .collect();
    if !needs_to_leave(labels.iter().map(|(region, _)| *region)) {
        return;
    }
    for (region, others) in &labels {
        let others: Vec<&str> =
            others.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let missing = labels.iter().find(|(other, _)| other != region && !others.contains(other));
        if let Some((other, _)) = missing {
            let problem = format!(
                "an endpoint in {region} has no {other} in its metadata `envoy.lb: {{ {LEAVE_KEY}: […] }}`: {SAME}"
            );
            found.push(at.fault(&format!("{key}.load_assignment"), problem));
            break;
        }
    }
    let subset = cluster.get("lb_subset_config");
    let selectors = subset.and_then(|subset| subset.get("subset_selectors")?.as_array());
    let selects = |selector: &Value| selector.get("keys") == Some(&serde_json::json!([LEAVE_KEY]));
    let chosen = selectors.into_iter().flatten().any(selects)
        && subset.and_then(|subset| subset.get("list_as_any")) == Some(&Value::Bool(true));
    if !chosen {
        let problem = format!("want `subset_selectors: [{{ keys: [{LEAVE_KEY}] }}]` and `list_as_any: true`: {SAME}");
        found.push(at.fault(&format!("{key}.lb_subset_config"), problem));
    }
    if !cluster.to_string().contains(LEAVE_HEADER) {
        let problem = format!("no filter reads {LEAVE_HEADER} of a response (`bedrock.leave`): {SAME}");
        found.push(at.fault(&format!("{key}.typed_extension_protocol_options"), problem));
    }
}
