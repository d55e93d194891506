//! What the gateway decides about a call: pure, so that every path is a table test.
//!
//! Start at [`exchange`].
#![forbid(unsafe_code)]

pub mod audit;
pub mod config;
pub mod credentials;
pub mod encoding;
pub mod exchange;
pub mod headers;
pub mod metrics;
pub mod model;
pub mod operation;
pub mod policy;
pub mod reply;
pub mod sigv4;
pub mod usage;
