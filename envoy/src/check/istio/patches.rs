//! Patches of EnvoyFilters.

use filter_core::config::Config;
use filter_core::policy::Policy;
use serde_json::Value;

use super::super::bootstrap::visit_objects;
use super::super::{Fault, did_you_mean};
use super::{Object, WASM, plain};

/// Patches: for listeners that exist, with the clusters that their document names.
pub(super) fn check(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let mut ports: Vec<String> = Vec::new();
    for other in objects {
        match other.kind {
            "Gateway" => {
                let servers = other.get("/spec/servers").and_then(Value::as_array);
                ports.extend(
                    servers.into_iter().flatten().filter_map(|server| server.pointer("/port/number")).map(plain),
                );
            }
            "ServiceEntry" => {
                let listed = other.get("/spec/ports").and_then(Value::as_array);
                ports.extend(listed.into_iter().flatten().filter_map(|port| port.get("number")).map(plain));
            }
            _ => {}
        }
    }
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
            wanted.extend(Config::parse(text.as_bytes()).ok().and_then(|config| config.stream_relay));
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
