//! A change of `--policy FILE` without a restart: the file is looked at, the new document checked, and handed to Envoy.
//!
//! Envoy's clusters and routes are fixed at its start. A change that needs others is refused, as is one that is wrong: the
//! old one stays.

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

/// What runs, apart from what may change while it does.
#[derive(Debug)]
pub struct Rendered {
    /// The bootstrap with its Wasm filters taken out.
    pub frame: Value,
    /// The Wasm filters.
    pub filters: Vec<Watched>,
}

/// A file that is looked at, and what runs of it.
#[derive(Debug)]
pub struct Live {
    file: PathBuf,
    seen: Option<Vec<u8>>,
    looked: Instant,
    running: Rendered,
    version: u32,
}

impl Live {
    /// Hands Envoy the filters that it starts with. `text` is the file's, as it was rendered.
    pub fn start(file: &Path, text: &str, running: Rendered) -> Result<Live, ChangeError> {
        running.filters.iter().try_for_each(|filter| write(filter, 0))?;
        Ok(Live { file: file.to_path_buf(), seen: Some(text.into()), looked: Instant::now(), running, version: 0 })
    }

    /// Looks at the file if it is time, and does what it says. The number of the change that Envoy took, if there was one.
    pub fn look(
        &mut self,
        admin: SocketAddr,
        render: impl FnOnce(&Path, &str) -> Result<Rendered, Error>,
    ) -> Result<Option<u32>, Error> {
        if self.looked.elapsed() < LOOK {
            return Ok(None);
        }
        self.looked = Instant::now();
        let text = match std::fs::read(&self.file) {
            // Said once.
            Err(_) if self.seen.is_none() => return Ok(None),
            Err(error) => {
                self.seen = None;
                return Err(ChangeError::Read(error).into());
            }
            Ok(text) => text,
        };
        if self.seen.as_ref() == Some(&text) {
            return Ok(None);
        }
        let new = render(&self.file, &String::from_utf8_lossy(&text));
        self.seen = Some(text);
        let new = new?;
        if let Some(why) = difference(&self.running.frame, &new.frame) {
            return Err(ChangeError::Restart(why).into());
        }
        if new.filters == self.running.filters {
            return Ok(None);
        }
        self.version += 1;
        for filter in &new.filters {
            let before = Taken::of(filter, admin);
            write(filter, self.version)?;
            before.wait(filter, admin)?;
        }
        self.running = new;
        Ok(Some(self.version))
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

/// What the one bootstrap has and the other has not, in words.
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
