//! Runs the gateway in network namespaces: `chaos` breaks its paths under load, `vpn` runs the VPN's machines. Tests use
//! the namespaces and machines.
//!
//! Programs and packages are named by the environment ([`tools`]); `cargo xtask soak chaos` and `cargo xtask soak vpn` set it.
#![forbid(unsafe_code)]

pub mod chaos;
pub mod cli;
pub mod keys;
pub mod machine;
pub mod namespace;
pub mod programs;
pub mod record;
pub mod tools;
pub mod vpn;

pub use bedrock_gateway::Error;
