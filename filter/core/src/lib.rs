//! What the gateway decides about a call: pure, so that every path is a table test.
//!
//! Start at [`exchange`].
#![forbid(unsafe_code)]

pub mod attempt;
pub mod breaker;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod encoding;
pub mod exchange;
pub mod handoff;
pub mod headers;
pub mod limits;
pub mod metrics;
pub mod model;
pub mod operation;
pub mod policy;
pub mod relay;
pub mod reply;
pub mod route;
pub mod shared;
pub mod sigv4;
pub mod usage;
