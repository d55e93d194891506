//! A change of `--policy FILE` without a restart: the file is read twice a second, the new document checked and given to Envoy.
//!
//! Envoy's clusters and routes are fixed when it starts. A change that needs others is refused, and so is a wrong one: the old
//! document stays.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bootstrap::discovery::Watched;
use crate::change_error::ChangeError;
use crate::{Error, net};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Time for Envoy to read a file that was moved to where it looks.
const READ: Duration = Duration::from_secs(5);

/// A document as Envoy runs it.
#[derive(Debug)]
pub struct Rendered {
    /// The bootstrap without its Wasm filters: it is fixed when Envoy starts.
    pub frame: Value,
    /// The Wasm filters.
    pub filters: Vec<Watched>,
    /// The document.
    pub document: Value,
}

/// What a look at the file found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing new.
    None,
    /// Envoy has taken the change of this number.
    Taken(u32),
    /// After a refusal, the file is the running document again.
    Restored,
}

/// A followed file, and the document that runs.
#[derive(Debug)]
pub struct Live {
    file: PathBuf,
    seen: Option<Vec<u8>>,
    looked: Instant,
    running: Rendered,
    version: u32,
    refused: bool,
}

impl Live {
    /// Hands Envoy the filters that it starts with. `text` is the file's, as it was rendered.
    pub fn start(file: &Path, text: &str, running: Rendered) -> Result<Live, ChangeError> {
        running.filters.iter().try_for_each(|filter| write(filter, 0))?;
        Ok(Live {
            file: file.to_path_buf(),
            seen: Some(text.into()),
            looked: Instant::now(),
            running,
            version: 0,
            refused: false,
        })
    }

    /// Reads the file if it is time, and gives a change to Envoy.
    ///
    /// # Errors
    /// Why the change is refused.
    pub fn look(
        &mut self,
        admin: SocketAddr,
        render: impl FnOnce(&Path, &str) -> Result<Rendered, Error>,
    ) -> Result<Change, Error> {
        if self.looked.elapsed() < LOOK {
            return Ok(Change::None);
        }
        self.looked = Instant::now();
        let change = self.read(admin, render);
        match &change {
            Ok(Change::None) => {}
            Ok(_) => self.refused = false,
            Err(_) => self.refused = true,
        }
        change
    }

    fn read(
        &mut self,
        admin: SocketAddr,
        render: impl FnOnce(&Path, &str) -> Result<Rendered, Error>,
    ) -> Result<Change, Error> {
        let text = match std::fs::read(&self.file) {
            // Reported once.
            Err(_) if self.seen.is_none() => return Ok(Change::None),
            Err(error) => {
                self.seen = None;
                return Err(ChangeError::Read(error).into());
            }
            Ok(text) => text,
        };
        if self.seen.as_ref() == Some(&text) {
            return Ok(Change::None);
        }
        let new = render(&self.file, &String::from_utf8_lossy(&text));
        self.seen = Some(text);
        let new = new?;
        if let Some(why) = difference(&self.running.frame, &new.frame) {
            let keys = keys(&self.running.document, &new.document);
            return Err(ChangeError::Restart { keys, why }.into());
        }
        if new.filters == self.running.filters {
            return Ok(if self.refused { Change::Restored } else { Change::None });
        }
        self.version += 1;
        for filter in &new.filters {
            let before = Taken::of(filter, admin);
            write(filter, self.version)?;
            before.wait(filter, admin)?;
        }
        self.running = new;
        Ok(Change::Taken(self.version))
    }
}

fn write(filter: &Watched, version: u32) -> Result<(), ChangeError> {
    filter.write(version).map_err(|source| ChangeError::Write { file: filter.file.clone(), source })
}

/// How many configurations of a filter Envoy has taken and refused.
#[derive(Debug, Clone, Copy)]
struct Taken {
    success: u64,
    rejected: u64,
}

impl Taken {
    fn of(filter: &Watched, admin: SocketAddr) -> Taken {
        let page = net::request(admin, "GET", "/stats?filter=^extension_config_discovery").map(|(_, page)| page);
        let page = page.unwrap_or_default();
        let count = |kind: &str| {
            let name = format!(".{}.update_{kind}: ", filter.name);
            let counts = page.lines().filter_map(|line| line.split_once(&name)?.1.parse::<u64>().ok());
            counts.sum()
        };
        Taken { success: count("success"), rejected: count("rejected") }
    }

    fn wait(self, filter: &Watched, admin: SocketAddr) -> Result<(), ChangeError> {
        let start = Instant::now();
        let not = |what| ChangeError::Envoy { filter: filter.name.clone(), what };
        while start.elapsed() < READ {
            let now = Taken::of(filter, admin);
            if now.rejected > self.rejected {
                return Err(not("it refused it"));
            }
            if now.success > self.success {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(not("it has not read it within 5 s"))
    }
}

/// How two bootstraps differ, in words; `None` if they are equal.
fn difference(old: &Value, new: &Value) -> Option<String> {
    if old == new {
        return None;
    }
    let clusters = |bootstrap: &Value| -> Vec<(String, Value)> {
        let clusters = bootstrap.pointer("/static_resources/clusters").and_then(Value::as_array);
        let named = |cluster: &Value| Some((cluster.get("name")?.as_str()?.to_owned(), cluster.clone()));
        clusters.into_iter().flatten().filter_map(named).collect()
    };
    let (before, after) = (clusters(old), clusters(new));
    let find =
        |all: &[(String, Value)], name: &str| all.iter().find(|(known, _)| known == name).map(|(_, it)| it.clone());
    for (name, cluster) in &after {
        match find(&before, name) {
            None => return Some(format!("Envoy has no cluster {name}")),
            Some(known) if known != *cluster => return Some(format!("cluster {name} would change")),
            Some(_) => {}
        }
    }
    let gone = before.iter().find(|(name, _)| find(&after, name).is_none());
    Some(gone.map_or_else(
        || "a class's priority or bandwidth, or the number of retries, would change".to_owned(),
        |(name, _)| format!("cluster {name} would go"),
    ))
}

/// Keys of a document that Envoy's clusters and routes are made of.
const RESTART: [&str; 21] = [
    "auth",
    "bandwidth_kbps",
    "catalogue",
    "cluster",
    "credential_sets",
    "credentials",
    "data_retention",
    "dscp",
    "failback_seconds",
    "fips",
    "first_byte_timeout_ms",
    "hosts",
    "name",
    "optional_operations",
    "paths",
    "priority",
    "region_weights",
    "regions",
    "retention",
    "resolve",
    "stream_relay",
];

/// The keys that differ between two documents and that Envoy's clusters and routes are made of; all that differ, if there is none.
fn keys(old: &Value, new: &Value) -> String {
    let mut found = Vec::new();
    differing("", old, new, &mut found);
    // Tables of names that the operator chooses hold no such keys.
    let chosen = |key: &str| key.starts_with("aliases.") || key.starts_with("inference_profiles.");
    let fixed = |key: &String| !chosen(key) && key.split(['.', '[', ']']).any(|part| RESTART.contains(&part));
    let of_envoy: Vec<String> = found.iter().filter(|key| fixed(key)).cloned().collect();
    let shown = if of_envoy.is_empty() { found } else { of_envoy };
    shown.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

fn differing(key: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(before), Value::Object(after)) => {
            let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
            for (name, value) in after {
                differing(&below(name), before.get(name).unwrap_or(&Value::Null), value, found);
            }
            found.extend(before.keys().filter(|name| !after.contains_key(*name)).map(|name| below(name)));
        }
        (Value::Array(before), Value::Array(after))
            if before.len() == after.len() && before.iter().any(Value::is_object) =>
        {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                differing(&format!("{key}[{index}]"), before, after, found);
            }
        }
        _ => found.push(key.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_the_keys_that_want_a_restart() {
        let old =
            json!({ "route_classes": [{ "name": "any", "paths": ["dx"], "weights": { "dx": 1 } }], "fips": false });
        for (new, said) in [
            (
                json!({ "route_classes": [{ "name": "any", "paths": ["dx", "vpn"], "weights": { "dx": 2 } }], "fips": false }),
                "`route_classes[0].paths`",
            ),
            (
                json!({ "route_classes": [{ "name": "any", "paths": ["dx"], "weights": { "dx": 1 }, "dscp": 1 }], "fips": true }),
                "`fips`, `route_classes[0].dscp`",
            ),
            (json!({ "route_classes": [], "fips": false }), "`route_classes`"),
        ] {
            assert_eq!(keys(&old, &new), said);
        }
    }
}
