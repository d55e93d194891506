//! What EnvoyFilters, WasmPlugins and Telemetries change in a proxy's configuration, as istiod applies them.

use serde_json::{Value, json};

use super::proxy::{EXTENSION, MANAGER, Proxy, list};

impl Proxy {
    /// Applies an EnvoyFilter as istiod does. Every patch must find its place.
    pub(super) fn apply(&mut self, filter: &Value) {
        for patch in list(&filter["spec"]["configPatches"]) {
            let places = self.patch(patch);
            assert!(places > 0, "a patch that fits nowhere: {:#}", patch["match"]);
        }
    }

    fn patch(&mut self, patch: &Value) -> usize {
        let (matched, operation) = (&patch["match"], patch["patch"]["operation"].as_str().unwrap());
        let value = &patch["patch"]["value"];
        let listener = &matched["listener"];
        let is_here =
            matched["context"] == self.context && listener["portNumber"].as_u64().is_none_or(|port| port == self.port);
        if !is_here {
            return 0;
        }
        let named = listener["filterChain"]["filter"]["name"].as_str();
        let fits = named.is_none_or(|name| name == MANAGER);
        match patch["applyTo"].as_str().unwrap() {
            "LISTENER" if operation == "MERGE" => {
                merge(&mut self.listener, value);
                1
            }
            "LISTENER" if operation == "ADD" => {
                self.added.push(value.clone());
                1
            }
            "NETWORK_FILTER" if operation == "MERGE" && fits => {
                let at = self.manager_place();
                merge(&mut self.listener["filter_chains"][0]["filters"][at], value);
                1
            }
            "NETWORK_FILTER" if operation == "INSERT_BEFORE" && fits => {
                let at = self.manager_place();
                self.listener["filter_chains"][0]["filters"].as_array_mut().unwrap().insert(at, value.clone());
                1
            }
            "HTTP_FILTER" if fits => {
                let name = listener["filterChain"]["filter"]["subFilter"]["name"].as_str().unwrap();
                let filters = self.manager()["http_filters"].as_array_mut().unwrap();
                let Some(at) = filters.iter().position(|filter| filter["name"] == name) else { return 0 };
                match operation {
                    "INSERT_BEFORE" => filters.insert(at, value.clone()),
                    "MERGE" => merge(&mut filters[at], value),
                    other => panic!("{other}"),
                }
                1
            }
            "HTTP_ROUTE" if operation == "INSERT_BEFORE" && self.is_own(&matched["routeConfiguration"]) => {
                let before = &matched["routeConfiguration"]["vhost"]["route"]["name"];
                let hosts = self.manager()["route_config"]["virtual_hosts"].as_array_mut().unwrap();
                let mut places = 0;
                for routes in hosts.iter_mut().map(|host| host["routes"].as_array_mut().unwrap()) {
                    if let Some(at) = routes.iter().position(|route| route["name"] == *before) {
                        routes.insert(at, value.clone());
                        places += 1;
                    }
                }
                places
            }
            "VIRTUAL_HOST" if operation == "ADD" && self.is_own(&matched["routeConfiguration"]) => {
                self.manager()["route_config"]["virtual_hosts"].as_array_mut().unwrap().push(value.clone());
                1
            }
            "CLUSTER" if operation == "ADD" => {
                self.clusters.push(value.clone());
                1
            }
            "EXTENSION_CONFIG" if operation == "ADD" => {
                self.extensions.push(value.clone());
                1
            }
            other => panic!("{other} {operation}"),
        }
    }

    /// A WasmPlugin as istiod makes it: found by name, before the filters that follow authorization.
    pub(super) fn plug(&mut self, plugin: &Value) {
        let spec = &plugin["spec"];
        let here = list(&spec["match"]).any(|matched| {
            matched["mode"] == "CLIENT"
                && list(&matched["ports"]).any(|port| port["number"].as_u64() == Some(self.port))
        });
        assert!(here, "{:#}", spec["match"]);
        let name = format!(
            "{}.{}",
            plugin["metadata"]["namespace"].as_str().unwrap(),
            plugin["metadata"]["name"].as_str().unwrap()
        );
        let hosts: Vec<&Value> = list(&spec["vmConfig"]["env"])
            .filter(|variable| variable["valueFrom"] == "HOST")
            .map(|variable| &variable["name"])
            .collect();
        self.extensions.push(json!({ "name": name, "typed_config": {
            "@type": format!("{EXTENSION}.http.wasm.v3.Wasm"),
            "config": {
                "name": name,
                "root_id": spec["pluginName"],
                "failure_policy": match spec["failStrategy"].as_str() { Some("FAIL_RELOAD") => "FAIL_RELOAD", other => panic!("{other:?}") },
                "vm_config": {
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "remote": { "http_uri": { "uri": spec["url"], "timeout": "30s", "cluster": "_" }, "sha256": spec["sha256"] } },
                    "environment_variables": { "host_env_keys": hosts, "key_values": {} },
                },
                "configuration": { "@type": "type.googleapis.com/google.protobuf.StringValue", "value": spec["pluginConfig"].to_string() },
            },
        } }));
        let filter = json!({ "name": name, "config_discovery": {
            "config_source": { "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" },
            "type_urls": [format!("{EXTENSION}.http.wasm.v3.Wasm")],
        } });
        self.manager()["http_filters"].as_array_mut().unwrap().insert(0, filter);
    }

    /// A Telemetry's access log; its provider is a file in the form of the audit log.
    pub(super) fn log(&mut self, telemetry: &Value) {
        let logging = &telemetry["spec"]["accessLogging"][0];
        assert_eq!((&logging["match"]["mode"], self.context), (&json!("CLIENT"), "SIDECAR_OUTBOUND"));
        self.manager()["access_log"] = json!([{
            "name": "envoy.access_loggers.file",
            "filter": { "extension_filter": {
                "name": "envoy.access_loggers.extension_filters.cel",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                    "expression": logging["filter"]["expression"],
                },
            } },
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": "/var/log/bedrock-gateway/access.jsonl",
                "log_format": { "json_format": {
                    "exchange": "%FILTER_STATE(wasm.bedrock.exchange:PLAIN)%",
                    "attempt": "%FILTER_STATE(wasm.bedrock.attempt:PLAIN)%",
                } },
            },
        }]);
    }

    pub(super) fn manager(&mut self) -> &mut Value {
        let at = self.manager_place();
        &mut self.listener["filter_chains"][0]["filters"][at]["typed_config"]
    }

    /// The connection manager's place among the network filters.
    fn manager_place(&self) -> usize {
        list(&self.listener["filter_chains"][0]["filters"]).position(|filter| filter["name"] == MANAGER).unwrap()
    }

    /// Whether a match names this proxy's routes: by `NAMESPACE/NAME` of the Gateway, which istiod reads from their name.
    fn is_own(&self, matched: &Value) -> bool {
        let parts: Vec<&str> = self.route_name.splitn(5, '.').collect();
        matched["gateway"] == format!("{}/{}", parts[4], parts[3])
    }
}

/// istiod's merge: messages are merged, lists grow, and what is at its default in the patch is not seen at all.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                match into.get_mut(name) {
                    Some(known) => merge(known, value),
                    None => drop(into.insert(name.clone(), value.clone())),
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => {
            let is_default = [json!(false), json!(0), json!("")].contains(from);
            assert!(!is_default, "a merge that changes nothing: {from}");
            *into = from.clone();
        }
    }
}
