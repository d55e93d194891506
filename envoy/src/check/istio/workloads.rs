//! Selectors and the pods that they select.

use serde_json::{Map, Value};

use super::super::Fault;
use super::{Object, plain};

/// The labels that a selector names are those of some workload.
pub(super) fn selector(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let (key, pointer) = match object.kind {
        "EnvoyFilter" => ("spec.workloadSelector.labels", "/spec/workloadSelector/labels"),
        "Service" | "Gateway" => ("spec.selector", "/spec/selector"),
        "WasmPlugin"
        | "AuthorizationPolicy"
        | "Telemetry"
        | "PeerAuthentication"
        | "PodDisruptionBudget"
        | "Deployment" => ("spec.selector.matchLabels", "/spec/selector/matchLabels"),
        _ => return,
    };
    let Some(wanted) = object.get(pointer).and_then(Value::as_object) else { return };
    let pods: Vec<&Map<String, Value>> = match object.kind {
        // A Deployment selects its own pods.
        "Deployment" => object.pod_labels().into_iter().collect(),
        _ => {
            let same = objects.iter().filter(|other| other.namespace == object.namespace);
            same.filter_map(Object::pod_labels).collect()
        }
    };
    if pods.is_empty() || pods.iter().any(|labels| wanted.iter().all(|(name, value)| labels.get(name) == Some(value))) {
        return;
    }
    let show = |labels: &Map<String, Value>| {
        let pairs = labels.iter().map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or_default()));
        pairs.collect::<Vec<_>>().join(", ")
    };
    let have: Vec<String> = pods.iter().map(|labels| show(labels)).collect();
    found.push(object.fault(key, format!("`{}` selects no pod; pods have: {}", show(wanted), have.join(" | "))));
}

/// A Service's target ports are ports of its pods.
pub(super) fn service(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let Some(wanted) = object.get("/spec/selector").and_then(Value::as_object) else { return };
    let is_selected = |other: &&Object<'_>| {
        other.namespace == object.namespace
            && other
                .pod_labels()
                .is_some_and(|labels| wanted.iter().all(|(name, value)| labels.get(name) == Some(value)))
    };
    let mut ports: Vec<String> = Vec::new();
    for workload in objects.iter().filter(is_selected) {
        let containers = workload.get("/spec/template/spec/containers").and_then(Value::as_array);
        for port in
            containers.into_iter().flatten().filter_map(|container| container.get("ports")?.as_array()).flatten()
        {
            ports.extend(["containerPort", "name"].iter().filter_map(|key| port.get(key)).map(plain));
        }
    }
    if ports.is_empty() {
        return;
    }
    let listed = object.get("/spec/ports").and_then(Value::as_array);
    for (index, port) in listed.into_iter().flatten().enumerate() {
        let Some(target) = port.get("targetPort").or_else(|| port.get("port")).map(plain) else { continue };
        if !ports.contains(&target) {
            let problem =
                format!("no container of the selected pods has port {target}; they have {}", ports.join(", "));
            found.push(object.fault(&format!("spec.ports[{index}].targetPort"), problem));
        }
    }
}
