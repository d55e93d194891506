//! `cargo xtask …`: the developers' commands.
//!
//! Each sets up what is missing ([`tools`], [`artifacts`]) under the target directory and starts the workspace's binaries.
#![forbid(unsafe_code)]

mod artifacts;
mod cli;
mod demo;
mod dirs;
mod error;
mod progress;
mod release;
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
