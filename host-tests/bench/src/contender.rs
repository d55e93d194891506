//! The contenders: one Envoy each, from the bootstrap that `bedrock-gateway` makes, with other filters; and other gateways
//! ([`crate::peers`]).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bedrock_load::process;
use serde_json::{Value, json};

use crate::client::Calls;
use crate::error::Error;
use crate::peers;
use crate::upstream::{HOST, SESSION_TOKEN, Scheme, Upstream};

/// What Envoy does to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Passes it.
    Bare,
    /// Signs it by Envoy's own filter, `aws_request_signing`.
    Native,
    /// Passes it through a module that does nothing, in the listener and upstream.
    Noop,
    /// The gateway, in two roles, as it is shipped: streams pass Envoy twice (`stream_relay`).
    Two,
    /// The gateway in two roles, with streams that pass Envoy once. Other calls are as in `Two`.
    Direct,
    /// The gateway, in one role.
    Combined,
    /// The gateway in two roles, with a Bedrock API key.
    Bearer,
    /// The gateway in two roles, with 5,000 rules.
    Rules,
    /// LiteLLM's proxy.
    LiteLlm,
    /// Portkey's gateway.
    Portkey,
}

/// A module with the exports that Envoy asks for. It does nothing.
const NOOP: &str = r#"(module
  (memory (export "memory") 1)
  (global $next (mut i32) (i32.const 1024))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "_initialize"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32)
    (global.get $next)
    (global.set $next (select (i32.const 1024) (i32.add (global.get $next) (local.get 0)) (i32.gt_u (global.get $next) (i32.const 32768)))))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_log") (param i32))
  (func (export "proxy_on_delete") (param i32)))"#;

impl Contender {
    /// Those that are an Envoy.
    pub(crate) const ENVOYS: [Self; 8] =
        [Self::Bare, Self::Native, Self::Noop, Self::Two, Self::Direct, Self::Combined, Self::Bearer, Self::Rules];
    /// Other gateways; they do not run Envoy.
    pub(crate) const PEERS: [Self; 2] = [Self::LiteLlm, Self::Portkey];

    /// The contender of this name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ENVOYS.into_iter().chain(Self::PEERS).find(|contender| contender.name() == name)
    }

    pub(crate) fn is_peer(self) -> bool {
        Self::PEERS.contains(&self)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Native => "native",
            Self::Noop => "noop",
            Self::Two => "two",
            Self::Direct => "direct",
            Self::Combined => "combined",
            Self::Bearer => "bearer",
            Self::Rules => "rules",
            Self::LiteLlm => "litellm",
            Self::Portkey => "portkey",
        }
    }

    /// Converse with a body of so many bytes, or what becomes Converse.
    pub(crate) fn converse(self, upstream: &Upstream, size: usize) -> Calls {
        match self {
            Self::LiteLlm => peers::litellm_calls(size),
            Self::Portkey => peers::portkey_calls(upstream, size),
            _ => Calls::converse(size),
        }
    }

    /// Whether it is measured with Converse.
    pub(crate) fn is_called(self) -> bool {
        self != Self::Direct
    }

    /// Whether it is measured with ConverseStream.
    pub(crate) fn streams(self) -> bool {
        matches!(self, Self::Bare | Self::Native | Self::Two | Self::Direct | Self::Combined)
    }

    /// How its calls are authorized upstream.
    pub(crate) fn scheme(self) -> Scheme {
        match self {
            Self::Bare | Self::Noop => Scheme::None,
            Self::Bearer => Scheme::Bearer,
            _ => Scheme::SigV4,
        }
    }

    /// Credentials in Envoy's environment.
    fn credentials(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bearer => &[("AWS_BEARER_TOKEN_BEDROCK", "ABSKexample-api-key")],
            _ => &[
                ("AWS_ACCESS_KEY_ID", bedrock_double::EXAMPLE_ACCESS_KEY),
                ("AWS_SECRET_ACCESS_KEY", bedrock_double::EXAMPLE_SECRET_KEY),
                ("AWS_SESSION_TOKEN", SESSION_TOKEN),
            ],
        }
    }
}

/// The programs that a run needs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) envoy: PathBuf,
    pub(crate) gateway: PathBuf,
    /// The file `envoy/base.yaml`.
    pub(crate) base: PathBuf,
}

/// A running contender. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) contender: Contender,
    pub(crate) port: u16,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts it on a port: an Envoy with one worker, or another gateway.
    pub(crate) fn start(
        contender: Contender,
        programs: &Programs,
        upstream: &Upstream,
        dir: &Path,
        port: u16,
    ) -> Result<Self, Error> {
        let dir = dir.join(contender.name());
        std::fs::create_dir_all(&dir)?;
        let mut command = match contender {
            Contender::LiteLlm => peers::litellm(upstream, &dir, port)?,
            Contender::Portkey => peers::portkey(upstream, &dir, port)?,
            _ => envoy(contender, programs, upstream, &dir, port)?,
        };
        let log = dir.join("log");
        let file = std::fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { contender, port, child: command.spawn()?, log })
    }

    /// What it has printed.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The CPU that all its threads have used, in nanoseconds.
    pub(crate) fn cpu(&self) -> Result<u64, Error> {
        Ok(process::cpu(self.child.id())?)
    }

    /// The memory that it has, in KiB.
    pub(crate) fn memory(&self) -> Result<u64, Error> {
        Ok(process::memory(self.child.id())?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn envoy(
    contender: Contender,
    programs: &Programs,
    upstream: &Upstream,
    dir: &Path,
    port: u16,
) -> Result<Command, Error> {
    let bootstrap = bootstrap(contender, programs, upstream, dir, port)?;
    let file = dir.join("envoy.json");
    std::fs::write(&file, bootstrap.to_string())?;
    let mut command = Command::new(&programs.envoy);
    command.arg("-c").arg(&file).args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning"]);
    command.env_clear().envs(contender.credentials().iter().copied());
    Ok(command)
}

fn bootstrap(
    contender: Contender,
    programs: &Programs,
    upstream: &Upstream,
    dir: &Path,
    port: u16,
) -> Result<Value, Error> {
    let base = std::fs::read_to_string(&programs.base)?;
    let base = match contender {
        Contender::Combined => base.replace(r#"{"role": "gateway"}"#, r#"{"role": "combined"}"#),
        _ => base,
    };
    let base_file = dir.join("base.yaml");
    std::fs::write(&base_file, base)?;
    let mut command = Command::new(&programs.gateway);
    command.args(["up", "--print-config", "--concurrency", "1"]).arg("--state").arg(dir);
    command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--listen-tls").arg(format!("127.0.0.1:{}", port + 1));
    command.arg("--base").arg(base_file).arg("--access-log").arg(dir.join("access.jsonl"));
    command.arg("--path").arg(format!("internet={}", upstream.address)).arg("--upstream-ca").arg(&upstream.ca);
    if contender == Contender::Rules {
        let file = dir.join("rules.yaml");
        let example = std::fs::read_to_string(programs.base.with_file_name("example.yaml"))?;
        std::fs::write(&file, example + &rules())?;
        command.arg("--policy").arg(file);
    }
    command.env("BEDROCK_GATEWAY_STATE", dir).envs(contender.credentials().iter().copied());
    let output = command.output()?;
    if !output.status.success() {
        return Err(Error::Gateway(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let mut bootstrap: Value = serde_json::from_slice(&output.stdout)?;
    // The port of its page would be the same for all.
    if let Some(members) = bootstrap.as_object_mut() {
        members.remove("admin");
    }
    if contender == Contender::Direct {
        without_relay(&mut bootstrap);
    }
    let gateway = !matches!(contender, Contender::Bare | Contender::Native | Contender::Noop);
    if let Some(listeners) = bootstrap.pointer_mut("/static_resources/listeners").and_then(Value::as_array_mut) {
        // The one that is called, and the gateway's internal ones.
        listeners.retain(|listener| {
            listener.pointer("/address/socket_address/port_value") == Some(&json!(port))
                || gateway && listener.get("internal_listener").is_some()
        });
    }
    if !gateway {
        if let Some(clusters) = bootstrap.pointer_mut("/static_resources/clusters").and_then(Value::as_array_mut) {
            clusters.retain(|cluster| cluster["name"] == CLUSTER);
        }
        let noop = dir.join("noop.wasm");
        std::fs::write(&noop, wat::parse_str(NOOP)?)?;
        replace(&mut bootstrap, contender, &noop);
    }
    Ok(bootstrap)
}

/// Takes `stream_relay` out of the filter's document, which is JSON in a string.
fn without_relay(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(without_relay),
        Value::Array(items) => items.iter_mut().for_each(without_relay),
        Value::String(text) if text.contains("\"stream_relay\"") => {
            if let Ok(Value::Object(mut document)) = serde_json::from_str(text) {
                document.remove("stream_relay");
                *text = Value::Object(document).to_string();
            }
        }
        _ => {}
    }
}

/// 5,000 rules: 4,999 refuse models to callers that are not there, and one serves everybody.
fn rules() -> String {
    let mut rules = "\nrules:\n  - { id: all, effect: allow }\n".to_owned();
    for number in 1..5_000 {
        let (caller, model) = (number % 700, number % 300);
        rules += &format!(
            "  - {{ id: r{number}, effect: deny, principals: [\"spiffe://example/team-{caller}/*\"], models: [\"vendor.model-{model}*\"] }}\n"
        );
    }
    rules
}

/// The cluster of Converse for the class that every caller has.
const CLUSTER: &str = "bedrock-runtime.any";

/// Replaces the gateway's filters by the contender's, and its choice of a cluster by a fixed one.
fn replace(value: &mut Value, contender: Contender, noop: &Path) {
    match value {
        Value::Object(members) => {
            if members.remove("cluster_header").is_some() {
                members.insert("cluster".to_owned(), json!(CLUSTER));
                members.insert("auto_host_rewrite".to_owned(), json!(true));
                members.remove("cluster_not_found_response_code");
            }
            for (name, member) in members {
                if let ("http_filters" | "filters", Value::Array(filters)) = (name.as_str(), &mut *member) {
                    let is_gateway =
                        |filter: &Value| filter["name"].as_str().is_some_and(|name| name.starts_with("bedrock."));
                    let had = filters.len();
                    filters
                        .retain(|filter| filter["typed_config"].get("http_filters").is_some() || !is_gateway(filter));
                    if name == "http_filters" && filters.len() < had {
                        let upstream = filters.iter().all(|filter| filter["name"] != "envoy.filters.http.router");
                        filters.splice(0..0, contender.filter(upstream, noop));
                    }
                }
                replace(member, contender, noop);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, contender, noop)),
        _ => {}
    }
}

impl Contender {
    /// The filter in place of the gateway's.
    fn filter(self, upstream: bool, noop: &Path) -> Option<Value> {
        match self {
            Self::Native if !upstream => Some(json!({
                "name": "envoy.filters.http.aws_request_signing",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.aws_request_signing.v3.AwsRequestSigning",
                    "service_name": "bedrock",
                    "region": "us-east-1",
                    "host_rewrite": HOST,
                    "match_excluded_headers": [{ "prefix": "x-envoy" }, { "prefix": "x-forwarded" }, { "exact": "x-request-id" }],
                },
            })),
            Self::Noop => Some(json!({
                "name": "noop",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                    "config": {
                        "name": "noop",
                        "vm_config": { "vm_id": "noop", "runtime": "envoy.wasm.runtime.v8", "code": { "local": { "filename": noop } } },
                    },
                },
            })),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_loses_only_its_relay() {
        let document = |text: &str| json!({ "filters": [{ "value": text }, { "value": "{}" }] });
        let mut bootstrap = document(r#"{"role":"gateway","stream_relay":"bedrock-streams"}"#);
        without_relay(&mut bootstrap);
        assert_eq!(bootstrap, document(r#"{"role":"gateway"}"#));
    }
}
