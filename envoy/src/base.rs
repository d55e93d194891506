//! Envoy's configuration, without the parts that the filter's document decides: `envoy/base.yaml` and `envoy/cluster.yaml`.

use std::path::Path;

use filter_core::config::Role;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::bootstrap_error::BootstrapError;
use crate::objects::{for_each_object, plugins};
use crate::position::{not_yaml, place};

/// `envoy/base.yaml`.
pub const BASE: &str = include_str!("../base.yaml");
/// The cluster of the collector's socket.
pub(crate) const AUDIT_CLUSTER: &str = "audit";
/// The listener through which polls of the catalogue go, and the cluster that leads to it.
pub(crate) const POLLS_LISTENER: &str = "polls";
pub(crate) const POLLS_CLUSTER: &str = "bedrock-polls";
/// Name of the filter that hashes bodies.
pub(crate) const HASH_FILTER: &str = "bedrock.hash";
/// Name of the filter in the clusters.
const SIGNER: &str = "bedrock.signer";

/// Envoy's configuration, without the parts that the document decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    config: Value,
    cluster: Map<String, Value>,
}

impl Base {
    /// The embedded `envoy/base.yaml` and `envoy/cluster.yaml`.
    ///
    /// # Errors
    /// The shipped files are invalid; a test excludes it.
    pub fn shipped() -> Result<Base, BootstrapError> {
        Base::new(parse(BASE, Path::new("envoy/base.yaml"))?)
    }

    /// Reads another file in place of `envoy/base.yaml`.
    ///
    /// # Errors
    /// The file cannot be read, or is not YAML.
    pub fn read(path: &Path) -> Result<Base, BootstrapError> {
        let failed = |source| BootstrapError::Read { path: path.to_path_buf(), source };
        Base::parse(&std::fs::read_to_string(path).map_err(failed)?, path)
    }

    /// Parses the text of such a file; `path` is its name in messages.
    ///
    /// # Errors
    /// It is not YAML.
    pub fn parse(text: &str, path: &Path) -> Result<Base, BootstrapError> {
        Base::new(parse(text, path)?)
    }

    fn new(config: Value) -> Result<Base, BootstrapError> {
        let file = Path::new("envoy/cluster.yaml");
        let Value::Object(cluster) = parse(include_str!("../cluster.yaml"), file)? else {
            return Err(BootstrapError::Missing("cluster"));
        };
        Ok(Base { config, cluster })
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Value {
        &self.config
    }

    /// The role of the filter in the listeners: `gateway` or `combined`.
    pub fn role(&self) -> Option<Role> {
        let mut roles = plugins(&self.config).into_iter().filter_map(role_of);
        roles.find(|role| *role != Role::Signer)
    }

    /// Name of the cluster that leads to the relay's listener, if there is one.
    pub fn relay(&self) -> Option<&str> {
        let internal = |cluster: &&Value| cluster.to_string().contains("\"envoy_internal_address\"");
        let mut names = self.clusters().filter(internal).filter_map(|cluster| cluster.get("name")?.as_str());
        names.find(|name| *name != POLLS_CLUSTER)
    }

    /// Whether it has the filter that hashes bodies for the signer.
    pub fn hashes(&self) -> bool {
        self.config.pointer("/static_resources/listeners").is_some_and(|listeners| has_named(listeners, HASH_FILTER))
    }

    /// Name of the cluster of the audit collector's socket, if there is one.
    pub fn collector(&self) -> Option<&str> {
        self.cluster_named(AUDIT_CLUSTER)
    }

    /// Name of the cluster that polls of the catalogue go through, if there is one.
    pub fn polls(&self) -> Option<&str> {
        self.cluster_named(POLLS_CLUSTER)
    }

    fn cluster_named(&self, name: &str) -> Option<&str> {
        self.clusters().filter_map(|cluster| cluster.get("name")?.as_str()).find(|known| *known == name)
    }

    fn clusters(&self) -> impl Iterator<Item = &Value> {
        self.config.pointer("/static_resources/clusters").and_then(Value::as_array).into_iter().flatten()
    }

    /// Removes a listener.
    #[must_use]
    pub fn without_listener(mut self, name: &str) -> Base {
        let listeners = self.config.pointer_mut("/static_resources/listeners").and_then(Value::as_array_mut);
        if let Some(listeners) = listeners {
            listeners.retain(|listener| listener.get("name").and_then(Value::as_str) != Some(name));
        }
        self
    }

    /// A cluster of Bedrock without name and endpoints. The signer runs in the gateway role's VM, because they share
    /// data. With role `combined` the cluster has no signer.
    pub(crate) fn cluster(&self) -> Result<Map<String, Value>, BootstrapError> {
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

/// Whether an object of this name is in a configuration.
fn has_named(config: &Value, name: &str) -> bool {
    match config {
        Value::Object(object) => {
            object.get("name").is_some_and(|own| own == name) || object.values().any(|value| has_named(value, name))
        }
        Value::Array(values) => values.iter().any(|value| has_named(value, name)),
        _ => false,
    }
}

/// The first `vm_config` of a configuration.
pub(crate) fn vm_of(config: &Value) -> Option<&Value> {
    match config {
        Value::Object(object) => object.get("vm_config").or_else(|| object.values().find_map(vm_of)),
        Value::Array(values) => values.iter().find_map(vm_of),
        _ => None,
    }
}

/// The role in a filter's document.
pub(crate) fn role_of(document: &str) -> Option<Role> {
    let document: Value = serde_json::from_str(document).ok()?;
    Role::deserialize(document.get("role")?).ok()
}

/// YAML as Envoy reads it, anchors included.
fn parse(text: &str, path: &Path) -> Result<Value, BootstrapError> {
    serde_saphyr::from_str(text).map_err(|error| {
        let (position, problem) = not_yaml(text, &error);
        BootstrapError::Yaml { name: place(&path.display().to_string(), position), problem }
    })
}
