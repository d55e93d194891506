//! The gateway in a mesh. Renders Istio's resources from `envoy/standalone.yaml`, so that the mesh runs the same
//! configuration as plain Envoy. `crate::check` has the rules for these files.

mod sidecar;

pub use sidecar::Image;

use std::path::Path;

use filter_core::config::Config;
use filter_core::operation::Service;
use filter_core::route::services;
use serde_json::{Map, Value, json};

use crate::base::{HASH_FILTER, POLLS_LISTENER};
use crate::bootstrap::{ALS_CLUSTER, ALS_LOGGER, discovery, token_file};
use crate::bootstrap_error::BootstrapError;
use crate::document::DocumentError;
use crate::gateway::Options;
use crate::objects::for_each_object;
use crate::platform::Platform;
use crate::{Error, installed, yaml};

/// The gateway's port: the same for pod, Service and Gateway, so that rules match on any of them.
const PORT: u16 = 8443;
/// Name and namespace of the resources.
const NAME: &str = "bedrock-gateway";
/// The VirtualService's route that refuses calls when the EnvoyFilter's routes are missing.
const CLOSED: &str = "closed";
/// Path of the module in the image volume that the Deployment mounts.
const MODULE: &str = "/etc/bedrock-gateway/module/plugin.wasm";
const MANAGER: &str = "envoy.filters.network.http_connection_manager";
const ROUTER: &str = "envoy.filters.http.router";
/// The filter with the role `gateway`.
const GATEWAY_FILTER: &str = "bedrock.gateway";
/// The network filter that limits clients' connections.
const CONNECTIONS_FILTER: &str = "bedrock.connections";

/// Keys that Istio sets itself, or that a merge cannot carry.
const NOT_MERGED: [&str; 5] = ["stat_prefix", "codec_type", "http_filters", "route_config", "@type"];

const HEAD: &str = "\
# The egress gateway's filter, clusters and routes: the configuration of `envoy/standalone.yaml` as patches for Istio's
# Envoy. base.yaml and cluster.yaml explain each value. `bedrock-gateway render istio` generates this file, also for
# your own document and paths. A test checks that it is current; others run it.
#
# Why an EnvoyFilter instead of a WasmPlugin: WasmPlugin has no `allow_on_headers_stop_iteration`. Without it Envoy does
# not pass the body to a filter that holds the headers, so a call to be signed would hang. It also cannot add the
# signer, which is a filter of the clusters.
#
# One setting differs: `normalize_path: false`. Istio merges messages, and `false` in a message does not replace `true`.
# So Envoy resolves dot segments in a path before the filter sees it. Escapes (`%2F`) and double slashes do not change.
";

/// The proxies of a mesh that run the filter, and the resource that adds it to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// An EnvoyFilter for the egress gateway.
    Egress,
    /// A WasmPlugin for sidecars, with Bedrock API keys.
    Plugin,
    /// An EnvoyFilter for sidecars, with signatures.
    Sidecar,
}

/// The generated files below `envoy/istio`.
pub const GENERATED: [(Target, &str); 3] = [
    (Target::Egress, "egress/envoyfilter.yaml"),
    (Target::Plugin, "sidecar/plugin.yaml"),
    (Target::Sidecar, "sidecar/envoyfilter.yaml"),
];

/// Renders the resource for a target; if the options choose nothing, from `envoy/standalone.yaml`. `image` is the module's image for
/// sidecars.
///
/// # Errors
/// The document or a path is invalid.
pub fn render(target: Target, options: &Options, image: Option<&Image>) -> Result<String, Error> {
    // The proxy's image decides which CA bundle there is.
    let platform = Platform::Debian;
    let bootstrap = if options.choose_nothing() {
        installed::standalone(platform)?
    } else {
        installed::bootstrap(options, platform)?
    };
    let name = "the document in the Envoy configuration".to_owned();
    let refused =
        |error| Error::from(DocumentError::Key { name: name.clone(), position: None, error: Box::new(error) });
    let image = image.cloned().unwrap_or_default();
    match target {
        Target::Egress => Ok(envoy_filter(bootstrap)?),
        Target::Plugin => sidecar::plugin(document_of(&bootstrap)?, &image).map_err(refused),
        Target::Sidecar => sidecar::envoy_filter(document_of(&bootstrap)?, &bootstrap, &image)?.map_err(refused),
    }
}

/// The document in the gateway filter.
fn document_of(bootstrap: &Value) -> Result<Config, BootstrapError> {
    let filter = filter_of(bootstrap, GATEWAY_FILTER)?;
    let text = filter.pointer("/config/configuration/value").and_then(Value::as_str);
    let config = text.and_then(|text| Config::parse(text.as_bytes()).ok());
    config.ok_or(BootstrapError::Missing("document in filter `bedrock.gateway`"))
}

/// A filter's configuration.
fn filter_of(bootstrap: &Value, name: &str) -> Result<Value, BootstrapError> {
    let mut copy = bootstrap.clone();
    let mut filters = discovery::take_out(&mut copy, Path::new("/")).into_iter();
    let found = filters.find(|filter| filter.name == name).map(|filter| filter.config);
    found.ok_or(BootstrapError::Missing("filter `bedrock.gateway`"))
}

/// Renders the egress gateway's EnvoyFilter from `bootstrap`, which has the structure of `envoy/standalone.yaml`.
///
/// # Errors
/// [`BootstrapError::Missing`] names the part that `bootstrap` lacks.
pub fn envoy_filter(mut bootstrap: Value) -> Result<String, BootstrapError> {
    without_hashing(&mut bootstrap);
    let services: Vec<Service> = services(&document_of(&bootstrap)?.optional_operations).collect();
    // Istio discovers both filters by name, so that their documents change without a restart.
    let filters = discovery::take_out(&mut bootstrap, Path::new("/"));
    let listeners = bootstrap
        .pointer("/static_resources/listeners")
        .and_then(Value::as_array)
        .ok_or(BootstrapError::Missing("listeners"))?;
    let listener = listeners
        .iter()
        .find(|listener| listener.get("name").and_then(Value::as_str) == Some("plain"))
        .ok_or(BootstrapError::Missing("listener named `plain`"))?;
    let manager = listener
        .pointer("/filter_chains/0/filters")
        .and_then(|filters| {
            filters.as_array()?.iter().find(|filter| filter.get("name").is_some_and(|name| name == MANAGER))
        })
        .and_then(|manager| manager.get("typed_config")?.as_object())
        .ok_or(BootstrapError::Missing("connection manager in listener `plain`"))?;
    let clusters = bootstrap
        .pointer("/static_resources/clusters")
        .and_then(Value::as_array)
        .ok_or(BootstrapError::Missing("clusters"))?;

    let mut patches = vec![
        listener_patch(listener),
        Patch::new(
            "Limits, timeouts, error responses in Bedrock's format, and the access log that the audit reads: as part of the filter's\n\
             configuration, no setting of the mesh can disable it.",
            "NETWORK_FILTER",
            at(json!({ "name": MANAGER })),
            ("MERGE", json!({ "name": MANAGER, "typed_config": manager_patch(manager) })),
        ),
    ];
    patches.extend(connections_patch(listener));
    patches.extend(filter_patches(manager));
    patches.extend(route_patches(manager, &services)?);
    patches.extend(listeners.iter().filter(|listener| listener.get("internal_listener").is_some()).map(|listener| {
        let why = if token_file::is_listener(listener) {
            "A token's file for the filter (`token`): an internal listener that only this Envoy can connect to."
        } else if listener.get("name").is_some_and(|name| name == POLLS_LISTENER) {
            "The gateway's own calls (`catalogue`, `data_retention`, `resolve`): an internal listener that only this Envoy can connect to."
        } else {
            "The relay for streams (`stream_relay`): an internal listener that only this Envoy can connect to."
        };
        Patch::new(why, "LISTENER", json!({ "context": "GATEWAY" }), ("ADD", with_mounted_module(listener.clone())))
    }));
    patches.extend(clusters.iter().filter(|cluster| is_not_live_feed(cluster)).enumerate().map(|(number, cluster)| {
        let why = "Bedrock's clusters: a priority for each path, and the signer as an upstream filter.";
        let why = if number == 0 { why } else { "" };
        let mut cluster = with_mounted_module(cluster.clone());
        discover_from_istiod(&mut cluster);
        Patch::new(why, "CLUSTER", json!({ "context": "GATEWAY" }), ("ADD", cluster))
    }));
    patches.extend(filters.into_iter().enumerate().map(|(number, filter)| {
        let why = "The two roles of the module, which is a file in the pod. Istio applies changes without a restart: calls and\n\
                   streams in flight keep the old document.";
        let value = json!({ "name": filter.name, "typed_config": with_mounted_module(filter.config) });
        let why = if number == 0 { why } else { "" };
        Patch::new(why, "EXTENSION_CONFIG", json!({ "context": "GATEWAY" }), ("ADD", value))
    }));
    Ok(text(HEAD, NAME, ("app", NAME), &patches))
}

/// Takes the filter out that hashes bodies, and the key that asks for it; the module hashes them. Whether Istio's proxy has all of that
/// filter was not seen, and the document reaches the proxy apart from the listener: a listener without the filter would refuse calls.
fn without_hashing(bootstrap: &mut Value) {
    for_each_object(bootstrap, &mut |object| {
        if let Some(filters) = object.get_mut("http_filters").and_then(Value::as_array_mut) {
            filters.retain(|filter| filter.get("name").is_none_or(|name| name != HASH_FILTER));
        }
        let config = object.get("value").and_then(Value::as_str).and_then(|text| Config::parse(text.as_bytes()).ok());
        if let Some(config) = config.filter(|config| config.envoy_hashes_body_bytes.is_some()) {
            let config = Config { envoy_hashes_body_bytes: None, ..config };
            object.insert("value".into(), config.to_json().into());
        }
    });
}

/// A patch of an EnvoyFilter, with the comment to write before it.
struct Patch {
    why: &'static str,
    value: Value,
}

impl Patch {
    fn new(why: &'static str, apply_to: &str, matched: Value, (operation, value): (&str, Value)) -> Patch {
        let patch = json!({ "operation": operation, "value": value });
        Patch { why, value: json!({ "applyTo": apply_to, "match": matched, "patch": patch }) }
    }
}

/// Matches a filter in the gateway's listener.
fn at(filter: Value) -> Value {
    json!({ "context": "GATEWAY", "listener": { "portNumber": PORT, "filterChain": { "filter": filter } } })
}

fn listener_patch(listener: &Value) -> Patch {
    let merged = ["per_connection_buffer_limit_bytes", "tcp_keepalive"];
    let merged: Map<String, Value> =
        merged.iter().filter_map(|name| Some(((*name).to_owned(), listener.get(*name)?.clone()))).collect();
    Patch::new(
        "Bytes read from a connection at once, and the packets sent while a call is silent.",
        "LISTENER",
        json!({ "context": "GATEWAY", "listener": { "portNumber": PORT } }),
        ("MERGE", Value::Object(merged)),
    )
}

/// The limits of clients' connections: the clients are the mesh's pods, by their addresses.
fn connections_patch(listener: &Value) -> Option<Patch> {
    let mut filters = listener.pointer("/filter_chains/0/filters")?.as_array()?.iter();
    let filter = filters.find(|filter| filter.get("name").is_some_and(|name| name == CONNECTIONS_FILTER))?;
    let why = "Limits what one client can hold of the process's connections.";
    let value = with_mounted_module(filter.clone());
    Some(Patch::new(why, "NETWORK_FILTER", at(json!({ "name": MANAGER })), ("INSERT_BEFORE", value)))
}

/// The connection manager's settings that a merge can carry. A merge cannot set `false`.
fn manager_patch(manager: &Map<String, Value>) -> Value {
    let is_carried = |name: &str, value: &Value| !NOT_MERGED.contains(&name) && value != &json!(false);
    let mut merged: Map<String, Value> = manager
        .iter()
        .filter(|(name, value)| is_carried(name, value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    merged.insert("@type".into(), manager.get("@type").cloned().unwrap_or_default());
    if let Some(loggers) = merged.get_mut("access_log").and_then(Value::as_array_mut) {
        loggers.retain(is_not_live_feed);
    }
    // An AuthorizationPolicy refuses calls before they reach the filter.
    let refused = json!({
        "filter": { "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": "response.code == 403 && response.code_details.startsWith('rbac_access_denied')",
            },
        } },
        "headers_to_add": [{ "header": { "key": "x-amzn-errortype", "value": "AccessDeniedException" } }],
        "body_format_override": { "json_format": { "message": "No AuthorizationPolicy of the mesh lets this caller use the gateway." } },
    });
    if let Some(mappers) = merged.get_mut("local_reply_config").and_then(|config| config.get_mut("mappers")) {
        let others = mappers.as_array().cloned().unwrap_or_default();
        *mappers = Value::Array([&[refused], &others[..]].concat());
    }
    Value::Object(merged)
}

/// Inserts the filters before Istio's router, and merges the router's settings.
fn filter_patches(manager: &Map<String, Value>) -> Vec<Patch> {
    let before = |name: &str| at(json!({ "name": MANAGER, "subFilter": { "name": name } }));
    let all = manager.get("http_filters").and_then(Value::as_array).into_iter().flatten();
    all.map(|filter| {
        let name = filter.get("name").and_then(Value::as_str).unwrap_or_default();
        let mut filter = filter.clone();
        discover_from_istiod(&mut filter);
        match name {
            ROUTER => Patch::new("", "HTTP_FILTER", before(ROUTER), ("MERGE", filter)),
            _ => {
                let why = if name == GATEWAY_FILTER {
                    "After Istio's own filters, such as AuthorizationPolicy, and before its router."
                } else {
                    ""
                };
                Patch::new(why, "HTTP_FILTER", before(ROUTER), ("INSERT_BEFORE", filter))
            }
        }
    })
    .collect()
}

/// The routes are in a separate virtual host. The filter sets a call's Host to its service's name, which selects it.
/// Until then the call's route is `held`, which leads to no upstream. If these routes are missing, the VirtualService's
/// answers 503; so no call leaves without the filter or the routes.
fn route_patches(manager: &Map<String, Value>, services: &[Service]) -> Result<Vec<Patch>, BootstrapError> {
    let config = manager.get("route_config").ok_or(BootstrapError::Missing("route_config"))?;
    let mut host = config.pointer("/virtual_hosts/0").cloned().ok_or(BootstrapError::Missing("virtual_hosts"))?;
    let limit = host.pointer("/routes/0/request_body_buffer_limit").cloned();
    if let Some(host) = host.as_object_mut() {
        host.insert("domains".into(), services.iter().map(|service| json!(service.name())).collect());
        // Istio owns the rest of the route configuration.
        for removed in ["request_headers_to_remove", "response_headers_to_remove"] {
            if let Some(names) = config.get(removed) {
                host.insert(removed.to_owned(), names.clone());
            }
        }
    }
    let at = |vhost: Value| {
        let configuration = json!({ "gateway": format!("{NAME}/{NAME}"), "vhost": vhost });
        json!({ "context": "GATEWAY", "routeConfiguration": configuration })
    };
    Ok(vec![
        Patch::new(
            "Route of a call before it has passed the filter: it leads to no upstream, and limits the body that may be buffered.\n\
             (The VirtualService's route is a direct response, which cannot set that limit.)",
            "HTTP_ROUTE",
            at(json!({ "route": { "name": CLOSED } })),
            (
                "INSERT_BEFORE",
                json!({
                    "name": "held",
                    "match": { "prefix": "/" },
                    "request_body_buffer_limit": limit,
                    "route": { "cluster": "BlackHoleCluster", "timeout": "0s" },
                }),
            ),
        ),
        Patch::new(
            "Routes of a call that has passed the filter: its Host is its service's name, until the signer sets Bedrock's.",
            "VIRTUAL_HOST",
            json!({ "context": "GATEWAY", "routeConfiguration": { "gateway": format!("{NAME}/{NAME}") } }),
            ("ADD", host),
        ),
    ])
}

/// Sets the path of the module in the pod.
fn with_mounted_module(mut value: Value) -> Value {
    for_each_object(&mut value, &mut |object| {
        if let Some(vm) = object.get_mut("vm_config").and_then(Value::as_object_mut) {
            vm.insert("code".into(), json!({ "local": { "filename": MODULE } }));
        }
    });
    value
}

/// Excludes the live feed: the collector reads the file, and with both it would write each record twice.
fn is_not_live_feed(named: &Value) -> bool {
    named.get("name").and_then(Value::as_str).is_none_or(|name| ![ALS_CLUSTER, ALS_LOGGER].contains(&name))
}

/// Discovers filters from istiod. The listener does not serve before it has them.
fn discover_from_istiod(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(source) = object.get_mut("config_discovery").and_then(|found| found.get_mut("config_source")) {
                *source = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
            }
            object.values_mut().for_each(discover_from_istiod);
        }
        Value::Array(values) => values.iter_mut().for_each(discover_from_istiod),
        _ => {}
    }
}

fn text(head: &str, namespace: &str, (label, value): (&str, &str), patches: &[Patch]) -> String {
    let mut out = object_head(head, ("networking.istio.io/v1alpha3", "EnvoyFilter", namespace));
    out.push_str(&format!("  workloadSelector: {{ labels: {{ {label}: {value} }} }}\n  configPatches:\n"));
    for patch in patches {
        for line in patch.why.lines() {
            out.push_str(&format!("    # {line}\n"));
        }
        out.push_str("    ");
        yaml::item(&mut out, &patch.value, 4);
    }
    out
}

/// Renders a resource, with comments before some of its keys.
fn object(head: &str, kind: (&str, &str, &str), spec: &Value, why: &[(&str, &str)]) -> String {
    let mut out = object_head(head, kind);
    for (name, value) in spec.as_object().into_iter().flatten() {
        if let Some((_, why)) = why.iter().find(|(known, _)| known == name) {
            out.push_str(&format!("  # {why}\n"));
        }
        out.push_str(&format!("  {name}:"));
        yaml::write(&mut out, value, 2, name.len() + 3);
    }
    out
}

fn object_head(head: &str, (version, kind, namespace): (&str, &str, &str)) -> String {
    format!("{head}apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: {NAME}\n  namespace: {namespace}\nspec:\n")
}
