//! The workload's own sidecar as the gateway: one role, one region, one path.

use std::str::FromStr;

use filter_core::config::{Auth, Config, ConfigError, Credentials, Role};
use filter_core::policy::Policy;
use serde_json::{Value, json};

use super::{FIRST, MANAGER, Patch, ROUTER, filter_of};
use crate::bootstrap_error::BootstrapError;
use crate::check::is_digest;

/// The port of the ServiceEntries, and so of the sidecar's listener.
const PORT: u16 = 10000;
/// The namespace of the workloads, and the label of their pods.
const NAMESPACE: &str = "mission";
const LABEL: (&str, &str) = ("bedrock-gateway", "sidecar");

/// The module's image, by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    name: String,
    digest: String,
}

const PLUGIN: &str = "\
# The filter in the workload's sidecar, for Bedrock API keys: a WasmPlugin and nothing else. Made by
# `bedrock-gateway render istio --way plugin` of the document in envoy/standalone.yaml: `combined`, for one region over one path.
#
# Why API keys only: a signature covers the body, so a call is held until its body is hashed, and WasmPlugin has no
# `allow_on_headers_stop_iteration`, without which the body of a call that is held is never shown. With an API key, bodies
# stream through. For signatures take envoyfilter.yaml in the place of this file.
";

const FILTER: &str = "\
# The filter in the workload's sidecar, for signatures (temporary keys of the Commercial partition). Made by
# `bedrock-gateway render istio --way sidecar` of envoy/standalone.yaml, for one region over one path. For Bedrock API keys a WasmPlugin
# does (plugin.yaml), which this file takes the place of.
#
# The image must be readable without a pull secret: an EnvoyFilter would have to hold it in clear. Where it is not, mount the
# image in the pods (egress/gateway.yaml shows how) and say `code: { local: { filename: … } }`.
";

/// A document as the only role has it: for the environment's credentials, one region and one path.
fn document(config: Config, auth: Auth) -> Result<Config, ConfigError> {
    if config.credentials != (Credentials::Environment {}) || !config.credential_sets.is_empty() {
        let problem = "a sidecar has no cluster to fetch them from: want the source `environment` alone";
        return Err(ConfigError::new("credentials", problem));
    }
    let class = json!({ "name": "any", "paths": ["internet"] });
    let config = Config {
        role: Role::Combined,
        // The listener that streams pass a second time is the gateway's.
        stream_relay: None,
        auth: Some(auth),
        // The caller is the workload itself: it has no certificate to read, and no other caller to tell apart.
        principal: Vec::new(),
        // With an API key, bodies stream through, and a call that is known to be too long would be held (see `PLUGIN`): Bedrock
        // refuses it.
        max_body_bytes: if auth == Auth::Bearer { 1 << 30 } else { config.max_body_bytes },
        route_classes: serde_json::from_value(class).into_iter().collect(),
        ..config
    };
    Policy::compile(&config, None)?;
    Ok(config)
}

/// The WasmPlugin.
pub(super) fn plugin(config: Config, image: &Image) -> Result<String, ConfigError> {
    let (label, value) = LABEL;
    let spec = json!({
        "selector": { "matchLabels": { label: value } },
        "url": image.url(),
        "sha256": image.digest,
        "imagePullPolicy": "IfNotPresent",
        "imagePullSecret": "registry",
        "pluginName": "gateway",
        "failStrategy": "FAIL_RELOAD",
        "match": [{ "mode": "CLIENT", "ports": [{ "number": PORT }] }],
        "vmConfig": { "env": [{ "name": "AWS_BEARER_TOKEN_BEDROCK", "valueFrom": "HOST" }] },
        "pluginConfig": document(config, Auth::Bearer)?,
    });
    let why = [
        ("failStrategy", "After a crash, calls are refused for a second, then a new VM serves. Never past the filter."),
        ("imagePullSecret", "Of this namespace."),
        ("match", "Calls that leave the pod by the port of the ServiceEntries."),
        ("pluginConfig", "The rules; docs/configuration.md has every key."),
        ("vmConfig", "Of the proxy's own environment (workload.yaml), so that it stands in no configuration."),
    ];
    Ok(super::object(PLUGIN, ("extensions.istio.io/v1alpha1", "WasmPlugin", NAMESPACE), &spec, &why))
}

/// The EnvoyFilter: what the WasmPlugin says, and what it cannot.
pub(super) fn envoy_filter(
    config: Config,
    bootstrap: &Value,
    image: &Image,
) -> Result<Result<String, ConfigError>, BootstrapError> {
    let mut filter = filter_of(bootstrap, FIRST)?;
    let buffer = bootstrap
        .pointer("/static_resources/clusters/0/per_connection_buffer_limit_bytes")
        .cloned()
        .ok_or(BootstrapError::Missing("per_connection_buffer_limit_bytes in the first cluster"))?;
    let document = match document(config, Auth::Sigv4) {
        Ok(document) => document,
        Err(error) => return Ok(Err(error)),
    };
    if let Some(value) = filter.pointer_mut("/config/configuration/value") {
        *value = Value::String(document.to_json());
    }
    if let Some(code) = filter.pointer_mut("/config/vm_config/code") {
        let uri = json!({ "uri": image.url(), "timeout": "30s", "cluster": "_" });
        *code = json!({ "remote": { "http_uri": uri, "sha256": image.digest } });
    }
    let context = "SIDECAR_OUTBOUND";
    let listener = json!({ "context": context, "listener": { "portNumber": PORT } });
    let router = json!({ "context": context, "listener": {
        "portNumber": PORT,
        "filterChain": { "filter": { "name": MANAGER, "subFilter": { "name": ROUTER } } },
    } });
    let mut found_by_name = json!({ "name": FIRST, "config_discovery": {
        "config_source": {}, "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"],
    } });
    super::from_istiod(&mut found_by_name);
    let patches = [
        Patch::new(
            "A call is held until its body is hashed: as much as `max_body_bytes` and more.",
            "LISTENER",
            listener,
            ("MERGE", json!({ "per_connection_buffer_limit_bytes": buffer })),
        ),
        Patch::new(
            "Last before the router: what the filter has signed, nothing changes.",
            "HTTP_FILTER",
            router,
            ("INSERT_BEFORE", found_by_name),
        ),
        Patch::new(
            "The module, which Istio's agent fetches by its digest.",
            "EXTENSION_CONFIG",
            json!({ "context": context }),
            ("ADD", json!({ "name": FIRST, "typed_config": filter })),
        ),
    ];
    Ok(Ok(super::text(FILTER, NAMESPACE, LABEL, &patches)))
}

// === impl Image ===

impl Image {
    fn url(&self) -> String {
        format!("oci://{}@sha256:{}", self.name, self.digest)
    }
}

impl Default for Image {
    /// Of no digest that exists, so that nothing runs by mistake.
    fn default() -> Self {
        Self { name: "registry.example/bedrock-gateway/filter".to_owned(), digest: "0".repeat(64) }
    }
}

impl FromStr for Image {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, digest) = text.split_once("@sha256:").ok_or("want REGISTRY/NAME@sha256:DIGEST")?;
        if name.is_empty() || name.contains("://") {
            return Err("want REGISTRY/NAME before the digest, without a scheme");
        }
        if !is_digest(digest) {
            return Err("a digest has 64 digits, 0 to 9 and a to f");
        }
        Ok(Self { name: name.to_owned(), digest: digest.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_with_its_digest() {
        let digest = "0123456789abcdef".repeat(4);
        let image: Image = format!("registry.example:5000/filter@sha256:{digest}").parse().unwrap();
        assert_eq!(image.url(), format!("oci://registry.example:5000/filter@sha256:{digest}"));
        for (text, part) in [
            ("registry.example/filter:1.0", "want REGISTRY/NAME@sha256:DIGEST"),
            ("oci://registry.example/filter@sha256:00", "without a scheme"),
            ("registry.example/filter@sha256:00", "64 digits"),
        ] {
            assert!(text.parse::<Image>().unwrap_err().contains(part), "{text}");
        }
    }
}
