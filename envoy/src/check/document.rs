//! A document of the filter: as the filter reads it, against the paths that are given, and against a bootstrap.

use std::path::Path;

use filter_core::config::Auth;
use serde_json::Value;

use super::{At, Fault, File, Options, bootstrap};
use crate::base::Base;
use crate::document::{Choices, Document, DocumentError, Written};
use crate::{paths, position};

pub(super) fn check(file: &File, envoy: Option<&File>, options: &Options, found: &mut Vec<Fault>) {
    let Some(document) = compile(file, found) else { return };
    let at = At { file, document: 0, object: "" };
    found.extend(document.policy().findings().into_iter().map(|finding| at.fault(&finding.key, finding.problem)));
    if !options.paths.is_empty() {
        addresses(&at, &document, options, found);
    }
    if let Some(envoy) = envoy.and_then(|envoy| Some((envoy, envoy.documents.first()?))) {
        bootstrap::check(envoy.0, envoy.1, Some(&document), found);
    }
}

/// The document, or each mistake in it. The filter stops at the first: so a key with a mistake is left out, and the rest is
/// read again.
fn compile(file: &File, found: &mut Vec<Fault>) -> Option<Document> {
    let mut text = file.text.clone();
    let mut left_out: Vec<String> = Vec::new();
    loop {
        match compile_text(&file.name, &text) {
            Ok(document) => return left_out.is_empty().then_some(document),
            Err(DocumentError::Key { error, position, .. }) => {
                let parent_of_left_out =
                    left_out.iter().any(|key| key.starts_with(&error.key) || error.key.starts_with(key));
                if !parent_of_left_out {
                    let position =
                        if left_out.is_empty() { position } else { position::locate(&file.text, &error.key) };
                    let (key, problem) = (error.key.clone(), error.detail());
                    found.push(Fault { file: file.name.clone(), position, key, problem });
                }
                // What follows from a key that was left out is not a mistake of the operator's.
                let without = if parent_of_left_out { None } else { without(&text, &error.key) };
                match without {
                    Some(shorter) => {
                        left_out.push(error.key);
                        text = shorter;
                    }
                    None => return None,
                }
            }
            Err(DocumentError::Form { position, problem, .. }) => {
                if left_out.is_empty() {
                    found.push(Fault { file: file.name.clone(), position, key: String::new(), problem });
                }
                return None;
            }
            Err(error) => {
                if left_out.is_empty() {
                    let problem = error.to_string();
                    let problem = problem.strip_prefix(&format!("{}: ", file.name)).unwrap_or(&problem).to_owned();
                    found.push(Fault { file: file.name.clone(), position: None, key: String::new(), problem });
                }
                return None;
            }
        }
    }
}

fn compile_text(name: &str, text: &str) -> Result<Document, DocumentError> {
    let base = Base::shipped().map_err(|_| DocumentError::NoFilter)?;
    let written = Written::in_file(Path::new(name), text, &base)?;
    let auth = written.auth().unwrap_or(Auth::Sigv4);
    written.compile(&Choices { auth, fips: false, regions: Vec::new(), paths: None })
}

/// The document without a key, as JSON; `None` where it has no such key, or is not an object.
fn without(text: &str, key: &str) -> Option<String> {
    let mut document: Value = serde_saphyr::from_str(text).ok()?;
    remove(&mut document, key).then(|| document.to_string())
}

fn remove(value: &mut Value, key: &str) -> bool {
    let key = key.strip_prefix('.').unwrap_or(key);
    match value {
        Value::Object(object) => {
            // Names may hold dots: the longest that fits is meant.
            let fits = |name: &&String| {
                key.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            let Some(name) = object.keys().filter(fits).max_by_key(|name| name.len()).cloned() else { return false };
            let rest = key.get(name.len()..).unwrap_or_default();
            if rest.is_empty() {
                object.remove(&name).is_some()
            } else {
                object.get_mut(&name).is_some_and(|inner| remove(inner, rest))
            }
        }
        Value::Array(values) => {
            let Some((index, rest)) = key.strip_prefix('[').and_then(|key| key.split_once(']')) else { return false };
            let Some(index) = index.parse().ok().filter(|index| *index < values.len()) else { return false };
            if rest.is_empty() {
                // Without an object the later ones would have other numbers.
                if values.get(index).is_some_and(Value::is_object) {
                    return false;
                }
                values.remove(index);
                return true;
            }
            values.get_mut(index).is_some_and(|inner| remove(inner, rest))
        }
        _ => false,
    }
}

/// Classes without an address, and addresses without a class.
fn addresses(at: &At<'_>, document: &Document, options: &Options, found: &mut Vec<Fault>) {
    for (index, class) in document.policy().classes().iter().enumerate() {
        let reached = class.paths().iter().any(|path| {
            class
                .regions()
                .iter()
                .any(|region| paths::find(&options.paths, *path, "bedrock-runtime", region.as_str()).is_some())
        });
        if !reached {
            let names: Vec<&str> = class.paths().iter().map(|path| path.as_str()).collect();
            let problem = format!(
                "no --path is given for {}: every call of class '{}' would get 503",
                names.join(" or "),
                class.name()
            );
            found.push(at.fault(&format!("route_classes[{index}].paths"), problem));
        }
    }
    for path in &options.paths {
        let used = document.policy().classes().iter().any(|class| class.paths().contains(&path.name));
        if !used {
            found.push(at.fault("route_classes", format!("no class takes path {}, which --path gives", path.name)));
        }
    }
}
