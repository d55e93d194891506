//! The whole gateway: `bedrock-gateway up` as a user starts it, real SDKs in front, the Bedrock double behind.
//!
//! What these need, `cargo xtask test` sets up and names in the environment (docs/development.md).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod audit;
mod clients;
mod combined;
mod credentials;
mod cutover;
mod failover;
mod harness;
mod isolation;
mod istio;
mod metrics;
mod moto;
mod principal;
mod regions;
mod replies;
mod sdk;
mod sources;
mod streams;
