//! Route classes: which calls may take which paths, where a call is tried first, and the cluster that tries the rest.
//!
//! Envoy's clusters are fixed, and a retry stays in its cluster. So there is one cluster per service, path and region tried
//! first. [`RouteClass::clusters`] lists them all, for the renderer of Envoy's configuration.

mod compile;
mod coverage;
mod region_set;
mod weights;

pub(crate) use compile::compile;
pub use compile::{ENVIRONMENT_KEY, environment_order};
pub(crate) use coverage::{covers_patterns, findings};
pub use region_set::RegionSet;

use crate::config::{AuditMode, BodyBytes, Dscp, Limits, Priority, RegionOrder, Retention, SessionScope, is_within};
use crate::credentials::id::CredentialId;
use crate::credentials::session_name::SessionName;
use crate::model::{self, Pattern};
use crate::names::{PathName, RegionName};
use crate::operation::{Operation, OperationGroup, RegionScope, Service};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;
use weights::in_order_of_weight;
pub(crate) use weights::point;

/// The services, each with clusters of its own where the document carries its operations.
pub const SERVICES: [Service; 3] = [Service::BedrockRuntime, Service::Bedrock, Service::BedrockAgentRuntime];

/// The services that calls may go to in a document with these `optional_operations`.
pub fn services(optional: &[OperationGroup]) -> impl Iterator<Item = Service> + Clone {
    SERVICES.into_iter().filter(|service| service.group().is_none_or(|group| optional.contains(&group)))
}

/// A rule: which calls may take which paths.
#[derive(Debug)]
pub struct RouteClass {
    name: String,
    /// Those that have clusters.
    services: Vec<Service>,
    models: Option<Vec<Pattern>>,
    operations: Option<Vec<Operation>>,
    principals: Option<Vec<Pattern>>,
    streaming: Option<bool>,
    body_bytes: Option<BodyBytes>,
    /// In the document's order.
    own_paths: Vec<PathName>,
    /// In the environment's order, without those that it does not name.
    paths: Vec<PathName>,
    weights: Option<BTreeMap<PathName, u32>>,
    regions: Vec<RegionName>,
    region_order: RegionOrder,
    region_weights: Option<BTreeMap<RegionName, u32>>,
    region_sticky: bool,
    retention: Option<Retention>,
    priority: Priority,
    dscp: Option<Dscp>,
    bandwidth_kbps: Option<u64>,
    first_byte_timeout: Option<Duration>,
    catalogue_max_age: Option<Duration>,
    limits: Limits,
    credentials: String,
    session: SessionScope,
    audit: AuditMode,
}

/// What a route class is matched against.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The operation.
    pub operation: Operation,
    /// The model id as resolved, if the operation names one.
    pub model: Option<&'a str>,
    /// The caller's name.
    pub principal: Option<&'a str>,
    /// The length of the body in bytes, if it is known before the body arrives.
    pub body_bytes: Option<u64>,
}

/// The regions of its class that a call may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionChoice<'a> {
    /// Every region of the class, this one first.
    From(&'a RegionName),
    /// This region only.
    Only(&'a RegionName),
    /// Several regions of a class with `retention`, but not all, this one first.
    Among(&'a RegionName, RegionSet),
}

/// A cluster of Envoy: where the calls of a class to a service are tried, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster<'a> {
    /// The cluster's name.
    pub name: String,
    /// The service.
    pub service: Service,
    /// Path and region of each endpoint, in order of priority.
    pub endpoints: Vec<(PathName, &'a RegionName)>,
}

impl RouteClass {
    /// The class's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The paths, in order.
    pub fn paths(&self) -> &[PathName] {
        &self.paths
    }

    /// The regions, in order.
    pub fn regions(&self) -> &[RegionName] {
        &self.regions
    }

    /// Which region a call tries first, where weights do not say it.
    pub fn region_order(&self) -> RegionOrder {
        self.region_order
    }

    /// What it demands of the regions' data retention.
    pub fn retention(&self) -> Option<Retention> {
        self.retention
    }

    /// Envoy's routing priority.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The DSCP value of packets to the upstreams.
    pub fn dscp(&self) -> Option<u8> {
        self.dscp.map(Dscp::value)
    }

    /// Bandwidth in KiB/s.
    pub fn bandwidth_kbps(&self) -> Option<u64> {
        self.bandwidth_kbps
    }

    /// How long an attempt may take until the first byte of its response's body.
    pub fn first_byte_timeout(&self) -> Option<Duration> {
        self.first_byte_timeout
    }

    /// The age of a region's lists beyond which they decide no call.
    pub(crate) fn catalogue_max_age(&self) -> Option<Duration> {
        self.catalogue_max_age
    }

    /// What one caller may use.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The name of its source of credentials in the credential store.
    pub fn credentials(&self) -> &str {
        &self.credentials
    }

    /// The credentials of a caller's call; `None`: the class makes sessions by name, and the caller has none.
    pub fn credential_id(&self, principal: Option<&str>) -> Option<CredentialId> {
        let source = self.credentials.clone();
        match self.session {
            SessionScope::Shared => Some(CredentialId { source, session: None }),
            SessionScope::Principal => Some(CredentialId { source, session: Some(SessionName::of(principal?)) }),
        }
    }

    /// What it demands of the audit.
    pub fn audit(&self) -> AuditMode {
        self.audit
    }

    /// The patterns of models that it takes; `None`: all.
    pub(crate) fn models(&self) -> Option<&[Pattern]> {
        self.models.as_deref()
    }

    /// The operations that it takes; `None`: all.
    pub(crate) fn operations(&self) -> Option<&[Operation]> {
        self.operations.as_deref()
    }

    /// Whether the model decides which calls match this class.
    pub fn depends_on_model(&self) -> bool {
        self.models.is_some()
    }

    /// Whether the length of the body decides which calls match this class.
    pub(crate) fn depends_on_length(&self) -> bool {
        self.body_bytes.is_some()
    }

    /// Whether the caller's name decides which calls match this class.
    pub fn depends_on_principal(&self) -> bool {
        self.principals.is_some()
    }

    /// Whether the class takes calls of the caller.
    pub fn takes_caller(&self, principal: Option<&str>) -> bool {
        let Some(patterns) = &self.principals else { return true };
        principal.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
    }

    /// Whether a caller's name decides its region by weight.
    pub fn region_sticky(&self) -> bool {
        self.region_sticky
    }

    /// Whether the call matches the class.
    pub fn matches(&self, call: Subject<'_>) -> bool {
        self.mismatch(call).is_none()
    }

    /// The same, whatever the call's model.
    pub(crate) fn matches_whatever_model(&self, call: Subject<'_>) -> bool {
        self.mismatch_with(call, |_| true).is_none()
    }

    /// Whether calls of this class are bound at least as much as those of another: they take no other path and region, have the same
    /// credentials, and no laxer limit, retention or age of the lists, and their records are as sure.
    pub(crate) fn binds_like(&self, other: &Self) -> bool {
        let rank = |class: &Self| match class.audit {
            AuditMode::Required => 2,
            AuditMode::BestEffort => 1,
            AuditMode::Off => 0,
        };
        self.paths.iter().all(|path| other.paths.contains(path))
            && self.regions.iter().all(|region| other.regions.contains(region))
            && (&self.credentials, self.session) == (&other.credentials, other.session)
            && self.retains_like(other)
            && self.limits.bind_like(other.limits)
            && is_within(self.catalogue_max_age, other.catalogue_max_age)
            && rank(self) >= rank(other)
    }

    /// Whether its demand of the data retention holds for another class too. `same` is the mode of the class's own first region.
    fn retains_like(&self, other: &Self) -> bool {
        match other.retention {
            None => true,
            Some(Retention::Same) if self.regions.first() != other.regions.first() => false,
            wanted => self.retention == wanted,
        }
    }

    /// The key of the first condition that the call does not meet; `None` if it matches the class.
    pub fn mismatch(&self, call: Subject<'_>) -> Option<&'static str> {
        let any = |patterns: &[Pattern], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        self.mismatch_with(call, |patterns| {
            call.model.is_some_and(|id| model::names(id).any(|name| any(patterns, name)))
        })
    }

    fn mismatch_with(&self, call: Subject<'_>, models: impl Fn(&[Pattern]) -> bool) -> Option<&'static str> {
        let any = |patterns: &[Pattern], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        if self.operations.as_ref().is_some_and(|operations| !operations.contains(&call.operation)) {
            return Some("operations");
        }
        if self.models.as_ref().is_some_and(|patterns| !models(patterns)) {
            return Some("models");
        }
        if let Some(patterns) = &self.principals
            && !call.principal.is_some_and(|name| any(patterns, name))
        {
            return Some("principals");
        }
        if self.streaming.is_some_and(|streaming| streaming != call.operation.streams()) {
            return Some("streaming");
        }
        let length = call.body_bytes.unwrap_or(u64::MAX);
        if self.body_bytes.is_some_and(|bounds| !bounds.has(length)) {
            return Some("body_bytes");
        }
        None
    }

    /// The path that the calls of a caller try first; `None` if the environment leaves the class no path.
    pub fn first_path(&self, caller: &str) -> Option<PathName> {
        let first = self.paths.first().copied();
        let Some(weights) = &self.weights else { return first };
        let weighted = self.paths.iter().filter_map(|path| Some((*path, *weights.get(path)?)));
        in_order_of_weight(weighted, |path| point(&[&self.name, path.as_str(), caller])).first().copied().or(first)
    }

    /// What decides a call's region by weight: its caller, or the call itself. `caller` is the call's id if it has no name.
    pub fn region_key<'a>(&self, caller: &'a str, call_id: &'a str) -> &'a str {
        if self.region_sticky { caller } else { call_id }
    }

    /// Chooses the regions of a call. `order` gives those of the class in the call's own order, by default
    /// [`RouteClass::regions_for`]. `admits` says whether a region takes new calls now. If none does, the one that would have
    /// been first is called anyway, so that the client sees Bedrock's own response. `None` if the class has no region.
    pub fn choose_region<'a>(
        &'a self,
        scope: &RegionScope,
        order: impl FnOnce() -> Vec<&'a RegionName>,
        admits: impl Fn(&str) -> bool,
    ) -> Option<RegionChoice<'a>> {
        let first = self.regions_of(scope).first()?;
        if *scope != RegionScope::Anywhere {
            return Some(RegionChoice::Only(first));
        }
        let order = order();
        let wanted = order.first().copied().unwrap_or(first);
        // A lone region is called whatever `admits` says.
        let several = order.len() > 1;
        let admitted = several.then(|| order.iter().copied().find(|region| admits(region.as_str()))).flatten();
        Some(RegionChoice::From(admitted.unwrap_or(wanted)))
    }

    /// The regions that may serve a call.
    pub(crate) fn regions_of(&self, scope: &RegionScope) -> &[RegionName] {
        let only = match scope {
            RegionScope::Anywhere => return &self.regions,
            RegionScope::First => None,
            // For an ARN of a region that the class does not have, Bedrock's own error is the right one.
            RegionScope::Region(name) => self.regions.iter().find(|known| known.as_str() == name),
        };
        only.or(self.regions.first()).map_or(&[], std::slice::from_ref)
    }

    /// The regions in the order of a key ([`RouteClass::region_key`]) by weight. Those without weight come after, in the class's
    /// order.
    pub fn regions_for(&self, key: &str) -> Vec<&RegionName> {
        let Some(weights) = &self.region_weights else { return self.regions.iter().collect() };
        let weighted = self.regions.iter().filter_map(|region| Some((region, *weights.get(region)?)));
        let mut order = in_order_of_weight(weighted, |region| point(&[&self.name, region.as_str(), key]));
        let rest: Vec<_> = self.regions.iter().filter(|region| !order.contains(region)).collect();
        order.extend(rest);
        order
    }

    /// The name of the cluster for a first path and a choice of regions: `{service}.{class}`, then the order of paths where it
    /// differs from the document's, then the region where the class has several.
    pub fn cluster(&self, service: Service, first: PathName, choice: RegionChoice<'_>) -> String {
        let mut name = format!("{}.{}", service.name(), self.name);
        let order = self.path_order(first);
        if order != self.own_paths {
            for (index, path) in order.iter().enumerate() {
                name.push(if index == 0 { '.' } else { '-' });
                name.push_str(path.as_str());
            }
        }
        if self.regions.len() > 1 {
            // Writing to a String cannot fail.
            let _ = match choice {
                RegionChoice::From(region) => write!(name, ".{region}"),
                RegionChoice::Only(region) => write!(name, ".only-{region}"),
                RegionChoice::Among(..) => {
                    self.in_order(choice).iter().try_for_each(|region| write!(name, ".{region}"))
                }
            };
        }
        name
    }

    /// Every cluster that calls of the class may be sent to.
    pub fn clusters(&self) -> Vec<Cluster<'_>> {
        let weighted = |path: &PathName| self.weights.as_ref().is_some_and(|weights| weights.contains_key(path));
        let firsts = || {
            let nth = self.paths.iter().enumerate();
            nth.filter(|(index, path)| *index == 0 || weighted(path)).map(|(_, path)| *path)
        };
        let from = self.regions.iter().map(RegionChoice::From);
        let only = self.regions.iter().filter(|_| self.regions.len() > 1).map(RegionChoice::Only);
        let choices: Vec<_> = from.chain(only).collect();
        let sets: Vec<_> = self.sets().collect();
        let mut clusters = Vec::new();
        for service in self.services.iter().copied() {
            // Calls of others carry nothing that is retained, or stay in one region.
            let sets = if service == Service::BedrockRuntime { sets.as_slice() } else { &[] };
            for first in firsts() {
                for choice in choices.iter().chain(sets) {
                    let name = self.cluster(service, first, *choice);
                    clusters.push(Cluster { name, service, endpoints: self.endpoints(first, *choice) });
                }
            }
        }
        clusters
    }

    /// The endpoints for a first path and a choice of regions, in the order in which they are tried: all paths of the first region,
    /// then the next region. So a path that fails is replaced by another path of the same region, whose prompt caches and quotas
    /// the call counted on. A region that throttles is passed over by [`crate::attempt::RetryDecision::leave`].
    pub fn endpoints(&self, first: PathName, choice: RegionChoice<'_>) -> Vec<(PathName, &RegionName)> {
        let paths = self.path_order(first);
        self.in_order(choice).into_iter().flat_map(|region| paths.iter().map(move |path| (*path, region))).collect()
    }

    /// The regions of a choice, in the order in which they are tried.
    pub(crate) fn in_order(&self, choice: RegionChoice<'_>) -> Vec<&RegionName> {
        let (first, set) = match choice {
            RegionChoice::Only(only) => return self.regions.iter().filter(|region| *region == only).collect(),
            RegionChoice::From(from) => (from, RegionSet::of(&self.regions, |_| true)),
            RegionChoice::Among(from, set) => (from, set),
        };
        let all = || set.members(&self.regions);
        all().filter(|region| *region == first).chain(all().filter(|region| *region != first)).collect()
    }

    /// The choices of some of its regions, if it demands something of their data retention. Envoy's clusters are fixed, so there is one
    /// for each set of regions that may be left: a region with another mode is in none that a call is sent to.
    fn sets(&self) -> impl Iterator<Item = RegionChoice<'_>> {
        let regions = self.retention.map_or(&[][..], |_| self.regions.as_slice());
        let some = RegionSet::all(regions).filter(|set| (2..regions.len()).contains(&set.len()));
        some.flat_map(move |set| set.members(regions).map(move |first| RegionChoice::Among(first, set)))
    }

    /// The choice of `first` and of those of its regions that `has` takes, for a class that demands something of their data retention.
    pub fn among<'a>(&'a self, first: &'a RegionName, has: impl Fn(&RegionName) -> bool) -> RegionChoice<'a> {
        let set = RegionSet::of(&self.regions, |region| region == first || has(region));
        match set.len() {
            1 if self.regions.len() > 1 => RegionChoice::Only(first),
            length if length == self.regions.len() => RegionChoice::From(first),
            _ => RegionChoice::Among(first, set),
        }
    }

    fn path_order(&self, first: PathName) -> Vec<PathName> {
        let rest = self.paths.iter().copied().filter(|path| *path != first);
        self.paths.iter().copied().filter(|path| *path == first).chain(rest).collect()
    }
}

#[cfg(test)]
mod tests;
