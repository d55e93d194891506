//! Objects for Istio and Kubernetes: what their schemas do not say. The schemas themselves are checked in the tests
//! (`envoy/checks/istio.py`).

use filter_core::config::{Auth, Config, RelayPlace, nearest};
use filter_core::policy::Policy;
use serde_json::{Map, Value};

use super::bootstrap::visit_objects;
use super::{At, Fault, File, Options, did_you_mean, regions};

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const NETWORK_WASM: &str = "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm";

/// The kinds that have rules here, or that the shipped files use.
const KINDS: [&str; 16] = [
    "AuthorizationPolicy",
    "ConfigMap",
    "Deployment",
    "DestinationRule",
    "EnvoyFilter",
    "Gateway",
    "Namespace",
    "PeerAuthentication",
    "PodDisruptionBudget",
    "Service",
    "ServiceAccount",
    "ServiceEntry",
    "Telemetry",
    "TrafficExtension",
    "VirtualService",
    "WasmPlugin",
];

/// An object of a file.
struct Object<'a> {
    file: &'a File,
    document: usize,
    /// `Kind/name`
    title: String,
    kind: &'a str,
    name: &'a str,
    namespace: &'a str,
    value: &'a Value,
}

impl Object<'_> {
    fn fault(&self, key: &str, problem: impl ToString) -> Fault {
        At { file: self.file, document: self.document, object: &self.title }.fault(key, problem)
    }

    fn get(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer)
    }

    fn text(&self, pointer: &str) -> &str {
        self.get(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The labels of the pods that a workload makes.
    fn pod_labels(&self) -> Option<&Map<String, Value>> {
        self.get("/spec/template/metadata/labels")?.as_object()
    }
}

pub(super) fn check(files: &[File], options: &Options, found: &mut Vec<Fault>) {
    let mut objects = Vec::new();
    for file in files {
        if file.documents.is_empty() {
            found.push(At { file, document: 0, object: "" }.fault("", "the file has no object"));
        }
        for (document, value) in file.documents.iter().enumerate() {
            let text = |pointer| value.pointer(pointer).and_then(Value::as_str);
            let (Some(kind), Some(_)) = (text("/kind"), text("/apiVersion")) else {
                let at = At { file, document, object: "" };
                found.push(at.fault("", "not an object: want `apiVersion` and `kind`"));
                continue;
            };
            // Other kinds are not this program's business, except where one of these was meant.
            let meant = nearest(kind, KINDS).filter(|_| !KINDS.contains(&kind));
            if let Some(meant) = meant {
                let problem = format!("unknown kind '{kind}'; did you mean `{meant}`?");
                found.push(At { file, document, object: "" }.fault("kind", problem));
            }
            let name = text("/metadata/name").unwrap_or_default();
            let namespace = text("/metadata/namespace").unwrap_or_default();
            objects.push(Object { file, document, title: format!("{kind}/{name}"), kind, name, namespace, value });
        }
    }
    for object in &objects {
        alone(object, options, found);
        together(object, &objects, found);
    }
}

// === rules for one object ===

fn alone(object: &Object<'_>, options: &Options, found: &mut Vec<Fault>) {
    let spec = object.get("/spec").unwrap_or(&Value::Null);
    match object.kind {
        "WasmPlugin" | "TrafficExtension" => plugin(object, options, found),
        "EnvoyFilter" => {
            if object.get("/spec/workloadSelector/labels").is_none() && object.get("/spec/targetRefs").is_none() {
                let problem = "is missing: every Envoy of the namespace would get the patches";
                found.push(object.fault("spec.workloadSelector", problem));
            }
            visit_objects("spec", spec, &mut |key, value| filter(object, key, value, options, found));
        }
        "AuthorizationPolicy" => authorization(object, found),
        "PeerAuthentication" if object.text("/spec/mtls/mode") != "STRICT" => {
            let mode = object.text("/spec/mtls/mode");
            let problem = format!("want STRICT, not {mode}: a caller without a certificate has no name");
            found.push(object.fault("spec.mtls.mode", problem));
        }
        _ => visit_objects("spec", spec, &mut |key, value| image(object, key, value, found)),
    }
}

/// A WasmPlugin: the module by digest, refusing when it fails, and a document that can do without holding bodies.
fn plugin(object: &Object<'_>, options: &Options, found: &mut Vec<Fault>) {
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
fn filter(object: &Object<'_>, key: &str, value: &Value, options: &Options, found: &mut Vec<Fault>) {
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
    // The relay decides nothing.
    if RelayPlace::parse(document.as_bytes()).is_none() {
        policy(object, &format!("{key}.config.configuration.value"), document, options, found);
    }
}

/// A document, as the filter reads it.
fn policy(object: &Object<'_>, key: &str, document: &str, options: &Options, found: &mut Vec<Fault>) -> Option<Policy> {
    match Policy::parse(document.as_bytes(), None) {
        Ok(policy) => {
            let config = Config::parse(document.as_bytes()).ok();
            let regions = config.map(|config| regions::findings(&config, &options.known_regions));
            let findings = policy.findings().into_iter().chain(regions.into_iter().flatten());
            found.extend(findings.map(|finding| object.fault(key, finding)));
            Some(policy)
        }
        Err(error) => {
            found.push(object.fault(key, error));
            None
        }
    }
}

/// Who may call: `AUDIT` refuses nobody, and an empty list is not a condition.
fn authorization(object: &Object<'_>, found: &mut Vec<Fault>) {
    let action = object.text("/spec/action");
    if !["", "ALLOW", "DENY"].contains(&action) {
        let problem = format!("{action} refuses nobody; want ALLOW (or DENY)");
        found.push(object.fault("spec.action", problem));
    }
    let rules = object.get("/spec/rules").and_then(Value::as_array);
    if rules.is_none_or(Vec::is_empty) && action != "ALLOW" && !action.is_empty() {
        found.push(object.fault("spec.rules", "is empty: it refuses nobody"));
    }
    if rules.is_none_or(Vec::is_empty) && ["ALLOW", ""].contains(&action) {
        found.push(object.fault("spec.rules", "is empty: it refuses everybody"));
    }
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let all = rule.as_object().is_none_or(Map::is_empty);
        if all && ["ALLOW", ""].contains(&action) {
            found.push(object.fault(&format!("spec.rules[{index}]"), "has no condition: everybody may call"));
        }
        if rule.get("from").is_some_and(|from| from.as_array().is_none_or(Vec::is_empty)) {
            found.push(object.fault(&format!("spec.rules[{index}].from"), "is empty, which is not a condition"));
        }
    }
    visit_objects("spec.rules", object.get("/spec/rules").unwrap_or(&Value::Null), &mut |key, value| {
        for list in ["namespaces", "principals", "serviceAccounts", "ports", "hosts", "paths", "methods"] {
            if value.get(list).and_then(Value::as_array).is_some_and(Vec::is_empty) {
                found.push(
                    object.fault(&format!("{key}.{list}"), "is empty, which is not a condition: everybody would match"),
                );
            }
        }
        let names = value.get("namespaces").and_then(Value::as_array);
        if names.into_iter().flatten().any(|name| name == "*") {
            found.push(object.fault(&format!("{key}.namespaces"), "`*` lets every namespace of the mesh call"));
        }
    });
}

/// An image of a container or a volume; `auto` is the one that Istio puts in.
fn image(object: &Object<'_>, key: &str, value: &Value, found: &mut Vec<Fault>) {
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

// === rules for several objects ===

/// What an object names must be among the others, where an object of that kind is among them at all.
fn together(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    selector(object, objects, found);
    match object.kind {
        "Service" => service(object, objects, found),
        "VirtualService" => virtual_service(object, objects, found),
        "DestinationRule" => {
            host(object, "spec.host", object.text("/spec/host"), objects, found);
        }
        "EnvoyFilter" => patches(object, objects, found),
        _ => {}
    }
}

/// The labels that a selector names are those of some workload.
fn selector(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
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
fn service(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
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

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The hosts that the objects make known: those of ServiceEntries, and the names of Services.
fn hosts(objects: &[Object<'_>]) -> Vec<String> {
    let mut known = Vec::new();
    for object in objects {
        match object.kind {
            "ServiceEntry" => known.extend(
                object
                    .get("/spec/hosts")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned),
            ),
            "Service" => known.push(format!("{}.{}.svc.cluster.local", object.name, object.namespace)),
            _ => {}
        }
    }
    known
}

fn host(object: &Object<'_>, key: &str, name: &str, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let known = hosts(objects);
    let short = |known: &String| known.split('.').next() == Some(name);
    if name.is_empty()
        || name.starts_with('*')
        || known.is_empty()
        || known.iter().any(|known| known == name || short(known))
    {
        return;
    }
    let near = did_you_mean(name, known.iter().map(String::as_str));
    found.push(object.fault(key, format!("no Service or ServiceEntry has the host `{name}`{near}")));
}

/// The ports of a host.
fn ports_of(name: &str, objects: &[Object<'_>]) -> Vec<String> {
    let mut ports = Vec::new();
    for object in objects {
        let (is_it, key) = match object.kind {
            "ServiceEntry" => {
                let hosts = object.get("/spec/hosts").and_then(Value::as_array);
                (hosts.into_iter().flatten().any(|host| host == name), "number")
            }
            "Service" => (format!("{}.{}.svc.cluster.local", object.name, object.namespace) == name, "port"),
            _ => continue,
        };
        if is_it {
            let listed = object.get("/spec/ports").and_then(Value::as_array);
            ports.extend(listed.into_iter().flatten().filter_map(|port| port.get(key)).map(plain));
        }
    }
    ports
}

fn virtual_service(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    let listed =
        |pointer: &str| object.get(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for (index, name) in listed("/spec/hosts").enumerate() {
        host(object, &format!("spec.hosts[{index}]"), name, objects, found);
    }
    let gateways: Vec<&str> = objects.iter().filter(|other| other.kind == "Gateway").map(|other| other.name).collect();
    for (index, name) in listed("/spec/gateways").enumerate() {
        let own = name.rsplit('/').next().unwrap_or(name);
        if name != "mesh" && !gateways.is_empty() && !gateways.contains(&own) {
            let near = did_you_mean(own, gateways.iter().copied());
            found.push(object.fault(&format!("spec.gateways[{index}]"), format!("Gateway `{name}` is missing{near}")));
        }
    }
    visit_objects("spec.http", object.get("/spec/http").unwrap_or(&Value::Null), &mut |key, value| {
        let Some(destination) = value.get("destination") else { return };
        let name = destination.get("host").and_then(Value::as_str).unwrap_or_default();
        host(object, &format!("{key}.destination.host"), name, objects, found);
        let ports = ports_of(name, objects);
        let Some(port) = destination.pointer("/port/number").map(plain) else { return };
        if !ports.is_empty() && !ports.contains(&port) {
            let problem = format!("host `{name}` has no port {port}; it has {}", ports.join(", "));
            found.push(object.fault(&format!("{key}.destination.port.number"), problem));
        }
    });
}

/// Patches: for listeners that exist, with the clusters that their document names.
fn patches(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
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
