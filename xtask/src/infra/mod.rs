//! `cargo xtask infra`: what is checked of the templates in `infra/templates` before anyone deploys them, and the walk
//! through the versions of connectivity.

pub mod linters;
pub mod rules;
pub mod stand;
pub mod template;
mod walk;

use std::path::{Path, PathBuf};

use crate::{Error, dirs, progress, tools};
use linters::LinterError;
use template::{Partition, Template, TemplateError};

/// Why the checks do not pass.
#[derive(Debug, thiserror::Error)]
pub enum InfraError {
    /// A template that cannot be read.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A tool that cannot be set up.
    #[error(transparent)]
    Tool(#[from] tools::ToolError),
    /// A tool that does not work.
    #[error(transparent)]
    Linter(#[from] LinterError),
    /// What is wrong with the templates, a line each.
    #[error("{} faults in the templates\n{}", .0.len(), .0.join("\n"))]
    Faults(Vec<String>),
    /// The walk does not come to its end.
    #[error(transparent)]
    Walk(Box<Error>),
}

/// The templates' directory.
pub fn templates() -> PathBuf {
    dirs::root().join("infra/templates")
}

/// Checks every template, and walks through the versions: one line on stderr for each check and each step.
///
/// # Errors
/// [`InfraError`]; every fault of one check is in it.
pub fn run() -> Result<(), InfraError> {
    let directory = templates();
    let found = Template::all(&directory)?;
    let count = found.len();
    settle(&format!("{count} templates, the project's rules"), texts(rules::check(&found)))?;
    // Both take long, and the walk waits for much of it.
    let (linted, walked) = std::thread::scope(|scope| {
        let walked = scope.spawn(walk::run);
        let linted = lint(&directory, &found);
        (linted, walked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    linted?;
    settle("what was deployed, read back", walked.map_err(|error| InfraError::Walk(Box::new(error)))?)
}

/// What others' linters say of the templates.
fn lint(directory: &Path, found: &[Template]) -> Result<(), InfraError> {
    let count = found.len();
    let tools_dir = dirs::tools();
    let checks = dirs::root().join("infra/checks");
    let python = tools::python::find(&tools_dir, &checks.join("cfn-lint.txt"))?;
    for partition in Partition::ALL {
        let files: Vec<PathBuf> = of(directory, found, partition);
        let region = partition.region();
        settle(
            &format!("{} templates, cfn-lint for {region}", files.len()),
            linters::cfn_lint(&python, region, &files)?,
        )?;
    }
    let python = tools::python::find(&tools_dir, &checks.join("checkov.txt"))?;
    let checked = linters::checkov(&python, directory)?;
    let mut faults = checked.faults;
    // It counts an excuse where the check would have failed.
    let written: usize = found.iter().map(rules::checkov_excuses).sum();
    if faults.is_empty() && usize::try_from(checked.excused).ok() != Some(written) {
        faults.push(format!("{written} excuses from checkov are written, and {} are needed", checked.excused));
    }
    settle(&format!("{count} templates, checkov: {} checks, {written} excused in place", checked.passed), faults)
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
