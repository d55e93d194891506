//! Which credentials a call needs.

use super::session_name::SessionName;
use std::fmt;

/// A source's own credentials, or those of a caller's session there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CredentialId {
    /// The source's name.
    pub source: String,
    /// The caller's session; `None`: all callers share the source's own.
    pub session: Option<SessionName>,
}

impl CredentialId {
    /// A source's own credentials.
    pub fn of_source(source: &str) -> Self {
        Self { source: source.to_owned(), session: None }
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.session {
            Some(session) => write!(f, "{}, session {session}", self.source),
            None => f.write_str(&self.source),
        }
    }
}
