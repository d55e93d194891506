//! Commercial regions: the host names and inference profiles of each, checked against AWS's own.

use crate::config::{self, ConfigError, at};
use crate::model;
use crate::names::{PathName, RegionName};
use crate::operation::Service;
use std::collections::BTreeMap;

/// A region that calls may be signed for.
#[derive(Debug)]
pub struct Region {
    name: RegionName,
    fips: bool,
    /// Hosts that differ from the public ones.
    hosts: BTreeMap<PathName, BTreeMap<Service, String>>,
    inference_profiles: BTreeMap<String, String>,
}

impl Region {
    /// The region's name.
    pub fn name(&self) -> &RegionName {
        &self.name
    }

    /// The host name of a service's endpoint, as calls on a path are sent and signed.
    pub fn host(&self, path: PathName, service: Service) -> String {
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

    /// The inference profiles, by bare model id.
    pub(crate) fn profiles(&self) -> &BTreeMap<String, String> {
        &self.inference_profiles
    }
}

// === compiling ===

/// Compiles a document's regions. `general` are the inference profiles for regions without an entry of their own.
pub(crate) fn compile(
    regions: &BTreeMap<RegionName, config::Region>,
    general: &BTreeMap<String, String>,
    fips: bool,
) -> Result<BTreeMap<RegionName, Region>, ConfigError> {
    if regions.is_empty() {
        return Err(at("regions", "name at least one Commercial region"));
    }
    let compiled = regions.iter().map(|(name, own)| Ok((name.clone(), region(name, own, general, fips)?)));
    compiled.collect()
}

fn region(
    name: &RegionName,
    own: &config::Region,
    general: &BTreeMap<String, String>,
    fips: bool,
) -> Result<Region, ConfigError> {
    let mut inference_profiles = general.clone();
    inference_profiles.extend(own.inference_profiles.clone());
    for (id, profile) in &inference_profiles {
        if let Some(problem) = profile_problem(id, profile, name) {
            let key = if own.inference_profiles.contains_key(id) {
                format!("regions.{name}.inference_profiles.{id}")
            } else {
                format!("inference_profiles.{id}")
            };
            return Err(at(key, problem));
        }
    }
    for (path, hosts) in &own.hosts {
        for (service, host) in hosts {
            if !is_endpoint(host, *service, name) {
                let key = format!("regions.{name}.hosts.{path}.{}", service.name());
                let problem = format!(
                    "'{host}' is not an endpoint of {0} in {name}: want {0}[-fips].{name}.amazonaws.com, its .api.aws \
                     form, or a VPC endpoint's vpce-….{0}[-fips].{name}.vpce.amazonaws.com",
                    service.name()
                );
                return Err(at(key, problem));
            }
        }
    }
    Ok(Region { name: name.clone(), fips, hosts: own.hosts.clone(), inference_profiles })
}

/// `bedrock-runtime.us-east-1.amazonaws.com`, or `bedrock-runtime-fips.…`.
fn public_host(service: Service, fips: bool, region: &RegionName) -> String {
    let fips = if fips { "-fips" } else { "" };
    format!("{}{fips}.{region}.amazonaws.com", service.name())
}

/// Whether a host name is one of AWS's for a service and region: a signed call must not go to another host.
fn is_endpoint(host: &str, service: Service, region: &RegionName) -> bool {
    ["", "-fips"].iter().any(|fips| {
        let base = format!("{}{fips}.{region}", service.name());
        let Some(prefix) = host.strip_suffix(&format!(".{base}.vpce.amazonaws.com")) else {
            return host == format!("{base}.amazonaws.com") || host == format!("{base}.api.aws");
        };
        prefix.starts_with("vpce-") && prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    })
}

/// What is wrong with the inference profile of a model in a region.
fn profile_problem(id: &str, profile: &str, region: &RegionName) -> Option<String> {
    if is_of_another_geography(profile, region) {
        return Some(format!(
            "the profile '{profile}' cannot be called in region {region}: it is of another geography"
        ));
    }
    let fits = model::without_geography(profile) == Some(id) || profile.starts_with("arn:aws:bedrock:");
    (!fits).then(|| {
        format!("'{profile}' is not an inference profile of '{id}': want a geography, '.' and the id, or an ARN")
    })
}

/// `us.` profiles may be called from Canada too.
fn is_of_another_geography(profile: &str, region: &RegionName) -> bool {
    let areas: &[&str] = match profile.split('.').next() {
        Some("us") => &["us-", "ca-"],
        Some("eu") => &["eu-"],
        Some("apac" | "jp" | "au") => &["ap-"],
        Some("ca") => &["ca-"],
        _ => return false,
    };
    !areas.iter().any(|area| region.as_str().starts_with(area))
}
