//! Rules for Istio files that no schema states. Schemas are checked by `envoy/checks/istio.py`, in the tests.

use std::path::{Path, PathBuf};

use filter_core::config::{Auth, RelayPlace};
use filter_core::policy::Policy;
use serde_json::Value;

use crate::progress;

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// Why files are not taken.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A file or directory that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What is wrong, a line each.
    #[error("{} faults in the files for Istio\n{}", .0.len(), .0.join("\n"))]
    Faults(Vec<String>),
}

/// Checks these files.
///
/// # Errors
/// [`CheckError`], with every fault of every file.
pub fn run(files: &[PathBuf]) -> Result<(), CheckError> {
    let found = faults(files)?;
    if !found.is_empty() {
        return Err(CheckError::Faults(found));
    }
    progress::say(&format!("{} files for Istio: no fault", files.len()));
    Ok(())
}

/// The YAML files below a directory, by name.
///
/// # Errors
/// [`CheckError::Read`].
pub fn all(directory: &Path) -> Result<Vec<PathBuf>, CheckError> {
    let mut files = Vec::new();
    let failed = |source| CheckError::Read { path: directory.to_path_buf(), source };
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            files.extend(all(&path)?);
        } else if path.extension().is_some_and(|kind| kind == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What is wrong with these files, as `FILE: KIND/NAME: PLACE: FAULT`.
///
/// # Errors
/// [`CheckError`], where that cannot be told.
pub fn faults(files: &[PathBuf]) -> Result<Vec<String>, CheckError> {
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|source| CheckError::Read { path: file.clone(), source })?;
        let objects: Vec<Value> = match serde_saphyr::from_multiple(&text) {
            Ok(objects) => objects,
            Err(error) => {
                found.push(format!("{}: {error}", file.display()));
                continue;
            }
        };
        for object in &objects {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
            found.extend(
                rules(kind, object).into_iter().map(|fault| format!("{}: {kind}/{name}: {fault}", file.display())),
            );
        }
    }
    Ok(found)
}

// === what no schema says ===

fn rules(kind: &str, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match kind {
        "WasmPlugin" => plugin(object, &mut found),
        "EnvoyFilter" => {
            if object.pointer("/spec/workloadSelector/labels").is_none() && object.pointer("/spec/targetRefs").is_none()
            {
                found
                    .push("spec.workloadSelector: without it every Envoy of the namespace gets the patches".to_owned());
            }
            walk("spec", object.get("spec").unwrap_or(&Value::Null), &mut |at, value| filter(at, value, &mut found));
        }
        _ => walk("spec", object.get("spec").unwrap_or(&Value::Null), &mut |at, value| image(at, value, &mut found)),
    }
    found
}

/// A WasmPlugin: the module by digest, refusing when it fails, and a document that can do without holding bodies.
fn plugin(object: &Value, found: &mut Vec<String>) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let text = |key: &str| spec.get(key).and_then(Value::as_str).unwrap_or_default();
    let digest = text("sha256");
    if digest.is_empty() {
        found.push("spec.sha256: the module is pinned by its digest".to_owned());
    }
    if text("url").split_once("@sha256:").is_some_and(|(_, named)| named != digest) {
        found.push("spec.sha256: `url` names another digest".to_owned());
    }
    if !["FAIL_CLOSE", "FAIL_RELOAD"].contains(&text("failStrategy")) {
        found
            .push("spec.failStrategy: want FAIL_RELOAD or FAIL_CLOSE: calls of a failed filter are refused".to_owned());
    }
    let config = spec.get("pluginConfig").unwrap_or(&Value::Null);
    if let Some(policy) = policy("spec.pluginConfig", &config.to_string(), found)
        && policy.auth == Auth::Sigv4
    {
        found.push(
            "spec.pluginConfig.auth: a WasmPlugin cannot hold a call until its body is hashed; want `bearer`, or an EnvoyFilter"
                .to_owned(),
        );
    }
}

/// A Wasm filter in a patch.
fn filter(at: &str, value: &Value, found: &mut Vec<String>) {
    if value.get("@type").and_then(Value::as_str) != Some(WASM) {
        return;
    }
    let config = value.get("config").unwrap_or(&Value::Null);
    if config.get("allow_on_headers_stop_iteration") != Some(&Value::Bool(true)) {
        found
            .push(format!("{at}.config.allow_on_headers_stop_iteration: want true: without it calls with a body hang"));
    }
    let policy_of_failure = config.get("failure_policy").and_then(Value::as_str).unwrap_or_default();
    if !["FAIL_RELOAD", "FAIL_CLOSED"].contains(&policy_of_failure) {
        found.push(format!(
            "{at}.config.failure_policy: want FAIL_RELOAD or FAIL_CLOSED: calls of a failed filter are refused"
        ));
    }
    let remote = config.pointer("/vm_config/code/remote");
    if remote.is_some_and(|remote| remote.get("sha256").and_then(Value::as_str).is_none_or(|digest| !is_digest(digest)))
    {
        found.push(format!("{at}.config.vm_config.code.remote.sha256: the module is pinned by its digest"));
    }
    let document = config.pointer("/configuration/value").and_then(Value::as_str).unwrap_or_default();
    // The relay decides nothing.
    if RelayPlace::parse(document.as_bytes()).is_none() {
        policy(&format!("{at}.config.configuration.value"), document, found);
    }
}

/// A document, as the filter reads it.
fn policy(at: &str, document: &str, found: &mut Vec<String>) -> Option<Policy> {
    match Policy::parse(document.as_bytes(), None) {
        Ok(policy) => Some(policy),
        Err(error) => {
            found.push(format!("{at}: {error}"));
            None
        }
    }
}

/// An image of a container or a volume; `auto` is the one that Istio puts in.
fn image(at: &str, value: &Value, found: &mut Vec<String>) {
    let named = ["image", "reference"].into_iter().filter_map(|key| Some((key, value.get(key)?.as_str()?)));
    for (key, image) in named {
        let is_pinned = image.rsplit_once("@sha256:").is_some_and(|(_, digest)| is_digest(digest));
        if !is_pinned && image != "auto" {
            found.push(format!("{at}.{key}: images are pinned by their digest (…@sha256:…)"));
        }
    }
}

/// Whether it is a SHA-256 in hex.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Visits every object with its place.
fn walk(at: &str, value: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Object(object) => {
            visit(at, value);
            object.iter().for_each(|(name, value)| walk(&format!("{at}.{name}"), value, visit));
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(number, value)| walk(&format!("{at}.{number}"), value, visit));
        }
        _ => {}
    }
}
