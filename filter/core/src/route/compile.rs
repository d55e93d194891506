//! Compiles route classes, and the environment's order of paths.

use super::RouteClass;
use crate::config::{self, AuditMode, Config, ConfigError, Credentials, RegionOrder, SessionScope, at};
use crate::credentials::source;
use crate::model::patterns;
use crate::names::{PathName, RegionName};
use crate::retention::rules::check_class;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Ample for any share, and the sum of all weights stays far from the limits of a number.
const MAX_WEIGHT: u32 = 1_000_000;
/// Of `first_byte_timeout_ms`: a round trip to the other coast, and what the listeners allow a silent stream.
const FIRST_BYTE_MS: RangeInclusive<u32> = 100..=3_600_000;
/// Of `catalogue_max_age_seconds`: 30 days.
const MAX_CATALOGUE_AGE: u32 = 2_592_000;
/// What errors in `BEDROCK_PATHS` have as their key, which is not in the document.
pub const ENVIRONMENT_KEY: &str = "BEDROCK_PATHS (environment)";
const EMPTY: &str = "an empty list matches no call; leave the key out to match all";
const NO_REGION_WEIGHTS: &str =
    "needs `region_weights`; without them every call tries the first region first: add them, or leave the key out";
const ZERO: &str = "0 lets nothing through; leave the key out for no limit";

/// Compiles the document's classes. `order` is the environment's order of paths.
pub(crate) fn compile(config: &Config, order: Option<&[PathName]>) -> Result<Vec<RouteClass>, ConfigError> {
    if config.route_classes.is_empty() {
        return Err(at("route_classes", "name at least one class, or every call is refused"));
    }
    let mut compiled: Vec<RouteClass> = Vec::new();
    for (index, class) in config.route_classes.iter().enumerate() {
        let class = class_of(class, config, order, &|key| format!("route_classes[{index}].{key}"))?;
        if compiled.iter().any(|other| other.name == class.name) {
            return Err(at(format!("route_classes[{index}].name"), format!("'{}' is there twice", class.name)));
        }
        compiled.push(class);
    }
    Ok(compiled)
}

fn class_of(
    class: &config::RouteClass,
    config: &Config,
    order: Option<&[PathName]>,
    key: &dyn Fn(&str) -> String,
) -> Result<RouteClass, ConfigError> {
    let name = &class.name;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(at(key("name"), format!("'{name}' is not a class name: want lower-case letters, digits and '-'")));
    }
    let regions = regions_of(class, config, key)?;
    check_paths(class, key)?;
    check_weights(&key("weights"), class.weights.as_ref(), &class.paths)?;
    check_weights(&key("region_weights"), class.region_weights.as_ref(), &regions)?;
    if class.region_sticky && class.region_weights.is_none() {
        return Err(at(key("region_sticky"), NO_REGION_WEIGHTS));
    }
    check_region_order(class, &regions, key)?;
    check_conditions(class, key)?;
    check_limits(class, key)?;
    if class.retention.is_some() {
        check_class(key("retention"), &regions, config)?;
    }
    let list = |name: &str, texts: &Option<Vec<String>>| match texts {
        Some(texts) if texts.is_empty() => Err(at(key(name), EMPTY)),
        Some(texts) => patterns(&key(name), texts).map(Some),
        None => Ok(None),
    };
    let paths = match order {
        Some(order) => order.iter().copied().filter(|path| class.paths.contains(path)).collect(),
        None => class.paths.clone(),
    };
    Ok(RouteClass {
        name: name.clone(),
        services: super::services(&config.optional_operations).collect(),
        models: list("models", &class.models)?,
        operations: class.operations.clone(),
        principals: list("principals", &class.principals)?,
        streaming: class.streaming,
        body_bytes: class.body_bytes,
        own_paths: class.paths.clone(),
        paths,
        weights: class.weights.clone(),
        regions,
        region_order: class.region_order,
        region_weights: class.region_weights.clone(),
        region_sticky: class.region_sticky,
        retention: class.retention,
        priority: class.priority,
        dscp: class.dscp,
        bandwidth_kbps: class.bandwidth_kbps,
        first_byte_timeout: class.first_byte_timeout_ms.map(|ms| Duration::from_millis(ms.into())),
        catalogue_max_age: max_age_of(class, config, key)?,
        limits: class.limits,
        credentials: credentials_of(class, config, key)?,
        session: session_of(class, config, key)?,
        audit: audit_of(class, config, key)?,
    })
}

fn regions_of(
    class: &config::RouteClass,
    config: &Config,
    key: &dyn Fn(&str) -> String,
) -> Result<Vec<RegionName>, ConfigError> {
    let Some(regions) = &class.regions else { return Ok(config.regions.keys().cloned().collect()) };
    if regions.is_empty() {
        let problem = format!("class '{}' has no region; leave the key out to take all", class.name);
        return Err(at(key("regions"), problem));
    }
    for (index, region) in regions.iter().enumerate() {
        if !config.regions.contains_key(region) {
            let known = config.regions.keys().map(RegionName::as_str);
            return Err(ConfigError::unknown(format!("{}[{index}]", key("regions")), "region", region.as_str(), known));
        }
    }
    check_repetition(&key("regions"), "region", regions)?;
    Ok(regions.clone())
}

fn max_age_of(
    class: &config::RouteClass,
    config: &Config,
    key: &dyn Fn(&str) -> String,
) -> Result<Option<Duration>, ConfigError> {
    let Some(seconds) = class.catalogue_max_age_seconds else { return Ok(None) };
    let key = || key("catalogue_max_age_seconds");
    let Some(refresh) = config.catalogue.as_ref().map(|own| own.refresh_seconds).filter(|seconds| *seconds != 0) else {
        let problem = "needs `catalogue` with polls, without which no list has an age: add it, or leave the key out";
        return Err(at(key(), problem));
    };
    // A poll that fails once must not refuse calls.
    let least = refresh.saturating_mul(2);
    if !(least..=MAX_CATALOGUE_AGE).contains(&seconds) {
        let problem = format!(
            "want a whole number from {least} (twice `catalogue.refresh_seconds`) to {MAX_CATALOGUE_AGE}, not {seconds}"
        );
        return Err(at(key(), problem));
    }
    Ok(Some(Duration::from_secs(seconds.into())))
}

fn audit_of(
    class: &config::RouteClass,
    config: &Config,
    key: &dyn Fn(&str) -> String,
) -> Result<AuditMode, ConfigError> {
    if class.audit == AuditMode::Required && config.audit.is_none() {
        let problem = "`required` needs the collector: name the cluster of its socket in the key `audit` of the document \
                       (`audit: {cluster: audit}`)";
        return Err(at(key("audit"), problem));
    }
    Ok(class.audit)
}

fn credentials_of(
    class: &config::RouteClass,
    config: &Config,
    key: &dyn Fn(&str) -> String,
) -> Result<String, ConfigError> {
    let Some(name) = &class.credentials else { return Ok(source::DEFAULT.to_owned()) };
    if config.credential_sets.contains_key(name) {
        return Ok(name.clone());
    }
    let known = config.credential_sets.keys().map(String::as_str);
    Err(ConfigError::unknown(key("credentials"), "set", name, known))
}

fn session_of(
    class: &config::RouteClass,
    config: &Config,
    key: &dyn Fn(&str) -> String,
) -> Result<SessionScope, ConfigError> {
    if class.session == SessionScope::Shared {
        return Ok(class.session);
    }
    let source = class.credentials.as_ref().and_then(|name| config.credential_sets.get(name));
    let named = |source: &Credentials| {
        use Credentials::{Federation, RolesAnywhere, WebIdentity};
        matches!(source, Federation { .. } | WebIdentity { .. } | RolesAnywhere { .. })
    };
    if !named(source.unwrap_or(&config.credentials)) {
        let problem = "`principal` needs credentials of the source `federation`, `web_identity` or `roles_anywhere`, which begin \
                       sessions by name";
        return Err(at(key("session"), problem));
    }
    if config.principal.is_empty() {
        let problem =
            "`principal` would refuse every call of the class: without the key `principal` callers have no name";
        return Err(at(key("session"), problem));
    }
    Ok(class.session)
}

fn check_paths(class: &config::RouteClass, key: &dyn Fn(&str) -> String) -> Result<(), ConfigError> {
    if class.paths.is_empty() {
        let known = PathName::ALL.map(PathName::as_str).join(", ");
        return Err(at(key("paths"), format!("class '{}' has no path; known are {known}", class.name)));
    }
    check_repetition(&key("paths"), "path", &class.paths)
}

fn check_region_order(
    class: &config::RouteClass,
    regions: &[RegionName],
    key: &dyn Fn(&str) -> String,
) -> Result<(), ConfigError> {
    if class.region_order != RegionOrder::Fastest {
        return Ok(());
    }
    if class.region_weights.is_some() {
        return Err(at(
            key("region_order"),
            "`fastest` leaves `region_weights` nothing to decide: leave one of them out",
        ));
    }
    if regions.len() < 2 {
        return Err(at(key("region_order"), "`fastest` needs at least two regions in the class"));
    }
    Ok(())
}

fn check_conditions(class: &config::RouteClass, key: &dyn Fn(&str) -> String) -> Result<(), ConfigError> {
    if class.operations.as_ref().is_some_and(Vec::is_empty) {
        return Err(at(key("operations"), EMPTY));
    }
    if class.body_bytes.is_some_and(|bounds| bounds.max.is_some_and(|max| max < bounds.min)) {
        return Err(at(key("body_bytes"), "`max` is less than `min`: no call matches"));
    }
    Ok(())
}

fn check_limits(class: &config::RouteClass, key: &dyn Fn(&str) -> String) -> Result<(), ConfigError> {
    if let Some(ms) = class.first_byte_timeout_ms.filter(|ms| !FIRST_BYTE_MS.contains(ms)) {
        let (least, most) = (FIRST_BYTE_MS.start(), FIRST_BYTE_MS.end());
        let problem = format!("want a whole number from {least} to {most}, not {ms}");
        return Err(at(key("first_byte_timeout_ms"), problem));
    }
    for (name, value) in [
        ("bandwidth_kbps", class.bandwidth_kbps),
        ("limits.requests_per_minute", class.limits.requests_per_minute.map(u64::from)),
        ("limits.tokens_per_minute", class.limits.tokens_per_minute.map(u64::from)),
        ("limits.concurrent_calls", class.limits.concurrent_calls.map(u64::from)),
    ] {
        if value == Some(0) {
            return Err(at(key(name), ZERO));
        }
    }
    Ok(())
}

fn check_repetition<T: PartialEq + Display>(key: &str, kind: &str, names: &[T]) -> Result<(), ConfigError> {
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|earlier| earlier == name) {
            return Err(at(key, format!("{kind} '{name}' is there twice")));
        }
    }
    Ok(())
}

fn check_weights<T: PartialEq + Display>(
    key: &str,
    weights: Option<&BTreeMap<T, u32>>,
    names: &[T],
) -> Result<(), ConfigError> {
    let Some(weights) = weights else { return Ok(()) };
    for (name, weight) in weights {
        let key = || format!("{key}.{name}");
        if !names.contains(name) {
            return Err(at(key(), format!("'{name}' is not among those of the class")));
        }
        if *weight > MAX_WEIGHT {
            return Err(at(key(), format!("want a whole number from 0 to {MAX_WEIGHT}, not {weight}")));
        }
    }
    if weights.values().all(|weight| *weight == 0) {
        return Err(at(key, "every weight is zero: no call could go anywhere"));
    }
    Ok(())
}

/// Parses the environment variable `BEDROCK_PATHS`, such as `dx,vpn`. `None`: it is absent or empty, and sets no order.
///
/// # Errors
/// [`ConfigError`] names the variable.
pub fn environment_order(text: Option<&str>) -> Result<Option<Vec<PathName>>, ConfigError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let named = |name: &str| {
        let unknown = |_| ConfigError::unknown(ENVIRONMENT_KEY, "path", name, PathName::ALL.map(PathName::as_str));
        name.parse().map_err(unknown)
    };
    let order: Vec<PathName> = text.split(',').map(|name| named(name.trim())).collect::<Result<_, _>>()?;
    check_repetition(ENVIRONMENT_KEY, "path", &order)?;
    Ok(Some(order))
}
