//! Envoy's bootstrap: `envoy/base.yaml` with the addresses, files and paths of a machine, and with the clusters
//! (`envoy/cluster.yaml`) and routes that the filter's document asks for.
//!
//! Timeouts, retries, TLS and logs are those of the two files, so that `up` runs what production runs.

mod clusters;
pub mod discovery;
mod routes;
pub mod sources;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use filter_core::config::{RelayPlace, Role};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use crate::document::Document;
use crate::paths::PathSpec;

/// Envoy's configuration without clusters and document, where no file is given.
pub const BASE: &str = include_str!("../../base.yaml");
/// The live feed's cluster and access logger.
pub(crate) const ALS_CLUSTER: &str = "audit-als";
pub(crate) const ALS_LOGGER: &str = "envoy.access_loggers.http_grpc";
/// The filter in the clusters.
const SIGNER: &str = "bedrock.signer";
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
    #[error("the Envoy configuration has no {0}, which is needed here; start from envoy/base.yaml")]
    Missing(&'static str),
    /// Credentials from a place that is not known here.
    #[error(
        "the Envoy configuration has no cluster `{0}`, which the document's credentials name; its address is not known here"
    )]
    NoSource(String),
    /// Credentials from Commercial STS, which no path reaches.
    #[error("cluster `{cluster}`: no --path reaches STS in {region}; give `internet`, or such as vpn/sts=HOST:443")]
    NoWay {
        /// The cluster.
        cluster: String,
        /// Where.
        region: String,
    },
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
    /// The paths; none means the internet to Bedrock itself.
    pub paths: Vec<PathSpec>,
    /// The CA that upstreams are verified against; the system's where absent.
    pub upstream_ca: Option<PathBuf>,
    /// The access log file.
    pub access_log: PathBuf,
    /// The collector's live feed; absent, there is none.
    pub als: Option<SocketAddr>,
}

/// Envoy's configuration without what the document decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    config: Value,
    cluster: Map<String, Value>,
}

impl Base {
    /// The one that this program carries: `envoy/base.yaml` and `envoy/cluster.yaml`.
    ///
    /// # Errors
    /// None: a test reads it.
    pub fn shipped() -> Result<Base, BootstrapError> {
        Base::new(parse(BASE, Path::new("envoy/base.yaml"))?)
    }

    /// Another file in place of `envoy/base.yaml`.
    ///
    /// # Errors
    /// The file cannot be read, or is not YAML.
    pub fn read(path: &Path) -> Result<Base, BootstrapError> {
        let failed = |source| BootstrapError::Read { path: path.to_path_buf(), source };
        Base::parse(&std::fs::read_to_string(path).map_err(failed)?, path)
    }

    /// The text of such a file; `path` is its name in messages.
    ///
    /// # Errors
    /// It is not YAML.
    pub fn parse(text: &str, path: &Path) -> Result<Base, BootstrapError> {
        Base::new(parse(text, path)?)
    }

    fn new(config: Value) -> Result<Base, BootstrapError> {
        let file = Path::new("envoy/cluster.yaml");
        let cluster = match parse(include_str!("../../cluster.yaml"), file)? {
            Value::Object(cluster) => cluster,
            _ => return Err(BootstrapError::Missing("cluster")),
        };
        Ok(Base { config, cluster })
    }

    /// What the filter in the listeners does: `gateway` or `combined`.
    pub fn role(&self) -> Option<Role> {
        let mut roles = plugins(&self.config).into_iter().filter_map(role_of);
        roles.find(|role| *role != Role::Signer)
    }

    /// The cluster of the listener with the relay, if there is one.
    pub fn relay(&self) -> Option<&str> {
        let clusters = self.config.pointer("/static_resources/clusters").and_then(Value::as_array);
        let internal = |cluster: &&Value| cluster.to_string().contains("\"envoy_internal_address\"");
        clusters.into_iter().flatten().find(internal)?.get("name")?.as_str()
    }

    /// Leaves out a listener.
    #[must_use]
    pub fn without_listener(mut self, name: &str) -> Base {
        let listeners = self.config.pointer_mut("/static_resources/listeners").and_then(Value::as_array_mut);
        if let Some(listeners) = listeners {
            listeners.retain(|listener| listener.get("name").and_then(Value::as_str) != Some(name));
        }
        self
    }

    /// A cluster of Bedrock without a name and endpoints. The signer runs in the VM of the gateway, with which it shares data;
    /// with role `combined` there is none.
    fn cluster(&self) -> Result<Map<String, Value>, BootstrapError> {
        let mut cluster = self.cluster.clone();
        let combined = self.role() == Some(Role::Combined);
        let vm = vm_of(&self.config).ok_or(BootstrapError::Missing("`vm_config` of filter `bedrock.gateway`"))?;
        cluster.values_mut().for_each(|value| {
            for_each_object(value, &mut |object| {
                if combined && let Some(filters) = object.get_mut("http_filters").and_then(Value::as_array_mut) {
                    filters.retain(|filter| filter.get("name").and_then(Value::as_str) != Some(SIGNER));
                }
                if object.get("name").and_then(Value::as_str) == Some(SIGNER) && object.contains_key("root_id") {
                    object.insert("vm_config".into(), vm.clone());
                }
            });
        });
        Ok(cluster)
    }
}

/// The first VM of a configuration.
fn vm_of(config: &Value) -> Option<&Value> {
    match config {
        Value::Object(object) => object.get("vm_config").or_else(|| object.values().find_map(vm_of)),
        Value::Array(values) => values.iter().find_map(vm_of),
        _ => None,
    }
}

fn role_of(document: &str) -> Option<Role> {
    let document: Value = serde_json::from_str(document).ok()?;
    Role::deserialize(document.get("role")?).ok()
}

/// YAML as Envoy reads it, anchors included.
fn parse(text: &str, path: &Path) -> Result<Value, BootstrapError> {
    serde_saphyr::from_str(text)
        .map_err(|error| BootstrapError::Yaml { path: path.to_path_buf(), message: error.to_string() })
}

/// The bootstrap of `base` for `settings` and `document`.
///
/// # Errors
/// [`BootstrapError::Missing`], by what `base` lacks.
pub fn render(base: &Base, settings: &Settings, document: &Document) -> Result<Value, BootstrapError> {
    let mut config = base.config.clone();
    set_address(config.get_mut("admin").ok_or(BootstrapError::Missing("admin"))?, settings.admin);
    let resources = config.get_mut("static_resources").ok_or(BootstrapError::Missing("static_resources"))?;
    listeners(resources, settings)?;
    live_feed(resources, settings)?;
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

/// The documents of the Wasm filters in a configuration, as text.
pub fn plugins(config: &Value) -> Vec<&str> {
    let own = config.get("vm_config").and_then(|_| config.pointer("/configuration/value")).and_then(Value::as_str);
    let inner: Box<dyn Iterator<Item = &Value>> = match config {
        Value::Object(object) => Box::new(object.values()),
        Value::Array(values) => Box::new(values.iter()),
        _ => Box::new(std::iter::empty()),
    };
    own.into_iter().chain(inner.flat_map(plugins)).collect()
}

/// Whether a plugin is the relay: it decides nothing, and its document says no more than where it stands.
fn is_relay(document: &str) -> bool {
    RelayPlace::parse(document.as_bytes()).is_some()
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

/// Has the TLS listener of a bootstrap verify the certificates that clients show: a name that `authority` vouches for is the caller's,
/// who shows none has none, and who shows another's is not let in.
pub fn ask_for_names(bootstrap: &mut Value, authority: &Path) -> Result<(), BootstrapError> {
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

/// A Wasm plugin: its module, and the document with the role that it has.
fn plugin(object: &mut Map<String, Value>, settings: &Settings, document: &Document) -> Result<(), BootstrapError> {
    let Some(vm) = object.get_mut("vm_config").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    vm.insert("code".into(), json!({ "local": file(&settings.module) }));
    let missing = || BootstrapError::Missing("`configuration.value` with a `role` in a Wasm filter");
    let value = object.get_mut("configuration").and_then(|configuration| configuration.get_mut("value"));
    let value = value.ok_or_else(missing)?;
    let text = value.as_str().ok_or_else(missing)?;
    if is_relay(text) {
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
    json!({ "address": address.ip().to_string(), "port_value": address.port() })
}

fn file(path: &Path) -> Value {
    json!({ "filename": path })
}

/// Calls `edit` on every object in `value`, the outer before the inner.
pub(crate) fn for_each_object(value: &mut Value, edit: &mut dyn FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            edit(object);
            object.values_mut().for_each(|value| for_each_object(value, edit));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| for_each_object(value, edit)),
        _ => {}
    }
}
