//! Routes: how often a call is tried again, and a route of its own for each class with a priority or a bandwidth.

use filter_core::config::Priority;
use filter_core::route::RouteClass;
use serde_json::{Map, Value, json};

use super::is_relay;
use crate::bootstrap_error::BootstrapError;
use crate::document::Document;
use crate::objects::{for_each_object, plugins};

/// Says the class of a call; the filter sets it.
const CLASS: &str = "x-bedrock-gateway-class";
/// Limits a class's bytes.
const BANDWIDTH: &str = "envoy.filters.http.bandwidth_limit";
/// Retries of a call: at least as without regions, at most what an SDK's own three tries may be multiplied by.
const RETRIES: std::ops::RangeInclusive<usize> = 3..=5;

/// Puts routes of classes before the one that takes all; `largest` is the number of endpoints of the largest cluster.
pub(super) fn replace(resources: &mut Value, document: &Document, largest: usize) -> Result<(), BootstrapError> {
    let mut found = false;
    let mut limits = true;
    for_each_object(resources, &mut |object| {
        // Not the relay: what comes there has passed a listener that limits it.
        if object.get("route_config").is_some_and(has_calls)
            && let Some(filters) = object.get("http_filters").filter(|filters| !is_the_relays(filters))
        {
            limits &= filters.as_array().into_iter().flatten().any(|filter| name(filter) == Some(BANDWIDTH));
        }
        let Some(routes) = object.get_mut("routes").and_then(Value::as_array_mut) else { return };
        routes.retain(|route| !is_of_a_class(route));
        let Some(at) = routes.iter().position(|route| route.pointer("/route/cluster_header").is_some()) else { return };
        let Some(pattern) = routes.get_mut(at).and_then(Value::as_object_mut) else { return };
        retries(pattern, largest);
        let pattern = pattern.clone();
        let mut classes: Vec<&RouteClass> = document.policy().classes().iter().collect();
        classes.sort_by_key(|class| class.name());
        let own = classes.into_iter().filter_map(|class| route_of(&pattern, class)).map(Value::Object);
        routes.splice(at..at, own.collect::<Vec<_>>());
        found = true;
    });
    if !found {
        return Err(BootstrapError::Missing("route with `cluster_header`"));
    }
    if !limits && document.policy().classes().iter().any(|class| class.bandwidth_kbps().is_some()) {
        return Err(BootstrapError::Missing("HTTP filter `envoy.filters.http.bandwidth_limit`"));
    }
    Ok(())
}

fn name(filter: &Value) -> Option<&str> {
    filter.get("name").and_then(Value::as_str)
}

fn is_the_relays(filters: &Value) -> bool {
    plugins(filters).into_iter().any(is_relay)
}

/// Whether calls go by these routes, and not a load balancer's health checks alone.
fn has_calls(route_config: &Value) -> bool {
    match route_config {
        Value::Object(object) => object.contains_key("cluster_header") || object.values().any(has_calls),
        Value::Array(values) => values.iter().any(has_calls),
        _ => false,
    }
}

fn is_of_a_class(route: &Value) -> bool {
    let headers = route.pointer("/match/headers").and_then(Value::as_array);
    headers.into_iter().flatten().any(|header| header.get("name").and_then(Value::as_str) == Some(CLASS))
}

/// Where no call has a second endpoint, one is tried once more. What is worth that the signer says: there, no 429 and no 503,
/// since the client's SDK tries again by itself, and with retries of both one call would become twelve.
fn retries(route: &mut Map<String, Value>, largest: usize) {
    let policy = route.get_mut("route").and_then(|route| route.get_mut("retry_policy")).and_then(Value::as_object_mut);
    let Some(policy) = policy else { return };
    let retries = if largest < 2 { 1 } else { largest.clamp(*RETRIES.start(), *RETRIES.end()) };
    policy.insert("num_retries".into(), json!(retries));
}

/// A class's own route, if it needs one.
fn route_of(pattern: &Map<String, Value>, class: &RouteClass) -> Option<Map<String, Value>> {
    let high = class.priority() == Priority::High;
    if !high && class.bandwidth_kbps().is_none() {
        return None;
    }
    let mut route = pattern.clone();
    let matched = route.entry("match").or_insert_with(|| json!({ "prefix": "/" })).as_object_mut()?;
    matched.insert("headers".into(), json!([{ "name": CLASS, "string_match": { "exact": class.name() } }]));
    if high {
        route.get_mut("route")?.as_object_mut()?.insert("priority".into(), json!("HIGH"));
    }
    if let Some(kbps) = class.bandwidth_kbps() {
        let limit = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit",
            "stat_prefix": class.name(),
            "enable_mode": "REQUEST_AND_RESPONSE",
            "limit_kbps": kbps,
        });
        let filters = route.entry("typed_per_filter_config").or_insert_with(|| json!({})).as_object_mut()?;
        filters.insert(BANDWIDTH.into(), limit);
    }
    Some(route)
}
