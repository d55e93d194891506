//! Endpoints of Envoy's clusters. Source: `envoy.config.endpoint.v3`.

use serde_json::{Value, json};

/// An endpoint of verified TLS: calls and health checks name its host.
pub(super) fn verified(host: &str, address: &str, port: u16) -> Value {
    json!({
        "hostname": host,
        "health_check_config": { "hostname": host },
        "address": { "socket_address": socket_address(address, port) },
    })
}

/// An endpoint without TLS.
pub(super) fn plain(address: &str, port: u16) -> Value {
    json!({ "address": { "socket_address": socket_address(address, port) } })
}

/// A TCP address; `address` is an IP address, or a name that Envoy resolves.
pub(super) fn socket_address(address: &str, port: u16) -> Value {
    json!({ "address": address, "port_value": port })
}
