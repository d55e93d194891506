//! The configuration compiled into a policy that cannot be wrong: every name checked, every table closed.

use crate::config::{self, Auth, Config, ConfigError, Path, Principal, Role};
use crate::credentials::wallet;
use crate::model::{self, GovOnly, Pattern};
use crate::operation::Service;
use crate::route::{self, Cluster, RouteClass, SERVICES, Subject};
use std::collections::BTreeMap;
use std::time::Duration;

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
    /// The cluster that streams are sent through.
    pub stream_relay: Option<String>,
    /// Longest request body in bytes.
    pub max_body_bytes: u64,
    /// How long a path must have been healthy before calls take it again.
    pub failback: Duration,
    /// Where credentials come from, unless a class says otherwise.
    pub credentials: config::Credentials,
    /// Further sources, by name.
    pub credential_sets: BTreeMap<String, config::Credentials>,
    /// How long a call waits for the first credentials.
    pub credentials_wait: Duration,
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
    fips: bool,
    /// Where they are not the public ones.
    hosts: BTreeMap<Path, BTreeMap<Service, String>>,
    inference_profiles: BTreeMap<String, String>,
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
    /// Parses and compiles a configuration document. `environment_paths` is the environment's `BEDROCK_PATHS`: the order of
    /// paths that wins over the document's, without adding one to any class.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what is wrong with it.
    pub fn parse(json: &[u8], environment_paths: Option<&str>) -> Result<Self, ConfigError> {
        Self::compile(Config::parse(json)?, route::environment_order(environment_paths)?.as_deref())
    }

    fn compile(config: Config, order: Option<&[Path]>) -> Result<Self, ConfigError> {
        let allow = patterns("models.allow", &config.models.allow)?;
        let deny = patterns("models.deny", &config.models.deny)?;
        if config.models.allow.is_empty() {
            return Err(at("models.allow", "an empty list allows no model; leave the key out to allow all"));
        }
        if !(1..=MAX_BODY_LIMIT).contains(&config.max_body_bytes) {
            return Err(at("max_body_bytes", format!("must lie between 1 and {MAX_BODY_LIMIT}")));
        }
        let names: Vec<String> = config.regions.keys().cloned().collect();
        if config.credential_sets.contains_key(wallet::DEFAULT) {
            return Err(at("credential_sets.default", "is the name of `credentials`; choose another"));
        }
        let sets: Vec<&String> = config.credential_sets.keys().collect();
        for (index, class) in config.route_classes.iter().enumerate() {
            if let Some(name) = class.credentials.as_ref().filter(|name| !sets.contains(name)) {
                let known = sets.iter().map(|name| name.as_str());
                return Err(at(format!("route_classes[{index}].credentials"), unknown("set", name, known)));
            }
        }
        let policy = Self {
            role: config.role,
            auth: config.auth,
            principal: config.principal,
            stream_relay: config.stream_relay,
            max_body_bytes: config.max_body_bytes,
            failback: Duration::from_secs(config.failback_seconds.into()),
            credentials: config.credentials,
            credential_sets: config.credential_sets,
            credentials_wait: Duration::from_millis(config.credentials_wait_ms.into()),
            regions: regions(config.regions, &config.inference_profiles, config.fips)?,
            classes: route::compile(config.route_classes, &names, order)?,
            own_region: config.region,
            aliases: config.aliases,
            allow,
            deny,
        };
        policy.check_own_region()?;
        policy.check_stream_relay()?;
        policy.check_models()?;
        policy.check_profiles()?;
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
            || self.classes.iter().any(RouteClass::depends_on_model)
    }

    /// The classes, in order.
    pub fn classes(&self) -> &[RouteClass] {
        &self.classes
    }

    /// The class of a name.
    pub fn class(&self, name: &str) -> Option<&RouteClass> {
        self.classes.iter().find(|class| class.name() == name)
    }

    /// Every cluster that calls may be sent to.
    pub fn clusters(&self) -> impl Iterator<Item = (&RouteClass, Cluster<'_>)> {
        self.classes.iter().flat_map(|class| class.clusters().into_iter().map(move |cluster| (class, cluster)))
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

    fn check_stream_relay(&self) -> Result<(), ConfigError> {
        let Some(name) = &self.stream_relay else { return Ok(()) };
        let service = name.split('.').next().unwrap_or_default();
        if name.is_empty() || SERVICES.iter().any(|known| known.name() == service) {
            return Err(at("stream_relay", "must name a cluster of its own, which is none of Bedrock's"));
        }
        if self.role == Role::Combined {
            return Err(at("stream_relay", "role `combined` signs by itself and has no relay: leave the key out"));
        }
        Ok(())
    }

    fn check_own_region(&self) -> Result<(), ConfigError> {
        if let Some(name) = self.own_region.as_ref().filter(|name| !self.regions.contains_key(*name)) {
            return Err(at("region", unknown("region", name, self.regions.keys().map(String::as_str))));
        }
        if self.role != Role::Combined {
            return Ok(());
        }
        let Some(own) = self.own_region() else { return Ok(()) };
        if self.own_region.is_none() && self.regions.len() > 1 {
            return Err(at("region", "role `combined` signs for one region: say which of `regions`"));
        }
        for (index, class) in self.classes.iter().enumerate() {
            if let Some(other) = class.regions().iter().find(|region| *region != own.name()) {
                let problem = format!("role `combined` signs for {} only, and the class may go to {other}", own.name());
                return Err(at(format!("route_classes[{index}].regions"), problem));
            }
        }
        // Its one signature is for one Host, whichever path the call takes.
        let all = self.classes.iter().flat_map(RouteClass::paths);
        for service in SERVICES {
            if let Some(path) = all.clone().find(|path| own.host(**path, service) != own.host_of_all(service)) {
                let key = format!("regions.{}.hosts.{}", own.name(), path.name());
                return Err(at(key, "role `combined` signs one Host for all paths: give every path the same, or none"));
            }
        }
        Ok(())
    }

    /// What one region calls by a profile, another that the same calls may go to must have a profile for.
    fn check_profiles(&self) -> Result<(), ConfigError> {
        for class in &self.classes {
            let regions = || class.regions().iter().filter_map(|name| self.regions.get(name));
            for id in regions().flat_map(|region| region.inference_profiles.keys()) {
                if let Some(lacking) = regions().find(|region| !region.inference_profiles.contains_key(id)) {
                    let problem =
                        format!("lacks '{id}', which another region of class '{}' calls by a profile", class.name());
                    return Err(at(format!("regions.{}.inference_profiles", lacking.name), problem));
                }
            }
        }
        Ok(())
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

    /// The host name of a service's endpoint, as calls on a path are sent and signed.
    pub fn host(&self, path: Path, service: Service) -> String {
        let own = self.hosts.get(&path).and_then(|hosts| hosts.get(&service));
        own.cloned().unwrap_or_else(|| public_host(service, self.fips, &self.name))
    }

    /// The host name for role `combined`, whose signature has to hold on every path.
    pub fn host_of_all(&self, service: Service) -> String {
        let own = self.hosts.values().find_map(|hosts| hosts.get(&service));
        own.cloned().unwrap_or_else(|| public_host(service, self.fips, &self.name))
    }

    /// The inference profile that a bare model id needs here, else the id itself.
    pub fn profile<'a>(&'a self, id: &'a str) -> &'a str {
        self.inference_profiles.get(id).map_or(id, String::as_str)
    }
}

fn regions(
    regions: BTreeMap<String, crate::config::Region>,
    general: &BTreeMap<String, String>,
    fips: bool,
) -> Result<BTreeMap<String, Region>, ConfigError> {
    if regions.is_empty() {
        return Err(at("regions", "name at least one Commercial region"));
    }
    let compile = |(name, own): (String, crate::config::Region)| {
        check_region_name(&name)?;
        let mut inference_profiles = general.clone();
        inference_profiles.extend(own.inference_profiles);
        for (id, profile) in &inference_profiles {
            if let Some(problem) = misplaced(profile, &name) {
                return Err(at(format!("inference_profiles.{id}"), problem));
            }
            if model::without_geography(profile) != Some(id) && !profile.starts_with("arn:aws:bedrock:") {
                let problem = format!(
                    "'{profile}' is no inference profile of '{id}': wanted a geography, '.' and the id, or an ARN"
                );
                return Err(at(format!("inference_profiles.{id}"), problem));
            }
        }
        for (path, hosts) in &own.hosts {
            for (service, host) in hosts {
                if !is_endpoint(host, *service, &name) {
                    let key = format!("regions.{name}.hosts.{}.{}", path.name(), service.name());
                    let problem = format!(
                        "'{host}' is no endpoint of {0} in {name}: wanted {0}[-fips].{name}.amazonaws.com, its .api.aws \
                         variant, or a VPC endpoint's vpce-….{0}[-fips].{name}.vpce.amazonaws.com",
                        service.name()
                    );
                    return Err(at(key, problem));
                }
            }
        }
        Ok((name.clone(), Region { name, fips, hosts: own.hosts, inference_profiles }))
    };
    regions.into_iter().map(compile).collect()
}

/// `bedrock-runtime.us-east-1.amazonaws.com`, or `bedrock-runtime-fips.…`.
fn public_host(service: Service, fips: bool, region: &str) -> String {
    let fips = if fips { "-fips" } else { "" };
    format!("{}{fips}.{region}.amazonaws.com", service.name())
}

/// Whether a host name is one of AWS's for a service and region: what is signed must not go to another.
fn is_endpoint(host: &str, service: Service, region: &str) -> bool {
    ["", "-fips"].iter().any(|fips| {
        let base = format!("{}{fips}.{region}", service.name());
        let Some(prefix) = host.strip_suffix(&format!(".{base}.vpce.amazonaws.com")) else {
            return host == format!("{base}.amazonaws.com") || host == format!("{base}.api.aws");
        };
        prefix.starts_with("vpce-") && prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    })
}

/// What is wrong with a profile whose geography a region is not in. (`us.` profiles may be called from Canada too.)
fn misplaced(profile: &str, region: &str) -> Option<String> {
    let areas: &[&str] = match profile.split('.').next()? {
        "us" => &["us-", "ca-"],
        "eu" => &["eu-"],
        "apac" | "jp" | "au" => &["ap-"],
        "ca" => &["ca-"],
        _ => return None,
    };
    let there = areas.iter().any(|area| region.starts_with(area));
    (!there).then(|| format!("the profile '{profile}' cannot be called in region {region}: it is of another geography"))
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

pub(crate) fn patterns(key: &str, texts: &[String]) -> Result<Vec<Pattern>, ConfigError> {
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

pub(crate) fn at(key: impl Into<String>, problem: impl ToString) -> ConfigError {
    ConfigError { key: key.into(), problem: problem.to_string() }
}

pub(crate) fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    format!("unknown {kind} '{name}'; known: {}", known.join(", "))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
