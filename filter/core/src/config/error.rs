//! What is wrong with a configuration, and where.

use super::nearest::nearest;
use std::fmt;

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, as a path from the top: `route_classes[0].paths[1]`; `.` for the document.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// Where the problem is an unknown name: the names that are known there.
    pub known: Vec<String>,
    /// The known name that is probably meant.
    pub nearest: Option<String>,
    /// Where a text stops being JSON. Other errors have no position: see [`locate`](super::locate).
    pub position: Option<Position>,
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in bytes, from 1.
    pub column: usize,
}

impl ConfigError {
    /// A problem with a key.
    pub fn new(key: impl Into<String>, problem: impl ToString) -> Self {
        Self { key: key.into(), problem: problem.to_string(), ..Self::default() }
    }

    /// A name that is not one of `known`; `kind` says what it would name.
    pub fn unknown<'a>(
        key: impl Into<String>,
        kind: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self::new(key, format!("unknown {kind} '{name}'")).with_known(name, known)
    }

    /// A text that is not JSON.
    pub fn not_json(error: &serde_json::Error) -> Self {
        let position = Position { line: error.line(), column: error.column() };
        let said = error.to_string();
        let said = said.strip_suffix(&format!(" at {position}")).unwrap_or(&said);
        Self { position: Some(position), ..Self::new(".", format!("the document is not JSON: {said}")) }
    }

    /// The problem, the known names and the nearest of them, without the key.
    pub fn detail(&self) -> String {
        let mut text = self.problem.clone();
        if !self.known.is_empty() {
            text.push_str("; known: ");
            text.push_str(&self.known.join(", "));
        }
        if let Some(nearest) = &self.nearest {
            text.push_str("; did you mean `");
            text.push_str(nearest);
            text.push_str("`?");
        }
        text
    }

    /// Adds the known names, and which of them `name` probably means.
    pub(super) fn with_known<'a>(mut self, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        self.nearest = nearest(name, known.iter().copied()).map(str::to_owned);
        self.known = known.into_iter().map(str::to_owned).collect();
        self
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration key `{}`: {}", self.key, self.detail())?;
        self.position.map_or(Ok(()), |position| write!(f, " at {position}"))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// Short for [`ConfigError::new`].
pub(crate) fn at(key: impl Into<String>, problem: impl ToString) -> ConfigError {
    ConfigError::new(key, problem)
}
