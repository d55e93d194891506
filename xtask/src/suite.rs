//! Runs the whole suite. The slowest test binary runs next to the others, since most of its tests wait for another program.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::Command;

use crate::error::{BuildError, Error};
use crate::{artifacts, dirs, progress};

/// The test targets of this name take as long as all others: SDKs in front of the real Envoy.
const SLOWEST: &str = "envoy";
/// The VPN's machines take over from each other within seconds, which a busy machine delays: these tests run alone.
const ALONE: &str = "vpn";
/// libtest's variable for the number of concurrent tests of a binary.
pub(crate) const THREADS: &str = "RUST_TEST_THREADS";

/// `cargo test` with these arguments and variables, and twice as many tests at once as there are cores. Measured on two
/// cores: the tests on Envoy took 116 s instead of 222 s.
pub(crate) fn command(arguments: &[&str], environment: &[(&'static str, PathBuf)]) -> Command {
    let mut command = artifacts::cargo();
    command.args(arguments).envs(environment.iter().cloned());
    artifacts::keep_bytecode(&mut command);
    if std::env::var_os(THREADS).is_none() && environment.iter().all(|(name, _)| *name != THREADS) {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        command.env(THREADS, (2 * cores).to_string());
    }
    command
}

/// Runs all tests of the packages that `arguments` of `cargo test` select.
pub(crate) fn run(arguments: &[&str], environment: &[(&'static str, PathBuf)]) -> Result<(), Error> {
    let others = targets()?;
    let others: Vec<&str> = others.iter().flat_map(|name| ["--test", name.as_str()]).collect();
    let test = |more: &[&str]| command(&[arguments, more].concat(), environment);
    // Built first, so that nothing is built while tests run.
    let built = test(&["--no-run", "--quiet"]).status().map_err(BuildError::Cargo)?;
    if !built.success() {
        return Err(BuildError::Failed("test --no-run".to_owned()).into());
    }
    let log = dirs::target().join("tmp").join(format!("tests-{SLOWEST}.log"));
    let file = std::fs::File::create(&log).map_err(Error::file("cannot write", &log))?;
    let errors = file.try_clone().map_err(Error::file("cannot write", &log))?;
    let mut slowest = test(&["--test", SLOWEST]).stdout(file).stderr(errors).spawn().map_err(BuildError::Cargo)?;
    progress::say(&format!("the tests of `{SLOWEST}` run next to the others; their output follows"));
    let others = test(&[&["--lib", "--bins"], &others[..]].concat()).status();
    let documents = test(&["--doc"]).status();
    let slowest = slowest.wait();
    let alone = test(&["--test", ALONE]).status();
    progress::say(&std::fs::read_to_string(&log).map_err(Error::file("cannot read", &log))?);
    for status in [others, documents, slowest, alone] {
        if !status.map_err(BuildError::Cargo)?.success() {
            return Err(BuildError::Failed(arguments.join(" ")).into());
        }
    }
    Ok(())
}

/// The names of the workspace's other integration tests.
fn targets() -> Result<BTreeSet<String>, Error> {
    let output = artifacts::cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output();
    let output = output.map_err(BuildError::Cargo)?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| {
        Error::Failed(format!("cargo metadata: {error}: {}", String::from_utf8_lossy(&output.stderr)))
    })?;
    let list = |value: &serde_json::Value, key: &str| {
        value.get(key).and_then(serde_json::Value::as_array).cloned().unwrap_or_default()
    };
    let targets = list(&metadata, "packages").into_iter().flat_map(|package| list(&package, "targets"));
    let tests = targets.filter(|target| list(target, "kind").iter().any(|kind| kind == "test"));
    let names = tests.filter_map(|target| target.get("name")?.as_str().map(str::to_owned));
    Ok(names.filter(|name| name != SLOWEST && name != ALONE).collect())
}
