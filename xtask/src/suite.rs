//! Runs the whole suite. The slowest test binary runs next to the others, since most of its tests wait for another program.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::error::{BuildError, Error};
use crate::stamp::Stamp;
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

/// Runs all tests of the packages that `arguments` of `cargo test` select. The slow ones run only if their inputs changed since
/// they passed; in CI always.
pub(crate) fn run(arguments: &[&str], environment: &[(&'static str, PathBuf)]) -> Result<(), Error> {
    let others = targets()?;
    let others: Vec<&str> = others.iter().flat_map(|name| ["--test", name.as_str()]).collect();
    let test = |more: &[&str]| command(&[arguments, more].concat(), environment);
    // Built first, so that nothing is built while tests run.
    let built = test(&["--no-run", "--quiet", "--message-format=json"]).stderr(Stdio::inherit()).output();
    let built = built.map_err(BuildError::Cargo)?;
    if !built.status.success() {
        return Err(BuildError::Failed("test --no-run".to_owned()).into());
    }
    let executables = executables(&String::from_utf8_lossy(&built.stdout));
    let (slowest_stamp, alone_stamp) =
        (stamp(SLOWEST, &executables, environment)?, stamp(ALONE, &executables, environment)?);
    let log = dirs::target().join("tmp").join(format!("tests-{SLOWEST}.log"));
    let file = std::fs::File::create(&log).map_err(Error::file("cannot write", &log))?;
    let errors = file.try_clone().map_err(Error::file("cannot write", &log))?;
    let slowest = match slowest_stamp.is_current() {
        true => {
            progress::say(&unchanged(SLOWEST));
            None
        }
        false => {
            progress::say(&format!("the tests of `{SLOWEST}` run next to the others; their output follows"));
            Some(test(&["--test", SLOWEST]).stdout(file).stderr(errors).spawn().map_err(BuildError::Cargo)?)
        }
    };
    let others = test(&[&["--lib", "--bins"], &others[..]].concat()).status();
    let documents = test(&["--doc"]).status();
    let passed = |status: std::io::Result<ExitStatus>| status.map(|status| status.success()).map_err(BuildError::Cargo);
    let mut all = passed(others)? & passed(documents)?;
    if let Some(mut slowest) = slowest {
        all &= kept(&slowest_stamp, passed(slowest.wait())?)?;
        progress::say(&std::fs::read_to_string(&log).map_err(Error::file("cannot read", &log))?);
    }
    if alone_stamp.is_current() {
        progress::say(&unchanged(ALONE));
    } else {
        all &= kept(&alone_stamp, passed(test(&["--test", ALONE]).status())?)?;
    }
    if all { Ok(()) } else { Err(BuildError::Failed(arguments.join(" ")).into()) }
}

fn unchanged(name: &str) -> String {
    format!("the tests of `{name}`: unchanged since they passed; `CI=1 cargo xtask test` runs them")
}

fn kept(stamp: &Stamp, passed: bool) -> Result<bool, Error> {
    if passed {
        stamp.keep()?;
    }
    Ok(passed)
}

/// What the tests of a name depend on: their executables, the programs and the module that they start, the files that those read,
/// and the names of the tools, which have versions.
fn stamp(
    name: &str,
    executables: &[(String, PathBuf)],
    environment: &[(&'static str, PathBuf)],
) -> Result<Stamp, Error> {
    let root = dirs::root();
    let folders = ["host-tests", "envoy", "infra"].map(|folder| root.join(folder));
    let own = executables.iter().filter(|(target, _)| target == name).map(|(_, file)| file);
    let (target, tools) = (dirs::target(), dirs::tools());
    // The archive is made anew each time, of the same programs.
    let built = environment.iter().filter(|(variable, file)| {
        *variable != artifacts::variables::ARCHIVE
            && file.starts_with(&target)
            && !file.starts_with(&tools)
            && file.is_file()
    });
    let inputs: Vec<&Path> =
        folders.iter().chain(own).chain(built.map(|(_, file)| file)).map(PathBuf::as_path).collect();
    Stamp::of(&format!("tests-{name}"), &format!("{environment:?}"), &inputs)
}

/// The test executables, by the names of their targets, of Cargo's messages
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html>).
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let text = |message: &serde_json::Value, pointer: &str| message.pointer(pointer)?.as_str().map(str::to_owned);
    messages
        .filter(|message| message.pointer("/profile/test") == Some(&true.into()))
        .filter_map(|message| Some((text(&message, "/target/name")?, text(&message, "/executable")?.into())))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_executables_are_told_from_others() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"envoy"},"profile":{"test":true},"executable":"/t/envoy-1"}
{"reason":"compiler-artifact","target":{"name":"lib"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"name":"program"},"profile":{"test":false},"executable":"/t/program"}
not JSON
{"reason":"build-finished","success":true}"#;
        assert_eq!(executables(messages), [("envoy".to_owned(), PathBuf::from("/t/envoy-1"))]);
    }
}
