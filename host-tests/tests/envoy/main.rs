//! Tests of `bedrock-gateway up` with real SDKs in front and the Bedrock double behind.
//!
//! `cargo xtask test` sets up what they need and names it in the environment (docs/development.md).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod audit;
mod aws_clients;
mod batch_jobs;
mod catalogue;
mod chain;
mod client_matrix;
mod clients;
mod collector;
mod combined;
mod credentials;
mod cutover;
mod dashboard;
mod discovery;
mod disk_full;
mod failover;
mod fastest;
mod federation;
mod harness;
mod hashing;
mod hostile;
mod ids;
mod intents;
mod isolation;
mod istio;
mod keepalive;
mod lambda_api;
mod lists;
mod metrics;
mod mixed;
mod moto;
mod new_headers;
mod on_demand;
mod order;
mod own_api;
mod pod;
mod pool;
mod principal;
mod regions;
mod replies;
mod request_metadata;
mod residency;
mod resolve;
mod retention;
mod roles_anywhere;
mod rules;
mod rust_client;
mod sdk;
mod secrets;
mod sessions;
mod shown;
mod shutdown;
mod source_filter;
mod sources;
mod stalls;
mod sticky;
mod streams;
mod throttling;
mod trapped;
mod web_identity;
