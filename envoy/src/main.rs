//! `bedrock-gateway …`: the operator's program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use bedrock_gateway::cli::Cli;
use clap::Parser;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
