//! REQUEST: a curl command line, a raw HTTP request in a file, or an audit record.

use std::path::Path;

use super::curl::{self, CurlError};
use super::http::{self, HttpError};
use super::record::{self, Record, RecordError};
use super::request::Request;

/// What to explain.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// A whole request: route and signature.
    Request(Request),
    /// A record of one: the route alone.
    Record(Box<Record>),
}

/// Why REQUEST cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// None of the three forms.
    #[error("REQUEST: not a file that can be read ({0}), and neither a curl command line nor an audit record ({{…}})")]
    Form(std::io::Error),
    /// A curl command line.
    #[error("{name}: {error}")]
    Curl {
        /// `REQUEST`, or the file.
        name: String,
        /// What is wrong, and where.
        error: CurlError,
    },
    /// A raw request.
    #[error("{name}: {error}")]
    Http {
        /// The file.
        name: String,
        /// What is wrong, and where.
        error: HttpError,
    },
    /// A record.
    #[error("{name}: {error}")]
    Record {
        /// `REQUEST`, or the file.
        name: String,
        /// What is wrong, and where.
        error: RecordError,
    },
}

impl Subject {
    /// Reads REQUEST: the argument itself, or the file that it names.
    ///
    /// # Errors
    /// [`RequestError`] is one line, with the place of what is wrong.
    pub fn read(argument: &str) -> Result<Self, RequestError> {
        let itself = "REQUEST".to_owned();
        let text = argument.trim_start();
        if text.starts_with('{') {
            return Self::record(itself, text.as_bytes());
        }
        if is_curl(text) {
            return Self::curl(itself, text);
        }
        let bytes = std::fs::read(Path::new(argument)).map_err(RequestError::Form)?;
        let name = argument.to_owned();
        let start = bytes.trim_ascii_start();
        if start.starts_with(b"{") {
            return Self::record(name, start);
        }
        match std::str::from_utf8(start) {
            Ok(text) if is_curl(text) => Self::curl(name, text),
            _ => http::parse(&bytes).map(Self::Request).map_err(|error| RequestError::Http { name, error }),
        }
    }

    fn curl(name: String, text: &str) -> Result<Self, RequestError> {
        curl::parse(text).map(Self::Request).map_err(|error| RequestError::Curl { name, error })
    }

    fn record(name: String, text: &[u8]) -> Result<Self, RequestError> {
        record::parse(text)
            .map(|record| Self::Record(Box::new(record)))
            .map_err(|error| RequestError::Record { name, error })
    }
}

fn is_curl(text: &str) -> bool {
    text.strip_prefix("curl").is_some_and(|rest| rest.starts_with(|next: char| next.is_whitespace() || next == '\\'))
}
