//! The data retention that AWS has set for an account and its projects, and what follows for a call.
//!
//! The mode of a call is its project's, else the account's, else the model's own
//! (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_ProjectDataRetention.html>). A mode of `default` is the model's own
//! too (<https://docs.aws.amazon.com/bedrock/latest/userguide/data-retention.html>). No API says which that is.

use crate::config::RetentionMode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The project of calls that name none (botocore 1.44.8, `ProjectResourceId`).
pub(crate) const DEFAULT_PROJECT: &str = "default";
/// Longest mode that is kept, in bytes. Those of botocore 1.44.8 have 19 at most.
const MAX_MODE: usize = 64;

/// A mode as AWS gives it (botocore 1.44.8, `DataRetentionMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting<'a> {
    /// It says how data is retained.
    Mode(RetentionMode),
    /// `default`: the model's own.
    Default,
    /// `inherit`: not set here.
    Inherit,
    /// One that is not known: what it means may be anything.
    Other(&'a str),
}

/// What a poll has read of a region.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The account's mode.
    pub(crate) account: String,
    /// The projects' modes, by id. A project that the region does not have is absent.
    pub(crate) projects: BTreeMap<String, String>,
}

/// Why a call's mode is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// It was never read, or the clock was set back since.
    #[error("not read yet")]
    Unread,
    /// It could not be read for long.
    #[error("last read {0} s ago, and newer settings could not be read")]
    Stale(u64),
    /// AWS has a mode that this version does not know.
    #[error("set to '{0}', which this version of the gateway does not know")]
    Other(String),
    /// Account and project leave it to the model.
    #[error("left to the model, for which `data_retention.models` says nothing")]
    Model,
    /// The document does not list the project that the call names.
    #[error("that of project '{0}', which `data_retention.projects` does not list there")]
    Unlisted(String),
    /// The region does not have the project.
    #[error("that of project '{0}', which was not found there")]
    NoProject(String),
    /// The project that the call names differs from the one of calls that name none.
    #[error(
        "'{named}' in project '{project}' and '{default}' in the default project, and AWS's pages differ on which counts"
    )]
    Differs {
        /// The named project.
        project: String,
        /// Its mode.
        named: RetentionMode,
        /// The default project's.
        default: RetentionMode,
    },
}

// === impl Setting ===

impl<'a> Setting<'a> {
    /// Reads a mode.
    pub(crate) fn of(text: &'a str) -> Self {
        match text {
            "default" => Self::Default,
            "inherit" => Self::Inherit,
            other => RetentionMode::ALL
                .into_iter()
                .find(|mode| mode.as_str() == other)
                .map_or(Self::Other(other), Self::Mode),
        }
    }

    /// Whether a text may be a mode, known or not.
    pub(super) fn is_possible(text: &str) -> bool {
        !text.is_empty()
            && text.len() <= MAX_MODE
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }
}

/// The mode of a call, by the settings of its project and account, and the mode that its model has by itself.
pub(crate) fn resolve(
    project: Setting<'_>,
    account: Setting<'_>,
    model: Option<RetentionMode>,
) -> Result<RetentionMode, Unresolved> {
    let of_model = || model.ok_or(Unresolved::Model);
    match (project, account) {
        (Setting::Mode(mode), _) | (Setting::Inherit, Setting::Mode(mode)) => Ok(mode),
        (Setting::Default, _) | (Setting::Inherit, Setting::Default | Setting::Inherit) => of_model(),
        (Setting::Other(text), _) | (Setting::Inherit, Setting::Other(text)) => Err(Unresolved::Other(text.to_owned())),
    }
}

impl Settings {
    /// As they were shared.
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    /// As they are shared.
    pub(crate) fn write(&self) -> Vec<u8> {
        // Texts and a map of texts: serialising it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The mode of a call in a project.
    pub(crate) fn mode(&self, project: &str, model: Option<RetentionMode>) -> Result<RetentionMode, Unresolved> {
        let own = self.projects.get(project).ok_or_else(|| Unresolved::NoProject(project.to_owned()))?;
        resolve(Setting::of(own), Setting::of(&self.account), model)
    }
}
