//! The built filter in `proxy-wasm-vm`: what Envoy would see it do.
//!
//! Needs the module, which `cargo xtask test` builds.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod catalogue;
mod combined;
mod common;
mod configuration;
mod credentials;
mod gateway;
mod host_calls;
mod intents;
mod lambda_api;
mod limits;
mod lists;
mod metrics;
mod module_file;
mod on_demand;
mod resolve;
mod retention;
mod roles_anywhere;
mod rules;
mod signer;
mod source;
mod usage;
mod wiped;
