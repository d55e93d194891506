//! The command line of `cargo xtask`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::artifacts::{self, Workspace};
use crate::error::Error;
use crate::release::Arch;
use crate::{api_drift, demo, dirs, release, reproducible, test};

/// Commands for developers. Each installs missing tools under `target/`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the gateway: SDK calls over three paths, then without Direct Connect, then without the VPN, and the audit
    /// records.
    Demo,
    /// Run all checks: format, lints and tests.
    Test {
        /// Run unit tests only, without downloads.
        #[arg(long)]
        fast: bool,
        /// Run only tests whose name contains this, without lints. Fails if there is none.
        #[arg(last = true)]
        name: Option<String>,
    },
    /// Build, then run `bedrock-gateway up`.
    #[command(disable_help_flag = true)]
    Up(Rest),
    /// Build the archive that operators install.
    Release {
        /// The processor architecture [default: this machine's].
        #[arg(long, value_enum)]
        arch: Option<Arch>,
        /// The file [default: target/bedrock-gateway-VERSION-ARCH.tar.gz].
        #[arg(long, value_name = "FILE.tar.gz")]
        out: Option<PathBuf>,
    },
    /// Check the CloudFormation templates of infra/, and deploy each version to an AWS mock (part of `test`).
    Infra,
    /// Compare AWS's service models with the tables of operations, headers and members. Exits with 0 if nothing differs, 1 if
    /// something does, 2 if they could not be compared.
    ApiDrift {
        /// The botocore that has the models: `newest` on PyPI, `pinned` by the tests, or a version.
        #[arg(long, value_name = "VERSION", default_value = "newest")]
        botocore: api_drift::Version,
    },
    /// Measure what the gateway adds to an Envoy, next to Envoy's own signer (docs/performance.md), and with `--peers` next to other
    /// gateways. For a machine that does nothing else.
    #[command(disable_help_flag = true)]
    Bench(Rest),
    /// Build the module of this commit in two clones in two places, and compare the two (docs/deployment.md). Exits with 1 if they
    /// differ.
    Reproducible,
    /// Run tests that take over a minute; `test` runs the same code for a shorter time. Needs root.
    #[command(subcommand)]
    Soak(Soak),
}

#[derive(Debug, Subcommand)]
enum Soak {
    /// Kill the collector and Envoy, lock the store, fill the disk and rotate the log under load, for ten minutes or
    /// SOAK_SECONDS (docs/audit.md).
    Audit,
    /// Begin large calls on 200 connections and end none, for a minute (docs/security.md).
    Bodies,
    /// Break the gateway's paths under load, in network namespaces (docs/chaos.md).
    #[command(disable_help_flag = true)]
    Chaos(Rest),
    /// Make a region slow and fast again under load, for thirteen minutes (docs/configuration.md).
    Fastest,
    /// Call the gateway with eleven SDKs, libraries and command lines, and show what each got (docs/clients.md).
    Clients,
    /// Count the packets of calls that are silent for two minutes (docs/configuration.md).
    Keepalive,
    /// Mixed calls at 70 % of the machine's CPU while regions, paths, documents and keys change, for an hour or SOAK_SECONDS
    /// (docs/performance.md).
    Mixed,
    /// Renew sessions of federation and IAM Roles Anywhere under load, for five minutes each (docs/credentials.md).
    Credentials,
    /// Compare a million signatures with botocore's, for some minutes (docs/development.md).
    Signer,
    /// Run the VPN instances, in network namespaces (docs/vpn.md).
    #[command(disable_help_flag = true)]
    Vpn(Rest),
}

/// Arguments that are passed on to a program.
#[derive(Debug, Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Cli {
    /// Runs the command. A program that it starts sets the exit code.
    pub(crate) fn run(self) -> Result<ExitCode, Error> {
        match self.command {
            Command::Demo => demo::run().map(|()| ExitCode::SUCCESS),
            Command::Test { fast, name } => test::run(fast, name.as_deref(), &[]).map(|()| ExitCode::SUCCESS),
            Command::Release { arch, out } => {
                let made = release::make(arch.unwrap_or_else(Arch::own), out.as_deref())?;
                println!("{}  {}", made.sha256, made.file.display());
                Ok(ExitCode::SUCCESS)
            }
            Command::Up(Rest { arguments }) => {
                let workspace = Workspace::for_gateway()?;
                let mut command = workspace.command(artifacts::GATEWAY)?;
                command.env("BEDROCK_GATEWAY_STATE", dirs::target()).arg("up").args(arguments);
                artifacts::exec(command)
            }
            Command::Bench(Rest { arguments }) => {
                let mut workspace = Workspace::for_gateway()?;
                workspace.build(&[artifacts::BENCH])?;
                if arguments.iter().any(|argument| argument == "--peers") {
                    workspace.add_peers()?;
                }
                let mut command = workspace.command(artifacts::BENCH)?;
                command.args(arguments);
                artifacts::exec(command)
            }
            Command::Reproducible => {
                println!("the same module in both places: {}", reproducible::run()?);
                Ok(ExitCode::SUCCESS)
            }
            Command::Infra => {
                let mut workspace = Workspace::for_lab()?;
                workspace.add_infra_tools()?;
                artifacts::exec(workspace.command(artifacts::INFRA_CHECKS)?)
            }
            Command::ApiDrift { botocore } => Ok(api_drift::run(&botocore)),
            Command::Soak(Soak::Audit) => test::soak("no_call_is_without").map(|()| ExitCode::SUCCESS),
            Command::Soak(Soak::Credentials) => test::soak("_under_load").map(|()| ExitCode::SUCCESS),
            Command::Soak(Soak::Bodies) => test::soak("bodies_that_never_end").map(|()| ExitCode::SUCCESS),
            Command::Soak(Soak::Fastest) => test::soak("new_calls_leave_a_slow_region").map(|()| ExitCode::SUCCESS),
            Command::Soak(Soak::Clients) => test::soak_clients().map(|()| ExitCode::SUCCESS),
            Command::Soak(Soak::Keepalive) => test::soak("keepalive").map(|()| ExitCode::SUCCESS),
            Command::Soak(Soak::Mixed) => test::soak("mixed_traffic").map(|()| ExitCode::SUCCESS),
            Command::Soak(Soak::Signer) => test::soak("as_botocore_does").map(|()| ExitCode::SUCCESS),
            Command::Soak(Soak::Chaos(Rest { arguments })) => lab("chaos", arguments),
            Command::Soak(Soak::Vpn(Rest { arguments })) => lab("vpn", arguments),
        }
    }
}

fn lab(name: &str, arguments: Vec<OsString>) -> Result<ExitCode, Error> {
    let mut workspace = Workspace::for_lab()?;
    workspace.add_debian()?;
    let mut command = workspace.command(artifacts::LAB)?;
    command.arg(name).args(arguments);
    artifacts::exec(command)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn documents_name_existing_commands() {
        let subcommands: BTreeSet<String> =
            Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        let mut pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| dirs::root().join(page)).to_vec();
        pages.extend(std::fs::read_dir(dirs::root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
        for page in pages.iter().filter(|page| page.extension().is_some_and(|kind| kind == "md")) {
            let text = std::fs::read_to_string(page).unwrap();
            let lines = text.lines().map(|line| current(page, line));
            for command in lines.flat_map(|line| line.split("cargo xtask ").skip(1)) {
                let word: String =
                    command.chars().take_while(|next| next.is_ascii_lowercase() || *next == '-').collect();
                // `cargo xtask …` names no command.
                let known = word.is_empty() || subcommands.contains(&word);
                assert!(known, "{}: cargo xtask {word} does not exist", page.display());
            }
        }
    }

    /// A line of a page, without the first column of the changelog's table, which has old commands.
    fn current<'a>(page: &Path, line: &'a str) -> &'a str {
        match line.splitn(3, '|').nth(2) {
            Some(rest) if page.ends_with("CHANGELOG.md") && line.starts_with('|') => rest,
            _ => line,
        }
    }
}
