//! What the workspace itself builds: the module and the binaries. Cargo decides whether there is anything to do; it is
//! quiet unless it compiles.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::error::{BuildError, Error};
use crate::{dirs, progress, tools};

/// The variables by which programs and tests find what is outside their crate; `docs/development.md` lists them.
pub mod variables {
    /// The module (`bedrock_filter.wasm`).
    pub const MODULE: &str = "BEDROCK_FILTER_WASM";
    /// A filter of another project (`host-tests/vm/foreign`).
    pub const FOREIGN: &str = "FOREIGN_FILTER_WASM";
    /// Envoy.
    pub const ENVOY: &str = "ENVOY_BIN";
    /// The release archive, made of the binaries of this build.
    pub const ARCHIVE: &str = "RELEASE_ARCHIVE";
    /// The directory of `DynamoDBLocal.jar`.
    pub const DYNAMODB_LOCAL: &str = "DYNAMODB_LOCAL_DIR";
    /// A Python with the SDKs of `host-tests/clients/requirements.txt`.
    pub const PYTHON: &str = "GATEWAY_PYTHON";
    /// A Python that has moto.
    pub const MOTO: &str = "GATEWAY_MOTO_PYTHON";
    /// A directory with the `node_modules` of `host-tests/clients/package-lock.json`.
    pub const JAVASCRIPT: &str = "GATEWAY_JS_DIR";
    /// A Python with the schemas of Istio and Kubernetes (`envoy/checks/istio.txt`).
    pub const ISTIO_SCHEMAS: &str = "ISTIO_SCHEMAS_PYTHON";
    /// A Python with cfn-lint.
    pub const CFN_LINT: &str = "INFRA_CFN_LINT_PYTHON";
    /// A Python with checkov.
    pub const CHECKOV: &str = "INFRA_CHECKOV_PYTHON";
    /// A Python with moto and the AWS CLI, for the mock of AWS.
    pub const AWS_MOCK: &str = "INFRA_AWS_MOCK_PYTHON";
    /// Debian's packages, unpacked: strongSwan, FRR and others.
    pub const DEBIAN: &str = "LAB_DEBIAN_ROOT";
}

/// The module's target.
pub const WASM_TARGET: &str = "wasm32-wasip1";

/// The Proxy-Wasm module.
pub fn module() -> Result<PathBuf, BuildError> {
    if let Some(file) = given(variables::MODULE) {
        return Ok(file);
    }
    add_target(WASM_TARGET)?;
    build("the module", &["build", "--release", "--target", WASM_TARGET, "--package", "bedrock-filter"])?;
    Ok(dirs::target().join(WASM_TARGET).join("release/bedrock_filter.wasm"))
}

/// A Proxy-Wasm module that this project did not write, for the tests of the host.
pub fn foreign_module() -> Result<PathBuf, BuildError> {
    add_target(WASM_TARGET)?;
    let manifest = "host-tests/vm/foreign/Cargo.toml";
    let arguments = ["build", "--manifest-path", manifest, "--release", "--target", WASM_TARGET, "--locked"];
    build("a foreign filter", &arguments)?;
    Ok(dirs::target().join(WASM_TARGET).join("release/foreign_filter.wasm"))
}

/// A binary of the workspace: its name, its package, and the variable that names it to tests and to other programs.
#[derive(Debug, Clone, Copy)]
pub struct Binary {
    /// The file's name.
    pub name: &'static str,
    package: &'static str,
    variable: &'static str,
}

/// The operator's program.
pub const GATEWAY: Binary =
    Binary { name: "bedrock-gateway", package: "bedrock-gateway", variable: "BEDROCK_GATEWAY_BIN" };
/// The audit collector.
pub const COLLECTOR: Binary =
    Binary { name: "audit-collector", package: "audit-collector", variable: "AUDIT_COLLECTOR_BIN" };
/// The Bedrock double.
pub const DOUBLE: Binary = Binary { name: "bedrock-double", package: "bedrock-double", variable: "BEDROCK_DOUBLE_BIN" };
/// The load generator.
pub const LOAD: Binary = Binary { name: "bedrock-load", package: "bedrock-load", variable: "BEDROCK_LOAD_BIN" };
/// Runs in network namespaces.
pub const LAB: Binary = Binary { name: "lab", package: "lab", variable: "LAB_BIN" };
/// The checks of the templates.
pub const INFRA_CHECKS: Binary = Binary { name: "infra-checks", package: "infra-checks", variable: "INFRA_CHECKS_BIN" };

/// What was built and set up, as variables for the programs that use it. `docs/development.md` lists them.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Name and value of each variable.
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl Workspace {
    /// What a gateway needs: its program, the module, Envoy and the collector.
    pub fn for_gateway() -> Result<Workspace, Error> {
        let mut workspace = Workspace::default();
        workspace.environment.push((variables::MODULE, module()?));
        workspace.build(&[GATEWAY, COLLECTOR])?;
        workspace.environment.push((variables::ENVOY, tools::envoy::find(&dirs::tools())?));
        Ok(workspace)
    }

    /// What the programs of `host-tests/lab` and `infra/checks` need.
    pub fn for_lab() -> Result<Workspace, Error> {
        let mut workspace = Workspace::for_gateway()?;
        workspace.build(&[DOUBLE, LOAD, LAB, INFRA_CHECKS])?;
        Ok(workspace)
    }

    /// Builds binaries, except those that the environment names.
    pub fn build(&mut self, binaries: &[Binary]) -> Result<(), Error> {
        let missing: Vec<&Binary> = binaries.iter().filter(|binary| given(binary.variable).is_none()).collect();
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|binary| binary.name).collect();
            let mut arguments = vec!["build"];
            missing.iter().for_each(|binary| arguments.extend(["--package", binary.package, "--bin", binary.name]));
            build(&names.join(", "), &arguments)?;
        }
        for binary in binaries {
            let built = || dirs::target().join("debug").join(binary.name);
            self.environment.push((binary.variable, given(binary.variable).unwrap_or_else(built)));
        }
        Ok(())
    }

    /// Adds the linters and the mock of AWS.
    pub fn add_infra_tools(&mut self) -> Result<(), Error> {
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

    /// Adds Debian's packages.
    pub fn add_debian(&mut self) -> Result<(), Error> {
        self.environment.push((variables::DEBIAN, tools::debian::find(&dirs::tools())?));
        Ok(())
    }

    /// A binary's file.
    pub fn file(&self, binary: Binary) -> Result<&Path, Error> {
        let found = self.environment.iter().find(|(name, _)| *name == binary.variable);
        found.map(|(_, file)| file.as_path()).ok_or_else(|| Error::Failed(format!("{} is not built", binary.name)))
    }

    /// Runs a binary with everything in its environment.
    pub fn command(&self, binary: Binary) -> Result<Command, Error> {
        let mut command = Command::new(self.file(binary)?);
        command.envs(self.environment.iter().cloned());
        Ok(command)
    }
}

/// Becomes the program, so that signals reach it and its exit code is this command's.
pub fn exec(mut command: Command) -> Result<ExitCode, Error> {
    use std::os::unix::process::CommandExt as _;
    let program = PathBuf::from(command.get_program());
    Err(Error::file("cannot run", program)(command.exec()))
}

/// Binaries as they are deployed: optimised, static, for a target.
pub fn static_build(binaries: &[Binary], target: &str) -> Result<Vec<PathBuf>, Error> {
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

/// A file that was built already, named by an environment variable.
fn given(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// `cargo` as it runs this, in the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(dirs::root()).env("CARGO_TARGET_DIR", dirs::target());
    // What the outer cargo says of this package would make crates that look at it (ring) be built again each time.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Builds, and shows Cargo's lines from the first one that says it compiles (or fails).
fn build(what: &str, arguments: &[&str]) -> Result<(), BuildError> {
    let mut command = cargo();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
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
    Err(BuildError::Failed(arguments.join(" ")))
}

/// Adds a target to the toolchain if it is not there.
pub fn add_target(target: &str) -> Result<(), BuildError> {
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
