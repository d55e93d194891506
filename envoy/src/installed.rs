//! `bedrock-gateway render envoy`: the bootstrap of an instance.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use crate::Error;
use crate::bootstrap::{self, Settings};
use crate::credentials::Auth;
use crate::document::Choices;
use crate::gateway::{Options, loopback, paths_are_used, written};

/// Who signs the certificates of clients; `infra/instance/install` puts it there.
const CLIENT_CA: &str = "/etc/bedrock-gateway/tls/client-ca.pem";

/// The bootstrap of an instance, with the clusters that credentials are fetched from. Files and listeners are those of
/// `envoy/standalone.yaml`; nothing of this machine or its environment is in it.
pub fn print_config(options: &Options) -> Result<String, Error> {
    let mut bootstrap = bootstrap(options)?;
    bootstrap::ask_for_names(&mut bootstrap, Path::new(CLIENT_CA))?;
    Ok(format!("{bootstrap:#}"))
}

/// The same as a value.
pub(crate) fn bootstrap(options: &Options) -> Result<Value, Error> {
    let (standalone, written, _) = written(options)?;
    let auth = written.auth().unwrap_or(Auth::SigV4);
    let choices = Choices { auth, fips: options.fips, regions: options.regions.clone(), paths: None };
    let document = written.compile(&choices)?;
    let folder = Path::new("/etc/bedrock-gateway");
    let settings = Settings {
        listen: any(10000),
        listen_tls: any(10443),
        admin: loopback(9901),
        module: folder.join("bedrock_filter.wasm"),
        certificate: folder.join("tls/cert.pem"),
        key: folder.join("tls/key.pem"),
        paths: options.paths.clone(),
        upstream_ca: options.upstream_ca.clone(),
        access_log: "/var/log/bedrock-gateway/access.jsonl".into(),
        // The collector reads the file alone: with both, DynamoDB would be paid for twice.
        als: None,
    };
    paths_are_used(&settings.paths, &document)?;
    let mut bootstrap = bootstrap::render(standalone.clone(), &settings, &document)?;
    bootstrap::sources::add(&mut bootstrap, &standalone, &document, &settings.paths)?;
    Ok(bootstrap)
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
    fn an_instance_has_its_files_and_listeners_where_the_shipped_configuration_has_them() {
        let shipped = bootstrap::shipped().unwrap();
        let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/environments/example/policy-1.json");
        let options = Options { policy: Some(policy.into()), ..Options::default() };
        let printed: Value = serde_json::from_str(&print_config(&options).unwrap()).unwrap();
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
