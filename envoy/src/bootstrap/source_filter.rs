//! The filter in the upstream chain of a cluster that credentials are fetched from. At debug Envoy's router logs the headers of
//! the calls that it sees; those that carry tokens and signatures are added behind it, by this filter.

use filter_core::config::SourceCluster;
use serde_json::{Map, Value, json};

use crate::objects::plugins;

const NAME: &str = "bedrock.source";
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const TEXT: &str = "type.googleapis.com/google.protobuf.StringValue";
const CODEC: &str = "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";
const KEY: &str = "typed_extension_protocol_options";
const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const OPTIONS_TYPE: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Older fields of a cluster, which Envoy ignores where `HttpProtocolOptions` is set.
const OLDER: [&str; 5] = [
    "common_http_protocol_options",
    "http_protocol_options",
    "http2_protocol_options",
    "upstream_http_protocol_options",
    "protocol_selection",
];

/// Adds the filter to a cluster, unless it has it. A cluster whose protocol is set by older fields stays as it is.
pub(super) fn add(cluster: &mut Map<String, Value>, name: &str, vm: &Value) {
    let older = OLDER.iter().any(|key| cluster.contains_key(*key));
    let options = cluster.entry(KEY).or_insert_with(|| json!({}));
    let Some(options) = options.as_object_mut() else { return };
    if !options.contains_key(OPTIONS) {
        if older {
            return;
        }
        let http1 = json!({ "@type": OPTIONS_TYPE, "explicit_http_config": { "http_protocol_options": {} } });
        options.insert(OPTIONS.into(), http1);
    }
    let Some(options) = options.get_mut(OPTIONS).and_then(Value::as_object_mut) else { return };
    let codec = json!([{ "name": "envoy.filters.http.upstream_codec", "typed_config": { "@type": CODEC } }]);
    let filters = options.entry("http_filters").or_insert(codec);
    let has_filter = plugins(filters).into_iter().any(|text| SourceCluster::parse(text.as_bytes()).is_some());
    if let (false, Some(filters)) = (has_filter, filters.as_array_mut()) {
        filters.insert(0, filter(name, vm));
    }
}

/// The VM of the filter: with the id and code of the gateway's, for shared data, but another VM. Envoy enters it while the
/// gateway's makes the call.
pub(crate) fn machine(gateways: &Value) -> Value {
    let mut vm = gateways.clone();
    if let Some(vm) = vm.as_object_mut() {
        vm.remove("environment_variables");
        vm.insert("configuration".into(), json!({ "@type": TEXT, "value": "source" }));
    }
    vm
}

fn filter(cluster: &str, vm: &Value) -> Value {
    let document = SourceCluster { source_cluster: cluster.to_owned() }.to_json();
    json!({
        "name": NAME,
        "typed_config": {
            "@type": WASM,
            "config": {
                "name": NAME,
                "root_id": "source",
                "failure_policy": "FAIL_RELOAD",
                "allow_on_headers_stop_iteration": true,
                "vm_config": machine(vm),
                "configuration": { "@type": TEXT, "value": document },
            },
        },
    })
}

/// The cluster that the filter in a cluster names.
pub(crate) fn named(cluster: &Value) -> Option<String> {
    let filters = cluster.get(KEY)?.get(OPTIONS)?.get("http_filters")?;
    plugins(filters)
        .into_iter()
        .find_map(|text| SourceCluster::parse(text.as_bytes())?.ok())
        .map(|it| it.source_cluster)
}

/// The filter's document in a plugin's configuration.
pub(crate) fn document(plugin: &Value) -> Option<SourceCluster> {
    let text = plugin.get("vm_config").and(plugin.pointer("/configuration/value"))?.as_str()?;
    SourceCluster::parse(text.as_bytes())?.ok()
}
