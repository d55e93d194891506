//! The gateway in a workload's sidecar: role `combined`, one region, one path.

use std::str::FromStr;

use filter_core::config::{AuditMode, Auth, Config, ConfigError, Credentials, Resolve, Role};
use filter_core::policy::Policy;
use serde_json::{Value, json};

use super::{GATEWAY_FILTER, MANAGER, Patch, ROUTER, filter_of};
use crate::bootstrap_error::BootstrapError;
use crate::check::is_digest;

/// The port of the ServiceEntries and of the sidecar's listener.
const PORT: u16 = 10000;
/// Namespace and label of the workloads' pods.
const NAMESPACE: &str = "mission";
const LABEL: (&str, &str) = ("bedrock-gateway", "sidecar");

/// The module's image, with its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    name: String,
    digest: String,
}

const PLUGIN: &str = "\
# The filter in a workload's sidecar, for Bedrock API keys: role `combined`, for one region over one path.
# `bedrock-gateway render istio --target plugin` generates this file from the document in envoy/standalone.yaml.
#
# API keys only: a signature covers the body, so the filter must hold a call until the body is hashed. WasmPlugin has no
# `allow_on_headers_stop_iteration`, without which Envoy does not pass the body of a held call. With an API key, bodies
# stream through. For signatures use envoyfilter.yaml instead of this file.
";

const FILTER: &str = "\
# The filter in a workload's sidecar, for signatures (temporary keys of the Commercial partition): for one region over one path.
# `bedrock-gateway render istio --target sidecar` generates this file from envoy/standalone.yaml. For Bedrock API keys use plugin.yaml
# instead of this file.
#
# The image must be readable without a pull secret, because an EnvoyFilter would contain it in clear text. Otherwise,
# mount the image in the pods (as in egress/gateway.yaml) and set `code: { local: { filename: … } }`.
";

/// The document for role `combined`: credentials from the environment, one region and one path.
fn document(config: Config, auth: Auth) -> Result<Config, ConfigError> {
    if config.credentials != (Credentials::Environment {}) || !config.credential_sets.is_empty() {
        let problem = "a sidecar has no cluster to fetch them from: want the source `environment` alone";
        return Err(ConfigError::new("credentials", problem));
    }
    if let Some(index) = config.route_classes.iter().position(|class| class.audit == AuditMode::Required) {
        let problem = "a sidecar has no collector that could record a call before it leaves: leave the key out";
        return Err(ConfigError::new(format!("route_classes[{index}].audit"), problem));
    }
    let class = json!({ "name": "any", "paths": ["internet"] });
    let config = Config {
        role: Role::Combined,
        // A sidecar has no internal listener.
        stream_relay: None,
        envoy_hashes_body_bytes: None,
        catalogue: None,
        data_retention: None,
        resolve: config.resolve.filter(|resolve| !resolve.runs.is_empty()).map(|resolve| Resolve {
            refresh_seconds: 0,
            cluster: None,
            ..resolve
        }),
        auth: Some(auth),
        audit: None,
        // The only caller is the workload itself, without a certificate.
        principal: Vec::new(),
        // With an API key, bodies stream through. To refuse a long body the filter would hold the call, which would
        // hang (see `PLUGIN`); Bedrock refuses it instead.
        max_body_bytes: if auth == Auth::Bearer { 1 << 30 } else { config.max_body_bytes },
        route_classes: serde_json::from_value(class).into_iter().collect(),
        ..config
    };
    Policy::compile(&config, None)?;
    Ok(config)
}

/// Renders the WasmPlugin.
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
        (
            "failStrategy",
            "After a crash of the VM, Envoy closes connections for a second, then starts a new VM. No call bypasses the filter.",
        ),
        ("imagePullSecret", "A secret of this namespace."),
        ("match", "Outbound calls to the port of the ServiceEntries."),
        ("pluginConfig", "The filter's document; docs/configuration.md describes every key."),
        (
            "vmConfig",
            "Read from the proxy's environment (workload.yaml), so that the key is not part of a configuration.",
        ),
    ];
    Ok(super::object(PLUGIN, ("extensions.istio.io/v1alpha1", "WasmPlugin", NAMESPACE), &spec, &why))
}

/// Renders the EnvoyFilter.
pub(super) fn envoy_filter(
    config: Config,
    bootstrap: &Value,
    image: &Image,
) -> Result<Result<String, ConfigError>, BootstrapError> {
    let mut filter = filter_of(bootstrap, GATEWAY_FILTER)?;
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
    let mut found_by_name = json!({ "name": GATEWAY_FILTER, "config_discovery": {
        "config_source": {}, "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"],
    } });
    super::discover_from_istiod(&mut found_by_name);
    let patches = [
        Patch::new(
            "The filter holds a call until its body is hashed: not less than `max_body_bytes`.",
            "LISTENER",
            listener,
            ("MERGE", json!({ "per_connection_buffer_limit_bytes": buffer })),
        ),
        Patch::new(
            "The last filter before the router, so that no other filter changes a signed call.",
            "HTTP_FILTER",
            router,
            ("INSERT_BEFORE", found_by_name),
        ),
        Patch::new(
            "The module. Istio's agent fetches the image and verifies the digest.",
            "EXTENSION_CONFIG",
            json!({ "context": context }),
            ("ADD", json!({ "name": GATEWAY_FILTER, "typed_config": filter })),
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
    /// A digest that matches no image, so that nothing runs by mistake.
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
