//! The filter's document as one run has it: the operator's, with what the command line and the environment decide.

use std::collections::BTreeMap;
use std::path::Path;

use filter_core::config::{
    Audit, AuditMode, Auth, BodyBytes, Config, ConfigError, Credentials, Position, Principal, Region, Role,
};
use filter_core::names::{PathName, RegionName};
use filter_core::policy::Policy;
use filter_core::route::environment_order;
use serde_json::Value;

use crate::base::Base;
use crate::position::{is_json, locate, no_space, not_yaml, place};
use crate::quotes;

/// The document where none is given.
pub const EXAMPLE: &str = include_str!("../example.yaml");

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is neither JSON nor YAML, or not an object.
    #[error("{}: {problem}", place(name, *position))]
    Form {
        /// The file.
        name: String,
        /// Where it stops being YAML.
        position: Option<Position>,
        /// What is wrong.
        problem: String,
    },
    /// The filter would refuse it.
    #[error("{}: {}", place(name, *position), said(error))]
    Key {
        /// The file.
        name: String,
        /// Where the key is, or the object that lacks it.
        position: Option<Position>,
        /// What the filter would say.
        error: Box<ConfigError>,
    },
    /// Envoy's configuration has no filter to give it to.
    #[error("the Envoy configuration has no Wasm filter of role gateway or combined; start from envoy/base.yaml")]
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
    pub regions: Vec<RegionName>,
    /// `BEDROCK_PATHS`.
    pub paths: Option<String>,
    /// Whether a collector runs: without one, its cluster is not there.
    pub audited: bool,
    /// Who may call a gateway on a desk; `None`: what the document says.
    pub desk: Option<Desk>,
}

/// The host names and web pages of a gateway on a desk, besides the document's. Without a document's `hosts`, other host names
/// are refused: any page in the desk's browser can make it call the gateway.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    /// `--host`.
    pub hosts: Vec<String>,
    /// `--origin`.
    pub origins: Vec<String>,
}

/// The lengths of bodies that Envoy hashes. It takes some 15 µs besides to hash a shorter one (docs/performance.md). Envoy hashes all
/// of a body at once, and the worker serves nobody meanwhile: 256 KiB take 0.15 ms. The module hashes a longer one as it arrives.
const HASHED_BY_ENVOY: BodyBytes = BodyBytes { min: 16 << 10, max: Some(256 << 10) };

/// A document as it was read.
#[derive(Debug, Clone)]
pub struct Written {
    name: String,
    text: String,
    config: Config,
    /// Whether its collector is the one that this program starts, or the machine has.
    collector: bool,
    shipped: bool,
}

/// A document that the filter takes.
#[derive(Debug)]
pub struct Document {
    config: Config,
    policy: Policy,
    order: Option<Vec<PathName>>,
}

impl Written {
    /// The example that this program carries (`envoy/example.yaml`). How to authenticate is left to the environment.
    ///
    /// # Errors
    /// `base` has no filter to give it to.
    pub fn example(base: &Base) -> Result<Written, DocumentError> {
        let mut written = Written::read("envoy/example.yaml".to_owned(), EXAMPLE, base)?;
        written.config.auth = None;
        Ok(Written { shipped: true, ..written })
    }

    /// A file's text: YAML, or JSON, which is YAML.
    ///
    /// # Errors
    /// It is neither, a key is wrong or in it twice, or `base` has no filter to give it to.
    pub fn in_file(file: &Path, text: &str, base: &Base) -> Result<Written, DocumentError> {
        Written::read(file.display().to_string(), text, base)
    }

    fn read(name: String, text: &str, base: &Base) -> Result<Written, DocumentError> {
        let role = base.role().ok_or(DocumentError::NoFilter)?;
        let json = json(&name, text)?;
        let mut config = Config::parse_for(json.as_bytes(), role).map_err(|error| key(&name, text, error))?;
        config.stream_relay = match base.relay().filter(|_| role == Role::Gateway) {
            Some(relay) => Some(config.stream_relay.unwrap_or_else(|| relay.to_owned())),
            None => None,
        };
        config.envoy_hashes_body_bytes =
            (role == Role::Gateway && base.hashes()).then(|| config.envoy_hashes_body_bytes.unwrap_or(HASHED_BY_ENVOY));
        let polled = config.catalogue.as_mut().filter(|catalogue| catalogue.refresh_seconds != 0);
        if let (Some(catalogue), Some(polls)) = (polled, base.polls()) {
            catalogue.cluster.get_or_insert_with(|| polls.to_owned());
        }
        if let (Some(retention), Some(polls)) = (&mut config.data_retention, base.polls()) {
            retention.cluster.get_or_insert_with(|| polls.to_owned());
        }
        let asked = config.resolve.as_mut().filter(|resolve| resolve.refresh_seconds != 0);
        if let (Some(resolve), Some(polls)) = (asked, base.polls()) {
            resolve.cluster.get_or_insert_with(|| polls.to_owned());
        }
        let own = base.collector();
        let collector = own.is_some() && config.audit.as_ref().is_none_or(|audit| Some(audit.cluster.as_str()) == own);
        if let (true, Some(cluster)) = (collector, own) {
            config.audit.get_or_insert_with(|| Audit::new(cluster));
        }
        Ok(Written { name, text: text.to_owned(), config, collector, shipped: false })
    }

    /// How it wants to authenticate, if it says so.
    pub fn auth(&self) -> Option<Auth> {
        self.config.auth
    }

    /// Whether its credentials are fetched, and are not the environment's.
    pub fn fetches(&self) -> bool {
        self.config.credentials != Credentials::Environment {}
    }

    /// Applies what was chosen, and checks the whole as the filter does.
    ///
    /// # Errors
    /// [`DocumentError::Key`].
    pub fn compile(self, choices: &Choices) -> Result<Document, DocumentError> {
        let Written { name, text, mut config, collector, shipped } = self;
        config.auth.get_or_insert(choices.auth);
        config.fips |= choices.fips;
        if let Some(desk) = &choices.desk {
            config.hosts.get_or_insert_default().extend(desk.hosts.iter().cloned());
            config.origins.extend(desk.origins.iter().cloned());
        }
        let failed = |error| key(&name, &text, error);
        choose_regions(&mut config, &choices.regions);
        if shipped {
            profiles_of_the_united_states(&mut config);
        }
        if collector && !choices.audited {
            audited_by_nobody(&mut config).map_err(failed)?;
        }
        let order = environment_order(choices.paths.as_deref()).map_err(failed)?;
        // Once with the variable, for what is wrong with it or with a document that it changes.
        let mut policy = Policy::compile(&config, order.as_deref()).map_err(failed)?;
        if let Some(order) = &order {
            put_in_order(&mut config, order);
            policy = Policy::compile(&config, None).map_err(failed)?;
        }
        Ok(Document { config, policy, order })
    }
}

impl Document {
    /// What it decides.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether `BEDROCK_PATHS`, where it is set, has this path.
    pub fn takes(&self, path: PathName) -> bool {
        self.order.as_ref().is_none_or(|order| order.contains(&path))
    }

    /// The regions' names.
    pub fn regions(&self) -> impl Iterator<Item = &RegionName> {
        self.config.regions.keys()
    }

    /// Where its credentials come from: `credentials`, then `credential_sets`.
    pub fn sources(&self) -> impl Iterator<Item = &Credentials> {
        std::iter::once(&self.config.credentials).chain(self.config.credential_sets.values())
    }

    /// Whether a class asks for callers' names, and certificates give them.
    pub fn names_callers_by_certificate(&self) -> bool {
        self.config.principal.contains(&Principal::Mtls {})
            && self.config.route_classes.iter().any(|class| class.principals.is_some())
    }

    /// Its keys, to be changed for another role.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its text, for a role.
    pub fn text(&self, role: Role) -> String {
        Config { role, ..self.config.clone() }.to_json()
    }
}

/// Takes the collector out of a document. A class that requires it is refused.
fn audited_by_nobody(config: &mut Config) -> Result<(), ConfigError> {
    config.audit = None;
    let required = config.route_classes.iter().position(|class| class.audit == AuditMode::Required);
    let Some(index) = required else { return Ok(()) };
    let problem = "`required` needs a collector, and none runs here: start one with `--audit FILE`";
    Err(ConfigError::new(format!("route_classes[{index}].audit"), problem))
}

/// YAML 1.2: `off` and `no` are texts, as in `audit: off`.
pub(crate) fn from_yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true })
}

/// The document as JSON, which is what the filter reads.
fn json(name: &str, text: &str) -> Result<String, DocumentError> {
    if is_json(text) {
        return Ok(text.to_owned());
    }
    let form = |(position, problem)| DocumentError::Form { name: name.to_owned(), position, problem };
    match from_yaml(text) {
        Ok(object @ Value::Object(_)) => Ok(object.to_string()),
        Ok(_) => Err(form((None, "want an object with the keys of docs/configuration.md".to_owned()))),
        Err(error) => Err(form(not_yaml(text, &error))),
    }
}

/// The position is given apart, and `.` is the document.
fn said(error: &ConfigError) -> String {
    if error.key == "." {
        return error.detail();
    }
    ConfigError { position: None, ..error.clone() }.to_string()
}

fn key(name: &str, text: &str, mut error: ConfigError) -> DocumentError {
    let mut position = error.position.or_else(|| locate(text, &error.key));
    if let Some(quote) = error.position.and_then(|position| quotes::in_json(text, position)) {
        error.position = Some(quote);
        position = error.position;
        error.problem = format!("the document is not JSON: {}", quotes::NOT_STRAIGHT);
    }
    if let Some(problem) = without_space(&error) {
        error = ConfigError { known: Vec::new(), nearest: None, problem, ..error };
    }
    DocumentError::Key { name: name.to_owned(), position, error: Box::new(error) }
}

/// An unknown key that is a known one and its value: YAML ends a key at a colon with a space after it.
fn without_space(error: &ConfigError) -> Option<String> {
    let name = error.problem.strip_prefix("unknown ")?.split_once('\'')?.1.strip_suffix('\'')?;
    let (meant, _) = name.split_once(':')?;
    let is_key =
        !meant.is_empty() && meant.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'-');
    is_key.then(|| no_space(meant))
}

/// The chosen regions, each with what the document has of it. A class that names none has them in the order given.
fn choose_regions(config: &mut Config, regions: &[RegionName]) {
    if regions.is_empty() {
        return;
    }
    let own = |name: &RegionName| (name.clone(), config.regions.get(name).cloned().unwrap_or_default());
    config.regions = regions.iter().map(own).collect::<BTreeMap<RegionName, Region>>();
    if regions.len() > 1 {
        for class in &mut config.route_classes {
            class.regions.get_or_insert_with(|| regions.to_vec());
        }
    }
}

/// The shipped table of inference profiles, all `us.`, holds in regions of the United States only.
fn profiles_of_the_united_states(config: &mut Config) {
    if config.regions.keys().all(in_the_united_states) {
        return;
    }
    let table = std::mem::take(&mut config.inference_profiles);
    for (_, region) in config.regions.iter_mut().filter(|(name, _)| in_the_united_states(name)) {
        for (model, profile) in &table {
            region.inference_profiles.entry(model.clone()).or_insert_with(|| profile.clone());
        }
    }
}

/// Whether a profile of `us.` may be used there.
pub fn in_the_united_states(region: &RegionName) -> bool {
    region.as_str().starts_with("us-")
}

/// Puts the paths of each class in the environment's order, so that its clusters keep their plain names. A class that is
/// left with none stays as it is: the filter, which reads the variable too, answers its calls with 503.
fn put_in_order(config: &mut Config, order: &[PathName]) {
    for class in &mut config.route_classes {
        let kept: Vec<PathName> = order.iter().filter(|path| class.paths.contains(path)).copied().collect();
        if kept.is_empty() {
            continue;
        }
        if let Some(weights) = &mut class.weights {
            weights.retain(|path, _| kept.contains(path));
            if weights.values().all(|weight| *weight == 0) {
                class.weights = None;
            }
        }
        class.paths = kept;
    }
}
