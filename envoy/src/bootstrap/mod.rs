//! Renders Envoy's bootstrap: `envoy/base.yaml` with the addresses, files and paths of a machine, and the clusters
//! (`envoy/cluster.yaml`) and routes of the filter's document.
//!
//! Timeouts, retries, TLS and logs come from the two files, so that `up` runs the same as production.

mod clusters;
pub mod discovery;
mod endpoint;
mod routes;
pub(crate) mod source_filter;
pub mod sources;
pub(crate) mod token_file;

pub(crate) use clusters::needs_to_leave;
pub(crate) use routes::duration;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use filter_core::config::{Connections, RelayPlace, SourceCluster};
use serde_json::{Map, Value, json};

use crate::base::{AUDIT_CLUSTER, Base, POLLS_CLUSTER, POLLS_LISTENER, role_of};
use crate::bootstrap_error::BootstrapError;
use crate::document::Document;
use crate::objects::for_each_object;
use crate::paths::PathSpec;

/// The live feed's cluster and access logger.
pub(crate) const ALS_CLUSTER: &str = "audit-als";
pub(crate) const ALS_LOGGER: &str = "envoy.access_loggers.http_grpc";
const FILE_LOGGER: &str = "envoy.access_loggers.file";

/// Settings of a machine or a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The listener for HTTP/1.1 and h2c.
    pub listen: SocketAddr,
    /// The TLS listener.
    pub listen_tls: SocketAddr,
    /// Envoy's admin page.
    pub admin: SocketAddr,
    /// The Wasm module.
    pub module: PathBuf,
    /// Certificate of the TLS listener (PEM).
    pub certificate: PathBuf,
    /// Private key of the certificate (PEM).
    pub key: PathBuf,
    /// The paths; if empty, Bedrock's public endpoints.
    pub paths: Vec<PathSpec>,
    /// The CAs (PEM) that vouch for upstreams.
    pub upstream_ca: PathBuf,
    /// The access log file.
    pub access_log: PathBuf,
    /// Address of the collector's live feed, if it is used.
    pub als: Option<SocketAddr>,
    /// The collector's socket for intents, if a collector runs.
    pub intents: Option<PathBuf>,
}

const HEAP_MONITOR: &str = "envoy.resource_monitors.fixed_heap";
/// With 4096 calls at the same time, and 200 connections that fill their windows, Envoy's heap had some 300 MiB besides bodies.
const HEAP_WITHOUT_BODIES: u64 = 1 << 30;

/// Renders the bootstrap.
///
/// # Errors
/// [`BootstrapError::Missing`] names the part that `base` lacks.
pub fn render(base: &Base, settings: &Settings, document: &Document) -> Result<Value, BootstrapError> {
    let mut config = base.config().clone();
    set_address(config.get_mut("admin").ok_or(BootstrapError::Missing("admin"))?, settings.admin);
    heap(&mut config, document.policy().budgets.total_bytes)?;
    let resources = config.get_mut("static_resources").ok_or(BootstrapError::Missing("static_resources"))?;
    listeners(resources, settings)?;
    live_feed(resources, settings)?;
    intents(resources, settings)?;
    if let Some(relay) = &document.config().stream_relay
        && find(named(resources, "clusters")?, relay).is_none()
    {
        return Err(BootstrapError::NoRelay(relay.clone()));
    }
    if let Some(audit) = &document.config().audit
        && find(named(resources, "clusters")?, &audit.cluster).is_none()
    {
        return Err(BootstrapError::NoCollector(audit.cluster.clone()));
    }
    polls(resources, document)?;
    let largest = clusters::add(resources, &base.cluster()?, settings, document)?;
    routes::replace(resources, document, largest)?;
    for_each_object(resources, &mut |object| access_log(object, settings));
    let mut error = None;
    for_each_object(resources, &mut |object| {
        if let Err(failure) = plugin(object, settings, document) {
            error.get_or_insert(failure);
        }
    });
    error.map_or(Ok(config), Err)
}

/// Whether a plugin is the relay. Its document holds only its place.
pub(crate) fn is_relay(document: &str) -> bool {
    RelayPlace::parse(document.as_bytes()).is_some()
}

/// Whether a plugin's document does not depend on the filter's: the relay's, that of the filter in a source's cluster, and that
/// of the limits of connections.
pub(crate) fn is_fixed(document: &str) -> bool {
    let json = document.as_bytes();
    is_relay(document) || SourceCluster::parse(json).is_some() || Connections::parse(json).is_some()
}

/// Sets the limit of the heap: room for the bodies of all calls, and what Envoy uses besides.
fn heap(config: &mut Value, bodies: u64) -> Result<(), BootstrapError> {
    let monitors = config.pointer_mut("/overload_manager/resource_monitors").and_then(Value::as_array_mut);
    let heap =
        monitors.and_then(|monitors| find(monitors, HEAP_MONITOR)?.pointer_mut("/typed_config/max_heap_size_bytes"));
    *heap.ok_or(BootstrapError::Missing("monitor `envoy.resource_monitors.fixed_heap` in `overload_manager`"))? =
        json!(bodies.saturating_add(HEAP_WITHOUT_BODIES));
    Ok(())
}

fn listeners(resources: &mut Value, settings: &Settings) -> Result<(), BootstrapError> {
    let listeners = named(resources, "listeners")?;
    let plain = find(listeners, "plain").ok_or(BootstrapError::Missing("listener named `plain`"))?;
    set_address(plain, settings.listen);
    let tls = find(listeners, "tls").ok_or(BootstrapError::Missing("listener named `tls`"))?;
    set_address(tls, settings.listen_tls);
    for_each_object(tls, &mut |object| {
        if object.contains_key("certificate_chain") {
            object.insert("certificate_chain".into(), file(&settings.certificate));
            object.insert("private_key".into(), file(&settings.key));
        }
    });
    Ok(())
}

/// Makes the TLS listener verify client certificates against `authority`. Without a certificate the caller is
/// anonymous; with an untrusted one the handshake fails.
pub fn verify_client_certificates(bootstrap: &mut Value, authority: &Path) -> Result<(), BootstrapError> {
    let resources = bootstrap.get_mut("static_resources").ok_or(BootstrapError::Missing("static_resources"))?;
    let tls = find(named(resources, "listeners")?, "tls").ok_or(BootstrapError::Missing("listener named `tls`"))?;
    for_each_object(tls, &mut |object| {
        if object.contains_key("tls_certificates") {
            object.insert("validation_context".into(), json!({ "trusted_ca": file(authority) }));
        }
    });
    Ok(())
}

fn live_feed(resources: &mut Value, settings: &Settings) -> Result<(), BootstrapError> {
    let clusters = named(resources, "clusters")?;
    let Some(address) = settings.als else {
        clusters.retain(|cluster| cluster.get("name").and_then(Value::as_str) != Some(ALS_CLUSTER));
        return Ok(());
    };
    let als = find(clusters, ALS_CLUSTER).ok_or(BootstrapError::Missing("cluster named `audit-als`"))?;
    for_each_object(als, &mut |object| {
        if object.contains_key("socket_address") {
            object.insert("socket_address".into(), socket_address(address));
        }
    });
    Ok(())
}

/// Sets the collector's socket. A base of the operator's own may lack the cluster.
fn intents(resources: &mut Value, settings: &Settings) -> Result<(), BootstrapError> {
    let clusters = named(resources, "clusters")?;
    let Some(socket) = &settings.intents else {
        clusters.retain(|cluster| cluster.get("name").and_then(Value::as_str) != Some(AUDIT_CLUSTER));
        return Ok(());
    };
    if let Some(audit) = find(clusters, AUDIT_CLUSTER) {
        for_each_object(audit, &mut |object| {
            if object.contains_key("pipe") {
                object.insert("pipe".into(), json!({ "path": socket }));
            }
        });
    }
    Ok(())
}

/// Removes the listener and the cluster of polls, if there are none.
fn polls(resources: &mut Value, document: &Document) -> Result<(), BootstrapError> {
    let clusters = document.config().poll_clusters();
    if clusters.is_empty() {
        let other = |name| move |value: &Value| value.get("name").and_then(Value::as_str) != Some(name);
        named(resources, "clusters")?.retain(other(POLLS_CLUSTER));
        named(resources, "listeners")?.retain(other(POLLS_LISTENER));
        return Ok(());
    }
    for (key, cluster) in clusters {
        if find(named(resources, "clusters")?, cluster).is_none() {
            return Err(BootstrapError::NoPolls { key, cluster: cluster.to_owned() });
        }
    }
    Ok(())
}

/// Sets the access log file, and removes the live feed if it is not used.
fn access_log(object: &mut Map<String, Value>, settings: &Settings) {
    let Some(loggers) = object.get_mut("access_log").and_then(Value::as_array_mut) else {
        return;
    };
    let named = |logger: &Value, name| logger.get("name").and_then(Value::as_str) == Some(name);
    if settings.als.is_none() {
        loggers.retain(|logger| !named(logger, ALS_LOGGER));
    }
    for logger in loggers.iter_mut().filter(|logger| named(logger, FILE_LOGGER)) {
        if let Some(config) = logger.get_mut("typed_config").and_then(Value::as_object_mut) {
            config.insert("path".into(), json!(settings.access_log));
        }
    }
}

/// Sets a Wasm plugin's module, and adds the document to its role.
fn plugin(object: &mut Map<String, Value>, settings: &Settings, document: &Document) -> Result<(), BootstrapError> {
    let Some(vm) = object.get_mut("vm_config").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    vm.insert("code".into(), json!({ "local": file(&settings.module) }));
    let missing = || BootstrapError::Missing("`configuration.value` with a `role` in a Wasm filter");
    let value = object.get_mut("configuration").and_then(|configuration| configuration.get_mut("value"));
    let value = value.ok_or_else(missing)?;
    let text = value.as_str().ok_or_else(missing)?;
    if is_fixed(text) {
        return Ok(());
    }
    let role = role_of(text).ok_or_else(missing)?;
    *value = Value::String(document.text(role));
    Ok(())
}

fn named<'a>(resources: &'a mut Value, kind: &'static str) -> Result<&'a mut Vec<Value>, BootstrapError> {
    resources.get_mut(kind).and_then(Value::as_array_mut).ok_or(BootstrapError::Missing(kind))
}

fn find<'a>(values: &'a mut [Value], name: &str) -> Option<&'a mut Value> {
    values.iter_mut().find(|value| value.get("name").and_then(Value::as_str) == Some(name))
}

fn set_address(holder: &mut Value, address: SocketAddr) {
    if let Some(holder) = holder.as_object_mut() {
        holder.insert("address".into(), json!({ "socket_address": socket_address(address) }));
    }
}

fn socket_address(address: SocketAddr) -> Value {
    endpoint::socket_address(&address.ip().to_string(), address.port())
}

fn file(path: &Path) -> Value {
    json!({ "filename": path })
}
