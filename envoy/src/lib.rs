//! The operator's program as a library: it renders Envoy's and Istio's configuration from the filter's document, runs the
//! gateway, and checks what an operator has written.
#![forbid(unsafe_code)]

pub mod base;
pub mod bootstrap;
pub mod bootstrap_error;
pub mod change_error;
pub mod check;
pub mod cli;
pub mod credentials;
pub mod document;
pub mod error;
pub mod explain;
mod fips;
pub mod gateway;
pub mod installed;
pub mod istio;
pub mod live;
pub mod net;
pub mod objects;
pub mod paths;
pub mod platform;
mod position;
pub mod process;
pub mod programs;
pub mod progress;
mod quotes;
mod relay_listener;
pub mod signals;
pub mod snapshot;
mod source_clusters;
pub mod tls;
pub mod up;
pub mod yaml;

pub use error::Error;
