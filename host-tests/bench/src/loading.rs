//! How long the module takes to load a document: in wasmtime as the tests use it, whose compiler does not optimise. A worker of
//! Envoy serves nothing meanwhile.

use std::path::Path;
use std::time::Instant;

use bedrock_double::{EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY};
use proxy_wasm_vm::Vm;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::stats::median;

/// The models of the document.
const MODELS: usize = 500;
/// How often each role loads it, each time in a new VM.
const ROUNDS: usize = 21;

/// How long the roles take, in milliseconds: the median.
#[derive(Debug, Serialize)]
pub(crate) struct Loading {
    pub(crate) models: usize,
    pub(crate) gateway_ms: f64,
    pub(crate) signer_ms: f64,
}

pub(crate) fn measure(module: &Path) -> Result<Loading, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Module(error.to_string());
    let load = |role: &str| {
        let document = document(role).to_string();
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let vm = Vm::load(module).env("AWS_ACCESS_KEY_ID", EXAMPLE_ACCESS_KEY);
            let vm = vm.env("AWS_SECRET_ACCESS_KEY", EXAMPLE_SECRET_KEY).start().map_err(|error| failed(&error))?;
            let plugin = vm.plugin(role).allow_on_headers_stop_iteration(true);
            let start = Instant::now();
            plugin.configure(&document).map_err(|error| failed(&error))?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok::<_, Error>(median(times.into_iter()))
    };
    Ok(Loading { models: MODELS, gateway_ms: load("gateway")?, signer_ms: load("signer")? })
}

/// A document with an inference profile and an alias for each model.
fn document(role: &str) -> Value {
    let names = || (0..MODELS).map(|number| format!("vendor.model-{number}-v1:0"));
    let profiles: Map<_, _> = names().map(|name| (name.clone(), json!(format!("us.{name}")))).collect();
    let aliases: Map<_, _> =
        names().enumerate().map(|(number, name)| (format!("alias-{number}"), json!(name))).collect();
    json!({
        "role": role,
        "regions": { "us-east-1": {}, "us-west-2": {} },
        "inference_profiles": profiles,
        "aliases": aliases,
        "route_classes": [{ "name": "any", "paths": ["dx", "vpn", "internet"], "regions": ["us-east-1", "us-west-2"] }],
    })
}
