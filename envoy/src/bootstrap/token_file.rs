//! A token's file for the filter, which has no files: an internal listener that answers with it, and its cluster.
//!
//! Envoy reads the file again when the kubelet swaps the link `..data` in its directory. The token is in none of Envoy's
//! logs and on none of its pages. Only workers can connect to an internal listener, not Envoy's main thread
//! (`SharedCredentials::hand_over`).

use std::path::Path;

use serde_json::{Value, json};

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
/// Longest file, in bytes; Envoy's default is 4096. It is the limit of AssumeRoleWithWebIdentity for tokens.
const MAX_TOKEN: u32 = 20_000;

/// The cluster that leads to the listener of the same name.
pub(super) fn cluster(name: &str) -> Value {
    let address = json!({ "envoy_internal_address": { "server_listener_name": name, "endpoint_id": name } });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}

/// A listener that only this Envoy can connect to. `file` is absolute.
pub(super) fn listener(name: &str, file: &str) -> Value {
    let directory = Path::new(file).parent().unwrap_or(Path::new("/"));
    let body = json!({ "filename": file, "watched_directory": { "path": directory } });
    let manager = json!({
        "@type": MANAGER,
        "stat_prefix": name,
        "codec_type": "HTTP1",
        "generate_request_id": false,
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "10s",
        "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": { "@type": ROUTER } }],
        "route_config": {
            "name": name,
            "max_direct_response_body_size_bytes": MAX_TOKEN,
            "virtual_hosts": [{
                "name": name,
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "direct_response": { "status": 200, "body": body } }],
            }],
        },
    });
    json!({
        "name": name,
        "internal_listener": {},
        // A connection is made for each fetch; clients must not keep it from being made.
        "ignore_global_conn_limit": true,
        "filter_chains": [{
            "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }],
        }],
    })
}

/// Whether a listener is one of [`listener`].
pub(crate) fn is_listener(listener: &Value) -> bool {
    let routes = listener.pointer("/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes");
    routes.is_some_and(|routes| routes.pointer("/0/direct_response/body/watched_directory").is_some())
}
