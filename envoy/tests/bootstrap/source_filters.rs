//! The filter that keeps the headers of calls for credentials out of Envoy's log.

use std::path::Path;

use bedrock_gateway::base::Base;
use bedrock_gateway::bootstrap::{self, discovery, sources};
use bedrock_gateway::document::{Choices, Written};
use bedrock_gateway::istio;
use filter_core::config::Auth;
use serde_json::{Value, json};

use super::{base, cluster, settings};

const OPTIONS: &str = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn render(base: &Base) -> Value {
    let commercial = json!({ "cluster": "sts-commercial", "region": "us-east-1" });
    let imds = json!({ "source": "imds", "cluster": "imds" });
    let role_arn = "arn:aws:iam::111122223333:role/bedrock-gateway";
    let document = json!({
        "regions": { "us-east-1": {} },
        "route_classes": [{ "name": "any", "paths": ["internet"] }],
        "credentials": {
            "source": "federation", "using": imds, "govcloud": { "cluster": "sts", "region": "us-gov-west-1" },
            "commercial": commercial, "audience": "a", "role_arn": role_arn,
        },
        "credential_sets": {
            "local": imds,
            "pod": {
                "source": "web_identity", "token": { "cluster": "token", "file": "/t/token" },
                "commercial": commercial, "role_arn": role_arn,
            },
        },
    });
    let settings = settings(&["internet"]);
    let choices =
        Choices { auth: Auth::Sigv4, fips: false, regions: Vec::new(), paths: None, audited: false, desk: None };
    let written = Written::in_file(Path::new("policy.json"), &document.to_string(), base).unwrap();
    let document = written.compile(&choices).unwrap();
    let mut config = bootstrap::render(base, &settings, &document).unwrap();
    sources::add(&mut config, base, &document, &settings).unwrap();
    config
}

/// The base with the cluster `imds`, which has more keys.
fn base_with(more: &str) -> Base {
    let imds = format!("  clusters:\n    - {{ name: imds, connect_timeout: 1s, {more} }}\n");
    let text = bedrock_gateway::base::BASE.replace("  clusters:\n", &imds);
    Base::parse(&text, Path::new("base.yaml")).unwrap()
}

fn names(filters: &Value) -> Vec<&str> {
    filters.as_array().unwrap().iter().map(|filter| filter["name"].as_str().unwrap()).collect()
}

#[test]
fn clusters_of_sources_have_the_filter() {
    let config = render(&base());
    for name in ["imds", "sts", "sts-commercial"] {
        let options = cluster(&config, name).pointer(OPTIONS).unwrap();
        assert_eq!(options["explicit_http_config"], json!({ "http_protocol_options": {} }), "{name}");
        let filters = &options["http_filters"];
        assert_eq!(names(filters), ["bedrock.source", "envoy.filters.http.upstream_codec"]);
        let filter = &filters[0]["typed_config"]["config"];
        assert_eq!(filter["configuration"]["value"], format!(r#"{{"source_cluster":"{name}"}}"#));
        assert_eq!(filter["failure_policy"], "FAIL_RELOAD");
        // It shares data with the gateway's VM, but is another, without variables.
        let vm = &filter["vm_config"];
        assert_eq!((&vm["vm_id"], &vm["configuration"]["value"]), (&json!("bedrock"), &json!("source")));
        assert_eq!(vm["code"], json!({ "local": { "filename": "/module.wasm" } }));
        assert_eq!(vm.get("environment_variables"), None);
    }
    assert_eq!(cluster(&config, "token").pointer(OPTIONS), None, "its calls have no secret");
}

#[test]
fn a_cluster_of_the_base_gets_the_filter() {
    let options = |protocol: &str| {
        let own = format!(
            r#"typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{
               "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, {protocol} }} }}"#
        );
        let config = render(&base_with(&own));
        cluster(&config, "imds").pointer(OPTIONS).unwrap().clone()
    };
    let http2 = options("explicit_http_config: { http2_protocol_options: {} }");
    assert_eq!(http2["explicit_http_config"], json!({ "http2_protocol_options": {} }));
    assert_eq!(names(&http2["http_filters"]), ["bedrock.source", "envoy.filters.http.upstream_codec"]);
    let own = options("http_filters: [{ name: own }, { name: codec }]");
    assert_eq!(names(&own["http_filters"]), ["bedrock.source", "own", "codec"]);
    // Its document is the cluster's own.
    let made = own["http_filters"][0].to_string();
    assert_eq!(names(&options(&format!("http_filters: [{made}]"))["http_filters"]), ["bedrock.source"]);
}

#[test]
fn a_cluster_with_older_fields_stays_as_it_is() {
    let config = render(&base_with("http2_protocol_options: {}"));
    assert_eq!(cluster(&config, "imds").pointer(OPTIONS), None);
}

#[test]
fn the_filter_is_part_of_its_cluster() {
    let mut config = render(&base());
    let text = istio::envoy_filter(config.clone()).unwrap();
    assert_eq!(text.matches("root_id: source").count(), 3);
    assert!(!text.contains("/module.wasm"), "the module's path is the pod's");
    let taken = discovery::take_out(&mut config, Path::new("live"));
    let taken: Vec<&str> = taken.iter().map(|filter| filter.name.as_str()).collect();
    assert_eq!(taken, ["bedrock.signer", "bedrock.gateway"]);
}
