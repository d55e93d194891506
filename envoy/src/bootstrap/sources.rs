//! The clusters that the document's credentials are fetched from (docs/credentials.md), for an instance: those that the
//! configuration has not got are made, after the pattern of Bedrock's for TLS.

use filter_core::config::{Credentials, Signer};
use serde_json::{Map, Value, json};

use super::{clusters, find, named};
use crate::base::Base;
use crate::bootstrap_error::BootstrapError;
use crate::document::Document;
use crate::paths::{self, PathSpec, STS};
use filter_core::names::PathName;

/// The instance metadata service, at its address in every VPC.
const IMDS: (&str, u16) = ("169.254.169.254", 80);
/// The Secrets Manager Agent.
const AGENT: (&str, u16) = ("127.0.0.1", 2773);

/// What a cluster leads to.
enum Far {
    /// A local endpoint, without TLS.
    Near((&'static str, u16)),
    /// A service of the same partition, by its name.
    Service(String),
    /// Commercial STS in a region, over the paths.
    Across(String),
}

/// Adds what is missing; TLS and health checks are those of Bedrock's clusters.
pub fn add(bootstrap: &mut Value, base: &Base, document: &Document, paths: &[PathSpec]) -> Result<(), BootstrapError> {
    let pattern = base.cluster()?;
    let resources = bootstrap.get_mut("static_resources").ok_or(BootstrapError::Missing("static_resources"))?;
    let known = named(resources, "clusters")?;
    for (name, far) in document.sources().flat_map(wanted) {
        if find(known, &name).is_some() {
            continue;
        }
        known.push(match far.ok_or_else(|| BootstrapError::NoSource(name.clone()))? {
            Far::Near((address, port)) => near(&name, address, port),
            Far::Service(host) => across(&name, pattern.clone(), &host, &[(host.clone(), 443)]),
            Far::Across(region) => {
                let host = format!("{STS}.{region}.amazonaws.com");
                let ways = ways(paths, &region, &host);
                if ways.is_empty() {
                    return Err(BootstrapError::NoWay { cluster: name, region });
                }
                across(&name, pattern.clone(), &host, &ways)
            }
        });
    }
    Ok(())
}

/// The clusters that a source names, and what they lead to where that is known.
fn wanted(source: &Credentials) -> Vec<(String, Option<Far>)> {
    let service = |service: &str, region: &str| Some(Far::Service(format!("{service}.{region}.amazonaws.com")));
    match source {
        Credentials::Environment {} => Vec::new(),
        Credentials::Container { cluster } => vec![(cluster.clone(), None)],
        Credentials::Imds { cluster, .. } => vec![(cluster.clone(), Some(Far::Near(IMDS)))],
        Credentials::SecretsManager { cluster, region, using, .. } => {
            let far = region.as_ref().map_or(Some(Far::Near(AGENT)), |region| service("secretsmanager", region));
            using.iter().map(signer).chain([(cluster.clone(), far)]).collect()
        }
        Credentials::Federation { using, govcloud, commercial, .. } => vec![
            signer(using),
            (govcloud.cluster.clone(), service(STS, &govcloud.region)),
            (commercial.cluster.clone(), Some(Far::Across(commercial.region.clone()))),
        ],
    }
}

fn signer(signer: &Signer) -> (String, Option<Far>) {
    match signer {
        Signer::Container { cluster } => (cluster.clone(), None),
        Signer::Imds { cluster, .. } => (cluster.clone(), Some(Far::Near(IMDS))),
    }
}

/// Where STS is reached, in the order of the paths.
fn ways(paths: &[PathSpec], region: &str, host: &str) -> Vec<(String, u16)> {
    let given = if paths.is_empty() { &[PathSpec::PUBLIC][..] } else { paths };
    let found = PathName::ALL.iter().filter_map(|name| paths::find(given, *name, STS, region));
    let address = |path: &PathSpec| match &path.address {
        Some(address) => (address.host.clone(), address.port),
        None => (host.to_owned(), 443),
    };
    found.map(address).collect()
}

fn near(name: &str, address: &str, port: u16) -> Value {
    let address = json!({ "socket_address": { "address": address, "port_value": port } });
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

/// A service over verified TLS: health checks, timeouts and TLS as Bedrock's clusters have them, without the signer and
/// over HTTP/1.1, which the health checks speak too.
fn across(name: &str, mut cluster: Map<String, Value>, host: &str, ways: &[(String, u16)]) -> Value {
    cluster.remove("typed_extension_protocol_options");
    cluster.insert("name".into(), json!(name));
    let priority = |(priority, (address, port)): (usize, &(String, u16))| {
        json!({
            "priority": priority,
            "lb_endpoints": [{
                "endpoint": {
                    "hostname": host,
                    "health_check_config": { "hostname": host },
                    "address": { "socket_address": { "address": address, "port_value": port } },
                },
            }],
        })
    };
    let priorities: Vec<Value> = ways.iter().enumerate().map(priority).collect();
    cluster.insert("load_assignment".into(), json!({ "cluster_name": name, "endpoints": priorities }));
    if ways.len() < 2 {
        clusters::without_haste(&mut cluster);
    }
    Value::Object(cluster)
}
