//! The files below `tables/`.
//!
//! A section is a line `[KIND SERVICE VERDICT] reason` and names after it, separated by white space. `NAME=VALUE` is a name
//! with a value. A word that ends in `:` is put before the names after it: `TokenUsage: inputTokens` is
//! `TokenUsage.inputTokens`. `#` begins a comment.

use std::collections::BTreeMap;

use filter_core::operation::Service;
use filter_core::route::SERVICES;

/// What a fact is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An operation.
    Operation,
    /// A member of a structure of a request.
    Member,
    /// A member of a request that names something ([`filter_core::inventory`]).
    Pin,
    /// A header of a request.
    Header,
    /// A parameter of an operation's query.
    Query,
    /// A header of a response.
    Response,
    /// A member of a response's structure.
    Output,
    /// An event of an event stream.
    Event,
    /// An exception, with its status.
    Exception,
}

/// What becomes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Members of requests: someone has read what it means.
    Known,
    /// The gateway reads it, and it crosses.
    Read,
    /// It crosses unread.
    Passed,
    /// The gateway answers with an error that names it.
    Refused,
    /// The gateway removes it.
    Dropped,
}

/// A line of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What becomes of it.
    pub verdict: Verdict,
    /// `NAME=VALUE`; empty if there is none.
    pub value: String,
}

/// A kind, and the name of what it is about: `SERVICE NAME`.
pub type Key = (Kind, String);

/// What the files say.
#[derive(Debug, Clone, Default)]
pub struct Tables(BTreeMap<Key, Row>);

/// A file is malformed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("tables/{file}:{line}: {problem}")]
pub struct TableError {
    file: String,
    line: usize,
    problem: String,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Operation,
        Self::Member,
        Self::Pin,
        Self::Header,
        Self::Query,
        Self::Response,
        Self::Output,
        Self::Event,
        Self::Exception,
    ];

    /// Its name in the tables and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Member => "member",
            Self::Pin => "pin",
            Self::Header => "header",
            Self::Query => "query",
            Self::Response => "response-header",
            Self::Output => "output",
            Self::Event => "event",
            Self::Exception => "exception",
        }
    }
}

impl Verdict {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "known" => Self::Known,
            "read" => Self::Read,
            "passed" => Self::Passed,
            "refused" => Self::Refused,
            "dropped" => Self::Dropped,
            _ => return None,
        })
    }

    /// What the gateway reads or knows explains itself.
    const fn needs_reason(self) -> bool {
        matches!(self, Self::Passed | Self::Refused | Self::Dropped)
    }
}

impl Tables {
    /// Reads files, each with its name for messages.
    ///
    /// # Errors
    /// [`TableError`] names the line.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, TableError> {
        let mut tables = Self::default();
        for (file, text) in files {
            let mut section = None;
            let mut prefix = String::new();
            for (index, line) in text.lines().enumerate() {
                let error = |problem| TableError { file: (*file).to_owned(), line: index + 1, problem };
                let line = line.split('#').next().unwrap_or_default().trim();
                if line.starts_with('[') {
                    section = Some(head(line).map_err(error)?);
                    prefix.clear();
                    continue;
                }
                for word in line.split_whitespace() {
                    let (kind, service, verdict) =
                        section.as_ref().ok_or_else(|| error("a name before the first section".to_owned()))?;
                    if let Some(above) = word.strip_suffix(':') {
                        prefix = format!("{above}.");
                        continue;
                    }
                    let (name, value) = word.split_once('=').unwrap_or((word, ""));
                    let key = (*kind, format!("{service} {prefix}{name}"));
                    let row = Row { verdict: *verdict, value: value.to_owned() };
                    if tables.0.insert(key, row).is_some() {
                        return Err(error(format!("{prefix}{name} is repeated")));
                    }
                }
            }
        }
        Ok(tables)
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Row)> {
        self.0.iter()
    }

    /// The row of a name.
    pub fn get(&self, kind: Kind, service: &str, name: &str) -> Option<&Row> {
        self.0.get(&(kind, format!("{service} {name}")))
    }
}

/// `[KIND SERVICE VERDICT] reason`
fn head(line: &str) -> Result<(Kind, &'static str, Verdict), String> {
    let (words, reason) = line
        .strip_prefix('[')
        .and_then(|line| line.split_once(']'))
        .ok_or_else(|| "want [KIND SERVICE VERDICT] reason".to_owned())?;
    let mut words = words.split_whitespace();
    let mut next = || words.next().unwrap_or_default();
    let (kind, service, verdict) = (next(), next(), next());
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).ok_or(format!("unknown kind '{kind}'"))?;
    let service = SERVICES.into_iter().map(Service::name).find(|known| *known == service);
    let service = service.ok_or("unknown service".to_owned())?;
    let verdict = Verdict::of(verdict).ok_or(format!("unknown verdict '{verdict}'"))?;
    if verdict.needs_reason() && reason.trim().is_empty() {
        return Err("this verdict needs a reason".to_owned());
    }
    Ok((kind, service, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_prefixes_and_values_are_read() {
        let text = "# a comment\n[output bedrock-runtime read]\nTokenUsage: inputTokens # counts\n  outputTokens\n\
                    [exception bedrock passed] the client's\nThrottlingException=429\n";
        let tables = Tables::parse(&[("a.txt", text)]).unwrap();
        let rows: Vec<_> = tables.iter().map(|((kind, name), row)| (kind.name(), name.as_str(), &*row.value)).collect();
        assert_eq!(
            rows,
            [
                ("output", "bedrock-runtime TokenUsage.inputTokens", ""),
                ("output", "bedrock-runtime TokenUsage.outputTokens", ""),
                ("exception", "bedrock ThrottlingException", "429"),
            ]
        );
        assert_eq!(tables.get(Kind::Exception, "bedrock", "ThrottlingException").unwrap().verdict, Verdict::Passed);
    }

    #[test]
    fn malformed_tables_are_refused_by_line() {
        for (text, wanted) in [
            ("name", "a name before the first section"),
            ("[operation bedrock refused]\nx", "this verdict needs a reason"),
            ("[operation s3 refused] why", "unknown service"),
            ("[thing bedrock refused] why", "unknown kind 'thing'"),
            ("[operation bedrock maybe] why", "unknown verdict 'maybe'"),
            ("[operation bedrock refused", "want [KIND SERVICE VERDICT] reason"),
            ("[operation bedrock refused] why\nA B\nA", "A is repeated"),
        ] {
            let error = Tables::parse(&[("a.txt", text)]).unwrap_err().to_string();
            let line = text.lines().count();
            assert!(error.ends_with(wanted) && error.starts_with("tables/a.txt:"), "{error}");
            assert!(text.contains("refused]") || error.contains(&format!(":{line}:")), "{error}");
        }
    }
}
