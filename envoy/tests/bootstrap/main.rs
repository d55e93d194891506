//! The bootstrap that is rendered from base, settings and document, as data. `envoy.rs` tests that Envoy accepts it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod derived;
mod roles_anywhere;
mod settings;
mod source_filters;
mod token_files;

use std::path::PathBuf;

use bedrock_gateway::base::Base;
use bedrock_gateway::bootstrap::Settings;
use serde_json::{Value, json};

fn base() -> Base {
    Base::shipped().unwrap()
}

fn settings(paths: &[&str]) -> Settings {
    Settings {
        listen: ([127, 0, 0, 1], 10000).into(),
        listen_tls: ([127, 0, 0, 1], 10443).into(),
        admin: ([127, 0, 0, 1], 9901).into(),
        module: PathBuf::from("/module.wasm"),
        certificate: PathBuf::from("/cert.pem"),
        key: PathBuf::from("/key.pem"),
        paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
        upstream_ca: PathBuf::from("/ca.pem"),
        access_log: PathBuf::from("/access.jsonl"),
        als: None,
        intents: None,
    }
}

fn clusters(config: &Value) -> &Vec<Value> {
    config["static_resources"]["clusters"].as_array().unwrap()
}

/// `null` if there is none of this name.
fn cluster<'a>(config: &'a Value, name: &str) -> &'a Value {
    clusters(config).iter().find(|cluster| cluster["name"] == name).unwrap_or(&Value::Null)
}

/// `path/region address:port` of a cluster's endpoints, in order of priority.
fn endpoints(config: &Value, name: &str) -> Vec<String> {
    let groups = cluster(config, name)["load_assignment"]["endpoints"].as_array().unwrap();
    let of = |(priority, group): (usize, &Value)| {
        assert_eq!(group["priority"], json!(priority));
        let endpoint = &group["lb_endpoints"][0];
        let label = &endpoint["metadata"]["filter_metadata"]["bedrock"];
        let address = &endpoint["endpoint"]["address"]["socket_address"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (path, region, host) = (text(&label["path"]), text(&label["region"]), text(&address["address"]));
        format!("{path}/{region} {host}:{}", address["port_value"])
    };
    groups.iter().enumerate().map(of).collect()
}
