//! A call of a fetch, and its outcome. No call is made here.

use crate::headers::Headers;

/// A call to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Call {
    /// Envoy's cluster.
    pub cluster: String,
    /// All headers, pseudo-headers too.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy)]
pub enum CallOutcome<'a> {
    /// A response.
    Response {
        /// Its headers.
        headers: &'a Headers,
        /// Its body.
        body: &'a [u8],
    },
    /// A timeout, or the cluster is unreachable.
    NoResponse,
}
