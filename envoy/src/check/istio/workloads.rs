//! Selectors and the pods that they select.

use serde_json::{Map, Value};

use super::super::Fault;
use super::{Object, plain};

pub(super) type Labels = Map<String, Value>;

/// The labels that a selector names are those of some workload.
pub(super) fn selector(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let (key, pointer) = match object.kind {
        "EnvoyFilter" | "ServiceEntry" => ("spec.workloadSelector.labels", "/spec/workloadSelector/labels"),
        "DestinationRule" => ("spec.workloadSelector.matchLabels", "/spec/workloadSelector/matchLabels"),
        "Service" | "Gateway" => ("spec.selector", "/spec/selector"),
        "WasmPlugin"
        | "TrafficExtension"
        | "AuthorizationPolicy"
        | "Telemetry"
        | "PeerAuthentication"
        | "PodDisruptionBudget"
        | "Deployment" => ("spec.selector.matchLabels", "/spec/selector/matchLabels"),
        _ => return,
    };
    let Some(wanted) = object.get(pointer).and_then(Value::as_object) else { return };
    let pods: Vec<&Labels> = match object.kind {
        // A Deployment selects its own pods.
        "Deployment" => object.pod_labels().into_iter().collect(),
        // It may select virtual machines.
        "ServiceEntry" if objects.iter().any(|other| other.kind == "WorkloadEntry") => return,
        _ => {
            let same = objects.iter().filter(|other| other.namespace == object.namespace);
            same.filter_map(Object::pod_labels).collect()
        }
    };
    if let Some(problem) = selects_none(wanted, &pods) {
        found.push(object.fault(key, problem));
    }
}

/// What is wrong with labels that no pod has; nothing where no pod is known.
pub(super) fn selects_none(wanted: &Labels, pods: &[&Labels]) -> Option<String> {
    if pods.is_empty() || pods.iter().any(|labels| has_all(labels, wanted)) {
        return None;
    }
    let show = |labels: &Labels| {
        let pairs = labels.iter().map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or_default()));
        pairs.collect::<Vec<_>>().join(", ")
    };
    let have: Vec<String> = pods.iter().map(|labels| show(labels)).collect();
    Some(format!("`{}` selects no pod; pods have: {}", show(wanted), have.join(" | ")))
}

/// Whether labels are among others. No labels are among all.
pub(super) fn has_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// The workloads of a namespace that labels select.
pub(super) fn selected<'a>(
    namespace: &'a str,
    wanted: &'a Labels,
    objects: &'a [Object<'a>],
) -> impl Iterator<Item = &'a Object<'a>> {
    let is_selected = |labels: &Labels| has_all(labels, wanted);
    objects.iter().filter(move |other| other.namespace == namespace && other.pod_labels().is_some_and(is_selected))
}

/// The ports of a workload's containers, by number and by name.
pub(super) fn ports(workload: &Object<'_>) -> Vec<String> {
    let containers = workload.get("/spec/template/spec/containers").and_then(Value::as_array);
    let listed = containers.into_iter().flatten().filter_map(|container| container.get("ports")?.as_array()).flatten();
    listed.flat_map(|port| ["containerPort", "name"].iter().filter_map(|key| port.get(key)).map(plain)).collect()
}

/// A collector that reads the access log next to the proxy ends after it only as a native sidecar
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#termination-with-sidecars>).
pub(super) fn collector(object: &Object<'_>, found: &mut Vec<Fault>) {
    let list = |key: &str| {
        let containers = object.get(&format!("/spec/template/spec/{key}")).and_then(Value::as_array);
        containers.into_iter().flatten().enumerate()
    };
    if !list("containers").any(|(_, container)| container.get("name").is_some_and(|name| name == "istio-proxy")) {
        return;
    }
    for (index, _) in list("containers").filter(|(_, container)| reads_log(container)) {
        let problem = "ends in no order with istio-proxy: records of calls that finish while the pod drains are lost; \
                       want it in initContainers, with `restartPolicy: Always`";
        found.push(object.fault(&format!("spec.template.spec.containers[{index}]"), problem));
    }
    for (index, container) in list("initContainers").filter(|(_, container)| reads_log(container)) {
        if container.get("restartPolicy").is_none_or(|policy| policy != "Always") {
            let problem = "want Always: otherwise the pod waits for the collector's end, and never starts";
            found.push(object.fault(&format!("spec.template.spec.initContainers[{index}].restartPolicy"), problem));
        }
    }
}

/// Whether a container runs `audit-collector run --file`.
fn reads_log(container: &Value) -> bool {
    let words = ["command", "args"].into_iter().filter_map(|key| container.get(key)?.as_array()).flatten();
    words.filter_map(Value::as_str).any(|word| word == "--file" || word.starts_with("--file="))
}

/// A Service's target ports are ports of its pods.
pub(super) fn service(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let Some(wanted) = object.get("/spec/selector").and_then(Value::as_object) else { return };
    let ports: Vec<String> = selected(object.namespace, wanted, objects).flat_map(ports).collect();
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
