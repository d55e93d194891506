//! `cfn-lint` (AWS's schemas of CloudFormation) and `checkov` (what is known to be unsafe). Both are Python programs of
//! the versions in `infra/checks`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What `cfn-lint` ends with where it found no fault of any level, and where it found some: a sum of levels.
/// Source: cfn-lint's README, "Exit codes".
const LINTED: std::ops::RangeInclusive<i32> = 0..=14;
/// What `checkov` ends with: nothing found, and something.
const CHECKED: std::ops::RangeInclusive<i32> = 0..=1;

/// Why a tool's word cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LinterError {
    /// It does not start.
    #[error("{tool}: {source}")]
    Start {
        /// Its name.
        tool: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// It ended with an error of its own, or said something else than its report.
    #[error("{tool} gives no report:\n{output}")]
    Report {
        /// Its name.
        tool: &'static str,
        /// What it wrote.
        output: String,
    },
}

/// The faults that `cfn-lint` finds in these files for one region, of every level: a warning is a fault too.
///
/// # Errors
/// [`LinterError`].
pub fn cfn_lint(python: &Path, region: &str, files: &[PathBuf]) -> Result<Vec<String>, LinterError> {
    // No files would make it read its standard input.
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let program = "import sys; from cfnlint.runner import main; sys.exit(main())";
    let mut command = Command::new(python);
    command.args(["-c", program, "--include-checks", "I", "--regions", region, "--format", "json", "--"]).args(files);
    let report = report("cfn-lint", &mut command, LINTED)?;
    Ok(report.as_array().into_iter().flatten().map(linted).collect())
}

fn linted(fault: &Value) -> String {
    let text = |pointer| fault.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let line = fault.pointer("/Location/Start/LineNumber").and_then(Value::as_u64).unwrap_or_default();
    format!("{}:{line}: [cfn-lint {}] {}", short(text("/Filename")), text("/Rule/Id"), text("/Message"))
}

/// What `checkov` says of a directory.
#[derive(Debug)]
pub struct Checked {
    /// What it finds.
    pub faults: Vec<String>,
    /// Checks that passed.
    pub passed: u64,
    /// Checks that would have failed, and are excused in place.
    pub excused: u64,
}

/// What `checkov` says of the templates below a directory.
///
/// # Errors
/// [`LinterError`].
pub fn checkov(python: &Path, directory: &Path) -> Result<Checked, LinterError> {
    let mut command = Command::new(python);
    command.args(["-m", "checkov.main", "--framework", "cloudformation", "--output", "json", "--quiet", "--compact"]);
    // It would ask its maker's server for texts about what it finds.
    command.arg("--skip-download").arg("--directory").arg(directory);
    let report = report("checkov", &mut command, CHECKED)?;
    let number = |pointer| report.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let mut faults: Vec<String> =
        report.pointer("/results/failed_checks").and_then(Value::as_array).into_iter().flatten().map(checked).collect();
    if number("/summary/parsing_errors") > 0 {
        faults.push(format!("checkov cannot read {} of the templates", number("/summary/parsing_errors")));
    }
    Ok(Checked { faults, passed: number("/summary/passed"), excused: number("/summary/skipped") })
}

fn checked(fault: &Value) -> String {
    let text = |pointer| fault.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let line = fault.pointer("/file_line_range/0").and_then(Value::as_u64).unwrap_or_default();
    let (file, id) = (short(text("/file_abs_path")), text("/check_id"));
    format!("{file}:{line}: [checkov {id}] {}: {}", text("/resource"), text("/check_name"))
}

/// A template's path as the other rules name it: its directory and its name.
fn short(file: &str) -> String {
    let parts: Vec<&str> = file.rsplitn(3, '/').take(2).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

fn report(
    tool: &'static str,
    command: &mut Command,
    ends: std::ops::RangeInclusive<i32>,
) -> Result<Value, LinterError> {
    let output = command
        .stdin(Stdio::null())
        // A caller's settings are not this check's.
        .env_remove("PYTHONPATH")
        .output()
        .map_err(|source| LinterError::Start { tool, source })?;
    let said = output.status.code().is_some_and(|code| ends.contains(&code));
    match serde_json::from_slice(&output.stdout) {
        Ok(report) if said => Ok(report),
        _ => Err(LinterError::Report { tool, output: text(&output.stdout) + &text(&output.stderr) }),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
