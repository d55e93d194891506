//! Adds the clusters that credentials are fetched from (docs/credentials.md), unless the configuration has them. A cluster
//! of a token's file gets its listener, too. All others get the filter that keeps their calls' headers out of the log.

use std::collections::BTreeMap;

use filter_core::config::{CertificateSource, Credentials, Signer, Sts, TokenFile};
use serde_json::{Map, Value, json};

use super::{Settings, clusters, endpoint, find, named, source_filter, token_file};
use crate::base::{Base, vm_of};
use crate::bootstrap_error::BootstrapError;
use crate::document::Document;
use crate::paths::{self, PathSpec, ROLES_ANYWHERE, STS};
use crate::source_clusters::{self, SourcesCluster};
use filter_core::names::PathName;

/// The instance metadata service has the same address in every VPC.
const IMDS: (&str, u16) = ("169.254.169.254", 80);
/// The Secrets Manager Agent listens here by default.
const AGENT: (&str, u16) = ("127.0.0.1", 2773);

/// The destination of a cluster.
enum Destination {
    /// A local endpoint, without TLS.
    Local((&'static str, u16)),
    /// A service of the same partition, by host.
    Service(String),
    /// A Commercial service in a region, over the paths.
    Commercial(&'static str, String),
    /// A file, by an internal listener.
    TokenFile(String),
}

/// Adds missing clusters. TLS and health checks are those of Bedrock's clusters.
pub fn add(bootstrap: &mut Value, base: &Base, document: &Document, settings: &Settings) -> Result<(), BootstrapError> {
    let mut pattern = base.cluster()?;
    clusters::trust(&mut pattern, &settings.upstream_ca);
    let vm = vm_of(bootstrap).ok_or(BootstrapError::Missing("`vm_config` of filter `bedrock.gateway`"))?.clone();
    let resources = bootstrap.get_mut("static_resources").ok_or(BootstrapError::Missing("static_resources"))?;
    let mut files = TokenFiles::default();
    for (name, destination) in document.sources().flat_map(required_clusters) {
        if let Some(Destination::TokenFile(file)) = &destination {
            files.check(&name, file)?;
        }
        if find(named(resources, "clusters")?, &name).is_some() {
            continue;
        }
        let cluster = match destination.ok_or_else(|| BootstrapError::UnknownSource(name.clone()))? {
            Destination::Local((address, port)) => local_cluster(&name, address, port),
            Destination::Service(host) => tls_cluster(&name, pattern.clone(), &host, &[(host.clone(), 443)]),
            Destination::Commercial(service, region) => {
                let host = format!("{service}.{region}.amazonaws.com");
                let addresses = addresses(&settings.paths, service, &region, &host);
                if addresses.is_empty() {
                    return Err(BootstrapError::NoPathToService { cluster: name, service, region });
                }
                tls_cluster(&name, pattern.clone(), &host, &addresses)
            }
            Destination::TokenFile(file) => {
                let listeners = named(resources, "listeners")?;
                if find(listeners, &name).is_some() {
                    return Err(BootstrapError::TokenListener(name));
                }
                listeners.push(token_file::listener(&name, &file));
                token_file::cluster(&name)
            }
        };
        named(resources, "clusters")?.push(cluster);
    }
    let called = document.sources().flat_map(source_clusters::of).filter(|cluster| !cluster.is_token);
    for SourcesCluster { name, .. } in called {
        if let Some(Value::Object(cluster)) = find(named(resources, "clusters")?, name) {
            source_filter::add(cluster, name, &vm);
        }
    }
    Ok(())
}

/// The files of token clusters that the document names.
#[derive(Default)]
struct TokenFiles(BTreeMap<String, String>);

impl TokenFiles {
    /// A cluster answers with one file.
    fn check(&mut self, cluster: &str, file: &str) -> Result<(), BootstrapError> {
        match self.0.insert(cluster.to_owned(), file.to_owned()) {
            Some(other) if other != file => {
                Err(BootstrapError::TwoTokenFiles { cluster: cluster.to_owned(), files: [other, file.to_owned()] })
            }
            _ => Ok(()),
        }
    }
}

/// The clusters that a source names, with their destinations. `None`: only the operator knows the address.
fn required_clusters(source: &Credentials) -> Vec<(String, Option<Destination>)> {
    match source {
        Credentials::Environment {} => Vec::new(),
        Credentials::Container { cluster, token } => container_clusters(cluster, token.as_ref()),
        Credentials::Imds { cluster, .. } => vec![(cluster.clone(), Some(Destination::Local(IMDS)))],
        Credentials::SecretsManager { cluster, region, using, .. } => {
            secret_clusters(cluster, region.as_deref(), using.as_ref())
        }
        Credentials::Federation { using, govcloud, commercial, .. } => {
            let mut required = signer_clusters(using);
            required.push((govcloud.cluster.clone(), service(STS, &govcloud.region)));
            required.push(commercial_sts(commercial));
            required
        }
        Credentials::WebIdentity { token, commercial, .. } => vec![token_cluster(token), commercial_sts(commercial)],
        Credentials::RolesAnywhere { cluster, region, certificate, .. } => {
            let mut required = match certificate {
                CertificateSource::Environment {} => Vec::new(),
                CertificateSource::SecretsManager { cluster, region, using, .. } => {
                    secret_clusters(cluster, region.as_deref(), using.as_ref())
                }
            };
            required.push((cluster.clone(), Some(Destination::Commercial(ROLES_ANYWHERE, region.clone()))));
            required
        }
    }
}

fn service(service: &str, region: &str) -> Option<Destination> {
    Some(Destination::Service(format!("{service}.{region}.amazonaws.com")))
}

/// The cluster of the agent or of Secrets Manager, after that of the keys that sign for it.
fn secret_clusters(cluster: &str, region: Option<&str>, using: Option<&Signer>) -> Vec<(String, Option<Destination>)> {
    let destination = region.map_or(Some(Destination::Local(AGENT)), |region| service("secretsmanager", region));
    using.into_iter().flat_map(signer_clusters).chain([(cluster.to_owned(), destination)]).collect()
}

fn signer_clusters(signer: &Signer) -> Vec<(String, Option<Destination>)> {
    match signer {
        Signer::Container { cluster, token } => container_clusters(cluster, token.as_ref()),
        Signer::Imds { cluster, .. } => vec![(cluster.clone(), Some(Destination::Local(IMDS)))],
    }
}

fn container_clusters(cluster: &str, token: Option<&TokenFile>) -> Vec<(String, Option<Destination>)> {
    token.into_iter().map(token_cluster).chain([(cluster.to_owned(), None)]).collect()
}

fn token_cluster(token: &TokenFile) -> (String, Option<Destination>) {
    (token.cluster.clone(), token.file.clone().map(Destination::TokenFile))
}

fn commercial_sts(sts: &Sts) -> (String, Option<Destination>) {
    (sts.cluster.clone(), Some(Destination::Commercial(STS, sts.region.clone())))
}

/// Addresses that reach a service, in the order of the paths.
fn addresses(paths: &[PathSpec], service: &str, region: &str, host: &str) -> Vec<(String, u16)> {
    let given = if paths.is_empty() { &[PathSpec::PUBLIC][..] } else { paths };
    let found = PathName::ALL.iter().filter_map(|name| paths::find(given, *name, service, region));
    let address = |path: &PathSpec| match &path.address {
        Some(address) => (address.host.clone(), address.port),
        None => (host.to_owned(), 443),
    };
    found.map(address).collect()
}

fn local_cluster(name: &str, address: &str, port: u16) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": endpoint::plain(address, port) }] }],
        },
    })
}

/// A service over verified TLS, with the health checks and timeouts of Bedrock's clusters. It has no signer, and uses
/// HTTP/1.1 as the health checks do.
fn tls_cluster(name: &str, mut cluster: Map<String, Value>, host: &str, addresses: &[(String, u16)]) -> Value {
    cluster.remove("typed_extension_protocol_options");
    cluster.insert("name".into(), json!(name));
    let priority = |(priority, (address, port)): (usize, &(String, u16))| {
        json!({
            "priority": priority,
            "lb_endpoints": [{ "endpoint": endpoint::verified(host, address, *port) }],
        })
    };
    let priorities: Vec<Value> = addresses.iter().enumerate().map(priority).collect();
    cluster.insert("load_assignment".into(), json!({ "cluster_name": name, "endpoints": priorities }));
    if addresses.len() < 2 {
        clusters::for_one_endpoint(&mut cluster);
    }
    Value::Object(cluster)
}
