//! The developer's commands: `demo` shows the gateway, `test` checks it, `up` runs it, `chaos` breaks its paths, `vpn` runs
//! the machines of its VPN, `infra` checks the templates that deploy it.
//!
//! Each sets up what is missing ([`tools`], [`artifacts`]) under the target directory and starts what it needs as child
//! processes ([`process`]), which end with it.
#![forbid(unsafe_code)]

pub mod artifacts;
pub mod bootstrap;
pub mod chaos;
pub mod cli;
pub mod credentials;
pub mod demo;
pub mod dirs;
pub mod document;
pub mod error;
pub mod gateway;
pub mod infra;
pub mod installed;
pub mod istio;
pub mod live;
pub mod namespace;
pub mod net;
pub mod paths;
pub mod process;
pub mod progress;
pub mod release;
pub mod test;
pub mod tls;
pub mod tools;
pub mod up;
pub mod vpn;

pub use error::Error;
