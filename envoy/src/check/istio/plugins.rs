//! WasmPlugins, Wasm filters in patches, and images: pinned, and refusing when they fail.

use filter_core::config::{Auth, Role};
use filter_core::policy::Policy;
use serde_json::Value;

use super::super::values::visit_objects;
use super::super::{Fault, Options, did_you_mean, mistakes, regions};
use super::access::overlap;
use super::{NETWORK_WASM, Object, WASM, plain};
use crate::base::role_of;
use crate::bootstrap::is_fixed;

/// A WasmPlugin: the module by digest, refusing when it fails, and a document that can do without holding bodies.
pub(super) fn plugin(object: &Object<'_>, options: &Options, found: &mut Vec<Fault>) {
    let digest = object.text("/spec/sha256");
    if digest.is_empty() {
        found.push(object.fault("spec.sha256", "is missing: pin the module by its digest"));
    } else if !is_digest(digest) {
        found.push(object.fault("spec.sha256", "not a SHA-256 in hex (64 digits, a to f small)"));
    }
    let url = object.text("/spec/url");
    if url.split_once("@sha256:").is_some_and(|(_, named)| named != digest) {
        found.push(object.fault("spec.url", "names another digest than `sha256`"));
    }
    let strategy = object.text("/spec/failStrategy");
    if !["FAIL_CLOSE", "FAIL_RELOAD"].contains(&strategy) {
        let said = if strategy.is_empty() {
            "is missing".to_owned()
        } else {
            format!("{strategy} lets calls past a failed filter")
        };
        found.push(object.fault("spec.failStrategy", format!("{said}; want FAIL_RELOAD or FAIL_CLOSE")));
    }
    let config = object.get("/spec/pluginConfig").unwrap_or(&Value::Null).to_string();
    let policy = policy(object, "spec.pluginConfig", &config, options, found);
    if policy.is_some_and(|policy| policy.auth == Auth::Sigv4) {
        let problem = "a WasmPlugin cannot hold a call until its body is hashed; want `bearer`, or an EnvoyFilter";
        found.push(object.fault("spec.pluginConfig.auth", problem));
    }
}

/// A Wasm filter in a patch.
pub(super) fn filter(object: &Object<'_>, key: &str, value: &Value, options: &Options, found: &mut Vec<Fault>) {
    let kind = value.get("@type").and_then(Value::as_str);
    if kind != Some(WASM) && kind != Some(NETWORK_WASM) {
        return;
    }
    let config = value.get("config").unwrap_or(&Value::Null);
    if config.get("fail_open") == Some(&Value::Bool(true)) {
        let problem = "true lets calls past a failed filter; want failure_policy: FAIL_RELOAD";
        found.push(object.fault(&format!("{key}.config.fail_open"), problem));
    }
    if kind == Some(WASM) && config.get("allow_on_headers_stop_iteration") != Some(&Value::Bool(true)) {
        let key = format!("{key}.config.allow_on_headers_stop_iteration");
        found.push(object.fault(&key, "want true: otherwise calls with a body hang"));
    }
    let on_failure = config.get("failure_policy").and_then(Value::as_str).unwrap_or_default();
    if !["FAIL_RELOAD", "FAIL_CLOSED"].contains(&on_failure) {
        let said = if on_failure.is_empty() {
            "is missing".to_owned()
        } else {
            format!("{on_failure} lets calls past a failed filter")
        };
        found.push(
            object.fault(&format!("{key}.config.failure_policy"), format!("{said}; want FAIL_RELOAD or FAIL_CLOSED")),
        );
    }
    let remote = config.pointer("/vm_config/code/remote");
    let is_pinned = |remote: &Value| remote.get("sha256").and_then(Value::as_str).is_some_and(is_digest);
    if remote.is_some_and(|remote| !is_pinned(remote)) {
        let key = format!("{key}.config.vm_config.code.remote.sha256");
        found.push(object.fault(&key, "pin the module by its digest (64 digits in hex)"));
    }
    let document = config.pointer("/configuration/value").and_then(Value::as_str).unwrap_or_default();
    // These decide nothing.
    if !is_fixed(document) {
        policy(object, &format!("{key}.config.configuration.value"), document, options, found);
    }
}

/// A document, as the filter reads it.
fn policy(object: &Object<'_>, key: &str, document: &str, options: &Options, found: &mut Vec<Fault>) -> Option<Policy> {
    let regions = serde_json::from_str(document).map(|text| regions::findings(&text, &options.known_regions));
    found.extend(regions.unwrap_or_default().into_iter().map(|finding| object.fault(key, finding)));
    match mistakes::parse(document) {
        Ok(policy) => {
            found.extend(policy.findings().into_iter().map(|finding| object.fault(key, finding)));
            Some(policy)
        }
        Err(errors) => {
            found.extend(errors.into_iter().map(|error| object.fault(key, error)));
            None
        }
    }
}

/// A WasmPlugin among the others: alone in its sidecars, and for ports that are there.
pub(super) fn among(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let own = object.get("/spec/selector/matchLabels").and_then(Value::as_object);
    for other in objects.iter().filter(|other| other.kind == "EnvoyFilter" && other.namespace == object.namespace) {
        let selector = other.get("/spec/workloadSelector/labels").and_then(Value::as_object);
        if overlap(own, selector) && has_gateway(other) {
            let problem = format!(
                "{} puts the filter into the same sidecars, and calls would pass it twice; apply one of the two",
                other.title
            );
            found.push(object.fault("spec.selector", problem));
        }
    }
    let mut known: Vec<String> = Vec::new();
    for other in objects {
        match other.kind {
            "ServiceEntry" => known.extend(super::routing::listed_ports(other, "number")),
            "Service" => known.extend(super::routing::listed_ports(other, "port")),
            _ => {}
        }
    }
    if known.is_empty() {
        return;
    }
    let matches = object.get("/spec/match").and_then(Value::as_array).into_iter().flatten().enumerate();
    // Of a server, the ports are those of its containers.
    for (index, selected) in matches.filter(|(_, selected)| selected.get("mode").is_some_and(|mode| mode == "CLIENT")) {
        let ports = selected.get("ports").and_then(Value::as_array).into_iter().flatten();
        for (nth, port) in ports.filter_map(|port| port.get("number")).map(plain).enumerate() {
            if !known.contains(&port) {
                let problem = format!(
                    "no ServiceEntry or Service has port {port}, so the plugin sees no call{}",
                    did_you_mean(&port, known.iter().map(String::as_str))
                );
                found.push(object.fault(&format!("spec.match[{index}].ports[{nth}].number"), problem));
            }
        }
    }
}

/// Whether an EnvoyFilter has the filter in a role that takes calls.
fn has_gateway(object: &Object<'_>) -> bool {
    let mut has = false;
    visit_objects("spec", object.get("/spec").unwrap_or(&Value::Null), &mut |_, value| {
        let text = value.pointer("/config/configuration/value").and_then(Value::as_str);
        has |= text.and_then(role_of).is_some_and(|role| role != Role::Signer);
    });
    has
}

/// An image of a container or a volume; `auto` is the one that Istio puts in.
pub(super) fn image(object: &Object<'_>, key: &str, value: &Value, found: &mut Vec<Fault>) {
    let named = ["image", "reference"].into_iter().filter_map(|name| Some((name, value.get(name)?.as_str()?)));
    for (name, image) in named {
        let is_pinned = image.rsplit_once("@sha256:").is_some_and(|(_, digest)| is_digest(digest));
        if !is_pinned && image != "auto" {
            found.push(object.fault(&format!("{key}.{name}"), "pin the image by its digest (…@sha256:…)"));
        }
    }
}

/// Whether it is a SHA-256 in hex.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
