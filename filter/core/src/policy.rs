//! The configuration compiled into a policy that cannot be wrong: every name checked, every table closed.

mod findings;
mod opaque;
mod usable;
mod warnings;

pub(crate) use opaque::Dependence;
pub use usable::Viewer;

use crate::access::{Access, Readers};
use crate::bedrock_headers;
use crate::buffers::Budgets;
use crate::catalogue::govcloud::GovCloud;
use crate::catalogue::lists::Lists;
use crate::catalogue::offers::Offers;
use crate::config::{self, Auth, BodyBytes, Config, ConfigError, Effect, GroupSource, Limits, Principal, Role, at};
use crate::credentials::source::CredentialSources;
use crate::encoding::hex;
use crate::lambda_api::LambdaApi;
use crate::model::{self, GovCloudId, Pattern, patterns};
use crate::names::{PathName, RegionName};
use crate::operation::{Operation, OperationGroup, Service, arn_account};
use crate::quota::OutputRates;
use crate::region::{self, Region};
use crate::request_metadata::RequestMetadata;
use crate::residency::{Residency, ResidencyRefusal};
use crate::resolve::ResolveRules;
use crate::retention::rules::RetentionRules;
use crate::route::{self, Cluster, RouteClass, SERVICES, Subject};
use crate::rules::{self, Rules};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// An Envoy set up as documented cannot buffer longer bodies.
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
    /// Where the caller's groups come from.
    pub groups: Vec<GroupSource>,
    /// Who may call at all.
    pub access: Access,
    /// Who may call what.
    pub rules: Rules,
    /// The cluster that streams are sent through.
    pub stream_relay: Option<String>,
    /// The lengths of the bodies that Envoy's own filter hashes.
    pub(crate) envoy_hashes: Option<BodyBytes>,
    /// Longest request body in bytes.
    pub max_body_bytes: u64,
    /// The groups of operations that are carried besides the others.
    optional_operations: Vec<OperationGroup>,
    /// How much the bodies of all calls may occupy.
    pub budgets: Budgets,
    pub(crate) output_rates: OutputRates,
    /// How long a path must have been healthy before calls take it again.
    pub failback: Duration,
    /// Where credentials come from.
    pub credential_sources: CredentialSources,
    /// The audit collector.
    pub audit: Option<Collector>,
    /// What is asked of the regions' lists, if they are polled.
    pub catalogue: Option<CatalogueRules>,
    /// How the regions' data retention is polled and judged, if a class demands something of it.
    pub retention: Option<RetentionRules>,
    /// How resources are resolved whose ids do not name a model.
    pub resolve: Option<ResolveRules>,
    /// How long a call waits for the first credentials.
    pub credentials_wait: Duration,
    /// Headers that cross besides the known ones.
    pub(crate) headers: Vec<String>,
    pub(crate) request_metadata: RequestMetadata,
    /// The API of the Lambda-based proxy, if it is offered.
    pub(crate) lambda_api: Option<LambdaApi>,
    /// Who may read the gateway's own API, if it is offered.
    pub(crate) api_readers: Option<Readers>,
    pub(crate) govcloud: GovCloud,
    digest: String,
    residency: Residency,
    govcloud_accounts: Vec<String>,
    /// Whether an id's ARN may be allowed where the id is not: a pattern of models is one of ARNs.
    names_arns: bool,
    regions: BTreeMap<RegionName, Region>,
    own_region: Option<RegionName>,
    aliases: BTreeMap<String, String>,
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
    classes: Vec<RouteClass>,
}

/// The audit collector, as the gateway role reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// The cluster of its socket.
    pub cluster: String,
    /// How long a call waits for its intent.
    pub deadline: Duration,
}

/// How the regions' lists are polled and used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueRules {
    /// The time between two polls of a region; `None`: they are never polled.
    pub refresh: Option<Duration>,
    /// Whether a global profile may be chosen for a bare id.
    pub global: bool,
    /// The cluster that polls are sent through.
    pub cluster: String,
    /// What regions offer before the first poll.
    pub(crate) snapshot: BTreeMap<RegionName, Arc<Offers>>,
}

/// Why an operation is refused, whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OperationRefusal {
    /// It is of a group that the document does not list.
    #[error("the gateway carries {operation} only if `optional_operations` of its document lists `{group}`", group = group.name())]
    NotListed {
        /// The operation.
        operation: Operation,
        /// Its group.
        group: OperationGroup,
    },
    /// It does not take the API key that the gateway has.
    #[error("Bedrock takes no API key for {0}, and the gateway has nothing else (`auth: bearer` of its document)")]
    ApiKey(Operation),
}

/// Why a model is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelRefusal {
    /// It is not in the Commercial partition.
    #[error(transparent)]
    GovCloud(#[from] GovCloudId),
    /// The operator's policy does not allow it.
    #[error("the gateway's policy does not allow model '{0}'")]
    Policy(String),
    /// It may run elsewhere than the operator allows.
    #[error(transparent)]
    Residency(#[from] ResidencyRefusal),
    /// The operator's policy does not allow a model that a resource runs.
    #[error("the gateway's policy does not allow model '{model}', which '{id}' runs")]
    Runs {
        /// What was named.
        id: String,
        /// What it runs.
        model: String,
    },
    /// The classes of the models that a resource runs contradict one another.
    #[error(
        "'{id}' runs models of the route classes '{first}' and '{second}' of the gateway, and neither binds a call as much as the other in paths, regions and audit"
    )]
    Classes {
        /// What was named.
        id: String,
        /// A class.
        first: String,
        /// And another.
        second: String,
    },
    /// No route class takes a call of this caller to it, or the rules refuse each.
    #[error("the route classes and rules of the gateway do not let this caller call model '{0}'")]
    NoClass(String),
    /// It does not say which model runs, and a rule depends on that.
    #[error(
        "the gateway cannot tell which model '{id}' is, and {rule} depends on it: name a foundation model or a system-defined inference profile, or let the operator list '{id}' there"
    )]
    Unresolved {
        /// What was named.
        id: String,
        /// The key of the rule.
        rule: &'static str,
    },
}

// === impl Collector ===

impl Collector {
    /// The bounds of [`Collector::deadline`], in milliseconds.
    const DEADLINES: RangeInclusive<u32> = 10..=60_000;

    fn compile(config: &config::Audit) -> Result<Self, ConfigError> {
        check_own_cluster("audit.cluster", &config.cluster)?;
        if !Self::DEADLINES.contains(&config.deadline_ms) {
            let (least, most) = (Self::DEADLINES.start(), Self::DEADLINES.end());
            let problem = format!("want a whole number from {least} to {most}, not {}", config.deadline_ms);
            return Err(at("audit.deadline_ms", problem));
        }
        Ok(Self { cluster: config.cluster.clone(), deadline: Duration::from_millis(config.deadline_ms.into()) })
    }
}

// === impl CatalogueRules ===

impl CatalogueRules {
    /// The bounds of [`CatalogueRules::refresh`], in seconds.
    const REFRESH: RangeInclusive<u32> = 5..=86_400;

    fn compile(catalogue: &config::Catalogue, document: &Config) -> Result<Self, ConfigError> {
        let (config, regions) = (catalogue, &document.regions);
        if document.role == Role::Combined {
            let problem = "role `combined` has no signer that could sign a poll: leave the key out";
            return Err(at("catalogue", problem));
        }
        let polls = config.refresh_seconds != 0;
        if !polls && config.snapshot.is_empty() {
            let problem = "0 means that regions are never polled: give `catalogue.snapshot`, or seconds from 5";
            return Err(at("catalogue.refresh_seconds", problem));
        }
        if polls && !Self::REFRESH.contains(&config.refresh_seconds) {
            let (least, most) = (Self::REFRESH.start(), Self::REFRESH.end());
            let problem = format!("want a whole number from {least} to {most}, not {}", config.refresh_seconds);
            return Err(at("catalogue.refresh_seconds", problem));
        }
        let cluster = config.cluster.as_deref().unwrap_or_default();
        if polls {
            check_poll_cluster("catalogue.cluster", cluster, document)?;
        }
        let refresh = polls.then(|| Duration::from_secs(config.refresh_seconds.into()));
        let mut snapshot = BTreeMap::new();
        for (region, saved) in &config.snapshot {
            if !regions.contains_key(region) {
                let known = regions.keys().map(RegionName::as_str);
                return Err(ConfigError::unknown(
                    format!("catalogue.snapshot.{region}"),
                    "region",
                    region.as_str(),
                    known,
                ));
            }
            let offers = Lists::of_ids(&saved.on_demand, &saved.profiles).map_err(|(key, index, id)| {
                let problem = format!("{id:?} is not an id of this kind");
                at(format!("catalogue.snapshot.{region}.{key}[{index}]"), problem)
            })?;
            snapshot.insert(region.clone(), Arc::new(offers.offers()));
        }
        Ok(Self { refresh, global: config.global, cluster: cluster.to_owned(), snapshot })
    }
}

/// Refuses a cluster through which no polls and lookups can go.
fn check_poll_cluster(key: &str, name: &str, document: &Config) -> Result<(), ConfigError> {
    check_own_cluster(key, name)?;
    // A poll would enter its own VM again, by the filter of that listener.
    if document.stream_relay.as_deref() == Some(name) {
        return Err(at(key, "is the cluster of `stream_relay`: polls need a listener of their own"));
    }
    Ok(())
}

fn retention(config: &Config) -> Result<Option<RetentionRules>, ConfigError> {
    let Some(own) = &config.data_retention else { return Ok(None) };
    let rules = RetentionRules::compile(own, config)?;
    check_poll_cluster("data_retention.cluster", &rules.cluster, config)?;
    Ok(Some(rules))
}

fn resolve(config: &Config) -> Result<Option<ResolveRules>, ConfigError> {
    let Some(own) = &config.resolve else { return Ok(None) };
    let rules = ResolveRules::compile(own, config.role)?;
    if rules.refresh.is_some() {
        check_poll_cluster("resolve.cluster", &rules.cluster, config)?;
    }
    Ok(Some(rules))
}

/// The accounts that are GovCloud's.
fn accounts(given: &[String]) -> Result<Vec<String>, ConfigError> {
    for (index, account) in given.iter().enumerate() {
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            let problem = format!("{account:?} is not an account's number: want 12 digits, in quotes");
            return Err(at(format!("govcloud_accounts[{index}]"), problem));
        }
    }
    Ok(given.to_vec())
}

/// Whether a pattern that lets models pass is one of ARNs.
fn names_arns(config: &Config) -> bool {
    let classes = config.route_classes.iter().filter_map(|class| class.models.as_ref());
    let rules = config.rules.iter().filter(|rule| rule.effect == Effect::Allow).filter_map(|rule| rule.models.as_ref());
    let mut all = std::iter::once(&config.models.allow).chain(classes).chain(rules).flatten();
    all.any(|pattern| pattern.starts_with("arn:"))
}

fn optional_operations(config: &Config) -> Result<Vec<OperationGroup>, ConfigError> {
    let groups = &config.optional_operations;
    if let Some((index, group)) =
        groups.iter().enumerate().find(|(index, group)| groups.iter().take(*index).any(|earlier| earlier == *group))
    {
        return Err(at(format!("optional_operations[{index}]"), format!("'{}' is there twice", group.name())));
    }
    let bearer = config.auth == Some(Auth::Bearer);
    if let Some(index) = groups.iter().position(|group| bearer && *group == OperationGroup::AgentRuntime) {
        let problem = "Bedrock takes no API key for these operations: remove `agent_runtime`, or change `auth`";
        return Err(at(format!("optional_operations[{index}]"), problem));
    }
    Ok(groups.clone())
}

/// Refuses a cluster's name that is one of Bedrock's clusters.
fn check_own_cluster(key: &str, name: &str) -> Result<(), ConfigError> {
    let service = name.split('.').next().unwrap_or_default();
    if name.is_empty() || SERVICES.iter().any(|known| known.name() == service) {
        return Err(at(key, "name a cluster of its own, which is none of Bedrock's"));
    }
    Ok(())
}

// === impl Policy ===

impl Policy {
    /// Parses and compiles a configuration document. `environment_paths` is the environment's `BEDROCK_PATHS`: the order of
    /// paths that wins over the document's, without adding one to any class.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what is wrong with it.
    pub fn parse(json: &[u8], environment_paths: Option<&str>) -> Result<Self, ConfigError> {
        Self::compile(&Config::parse(json)?, route::environment_order(environment_paths)?.as_deref())
    }

    /// Compiles a document. `order` is the order of paths that wins over the document's (see [`route::environment_order`]).
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what is wrong with it.
    pub fn compile(config: &Config, order: Option<&[PathName]>) -> Result<Self, ConfigError> {
        let allow = patterns("models.allow", &config.models.allow)?;
        let deny = patterns("models.deny", &config.models.deny)?;
        if allow.is_empty() {
            return Err(at("models.allow", "an empty list allows no model; leave the key out to allow all"));
        }
        if !(1..=MAX_BODY_LIMIT).contains(&config.max_body_bytes) {
            let problem = format!("want a whole number from 1 to {MAX_BODY_LIMIT}, not {}", config.max_body_bytes);
            return Err(at("max_body_bytes", problem));
        }
        let auth = config.auth.unwrap_or_default();
        let credential_sources = CredentialSources::compile(&config.credentials, &config.credential_sets, auth)?;
        let regions = region::compile(&config.regions, &config.inference_profiles, config.fips)?;
        let policy = Self {
            role: config.role,
            auth,
            principal: config.principal.clone(),
            groups: config.groups.clone(),
            access: Access::compile(config)?,
            stream_relay: config.stream_relay.clone(),
            envoy_hashes: config.envoy_hashes_body_bytes,
            max_body_bytes: config.max_body_bytes,
            optional_operations: optional_operations(config)?,
            budgets: Budgets::compile(&config.buffers, config.max_body_bytes)?,
            output_rates: OutputRates::compile(&config.output_rates)?,
            failback: Duration::from_secs(config.failback_seconds.into()),
            classes: route::compile(config, order)?,
            rules: rules::compile(config)?,
            credential_sources,
            audit: config.audit.as_ref().map(Collector::compile).transpose()?,
            catalogue: config.catalogue.as_ref().map(|own| CatalogueRules::compile(own, config)).transpose()?,
            retention: retention(config)?,
            resolve: resolve(config)?,
            credentials_wait: Duration::from_millis(config.credentials_wait_ms.into()),
            headers: bedrock_headers::compile(&config.headers.allow)?,
            request_metadata: RequestMetadata::compile(config)?,
            api_readers: config.gateway_api.as_ref().map(Readers::compile).transpose()?,
            govcloud: config.gateway_api.as_ref().map(GovCloud::compile).transpose()?.unwrap_or_default(),
            digest: hex(&Sha256::digest(Config { role: Role::Gateway, ..config.clone() }.to_json())),
            lambda_api: config
                .lambda_api
                .as_ref()
                .map(|api| LambdaApi::compile(api, (config.role, auth)))
                .transpose()?,
            residency: Residency::compile(config.residency.as_deref())?,
            govcloud_accounts: accounts(&config.govcloud_accounts)?,
            names_arns: names_arns(config),
            regions,
            own_region: config.region.clone(),
            aliases: config.aliases.clone(),
            allow,
            deny,
        };
        policy.check_own_region()?;
        policy.check_stream_relay()?;
        policy.check_hashing()?;
        policy.check_aliases()?;
        policy.check_profiles_are_allowed(config)?;
        policy.check_profiles_are_everywhere()?;
        Ok(policy)
    }

    /// SHA-256 of the document, in hexadecimal, whatever the role.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Model id by alias.
    pub(crate) fn aliases(&self) -> &BTreeMap<String, String> {
        &self.aliases
    }

    /// The region of an endpoint, by its label.
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.regions.get(name)
    }

    /// The regions, in the order of their names.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.values()
    }

    /// The region that role `combined` signs for.
    pub fn own_region(&self) -> Option<&Region> {
        match &self.own_region {
            Some(name) => self.regions.get(name),
            None => self.regions.values().next(),
        }
    }

    /// The services that calls may go to.
    pub fn services(&self) -> impl Iterator<Item = Service> + Clone {
        route::services(&self.optional_operations)
    }

    /// Whether an operation is carried at all.
    ///
    /// # Errors
    /// [`OperationRefusal`] if it is of a group that the document does not list, or takes no API key and the gateway has one.
    pub fn check_operation(&self, operation: Operation) -> Result<(), OperationRefusal> {
        if self.auth == Auth::Bearer && !operation.takes_api_key() {
            return Err(OperationRefusal::ApiKey(operation));
        }
        match operation.group().filter(|group| !self.optional_operations.contains(group)) {
            Some(group) => Err(OperationRefusal::NotListed { operation, group }),
            None => Ok(()),
        }
    }

    /// Whether `residency` lets a call be sent by an id. One that hides where it runs has to be listed in `models.allow`.
    ///
    /// # Errors
    /// [`ResidencyRefusal`] says why not.
    pub fn check_residency(&self, id: &str) -> Result<(), ResidencyRefusal> {
        let is_vouched = || self.allow.iter().any(|pattern| model::vouches(pattern, id));
        match self.residency.check(id) {
            Err(ResidencyRefusal::Hidden(_)) if is_vouched() => Ok(()),
            Err(ResidencyRefusal::Geography { id, geography, .. }) => {
                let bare = model::of_profile(&id).to_owned();
                let has =
                    self.catalogue.is_some() || self.regions.values().any(|own| own.profiles().contains_key(&bare));
                let instead = Some(bare).filter(|bare| has && *bare != id);
                Err(ResidencyRefusal::Geography { id, geography, instead })
            }
            other => other,
        }
    }

    /// The key `residency`.
    pub fn residency(&self) -> &Residency {
        &self.residency
    }

    /// Whether the gateway may choose a profile.
    pub(crate) fn allows_profile(&self, id: &str) -> bool {
        self.allows(id) && self.check_residency(id).is_ok()
    }

    /// An id as the Commercial partition has it.
    ///
    /// # Errors
    /// [`GovCloudId`] if it has none.
    pub fn to_commercial<'a>(&self, id: &'a str) -> Result<&'a str, GovCloudId> {
        let commercial = model::to_commercial(id)?;
        match arn_account(commercial).filter(|account| self.govcloud_accounts.iter().any(|known| known == account)) {
            Some(account) => Err(GovCloudId::Account { id: id.to_owned(), account: account.to_owned() }),
            None => Ok(commercial),
        }
    }

    /// Whether any rule depends on the model. Then an operation that names its model where the gateway does not look
    /// (StartAsyncInvoke, in its body) is refused.
    pub fn depends_on_model(&self) -> bool {
        !self.deny.is_empty()
            || !self.allow.iter().any(Pattern::takes_all)
            || self.residency.is_closed()
            || self.classes.iter().any(RouteClass::depends_on_model)
    }

    /// The classes, in order.
    pub fn classes(&self) -> &[RouteClass] {
        &self.classes
    }

    /// Whether the address of a caller without a name matters: a class has limits for each caller, or callers share lookups.
    pub fn tells_callers_apart(&self) -> bool {
        self.resolve.as_ref().is_some_and(|rules| rules.refresh.is_some())
            || self.classes.iter().any(|class| class.limits() != Limits::default())
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
        self.aliases.values().any(|known| known == id)
            || self
                .regions
                .values()
                .any(|region| region.profiles().iter().any(|(known, profile)| known == id || profile == id))
    }

    /// Whether `models` lets an id cross.
    pub(crate) fn allows(&self, id: &str) -> bool {
        let matches = |patterns: &[Pattern]| model::names(id).any(|name| patterns.iter().any(|p| p.matches(name)));
        matches(&self.allow) && !matches(&self.deny)
    }

    fn check_stream_relay(&self) -> Result<(), ConfigError> {
        let Some(name) = &self.stream_relay else { return Ok(()) };
        check_own_cluster("stream_relay", name)?;
        if self.role == Role::Combined {
            return Err(at("stream_relay", "role `combined` signs by itself and has no relay: leave the key out"));
        }
        Ok(())
    }

    fn check_hashing(&self) -> Result<(), ConfigError> {
        let Some(bounds) = self.envoy_hashes else { return Ok(()) };
        if self.role == Role::Combined {
            let problem = "role `combined` signs before another filter could hash the body: leave the key out";
            return Err(at("envoy_hashes_body_bytes", problem));
        }
        if bounds.max.is_some_and(|max| max < bounds.min) {
            return Err(at("envoy_hashes_body_bytes", "`max` is less than `min`: no body matches"));
        }
        Ok(())
    }

    fn check_own_region(&self) -> Result<(), ConfigError> {
        if let Some(name) = self.own_region.as_ref().filter(|name| !self.regions.contains_key(*name)) {
            let known = self.regions.keys().map(RegionName::as_str);
            return Err(ConfigError::unknown("region", "region", name.as_str(), known));
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
                let key = format!("regions.{}.hosts.{path}", own.name());
                return Err(at(key, "role `combined` signs one Host for all paths: give every path the same, or none"));
            }
        }
        Ok(())
    }

    /// If one region of a class calls a model by a profile, the other regions of the class need a profile for it too, unless the
    /// catalogue finds it.
    fn check_profiles_are_everywhere(&self) -> Result<(), ConfigError> {
        if self.catalogue.is_some() {
            return Ok(());
        }
        for class in &self.classes {
            let regions = || class.regions().iter().filter_map(|name| self.regions.get(name));
            for id in regions().flat_map(|region| region.profiles().keys()) {
                if let Some(lacking) = regions().find(|region| !region.profiles().contains_key(id)) {
                    let problem =
                        format!("lacks '{id}', which another region of class '{}' calls by a profile", class.name());
                    return Err(at(format!("regions.{}.inference_profiles", lacking.name()), problem));
                }
            }
        }
        Ok(())
    }

    /// An alias must not lead around the model policy.
    fn check_aliases(&self) -> Result<(), ConfigError> {
        for (alias, id) in &self.aliases {
            let key = format!("aliases.{alias}");
            if let Some(model) = self.aliases.get(id) {
                let nearest = Some(model.clone());
                return Err(ConfigError { nearest, ..at(key, format!("'{id}' is an alias itself")) });
            }
            self.check_alias(id).map_err(|refusal| at(key, refusal))?;
        }
        Ok(())
    }

    /// A profile must not lead around the model policy.
    fn check_profiles_are_allowed(&self, config: &Config) -> Result<(), ConfigError> {
        for (name, region) in &self.regions {
            for (id, profile) in region.profiles().iter().filter(|(id, _)| self.allows(id)) {
                let refused = self.allows(profile).then(|| self.check_residency(profile).err());
                let problem = match refused {
                    Some(None) => continue,
                    Some(Some(refusal)) => format!("the profile of region {name} is refused: {refusal}"),
                    None => format!("the profile '{profile}' of region {name} is refused by `models`"),
                };
                let own = config.regions.get(name).is_some_and(|own| own.inference_profiles.contains_key(id));
                let table = if own { format!("regions.{name}.") } else { String::new() };
                return Err(at(format!("{table}inference_profiles.{id}"), problem));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;

/// How a document is read, and what is refused.
#[cfg(test)]
#[path = "document_tests.rs"]
mod document_tests;
