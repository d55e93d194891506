//! What the gateway decides about a call: pure, so that every path is a table test.
//!
//! Start at [`exchange`], then read [`step`], [`pending`], [`handoff`], [`attempt`] and [`relay`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod access;
pub mod answer_problem;
pub mod attempt;
pub mod bedrock_headers;
pub mod breaker;
pub mod buffers;
pub mod caller;
pub mod catalogue;
pub mod clock;
pub mod config;
pub mod connections;
pub mod credentials;
pub mod encoding;
pub mod envoy_names;
pub mod exchange;
pub mod frame_guard;
pub(crate) mod gateway_api;
pub(crate) mod geography;
pub mod handoff;
pub mod headers;
pub(crate) mod images;
pub mod intent;
pub mod inventory;
pub mod json_object;
pub mod lambda_api;
pub(crate) mod latency;
pub(crate) mod lease;
pub mod limits;
pub mod metrics;
pub mod model;
pub(crate) mod model_lists;
pub mod names;
pub mod operation;
pub(crate) mod pending;
pub(crate) mod pins;
pub mod policy;
pub mod poll_call;
pub mod poll_job;
pub mod polls;
pub mod principal;
pub mod query;
pub(crate) mod quota;
pub mod region;
pub mod relay;
pub mod reply;
pub mod request_body;
pub mod request_metadata;
pub mod residency;
pub mod resolve;
pub mod retention;
pub mod route;
pub mod rules;
pub mod scanner;
pub mod shared;
pub mod sigv4;
pub(crate) mod spending;
pub mod step;
pub mod usage;
pub mod vm;

#[cfg(test)]
mod testing;
