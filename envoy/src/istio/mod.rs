//! The gateway for a mesh. `render` makes Istio's EnvoyFilter of `envoy/standalone.yaml`, so that the
//! mesh runs what plain Envoy runs; `check` (crate::check) has the rules.

mod sidecar;

pub use sidecar::Image;

use std::path::Path;

use filter_core::config::Config;
use filter_core::route::SERVICES;
use serde_json::{Map, Value, json};

use crate::bootstrap::{ALS_CLUSTER, ALS_LOGGER, discovery};
use crate::bootstrap_error::BootstrapError;
use crate::document::DocumentError;
use crate::gateway::Options;
use crate::objects::for_each_object;
use crate::{Error, installed, yaml};

/// The gateway's port: of its pod, its Service and its Gateway, so that no rule depends on which of them is meant.
const PORT: u16 = 8443;
/// Name and namespace of Service, Gateway and the rest.
const NAME: &str = "bedrock-gateway";
/// The VirtualService's route that refuses what reaches the gateway without the routes made here.
const CLOSED: &str = "closed";
/// Where the Deployment mounts the image with the module.
const MODULE: &str = "/etc/bedrock-gateway/module/plugin.wasm";
const MANAGER: &str = "envoy.filters.network.http_connection_manager";
const ROUTER: &str = "envoy.filters.http.router";
/// The first of the filters that are put in.
const FIRST: &str = "bedrock.gateway";

/// What Istio says itself, or what has no place in a merge.
const NOT_MERGED: [&str; 5] = ["stat_prefix", "codec_type", "http_filters", "route_config", "@type"];

const HEAD: &str = "\
# The egress gateway's filter, clusters and routes: what `envoy/standalone.yaml` has, as patches for the Envoy that Istio makes.
# That file says why each value is what it is. Made by `bedrock-gateway render istio`, which also makes it for a document and for
# paths of your own; the tests compare it with that file and run it.
#
# Why an EnvoyFilter, and no WasmPlugin: WasmPlugin has no `allow_on_headers_stop_iteration`. Without it Envoy never shows the
# body to a filter that holds the headers, and a call that is to be signed would wait for ever. It also has no place for the
# signer, which stands in the clusters.
#
# Not carried over: `normalize_path: false`. Istio merges messages, and a `false` in a message does not replace a `true`; so dot
# segments in a path are resolved here before the filter sees it. Escapes (`%2F`) and double slashes stay as they are.
";

/// What is made: a way, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// The egress gateway's EnvoyFilter.
    Egress,
    /// A WasmPlugin for sidecars, with Bedrock API keys.
    Plugin,
    /// An EnvoyFilter for sidecars, with signatures.
    Sidecar,
}

/// The files of `envoy/istio` that are made.
pub const MADE: [(Way, &str); 3] = [
    (Way::Egress, "egress/envoyfilter.yaml"),
    (Way::Plugin, "sidecar/plugin.yaml"),
    (Way::Sidecar, "sidecar/envoyfilter.yaml"),
];

/// What is asked for; without paths, of `envoy/standalone.yaml` as it is. `image` is where sidecars have the module from.
///
/// # Errors
/// Why there is none: the document, the paths.
pub fn render(way: Way, options: &Options, image: Option<&Image>) -> Result<String, Error> {
    let bootstrap = if options.paths.is_empty() { installed::standalone()? } else { installed::bootstrap(options)? };
    let name = "the document in the Envoy configuration".to_owned();
    let refused =
        |error| Error::from(DocumentError::Key { name: name.clone(), position: None, error: Box::new(error) });
    let image = image.cloned().unwrap_or_default();
    match way {
        Way::Egress => Ok(envoy_filter(bootstrap)?),
        Way::Plugin => sidecar::plugin(document_of(&bootstrap)?, &image).map_err(refused),
        Way::Sidecar => sidecar::envoy_filter(document_of(&bootstrap)?, &bootstrap, &image)?.map_err(refused),
    }
}

/// The document of the first filter.
fn document_of(bootstrap: &Value) -> Result<Config, BootstrapError> {
    let filter = filter_of(bootstrap, FIRST)?;
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

/// The EnvoyFilter that makes of Istio's egress gateway what `bootstrap`, of the form of `envoy/standalone.yaml`, is alone.
///
/// # Errors
/// [`BootstrapError::Missing`], by what `bootstrap` lacks.
pub fn envoy_filter(mut bootstrap: Value) -> Result<String, BootstrapError> {
    // As for a change without restart: both filters by name, their documents apart.
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
        .pointer("/filter_chains/0/filters/0/typed_config")
        .and_then(Value::as_object)
        .ok_or(BootstrapError::Missing("connection manager in listener `plain`"))?;
    let clusters = bootstrap
        .pointer("/static_resources/clusters")
        .and_then(Value::as_array)
        .ok_or(BootstrapError::Missing("clusters"))?;

    let mut patches = vec![
        listener_patch(listener),
        Patch::new(
            "Limits, timeouts, answers in Bedrock's form, and the access log, which is the audit's ledger: it comes with the\n\
             filter, so that no setting of the mesh can leave calls without it.",
            "NETWORK_FILTER",
            at(json!({ "name": MANAGER })),
            ("MERGE", json!({ "name": MANAGER, "typed_config": manager_patch(manager) })),
        ),
    ];
    patches.extend(filter_patches(manager));
    patches.extend(route_patches(manager)?);
    patches.extend(listeners.iter().filter(|listener| listener.get("internal_listener").is_some()).map(|listener| {
        let why = "Where streams pass once more on their way upstream (`stream_relay`): reached from inside this Envoy alone.";
        Patch::new(why, "LISTENER", json!({ "context": "GATEWAY" }), ("ADD", mounted(listener.clone())))
    }));
    patches.extend(clusters.iter().filter(|cluster| is_wanted(cluster)).enumerate().map(|(number, cluster)| {
        let why = "Bedrock's clusters: a priority for each path, and the signer in the chain of each.";
        let why = if number == 0 { why } else { "" };
        let mut cluster = cluster.clone();
        from_istiod(&mut cluster);
        Patch::new(why, "CLUSTER", json!({ "context": "GATEWAY" }), ("ADD", cluster))
    }));
    patches.extend(filters.into_iter().enumerate().map(|(number, filter)| {
        let why = "The two roles of the module, which the pod has as a file. Istio sends what is changed here by itself: calls and\n\
                   streams in flight keep what they began with.";
        let value = json!({ "name": filter.name, "typed_config": mounted(filter.config) });
        let why = if number == 0 { why } else { "" };
        Patch::new(why, "EXTENSION_CONFIG", json!({ "context": "GATEWAY" }), ("ADD", value))
    }));
    Ok(text(HEAD, NAME, ("app", NAME), &patches))
}

/// One of an EnvoyFilter's patches, and why it is there.
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

/// A match of the gateway's listener, and of a filter in it.
fn at(filter: Value) -> Value {
    json!({ "context": "GATEWAY", "listener": { "portNumber": PORT, "filterChain": { "filter": filter } } })
}

fn listener_patch(listener: &Value) -> Patch {
    let limit = listener.get("per_connection_buffer_limit_bytes").cloned().unwrap_or_default();
    Patch::new(
        "What is read of a connection at once.",
        "LISTENER",
        json!({ "context": "GATEWAY", "listener": { "portNumber": PORT } }),
        ("MERGE", json!({ "per_connection_buffer_limit_bytes": limit })),
    )
}

/// The connection manager's settings that a merge can carry: one that is off by default, or that Istio has on, stays so.
fn manager_patch(manager: &Map<String, Value>) -> Value {
    let is_carried = |name: &str, value: &Value| !NOT_MERGED.contains(&name) && value != &json!(false);
    let mut merged: Map<String, Value> = manager
        .iter()
        .filter(|(name, value)| is_carried(name, value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    merged.insert("@type".into(), manager.get("@type").cloned().unwrap_or_default());
    if let Some(loggers) = merged.get_mut("access_log").and_then(Value::as_array_mut) {
        loggers.retain(is_wanted);
    }
    // AuthorizationPolicy refuses before the filter is asked.
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

/// The filters, before Istio's router; the router's own settings.
fn filter_patches(manager: &Map<String, Value>) -> Vec<Patch> {
    let before = |name: &str| at(json!({ "name": MANAGER, "subFilter": { "name": name } }));
    let all = manager.get("http_filters").and_then(Value::as_array).into_iter().flatten();
    all.map(|filter| {
        let name = filter.get("name").and_then(Value::as_str).unwrap_or_default();
        let mut filter = filter.clone();
        from_istiod(&mut filter);
        match name {
            ROUTER => Patch::new("", "HTTP_FILTER", before(ROUTER), ("MERGE", filter)),
            _ => {
                let why = if name == FIRST {
                    "Behind Istio's own filters (AuthorizationPolicy above all), before its router."
                } else {
                    ""
                };
                Patch::new(why, "HTTP_FILTER", before(ROUTER), ("INSERT_BEFORE", filter))
            }
        }
    })
    .collect()
}

/// The routes, in a virtual host of their own: the filter lets a call go on under its service's name. Until then its route is one
/// to nowhere, before the VirtualService's, which answers 503: so nothing leaves where these are missing, or the filter is.
fn route_patches(manager: &Map<String, Value>) -> Result<Vec<Patch>, BootstrapError> {
    let config = manager.get("route_config").ok_or(BootstrapError::Missing("route_config"))?;
    let mut host = config.pointer("/virtual_hosts/0").cloned().ok_or(BootstrapError::Missing("virtual_hosts"))?;
    let limit = host.pointer("/routes/0/request_body_buffer_limit").cloned();
    if let Some(host) = host.as_object_mut() {
        host.insert("domains".into(), SERVICES.iter().map(|service| json!(service.name())).collect());
        // The rest of the route configuration is Istio's.
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
            "As long as a call has not passed the filter, its route leads nowhere, and says how much of a body may be held. (The\n\
             VirtualService's, an answer by itself, cannot say that.)",
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
            "Once it has passed, its Host is its service's name, until the signer puts in Bedrock's.",
            "VIRTUAL_HOST",
            json!({ "context": "GATEWAY", "routeConfiguration": { "gateway": format!("{NAME}/{NAME}") } }),
            ("ADD", host),
        ),
    ])
}

/// With the module where the pod has it.
fn mounted(mut value: Value) -> Value {
    for_each_object(&mut value, &mut |object| {
        if let Some(vm) = object.get_mut("vm_config").and_then(Value::as_object_mut) {
            vm.insert("code".into(), json!({ "local": { "filename": MODULE } }));
        }
    });
    value
}

/// Not the live feed: its collector would write each record a second time, in addition to the one that reads the file.
fn is_wanted(named: &Value) -> bool {
    named.get("name").and_then(Value::as_str).is_none_or(|name| ![ALS_CLUSTER, ALS_LOGGER].contains(&name))
}

/// Filters that are found by name are found at istiod, and nothing is served before they are there.
fn from_istiod(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(source) = object.get_mut("config_discovery").and_then(|found| found.get_mut("config_source")) {
                *source = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
            }
            object.values_mut().for_each(from_istiod);
        }
        Value::Array(values) => values.iter_mut().for_each(from_istiod),
        _ => {}
    }
}

fn text(head: &str, namespace: &str, (label, value): (&str, &str), patches: &[Patch]) -> String {
    let mut out = head_of(head, ("networking.istio.io/v1alpha3", "EnvoyFilter", namespace));
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

/// An object, with reasons before some of its keys.
fn object(head: &str, kind: (&str, &str, &str), spec: &Value, why: &[(&str, &str)]) -> String {
    let mut out = head_of(head, kind);
    for (name, value) in spec.as_object().into_iter().flatten() {
        if let Some((_, why)) = why.iter().find(|(known, _)| known == name) {
            out.push_str(&format!("  # {why}\n"));
        }
        out.push_str(&format!("  {name}:"));
        yaml::write(&mut out, value, 2, name.len() + 3);
    }
    out
}

fn head_of(head: &str, (version, kind, namespace): (&str, &str, &str)) -> String {
    format!("{head}apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: {NAME}\n  namespace: {namespace}\nspec:\n")
}
