//! Envoy accepts the shipped configuration, and the rendered ones for all options.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use bedrock_gateway::base::Base;
use bedrock_gateway::bootstrap::{self, Settings};
use bedrock_gateway::document::{Choices, EXAMPLE, Written};
use bedrock_gateway::paths::PathSpec;
use bedrock_gateway::platform::{self, Platform};
use bedrock_gateway::tls;
use filter_core::config::Auth;
use serde_json::Value;

fn required(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    value.unwrap_or_else(|| panic!("{variable} is not set: run this by `cargo xtask test`")).into()
}

/// A directory that is removed when dropped.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("bedrock-gateway-envoy-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn standalone() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("standalone.yaml")
}

/// Whether Envoy accepts a configuration, and its output.
fn validate(config: &Path) -> (bool, String) {
    let mut command = Command::new(required("ENVOY_BIN"));
    command.args(["--mode", "validate", "--log-level", "warning", "--config-path"]).arg(config);
    command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "example");
    command.env_remove("AWS_SESSION_TOKEN").env_remove("AWS_BEARER_TOKEN_BEDROCK");
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

fn settings(dir: &Dir) -> Settings {
    let files = tls::prepare(&dir.0.join("tls"), [127, 0, 0, 1].into()).unwrap();
    Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        listen_tls: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        module: required("BEDROCK_FILTER_WASM"),
        certificate: files.certificate,
        key: files.key,
        paths: Vec::new(),
        upstream_ca: platform::host_bundle().unwrap(),
        access_log: dir.0.join("access.jsonl"),
        als: Some(([127, 0, 0, 1], 18090).into()),
        intents: Some(dir.0.join("audit.sock")),
    }
}

fn choices() -> Choices {
    Choices { auth: Auth::Sigv4, fips: false, regions: Vec::new(), paths: None, audited: true, desk: None }
}

fn render(settings: &Settings, choices: &Choices) -> Value {
    let base = Base::shipped().unwrap();
    let document = Written::example(&base).unwrap().compile(choices).unwrap();
    bootstrap::render(&base, settings, &document).unwrap()
}

fn paths(specs: &[&str]) -> Vec<PathSpec> {
    specs.iter().map(|spec| spec.parse().unwrap()).collect()
}

/// Writes the shipped configuration with the paths of test files, and this host's CA bundle.
fn changed_files(dir: &Dir, text: &str) -> PathBuf {
    let bundle = platform::host_bundle().unwrap();
    with_test_files(dir, &text.replace(Platform::AmazonLinux.ca_bundle(), bundle.to_str().unwrap()))
}

fn with_test_files(dir: &Dir, text: &str) -> PathBuf {
    let files = tls::prepare(&dir.0.join("tls"), [127, 0, 0, 1].into()).unwrap();
    let config = dir.0.join("standalone.yaml");
    let module = required("BEDROCK_FILTER_WASM");
    let text = text
        .replace("/etc/bedrock-gateway/bedrock_filter.wasm", module.to_str().unwrap())
        .replace("/etc/bedrock-gateway/tls", files.certificate.parent().unwrap().to_str().unwrap())
        .replace("/var/log/bedrock-gateway", dir.0.to_str().unwrap());
    std::fs::write(&config, text).unwrap();
    config
}

#[test]
fn envoy_accepts_the_shipped_file() {
    let dir = Dir::new("shipped");
    let text = std::fs::read_to_string(standalone()).unwrap();
    let (accepted, said) = validate(&changed_files(&dir, &text));
    assert!(accepted, "{said}");
    assert!(!said.contains("Deprecated") && !said.contains("deprecated"), "{said}");
}

/// `/etc` of Amazon Linux 2023, as far as a CA bundle goes (`Platform::ca_bundle`). Not the original.
const AMAZON_LINUX: &str = r#"
set -eu
bundle=$(mktemp) && cp "$1" "$bundle" && shift
mount -t tmpfs none /etc
mkdir -p /etc/pki/tls/certs /etc/ssl && ln -s ../pki/tls/certs /etc/ssl/certs
mv "$bundle" /etc/pki/tls/certs/ca-bundle.crt
exec "$@"
"#;

#[test]
fn amazon_linux_has_the_files_it_names() {
    let dir = Dir::new("amazon-linux");
    let text = std::fs::read_to_string(standalone()).unwrap();
    let config = with_test_files(&dir, &text);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", AMAZON_LINUX, "sh"]);
    command.arg(platform::host_bundle().unwrap()).arg(required("ENVOY_BIN"));
    let output = command.args(["--mode", "validate", "--log-level", "warning", "-c"]).arg(config).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn envoy_accepts_all_rendered_variants() {
    let dir = Dir::new("rendered");
    let standard = settings(&dir);
    let all = paths(&["dx=[::1]:1", "vpn=10.0.0.1:2", "internet=b.example:3"]);
    let regions = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
    let variants: [(&str, Settings, Choices); 6] = [
        ("bedrock", standard.clone(), choices()),
        ("one path", Settings { paths: paths(&["vpn=127.0.0.1:8443"]), als: None, ..standard.clone() }, choices()),
        ("all paths", Settings { paths: all, ..standard.clone() }, choices()),
        ("fips", standard.clone(), Choices { fips: true, regions: regions(&["us-west-2"]), ..choices() }),
        ("bearer", standard.clone(), Choices { auth: Auth::Bearer, ..choices() }),
        ("europe", standard, Choices { regions: regions(&["eu-central-1"]), ..choices() }),
    ];
    for (name, settings, choices) in variants {
        let config = dir.0.join("envoy.json");
        std::fs::write(&config, render(&settings, &choices).to_string()).unwrap();
        let (accepted, said) = validate(&config);
        assert!(accepted, "{name}: {said}");
    }
}

#[test]
fn refuses_a_wrong_rule_with_its_key() {
    let dir = Dir::new("refused");
    let wrong = |text: String| text.replace(r#""dx""#, r#""satellite""#).replace("[dx, vpn]", "[satellite, vpn]");
    let rules = wrong(EXAMPLE.to_owned());
    let written = Written::in_file(Path::new("rules.yaml"), &rules, &Base::shipped().unwrap());
    let refused = written.and_then(|written| written.compile(&choices())).unwrap_err().to_string();
    let text = wrong(std::fs::read_to_string(standalone()).unwrap());
    let (accepted, said) = validate(&changed_files(&dir, &text));
    assert!(!accepted);
    for said in [refused, said] {
        assert!(said.contains("route_classes[0].paths[0]") && said.contains("satellite"), "{said}");
    }
}

/// The documents of the file's Wasm filters.
fn documents(value: &Value, found: &mut Vec<Value>) {
    if let Some(document) = value.pointer("/configuration/value").and_then(Value::as_str) {
        found.push(serde_json::from_str(document).unwrap());
    }
    match value {
        Value::Object(object) => object.values().for_each(|value| documents(value, found)),
        Value::Array(values) => values.iter().for_each(|value| documents(value, found)),
        _ => {}
    }
}

#[test]
fn both_roles_have_the_same_rules() {
    let mut found = Vec::new();
    let text = std::fs::read_to_string(standalone()).unwrap();
    documents(&serde_saphyr::from_str(&text).unwrap(), &mut found);
    // The relay and the limits of connections have no rules.
    found.retain(|document| document.get("relay").or(document.get("connections")).is_none());
    let mut roles: Vec<Value> = Vec::new();
    for document in &mut found {
        roles.push(document.as_object_mut().unwrap().remove("role").unwrap());
    }
    assert!(roles.iter().any(|role| role == "gateway") && roles.iter().any(|role| role == "signer"));
    assert!(found.windows(2).all(|pair| pair.first() == pair.last()), "the documents differ in more than their role");
}
