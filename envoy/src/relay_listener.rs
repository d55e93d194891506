//! The relay's listener as a file that Envoy watches. When a run ends, it is taken away: Envoy closes its connections, and each
//! stream that has not ended gets its exception (`filter_core::frame_guard`). Envoy itself would cut off the streams.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct RelayListener(PathBuf);

impl RelayListener {
    /// Moves the listener from the bootstrap to its file below `dir`. `None`: the bootstrap has no relay, or a source of listeners
    /// of its own.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn take_out(bootstrap: &mut Value, dir: &Path) -> io::Result<Option<Self>> {
        if bootstrap.pointer("/dynamic_resources/lds_config").is_some() {
            return Ok(None);
        }
        let listeners = bootstrap.pointer_mut("/static_resources/listeners").and_then(Value::as_array_mut);
        let Some(listeners) = listeners else { return Ok(None) };
        let Some(index) = listeners.iter().position(|listener| listener.get("internal_listener").is_some()) else {
            return Ok(None);
        };
        let mut listener = listeners.remove(index);
        if let Some(listener) = listener.as_object_mut() {
            listener.insert("@type".into(), json!(LISTENER));
        }
        let dir = dir.join("streams");
        std::fs::create_dir_all(&dir)?;
        let file = Self(dir.join("listener.json"));
        file.write(1, &[listener])?;
        let source = json!({
            "resource_api_version": "V3",
            "path_config_source": { "path": file.0, "watched_directory": { "path": dir } },
        });
        if let Some(bootstrap) = bootstrap.as_object_mut() {
            let dynamic = bootstrap.entry("dynamic_resources").or_insert_with(|| json!({}));
            if let Some(dynamic) = dynamic.as_object_mut() {
                dynamic.insert("lds_config".into(), source);
            }
        }
        Ok(Some(file))
    }

    /// Takes the listener away. Envoy closes its connections after the time of `--drain-time-s`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.write(2, &[])
    }

    /// Envoy reads the file when it is moved into the directory.
    fn write(&self, version: u32, listeners: &[Value]) -> io::Result<()> {
        let new = self.0.with_extension("new");
        let response = json!({ "version_info": version.to_string(), "resources": listeners });
        std::fs::write(&new, response.to_string())?;
        std::fs::rename(&new, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstrap_without_a_relay_stays() {
        let dir = std::env::temp_dir().join(format!("relay-listener-{}", std::process::id()));
        for bootstrap in [
            json!({ "static_resources": { "listeners": [{ "name": "plain" }] } }),
            json!({ "dynamic_resources": { "lds_config": {} }, "static_resources": { "listeners": [{ "internal_listener": {} }] } }),
        ] {
            let mut changed = bootstrap.clone();
            assert!(RelayListener::take_out(&mut changed, &dir).unwrap().is_none());
            assert_eq!(changed, bootstrap);
        }
        assert!(!dir.exists());
    }
}
