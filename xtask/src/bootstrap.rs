//! Envoy's bootstrap for one run: `envoy/standalone.yaml` with the addresses, files and paths of this machine.
//!
//! What the file says of timeouts, retries, TLS and logs stays as it is, so that `up` runs what production runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::credentials::Auth;
use crate::paths::{PathSpec, Region};

/// The services, as the gateway names their clusters and hosts.
const SERVICES: [&str; 2] = ["bedrock-runtime", "bedrock"];
/// The live feed's cluster and access logger.
const ALS_CLUSTER: &str = "audit-als";
const ALS_LOGGER: &str = "envoy.access_loggers.http_grpc";
const FILE_LOGGER: &str = "envoy.access_loggers.file";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no YAML.
    #[error("{}: {message}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// The file lacks something that has to be set.
    #[error("the Envoy configuration has no {0}, which is needed here; start from envoy/standalone.yaml")]
    Missing(&'static str),
    /// The filter's document is no JSON object.
    #[error("the filter's configuration (configuration.value of a Wasm filter) is no JSON object: {0}")]
    Document(String),
}

/// What differs from run to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The listener for HTTP/1.1 and h2c.
    pub listen: SocketAddr,
    /// The TLS listener.
    pub listen_tls: SocketAddr,
    /// Envoy's admin page.
    pub admin: SocketAddr,
    /// The module.
    pub module: PathBuf,
    /// Certificate of the TLS listener (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// The region that is called.
    pub region: Region,
    /// Whether the FIPS hosts are called.
    pub fips: bool,
    /// How the gateway authenticates.
    pub auth: Auth,
    /// The paths, in order; none means the internet to Bedrock itself.
    pub paths: Vec<PathSpec>,
    /// The CA that upstreams are verified against; the system's where absent.
    pub upstream_ca: Option<PathBuf>,
    /// The access log file.
    pub access_log: PathBuf,
    /// The collector's live feed; absent, there is none.
    pub als: Option<SocketAddr>,
}

/// Reads a configuration as Envoy does: YAML, anchors included.
pub fn read(path: &Path) -> Result<Value, BootstrapError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| BootstrapError::Read { path: path.to_path_buf(), source })?;
    serde_saphyr::from_str(&text)
        .map_err(|error| BootstrapError::Yaml { path: path.to_path_buf(), message: error.to_string() })
}

/// Writes `settings` into a configuration of the form of `envoy/standalone.yaml`.
pub fn render(mut config: Value, settings: &Settings) -> Result<Value, BootstrapError> {
    set_address(config.get_mut("admin").ok_or(BootstrapError::Missing("admin"))?, settings.admin);
    let resources = config.get_mut("static_resources").ok_or(BootstrapError::Missing("static_resources"))?;
    listeners(resources, settings)?;
    clusters(resources, settings)?;
    for_each_object(resources, &mut |object| access_log(object, settings));
    if settings.paths.len() < 2 {
        for_each_object(resources, &mut retry_on_one_path);
    }
    let mut error = None;
    for_each_object(resources, &mut |object| {
        if let Err(failure) = plugin(object, settings) {
            error.get_or_insert(failure);
        }
    });
    error.map_or(Ok(config), Err)
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

fn clusters(resources: &mut Value, settings: &Settings) -> Result<(), BootstrapError> {
    let clusters = named(resources, "clusters")?;
    match settings.als {
        Some(address) => {
            let als = find(clusters, ALS_CLUSTER).ok_or(BootstrapError::Missing("cluster named `audit-als`"))?;
            for_each_object(als, &mut |object| {
                if object.contains_key("socket_address") {
                    object.insert("socket_address".into(), socket_address(address));
                }
            });
        }
        None => clusters.retain(|cluster| cluster.get("name").and_then(Value::as_str) != Some(ALS_CLUSTER)),
    }
    let mut found = false;
    for cluster in clusters.iter_mut() {
        let name = cluster.get("name").and_then(Value::as_str).unwrap_or_default();
        if let Some((service, _class)) = name.split_once('.').filter(|(service, _)| SERVICES.contains(service)) {
            let service = service.to_owned();
            bedrock_cluster(cluster, &service, settings);
            found = true;
        }
    }
    if found { Ok(()) } else { Err(BootstrapError::Missing("cluster named `bedrock-runtime.CLASS`")) }
}

/// Gives a cluster the paths that both its class and the command line name, in the class's order. A class left with
/// none keeps its empty cluster: its calls are refused (503) rather than sent another way.
fn bedrock_cluster(cluster: &mut Value, service: &str, settings: &Settings) {
    let host = host(service, settings);
    let given = if settings.paths.is_empty() { &[PathSpec::PUBLIC][..] } else { &settings.paths };
    let class: Vec<String> = path_names(cluster);
    let chosen: Vec<&PathSpec> =
        class.iter().filter_map(|name| given.iter().find(|path| path.name.as_str() == name)).collect();
    let endpoints: Vec<Value> = chosen
        .iter()
        .enumerate()
        .map(|(priority, path)| {
            let (address, port) = path.address.as_ref().map_or((&host, 443), |address| (&address.host, address.port));
            json!({
                "priority": priority,
                "lb_endpoints": [{
                    "endpoint": {
                        "hostname": host,
                        "health_check_config": { "hostname": host },
                        "address": { "socket_address": { "address": address, "port_value": port } },
                    },
                    "metadata": { "filter_metadata": { "bedrock": {
                        "path": path.name.as_str(),
                        "region": settings.region.as_str(),
                    } } },
                }],
            })
        })
        .collect();
    let Some(cluster) = cluster.as_object_mut() else {
        return;
    };
    // A lone path has nowhere to go: a check could only turn calls away from a live one.
    // Nor is there a hurry to notice that it went silent: what is in flight has nowhere else to be tried.
    if endpoints.len() < 2 {
        for haste in ["health_checks", "outlier_detection", "upstream_bind_config", "upstream_connection_options"] {
            cluster.remove(haste);
        }
        cluster.values_mut().for_each(|value| {
            for_each_object(value, &mut |object| {
                if object.contains_key("connection_keepalive") {
                    object.insert("connection_keepalive".into(), json!({ "interval": "60s", "timeout": "60s" }));
                }
            });
        });
    }
    if let Some(assignment) = cluster.get_mut("load_assignment").and_then(Value::as_object_mut) {
        assignment.insert("endpoints".into(), Value::Array(endpoints));
    }
    if let Some(ca) = &settings.upstream_ca {
        cluster.values_mut().for_each(|value| {
            for_each_object(value, &mut |object| {
                if object.contains_key("trusted_ca") {
                    object.insert("trusted_ca".into(), file(ca));
                }
            });
        });
    }
}

/// `bedrock-runtime.us-east-1.amazonaws.com`, or `bedrock-runtime-fips.…`.
fn host(service: &str, settings: &Settings) -> String {
    let fips = if settings.fips { "-fips" } else { "" };
    format!("{service}{fips}.{}.amazonaws.com", settings.region.as_str())
}

/// The paths of a cluster, from its endpoints' metadata, in order of priority as written.
fn path_names(cluster: &mut Value) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for_each_object(cluster, &mut |object| {
        let path = object.get("filter_metadata").and_then(|metadata| metadata.pointer("/bedrock/path"));
        if let Some(name) = path.and_then(Value::as_str).filter(|name| !names.iter().any(|known| known == name)) {
            names.push(name.to_owned());
        }
    });
    names
}

/// The access loggers of a connection manager.
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

/// On a lone path, a connection that failed is tried once more; a 503 is Bedrock's own answer, and the client's SDK tries
/// again by itself. With retries of both, one call would become twelve.
fn retry_on_one_path(object: &mut Map<String, Value>) {
    if let Some(policy) = object.get_mut("retry_policy").and_then(Value::as_object_mut) {
        policy.insert("retry_on".into(), json!("connect-failure,refused-stream,reset"));
        policy.insert("num_retries".into(), json!(1));
    }
}

/// A Wasm plugin: its module and its document.
fn plugin(object: &mut Map<String, Value>, settings: &Settings) -> Result<(), BootstrapError> {
    let Some(vm) = object.get_mut("vm_config").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    vm.insert("code".into(), json!({ "local": file(&settings.module) }));
    let Some(value) = object.get_mut("configuration").and_then(|configuration| configuration.get_mut("value")) else {
        return Err(BootstrapError::Missing("configuration.value of a Wasm filter"));
    };
    let text = value.as_str().unwrap_or_default();
    let mut document: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| BootstrapError::Document(error.to_string()))?;
    let region = settings.region.as_str();
    let own = document.get("regions").and_then(|regions| regions.get(region)).cloned().unwrap_or_else(|| json!({}));
    document.insert("regions".into(), json!({ region: own }));
    document.insert("fips".into(), json!(settings.fips));
    document.insert("auth".into(), json!(settings.auth.as_str()));
    if !has_us_profiles(&settings.region) {
        document.remove("inference_profiles");
    }
    *value = Value::String(format!("{:#}", Value::Object(document)));
    Ok(())
}

/// Whether the file's table of inference profiles, all `us.`, holds in a region.
pub fn has_us_profiles(region: &Region) -> bool {
    region.as_str().starts_with("us-")
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
    json!({ "address": address.ip().to_string(), "port_value": address.port() })
}

fn file(path: &Path) -> Value {
    json!({ "filename": path })
}

/// Calls `edit` on every object in `value`, the outer before the inner.
fn for_each_object(value: &mut Value, edit: &mut dyn FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            edit(object);
            object.values_mut().for_each(|value| for_each_object(value, edit));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| for_each_object(value, edit)),
        _ => {}
    }
}
