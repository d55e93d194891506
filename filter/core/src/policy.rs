//! The configuration compiled into a policy that cannot be wrong: every name checked, every table closed.

use crate::config::{Auth, BodyBytes, Config, ConfigError, Principal, Role};
use crate::model::{self, GovOnly, Pattern};
use crate::operation::{Operation, Service};
use std::collections::BTreeMap;

/// Body limits beyond this cannot be buffered by an Envoy set up as documented.
const MAX_BODY_LIMIT: u64 = 1 << 30;

/// What the operator decided.
#[derive(Debug)]
pub struct Policy {
    /// What this instance does.
    pub role: Role,
    /// How calls are authenticated.
    pub auth: Auth,
    /// Where the caller's name comes from.
    pub principal: Vec<Principal>,
    /// Longest request body in bytes.
    pub max_body_bytes: u64,
    regions: BTreeMap<String, Region>,
    own_region: Option<String>,
    aliases: BTreeMap<String, String>,
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
    classes: Vec<RouteClass>,
}

/// A region that calls may be signed for.
#[derive(Debug)]
pub struct Region {
    name: String,
    hosts: BTreeMap<Service, String>,
    inference_profiles: BTreeMap<String, String>,
}

/// A rule that tells which calls may take which paths.
#[derive(Debug)]
pub struct RouteClass {
    name: String,
    models: Option<Vec<Pattern>>,
    operations: Option<Vec<Operation>>,
    principals: Option<Vec<Pattern>>,
    streaming: Option<bool>,
    body_bytes: Option<BodyBytes>,
    clusters: BTreeMap<Service, String>,
}

/// What a route class may be matched by.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The operation.
    pub operation: Operation,
    /// The model id as resolved, if the operation names one.
    pub model: Option<&'a str>,
    /// The caller's name.
    pub principal: Option<&'a str>,
    /// The length of the body in bytes, if it is known before the body has come.
    pub body_bytes: Option<u64>,
}

/// Why a model is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelRefusal {
    /// It is not in the Commercial partition.
    #[error(transparent)]
    GovOnly(#[from] GovOnly),
    /// The operator's policy does not allow it.
    #[error("the gateway's policy does not allow model '{0}'")]
    Policy(String),
}

// === impl Policy ===

impl Policy {
    /// Parses and compiles a configuration document.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        Self::compile(Config::parse(json)?)
    }

    /// Compiles a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what is wrong with it.
    pub fn compile(config: Config) -> Result<Self, ConfigError> {
        let allow = patterns("models.allow", &config.models.allow)?;
        let deny = patterns("models.deny", &config.models.deny)?;
        if config.models.allow.is_empty() {
            return Err(at("models.allow", "an empty list allows no model; leave the key out to allow all"));
        }
        if !(1..=MAX_BODY_LIMIT).contains(&config.max_body_bytes) {
            return Err(at("max_body_bytes", format!("must lie between 1 and {MAX_BODY_LIMIT}")));
        }
        let policy = Self {
            role: config.role,
            auth: config.auth,
            principal: config.principal,
            max_body_bytes: config.max_body_bytes,
            regions: regions(config.regions, &config.inference_profiles, config.fips)?,
            own_region: config.region,
            aliases: config.aliases,
            allow,
            deny,
            classes: classes(config.route_classes)?,
        };
        policy.check_own_region()?;
        policy.check_models()?;
        Ok(policy)
    }

    /// The region of an endpoint, by its label.
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.regions.get(name)
    }

    /// The region that role `combined` signs for.
    pub fn own_region(&self) -> Option<&Region> {
        match &self.own_region {
            Some(name) => self.regions.get(name),
            None => self.regions.values().next(),
        }
    }

    /// Resolves what the client named to the id that crosses (up to the region's inference profile): alias, then
    /// partition, then policy.
    ///
    /// # Errors
    /// [`ModelRefusal`] if it may not cross.
    pub fn resolve_model(&self, asked: &str) -> Result<String, ModelRefusal> {
        let id = self.aliases.get(asked).map_or(asked, String::as_str);
        let id = model::to_commercial(id)?;
        if self.allows(id) { Ok(id.to_owned()) } else { Err(ModelRefusal::Policy(id.to_owned())) }
    }

    /// Whether any rule depends on the model: then an operation that names its model where the gateway does not look
    /// (StartAsyncInvoke, in its body) cannot be let through.
    pub fn depends_on_model(&self) -> bool {
        !self.deny.is_empty()
            || !self.allow.iter().any(Pattern::takes_all)
            || self.classes.iter().any(|class| class.models.is_some())
    }

    /// The first class that the call matches.
    pub fn route_class(&self, subject: Subject<'_>) -> Option<&RouteClass> {
        self.classes.iter().find(|class| class.matches(subject))
    }

    /// Whether the configuration itself names a model id: only such ids are labels of metrics.
    pub fn names_model(&self, id: &str) -> bool {
        let profiles = || self.regions.values().flat_map(|region| &region.inference_profiles);
        self.aliases.values().any(|known| known == id)
            || self.regions.values().any(|region| region.inference_profiles.contains_key(id))
            || profiles().any(|(_, profile)| profile == id)
    }

    fn allows(&self, id: &str) -> bool {
        let matches = |patterns: &[Pattern]| model::names(id).any(|name| patterns.iter().any(|p| p.matches(name)));
        matches(&self.allow) && !matches(&self.deny)
    }

    fn check_own_region(&self) -> Result<(), ConfigError> {
        match &self.own_region {
            Some(name) if !self.regions.contains_key(name) => {
                Err(at("region", unknown("region", name, self.regions.keys())))
            }
            None if self.role == Role::Combined && self.regions.len() > 1 => {
                Err(at("region", "role `combined` signs for one region: say which of `regions`"))
            }
            _ => Ok(()),
        }
    }

    /// An alias or a profile must not lead around the model policy.
    fn check_models(&self) -> Result<(), ConfigError> {
        for (alias, id) in &self.aliases {
            let key = format!("aliases.{alias}");
            if self.aliases.contains_key(id) {
                return Err(at(key, format!("'{id}' is an alias itself; name the model")));
            }
            self.resolve_model(id).map_err(|refusal| at(key, refusal))?;
        }
        for (name, region) in &self.regions {
            for (id, profile) in region.inference_profiles.iter().filter(|(id, _)| self.allows(id)) {
                if !self.allows(profile) {
                    let problem = format!("the profile '{profile}' of region {name} is refused by `models`");
                    return Err(at(format!("inference_profiles.{id}"), problem));
                }
            }
        }
        Ok(())
    }
}

// === impl Region ===

impl Region {
    /// The region's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host name of a service's endpoint.
    pub fn host(&self, service: Service) -> &str {
        self.hosts.get(&service).map_or("", String::as_str)
    }

    /// The inference profile that a bare model id needs here, else the id itself.
    pub fn profile<'a>(&'a self, id: &'a str) -> &'a str {
        self.inference_profiles.get(id).map_or(id, String::as_str)
    }
}

// === impl RouteClass ===

impl RouteClass {
    /// The class's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that carries this class's calls to a service.
    pub fn cluster(&self, service: Service) -> &str {
        self.clusters.get(&service).map_or("", String::as_str)
    }

    fn matches(&self, call: Subject<'_>) -> bool {
        let any = |patterns: &Vec<Pattern>, name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        self.operations.as_ref().is_none_or(|operations| operations.contains(&call.operation))
            && self
                .models
                .as_ref()
                .is_none_or(|ps| call.model.is_some_and(|id| model::names(id).any(|name| any(ps, name))))
            && self.principals.as_ref().is_none_or(|ps| call.principal.is_some_and(|name| any(ps, name)))
            && self.streaming.is_none_or(|streaming| streaming == call.operation.streams())
            && self.body_bytes.is_none_or(|bounds| {
                let length = call.body_bytes.unwrap_or(u64::MAX);
                bounds.min <= length && bounds.max.is_none_or(|max| length <= max)
            })
    }
}

const SERVICES: [Service; 2] = [Service::BedrockRuntime, Service::Bedrock];

fn regions(
    regions: BTreeMap<String, crate::config::Region>,
    general: &BTreeMap<String, String>,
    fips: bool,
) -> Result<BTreeMap<String, Region>, ConfigError> {
    if regions.is_empty() {
        return Err(at("regions", "name at least one Commercial region"));
    }
    let fips = if fips { "-fips" } else { "" };
    let compile = |(name, own): (String, crate::config::Region)| {
        check_region_name(&name)?;
        let mut inference_profiles = general.clone();
        inference_profiles.extend(own.inference_profiles);
        for (id, profile) in &inference_profiles {
            if model::without_geography(profile) != Some(id) && !profile.starts_with("arn:aws:bedrock:") {
                let problem = format!(
                    "'{profile}' is no inference profile of '{id}': wanted a geography, '.' and the id, or an ARN"
                );
                return Err(at(format!("inference_profiles.{id}"), problem));
            }
        }
        let host = |service: Service| (service, format!("{}{fips}.{name}.amazonaws.com", service.name()));
        let hosts = SERVICES.into_iter().map(host).collect();
        Ok((name.clone(), Region { name, hosts, inference_profiles }))
    };
    regions.into_iter().map(compile).collect()
}

/// `us-east-1` and the like: the name becomes part of a host name.
fn check_region_name(name: &str) -> Result<(), ConfigError> {
    let key = || format!("regions.{name}");
    if name.starts_with("us-gov-") || name.starts_with("cn-") || name.contains("-iso") {
        return Err(at(key(), "is not a region of the Commercial partition"));
    }
    let parts: Vec<_> = name.split('-').collect();
    match parts.as_slice() {
        [area, direction, number]
            if area.len() == 2
                && area.bytes().chain(direction.bytes()).all(|b| b.is_ascii_lowercase())
                && !direction.is_empty()
                && matches!(number.as_bytes(), [b'1'..=b'9']) =>
        {
            Ok(())
        }
        _ => Err(at(key(), "is no region name; wanted one like us-east-1")),
    }
}

fn classes(classes: Vec<crate::config::RouteClass>) -> Result<Vec<RouteClass>, ConfigError> {
    if classes.is_empty() {
        return Err(at("route_classes", "name at least one class, or every call is refused"));
    }
    let mut compiled: Vec<RouteClass> = Vec::new();
    for (index, class) in classes.into_iter().enumerate() {
        let key = |key: &str| format!("route_classes[{index}].{key}");
        let name = class.name;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(at(key("name"), format!("'{name}' is no class name: lower-case letters, digits and '-'")));
        }
        if compiled.iter().any(|other| other.name == name) {
            return Err(at(key("name"), format!("'{name}' is there twice")));
        }
        if class.paths.is_empty() {
            return Err(at(key("paths"), format!("class '{name}' has no path; known are dx, vpn, internet")));
        }
        for (at_path, path) in class.paths.iter().enumerate() {
            if class.paths.iter().take(at_path).any(|earlier| earlier == path) {
                return Err(at(key("paths"), format!("path '{}' is there twice", path.name())));
            }
        }
        if class.operations.as_ref().is_some_and(Vec::is_empty) {
            return Err(at(key("operations"), "an empty list matches no call; leave the key out to match all"));
        }
        if class.body_bytes.is_some_and(|bounds| bounds.max.is_some_and(|max| max < bounds.min)) {
            return Err(at(key("body_bytes"), "`max` is less than `min`: no call matches"));
        }
        let list = |name: &str, texts: Option<Vec<String>>| match texts {
            Some(texts) if texts.is_empty() => {
                Err(at(key(name), "an empty list matches no call; leave the key out to match all"))
            }
            Some(texts) => patterns(&key(name), &texts).map(Some),
            None => Ok(None),
        };
        compiled.push(RouteClass {
            models: list("models", class.models)?,
            operations: class.operations,
            principals: list("principals", class.principals)?,
            streaming: class.streaming,
            body_bytes: class.body_bytes,
            clusters: SERVICES.into_iter().map(|service| (service, format!("{}.{name}", service.name()))).collect(),
            name,
        });
    }
    Ok(compiled)
}

fn patterns(key: &str, texts: &[String]) -> Result<Vec<Pattern>, ConfigError> {
    let compile = |(index, text): (usize, &String)| {
        if text.is_empty() || text.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(at(
                format!("{key}[{index}]"),
                format!("{text:?} is no pattern: visible characters, '*' for any run"),
            ));
        }
        Ok(Pattern::new(text.as_str()))
    };
    texts.iter().enumerate().map(compile).collect()
}

fn at(key: impl Into<String>, problem: impl ToString) -> ConfigError {
    ConfigError { key: key.into(), problem: problem.to_string() }
}

fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let known: Vec<_> = known.map(String::as_str).collect();
    format!("unknown {kind} '{name}'; known: {}", known.join(", "))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
