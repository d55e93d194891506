//! `bedrock-gateway check`: what is wrong with the files that an operator writes, each fault with its file, position and key.
//!
//! A file is a document of the filter ([`document`]), a bootstrap of Envoy ([`bootstrap`]), or objects for Istio and Kubernetes
//! ([`istio`]), told apart by their keys. Every rule is here because a wrong value passes Envoy's or Istio's own validation.

mod bootstrap;
mod ca;
mod callers;
mod cluster;
mod connections;
mod document;
mod hashing;
mod health;
mod istio;
mod keepalive;
mod leave;
mod mistakes;
mod placeholders;
mod regions;
mod routes;
mod source_filters;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};

use filter_core::config::Position;
use serde_json::Value;

pub use istio::is_digest;

use crate::paths::PathSpec;
use crate::platform::Platform;
use crate::position::place;
use crate::{position, progress, quotes};

/// What to check.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The files.
    pub files: Vec<PathBuf>,
    /// A bootstrap that has to serve the document.
    pub envoy: Option<PathBuf>,
    /// The paths that the document's classes have addresses for; none: they are not compared.
    pub paths: Vec<PathSpec>,
    /// Whether `@{…}` and digests of zeros may be left: in templates, which something else fills in.
    pub placeholders: bool,
    /// The operating system of the machines that a bootstrap is for.
    pub platform: Option<Platform>,
    /// Regions that the operator confirms, although this version does not know them.
    pub known_regions: Vec<String>,
}

/// Why files do not pass.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// What is wrong, one line each.
    #[error("{}\n{}", lines(.0), count(.0.len()))]
    Faults(Vec<Fault>),
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn count(faults: usize) -> String {
    if faults == 1 { "1 fault".to_owned() } else { format!("{faults} faults") }
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// Where in it.
    pub position: Option<Position>,
    /// The object (`Kind/name`) and key, or the key alone; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub problem: String,
    /// Whether it is a note, which does not fail the check.
    pub is_note: bool,
}

impl Fault {
    fn new(file: &File, position: Option<Position>, key: &str, problem: impl ToString) -> Fault {
        Fault { file: file.name.clone(), position, key: key.to_owned(), problem: problem.to_string(), is_note: false }
    }

    fn note(self) -> Fault {
        Fault { is_note: true, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = place(&self.file, self.position);
        if self.key.is_empty() {
            write!(f, "{place}: {}", self.problem)
        } else {
            write!(f, "{place}: {}: {}", self.key, self.problem)
        }
    }
}

/// A file's text, and its documents as data.
#[derive(Debug)]
struct File {
    name: String,
    text: String,
    documents: Vec<Value>,
}

/// A key of a document of a file.
#[derive(Debug, Clone, Copy)]
struct At<'a> {
    file: &'a File,
    /// Of the file's documents, from 0.
    document: usize,
    /// `Kind/name`, or nothing.
    object: &'a str,
}

impl At<'_> {
    fn fault(&self, key: &str, problem: impl ToString) -> Fault {
        let position = if position::is_json(&self.file.text) {
            position::locate(&self.file.text, key)
        } else {
            position::locate_in(&self.file.text, self.document, key)
        };
        let key = match (self.object, key) {
            ("", key) => key.to_owned(),
            (object, key) => format!("{object}: {key}"),
        };
        Fault::new(self.file, position, &key, problem)
    }
}

/// Checks files; one line on stderr if they pass, and one for each note.
///
/// # Errors
/// [`CheckError`], with every fault of every file.
pub fn run(options: &Options) -> Result<(), CheckError> {
    let (notes, found): (Vec<Fault>, Vec<Fault>) = findings(options)?.into_iter().partition(|found| found.is_note);
    notes.iter().for_each(|note| progress::note(&note.to_string()));
    if found.is_empty() {
        let files = options.files.len();
        progress::say(&format!("{files} {}: no fault", if files == 1 { "file" } else { "files" }));
        return Ok(());
    }
    Err(CheckError::Faults(found))
}

/// The faults and notes of files.
///
/// # Errors
/// [`CheckError::Read`].
pub fn findings(options: &Options) -> Result<Vec<Fault>, CheckError> {
    let mut found = Vec::new();
    let mut meshes = Vec::new();
    let envoy = options.envoy.as_deref().map(|path| read(path, options, &mut found)).transpose()?.flatten();
    if let Some(file) = &envoy
        && file.documents.first().is_none_or(|first| first.get("static_resources").is_none())
    {
        let at = At { file, document: 0, object: "" };
        match serde_json::from_str::<Value>(&file.text) {
            Err(error) if position::is_json(&file.text) => {
                let error = filter_core::config::ConfigError::not_json(&error);
                found.push(Fault::new(file, error.position, "", error.detail()));
            }
            _ => found.push(at.fault("", "not a bootstrap of Envoy: `static_resources` is missing")),
        }
    }
    for path in &options.files {
        let Some(file) = read(path, options, &mut found)? else { continue };
        if file.documents.iter().any(|document| document.get("static_resources").or(document.get("kind")).is_some()) {
            typographic_quotes(&file, &mut found);
        }
        match file.documents.first() {
            Some(first) if first.get("static_resources").is_some() => {
                bootstrap::check(&file, first, None, options, &mut found);
            }
            Some(first) if first.get("kind").is_some() || first.get("apiVersion").is_some() => meshes.push(file),
            _ => document::check(&file, envoy.as_ref(), options, &mut found),
        }
    }
    // Together: one object names another.
    istio::check(&meshes, options, &mut found);
    found.sort_by_key(|fault| (fault.file.clone(), fault.position.map(|position| (position.line, position.column))));
    found.dedup();
    Ok(found)
}

/// Typographic quotes in bootstraps and objects. Those of a document are reported with its other mistakes.
fn typographic_quotes(file: &File, found: &mut Vec<Fault>) {
    for (document, value) in file.documents.iter().enumerate() {
        let at = At { file, document, object: "" };
        found.extend(quotes::texts(value).iter().map(|(key, text)| at.fault(key, quotes::part_of_the_text(text))));
    }
}

fn read(path: &Path, options: &Options, found: &mut Vec<Fault>) -> Result<Option<File>, CheckError> {
    let failed = |source| CheckError::Read { path: path.to_path_buf(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let name = path.display().to_string();
    if !options.placeholders {
        found.extend(placeholders::faults(&name, &text));
    }
    // What is left is checked as if it were filled in; the length of lines does not matter to positions of keys.
    let text = placeholders::fill(&text);
    if position::is_json(&text) {
        // A document's own check says what is wrong with its form.
        let documents = serde_json::from_str(&text).into_iter().collect();
        return Ok(Some(File { name, text, documents }));
    }
    match serde_saphyr::from_multiple::<Value>(&text) {
        Ok(documents) => Ok(Some(File { name, text, documents })),
        Err(error) => {
            let (position, problem) = position::not_yaml(&text, &error);
            found.push(Fault { file: name, position, key: String::new(), problem, is_note: false });
            Ok(None)
        }
    }
}

/// The files below a directory that are checked, by name.
///
/// # Errors
/// [`CheckError::Read`].
pub fn files_below(directory: &Path) -> Result<Vec<PathBuf>, CheckError> {
    let mut files = Vec::new();
    let failed = |source| CheckError::Read { path: directory.to_path_buf(), source };
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else if path.extension().is_some_and(|kind| kind == "yaml" || kind == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The known name that is nearest to one that is not known, as the end of a message.
fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match filter_core::config::nearest(name, known.clone()) {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => {
            let known: Vec<&str> = known.collect();
            if known.is_empty() { "; the file has none".to_owned() } else { format!("; known: {}", known.join(", ")) }
        }
    }
}
