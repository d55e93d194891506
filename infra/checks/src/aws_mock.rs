//! A mock of both partitions of AWS for the upgrade test and the tests of `infra/deploy`: `infra/checks/aws_mock.py`, and
//! the AWS CLI pointed at them (`infra/checks/aws.py`).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::template::{directory, region};
use crate::{AWS_MOCK_PYTHON, Error, aws_command};
use bedrock_gateway::process::Process;
use filter_core::names::Partition;
use lab::tools::{GATEWAY, required, root};

/// AWS's example accounts.
const ACCOUNTS: [(Partition, &str); 2] =
    [(Partition::GovCloud, "444455556666"), (Partition::Commercial, "111122223333")];
/// Time for moto to load.
const START: Duration = Duration::from_secs(180);

/// Two accounts, one in each partition, that are independent of each other.
#[derive(Debug)]
pub struct Aws {
    dir: PathBuf,
    gateway: PathBuf,
    _servers: [Process; 2],
}

/// A resource that moto could not create or update.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unsupported {
    /// `placeholder for`, `no update of` or `no replacement of`.
    pub what: String,
    /// Its CloudFormation type.
    pub kind: String,
    /// Its stack's full name.
    pub stack: String,
    /// Its logical id.
    pub resource: String,
}

impl Aws {
    /// Starts both; their files are in `dir`.
    ///
    /// # Errors
    /// A variable that is not set, or a server that does not start.
    pub fn start(dir: &Path) -> Result<Aws, Error> {
        std::fs::create_dir_all(dir.join("bin")).map_err(Error::file("cannot create", dir))?;
        let checks = root().join("infra/checks");
        let python = required(AWS_MOCK_PYTHON)?;
        let mut command = Command::new(&python);
        command.arg(checks.join("aws_mock.py")).arg(dir);
        for (partition, account) in ACCOUNTS {
            command.arg(format!("{}:{}:{account}", directory(partition), region(partition)));
        }
        let mut server = Process::start("the mock of AWS", command, &dir.join("aws_mock.log"))?;
        let mut config = String::new();
        for (partition, _) in ACCOUNTS {
            let name = directory(partition);
            let port_file = dir.join(format!("{name}.port"));
            let port: u16 = wait(&mut server, || std::fs::read_to_string(&port_file).ok()?.parse().ok())?;
            // AWS's example keys: moto wants keys, and does not check them.
            config.push_str(&format!(
                "[profile {name}]\nregion = {}\nendpoint_url = http://127.0.0.1:{port}\n\
                 aws_access_key_id = AKIAIOSFODNN7EXAMPLE\n\
                 aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
                region(partition)
            ));
        }
        write(&dir.join("config"), &config)?;
        let (socket, script, aws) = (dir.join("cli"), checks.join("aws.py"), dir.join("bin/aws"));
        let mut command = Command::new(&python);
        command.arg(&script).arg(&socket);
        let mut cli = Process::start("the AWS CLI", command, &dir.join("cli.log"))?;
        wait(&mut cli, || socket.exists().then_some(()))?;
        let line = format!("exec '{}' aws '{}' \"$@\"", aws_command::program()?.display(), socket.display());
        write(&aws, &format!("#!/bin/sh\n{line}\n"))?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&aws, executable).map_err(Error::file("cannot change", &aws))?;
        Ok(Aws { dir: dir.to_path_buf(), gateway: required(GATEWAY)?, _servers: [server, cli] })
    }

    /// Runs `deploy` (the script or a copy of it) with these arguments.
    ///
    /// # Errors
    /// It does not start.
    pub fn deploy(&self, script: &Path, arguments: &[&str]) -> Result<Output, Error> {
        let mut command = Command::new(script);
        command.args(arguments).env("DEPLOY_POLL_SECONDS", "0.1").env(GATEWAY, &self.gateway);
        command.env("EVIDENCE_BREAK_SECONDS", "8").env("EVIDENCE_PATIENCE_SECONDS", "30").current_dir(&self.dir);
        self.output(command)
    }

    /// Runs the AWS CLI in a partition; its answer.
    ///
    /// # Errors
    /// The call fails, or its answer is not JSON.
    pub fn call(&self, partition: Partition, arguments: &[&str]) -> Result<Value, Error> {
        let output = self.raw(partition, arguments)?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Failed(format!("aws {}: {text}", arguments.join(" "))));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::Failed(format!("aws {}: not JSON: {error}", arguments.join(" "))))
    }

    /// As [`Aws::call`], for a call that may fail.
    ///
    /// # Errors
    /// The AWS CLI does not start.
    pub fn raw(&self, partition: Partition, arguments: &[&str]) -> Result<Output, Error> {
        let mut command = Command::new(self.cli());
        command.args(["--profile", directory(partition), "--output", "json"]).args(arguments);
        self.output(command)
    }

    /// The resources that moto could not create or update so far.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn unsupported(&self) -> Result<Vec<Unsupported>, Error> {
        let mut all = Vec::new();
        for (partition, _) in ACCOUNTS {
            for line in self.lines(partition)? {
                let field = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
                let stack = format!("{}/{}", directory(partition), field("stack"));
                all.push(Unsupported { what: field("what"), kind: field("type"), stack, resource: field("resource") });
            }
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// The properties of a partition's placeholders of this type, the newest last.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn placeholders(&self, partition: Partition, kind: &str) -> Result<Vec<Value>, Error> {
        let of = |line: &Value| line.get("type").and_then(Value::as_str) == Some(kind);
        let lines = self.lines(partition)?.into_iter().filter(of);
        Ok(lines.filter_map(|line| line.get("properties").filter(|value| value.is_object()).cloned()).collect())
    }

    /// Sets what the account may do and has (`infra/checks/moto_account.py`).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_state(&self, partition: Partition, state: &Value) -> Result<(), Error> {
        let file = self.dir.join(format!("{}.state.json", directory(partition)));
        let new = file.with_extension("new");
        write(&new, &state.to_string())?;
        std::fs::rename(&new, &file).map_err(Error::file("cannot rename", new))
    }

    fn lines(&self, partition: Partition) -> Result<Vec<Value>, Error> {
        let file = list(&self.dir, partition);
        let text = std::fs::read_to_string(&file).map_err(Error::file("cannot read", &file))?;
        let read =
            |line| serde_json::from_str(line).map_err(|error| Error::Failed(format!("{}: {error}", file.display())));
        text.lines().map(read).collect()
    }

    /// The mock's `aws`.
    pub fn cli(&self) -> PathBuf {
        self.dir.join("bin/aws")
    }

    /// What makes the AWS CLI call the mock, in the profiles `govcloud` and `commercial`.
    pub fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("AWS_CONFIG_FILE", self.dir.join("config")),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ]
    }

    fn output(&self, mut command: Command) -> Result<Output, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(self.dir.join("bin")).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(dirs).map_err(|error| Error::Failed(format!("PATH: {error}")))?;
        // A developer's own AWS settings must not be used.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env("PATH", path).envs(self.environment());
        command.stdin(std::process::Stdio::null());
        let program = command.get_program().to_string_lossy().into_owned();
        command.output().map_err(Error::file("cannot run", program))
    }
}

fn list(dir: &Path, partition: Partition) -> PathBuf {
    dir.join(format!("{}.list", directory(partition)))
}

/// Polls `look` until it finds something.
fn wait<T>(server: &mut Process, look: impl Fn() -> Option<T>) -> Result<T, Error> {
    let start = Instant::now();
    while start.elapsed() < START {
        server.check()?;
        if let Some(found) = look() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(server.not_ready(START).into())
}

/// Writes a file, and creates its directory.
pub(crate) fn write(file: &Path, text: &str) -> Result<(), Error> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(Error::file("cannot create", folder))?;
    }
    std::fs::write(file, text).map_err(Error::file("cannot write", file))
}
