//! The filter `bedrock.hash`: without it, the signer refuses calls whose bodies it should hash.

use filter_core::config::{Config, Role};
use serde_json::Value;

use super::values::visit_objects;
use super::{At, Fault};
use crate::base::{HASH_FILTER, role_of};
use crate::objects;

/// The HTTP filters of each listener: where the gateway role is, and Envoy is to hash, the filter follows.
pub(super) fn filters(at: &At<'_>, bootstrap: &Value, config: &Config, found: &mut Vec<Fault>) {
    let Some(listeners) = bootstrap.pointer("/static_resources/listeners") else { return };
    if config.envoy_hashes_body_bytes.is_none() {
        return;
    }
    visit_objects("static_resources.listeners", listeners, &mut |key, value| {
        let Some(filters) = value.get("http_filters").and_then(Value::as_array) else { return };
        let is_gateway =
            |filter: &Value| objects::plugins(filter).into_iter().any(|text| role_of(text) == Some(Role::Gateway));
        let Some(gateway) = filters.iter().position(is_gateway) else { return };
        let hash = filters.iter().position(|filter| filter.get("name").is_some_and(|name| name == HASH_FILTER));
        if hash.is_none_or(|hash| hash < gateway) {
            let problem = format!(
                "no filter {HASH_FILTER} after the gateway's: calls with bodies of `envoy_hashes_body_bytes` would be refused; \
                 envoy/base.yaml has it, or leave the key out"
            );
            found.push(at.fault(&format!("{key}.http_filters"), problem));
        }
    });
}
