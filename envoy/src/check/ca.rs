//! CA files: Envoy refuses a bootstrap that names a missing one, and each operating system has its bundle elsewhere.

use std::path::Path;

use serde_json::Value;

use super::values::visit_objects;
use super::{At, Fault};
use crate::platform::Platform;

/// Without a platform, a bundle that this host lacks is noted: the bootstrap may be for another machine.
pub(super) fn check(at: &At<'_>, root: &str, config: &Value, platform: Option<Platform>, found: &mut Vec<Fault>) {
    let mut seen: Vec<&str> = Vec::new();
    visit_objects(root, config, &mut |key, value| {
        let Some(file) = value.pointer("/trusted_ca/filename").and_then(Value::as_str) else { return };
        let Some(owner) = Platform::of_bundle(file).filter(|_| !seen.contains(&file)) else { return };
        seen.push(file);
        let key = format!("{key}.trusted_ca.filename");
        match platform {
            Some(platform) if platform != owner => {
                let wanted = platform.ca_bundle();
                let problem = format!(
                    "want {wanted}: {file} is where {} has its CA bundle, and Envoy refuses a missing file",
                    owner.name()
                );
                found.push(at.fault(&key, problem));
            }
            None if !Path::new(file).is_file() => {
                let problem = format!(
                    "{file} is where {} has its CA bundle. This host lacks it, and Envoy refuses a missing file: \
                     `render envoy --platform` writes the path of another system",
                    owner.name()
                );
                found.push(at.fault(&key, problem).note());
            }
            _ => {}
        }
    });
}
