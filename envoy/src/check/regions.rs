//! Regions that have the form of a name but that AWS does not have. The filter takes every name of the right form, so that a
//! new region needs no new version of it.

use filter_core::config::{ConfigError, nearest};
use filter_core::names::Partition;
use filter_core::route::SERVICES;
use serde_json::Value;

use crate::fips;

/// The regions of the partitions `aws` and `aws-us-gov` (botocore 1.43.11, `partitions.json`).
const COMMERCIAL: [&str; 34] = [
    "af-south-1",
    "ap-east-1",
    "ap-east-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-central-1",
    "ca-west-1",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "mx-central-1",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];
const GOVCLOUD: [&str; 2] = ["us-gov-east-1", "us-gov-west-1"];

/// Regions of a document that neither this version nor the operator (`also`: `--known-region`) knows. The document may have
/// other mistakes.
pub(super) fn findings(document: &Value, also: &[String]) -> Vec<ConfigError> {
    let object = |key: &str| document.get(key).and_then(Value::as_object).into_iter().flatten();
    let mut named: Vec<(String, &str)> =
        object("regions").map(|(name, _)| (format!("regions.{name}"), name.as_str())).collect();
    let sets = object("credential_sets").map(|(name, source)| (format!("credential_sets.{name}"), source));
    let default = document.get("credentials").map(|source| ("credentials".to_owned(), source));
    for (key, source) in default.into_iter().chain(sets) {
        for place in ["region", "govcloud.region", "commercial.region"] {
            let region = source.pointer(&format!("/{}", place.replace('.', "/")));
            named.extend(region.and_then(Value::as_str).map(|name| (format!("{key}.{place}"), name)));
        }
    }
    let mut found: Vec<ConfigError> = named.into_iter().filter_map(|(key, name)| unknown(key, name, also)).collect();
    if document.get("fips") == Some(&Value::Bool(true)) {
        let regions = object("regions").filter(|(name, _)| also.iter().all(|own| own != *name));
        regions.for_each(|(name, region)| without_fips(name, region, &mut found));
    }
    found
}

/// What of a region is not FIPS, although the document says `fips: true`.
fn without_fips(name: &str, region: &Value, found: &mut Vec<ConfigError>) {
    if !fips::has_endpoint(name) {
        let problem =
            "`fips` is true, and AWS lists no FIPS endpoint of Bedrock here, only in the United States and Canada";
        found.push(ConfigError::new(format!("regions.{name}"), problem));
    }
    let paths = region.get("hosts").and_then(Value::as_object).into_iter().flatten();
    for (path, services) in paths {
        for (service, host) in services.as_object().into_iter().flatten() {
            if let Some(host) = host.as_str().filter(|host| !fips::is_fips(host)) {
                let problem = format!("`fips` is true, and {host} is not a FIPS endpoint");
                found.push(ConfigError::new(format!("regions.{name}.hosts.{path}.{service}"), problem));
            }
        }
    }
}

/// The region of a host of Bedrock, if neither this version nor the operator knows it.
pub(super) fn of_host(key: &str, host: &str, also: &[String]) -> Option<ConfigError> {
    let (service, rest) = host.split_once('.')?;
    let name = rest.strip_suffix(".amazonaws.com")?;
    let is_bedrock = SERVICES.iter().any(|known| known.name() == service.strip_suffix("-fips").unwrap_or(service));
    if is_bedrock { unknown(key.to_owned(), name, also) } else { None }
}

fn unknown(key: String, name: &str, also: &[String]) -> Option<ConfigError> {
    let known: &[&str] = match Partition::of_region(name)? {
        Partition::Commercial => &COMMERCIAL,
        Partition::GovCloud => &GOVCLOUD,
    };
    if known.contains(&name) || also.iter().any(|own| own == name) {
        return None;
    }
    // `us-weast-2` is as near to `us-east-2` as to `us-west-2`: of equally near names, the one that begins alike is meant.
    let alike = |known: &str| known.bytes().zip(name.bytes()).take_while(|(left, right)| left == right).count();
    let mut known = known.to_vec();
    known.sort_by_key(|known| std::cmp::Reverse(alike(known)));
    let problem = format!("this version does not know region '{name}' (if AWS has it, pass --known-region {name})");
    Some(ConfigError { nearest: nearest(name, known).map(str::to_owned), ..ConfigError::new(key, problem) })
}
