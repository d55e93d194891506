//! `cargo xtask …`: commands for developers.
//!
//! Each command builds the workspace's binaries ([`artifacts`]), installs missing tools ([`tools`]) under the target
//! directory, and runs them.
#![forbid(unsafe_code)]

mod api_drift;
mod artifacts;
mod cli;
mod demo;
mod dirs;
mod error;
mod progress;
mod release;
mod reproducible;
mod stamp;
mod suite;
mod test;
mod tools;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
