//! The configuration that istiod makes of this project's files for a proxy, as far as the calls need it; [`patch`](super::patch)
//! applies EnvoyFilters and plugins to it.
//!
//! The tests have no istiod, so this is written by hand after its code (pilot/pkg/networking/core: `listener_builder.go`,
//! `gateway.go`, `route/route.go`, `envoyfilter/*_patch.go`; pkg/proto/merge). It does not prove that istiod does the same. Left
//! out are the filters that stock Envoy does not have (`istio.stats`, `istio.alpn`, metadata exchange) and discovery of routes, which
//! are in their listener; certificates are files.

use std::path::Path;

use serde_json::{Map, Value, json};

pub(super) const MANAGER: &str = "envoy.filters.network.http_connection_manager";
pub(super) const EXTENSION: &str = "type.googleapis.com/envoy.extensions.filters";

/// A proxy's listener, routes and clusters before and after patches.
#[derive(Debug)]
pub(super) struct Proxy {
    pub context: &'static str,
    /// The name by which istiod would serve the routes.
    pub route_name: String,
    pub port: u64,
    pub listener: Value,
    /// Listeners of patches.
    pub added: Vec<Value>,
    pub clusters: Vec<Value>,
    /// Extension configurations, by name.
    pub extensions: Vec<Value>,
}

/// Files of the mesh's certificates.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub certificate: String,
    pub key: String,
    pub ca: String,
}

/// The objects of a file.
pub(super) fn objects(file: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Vec<String> {
    list(value).filter_map(Value::as_str).map(str::to_owned).collect()
}

// === listeners ===

/// A gateway's, for its one HTTPS server.
pub(super) fn gateway(objects: &[Value], identity: &Identity) -> Proxy {
    let gateway = of_kind(objects, "Gateway").next().unwrap();
    let server = &gateway["spec"]["servers"][0];
    assert_eq!((&server["port"]["protocol"], &server["tls"]["mode"]), (&json!("HTTPS"), &json!("ISTIO_MUTUAL")));
    let port = server["port"]["number"].as_u64().unwrap();
    let namespace = gateway["metadata"]["namespace"].as_str().unwrap();
    let name = gateway["metadata"]["name"].as_str().unwrap();
    let hosts: Vec<String> =
        texts(&server["hosts"]).iter().map(|host| host.trim_start_matches("./").to_owned()).collect();
    let is_bound = |service: &Value| texts(&service["spec"]["gateways"]).iter().any(|known| known == name);
    let services: Vec<&Value> = of_kind(objects, "VirtualService").filter(|service| is_bound(service)).collect();
    let routes = virtual_hosts(&services, name, port, true);
    let mut manager = manager(routes, authorization(objects, &gateway["spec"]["selector"]), false);
    manager["use_remote_address"] = json!(true);
    manager["server_name"] = json!("istio-envoy");
    manager["forward_client_cert_details"] = json!("SANITIZE_SET");
    manager["set_current_client_cert_details"] = json!({ "subject": true, "cert": true, "dns": true, "uri": true });
    let listener = json!({
        "name": format!("0.0.0.0_{port}"),
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": port } },
        "traffic_direction": "OUTBOUND",
        "listener_filters": [{ "name": "envoy.filters.listener.tls_inspector", "typed_config": {
            "@type": format!("{EXTENSION}.listener.tls_inspector.v3.TlsInspector"),
        } }],
        "filter_chains": [{
            "filter_chain_match": { "server_names": hosts },
            "filters": [{ "name": MANAGER, "typed_config": manager }],
            "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": tls(identity, &["h2", "http/1.1"], json!({})),
            } },
        }],
    });
    let route_name = format!("https.{port}.https.{name}.{namespace}");
    // Every proxy has this filter.
    let nowhere = json!({ "name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "10s" });
    Proxy {
        context: "GATEWAY",
        route_name,
        port,
        listener,
        added: Vec::new(),
        clusters: vec![nowhere],
        extensions: Vec::new(),
    }
}

/// A sidecar's listener for calls that leave by `port`; `pod` is the workload's template, whose annotations change it.
pub(super) fn sidecar(objects: &[Value], port: u64, pod: Option<&Value>) -> Proxy {
    let annotation = pod.and_then(|pod| pod["metadata"]["annotations"]["proxy.istio.io/config"].as_str());
    let own: Value = annotation.map_or(Value::Null, |text| serde_saphyr::from_str(text).unwrap());
    let is_off = |name: &str| own["proxyHeaders"][name]["disabled"] == json!(true);
    let in_mesh = |service: &Value| {
        let gateways = texts(&service["spec"]["gateways"]);
        gateways.is_empty() || gateways.iter().any(|name| name == "mesh")
    };
    let services: Vec<&Value> = of_kind(objects, "VirtualService").filter(|service| in_mesh(service)).collect();
    let routes = virtual_hosts(&services, "mesh", port, !is_off("attemptCount"));
    let mut manager = manager(routes, Vec::new(), is_off("envoyDebugHeaders"));
    manager["use_remote_address"] = json!(false);
    let listener = json!({
        "name": format!("0.0.0.0_{port}"),
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": port } },
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{ "filters": [{ "name": MANAGER, "typed_config": manager }] }],
    });
    let context = "SIDECAR_OUTBOUND";
    Proxy {
        context,
        route_name: port.to_string(),
        port,
        listener,
        added: Vec::new(),
        clusters: Vec::new(),
        extensions: Vec::new(),
    }
}

/// The connection manager of all of them.
fn manager(virtual_hosts: Vec<Value>, authorization: Vec<Value>, is_quiet: bool) -> Value {
    let filter = |name: &str, kind: &str| json!({ "name": name, "typed_config": { "@type": format!("{EXTENSION}.http.{kind}") } });
    let mut filters = authorization;
    filters.push(filter("envoy.filters.http.grpc_stats", "grpc_stats.v3.FilterConfig"));
    filters.push(filter("envoy.filters.http.fault", "fault.v3.HTTPFault"));
    filters.push(filter("envoy.filters.http.cors", "cors.v3.Cors"));
    let mut router = filter("envoy.filters.http.router", "router.v3.Router");
    if is_quiet {
        router["typed_config"]["suppress_envoy_headers"] = json!(true);
    }
    filters.push(router);
    json!({
        "@type": format!("{EXTENSION}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "outbound",
        "normalize_path": true,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "http_protocol_options": {},
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "stream_idle_timeout": "0s",
        "request_id_extension": { "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
            "use_request_id_for_trace_sampling": true,
        } },
        "http_filters": filters,
        "route_config": { "name": "routes", "virtual_hosts": virtual_hosts, "validate_clusters": false },
    })
}

/// AuthorizationPolicies of pods with these labels, each as an RBAC filter.
fn authorization(objects: &[Value], labels: &Value) -> Vec<Value> {
    let policies = of_kind(objects, "AuthorizationPolicy")
        .filter(|policy| policy["spec"]["selector"]["matchLabels"] == *labels && policy["spec"]["action"] == "ALLOW");
    policies
        .map(|policy| {
            let rules: Map<String, Value> = list(&policy["spec"]["rules"])
                .enumerate()
                .map(|(number, rule)| {
                    let namespaces = list(&rule["from"]).flat_map(|from| texts(&from["source"]["namespaces"]));
                    let principals: Vec<Value> = namespaces
                        .map(|name| {
                            json!({ "authenticated": { "principal_name": {
                        "safe_regex": { "regex": format!("spiffe://.*/ns/{name}/.*") },
                    } } })
                        })
                        .collect();
                    let ports = list(&rule["to"]).flat_map(|to| texts(&to["operation"]["ports"]));
                    // The ports are the test's.
                    assert!(ports.count() == 1);
                    (number.to_string(), json!({ "permissions": [{ "any": true }], "principals": principals }))
                })
                .collect();
            json!({ "name": "envoy.filters.http.rbac", "typed_config": {
                "@type": format!("{EXTENSION}.http.rbac.v3.RBAC"), "rules": { "action": "ALLOW", "policies": rules },
            } })
        })
        .collect()
}

// === routes ===

fn virtual_hosts(services: &[&Value], gateway: &str, port: u64, counts: bool) -> Vec<Value> {
    let mut hosts = Vec::new();
    for service in services {
        let routes: Vec<Value> = list(&service["spec"]["http"]).filter_map(|http| route(http, gateway, port)).collect();
        for host in texts(&service["spec"]["hosts"]) {
            hosts.push(json!({
                "name": format!("{host}:{port}"),
                "domains": [host, format!("{host}:*")],
                "include_request_attempt_count": counts,
                "routes": routes,
            }));
        }
    }
    hosts
}

/// An `http` rule, where it is for this gateway and port.
fn route(http: &Value, gateway: &str, port: u64) -> Option<Value> {
    let mut matched = json!({ "prefix": "/" });
    assert!(http["match"].as_array().is_none_or(|all| all.len() == 1));
    if let Some(rule) = list(&http["match"]).next() {
        let gateways = texts(&rule["gateways"]);
        let is_here = gateways.is_empty() || gateways.iter().any(|name| name == gateway);
        if !is_here || rule["port"].as_u64().is_some_and(|own| own != port) {
            return None;
        }
        let headers: Vec<Value> = rule["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| json!({ "name": name, "string_match": value }))
            .collect();
        if !headers.is_empty() {
            matched["headers"] = json!(headers);
        }
    }
    let mut route = json!({ "name": http["name"], "match": matched });
    for (side, name) in [("request", "request"), ("response", "response")] {
        let headers = &http["headers"][side];
        let removed = texts(&headers["remove"]);
        if !removed.is_empty() {
            route[format!("{name}_headers_to_remove")] = json!(removed);
        }
        let set: Vec<Value> = headers["set"].as_object().into_iter().flatten()
            .map(|(key, value)| json!({ "header": { "key": key, "value": value }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }))
            .collect();
        if !set.is_empty() {
            route[format!("{name}_headers_to_add")] = json!(set);
        }
    }
    if let Some(direct) = http.get("directResponse") {
        route["direct_response"] =
            json!({ "status": direct["status"], "body": { "inline_string": direct["body"]["string"] } });
        return Some(route);
    }
    let destination = &http["route"][0]["destination"];
    let cluster = cluster_name(destination["host"].as_str().unwrap(), destination["port"]["number"].as_u64().unwrap());
    route["route"] = json!({ "cluster": cluster, "timeout": http["timeout"] });
    if http["retries"]["attempts"].as_u64().is_some_and(|attempts| attempts > 0) {
        route["route"]["retry_policy"] = json!({
            "num_retries": http["retries"]["attempts"],
            "retry_on": http["retries"]["retryOn"],
            "retry_host_predicate": [{ "name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            } }],
            "host_selection_retry_max_attempts": 5,
        });
    }
    Some(route)
}

// === clusters ===

fn cluster_name(host: &str, port: u64) -> String {
    format!("outbound|{port}||{host}")
}

/// The cluster of a host, reached at `address`, with the TLS of its DestinationRule.
pub(super) fn cluster(
    objects: &[Value],
    (host, port): (&str, u64),
    address: std::net::SocketAddr,
    identity: &Identity,
) -> Value {
    let rule = of_kind(objects, "DestinationRule").find(|rule| rule["spec"]["host"] == host);
    let policy = &rule.unwrap_or_else(|| panic!("no DestinationRule for {host}"))["spec"]["trafficPolicy"];
    let name = cluster_name(host, port);
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } },
        } }] }] },
    });
    let keepalive = &policy["connectionPool"]["tcp"]["tcpKeepalive"];
    let seconds = |name: &str| keepalive[name].as_str().unwrap().strip_suffix('s').unwrap().parse::<u64>().unwrap();
    cluster["upstream_connection_options"] = json!({ "tcp_keepalive": {
        "keepalive_probes": keepalive["probes"], "keepalive_time": seconds("time"), "keepalive_interval": seconds("interval"),
    } });
    let mut alpn = vec![];
    if policy["connectionPool"]["http"]["h2UpgradePolicy"] == "UPGRADE" {
        alpn.push("h2");
        cluster["typed_extension_protocol_options"] = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        } });
    }
    let mutual = match policy["tls"]["mode"].as_str() {
        Some("ISTIO_MUTUAL") => true,
        Some("SIMPLE") => false,
        other => panic!("{host}: {other:?}"),
    };
    let names: Vec<Value> = texts(&policy["tls"]["subjectAltNames"])
        .iter()
        .map(|name| json!({ "san_type": "DNS", "matcher": { "exact": name } }))
        .collect();
    assert_eq!(names.is_empty(), mutual, "{host}: Bedrock's name is checked, the mesh checks its own");
    let mut common =
        tls(identity, &alpn, if mutual { json!({}) } else { json!({ "match_typed_subject_alt_names": names }) });
    if !mutual {
        common.as_object_mut().unwrap().remove("tls_certificates");
    }
    cluster["transport_socket"] = json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": policy["tls"]["sni"],
        "common_tls_context": common,
    } });
    cluster
}

fn tls(identity: &Identity, alpn: &[&str], mut validation: Value) -> Value {
    validation["trusted_ca"] = json!({ "filename": identity.ca });
    let mut context = json!({
        "tls_certificates": [{ "certificate_chain": { "filename": identity.certificate }, "private_key": { "filename": identity.key } }],
        "validation_context": validation,
    });
    if !alpn.is_empty() {
        context["alpn_protocols"] = json!(alpn);
    }
    context
}
