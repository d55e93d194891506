//! Builds the module and the binaries of the workspace. Cargo decides what to rebuild; its output is shown only if it
//! compiles.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::error::{BuildError, Error};
use crate::{dirs, progress, tools};

/// Environment variables that name artifacts and tools to programs and tests. `docs/development.md` lists them.
pub(crate) mod variables {
    /// The module (`bedrock_filter.wasm`).
    pub(crate) const MODULE: &str = "BEDROCK_FILTER_WASM";
    /// The module of a foreign filter (`host-tests/vm/foreign`).
    pub(crate) const FOREIGN: &str = "FOREIGN_FILTER_WASM";
    /// A library that steps the clock of programs (`host-tests/clock`).
    pub(crate) const CLOCK: &str = "STEPPED_CLOCK_LIBRARY";
    pub(crate) const ENVOY: &str = "ENVOY_BIN";
    /// The release archive with the debug build's binaries.
    pub(crate) const ARCHIVE: &str = "RELEASE_ARCHIVE";
    /// The directory of `DynamoDBLocal.jar`.
    pub(crate) const DYNAMODB_LOCAL: &str = "DYNAMODB_LOCAL_DIR";
    /// A Python with the SDKs of `host-tests/clients/requirements.txt`.
    pub(crate) const PYTHON: &str = "GATEWAY_PYTHON";
    /// A Python with moto.
    pub(crate) const MOTO: &str = "GATEWAY_MOTO_PYTHON";
    /// A client of IAM Roles Anywhere (`needroleshere`).
    pub(crate) const NEEDROLESHERE: &str = "NEEDROLESHERE_BIN";
    /// A directory with the `node_modules` of `host-tests/clients/package-lock.json`.
    pub(crate) const JAVASCRIPT: &str = "GATEWAY_JS_DIR";
    /// A Python with the schemas of Istio and Kubernetes (`envoy/checks/istio.txt`).
    pub(crate) const ISTIO_SCHEMAS: &str = "ISTIO_SCHEMAS_PYTHON";
    /// A Python with cfn-lint.
    pub(crate) const CFN_LINT: &str = "INFRA_CFN_LINT_PYTHON";
    /// A Python with checkov.
    pub(crate) const CHECKOV: &str = "INFRA_CHECKOV_PYTHON";
    /// A Python with moto and the AWS CLI, for the AWS mock.
    pub(crate) const AWS_MOCK: &str = "INFRA_AWS_MOCK_PYTHON";
    /// Prometheus, for the queries of the dashboard.
    pub(crate) const PROMETHEUS: &str = "PROMETHEUS_BIN";
    /// A directory of unpacked Debian packages: strongSwan, FRR and others.
    pub(crate) const DEBIAN: &str = "LAB_DEBIAN_ROOT";
    /// Pythons, each with a client of `host-tests/clients/matrix`, and the files that pin them.
    pub(crate) const MATRIX_PYTHONS: [(&str, &str); 4] = [
        ("MATRIX_AIOBOTOCORE_PYTHON", "aiobotocore.txt"),
        ("MATRIX_AWSCLI_PYTHON", "awscli.txt"),
        ("MATRIX_LANGCHAIN_PYTHON", "langchain.txt"),
        ("MATRIX_LITELLM_PYTHON", "litellm.txt"),
    ];
    /// A directory with the `node_modules` of `host-tests/clients/matrix/package-lock.json`.
    pub(crate) const MATRIX_JAVASCRIPT: &str = "MATRIX_JS_DIR";
    /// Version 2 of the AWS CLI.
    pub(crate) const MATRIX_AWS: &str = "MATRIX_AWS_BIN";
    /// A client with the AWS SDK for Rust (`host-tests/clients/matrix/rust`).
    pub(crate) const MATRIX_RUST: &str = "MATRIX_RUST_BIN";
    /// A Python with LiteLLM's proxy (`host-tests/bench/peers`).
    pub(crate) const LITELLM: &str = "BENCH_LITELLM_PYTHON";
    /// A directory whose `node_modules` has Portkey's gateway (`host-tests/bench/peers`).
    pub(crate) const PORTKEY: &str = "BENCH_PORTKEY_DIR";
}

pub(crate) const WASM_TARGET: &str = "wasm32-wasip1";

/// Builds the Proxy-Wasm module, unless the environment names it.
pub(crate) fn module() -> Result<PathBuf, BuildError> {
    if let Some(file) = from_environment(variables::MODULE) {
        return Ok(file);
    }
    add_target(WASM_TARGET)?;
    build("the module", module_build(cargo(), &Place::own())?)?;
    Ok(dirs::target().join(MODULE_FILE))
}

/// The module's file in Cargo's target directory.
pub(crate) const MODULE_FILE: &str = "wasm32-wasip1/module/bedrock_filter.wasm";

/// Where something is built.
#[derive(Debug)]
pub(crate) struct Place {
    pub root: PathBuf,
    pub target: PathBuf,
    pub cargo_home: PathBuf,
}

impl Place {
    fn own() -> Place {
        Place { root: dirs::root(), target: dirs::target(), cargo_home: dirs::cargo_home() }
    }
}

/// The build of the module. Panics name source files: their folders get the same names wherever they are, so that the module is
/// the same to the byte. What the user has in `RUSTFLAGS` does not count.
pub(crate) fn module_build(mut cargo: Command, place: &Place) -> Result<Command, BuildError> {
    let Rustc { sysroot, commit } = rustc()?;
    // Of two that match, rustc takes the later. Cargo's folder may be in the workspace.
    let names = [
        (place.root.clone(), "/bedrock-gateway".to_owned()),
        (place.target.clone(), "/target".to_owned()),
        (place.cargo_home.clone(), "/cargo".to_owned()),
        (sysroot.join("lib/rustlib/src/rust"), format!("/rustc/{commit}")),
    ];
    let names = names.iter().map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display()));
    // SHA-256 takes a tenth less time with vectors of 128 bits, which Envoy's V8 has.
    let flags: Vec<String> = names.chain(["-Ctarget-feature=+simd128".to_owned()]).collect();
    cargo.args(["build", "--locked", "--profile", "module", "--target", WASM_TARGET, "--package", "bedrock-filter"]);
    cargo.current_dir(&place.root).env("CARGO_TARGET_DIR", &place.target).env("CARGO_HOME", &place.cargo_home);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    Ok(cargo)
}

#[derive(Debug)]
struct Rustc {
    /// Where the toolchain is.
    sysroot: PathBuf,
    /// The commit that it is of; std's own paths have it.
    commit: String,
}

fn rustc() -> Result<Rustc, BuildError> {
    let said = |arguments: &[&str]| {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(rustc).args(arguments).current_dir(dirs::root()).output();
        let output = output.map_err(BuildError::Rustc)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let (sysroot, version) = (said(&["--print", "sysroot"])?, said(&["--version", "--verbose"])?);
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: "));
    let commit = commit.filter(|_| !sysroot.is_empty()).ok_or(BuildError::UnknownRustc)?;
    Ok(Rustc { sysroot: sysroot.into(), commit: commit.to_owned() })
}

/// Builds another project's Proxy-Wasm filter, which tests `host-tests/vm`.
pub(crate) fn foreign_module() -> Result<PathBuf, BuildError> {
    add_target(WASM_TARGET)?;
    let manifest = "host-tests/vm/foreign/Cargo.toml";
    let arguments = ["build", "--manifest-path", manifest, "--release", "--target", WASM_TARGET, "--locked"];
    build("a foreign filter", cargo_with(&arguments))?;
    Ok(dirs::target().join(WASM_TARGET).join("release/foreign_filter.wasm"))
}

/// Builds the library that steps the clock of programs.
pub(crate) fn clock() -> Result<PathBuf, BuildError> {
    if let Some(file) = from_environment(variables::CLOCK) {
        return Ok(file);
    }
    build("a clock that steps", cargo_with(&["build", "--package", "stepped-clock"]))?;
    Ok(dirs::target().join("debug/libstepped_clock.so"))
}

/// Builds a client with the AWS SDK for Rust, which takes minutes of one core, once.
pub(crate) fn rust_client() -> Result<PathBuf, BuildError> {
    let manifest = "host-tests/clients/matrix/rust/Cargo.toml";
    build("a client with the AWS SDK for Rust", cargo_with(&["build", "--manifest-path", manifest, "--locked"]))?;
    Ok(dirs::target().join("debug/matrix-client"))
}

/// A binary of the workspace, and the environment variable that names its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binary {
    pub name: &'static str,
    package: &'static str,
    variable: &'static str,
}

pub(crate) const GATEWAY: Binary =
    Binary { name: "bedrock-gateway", package: "bedrock-gateway", variable: "BEDROCK_GATEWAY_BIN" };
pub(crate) const COLLECTOR: Binary =
    Binary { name: "audit-collector", package: "audit-collector", variable: "AUDIT_COLLECTOR_BIN" };
pub(crate) const DOUBLE: Binary =
    Binary { name: "bedrock-double", package: "bedrock-double", variable: "BEDROCK_DOUBLE_BIN" };
pub(crate) const LOAD: Binary = Binary { name: "bedrock-load", package: "bedrock-load", variable: "BEDROCK_LOAD_BIN" };
pub(crate) const LAB: Binary = Binary { name: "lab", package: "lab", variable: "LAB_BIN" };
pub(crate) const BENCH: Binary =
    Binary { name: "bedrock-bench", package: "bedrock-bench", variable: "BEDROCK_BENCH_BIN" };
pub(crate) const API_DRIFT: Binary = Binary { name: "api-drift", package: "api-drift", variable: "API_DRIFT_BIN" };
pub(crate) const INFRA_CHECKS: Binary =
    Binary { name: "infra-checks", package: "infra-checks", variable: "INFRA_CHECKS_BIN" };

/// Built artifacts and installed tools, as environment variables.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl Workspace {
    /// Builds and installs what `bedrock-gateway up` needs.
    pub(crate) fn for_gateway() -> Result<Workspace, Error> {
        let mut workspace = Workspace::default();
        workspace.environment.push((variables::MODULE, module()?));
        workspace.build(&[GATEWAY, COLLECTOR])?;
        workspace.environment.push((variables::ENVOY, tools::envoy::find(&dirs::tools())?));
        Ok(workspace)
    }

    /// Builds and installs what `host-tests/lab` and `infra/checks` need.
    pub(crate) fn for_lab() -> Result<Workspace, Error> {
        let mut workspace = Workspace::for_gateway()?;
        workspace.build(&[DOUBLE, LOAD, LAB, INFRA_CHECKS])?;
        Ok(workspace)
    }

    /// Builds the binaries that the environment does not name.
    pub(crate) fn build(&mut self, binaries: &[Binary]) -> Result<(), Error> {
        let missing: Vec<&Binary> =
            binaries.iter().filter(|binary| from_environment(binary.variable).is_none()).collect();
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|binary| binary.name).collect();
            let mut arguments = vec!["build"];
            missing.iter().for_each(|binary| arguments.extend(["--package", binary.package, "--bin", binary.name]));
            build(&names.join(", "), cargo_with(&arguments))?;
        }
        for binary in binaries {
            let built = || dirs::target().join("debug").join(binary.name);
            self.environment.push((binary.variable, from_environment(binary.variable).unwrap_or_else(built)));
        }
        Ok(())
    }

    /// Adds the linters and the AWS mock.
    pub(crate) fn add_infra_tools(&mut self) -> Result<(), Error> {
        let checks = dirs::root().join("infra/checks");
        for (variable, file) in [
            (variables::CFN_LINT, "cfn-lint.txt"),
            (variables::CHECKOV, "checkov.txt"),
            (variables::AWS_MOCK, "aws_mock.txt"),
        ] {
            self.environment.push((variable, tools::python::find(&dirs::tools(), &checks.join(file))?));
        }
        Ok(())
    }

    /// Adds the other gateways that `bench` compares.
    pub(crate) fn add_peers(&mut self) -> Result<(), Error> {
        let (tools, pins) = (dirs::tools(), dirs::root().join("host-tests/bench/peers"));
        self.environment.push((variables::LITELLM, tools::python::find(&tools, &pins.join("litellm.txt"))?));
        self.environment.push((variables::PORTKEY, tools::javascript::find(&tools, &pins)?));
        self.environment.push(("PATH", tools::node::path(&tools)?.into()));
        Ok(())
    }

    pub(crate) fn add_debian(&mut self) -> Result<(), Error> {
        self.environment.push((variables::DEBIAN, tools::debian::find(&dirs::tools())?));
        Ok(())
    }

    pub(crate) fn file(&self, binary: Binary) -> Result<&Path, Error> {
        let found = self.environment.iter().find(|(name, _)| *name == binary.variable);
        found.map(|(_, file)| file.as_path()).ok_or_else(|| Error::Failed(format!("{} is not built", binary.name)))
    }

    /// A command that runs a binary with all variables.
    pub(crate) fn command(&self, binary: Binary) -> Result<Command, Error> {
        let mut command = Command::new(self.file(binary)?);
        command.envs(self.environment.iter().cloned());
        keep_bytecode(&mut command);
        Ok(command)
    }
}

/// Replaces this process with the program, which then gets the signals and sets the exit code.
pub(crate) fn exec(mut command: Command) -> Result<ExitCode, Error> {
    use std::os::unix::process::CommandExt as _;
    let program = PathBuf::from(command.get_program());
    Err(Error::file("cannot run", program)(command.exec()))
}

/// Builds optimised, static binaries for deployment.
pub(crate) fn static_build(binaries: &[Binary], target: &str) -> Result<Vec<PathBuf>, Error> {
    let (zigbuild, zig) = tools::zig::find(&dirs::tools())?;
    add_target(target)?;
    let mut command = Command::new(zigbuild);
    command.current_dir(dirs::root()).env("CARGO_TARGET_DIR", dirs::target()).env("CARGO_ZIGBUILD_ZIG_PATH", zig);
    command.args(["zigbuild", "--release", "--target", target]);
    for binary in binaries {
        command.args(["--package", binary.package, "--bin", binary.name]);
    }
    let status = command.status().map_err(BuildError::Cargo)?;
    if !status.success() {
        return Err(BuildError::Failed(format!("zigbuild --release --target {target}")).into());
    }
    let folder = dirs::target().join(target).join("release");
    Ok(binaries.iter().map(|binary| folder.join(binary.name)).collect())
}

/// The file that an environment variable names.
fn from_environment(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// Lets each Python below the command keep its bytecode in the target directory. To compile moto's takes 2 s of CPU at each start.
pub(crate) fn keep_bytecode(command: &mut Command) {
    command.env_remove("PYTHONDONTWRITEBYTECODE").env("PYTHONPYCACHEPREFIX", dirs::target().join("pycache"));
}

/// The `cargo` that runs this program, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(dirs::root()).env("CARGO_TARGET_DIR", dirs::target());
    // The outer cargo's variables describe this package. Crates that read them (ring) would be rebuilt each time.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

fn cargo_with(arguments: &[&str]) -> Command {
    let mut command = cargo();
    command.args(arguments);
    command
}

/// Runs Cargo. Shows its output only if it compiles something or fails.
pub(crate) fn build(what: &str, mut command: Command) -> Result<(), BuildError> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(BuildError::Cargo)?;
    let mut shown = false;
    let mut held: Vec<String> = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let word = line.trim_start();
            if shown {
                if !word.starts_with("Compiling") && !word.starts_with("Downloaded") {
                    eprintln!("{line}");
                }
            } else if word.starts_with("Compiling") {
                progress::say(&format!("building {what} …"));
                shown = true;
            } else {
                held.push(line);
            }
        }
    }
    let status = child.wait().map_err(BuildError::Cargo)?;
    if status.success() {
        return Ok(());
    }
    if !shown {
        held.iter().for_each(|line| eprintln!("{line}"));
    }
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    Err(BuildError::Failed(arguments.join(" ")))
}

pub(crate) fn add_target(target: &str) -> Result<(), BuildError> {
    if has_target(target) {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", target]).current_dir(dirs::root()).stdin(Stdio::null());
    add.stdout(Stdio::null()).stderr(Stdio::null());
    let added = progress::step(&format!("adding the target {target}"), || add.status());
    let added = added.is_ok_and(|status| status.success()) && has_target(target);
    if added { Ok(()) } else { Err(BuildError::Target(target.to_owned())) }
}

fn has_target(target: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut print = Command::new(rustc);
    print.args(["--print", "target-libdir", "--target", target]).current_dir(dirs::root());
    print.stderr(Stdio::null()).output().is_ok_and(|output| {
        let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        std::fs::read_dir(Path::new(&dir)).is_ok_and(|mut files| files.next().is_some())
    })
}
