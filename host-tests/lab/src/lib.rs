//! The gateway in network namespaces: its paths cut under load (`chaos`), its VPN run for real (`vpn`). Tests use its
//! namespaces and machines.
//!
//! Programs and packages are named by the environment ([`tools`]); `cargo xtask chaos` and `cargo xtask vpn` set it.
#![forbid(unsafe_code)]

pub mod chaos;
pub mod cli;
pub mod keys;
pub mod machine;
pub mod namespace;
pub mod programs;
pub mod tools;
pub mod vpn;

pub use bedrock_gateway::Error;
