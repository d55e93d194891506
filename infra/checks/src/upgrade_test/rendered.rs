//! The gateway's configuration: fetched from where its stack says, validated by Envoy, and its endpoints compared with the
//! deployed ones.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::UpgradeTest;
use crate::Error;
use crate::aws_mock::write;
use bedrock_gateway::platform::{self, Platform};
use bedrock_gateway::tls;
use filter_core::names::Partition::{Commercial, GovCloud};
use lab::tools::{MODULE, required};

/// Envoy's bootstrap from the archive that the gateway's machines install.
pub(super) fn config(test: &UpgradeTest) -> Result<String, Error> {
    let parameter = |name: &str| format!("Stacks[0].Parameters[?ParameterKey=='{name}'].ParameterValue | [0]");
    let stack = ["cloudformation", "describe-stacks", "--stack-name", "bedrock-gateway-example-gateway", "--query"];
    let text = |name| -> Result<String, Error> {
        let found = test.aws.call(GovCloud, &[&stack[..], &[&parameter(name)]].concat())?;
        Ok(found.as_str().unwrap_or_default().to_owned())
    };
    let (bucket, key) = (text("ArtifactBucket")?, text("ConfigKey")?);
    let archive = test.dir.join("config.tar.gz");
    let file = archive.display().to_string();
    test.aws.call(GovCloud, &["s3api", "get-object", "--bucket", &bucket, "--key", &key, &file])?;
    let mut tar = Command::new("tar");
    let output = tar.arg("-xzOf").arg(&archive).arg("envoy.json").output().map_err(Error::file("cannot run", "tar"))?;
    if !output.status.success() {
        return Err(Error::Failed(format!("{key}: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The faults of the configuration of a version with these paths.
pub(super) fn faults(test: &UpgradeTest, envoy: &Path, config: &str, paths: &[&str]) -> Result<Vec<String>, Error> {
    let mut faults = Vec::new();
    if let Some(refused) = validate(&test.dir, envoy, config)? {
        faults.push(format!("Envoy refuses the configuration: {refused}"));
    }
    let config: Value = serde_json::from_str(config)
        .map_err(|error| Error::Failed(format!("the configuration is not JSON: {error}")))?;
    let mut used = BTreeSet::new();
    for (cluster, path, _) in endpoints(&config) {
        used.insert(path.to_owned());
        if cluster.ends_with(".private-only") && path == "internet" {
            faults.push(format!("{cluster}: a class without the internet has an endpoint there"));
        }
    }
    if used != paths.iter().map(|path| (*path).to_owned()).collect() {
        faults.push(format!("paths {used:?}; the version has {paths:?}"));
    }
    // A private path's addresses are those of the endpoints in its own VPC.
    for path in paths.iter().filter(|path| **path != "internet") {
        let stack = format!("bedrock-gateway-example-{path}-network");
        let query = "Stacks[0].Outputs[?ends_with(OutputKey, 'Name')].OutputValue";
        let query = ["cloudformation", "describe-stacks", "--stack-name", &stack, "--query", query];
        let names = test.aws.call(Commercial, &query)?;
        let names: BTreeSet<&str> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let found: BTreeSet<&str> =
            endpoints(&config).filter(|(_, of, _)| of == path).map(|(_, _, address)| address).collect();
        if found.len() != 2 || !found.is_subset(&names) {
            faults.push(format!("path {path} goes to {found:?}; the endpoints of {stack} are {names:?}"));
        }
    }
    Ok(faults)
}

/// Cluster, path and address of each endpoint that has a path.
fn endpoints(config: &Value) -> impl Iterator<Item = (&str, &str, &str)> {
    let clusters = config.pointer("/static_resources/clusters").and_then(Value::as_array);
    clusters.into_iter().flatten().flat_map(|cluster| {
        let name = cluster.get("name").and_then(Value::as_str).unwrap_or_default();
        let priorities = cluster.pointer("/load_assignment/endpoints").and_then(Value::as_array);
        let all = priorities.into_iter().flatten().filter_map(|one| one.get("lb_endpoints")?.as_array()).flatten();
        all.filter_map(move |endpoint| {
            let path = endpoint.pointer("/metadata/filter_metadata/bedrock/path")?.as_str()?;
            Some((name, path, endpoint.pointer("/endpoint/address/socket_address/address")?.as_str()?))
        })
    })
}

/// Envoy's message if it refuses the configuration. The files of a machine are below `dir`.
fn validate(dir: &Path, envoy: &Path, config: &str) -> Result<Option<String>, Error> {
    let root = dir.join("instance");
    let etc = root.join("etc/bedrock-gateway");
    let pki = tls::prepare(&root.join("tls"), std::net::Ipv4Addr::LOCALHOST.into())?;
    let files = [
        (required(MODULE)?, etc.join("bedrock_filter.wasm")),
        (pki.certificate, etc.join("tls/cert.pem")),
        (pki.key, etc.join("tls/key.pem")),
        (pki.ca, etc.join("tls/client-ca.pem")),
        (platform::host_bundle()?, root.join(Platform::AmazonLinux.ca_bundle().trim_start_matches('/'))),
    ];
    write(&root.join("var/log/bedrock-gateway/access.jsonl"), "")?;
    for (from, to) in files {
        write(&to, "")?;
        std::fs::copy(&from, &to).map_err(Error::file("cannot copy", &from))?;
    }
    let below = |path: &str| format!("\"{}{path}", root.display());
    let config = ["/etc/bedrock-gateway", "/etc/pki", "/var/log/bedrock-gateway"]
        .iter()
        .fold(config.to_owned(), |config, path| config.replace(&format!("\"{path}"), &below(path)));
    let file = etc.join("envoy.json");
    write(&file, &config)?;
    let mut command = Command::new(envoy);
    command.args(["--mode", "validate", "--log-level", "error", "-c"]).arg(&file);
    let output = command.output().map_err(Error::file("cannot run", envoy))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((!output.status.success()).then_some(said))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_endpoints_by_their_labels() {
        let endpoint = |path: &str, address: &str| {
            json!({ "lb_endpoints": [{
                "metadata": { "filter_metadata": { "bedrock": { "path": path, "region": "us-east-1" } } },
                "endpoint": { "address": { "socket_address": { "address": address, "port_value": 443 } } },
            }] })
        };
        let clusters = json!([
            { "name": "bedrock.any", "load_assignment": { "endpoints": [endpoint("dx", "a"), endpoint("vpn", "b")] } },
            { "name": "imds", "load_assignment": { "endpoints": [{ "lb_endpoints": [{ "endpoint": {} }] }] } },
        ]);
        let config = json!({ "static_resources": { "clusters": clusters } });
        let found: Vec<_> = endpoints(&config).collect();
        assert_eq!(found, [("bedrock.any", "dx", "a"), ("bedrock.any", "vpn", "b")]);
    }
}
