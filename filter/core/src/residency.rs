//! Residency: by which geographies' inference profiles a call may be sent. A profile of another one may run it elsewhere, and
//! `global` in any Commercial region
//! (<https://docs.aws.amazon.com/bedrock/latest/userguide/cross-region-inference.html>).

use crate::config::{ConfigError, at};
use crate::geography::{GEOGRAPHIES, GLOBAL};
use crate::model;
use crate::operation::arn_region;

/// The key `residency` of the document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Residency {
    /// `None`: any.
    geographies: Option<Vec<String>>,
}

/// Why a call may not be sent by an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResidencyRefusal {
    /// Its profile is of a geography that is not listed.
    #[error(
        "'{id}' may run in {geography}, which `residency` of the gateway's document does not list{}",
        instead.as_ref().map(|instead| format!(": write '{instead}' instead")).unwrap_or_default()
    )]
    Geography {
        /// The id.
        id: String,
        /// What its prefix says, or the region of a model that it runs.
        geography: String,
        /// The id under which the model may be called.
        instead: Option<String>,
    },
    /// It does not say where it runs.
    #[error(
        "'{0}' does not say in which regions it runs, and `residency` of the gateway's document depends on that: name a foundation model or a system-defined inference profile, or let the operator list '{0}' in `models.allow`"
    )]
    Hidden(String),
}

/// Where a call may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    /// In the region that it is sent to.
    Here,
    /// In the regions of a system-defined profile.
    Geography(&'a str),
    /// Only AWS knows.
    Hidden,
}

fn place(id: &str) -> Place<'_> {
    let of_name = |name| match model::geography(name) {
        Some(geography) => Place::Geography(geography),
        None => Place::Here,
    };
    // A model in any region: what a profile runs that was copied from a global one.
    if id.starts_with("arn:") && arn_region(id).is_none() {
        return Place::Geography(GLOBAL);
    }
    if model::is_resolved(id) {
        return of_name(id.rsplit('/').next().unwrap_or(id));
    }
    let resource = id.strip_prefix("arn:aws:bedrock:").and_then(|arn| arn.splitn(3, ':').nth(2));
    match resource.and_then(|resource| resource.split_once('/')) {
        // What an account has in one region runs there: its capacity, its own models, its endpoints.
        Some(("provisioned-model" | "custom-model" | "custom-model-deployment" | "imported-model", _)) => Place::Here,
        _ if id.starts_with("arn:aws:sagemaker:") => Place::Here,
        _ => Place::Hidden,
    }
}

impl Residency {
    /// Compiles the document's key.
    pub(crate) fn compile(listed: Option<&[String]>) -> Result<Self, ConfigError> {
        for (index, geography) in listed.into_iter().flatten().enumerate() {
            let known = GEOGRAPHIES.iter().copied().filter(|known| *known != "us-gov");
            if !known.clone().any(|known| known == geography) {
                return Err(ConfigError::unknown(format!("residency[{index}]"), "geography", geography, known));
            }
            if listed.is_some_and(|listed| listed.iter().take(index).any(|earlier| earlier == geography)) {
                return Err(at(format!("residency[{index}]"), format!("'{geography}' is there twice")));
            }
        }
        Ok(Self { geographies: listed.map(<[String]>::to_vec) })
    }

    /// Whether some ids are refused.
    pub fn is_closed(&self) -> bool {
        self.geographies.is_some()
    }

    /// Whether profiles of a geography may be used.
    pub(crate) fn lists(&self, geography: &str) -> bool {
        self.geographies.as_ref().is_none_or(|listed| listed.iter().any(|known| known == geography))
    }

    /// Whether a call may be sent by an id.
    ///
    /// # Errors
    /// [`ResidencyRefusal`] says why not.
    pub fn check(&self, id: &str) -> Result<(), ResidencyRefusal> {
        if !self.is_closed() {
            return Ok(());
        }
        match place(id) {
            Place::Here => Ok(()),
            Place::Geography(geography) if self.lists(geography) => Ok(()),
            Place::Geography(geography) => Err(refused(id, geography)),
            Place::Hidden => Err(ResidencyRefusal::Hidden(id.to_owned())),
        }
    }
}

fn refused(id: &str, geography: &str) -> ResidencyRefusal {
    ResidencyRefusal::Geography { id: id.to_owned(), geography: geography.to_owned(), instead: None }
}

#[cfg(test)]
#[path = "residency_tests.rs"]
mod tests;
