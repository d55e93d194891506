//! `cfn-lint` (AWS's schemas of CloudFormation) and `checkov` (known unsafe settings), Python programs of the versions that
//! `infra/checks/*.txt` pin.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Exit codes of `cfn-lint` after a complete run: a sum of the levels of its faults.
/// Source: cfn-lint's README, "Exit codes".
const CFN_LINT_EXITS: std::ops::RangeInclusive<i32> = 0..=14;
/// Actions that the pinned `cfn-lint` does not know yet: botocore 1.44.8 has their operations.
const NEWER_ACTIONS: [&str; 1] = ["getproject"];
/// Exit codes of `checkov` after a complete run: without and with faults.
const CHECKOV_EXITS: std::ops::RangeInclusive<i32> = 0..=1;

/// Why a tool gives no report.
#[derive(Debug, thiserror::Error)]
pub enum LinterError {
    #[error("{tool}: {source}")]
    Start { tool: &'static str, source: std::io::Error },
    /// It failed, or its output is not its report.
    #[error("{tool} gives no report:\n{output}")]
    Report { tool: &'static str, output: String },
}

/// The faults that `cfn-lint` finds in these files for one region. Its warnings are faults too.
///
/// # Errors
/// [`LinterError`].
pub fn cfn_lint(python: &Path, region: &str, files: &[PathBuf]) -> Result<Vec<String>, LinterError> {
    // Without files it would read its standard input.
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let program = "import sys; from cfnlint.runner import main; sys.exit(main())";
    let mut command = Command::new(python);
    command.args(["-c", program, "--include-checks", "I", "--regions", region, "--format", "json", "--"]).args(files);
    let report = report("cfn-lint", &mut command, CFN_LINT_EXITS)?;
    let faults = report.as_array().into_iter().flatten();
    Ok(faults.filter(|fault| !is_newer_action(fault)).map(linted).collect())
}

fn is_newer_action(fault: &Value) -> bool {
    let text = |pointer| fault.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let newer = |action: &&str| text("/Message").starts_with(&format!("'{action}' is not one of"));
    text("/Rule/Id") == "W3037" && NEWER_ACTIONS.iter().any(newer)
}

fn linted(fault: &Value) -> String {
    let text = |pointer| fault.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let line = fault.pointer("/Location/Start/LineNumber").and_then(Value::as_u64).unwrap_or_default();
    format!("{}:{line}: [cfn-lint {}] {}", short(text("/Filename")), text("/Rule/Id"), text("/Message"))
}

/// The report of `checkov`.
#[derive(Debug)]
pub struct Checked {
    pub faults: Vec<String>,
    pub passed: u64,
    /// Failed checks with an exception in the template.
    pub exceptions: u64,
}

/// Runs `checkov` on the templates below a directory.
///
/// # Errors
/// [`LinterError`].
pub fn checkov(python: &Path, directory: &Path) -> Result<Checked, LinterError> {
    let mut command = Command::new(python);
    command.args(["-m", "checkov.main", "--framework", "cloudformation", "--output", "json", "--quiet", "--compact"]);
    // Without this it downloads descriptions of its checks.
    command.arg("--skip-download").arg("--directory").arg(directory);
    let report = report("checkov", &mut command, CHECKOV_EXITS)?;
    let number = |pointer| report.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let mut faults: Vec<String> =
        report.pointer("/results/failed_checks").and_then(Value::as_array).into_iter().flatten().map(checked).collect();
    if number("/summary/parsing_errors") > 0 {
        faults.push(format!("checkov cannot read {} of the templates", number("/summary/parsing_errors")));
    }
    Ok(Checked { faults, passed: number("/summary/passed"), exceptions: number("/summary/skipped") })
}

fn checked(fault: &Value) -> String {
    let text = |pointer| fault.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let line = fault.pointer("/file_line_range/0").and_then(Value::as_u64).unwrap_or_default();
    let (file, id) = (short(text("/file_abs_path")), text("/check_id"));
    format!("{file}:{line}: [checkov {id}] {}: {}", text("/resource"), text("/check_name"))
}

/// A template's path as the project's rules print it: directory and name.
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
