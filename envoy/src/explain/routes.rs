//! The clusters that a call may be sent to, and the endpoints of each in the order in which Envoy tries them.

use filter_core::config::{Config, RegionOrder, RouteClass as Rule};
use filter_core::names::{PathName, RegionName};
use filter_core::operation::Service;
use filter_core::policy::Policy;
use filter_core::route::{RegionChoice, RouteClass};

use super::handoff::Handoff;

/// A cluster that the call may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The cluster's name in Envoy.
    pub cluster: String,
    /// The weight of the first path, and the sum of all weights; `None`: the path does not depend on weights.
    pub path_weight: Option<(u32, u32)>,
    /// The weight of the first region, and the sum of all weights; `None`: the region does not depend on weights.
    pub region_weight: Option<(u32, u32)>,
    /// The endpoints, in order.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint of Bedrock, reached over a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The path.
    pub path: PathName,
    /// The region.
    pub region: RegionName,
    /// The host name.
    pub host: String,
    /// The service.
    pub service: Service,
    /// The model or inference profile that is sent there; `None`: the operation names no model.
    pub model: Option<String>,
}

/// The clusters for a call. A caller with a name keeps its first path, so for it there is one path
/// only; with `region_sticky` one region too.
pub(super) fn routes(config: &Config, policy: &Policy, principal: Option<&str>, handoff: &Handoff) -> Vec<Route> {
    let rule = config.route_classes.iter().find(|rule| rule.name == handoff.class);
    let (Some(class), Some(rule)) = (policy.class(&handoff.class), rule) else { return Vec::new() };
    let mut routes = Vec::new();
    for (first, path_weight) in first_paths(class, rule, principal) {
        for (choice, region_weight) in first_regions(class, rule, principal, handoff) {
            let cluster = class.cluster(handoff.operation.service(), first, choice);
            let endpoints = class.endpoints(first, choice).into_iter();
            let endpoints = endpoints.filter_map(|(path, region)| endpoint(policy, handoff, path, region)).collect();
            routes.push(Route { cluster, path_weight, region_weight, endpoints });
        }
    }
    routes
}

fn first_paths(class: &RouteClass, rule: &Rule, principal: Option<&str>) -> Vec<(PathName, Option<(u32, u32)>)> {
    let weight = |path: &PathName| rule.weights.as_ref().and_then(|weights| weights.get(path)).copied().unwrap_or(0);
    let weighted: Vec<_> = class.paths().iter().map(|path| (*path, weight(path))).filter(|one| one.1 > 0).collect();
    if principal.is_none() && weighted.len() > 1 {
        let sum = weighted.iter().map(|(_, weight)| weight).sum();
        return weighted.into_iter().map(|(path, weight)| (path, Some((weight, sum)))).collect();
    }
    class.first_path(principal.unwrap_or_default()).map(|path| (path, None)).into_iter().collect()
}

fn first_regions<'a>(
    class: &'a RouteClass,
    rule: &Rule,
    principal: Option<&str>,
    handoff: &'a Handoff,
) -> Vec<(RegionChoice<'a>, Option<(u32, u32)>)> {
    if let Some(only) = &handoff.only_region {
        return vec![(RegionChoice::Only(only), None)];
    }
    // The regions that have the data retention that the class demands.
    let has = |region: &RegionName| handoff.retention.as_ref().is_none_or(|own| own.regions.contains(region));
    let from = |region| match &handoff.retention {
        Some(_) => class.among(region, has),
        None => RegionChoice::From(region),
    };
    let regions = || class.regions().iter().filter(|region| has(region));
    if let (true, Some(caller)) = (rule.region_sticky, principal) {
        let kept = class.regions_for(caller).into_iter().find(|region| has(region));
        return kept.map(|first| (from(first), None)).into_iter().collect();
    }
    if rule.region_order == RegionOrder::Fastest {
        return regions().map(|region| (from(region), None)).collect();
    }
    let weights = rule.region_weights.as_ref();
    let weight = |region: &RegionName| weights.and_then(|weights| weights.get(region)).copied().unwrap_or(0);
    let weighted: Vec<_> = regions().map(|region| (region, weight(region))).filter(|one| one.1 > 0).collect();
    let sum = weighted.iter().map(|(_, weight)| weight).sum();
    match weighted.as_slice() {
        [] => regions().next().map(|first| (from(first), None)).into_iter().collect(),
        [(lone, _)] => vec![(from(lone), None)],
        several => several.iter().map(|(region, weight)| (from(region), Some((*weight, sum)))).collect(),
    }
}

fn endpoint(policy: &Policy, handoff: &Handoff, path: PathName, region: &RegionName) -> Option<Endpoint> {
    let Handoff { operation, labels, .. } = handoff;
    let region = policy.region(region.as_str())?;
    let id = labels.first().filter(|_| operation.names_model());
    let model = id.map(|id| if operation.takes_profile() { region.profile(id) } else { id }.to_owned());
    Some(Endpoint {
        path,
        region: region.name().clone(),
        host: region.host(path, operation.service()),
        service: operation.service(),
        model,
    })
}
