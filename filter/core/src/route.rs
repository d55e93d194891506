//! Which way a call goes: its route class, the path and region that are tried first, and the cluster that tries the others
//! after them.
//!
//! Envoy's clusters are fixed, and a retry stays in its cluster. So there is a cluster for each beginning that a class may
//! choose; all of them are named and listed here ([`RouteClass::clusters`]), for whoever writes Envoy's configuration.

use crate::config::{self, BodyBytes, ConfigError, Limits, Path, Priority};
use crate::credentials::wallet;
use crate::model::{self, Pattern};
use crate::operation::{Home, Operation, Service};
use crate::policy::{at, patterns, unknown};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The services, each with clusters of its own.
pub const SERVICES: [Service; 2] = [Service::BedrockRuntime, Service::Bedrock];
/// Far more than any share needs, and a sum of them is far from the edge of a number.
const MAX_WEIGHT: u32 = 1_000_000;
/// The largest DSCP value: six bits (RFC 2474).
const MAX_DSCP: u8 = 63;

/// A rule that tells which calls may take which paths.
#[derive(Debug)]
pub struct RouteClass {
    name: String,
    models: Option<Vec<Pattern>>,
    operations: Option<Vec<Operation>>,
    principals: Option<Vec<Pattern>>,
    streaming: Option<bool>,
    body_bytes: Option<BodyBytes>,
    /// As the document has them.
    own_paths: Vec<Path>,
    /// As the environment leaves them.
    paths: Vec<Path>,
    weights: Option<BTreeMap<Path, u32>>,
    regions: Vec<String>,
    region_weights: Option<BTreeMap<String, u32>>,
    priority: Priority,
    dscp: Option<u8>,
    bandwidth_kbps: Option<u64>,
    limits: Limits,
    credentials: String,
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

/// Where a call may go in its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach<'a> {
    /// To every region of the class, this one first.
    From(&'a str),
    /// To this region only.
    Only(&'a str),
}

/// A cluster of Envoy's: where the calls of a class to a service are tried, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster<'a> {
    /// The cluster's name.
    pub name: String,
    /// The service.
    pub service: Service,
    /// Path and region of each endpoint, in order of priority.
    pub endpoints: Vec<(Path, &'a str)>,
}

impl RouteClass {
    /// The class's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The paths, in order.
    pub fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// The regions, in order.
    pub fn regions(&self) -> &[String] {
        &self.regions
    }

    /// Envoy's routing priority.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The DSCP value of packets to the upstreams.
    pub fn dscp(&self) -> Option<u8> {
        self.dscp
    }

    /// Bandwidth in KiB/s.
    pub fn bandwidth_kbps(&self) -> Option<u64> {
        self.bandwidth_kbps
    }

    /// What one caller may use.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The name of its source of credentials.
    pub fn credentials(&self) -> &str {
        &self.credentials
    }

    /// Whether a model decides who takes this class.
    pub fn depends_on_model(&self) -> bool {
        self.models.is_some()
    }

    /// Whether the class takes the call.
    pub fn matches(&self, call: Subject<'_>) -> bool {
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

    /// The path that the calls of a caller try first; none if the environment left the class without any.
    pub fn first_path(&self, caller: &str) -> Option<Path> {
        let first = self.paths.first().copied();
        let Some(weights) = &self.weights else { return first };
        let weighted = self.paths.iter().filter_map(|path| Some((*path, *weights.get(path)?)));
        in_order_of_weight(weighted, |path| point(&[&self.name, path.name(), caller])).first().copied().or(first)
    }

    /// Where a call may go: `admits` says whether a region is to be asked now. Where none is, the one that would have been
    /// first is asked all the same: its answer is the true one.
    pub fn reach(&self, home: Home<'_>, call_id: &str, admits: impl Fn(&str) -> bool) -> Option<Reach<'_>> {
        let first = self.regions.first()?;
        match home {
            Home::First => Some(Reach::Only(first)),
            // An ARN of a region that is not the class's: Bedrock says so itself.
            Home::Region(name) => Some(Reach::Only(self.regions.iter().find(|known| *known == name).unwrap_or(first))),
            Home::Anywhere => {
                let order = self.region_order(call_id);
                let wanted = order.first().copied().unwrap_or(first);
                // A lone region is not asked for: there is no other.
                let admitted = (order.len() > 1).then(|| order.iter().copied().find(|region| admits(region))).flatten();
                Some(Reach::From(admitted.unwrap_or(wanted)))
            }
        }
    }

    /// The regions, the call's own choice by weight first. Those without weight come after, in the class's order.
    fn region_order(&self, call_id: &str) -> Vec<&str> {
        let Some(weights) = &self.region_weights else { return self.regions.iter().map(String::as_str).collect() };
        let weighted = self.regions.iter().filter_map(|region| Some((region.as_str(), *weights.get(region)?)));
        let mut order = in_order_of_weight(weighted, |region| point(&[&self.name, region, call_id]));
        let rest: Vec<_> = self.regions.iter().map(String::as_str).filter(|region| !order.contains(region)).collect();
        order.extend(rest);
        order
    }

    /// The name of the cluster for a beginning: `{service}.{class}`, then the order of paths where it is not the class's
    /// own, then the region where the class has several.
    pub fn cluster(&self, service: Service, first: Path, reach: Reach<'_>) -> String {
        let mut name = format!("{}.{}", service.name(), self.name);
        let order = self.path_order(first);
        if order != self.own_paths {
            for (index, path) in order.iter().enumerate() {
                name.push(if index == 0 { '.' } else { '-' });
                name.push_str(path.name());
            }
        }
        if self.regions.len() > 1 {
            // Writing to a String cannot fail.
            let _ = match reach {
                Reach::From(region) => write!(name, ".{region}"),
                Reach::Only(region) => write!(name, ".only-{region}"),
            };
        }
        name
    }

    /// Every cluster that calls of the class may be sent to.
    pub fn clusters(&self) -> Vec<Cluster<'_>> {
        let weighted = |path: &Path| self.weights.as_ref().is_some_and(|weights| weights.contains_key(path));
        let firsts = || {
            let nth = self.paths.iter().enumerate();
            nth.filter(|(index, path)| *index == 0 || weighted(path)).map(|(_, path)| *path)
        };
        let froms = self.regions.iter().map(|region| Reach::From(region));
        let onlys = self.regions.iter().filter(|_| self.regions.len() > 1).map(|region| Reach::Only(region));
        let reaches: Vec<_> = froms.chain(onlys).collect();
        let mut clusters = Vec::new();
        for service in SERVICES {
            for first in firsts() {
                for reach in &reaches {
                    let name = self.cluster(service, first, *reach);
                    clusters.push(Cluster { name, service, endpoints: self.endpoints(first, *reach) });
                }
            }
        }
        clusters
    }

    /// The endpoints for a beginning, in the order in which they are tried. Each differs from the one before it in path and
    /// in region, where it can: whichever of the two failed, the next attempt has another.
    pub fn endpoints(&self, first: Path, reach: Reach<'_>) -> Vec<(Path, &str)> {
        let paths = self.path_order(first);
        let regions: Vec<&str> = match reach {
            Reach::Only(only) => self.regions.iter().map(String::as_str).filter(|region| *region == only).collect(),
            Reach::From(from) => {
                let rest = self.regions.iter().map(String::as_str).filter(|region| *region != from);
                self.regions.iter().map(String::as_str).filter(|region| *region == from).chain(rest).collect()
            }
        };
        let mut endpoints = Vec::new();
        for turn in 0..regions.len() {
            for (index, path) in paths.iter().enumerate() {
                let region = regions.iter().cycle().nth(turn + index);
                endpoints.extend(region.map(|region| (*path, *region)));
            }
        }
        endpoints
    }

    fn path_order(&self, first: Path) -> Vec<Path> {
        let rest = self.paths.iter().copied().filter(|path| *path != first);
        self.paths.iter().copied().filter(|path| *path == first).chain(rest).collect()
    }
}

/// Weighted rendezvous hashing: each candidate draws a point for the key, and weight moves it ahead. A change of one weight
/// moves only keys to or from that candidate. Those of weight 0 are left out.
fn in_order_of_weight<T: Copy>(candidates: impl Iterator<Item = (T, u32)>, draw: impl Fn(T) -> f64) -> Vec<T> {
    let drawn = candidates.filter(|(_, weight)| *weight > 0);
    let mut drawn: Vec<(T, f64)> = drawn.map(|(one, weight)| (one, -draw(one).ln() / f64::from(weight))).collect();
    drawn.sort_by(|(_, left), (_, right)| left.total_cmp(right));
    drawn.into_iter().map(|(one, _)| one).collect()
}

/// A point between 0 and 1, both excluded, that depends on nothing but the texts.
fn point(texts: &[&str]) -> f64 {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let digest = hasher.finalize();
    let head = digest.first_chunk().map_or(0, |head| u32::from_le_bytes(*head));
    (f64::from(head) + 0.5) / (f64::from(u32::MAX) + 1.0)
}

// === compiling ===

/// Compiles the classes. `known` are the document's regions, `order` what the environment says of paths.
pub fn compile(
    classes: Vec<config::RouteClass>,
    known: &[String],
    order: Option<&[Path]>,
) -> Result<Vec<RouteClass>, ConfigError> {
    if classes.is_empty() {
        return Err(at("route_classes", "name at least one class, or every call is refused"));
    }
    let mut compiled: Vec<RouteClass> = Vec::new();
    for (index, class) in classes.into_iter().enumerate() {
        let class = class_of(class, known, order, &|key| format!("route_classes[{index}].{key}"))?;
        if compiled.iter().any(|other| other.name == class.name) {
            return Err(at(format!("route_classes[{index}].name"), format!("'{}' is there twice", class.name)));
        }
        compiled.push(class);
    }
    Ok(compiled)
}

fn class_of(
    class: config::RouteClass,
    known: &[String],
    order: Option<&[Path]>,
    key: &dyn Fn(&str) -> String,
) -> Result<RouteClass, ConfigError> {
    let name = class.name;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(at(key("name"), format!("'{name}' is no class name: lower-case letters, digits and '-'")));
    }
    if class.paths.is_empty() {
        return Err(at(key("paths"), format!("class '{name}' has no path; known are dx, vpn, internet")));
    }
    no_repetition(&key("paths"), "path", class.paths.iter().map(|path| path.name()))?;
    weights(&key("weights"), class.weights.as_ref(), |path| class.paths.contains(path), |path| path.name())?;
    let regions = class.regions.unwrap_or_else(|| known.to_vec());
    if regions.is_empty() {
        return Err(at(key("regions"), format!("class '{name}' has no region; leave the key out to take all")));
    }
    for (nth, region) in regions.iter().enumerate() {
        if !known.contains(region) {
            return Err(at(
                format!("{}[{nth}]", key("regions")),
                unknown("region", region, known.iter().map(String::as_str)),
            ));
        }
    }
    no_repetition(&key("regions"), "region", regions.iter().map(String::as_str))?;
    let has = |region: &String| regions.contains(region);
    weights(&key("region_weights"), class.region_weights.as_ref(), has, String::as_str)?;
    if class.operations.as_ref().is_some_and(Vec::is_empty) {
        return Err(at(key("operations"), "an empty list matches no call; leave the key out to match all"));
    }
    if class.body_bytes.is_some_and(|bounds| bounds.max.is_some_and(|max| max < bounds.min)) {
        return Err(at(key("body_bytes"), "`max` is less than `min`: no call matches"));
    }
    if class.dscp.is_some_and(|dscp| dscp > MAX_DSCP) {
        return Err(at(key("dscp"), format!("must lie between 0 and {MAX_DSCP}: the six bits of RFC 2474")));
    }
    if class.bandwidth_kbps == Some(0) {
        return Err(at(key("bandwidth_kbps"), "0 lets nothing through; leave the key out for no limit"));
    }
    for (limit, value) in [
        ("limits.requests_per_minute", class.limits.requests_per_minute),
        ("limits.tokens_per_minute", class.limits.tokens_per_minute),
    ] {
        if value == Some(0) {
            return Err(at(key(limit), "0 lets nothing through; leave the key out for no limit"));
        }
    }
    let list = |name: &str, texts: Option<Vec<String>>| match texts {
        Some(texts) if texts.is_empty() => {
            Err(at(key(name), "an empty list matches no call; leave the key out to match all"))
        }
        Some(texts) => patterns(&key(name), &texts).map(Some),
        None => Ok(None),
    };
    let paths = match order {
        Some(order) => order.iter().copied().filter(|path| class.paths.contains(path)).collect(),
        None => class.paths.clone(),
    };
    Ok(RouteClass {
        models: list("models", class.models)?,
        operations: class.operations,
        principals: list("principals", class.principals)?,
        streaming: class.streaming,
        body_bytes: class.body_bytes,
        own_paths: class.paths,
        paths,
        weights: class.weights,
        regions,
        region_weights: class.region_weights,
        priority: class.priority,
        dscp: class.dscp,
        bandwidth_kbps: class.bandwidth_kbps,
        limits: class.limits,
        credentials: class.credentials.unwrap_or_else(|| wallet::DEFAULT.to_owned()),
        name,
    })
}

fn no_repetition<'a>(key: &str, kind: &str, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), ConfigError> {
    for (index, name) in names.clone().enumerate() {
        if names.clone().take(index).any(|earlier| earlier == name) {
            return Err(at(key, format!("{kind} '{name}' is there twice")));
        }
    }
    Ok(())
}

fn weights<T>(
    key: &str,
    weights: Option<&BTreeMap<T, u32>>,
    has: impl Fn(&T) -> bool,
    name: impl Fn(&T) -> &str,
) -> Result<(), ConfigError> {
    let Some(weights) = weights else { return Ok(()) };
    for (one, weight) in weights {
        let key = || format!("{key}.{}", name(one));
        if !has(one) {
            return Err(at(key(), format!("'{}' is not among those of the class", name(one))));
        }
        if *weight > MAX_WEIGHT {
            return Err(at(key(), format!("must lie between 0 and {MAX_WEIGHT}")));
        }
    }
    if weights.values().all(|weight| *weight == 0) {
        return Err(at(key, "every weight is zero: no call could go anywhere"));
    }
    Ok(())
}

/// `dx,vpn` of the environment variable `BEDROCK_PATHS`; absent or empty, there is no order.
pub fn environment_order(text: Option<&str>) -> Result<Option<Vec<Path>>, ConfigError> {
    const KEY: &str = "BEDROCK_PATHS (environment)";
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let named = |name: &str| {
        Path::by_name(name.trim())
            .ok_or_else(|| at(KEY, unknown("path", name.trim(), Path::ALL.iter().map(|path| path.name()))))
    };
    let order: Vec<Path> = text.split(',').map(named).collect::<Result<_, _>>()?;
    no_repetition(KEY, "path", order.iter().map(|path| path.name()))?;
    Ok(Some(order))
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
