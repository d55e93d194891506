//! `bedrock-gateway render envoy`: the bootstrap of an instance.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use crate::base::Base;
use crate::bootstrap::{self, Settings};
use crate::document::{Choices, Written};
use crate::gateway::{Options, loopback, paths_are_used, written};
use crate::paths::PathSpec;
use crate::platform::Platform;
use crate::{Error, progress, yaml};
use filter_core::config::Auth;

/// The CA of client certificates; `infra/instance/install` writes it.
const CLIENT_CA: &str = "/etc/bedrock-gateway/tls/client-ca.pem";

/// Renders the bootstrap of an instance, with the clusters that fetch credentials. It has the files and listeners of
/// `envoy/standalone.yaml`, and does not depend on this machine or its environment.
pub fn print_config(options: &Options, platform: Platform) -> Result<String, Error> {
    let mut bootstrap = bootstrap(options, platform)?;
    bootstrap::verify_client_certificates(&mut bootstrap, Path::new(CLIENT_CA))?;
    Ok(format!("{bootstrap:#}"))
}

/// The same without the client CA, as a value.
pub(crate) fn bootstrap(options: &Options, platform: Platform) -> Result<Value, Error> {
    let (base, written, _) = written(options)?;
    let auth = written.auth().unwrap_or(Auth::Sigv4);
    let choices =
        Choices { auth, fips: options.fips, regions: options.regions.clone(), paths: None, audited: true, desk: None };
    let document = written.compile(&choices)?;
    document.policy().warnings().iter().for_each(|warning| progress::note(&warning.to_string()));
    // Without the live feed: the collector reads the file, and with both it would write each record twice.
    let mut settings = settings(options.paths.clone(), None, platform);
    if let Some(ca) = &options.upstream_ca {
        settings.upstream_ca.clone_from(ca);
    }
    paths_are_used(&settings.paths, &document)?;
    let mut bootstrap = bootstrap::render(&base, &settings, &document)?;
    bootstrap::sources::add(&mut bootstrap, &base, &document, &settings)?;
    Ok(bootstrap)
}

/// Renders the bootstrap in `envoy/standalone.yaml`: the example's document, and paths with names in a private zone.
///
/// # Errors
/// The shipped files are invalid; a test excludes it.
pub fn standalone(platform: Platform) -> Result<Value, Error> {
    let base = Base::shipped()?;
    let choices =
        Choices { auth: Auth::Sigv4, fips: false, regions: Vec::new(), paths: None, audited: true, desk: None };
    let document = Written::example(&base)?.compile(&choices)?;
    let mut paths = vec![PathSpec::PUBLIC];
    for path in ["dx", "vpn"] {
        for service in ["bedrock-runtime", "bedrock"] {
            paths.push(format!("{path}/{service}={service}.{path}.gateway.internal:443").parse()?);
        }
    }
    Ok(bootstrap::render(&base, &settings(paths, Some(loopback(18090)), platform), &document)?)
}

/// The text of `envoy/standalone.yaml`.
///
/// # Errors
/// The same as [`standalone`].
pub fn standalone_yaml() -> Result<String, Error> {
    Ok(format!("{STANDALONE}{}", yaml::document(&standalone(Platform::AmazonLinux)?)))
}

const STANDALONE: &str = "\
# The gateway as one Envoy 1.40 with the module: `envoy -c standalone.yaml`. `bedrock-gateway` renders it from
# base.yaml, cluster.yaml and example.yaml, which explain each value. A test checks that it is current.
#
# The machine needs:
#   /etc/pki/tls/certs/ca-bundle.crt              the CAs that upstreams are verified against. This is Amazon Linux's path;
#                                                 on Debian or Ubuntu it is /etc/ssl/certs/ca-certificates.crt
#   /etc/bedrock-gateway/bedrock_filter.wasm      the module
#   /etc/bedrock-gateway/tls/{cert,key}.pem       the certificate of the TLS listener
#   /var/log/bedrock-gateway/                     the directory of the access log
#   /run/bedrock-gateway/audit.sock               the collector's socket (`audit-collector run --intents`)
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary keys, AWS_SESSION_TOKEN in Envoy's environment
#     (or AWS_BEARER_TOKEN_BEDROCK, with `auth: bearer`): credentials of the Commercial partition
#   audit-collector, on 127.0.0.1:18090 or as a reader of the access log
#
# Replace the addresses of the paths `dx` and `vpn`, the region, the route classes and the inference profiles; or render
# your own file: `bedrock-gateway render envoy --policy rules.yaml --path dx=…`.
#
# By default Envoy flushes the access log every 10 s or 64 KB, and loses unflushed entries when it is killed. Start it
# with `--file-flush-interval-msec 100 --file-flush-min-size-kb 1`.
";

/// Files and listeners of an instance.
fn settings(paths: Vec<PathSpec>, als: Option<SocketAddr>, platform: Platform) -> Settings {
    let folder = Path::new("/etc/bedrock-gateway");
    Settings {
        listen: any(10000),
        listen_tls: any(10443),
        admin: loopback(9901),
        module: folder.join("bedrock_filter.wasm"),
        certificate: folder.join("tls/cert.pem"),
        key: folder.join("tls/key.pem"),
        paths,
        upstream_ca: platform.ca_bundle().into(),
        access_log: "/var/log/bedrock-gateway/access.jsonl".into(),
        als,
        intents: Some("/run/bedrock-gateway/audit.sock".into()),
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
            Value::Object(object) => object.values().for_each(|value| strings(value, found)),
            _ => {}
        }
    }

    #[test]
    fn an_instance_has_the_shipped_files_and_ports() {
        let platform = Platform::AmazonLinux;
        let shipped = standalone(platform).unwrap();
        let policy = include_str!("../../infra/environments/example/policy-1.json");
        let policy = policy.replace("@{commercial/identity.RoleArn}", "arn:aws:iam::111122223333:role/gateway");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.json");
        std::fs::write(&file, policy.replace("@{environment}", "prod")).unwrap();
        let options = Options { policy: Some(file), ..Options::default() };
        let printed: Value = serde_json::from_str(&print_config(&options, platform).unwrap()).unwrap();
        for place in ["/admin", "/static_resources/listeners/0/address", "/static_resources/listeners/1/address"] {
            assert_eq!(printed.pointer(place), shipped.pointer(place), "{place}");
        }
        let files = |config: &Value| {
            let mut all = Vec::new();
            strings(config, &mut all);
            all.retain(|text| text.starts_with('/') && text.len() > 1 && !text.contains(['{', '\n']));
            all.sort();
            all.dedup();
            all
        };
        let mut wanted = files(&shipped);
        wanted.push(CLIENT_CA.to_owned());
        wanted.sort();
        assert_eq!(files(&printed), wanted);
    }
}
