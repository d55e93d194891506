//! Real SDKs, run as programs that print what they saw.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::required;

pub(crate) fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// A suite of `calls.py`.
pub(crate) fn python(suite: &str, url: &str) -> Vec<Value> {
    run(Command::new(required("GATEWAY_PYTHON")).arg(clients().join("calls.py")).args([suite, url]))
}

/// A suite of `calls.py` over TLS, with more arguments.
pub(crate) fn python_with(suite: &str, url: &str, ca: &str, arguments: &[String]) -> Vec<Value> {
    let mut command = Command::new(required("GATEWAY_PYTHON"));
    run(command.arg(clients().join("calls.py")).args([suite, url, ca]).args(arguments))
}

/// A suite of `calls.py` whose connections go to a proxy, whatever their names resolve to, as a pod's go to its sidecar.
pub(crate) fn python_through(proxy: std::net::SocketAddr, suite: &str, url: &str) -> Vec<Value> {
    let mut command = Command::new(required("GATEWAY_PYTHON"));
    command.arg(clients().join("calls.py")).args([suite, url]);
    run(command.env("HTTP_PROXY", format!("http://{proxy}")).env_remove("NO_PROXY").env_remove("no_proxy"))
}

/// A suite of `calls.py` over TLS, with a Bedrock API key of the caller's own.
pub(crate) fn python_bearer(suite: &str, url: &str, ca: &str) -> Vec<Value> {
    python_token(suite, url, ca, "ABSKcallers-own", &[])
}

/// The same with more arguments.
pub(crate) fn python_bearer_with(suite: &str, url: &str, ca: &str, arguments: &[String]) -> Vec<Value> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    python_token(suite, url, ca, "ABSKcallers-own", &arguments)
}

/// The same with a key or token, and with more arguments.
pub(crate) fn python_token(suite: &str, url: &str, ca: &str, token: &str, arguments: &[&str]) -> Vec<Value> {
    let mut command = Command::new(required("GATEWAY_PYTHON"));
    command.arg(clients().join("calls.py")).args([suite, url, ca]).args(arguments);
    run(command.env("AWS_BEARER_TOKEN_BEDROCK", token))
}

/// A suite of `calls.mjs`.
pub(crate) fn javascript(suite: &str, url: &str) -> Vec<Value> {
    javascript_with(suite, url, &[])
}

/// The same with more arguments.
pub(crate) fn javascript_with(suite: &str, url: &str, arguments: &[String]) -> Vec<Value> {
    let mut command = Command::new("node");
    command.arg(clients().join("calls.mjs")).args([suite, url]).args(arguments);
    run(command.current_dir(required("GATEWAY_JS_DIR")))
}

pub(crate) fn run(command: &mut Command) -> Vec<Value> {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// Fails if a call raised.
pub(crate) fn assert_all_answered(calls: &[Value]) {
    let failed: Vec<&Value> = calls.iter().filter(|call| call.get("error").is_some()).collect();
    assert!(failed.is_empty() && !calls.is_empty(), "{failed:#?}");
}

/// The call of that name.
pub(crate) fn call<'a>(calls: &'a [Value], name: &str) -> &'a Value {
    calls.iter().find(|call| call["call"] == name).unwrap_or_else(|| panic!("no call {name} in {calls:#?}"))
}
