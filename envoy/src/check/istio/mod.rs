//! Objects for Istio and Kubernetes: what their schemas do not say. The schemas themselves are checked in the tests
//! (`envoy/checks/istio.py`).

mod access;
mod patches;
mod plugins;
mod routing;
mod workloads;

use filter_core::config::nearest;
use serde_json::{Map, Value};

use super::values::visit_objects;
use super::{At, Fault, File, Options, ca, regions};
use crate::platform::Platform;

pub use plugins::is_digest;

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
        self.at().fault(key, problem)
    }

    fn at(&self) -> At<'_> {
        At { file: self.file, document: self.document, object: &self.title }
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
        "WasmPlugin" | "TrafficExtension" => plugins::plugin(object, options, found),
        "EnvoyFilter" => {
            if object.get("/spec/workloadSelector/labels").is_none() && object.get("/spec/targetRefs").is_none() {
                let problem = "is missing: every Envoy of the namespace would get the patches";
                found.push(object.fault("spec.workloadSelector", problem));
            }
            // Istio's proxy images have Debian's path.
            ca::check(&object.at(), "spec", spec, Some(Platform::Debian), found);
            visit_objects("spec", spec, &mut |key, value| plugins::filter(object, key, value, options, found));
        }
        "AuthorizationPolicy" => access::authorization(object, found),
        "ServiceEntry" => {
            let hosts = object.get("/spec/hosts").and_then(Value::as_array).into_iter().flatten();
            for (index, host) in hosts.filter_map(Value::as_str).enumerate() {
                let unknown = regions::of_host(&format!("spec.hosts[{index}]"), host, &options.known_regions);
                found.extend(unknown.map(|error| object.fault(&error.key, error.detail())));
            }
        }
        "PeerAuthentication" if object.text("/spec/mtls/mode") != "STRICT" => {
            let mode = object.text("/spec/mtls/mode");
            let problem = format!("want STRICT, not {mode}: a caller without a certificate has no name");
            found.push(object.fault("spec.mtls.mode", problem));
        }
        _ => {
            workloads::collector(object, found);
            visit_objects("spec", spec, &mut |key, value| plugins::image(object, key, value, found));
        }
    }
}

// === rules for several objects ===

/// What an object names must be among the others, where an object of that kind is among them at all.
fn together(object: &Object<'_>, objects: &[Object<'_>], found: &mut Vec<Fault>) {
    workloads::selector(object, objects, found);
    match object.kind {
        "Service" => workloads::service(object, objects, found),
        "VirtualService" => routing::virtual_service(object, objects, found),
        "DestinationRule" => routing::destination_rule(object, objects, found),
        "AuthorizationPolicy" => access::among(object, objects, found),
        "WasmPlugin" | "TrafficExtension" => plugins::among(object, objects, found),
        "EnvoyFilter" => patches::check(object, objects, found),
        _ => {}
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
