//! The filter's document as one run has it: the operator's, with what the command line and the environment decide.

use std::path::Path;

use filter_core::config::{ConfigError, Credentials, check_keys};
use filter_core::policy::Policy;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::bootstrap::plugins;
use crate::credentials::Auth;
use crate::paths::Region;

/// The key that names the relay's cluster.
const RELAY: &str = "stream_relay";

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is no JSON object.
    #[error("{name}: {problem}")]
    Json {
        /// Where it stands.
        name: String,
        /// What is wrong, with line and column.
        problem: String,
    },
    /// The filter would refuse it.
    #[error("{name}: {error}")]
    Key {
        /// Where it stands.
        name: String,
        /// What the filter would say.
        error: ConfigError,
    },
    /// Envoy's configuration has no filter to give it to.
    #[error("the Envoy configuration has no Wasm filter of role gateway or combined; start from envoy/standalone.yaml")]
    NoFilter,
}

/// What the command line and the environment decide.
#[derive(Debug, Clone)]
pub struct Choices {
    /// How to authenticate, where the document does not say.
    pub auth: Auth,
    /// `--fips`.
    pub fips: bool,
    /// `--region`, in order; none: those of the document.
    pub regions: Vec<Region>,
    /// `BEDROCK_PATHS`.
    pub paths: Option<String>,
}

/// A document as it was read.
#[derive(Debug, Clone)]
pub struct Written {
    name: String,
    role: String,
    keys: Map<String, Value>,
    shipped: bool,
}

/// A document that the filter takes.
#[derive(Debug)]
pub struct Document {
    keys: Map<String, Value>,
    policy: Policy,
    paths: Option<Vec<String>>,
}

impl Written {
    /// The document that stands in Envoy's configuration. How to authenticate is left to the environment.
    pub fn in_bootstrap(bootstrap: &Value) -> Result<Written, DocumentError> {
        let name = "the document in the Envoy configuration".to_owned();
        for text in plugins(bootstrap) {
            let mut keys = object(&name, text)?;
            let role = keys.get("role").and_then(Value::as_str).unwrap_or_default().to_owned();
            if ["gateway", "combined"].contains(&role.as_str()) {
                keys.remove("auth");
                return Ok(Written { name, role, keys, shipped: true });
            }
        }
        Err(DocumentError::NoFilter)
    }

    /// A file's text, to stand where `bootstrap` has a document.
    pub fn in_file(file: &Path, text: &str, bootstrap: &Value) -> Result<Written, DocumentError> {
        let Written { role, keys: mut own, .. } = Written::in_bootstrap(bootstrap)?;
        let name = file.display().to_string();
        let mut keys = object(&name, text)?;
        keys.insert("role".into(), json!(role));
        // Where the relay is, `bootstrap` says: it is a listener of its.
        if let Some(relay) = own.remove(RELAY) {
            keys.entry(RELAY).or_insert(relay);
        }
        Ok(Written { name, role, keys, shipped: false })
    }

    /// How it wants to authenticate, if it says so.
    pub fn auth(&self) -> Option<Auth> {
        let word = self.keys.get("auth").and_then(Value::as_str)?;
        [Auth::SigV4, Auth::Bearer].into_iter().find(|auth| auth.as_str() == word)
    }

    /// Whether its credentials are fetched, and are not the environment's.
    pub fn fetches(&self) -> bool {
        let source = self.keys.get("credentials").and_then(|credentials| credentials.get("source"));
        source.and_then(Value::as_str).is_some_and(|source| source != "environment")
    }

    /// Applies what was chosen, and checks the whole as the filter does.
    pub fn compile(self, choices: &Choices) -> Result<Document, DocumentError> {
        let Written { name, mut keys, shipped, .. } = self;
        keys.entry("auth").or_insert_with(|| json!(choices.auth.as_str()));
        if choices.fips {
            keys.insert("fips".into(), json!(true));
        }
        regions(&mut keys, &choices.regions);
        if shipped {
            profiles_of_the_united_states(&mut keys);
        }
        let parse = |keys: &Map<String, Value>, paths: Option<&str>| {
            let error = |error| DocumentError::Key { name: name.clone(), error };
            Policy::parse(Value::Object(keys.clone()).to_string().as_bytes(), paths).map_err(error)
        };
        // Once with the variable, for what is wrong with it or with a document that it changes.
        let mut policy = parse(&keys, choices.paths.as_deref())?;
        let paths: Option<Vec<String>> =
            choices.paths.as_ref().map(|paths| paths.split(',').map(|path| path.trim().to_owned()).collect());
        if let Some(order) = &paths {
            put_in_order(&mut keys, order);
            policy = parse(&keys, None)?;
        }
        Ok(Document { keys, policy, paths })
    }
}

impl Document {
    /// What it decides.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether `BEDROCK_PATHS`, where it is set, has this path.
    pub fn takes(&self, path: &str) -> bool {
        self.paths.as_ref().is_none_or(|paths| paths.iter().any(|known| known == path))
    }

    /// The regions' names.
    pub fn regions(&self) -> Vec<&str> {
        let regions = self.keys.get("regions").and_then(Value::as_object);
        regions.into_iter().flat_map(Map::keys).map(String::as_str).collect()
    }

    /// Where its credentials come from: `credentials`, then `credential_sets`.
    pub fn sources(&self) -> Vec<Credentials> {
        let sets = self.keys.get("credential_sets").and_then(Value::as_object);
        let all = self.keys.get("credentials").into_iter().chain(sets.into_iter().flat_map(Map::values));
        // The document was compiled, so each is one.
        all.filter_map(|source| Credentials::deserialize(source).ok()).collect()
    }

    /// Its text, for a role.
    pub fn text(&self, role: &Value) -> String {
        let mut keys = self.keys.clone();
        keys.insert("role".into(), role.clone());
        format!("{:#}", Value::Object(keys))
    }
}

fn object(name: &str, text: &str) -> Result<Map<String, Value>, DocumentError> {
    let object = serde_json::from_str(text)
        .map_err(|error| DocumentError::Json { name: name.to_owned(), problem: format!("no JSON object: {error}") })?;
    // A map of this kind has forgotten what was there twice.
    check_keys(text.as_bytes()).map_err(|error| DocumentError::Key { name: name.to_owned(), error })?;
    Ok(object)
}

/// The given regions, each with what the document has of it. A class that names none has them in the order given.
fn regions(keys: &mut Map<String, Value>, regions: &[Region]) {
    if regions.is_empty() {
        return;
    }
    let names: Vec<&str> = regions.iter().map(Region::as_str).collect();
    let own = |name: &str| keys.get("regions").and_then(|regions| regions.get(name)).cloned();
    let table: Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), own(name).unwrap_or_else(|| json!({})))).collect();
    keys.insert("regions".into(), Value::Object(table));
    if names.len() > 1 {
        for class in classes(keys) {
            class.entry("regions").or_insert_with(|| json!(names));
        }
    }
}

/// The shipped table of inference profiles, all `us.`, holds in regions of the United States only.
fn profiles_of_the_united_states(keys: &mut Map<String, Value>) {
    let Some(regions) = keys.get_mut("regions").and_then(Value::as_object_mut) else { return };
    if regions.keys().all(|region| in_the_united_states(region)) {
        return;
    }
    let Some(Value::Object(table)) = keys.remove("inference_profiles") else { return };
    let Some(regions) = keys.get_mut("regions").and_then(Value::as_object_mut) else { return };
    for (_, region) in regions.iter_mut().filter(|(name, _)| in_the_united_states(name)) {
        if let Some(region) = region.as_object_mut() {
            let own = region.entry("inference_profiles").or_insert_with(|| json!({}));
            if let Some(own) = own.as_object_mut() {
                for (model, profile) in &table {
                    own.entry(model.clone()).or_insert_with(|| profile.clone());
                }
            }
        }
    }
}

/// Whether a profile of `us.` may be used there.
pub fn in_the_united_states(region: &str) -> bool {
    region.starts_with("us-")
}

/// Puts the paths of each class in the environment's order, so that its clusters keep their plain names. A class that is
/// left with none stays as it is: the filter, which reads the variable too, answers its calls with 503.
fn put_in_order(keys: &mut Map<String, Value>, order: &[String]) {
    for class in classes(keys) {
        let Some(paths) = class.get("paths").and_then(Value::as_array) else { continue };
        let kept: Vec<&String> =
            order.iter().filter(|name| paths.iter().any(|path| path.as_str() == Some(name))).collect();
        if kept.is_empty() {
            continue;
        }
        if let Some(weights) = class.get("weights").and_then(Value::as_object) {
            let weights: Map<String, Value> = weights
                .iter()
                .filter(|(path, _)| kept.contains(path))
                .map(|(path, weight)| (path.clone(), weight.clone()))
                .collect();
            if weights.values().any(|weight| weight.as_u64() != Some(0)) {
                class.insert("weights".into(), Value::Object(weights));
            } else {
                class.remove("weights");
            }
        }
        // `kept` borrows of `order` alone.
        class.insert("paths".into(), json!(kept));
    }
}

fn classes(keys: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    let classes = keys.get_mut("route_classes").and_then(Value::as_array_mut);
    classes.into_iter().flatten().filter_map(Value::as_object_mut)
}
