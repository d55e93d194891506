//! The mesh's certificates, and an Envoy with the configuration that istiod would make.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bedrock_double::{Double, EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY, Running};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType};
use serde_json::{Value, json};

use super::proxy::{Identity, Proxy};
use crate::harness::{API_KEY, eventually, required, text_of};

/// Certificates of the mesh and of another authority.
pub(crate) struct Mesh {
    pub dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Mesh {
    pub(crate) fn new() -> Mesh {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "mesh CA");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Mesh { dir, issuer }
    }

    pub(crate) fn identity(&self, namespace: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            vec![SanType::URI(format!("spiffe://cluster.local/ns/{namespace}/sa/app").as_str().try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind: &str| self.dir.path().join(format!("{namespace}-{kind}.pem"));
        std::fs::write(file("cert"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        Identity { certificate: text(file("cert")), key: text(file("key")), ca: text(self.dir.path().join("ca.pem")) }
    }
}

/// A double for each path, of temporary keys and an API key.
pub(crate) fn doubles(dir: &Path, paths: &[&str]) -> Vec<Running> {
    let double = |path: &&str| {
        let double = Double::builder().tls_dir(dir.join("tls")).path_name(*path).bearer(API_KEY);
        double.access_key(EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY, None).start().unwrap()
    };
    paths.iter().map(double).collect()
}

/// An Envoy with one listener.
pub(crate) struct Envoy {
    child: Child,
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Envoy {
    /// Starts Envoy with the configuration that istiod would make; paths of a pod become paths of this machine.
    pub(super) fn start(proxy: Proxy, ca: &str, variables: &[(&str, &str)]) -> Envoy {
        let dir = tempfile::tempdir().unwrap();
        let config = bootstrap(proxy, dir.path(), ca);
        Envoy::run(dir, &config, variables)
    }

    /// Starts Envoy with this bootstrap, and its files in `dir`.
    pub(crate) fn run(dir: tempfile::TempDir, config: &Value, variables: &[(&str, &str)]) -> Envoy {
        let file = dir.path().join("envoy.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let admin_file = dir.path().join("admin");
        let mut command = Command::new(required("ENVOY_BIN"));
        command.arg("-c").arg(&file).arg("--admin-address-path").arg(&admin_file);
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
        command.args(["--file-flush-interval-msec", "100", "--file-flush-min-size-kb", "1"]);
        // Istio's; its agent gives 45 s.
        command.args(["--drain-time-s", "1", "--drain-strategy", "immediate"]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        let log = std::fs::File::create(dir.path().join("envoy.log")).unwrap();
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        // From here on, dropping this value ends the process.
        let mut envoy = Envoy { child: command.spawn().unwrap(), dir, address: nowhere, admin: nowhere };
        envoy.admin = eventually("Envoy", || {
            let log = text_of(&envoy.dir.path().join("envoy.log"));
            assert!(envoy.child.try_wait().unwrap().is_none(), "{log}");
            text_of(&admin_file).trim().parse().ok().filter(|admin| ask(*admin, "/ready").contains("LIVE"))
        });
        // Internal listeners have no address.
        envoy.address = eventually("its listener", || envoy.listeners().first().map(|(_, address)| *address));
        envoy
    }

    /// Its listeners with an address, by name.
    pub(crate) fn listeners(&self) -> Vec<(String, SocketAddr)> {
        let page = ask(self.admin, "/listeners?format=json");
        // In chunks.
        let text = page.find('{').zip(page.rfind('}')).and_then(|(from, to)| page.get(from..=to));
        let page: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let listener = |listener: &Value| {
            let port = listener["local_address"]["socket_address"]["port_value"].as_u64()?;
            let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
            Some((listener["name"].as_str()?.to_owned(), address))
        };
        page["listener_statuses"].as_array().into_iter().flatten().filter_map(listener).collect()
    }

    /// A change by its admin interface.
    pub(super) fn post(&self, path: &str) {
        request(self.admin, "POST", path);
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The lines of the audit log, once there are this many.
    pub(super) fn ledger(&self, lines: usize) -> Vec<Value> {
        eventually("the access log", || {
            let text = text_of(&self.dir.path().join("access.jsonl"));
            let all: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            (all.len() == lines).then_some(all)
        })
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until every path has passed its first health check; `page` reads a page of Envoy's admin interface.
pub(crate) fn wait_for_paths(page: impl Fn(&str) -> String) {
    eventually("the paths' first checks", || {
        let page = page("/stats?filter=^cluster.bedrock.*membership_(healthy|total)$");
        let value = |kind: &str| {
            let lines = page.lines().filter(|line| line.contains(kind));
            lines.filter_map(|line| line.rsplit_once(": ")?.1.trim().parse::<u32>().ok()).sum::<u32>()
        };
        (value("total") > 0 && value("total") == value("healthy")).then_some(())
    });
}

pub(crate) fn ask(admin: SocketAddr, path: &str) -> String {
    request(admin, "GET", path)
}

fn request(admin: SocketAddr, method: &str, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(admin) else { return String::new() };
    let _ = write!(stream, "{method} {path} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let mut page = Vec::new();
    let _ = stream.read_to_end(&mut page);
    String::from_utf8_lossy(&page).into_owned()
}

/// The bootstrap of a proxy. A file replaces istiod for extension configurations, and the built module replaces the image.
pub(super) fn bootstrap(mut proxy: Proxy, dir: &Path, ca: &str) -> Value {
    let code = json!({ "local": { "filename": required("BEDROCK_FILTER_WASM") } });
    // Envoy expects one file for each resource name.
    for mut extension in std::mem::take(&mut proxy.extensions) {
        let file = dir.join(extension["name"].as_str().unwrap());
        extension["@type"] = json!("type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig");
        extension["typed_config"]["config"]["vm_config"]["code"] = code.clone();
        std::fs::write(file, json!({ "version_info": "1", "resources": [extension] }).to_string()).unwrap();
    }
    proxy.listener["address"] = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    let listeners = [vec![proxy.listener], proxy.added].concat();
    let mut resources = json!({ "listeners": listeners, "clusters": proxy.clusters });
    each(&mut resources, &mut |object| {
        let name = object.get("name").and_then(Value::as_str).map(|name| dir.join(name));
        if let Some(source) = object.get_mut("config_discovery").map(|discovery| &mut discovery["config_source"]) {
            assert!(source["ads"].is_object() && source["initial_fetch_timeout"] == "0s", "{source}");
            *source = json!({ "path_config_source": { "path": name }, "resource_api_version": "V3" });
        }
        if let Some(vm) = object.get_mut("vm_config") {
            vm["code"] = code.clone();
        }
        for (key, value) in object {
            match (key.as_str(), value.as_str()) {
                ("path", Some("/var/log/bedrock-gateway/access.jsonl")) => *value = json!(dir.join("access.jsonl")),
                ("path", Some("/run/bedrock-gateway/audit.sock")) => *value = json!(dir.join("audit.sock")),
                ("filename", Some("/etc/ssl/certs/ca-certificates.crt")) => *value = json!(ca),
                _ => {}
            }
        }
    });
    // Listeners and clusters by discovery, as from istiod: then a cluster waits for its filters.
    let discovered = |kind: &str, message: &str| {
        let all = resources[kind].as_array().unwrap().iter().map(|resource| {
            let mut resource = resource.clone();
            resource["@type"] = json!(format!("type.googleapis.com/envoy.config.{message}"));
            resource
        });
        let file = dir.join(kind);
        let response = json!({ "version_info": "1", "resources": all.collect::<Vec<_>>() });
        std::fs::write(&file, response.to_string()).unwrap();
        json!({ "path_config_source": { "path": file }, "resource_api_version": "V3", "initial_fetch_timeout": "0s" })
    };
    json!({
        "bootstrap_extensions": extensions(),
        "node": { "id": "router~10.0.0.1~bedrock-gateway.bedrock-gateway~cluster.local", "cluster": "bedrock-gateway" },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "dynamic_resources": {
            "lds_config": discovered("listeners", "listener.v3.Listener"),
            "cds_config": discovered("clusters", "cluster.v3.Cluster"),
        },
    })
}

/// Istio's bootstrap extension for internal listeners.
pub(super) fn extensions() -> Value {
    json!([{ "name": "envoy.bootstrap.internal_listener", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
        "buffer_size_kb": 64,
    } }])
}

pub(crate) fn each(value: &mut Value, edit: &mut dyn FnMut(&mut serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            edit(object);
            object.values_mut().for_each(|value| each(value, edit));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| each(value, edit)),
        _ => {}
    }
}
