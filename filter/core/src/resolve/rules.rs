//! The document's part, compiled.

use super::kind::Steps;
use crate::config::{self, ConfigError, Role, at};
use crate::model::is_resolved;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Most models that one resource runs. AWS gives an inference profile at most 5 (botocore 1.44.8, `InferenceProfileModels`).
pub(crate) const MAX_MODELS: usize = 16;

/// How resources are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveRules {
    /// How long an answer counts; `None`: Bedrock is never asked.
    pub refresh: Option<Duration>,
    /// The cluster that lookups are sent through.
    pub cluster: String,
    /// The operator's entries.
    runs: BTreeMap<String, Vec<String>>,
}

impl ResolveRules {
    /// The bounds of [`ResolveRules::refresh`], in seconds.
    const REFRESH: RangeInclusive<u32> = 5..=86_400;

    pub(crate) fn compile(resolve: &config::Resolve, role: Role) -> Result<Self, ConfigError> {
        let asks = resolve.refresh_seconds != 0;
        if asks && role == Role::Combined {
            let problem = "role `combined` has no signer that could sign a lookup: want 0, and `resolve.runs`";
            return Err(at("resolve.refresh_seconds", problem));
        }
        if !asks && resolve.runs.is_empty() {
            let problem = "0 means that Bedrock is never asked: give `resolve.runs`, or seconds from 5";
            return Err(at("resolve.refresh_seconds", problem));
        }
        if asks && !Self::REFRESH.contains(&resolve.refresh_seconds) {
            let (least, most) = (Self::REFRESH.start(), Self::REFRESH.end());
            let problem = format!("want 0 or a whole number from {least} to {most}, not {}", resolve.refresh_seconds);
            return Err(at("resolve.refresh_seconds", problem));
        }
        for (id, models) in &resolve.runs {
            check_entry(id, models)?;
        }
        Ok(Self {
            refresh: asks.then(|| Duration::from_secs(resolve.refresh_seconds.into())),
            cluster: resolve.cluster.clone().unwrap_or_default(),
            runs: resolve.runs.clone(),
        })
    }

    /// What the operator says that an id runs.
    pub(crate) fn entry(&self, id: &str) -> Option<&[String]> {
        self.runs.get(id).map(Vec::as_slice)
    }

    /// Whether Bedrock can be asked about an id.
    pub(crate) fn asks(&self, id: &str) -> bool {
        self.refresh.is_some() && Steps::of(id).is_ok()
    }
}

fn check_entry(id: &str, models: &[String]) -> Result<(), ConfigError> {
    let key = || format!("resolve.runs.{id}");
    if is_resolved(id) {
        return Err(at(key(), "the id names its model itself: remove the entry"));
    }
    if !(1..=MAX_MODELS).contains(&models.len()) {
        return Err(at(key(), format!("name 1 to {MAX_MODELS} models")));
    }
    if let Some((index, model)) = models.iter().enumerate().find(|(_, model)| !is_resolved(model)) {
        let problem = format!("'{model}' is not the id of a foundation model or of a system-defined inference profile");
        return Err(at(format!("{}[{index}]", key()), problem));
    }
    Ok(())
}
