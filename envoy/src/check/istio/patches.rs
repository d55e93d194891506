//! Patches of EnvoyFilters.

use filter_core::config::Config;
use filter_core::policy::Policy;
use serde_json::Value;

use super::super::values::visit_objects;
use super::super::{Fault, did_you_mean, keepalive};
use super::routing::{listed_ports, server_ports};
use super::{Object, WASM, plain};

/// Patches: for listeners that exist, with the clusters that their document names.
pub(super) fn check(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let ports: Vec<String> = objects
        .iter()
        .flat_map(|other| match other.kind {
            "Gateway" => server_ports(other),
            "ServiceEntry" => listed_ports(other, "number"),
            _ => Vec::new(),
        })
        .collect();
    let mut clusters: Vec<&str> = Vec::new();
    let mut filters: Vec<&str> = Vec::new();
    let patches = object.get("/spec/configPatches").and_then(Value::as_array);
    for (index, patch) in patches.into_iter().flatten().enumerate() {
        let key = format!("spec.configPatches[{index}]");
        if let Some(port) = patch.pointer("/match/listener/portNumber").map(plain)
            && !ports.is_empty()
            && !ports.contains(&port)
        {
            let problem = format!(
                "no Gateway or ServiceEntry has port {port}, so the patch matches nothing; ports: {}",
                ports.join(", ")
            );
            found.push(object.fault(&format!("{key}.match.listener.portNumber"), problem));
        }
        route_configuration(object, &key, patch, objects, found);
        silence(object, &key, patch, found);
        let name = patch.pointer("/patch/value/name").and_then(Value::as_str);
        match patch.get("applyTo").and_then(Value::as_str) {
            Some("CLUSTER") => clusters.extend(name),
            Some("EXTENSION_CONFIG") => filters.extend(name),
            _ => {}
        }
    }
    // A sidecar's document routes to the mesh's own clusters.
    if clusters.is_empty() {
        return;
    }
    for (index, patch) in patches.into_iter().flatten().enumerate() {
        let key = format!("spec.configPatches[{index}].patch.value");
        visit_objects(&key, patch.pointer("/patch/value").unwrap_or(&Value::Null), &mut |key, value| {
            if value.get("@type").and_then(Value::as_str) != Some(WASM) {
                return;
            }
            let Some(text) = value.pointer("/config/configuration/value").and_then(Value::as_str) else { return };
            let Ok(policy) = Policy::parse(text.as_bytes(), None) else { return };
            let mut wanted: Vec<String> = policy.clusters().map(|(_, cluster)| cluster.name).collect();
            if let Ok(config) = Config::parse(text.as_bytes()) {
                wanted.extend(config.poll_clusters().into_iter().map(|(_, cluster)| cluster.to_owned()));
                wanted.extend(config.stream_relay);
            }
            for name in wanted.iter().filter(|name| !clusters.contains(&name.as_str())) {
                let near = did_you_mean(name, clusters.iter().copied());
                let problem = format!("the document names cluster `{name}`, which no patch adds{near}");
                found.push(object.fault(&format!("{key}.config.configuration.value"), problem));
            }
        });
        let name = patch.pointer("/patch/value/name").and_then(Value::as_str).unwrap_or_default();
        let discovered = patch.pointer("/patch/value/config_discovery").is_some();
        if discovered && !filters.contains(&name) {
            let near = did_you_mean(name, filters.iter().copied());
            found.push(object.fault(&format!("{key}.name"), format!("no EXTENSION_CONFIG is called `{name}`{near}")));
        }
    }
}

/// Keepalive of a gateway's listener, and of clusters that leave the mesh. A sidecar's own client is in its pod.
fn silence(object: &Object<'_>, key: &str, patch: &Value, found: &mut Vec<Fault>) {
    let Some(value) = patch.pointer("/patch/value") else { return };
    let is_gateway = patch.pointer("/match/context").is_some_and(|context| context == "GATEWAY");
    let key = format!("{key}.patch.value");
    match patch.get("applyTo").and_then(Value::as_str) {
        Some("LISTENER") if is_gateway => keepalive::listener(&object.at(), &key, value, found),
        Some("CLUSTER") if value.get("transport_socket").is_some() => {
            keepalive::cluster(&object.at(), &key, value, found);
        }
        _ => {}
    }
}

/// A patch of routes: the Gateway and the route that it matches.
fn route_configuration(object: &Object<'_>, key: &str, patch: &Value, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let key = format!("{key}.match.routeConfiguration");
    let Some(matched) = patch.pointer("/match/routeConfiguration") else { return };
    let gateways = objects.iter().filter(|other| other.kind == "Gateway");
    let gateways: Vec<String> = gateways.map(|other| format!("{}/{}", other.namespace, other.name)).collect();
    let gateway = matched.get("gateway").and_then(Value::as_str);
    if let Some(gateway) = gateway.filter(|name| !gateways.is_empty() && !gateways.iter().any(|known| known == name)) {
        let near = did_you_mean(gateway, gateways.iter().map(String::as_str));
        let problem = format!("Gateway `{gateway}` is missing, so the patch matches nothing{near}");
        found.push(object.fault(&format!("{key}.gateway"), problem));
    }
    let services = objects.iter().filter(|other| other.kind == "VirtualService");
    let routes = services.filter_map(|other| other.get("/spec/http")?.as_array()).flatten();
    let routes: Vec<&str> = routes.filter_map(|route| route.get("name")?.as_str()).collect();
    let route = matched.pointer("/vhost/route/name").and_then(Value::as_str);
    if let Some(route) = route.filter(|name| !routes.is_empty() && !routes.contains(name)) {
        let near = did_you_mean(route, routes.iter().copied());
        let problem = format!("no VirtualService has a route `{route}`, so the patch matches nothing{near}");
        found.push(object.fault(&format!("{key}.vhost.route.name"), problem));
    }
}
