//! Checks the CloudFormation templates of `infra/templates`: the project's rules, two linters, and an upgrade test through the
//! versions of connectivity on a mock of AWS.
//!
//! `cargo xtask infra` runs them; it names the linters' and the mock's Python in the environment.
#![forbid(unsafe_code)]

pub mod aws_command;
pub mod aws_mock;
pub mod linters;
pub mod policy_files;
pub mod release;
pub mod rules;
pub mod template;
mod upgrade_test;

use std::path::{Path, PathBuf};

use bedrock_gateway::progress;
use filter_core::names::Partition;
use lab::tools::{required, root};

use linters::LinterError;
use policy_files::PolicyFile;
use template::{PARTITIONS, Template, TemplateError, region};

pub use lab::Error;

/// A Python with the packages of `infra/checks/cfn-lint.txt`.
pub const CFN_LINT_PYTHON: &str = "INFRA_CFN_LINT_PYTHON";
/// A Python with the packages of `infra/checks/checkov.txt`.
pub const CHECKOV_PYTHON: &str = "INFRA_CHECKOV_PYTHON";
/// A Python with the packages of `infra/checks/aws_mock.txt`.
pub const AWS_MOCK_PYTHON: &str = "INFRA_AWS_MOCK_PYTHON";

#[derive(Debug, thiserror::Error)]
pub enum InfraError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Tool(#[from] Error),
    #[error(transparent)]
    Linter(#[from] LinterError),
    /// A line for each fault.
    #[error("{} faults in the templates\n{}", .0.len(), .0.join("\n"))]
    Faults(Vec<String>),
    #[error("upgrade test: {0}")]
    Upgrade(Error),
}

pub fn templates() -> PathBuf {
    root().join("infra/templates")
}

/// Checks every template and runs the upgrade test. Writes one line to stderr for each check and each step.
///
/// # Errors
/// [`InfraError::Faults`] has every fault of the first check that fails.
pub fn run() -> Result<(), InfraError> {
    let directory = templates();
    let found = Template::all(&directory)?;
    let count = found.len();
    settle(&format!("{count} templates, the project's rules"), texts(rules::check(&found)))?;
    let policies = PolicyFile::all()?;
    settle(
        &format!("{} policies, their sizes", policies.len()),
        policies.iter().filter_map(PolicyFile::oversize).collect(),
    )?;
    // In parallel: both take long, and the upgrade test mostly waits.
    let (linted, upgraded) = std::thread::scope(|scope| {
        let upgraded = scope.spawn(upgrade_test::run);
        let linted = lint(&directory, &found, &policies);
        (linted, upgraded.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    linted?;
    settle("the deployed resources, read back", upgraded.map_err(InfraError::Upgrade)?)
}

/// `cfn-lint` and `checkov`.
fn lint(directory: &Path, found: &[Template], policies: &[PolicyFile]) -> Result<(), InfraError> {
    let count = found.len();
    let python = required(CFN_LINT_PYTHON)?;
    for partition in PARTITIONS {
        let files: Vec<PathBuf> = of(directory, found, partition);
        let region = region(partition);
        settle(
            &format!("{} templates, cfn-lint for {region}", files.len()),
            linters::cfn_lint(&python, region, &files)?,
        )?;
    }
    let what = format!("{} policies, cfn-lint for their partitions", policies.len());
    settle(&what, policy_files::cfn_lint(&python, policies)?)?;
    let python = required(CHECKOV_PYTHON)?;
    let checked = linters::checkov(&python, directory)?;
    let mut faults = checked.faults;
    // checkov counts an exception only where the check fails without it.
    let written: usize = found.iter().map(rules::checkov_exceptions).sum();
    if faults.is_empty() && usize::try_from(checked.exceptions).ok() != Some(written) {
        faults.push(format!("the templates have {written} exceptions from checkov; {} are needed", checked.exceptions));
    }
    settle(&format!("{count} templates, checkov: {} checks, {written} exceptions", checked.passed), faults)
}

fn of(directory: &Path, templates: &[Template], partition: Partition) -> Vec<PathBuf> {
    let of = templates.iter().filter(|template| template.partition == partition);
    of.map(|template| directory.join(&template.file)).collect()
}

fn texts(faults: Vec<rules::Fault>) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

fn settle(check: &str, faults: Vec<String>) -> Result<(), InfraError> {
    if !faults.is_empty() {
        return Err(InfraError::Faults(faults));
    }
    progress::say(&format!("{check}: no fault"));
    Ok(())
}
