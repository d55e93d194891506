//! Moves Wasm filters from a bootstrap to files that Envoy watches (extension config discovery), so that their
//! documents change without a restart. New calls use the new document; calls in flight keep the old one.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::is_fixed;
use crate::objects::{for_each_object, plugins};

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const FILTERS: &str = "http_filters";

/// A filter, and the file that Envoy reads it from.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// Name of the filter and of the resource.
    pub name: String,
    /// The filter's `typed_config`.
    pub config: Value,
    /// The only file in its directory.
    pub file: PathBuf,
}

/// Removes the Wasm filters from `bootstrap`, and returns them in the order in which to write them, each to its file
/// below `dir`. The signer is first, because it must know every route that the gateway role may choose.
pub fn take_out(bootstrap: &mut Value, dir: &Path) -> Vec<Watched> {
    let mut taken: Vec<Watched> = Vec::new();
    for_each_object(bootstrap, &mut |object| {
        let filters = object.get_mut(FILTERS).and_then(Value::as_array_mut);
        for filter in filters.into_iter().flatten().filter_map(Value::as_object_mut) {
            let Some(watched) = watched(filter, dir) else { continue };
            filter.remove("typed_config");
            filter.insert("config_discovery".into(), source(&watched.file));
            // Each listener, or each cluster, has the same filter.
            if !taken.iter().any(|known| known.name == watched.name) {
                taken.push(watched);
            }
        }
    });
    taken.sort_by_key(|watched| !plugins(&watched.config).into_iter().any(is_signer));
    taken
}

fn is_signer(document: &str) -> bool {
    serde_json::from_str::<Value>(document)
        .is_ok_and(|document| document.get("role").is_some_and(|role| role == "signer"))
}

impl Watched {
    /// The file's content: a discovery response.
    pub fn response(&self, version: u32) -> Value {
        json!({
            "version_info": version.to_string(),
            "resources": [{
                "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
                "name": self.name,
                "typed_config": self.config,
            }],
        })
    }

    /// Writes the file atomically: Envoy reads it when it is moved into the directory.
    pub fn write(&self, version: u32) -> std::io::Result<()> {
        let new = self.file.with_extension("new");
        if let Some(dir) = self.file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(&new, self.response(version).to_string())?;
        std::fs::rename(&new, &self.file)
    }
}

fn watched(filter: &Map<String, Value>, dir: &Path) -> Option<Watched> {
    let config = filter.get("typed_config").filter(|config| config.get("@type").is_some_and(|kind| kind == WASM))?;
    // Its configuration never changes.
    if plugins(config).into_iter().any(is_fixed) {
        return None;
    }
    let name = filter.get("name")?.as_str()?.to_owned();
    let file = dir.join(&name).join("filter.json");
    Some(Watched { name, config: config.clone(), file })
}

fn source(file: &Path) -> Value {
    json!({
        "config_source": {
            "resource_api_version": "V3",
            "path_config_source": { "path": file, "watched_directory": { "path": file.parent() } },
        },
        "type_urls": [WASM],
    })
}
