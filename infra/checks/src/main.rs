//! `infra-checks`: every check of the templates; run it by `cargo xtask infra`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // The mock's `aws` command: `infra-checks aws SOCKET ARGUMENT…`.
    if arguments.next().is_some_and(|first| first == "aws") {
        return infra_checks::aws_command::run(arguments);
    }
    match infra_checks::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
