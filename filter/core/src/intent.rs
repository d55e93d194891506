//! The intent of a call: what the audit collector has on disk before a call of a class with `audit: required` leaves.

use crate::config;
use audit::AuditMode;

/// Whether a call may leave, as far as the audit is concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum IntentState {
    /// Its class does not ask for an intent.
    #[default]
    Unneeded,
    /// It has to be recorded before the call leaves.
    Needed,
    /// The collector has been asked.
    Asked,
    /// It is on the collector's disk.
    Recorded,
}

/// Why a call has no intent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntentError {
    /// No answer in time, or no connection.
    #[error("the audit collector did not answer in time")]
    NoAnswer,
    /// The collector has not recorded it, or Envoy cannot reach it.
    #[error("the audit collector did not record it (status {0})")]
    Refused(u16),
    /// Envoy did not send it.
    #[error("the audit collector cannot be called: {0}")]
    Call(String),
}

impl IntentError {
    /// The outcome's label in metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::NoAnswer | Self::Call(_) => "unanswered",
        }
    }
}

impl IntentState {
    /// The state of a call that its class has just taken.
    pub(crate) fn of(mode: config::AuditMode) -> Self {
        match mode {
            config::AuditMode::Required => Self::Needed,
            config::AuditMode::BestEffort | config::AuditMode::Off => Self::Unneeded,
        }
    }

    /// Whether the collector may have an intent of the call.
    pub(crate) fn was_asked(self) -> bool {
        matches!(self, Self::Asked | Self::Recorded)
    }
}

/// What the facts say of a class; nothing for the default.
pub(crate) fn mode_fact(mode: config::AuditMode) -> Option<AuditMode> {
    match mode {
        config::AuditMode::Required => Some(AuditMode::Required),
        config::AuditMode::BestEffort => None,
        config::AuditMode::Off => Some(AuditMode::Off),
    }
}

#[cfg(test)]
#[path = "intent_tests.rs"]
mod tests;
