//! What the answers of operations without a model depend on.

use serde_json::Value;

use super::answer::Answer;
use super::catalogue::Catalogue;
use super::retention::Retention;
use super::sigv4::percent_decode;

pub(crate) use super::answer::MADE;

/// The input of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub catalogue: &'a Catalogue,
    pub retention: &'a Retention,
    pub region: &'a str,
    /// As on the wire.
    pub query: &'a str,
    pub body: &'a Value,
}

impl Context<'_> {
    pub(crate) fn arn(&self, account: &str, resource: &str) -> String {
        format!("arn:aws:bedrock:{}:{account}:{resource}", self.region)
    }

    /// A query parameter, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        parameter(self.query, name)
    }
}

/// A parameter of a query, decoded.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    let mut parts = query.split('&').filter_map(|part| part.split_once('='));
    let (_, value) = parts.find(|(key, _)| *key == name)?;
    Some(String::from_utf8_lossy(&percent_decode(value)).into_owned())
}

pub(crate) fn not_found(what: &str) -> Answer {
    Answer::error(404, "ResourceNotFoundException", &format!("The provided identifier was not found: {what}"))
}
