//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::artifacts::{self, Workspace};
use crate::error::Error;
use crate::release::Arch;
use crate::{demo, dirs, release, test};

/// The developers' commands. Each sets up what is missing under `target/`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the gateway: SDK calls over three paths, then with Direct Connect cut, then the VPN, and the audit records.
    Demo,
    /// Run everything that must pass: format, lints, and every test.
    Test {
        /// Unit tests only, with nothing downloaded.
        #[arg(long)]
        fast: bool,
        /// Only tests whose name contains this, and no lints. It fails if no test has it.
        #[arg(last = true)]
        name: Option<String>,
    },
    /// Build, then run `bedrock-gateway up`.
    #[command(disable_help_flag = true)]
    Up(Rest),
    /// Make the archive that an operator installs.
    Release {
        /// The processor that it is for [default: this machine's].
        #[arg(long, value_enum)]
        arch: Option<Arch>,
        /// The file [default: target/bedrock-gateway-VERSION-ARCH.tar.gz].
        #[arg(long, value_name = "FILE.tar.gz")]
        out: Option<PathBuf>,
    },
    /// Check the CloudFormation templates of infra/, and deploy each version to a mock of AWS (part of `test`).
    Infra,
    /// Run what takes over a minute; the tests run the same code for less. Needs root.
    #[command(subcommand)]
    Soak(Soak),
}

#[derive(Debug, Subcommand)]
enum Soak {
    /// Break the gateway's paths under load, in network namespaces (docs/chaos.md).
    #[command(disable_help_flag = true)]
    Chaos(Rest),
    /// Run the VPN's machines, in network namespaces (docs/vpn.md).
    #[command(disable_help_flag = true)]
    Vpn(Rest),
}

/// Arguments for the program that is run.
#[derive(Debug, Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Cli {
    /// Does what was asked; a program that was run decides the exit code.
    pub fn run(self) -> Result<ExitCode, Error> {
        match self.command {
            Command::Demo => demo::run().map(|()| ExitCode::SUCCESS),
            Command::Test { fast, name } => test::run(fast, name.as_deref()).map(|()| ExitCode::SUCCESS),
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
            Command::Infra => {
                let mut workspace = Workspace::for_lab()?;
                workspace.add_infra_tools()?;
                artifacts::exec(workspace.command(artifacts::INFRA_CHECKS)?)
            }
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

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn pages_name_commands_that_exist() {
        let subcommands: BTreeSet<String> =
            Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        let mut pages = vec![dirs::root().join("README.md")];
        pages.extend(std::fs::read_dir(dirs::root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
        for page in pages.iter().filter(|page| page.extension().is_some_and(|kind| kind == "md")) {
            let text = std::fs::read_to_string(page).unwrap();
            for command in text.split("cargo xtask ").skip(1) {
                let word: String = command.chars().take_while(char::is_ascii_lowercase).collect();
                // `cargo xtask …` means all of them.
                let known = word.is_empty() || subcommands.contains(&word);
                assert!(known, "{}: cargo xtask {word} does not exist", page.display());
            }
        }
    }
}
