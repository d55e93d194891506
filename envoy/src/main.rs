//! `bedrock-gateway …`: the operator's program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use audit::text::visible_lines;
use bedrock_gateway::cli::Cli;
use clap::Parser;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", visible_lines(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}
