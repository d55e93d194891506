//! The document's part: what models have by themselves, which projects are read, and how old that may be.

use super::Place;
use crate::config::{Config, ConfigError, DataRetention, RetentionMode, Role, at};
use crate::credentials::source;
use crate::model::{self, Pattern, patterns};
use crate::names::RegionName;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Most projects of a region: each is one call of a poll.
const MAX_PROJECTS: usize = 32;
/// Longest id of a project (botocore 1.44.8, `ProjectResourceId`).
const MAX_PROJECT: usize = 64;
/// Most regions of a class with `retention`: it has a cluster for each set of regions that may be left.
const MAX_REGIONS: usize = 4;

/// How data retention is polled and judged.
#[derive(Debug)]
pub struct RetentionRules {
    /// The time between two polls of a region.
    pub refresh: Duration,
    /// How old what was read may be.
    pub max_age: Duration,
    /// The cluster that polls are sent through.
    pub cluster: String,
    /// The accounts' regions that are polled: those of classes that demand something.
    places: Vec<Place>,
    models: Vec<(Pattern, RetentionMode)>,
    projects: BTreeMap<RegionName, Vec<String>>,
}

impl RetentionRules {
    const REFRESH: RangeInclusive<u32> = 5..=3600;
    const DEFAULT_REFRESH: u32 = 60;
    const MAX_AGE: u32 = 86_400;

    /// Compiles the key of a document whose clusters and classes are checked already.
    pub(crate) fn compile(own: &DataRetention, document: &Config) -> Result<Self, ConfigError> {
        if document.role == Role::Combined {
            let problem = "role `combined` has no signer that could sign a poll: leave the key out";
            return Err(at("data_retention", problem));
        }
        let seconds = own.refresh_seconds.unwrap_or(Self::DEFAULT_REFRESH);
        if !Self::REFRESH.contains(&seconds) {
            let (least, most) = (Self::REFRESH.start(), Self::REFRESH.end());
            let problem = format!("want a whole number from {least} to {most}, not {seconds}");
            return Err(at("data_retention.refresh_seconds", problem));
        }
        let (least, most) = (2 * seconds, Self::MAX_AGE);
        let max_age = own.max_age_seconds.unwrap_or(5 * seconds);
        if !(least..=most).contains(&max_age) {
            let problem =
                format!("want a whole number from {least}, twice `refresh_seconds`, to {most}, not {max_age}");
            return Err(at("data_retention.max_age_seconds", problem));
        }
        let projects = projects(own, document)?;
        let places = places(&projects, document);
        if places.is_empty() {
            let problem =
                "no route class has `retention`, so nothing would be read: add it to one, or leave the key out";
            return Err(at("data_retention", problem));
        }
        Ok(Self {
            refresh: Duration::from_secs(seconds.into()),
            max_age: Duration::from_secs(max_age.into()),
            cluster: own.cluster.clone().unwrap_or_default(),
            places,
            models: models(own)?,
            projects,
        })
    }

    /// The accounts' regions that are polled.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.places.iter()
    }

    /// One of them.
    pub(crate) fn place(&self, source: &str, region: &RegionName) -> Option<&Place> {
        self.places.iter().find(|place| place.source == source && place.region == *region)
    }

    /// Whether the operator says which mode any model has by itself.
    pub(crate) fn states_models(&self) -> bool {
        !self.models.is_empty()
    }

    /// The mode that a model has by itself, as the operator says. An id from which only AWS knows the model may run any: it has a mode
    /// if a pattern names it on purpose, or if the statements up to `*` all say the same. So has a call whose model is not known.
    pub(crate) fn of_model(&self, id: Option<&str>) -> Option<RetentionMode> {
        if let Some(id) = id.filter(|id| model::is_resolved(id)) {
            let matches = |pattern: &Pattern| model::names(id).any(|name| pattern.matches(name));
            return self.models.iter().find(|(pattern, _)| matches(pattern)).map(|(_, mode)| *mode);
        }
        let names = |pattern: &Pattern| id.is_some_and(|id| model::vouches(pattern, id));
        if let Some((_, mode)) = self.models.iter().find(|(pattern, _)| names(pattern)) {
            return Some(*mode);
        }
        let last = self.models.iter().position(|(pattern, _)| pattern.takes_all())?;
        let mut modes = self.models.iter().take(last + 1).map(|(_, mode)| *mode);
        let first = modes.next()?;
        modes.all(|mode| mode == first).then_some(first)
    }

    /// The projects of a region that are read besides the default one.
    pub(crate) fn projects(&self, region: &RegionName) -> &[String] {
        self.projects.get(region).map_or(&[], Vec::as_slice)
    }
}

fn models(own: &DataRetention) -> Result<Vec<(Pattern, RetentionMode)>, ConfigError> {
    let mut all = Vec::new();
    for (index, statement) in own.models.iter().enumerate() {
        let key = format!("data_retention.models[{index}].models");
        if statement.models.is_empty() {
            return Err(at(key, "name a model, or a pattern"));
        }
        all.extend(patterns(&key, &statement.models)?.into_iter().map(|pattern| (pattern, statement.mode)));
    }
    Ok(all)
}

fn projects(own: &DataRetention, document: &Config) -> Result<BTreeMap<RegionName, Vec<String>>, ConfigError> {
    for (region, ids) in &own.projects {
        let key = format!("data_retention.projects.{region}");
        if !document.regions.contains_key(region) {
            let known = document.regions.keys().map(RegionName::as_str);
            return Err(ConfigError::unknown(key, "region", region.as_str(), known));
        }
        if ids.len() > MAX_PROJECTS {
            return Err(at(key, format!("want at most {MAX_PROJECTS} projects, not {}", ids.len())));
        }
        for (index, id) in ids.iter().enumerate() {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            let problem = if id == super::DEFAULT_PROJECT {
                "the default project is always read: leave it out".to_owned()
            } else if id.is_empty() || id.len() > MAX_PROJECT || !id.bytes().all(fits) {
                format!("{id:?} is not a project's id: want letters, digits, '_' and '-', as in proj_abc123")
            } else if ids.iter().take(index).any(|earlier| earlier == id) {
                format!("project '{id}' is there twice")
            } else {
                continue;
            };
            return Err(at(format!("{key}[{index}]"), problem));
        }
    }
    Ok(own.projects.clone())
}

/// Where the calls of classes with `retention` may go.
fn places(projects: &BTreeMap<RegionName, Vec<String>>, document: &Config) -> Vec<Place> {
    let mut all = BTreeSet::new();
    for class in document.route_classes.iter().filter(|class| class.retention.is_some()) {
        let source = class.credentials.as_deref().unwrap_or(source::DEFAULT);
        let credentials = document.credential_sets.get(source).unwrap_or(&document.credentials);
        let own = || document.regions.keys().cloned().collect();
        let regions: Vec<RegionName> = class.regions.clone().unwrap_or_else(own);
        let listed = |region: &RegionName| projects.get(region).map_or(&[][..], Vec::as_slice);
        all.extend(regions.iter().map(|region| Place::new(source, region, (credentials, listed(region)))));
    }
    all.into_iter().collect()
}

/// Checks the key `retention` of a class; `key` is its place in the document.
pub(crate) fn check_class(key: String, regions: &[RegionName], document: &Config) -> Result<(), ConfigError> {
    if document.data_retention.is_none() {
        let problem = "needs the key `data_retention` of the document, by which the gateway reads the regions' modes \
                       (`data_retention: {}`)";
        return Err(at(key, problem));
    }
    if regions.len() > MAX_REGIONS {
        let problem = format!("a class with `retention` has {MAX_REGIONS} regions at most, not {}", regions.len());
        return Err(at(key, problem));
    }
    Ok(())
}
