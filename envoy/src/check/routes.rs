//! Rules for the routes of calls in a bootstrap.

use std::collections::BTreeMap;

use filter_core::config::Auth;
use filter_core::envoy_names::{CLASS_HEADER, CLUSTER_HEADER, LEAVE_KEY, RETRY_HEADER};
use filter_core::policy::Policy;
use serde_json::Value;

use crate::bootstrap::duration;

use super::values::{endpoints, number, visit_objects};
use super::{At, Fault};

/// The bootstrap's clusters by name, each with its index.
pub(super) type Clusters<'a> = BTreeMap<&'a str, (usize, &'a Value)>;

/// The headers that only the filter may set.
const INTERNAL: [&str; 2] = [CLUSTER_HEADER, CLASS_HEADER];
/// What makes Envoy retry on the next path.
const NEXT_PATH: &str = "envoy.retry_priorities.previous_priorities";
/// The shipped configuration has no more (envoy/base.yaml).
const MOST_RETRIES: u64 = 5;

/// Routes: to the cluster that the filter names, with retries that it decides, and room for a body.
pub(super) fn check(at: &At<'_>, bootstrap: &Value, policy: &Policy, clusters: &Clusters<'_>, found: &mut Vec<Fault>) {
    let mut any = false;
    visit_objects("", bootstrap, &mut |key, value| {
        let Some(route) = value.get("route").filter(|route| route.get("cluster_header").is_some()) else { return };
        let name = route.get("cluster_header").and_then(Value::as_str).unwrap_or_default();
        if name != CLUSTER_HEADER {
            let problem = format!("'{name}' is not the filter's header; want {CLUSTER_HEADER}");
            found.push(at.fault(&format!("{key}.route.cluster_header"), problem));
        }
        any = true;
        let limit = value.get("request_body_buffer_limit").and_then(number);
        if limit.is_none() && policy.auth == Auth::Sigv4 {
            let problem = format!(
                "is missing: Envoy would refuse bodies over the listener's `per_connection_buffer_limit_bytes`; want \
                 more than `max_body_bytes` ({})",
                policy.max_body_bytes
            );
            found.push(at.fault(&format!("{key}.request_body_buffer_limit"), problem));
        }
        if limit.is_some_and(|limit| limit < policy.max_body_bytes) {
            let problem =
                format!("is less than `max_body_bytes` ({}): Envoy would refuse the body first", policy.max_body_bytes);
            found.push(at.fault(&format!("{key}.request_body_buffer_limit"), problem));
        }
        retries(at, key, value, policy, clusters, found);
        if route.get("timeout").and_then(Value::as_str) != Some("0s") {
            found.push(
                at.fault(&format!("{key}.route.timeout"), "want 0s: Envoy's 15 s would cut off a model that thinks"),
            );
        }
    });
    if !any {
        found.push(at.fault("static_resources.listeners", format!("no route has `cluster_header: {CLUSTER_HEADER}`")));
    }
    time_outs(at, bootstrap, policy, found);
    removed_headers(at, bootstrap, found);
}

/// A class with a time-out of its attempts has a route with it.
fn time_outs(at: &At<'_>, bootstrap: &Value, policy: &Policy, found: &mut Vec<Fault>) {
    let mut routes: Vec<(&str, &str)> = Vec::new();
    visit_objects("", bootstrap, &mut |_, value| {
        let time = value.pointer("/route/retry_policy/per_try_timeout").and_then(Value::as_str);
        routes.extend(class_of(value).zip(time));
    });
    for class in policy.classes() {
        let Some(wanted) = class.first_byte_timeout().map(duration) else { continue };
        if !routes.contains(&(class.name(), wanted.as_str())) {
            let problem = format!(
                "class '{}' has `first_byte_timeout_ms`, and no route of it has `per_try_timeout: {wanted}` in its retry policy",
                class.name()
            );
            found.push(at.fault("static_resources.listeners", problem));
        }
    }
}

/// The class that a route serves alone.
fn class_of(route: &Value) -> Option<&str> {
    let headers = route.pointer("/match/headers").and_then(Value::as_array);
    let own = headers.into_iter().flatten().find(|header| header.get("name").is_some_and(|name| name == CLASS_HEADER));
    own?.pointer("/string_match/exact")?.as_str()
}

/// Retries: where the signer asks for them, on the next path, as many as there are endpoints.
fn retries(at: &At<'_>, key: &str, route: &Value, policy: &Policy, clusters: &Clusters<'_>, found: &mut Vec<Fault>) {
    let retry = route.pointer("/route/retry_policy");
    let on = retry.and_then(|retry| retry.get("retry_on")?.as_str()).unwrap_or_default();
    if !on.split(',').any(|on| on.trim() == "retriable-headers") {
        let problem = "`retriable-headers` is missing: Envoy would ignore the signer's retry header";
        found.push(at.fault(&format!("{key}.route.retry_policy.retry_on"), problem));
    }
    for code in ["5xx", "gateway-error", "retriable-4xx", "retriable-status-codes"] {
        if on.split(',').any(|on| on.trim() == code) {
            let problem = format!("`{code}` tries again what the signer does not want to: calls could run twice");
            found.push(at.fault(&format!("{key}.route.retry_policy.retry_on"), problem));
        }
    }
    let headers = retry.and_then(|retry| retry.get("retriable_headers")?.as_array());
    let named = headers.into_iter().flatten().filter_map(|header| header.get("name")?.as_str());
    if !named.clone().any(|name| name == RETRY_HEADER) {
        let found_name = named.clone().next().unwrap_or("nothing");
        let problem = format!("want {RETRY_HEADER}, not {found_name}: Envoy would ignore the signer's retry header");
        found.push(at.fault(&format!("{key}.route.retry_policy.retriable_headers"), problem));
    }
    let (class, count) = largest(route, policy, clusters);
    // The policy's absence has been reported.
    if count < 2 || retry.is_none() {
        return;
    }
    let retries = retry.and_then(|retry| number(retry.get("num_retries")?)).unwrap_or(1);
    let wanted = (count - 1).min(MOST_RETRIES);
    if retries < wanted {
        let problem = format!(
            "want {wanted} or more, not {retries}: class '{class}' has {count} endpoints, and a call would not reach the last"
        );
        found.push(at.fault(&format!("{key}.route.retry_policy.num_retries"), problem));
    }
    // A policy of several regions may have clusters whose retries leave a region; their labels are the clusters' rules.
    let several = policy.classes().iter().any(|class| class.regions().len() > 1 && class.paths().len() > 1);
    let fallback = route.pointer("/route/metadata_match/filter_metadata/envoy.lb/fallback_list");
    if several && fallback.and_then(Value::as_array).is_none_or(|list| list.len() < 2) {
        let problem = format!(
            "want `fallback_list: [{{}}, {{ {LEAVE_KEY}: \"\" }}]` in `envoy.lb`: a call that leaves a region for one that is \
             down would get 503"
        );
        found.push(at.fault(&format!("{key}.route.metadata_match"), problem));
    }
    let priority = retry.and_then(|retry| retry.pointer("/retry_priority/name")?.as_str());
    if priority != Some(NEXT_PATH) {
        let problem = format!("want {NEXT_PATH}: Envoy would try the path again that has failed");
        found.push(at.fault(&format!("{key}.route.retry_policy.retry_priority"), problem));
    }
}

/// Of the classes that a route serves, the one with the most endpoints in a cluster, and their number.
fn largest<'a>(route: &Value, policy: &'a Policy, clusters: &Clusters<'_>) -> (&'a str, u64) {
    let only = class_of(route);
    let served = policy.clusters().filter(|(class, _)| only.is_none_or(|only| class.name() == only));
    let counted = served.filter_map(|(class, cluster)| {
        let (_, cluster) = clusters.get(cluster.name.as_str())?;
        Some((class.name(), endpoints(cluster)))
    });
    counted.max_by_key(|(_, count)| *count).unwrap_or_default()
}

/// The gateway's own headers stay in the gateway.
fn removed_headers(at: &At<'_>, bootstrap: &Value, found: &mut Vec<Fault>) {
    visit_objects("", bootstrap, &mut |key, value| {
        let calls = value.get("virtual_hosts").is_some_and(|hosts| hosts.to_string().contains("cluster_header"));
        if !calls {
            return;
        }
        let removed: Vec<&str> = value
            .get("request_headers_to_remove")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for name in INTERNAL.into_iter().filter(|name| !removed.contains(name)) {
            let problem = format!("{name} is missing: the gateway's own header would leave for Bedrock");
            found.push(at.fault(&format!("{key}.request_headers_to_remove"), problem));
        }
    });
}
