//! The VPN's machines: `render.py`, `watch.py`, `logs.py`, and the scripts that install and apply. `cargo xtask test` names the
//! binaries in the environment.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod documents;
mod install;
mod logs;
mod pair;
mod rendered;
mod support;
mod takeover;
mod tunnels;
mod units;
