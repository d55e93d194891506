//! Every mistake in a document. The filter stops at the first: so each key with a mistake is left out or replaced, and the
//! rest is read again.

use std::path::Path;

use filter_core::config::{Auth, ConfigError};
use filter_core::policy::Policy;
use serde_json::{Value, json};

use super::{Fault, File};
use crate::base::Base;
use crate::document::{Choices, Document, DocumentError, Written, from_yaml};
use crate::{position, quotes};

/// Bounds the time that a broken file takes. A document of a few kilobytes has fewer mistakes.
const MOST: usize = 500;

/// The document of a file, or each mistake in it.
pub(super) fn compile(file: &File, found: &mut Vec<Fault>) -> Option<Document> {
    let mut form = None;
    let read = every(&file.text, |text| match compile_text(&file.name, text) {
        Ok(document) => Ok(document),
        Err(DocumentError::Key { error, .. }) => Err(Some(*error)),
        Err(DocumentError::Form { position, problem, .. }) => {
            form = Some(Fault::new(file, position, "", problem));
            Err(None)
        }
        Err(error) => {
            form = Some(Fault::new(file, None, "", error));
            Err(None)
        }
    });
    let errors = match read {
        Ok(document) => return Some(document),
        Err(errors) => errors,
    };
    // What follows from a key that was left out is not the operator's.
    found.extend(form.filter(|_| errors.is_empty()));
    found.extend(errors.into_iter().map(|error| {
        let position = error.position.or_else(|| position::locate(&file.text, &error.key));
        let key = if error.key == "." { "" } else { &error.key };
        Fault::new(file, position, key, error.detail())
    }));
    None
}

/// A document in another file, as the filter reads it, or each mistake in it.
pub(super) fn parse(text: &str) -> Result<Policy, Vec<ConfigError>> {
    every(text, |text| Policy::parse(text.as_bytes(), None).map_err(Some))
}

/// What `read` makes of a text, or each of its errors. `Err(None)` ends it.
fn every<T>(text: &str, mut read: impl FnMut(&str) -> Result<T, Option<ConfigError>>) -> Result<T, Vec<ConfigError>> {
    let mut rest = Rest::of(text);
    let mut errors = rest.leave_out_quotes();
    for _ in 0..MOST {
        match read(&rest.text(text)) {
            Ok(value) if rest.is_whole() => return Ok(value),
            Ok(_) | Err(None) => break,
            Err(Some(error)) => {
                let key = rest.key_in_file(&error.key);
                if !rest.caused(&key, &error) {
                    errors.push(ConfigError { key: key.clone(), ..error.clone() });
                }
                if !rest.leave_out(&error.key, key) {
                    break;
                }
            }
        }
    }
    Err(errors)
}

fn compile_text(name: &str, text: &str) -> Result<Document, DocumentError> {
    let base = Base::shipped().map_err(|_| DocumentError::NoFilter)?;
    let written = Written::in_file(Path::new(name), text, &base)?;
    let auth = written.auth().unwrap_or(Auth::Sigv4);
    written.compile(&Choices { auth, fips: false, regions: Vec::new(), paths: None, audited: true, desk: None })
}

/// What is left of a document.
struct Rest {
    /// `None` for a text that cannot be read.
    value: Option<Value>,
    /// The keys that were left out or replaced, as the file has them.
    left_out: Vec<String>,
    /// The elements that were taken out of lists, in order: the list's key and the index, as they were then.
    taken: Vec<(String, usize)>,
}

impl Rest {
    fn of(text: &str) -> Rest {
        let value = if position::is_json(text) { serde_json::from_str(text).ok() } else { from_yaml(text).ok() };
        Rest { value, left_out: Vec::new(), taken: Vec::new() }
    }

    /// Whether nothing was left out.
    fn is_whole(&self) -> bool {
        self.left_out.is_empty()
    }

    /// The text to read: the file's own as long as nothing was left out, for the positions in it.
    fn text(&self, file: &str) -> String {
        self.value.as_ref().filter(|_| !self.is_whole()).map_or_else(|| file.to_owned(), Value::to_string)
    }

    /// A key as the file has it: elements that were taken out of its lists count again.
    fn key_in_file(&self, key: &str) -> String {
        let mut key = key.to_owned();
        for (list, index) in self.taken.iter().rev() {
            let element = key.strip_prefix(list.as_str()).and_then(|rest| rest.strip_prefix('[')?.split_once(']'));
            let Some((own, rest)) = element else { continue };
            if let Some(own) = own.parse::<usize>().ok().filter(|own| own >= index) {
                key = format!("{list}[{}]{rest}", own + 1);
            }
        }
        key
    }

    /// Whether an error follows from what was left out, and is not a mistake of the operator's.
    fn caused(&self, key: &str, error: &ConfigError) -> bool {
        self.left_out.iter().any(|left| {
            if is_at_or_below(left, key) || is_at_or_below(key, left) {
                return true;
            }
            let part = |key: &str| key.split(['.', '[']).next().unwrap_or_default().to_owned();
            match part(left).as_str() {
                "regions" => key.contains("region") || key.contains("inference_profiles"),
                "models" => key.contains("aliases") || key.contains("inference_profiles"),
                "inference_profiles" => key.contains("inference_profiles"),
                "credential_sets" => key.ends_with(".credentials"),
                "route_classes" => {
                    let follows = |list: &str, weights: &str| {
                        left.split_once(list)
                            .is_some_and(|(class, _)| is_at_or_below(key, &format!("{class}{weights}")))
                    };
                    // An unknown name is a mistake in any case.
                    error.known.is_empty()
                        && (follows(".paths", ".weights")
                            || follows(".regions", ".region_weights")
                            || follows(".region_weights", ".region_sticky"))
                }
                _ => false,
            }
        })
    }

    /// Leaves a key out, or what holds it, or puts a value in its place where there has to be one. `false` where nothing is
    /// left to leave out.
    fn leave_out(&mut self, key: &str, in_file: String) -> bool {
        let Some(value) = &mut self.value else { return false };
        self.left_out.push(in_file);
        if let Some(stub) = stub(key)
            && put(value, key, stub)
        {
            return true;
        }
        let key = existing(value, key);
        let Some(taken) = remove(value, &key) else { return false };
        self.taken.extend(taken);
        true
    }

    /// Names and leaves out texts that begin or end with a typographic quote: YAML takes it as part of the text.
    fn leave_out_quotes(&mut self) -> Vec<ConfigError> {
        let texts = self.value.as_ref().map(quotes::texts).unwrap_or_default();
        // From the end, so that the keys of the others stay as they are.
        let errors = texts.into_iter().rev().map(|(key, text)| {
            self.leave_out(&key, key.clone());
            ConfigError::new(key, quotes::part_of_the_text(&text))
        });
        errors.collect()
    }
}

/// Whether a key is another or below it.
fn is_at_or_below(key: &str, top: &str) -> bool {
    key.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A value for a key that a document cannot do without.
fn stub(key: &str) -> Option<Value> {
    match key {
        "regions" => Some(json!({ "us-east-1": {} })),
        "route_classes" => Some(json!([{ "name": "left-out", "paths": ["internet"] }])),
        _ => {
            let (index, name) = key.strip_prefix("route_classes[")?.split_once("].")?;
            match name {
                "name" => Some(json!(format!("left-out-{index}"))),
                "paths" => Some(json!(["dx", "vpn", "internet"])),
                _ => None,
            }
        }
    }
}

/// Sets a key. `false` where it has the value already, or where what holds it is not an object.
fn put(value: &mut Value, key: &str, new: Value) -> bool {
    let (above, name) = key.rsplit_once('.').unwrap_or(("", key));
    let Some(Value::Object(object)) = find(value, above) else { return false };
    if object.get(name) == Some(&new) {
        return false;
    }
    object.insert(name.to_owned(), new);
    true
}

/// The longest part of a key that exists.
fn existing(value: &mut Value, key: &str) -> String {
    let mut key = key;
    while !key.is_empty() && find(value, key).is_none() {
        key = key.rfind(['.', '[']).and_then(|end| key.get(..end)).unwrap_or_default();
    }
    key.to_owned()
}

/// The value of a key; the document itself for the empty one.
fn find<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let key = key.strip_prefix('.').unwrap_or(key);
    if key.is_empty() {
        return Some(value);
    }
    match value {
        Value::Object(object) => {
            let name = first_name(object.keys(), key)?;
            let rest = key.get(name.len()..)?;
            find(object.get_mut(&name)?, rest)
        }
        Value::Array(values) => {
            let (index, rest) = key.strip_prefix('[')?.split_once(']')?;
            find(values.get_mut(index.parse::<usize>().ok()?)?, rest)
        }
        _ => None,
    }
}

/// Names may hold dots: the longest that fits is meant.
fn first_name<'a>(names: impl Iterator<Item = &'a String>, key: &str) -> Option<String> {
    names.filter(|name| is_at_or_below(key, name)).max_by_key(|name| name.len()).cloned()
}

/// Removes a key that exists. For an element of a list, the list's key and the index.
fn remove(value: &mut Value, key: &str) -> Option<Option<(String, usize)>> {
    if let Some((list, index)) = key.strip_suffix(']').and_then(|key| key.rsplit_once('[')) {
        let index = index.parse().ok()?;
        if let Some(Value::Array(values)) = find(value, list)
            && index < values.len()
        {
            values.remove(index);
            return Some(Some((list.to_owned(), index)));
        }
    }
    // A name that holds dots: what is above it is the longest part whose object has the rest as a name.
    let ends = key.match_indices('.').map(|(end, _)| end).chain([0]);
    for end in ends {
        let (above, name) = (key.get(..end)?, key.get(end..)?.trim_start_matches('.'));
        if let Some(Value::Object(object)) = find(value, above)
            && object.remove(name).is_some()
        {
            return Some(None);
        }
    }
    None
}
