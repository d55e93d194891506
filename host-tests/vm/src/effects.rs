//! The effects of a module that tests read.

use super::abi::{Header, Status};
use super::bytes::Bytes;

/// A line that the module logged by `proxy_log` or wrote to its standard output or error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// 0 trace … 5 critical, as in the ABI.
    pub level: u32,
    /// The text.
    pub text: String,
}

/// A host call that returned a status other than `Ok`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The host call.
    pub call: &'static str,
    /// The status.
    pub status: Status,
}

/// A call that the module sent out by `proxy_http_call`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutCall {
    /// Names the call to [`crate::Vm::answer`] and [`crate::Vm::fail_call`].
    pub token: u32,
    /// The Envoy cluster.
    pub cluster: String,
    /// Pseudo headers included.
    pub headers: Vec<Header>,
    /// May be empty.
    pub body: Bytes,
    /// May be empty.
    pub trailers: Vec<Header>,
    /// Milliseconds; 0 means no timeout.
    pub timeout_ms: u32,
    /// The context that made the call, which gets the response.
    pub(super) context: u32,
}

/// A response that the module, or Envoy's buffer limit, sent in place of the upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// The HTTP status.
    pub status: u32,
    /// The headers that the module gave. [`crate::Exchange::response_map`] has what the client gets.
    pub headers: Vec<Header>,
    /// May be empty.
    pub body: Bytes,
    /// For the access log's `%RESPONSE_CODE_DETAILS%`.
    pub details: String,
}
