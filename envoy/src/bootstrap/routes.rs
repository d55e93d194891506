//! Sets the number of retries, and adds routes for each class with a priority, a bandwidth or a time-out of its attempts.

use std::time::Duration;

use filter_core::config::Priority;
use filter_core::envoy_names::{CLASS_HEADER, CLUSTER_HEADER};
use filter_core::route::RouteClass;
use serde_json::{Map, Value, json};

use super::is_relay;
use crate::bootstrap_error::BootstrapError;
use crate::document::Document;
use crate::objects::{for_each_object, plugins};

/// The filter that limits a class's bandwidth.
const BANDWIDTH: &str = "envoy.filters.http.bandwidth_limit";
/// Bounds for the number of retries. An SDK's three attempts multiply with it.
const RETRIES: std::ops::RangeInclusive<usize> = 3..=5;

/// Adds the routes of classes before the catch-all route. `largest` is the number of endpoints of the largest cluster.
pub(super) fn replace(resources: &mut Value, document: &Document, largest: usize) -> Result<(), BootstrapError> {
    let mut found = false;
    let mut limits = true;
    let mut room = u64::MAX;
    for_each_object(resources, &mut |object| {
        // Except the relay: its calls have passed a listener with the limit.
        if object.get("route_config").is_some_and(has_calls)
            && let Some(filters) = object.get("http_filters").filter(|filters| !has_relay(filters))
        {
            limits &= filters.as_array().into_iter().flatten().any(|filter| name(filter) == Some(BANDWIDTH));
        }
        let Some(routes) = object.get_mut("routes").and_then(Value::as_array_mut) else { return };
        routes.retain(|route| !is_class_route(route));
        let Some(at) = routes.iter().position(|route| route.pointer("/route/cluster_header").is_some()) else { return };
        let Some(pattern) = routes.get_mut(at).and_then(Value::as_object_mut) else { return };
        if let Some(limit) = pattern.get("request_body_buffer_limit").and_then(Value::as_u64) {
            room = room.min(limit);
        }
        set_retries(pattern, largest);
        let pattern = pattern.clone();
        let mut classes: Vec<&RouteClass> = document.policy().classes().iter().collect();
        classes.sort_by_key(|class| class.name());
        let relay = document.policy().stream_relay.as_deref();
        let own = classes.into_iter().flat_map(|class| class_routes(&pattern, class, relay)).map(Value::Object);
        routes.splice(at..at, own.collect::<Vec<_>>());
        found = true;
    });
    if !found {
        return Err(BootstrapError::Missing("route with `cluster_header`"));
    }
    let longest = document.policy().max_body_bytes;
    if longest > room {
        return Err(BootstrapError::NoRoomForBodies { longest, room });
    }
    if !limits && document.policy().classes().iter().any(|class| class.bandwidth_kbps().is_some()) {
        return Err(BootstrapError::Missing("HTTP filter `envoy.filters.http.bandwidth_limit`"));
    }
    Ok(())
}

fn name(filter: &Value) -> Option<&str> {
    filter.get("name").and_then(Value::as_str)
}

fn has_relay(filters: &Value) -> bool {
    plugins(filters).into_iter().any(is_relay)
}

/// Whether these routes serve calls: the health listener's do not.
fn has_calls(route_config: &Value) -> bool {
    match route_config {
        Value::Object(object) => object.contains_key("cluster_header") || object.values().any(has_calls),
        Value::Array(values) => values.iter().any(has_calls),
        _ => false,
    }
}

fn is_class_route(route: &Value) -> bool {
    let headers = route.pointer("/match/headers").and_then(Value::as_array);
    headers.into_iter().flatten().any(|header| header.get("name").and_then(Value::as_str) == Some(CLASS_HEADER))
}

/// If all clusters have a single endpoint, allow one retry on it. The signer then does not ask for a retry of 429 and
/// 503: the client's SDK retries these, and with both, one call would become twelve.
fn set_retries(route: &mut Map<String, Value>, largest: usize) {
    let policy = route.get_mut("route").and_then(|route| route.get_mut("retry_policy")).and_then(Value::as_object_mut);
    let Some(policy) = policy else { return };
    let retries = if largest < 2 { 1 } else { largest.clamp(*RETRIES.start(), *RETRIES.end()) };
    policy.insert("num_retries".into(), json!(retries));
}

/// The class's routes: one with the time-out of attempts, for calls that leave for Bedrock, and one with its priority or
/// bandwidth. A stream passes Envoy twice, and only its second hop has attempts of the class.
fn class_routes(pattern: &Map<String, Value>, class: &RouteClass, relay: Option<&str>) -> Vec<Map<String, Value>> {
    let own = class_route(pattern, class);
    let timed =
        class.first_byte_timeout().and_then(|limit| {
            let mut route = own.clone().unwrap_or_else(|| pattern.clone());
            let mut headers = vec![of_class(class)];
            headers.extend(relay.map(
                |relay| json!({ "name": CLUSTER_HEADER, "string_match": { "exact": relay }, "invert_match": true }),
            ));
            set_headers(&mut route, headers)?;
            let policy = route.get_mut("route")?.as_object_mut()?.entry("retry_policy").or_insert_with(|| json!({}));
            policy.as_object_mut()?.insert("per_try_timeout".into(), json!(duration(limit)));
            Some(route)
        });
    timed.into_iter().chain(own).collect()
}

fn of_class(class: &RouteClass) -> Value {
    json!({ "name": CLASS_HEADER, "string_match": { "exact": class.name() } })
}

fn set_headers(route: &mut Map<String, Value>, headers: Vec<Value>) -> Option<()> {
    let matched = route.entry("match").or_insert_with(|| json!({ "prefix": "/" })).as_object_mut()?;
    matched.insert("headers".into(), Value::Array(headers));
    Some(())
}

/// `5s`, `0.25s`
pub(crate) fn duration(time: Duration) -> String {
    format!("{}s", time.as_secs_f64())
}

/// The class's route, if it has a priority or a bandwidth.
fn class_route(pattern: &Map<String, Value>, class: &RouteClass) -> Option<Map<String, Value>> {
    let high = class.priority() == Priority::High;
    if !high && class.bandwidth_kbps().is_none() {
        return None;
    }
    let mut route = pattern.clone();
    set_headers(&mut route, vec![of_class(class)])?;
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
