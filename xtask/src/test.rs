//! `cargo xtask test`: runs all checks, the fastest first.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::artifacts::{self, WASM_TARGET};
use crate::artifacts::{COLLECTOR, DOUBLE, GATEWAY, INFRA_CHECKS, LAB, LOAD, Workspace, variables};
use crate::error::{BuildError, Error};
use crate::stamp::Stamp;
use crate::{dirs, progress, release, suite, tools};

/// The workspace without the module, which builds only for wasm32-wasip1.
const NATIVE: [&str; 3] = ["--workspace", "--exclude", "bedrock-filter"];

/// `fast` runs only tests that need no downloads (Envoy, DynamoDB Local, SDKs). `name` runs only tests whose name
/// contains it. `variables` are for the tests.
pub(crate) fn run(fast: bool, name: Option<&str>, variables: &[(&'static str, PathBuf)]) -> Result<(), Error> {
    let mut steps = Steps::default();
    // Installing mostly waits for the network, so it runs while Cargo compiles.
    let tools = (!fast).then(|| std::thread::spawn(tools));
    if name.is_none() {
        lints(&mut steps)?;
        if !fast {
            steps.time("dependencies", dependencies)?;
        }
    }
    // Tests start these binaries, so nothing is built twice or while tests run.
    let mut workspace = Workspace { environment: variables.to_vec() };
    steps.time("the modules", || {
        workspace.environment.push((variables::MODULE, artifacts::module()?));
        workspace.environment.push((variables::FOREIGN, artifacts::foreign_module()?));
        workspace.environment.push((variables::CLOCK, artifacts::clock()?));
        Ok(())
    })?;
    steps.time("the binaries", || workspace.build(&[GATEWAY, COLLECTOR, DOUBLE, LOAD, LAB, INFRA_CHECKS]))?;
    let mut tests = vec!["test", "--no-fail-fast"];
    tests.extend(NATIVE);
    if fast {
        tests.extend(["--lib", "--bins"]);
    }
    if let Some(tools) = tools {
        steps.time("the tools", || {
            let found = tools.join().map_err(|_| Error::Failed("installing the tools panicked".to_owned()))??;
            workspace.environment.extend(found);
            Ok(())
        })?;
        steps.time("the archive", || {
            let archive = dirs::target().join("tmp/release.tar.gz");
            release::make_from_debug(&workspace, &archive)?;
            workspace.environment.push((variables::ARCHIVE, archive));
            Ok(())
        })?;
        if name.is_none() {
            templates(&mut steps, &workspace)?;
        }
    }
    match name {
        Some(name) => {
            must_match(&tests, name)?;
            // What a soak prints are its figures.
            tests.extend(["--", name, "--show-output"]);
            steps.command("tests", suite::command(&tests, &workspace.environment))?;
        }
        None if fast => steps.command("tests", suite::command(&tests, &workspace.environment))?,
        None => steps.time("tests", || suite::run(&tests, &workspace.environment))?,
    }
    steps.report();
    Ok(())
}

/// Runs the tests whose name contains `name` for minutes, one at a time.
pub(crate) fn soak(name: &str) -> Result<(), Error> {
    soak_with(name, Vec::new())
}

/// Runs the clients of `host-tests/clients/matrix`, which nothing else needs.
pub(crate) fn soak_clients() -> Result<(), Error> {
    let (tools, pins) = (dirs::tools(), dirs::root().join("host-tests/clients/matrix"));
    let mut found = vec![
        (variables::MATRIX_JAVASCRIPT, tools::javascript::find(&tools, &pins)?),
        (variables::MATRIX_AWS, tools::debian::aws_cli(&tools)?),
        (variables::MATRIX_RUST, artifacts::rust_client()?),
    ];
    for (variable, file) in variables::MATRIX_PYTHONS {
        found.push((variable, tools::python::find(&tools, &pins.join(file))?));
    }
    soak_with("client_matrix", found)
}

fn soak_with(name: &str, mut variables: Vec<(&'static str, PathBuf)>) -> Result<(), Error> {
    variables.extend([("SOAK", "1".into()), (suite::THREADS, "1".into())]);
    run(false, Some(name), &variables)
}

/// Checks the templates and deploys them to the mock of AWS, unless that passed with the same files and programs.
fn templates(steps: &mut Steps, workspace: &Workspace) -> Result<(), Error> {
    let root = dirs::root();
    let (infra, envoy) = (root.join("infra"), root.join("envoy"));
    let programs = [workspace.file(INFRA_CHECKS)?, workspace.file(GATEWAY)?, workspace.file(COLLECTOR)?];
    let stamp = Stamp::of("templates", "", &[&[infra.as_path(), &envoy][..], &programs].concat())?;
    if stamp.is_current() {
        progress::say("── the templates: unchanged since they passed; `cargo xtask infra` checks them");
        return Ok(());
    }
    steps.command("the templates", workspace.command(INFRA_CHECKS)?)?;
    stamp.keep()
}

/// Checks licences, bans and sources of dependencies (`deny.toml`), and advisories if their database can be fetched.
fn dependencies() -> Result<(), Error> {
    let program = tools::deny::find(&dirs::tools())?;
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(dirs::root()).args(arguments).output().map_err(BuildError::Cargo)
    };
    let check = |kinds: &[&str]| {
        let output = deny(&[&["--log-level", "error", "check", "--hide-inclusion-graph"], kinds].concat())?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Error::Failed(format!("cargo deny check {}:\n{text}", kinds.join(" "))))
    };
    check(&["bans", "licenses", "sources"])?;
    if deny(&["fetch", "db"])?.status.success() {
        return check(&["advisories"]);
    }
    progress::say("advisories were not checked: their database cannot be fetched here");
    Ok(())
}

/// Installs the tools that the workspace does not build.
fn tools() -> Result<Vec<(&'static str, PathBuf)>, Error> {
    let (tools, clients) = (dirs::tools(), dirs::root().join("host-tests/clients"));
    let mut workspace = Workspace::default();
    let found = [
        (variables::ENVOY, tools::envoy::find(&tools)?),
        (variables::DYNAMODB_LOCAL, tools::dynamodb::find(&tools)?),
        (variables::PYTHON, tools::python::find(&tools, &clients.join("requirements.txt"))?),
        (variables::MOTO, tools::python::find(&tools, &clients.join("requirements-moto.txt"))?),
        (variables::PROMETHEUS, tools::debian::prometheus(&tools)?),
        (variables::NEEDROLESHERE, tools::needroleshere::find(&tools)?),
        (variables::JAVASCRIPT, tools::javascript::find(&tools, &clients)?),
        (
            variables::ISTIO_SCHEMAS,
            tools::python::find_without_dependencies(&tools, &dirs::root().join("envoy/checks/istio.txt"))?,
        ),
    ];
    workspace.environment.extend(found);
    // Tests find Java and Node.js in PATH, also where they were downloaded.
    let own = std::env::var_os("PATH").unwrap_or_default();
    let all = [tools::java::find(&tools)?, tools::node::find(&tools)?].into_iter();
    let all = std::env::join_paths(all.chain(std::env::split_paths(&own)));
    let all = all.map_err(|error| Error::Failed(format!("PATH: {error}")))?;
    workspace.environment.push(("PATH", all.into()));
    workspace.add_infra_tools()?;
    workspace.add_debian()?;
    Ok(workspace.environment)
}

/// Fails if no test has the name; libtest would report success.
fn must_match(tests: &[&str], name: &str) -> Result<(), Error> {
    let mut command = artifacts::cargo();
    let output = command.args(tests).args(["--quiet", "--", "--list", "--format", "terse", name]).output();
    let output = output.map_err(BuildError::Cargo)?;
    if !output.status.success() {
        return Err(Error::Failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    if listed.lines().any(|line| line.ends_with(": test")) {
        return Ok(());
    }
    Err(Error::Failed(format!("no test has {name:?} in its name")))
}

fn lints(steps: &mut Steps) -> Result<(), Error> {
    let formatted = steps.cargo("format", &["fmt", "--all", "--check"]);
    formatted.map_err(|_| Error::Failed("the format differs; run: cargo fmt --all".to_owned()))?;
    steps
        .cargo("lints", &[&["clippy"], &NATIVE[..], &["--all-targets", "--quiet", "--", "-D", "warnings"]].concat())?;
    // rustup adds the target when it installs the toolchain, but not to an installed one.
    artifacts::add_target(WASM_TARGET)?;
    let filter = ["clippy", "--package", "bedrock-filter", "--target", WASM_TARGET, "--quiet", "--", "-D", "warnings"];
    steps.cargo("lints of the module", &filter)
}

/// Names and durations of the steps.
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
            let status = command.status().map_err(BuildError::Cargo)?;
            if status.success() { Ok(()) } else { Err(BuildError::Failed(line.join(" ")).into()) }
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
