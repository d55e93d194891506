//! `cargo xtask test`: everything that must pass, in the order in which it fails fastest.

use std::num::NonZero;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::artifacts::{self, WASM_TARGET};
use crate::{Error, dirs, infra, istio, progress, tools};

/// The variables by which tests find what is outside their crate; `docs/development.md` lists them.
pub mod variables {
    /// The module (`bedrock_filter.wasm`).
    pub const MODULE: &str = "BEDROCK_FILTER_WASM";
    /// Envoy.
    pub const ENVOY: &str = "ENVOY_BIN";
    /// This program.
    pub const XTASK: &str = "XTASK_BIN";
    /// The audit collector.
    pub const COLLECTOR: &str = "AUDIT_COLLECTOR_BIN";
    /// The Bedrock double.
    pub const DOUBLE: &str = "BEDROCK_DOUBLE_BIN";
    /// The load generator.
    pub const LOAD: &str = "BEDROCK_LOAD_BIN";
    /// The directory of `DynamoDBLocal.jar`.
    pub const DYNAMODB_LOCAL: &str = "DYNAMODB_LOCAL_DIR";
    /// A Python with the SDKs of `host-tests/clients/requirements.txt`.
    pub const PYTHON: &str = "GATEWAY_PYTHON";
    /// A Python that has moto.
    pub const MOTO: &str = "GATEWAY_MOTO_PYTHON";
    /// A directory with the `node_modules` of `host-tests/clients/package-lock.json`.
    pub const JAVASCRIPT: &str = "GATEWAY_JS_DIR";
}

/// How many tests of a binary run at once (libtest's own variable).
const THREADS: &str = "RUST_TEST_THREADS";

/// The workspace without the module, which is built for its own target only.
const NATIVE: [&str; 3] = ["--workspace", "--exclude", "bedrock-filter"];

/// Runs all of it. `fast` leaves out what needs Envoy, DynamoDB Local and the SDKs: nothing is downloaded. With `name`,
/// only the tests that hold it are run.
pub fn run(fast: bool, name: Option<&str>) -> Result<(), Error> {
    let mut steps = Steps::default();
    if name.is_none() {
        lints(&mut steps)?;
    }
    let module = steps.time("the module", || Ok(artifacts::module()?))?;
    steps.cargo("the binaries", &[&["build", "--bins", "--quiet"], &NATIVE[..]].concat())?;

    // Tests that start `xtask up` reach the same binaries, and so nothing is built twice or while they run.
    let debug = dirs::target().join("debug");
    let mut environment: Vec<(&str, PathBuf)> = vec![
        (variables::MODULE, module),
        (variables::XTASK, debug.join("xtask")),
        (variables::COLLECTOR, debug.join("audit-collector")),
        (variables::DOUBLE, debug.join("bedrock-double")),
        (variables::LOAD, debug.join("bedrock-load")),
    ];
    let mut tests = vec!["test", "--quiet"];
    tests.extend(NATIVE);
    if fast {
        tests.extend(["--lib", "--bins"]);
    } else {
        let clients = dirs::root().join("host-tests/clients");
        let tools_dir = dirs::tools();
        steps.time("the tools", || {
            environment.push((variables::ENVOY, tools::envoy::find(&tools_dir)?));
            environment.push((variables::DYNAMODB_LOCAL, tools::dynamodb::find(&tools_dir)?));
            environment.push((variables::PYTHON, tools::python::find(&tools_dir, &clients.join("requirements.txt"))?));
            let moto = clients.join("requirements-moto.txt");
            environment.push((variables::MOTO, tools::python::find(&tools_dir, &moto)?));
            tools::debian::find(&tools_dir)?;
            environment.push((variables::JAVASCRIPT, tools::javascript::find(&tools_dir, &clients)?));
            // Found by the tests that use it where it is set up here.
            istio::check::python()?;
            Ok(())
        })?;
        if name.is_none() {
            steps.time("the templates", || Ok(infra::run()?))?;
        }
    }
    tests.extend(name.map(|name| ["--", name]).into_iter().flatten());
    let mut command = artifacts::cargo();
    command.args(&tests).envs(environment);
    // Most of what takes time waits for another program. Seen on two cores: 116 s of the tests on Envoy, in place of 222.
    if std::env::var_os(THREADS).is_none() {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        command.env(THREADS, (2 * cores).to_string());
    }
    steps.command("tests", command)?;
    steps.report();
    Ok(())
}

fn lints(steps: &mut Steps) -> Result<(), Error> {
    steps.cargo("format", &["fmt", "--all", "--check"])?;
    steps
        .cargo("lints", &[&["clippy"], &NATIVE[..], &["--all-targets", "--quiet", "--", "-D", "warnings"]].concat())?;
    // rustup adds it with the toolchain, and not to one that was there already.
    artifacts::target_library()?;
    let filter = ["clippy", "--package", "bedrock-filter", "--target", WASM_TARGET, "--quiet", "--", "-D", "warnings"];
    steps.cargo("lints of the module", &filter)
}

/// What ran, and how long it took.
#[derive(Debug, Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn cargo(&mut self, name: &'static str, arguments: &[&str]) -> Result<(), Error> {
        let mut command = artifacts::cargo();
        command.args(arguments);
        self.command(name, command)
    }

    fn command(&mut self, name: &'static str, mut command: Command) -> Result<(), Error> {
        self.time(name, || {
            let line: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            let status = command.status().map_err(artifacts::BuildError::Cargo)?;
            if status.success() { Ok(()) } else { Err(artifacts::BuildError::Failed(line.join(" ")).into()) }
        })
    }

    fn time<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        progress::say(&format!("── {name}"));
        let start = Instant::now();
        let result = step()?;
        self.0.push((name, start.elapsed()));
        Ok(result)
    }

    fn report(&self) {
        let total: Duration = self.0.iter().map(|(_, time)| *time).sum();
        let each: Vec<String> =
            self.0.iter().map(|(name, time)| format!("{name} {:.0} s", time.as_secs_f64())).collect();
        progress::say(&format!("all passed in {:.0} s: {}", total.as_secs_f64(), each.join(", ")));
    }
}
