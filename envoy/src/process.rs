//! Child processes: they log to a file, stop on SIGTERM, and end with this process.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// Number of log lines in an error.
const TAIL: usize = 12;

/// Errors of child processes.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Cannot start.
    #[error("cannot start {name}: {source}")]
    Start {
        /// The process's name.
        name: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Ended with a failure.
    #[error("{name} ended ({status}); the end of {}:\n{tail}", log.display())]
    Ended {
        /// The process's name.
        name: String,
        /// The exit status.
        status: ExitStatus,
        /// The log file.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// Not ready in time.
    #[error("{name} was not ready within {} s; the end of {}:\n{tail}", limit.as_secs(), log.display())]
    NotReady {
        /// The process's name.
        name: String,
        /// The time limit.
        limit: Duration,
        /// The log file.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}

/// A running child, killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Where a program's stdout and stderr go.
#[derive(Debug, Clone, Copy)]
enum Output {
    /// To its log.
    Log,
    /// stderr to its log; a line of stdout says that it is ready.
    FirstLine,
    /// Nowhere.
    None,
}

impl Process {
    /// Starts `command` with its stderr (and stdout, unless `first_line` wants it) in the file `log`.
    ///
    /// On Linux `setpriv --pdeathsig` starts it, so that the kernel kills it when this process ends, even by `kill -9`.
    /// Without `setpriv`, a `kill -9` of this process leaves it running.
    pub fn start(name: &str, command: Command, log: &Path) -> Result<Process, ProcessError> {
        Self::start_with(name, command, log, Output::Log)
    }

    /// Starts a `command` that writes the file `log` itself. What else it writes is dropped: when Envoy crashes, it writes parts of
    /// requests to stderr.
    pub fn start_quiet(name: &str, command: Command, log: &Path) -> Result<Process, ProcessError> {
        Self::start_with(name, command, log, Output::None)
    }

    /// Like [`Process::start`], then waits for a line on stdout that starts with `ready`. Returns the rest of that
    /// line.
    pub fn start_and_wait(
        name: &str,
        command: Command,
        log: &Path,
        limit: Duration,
    ) -> Result<(Process, String), ProcessError> {
        let mut process = Self::start_with(name, command, log, Output::FirstLine)?;
        let (sender, receiver) = mpsc::channel();
        if let Some(stdout) = process.child.stdout.take() {
            // Reads until the end: a full pipe would block the child.
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        let deadline = Instant::now() + limit;
        loop {
            match receiver.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix("ready") {
                        return Ok((process, rest.trim().to_owned()));
                    }
                }
                Err(_) => process.check()?,
            }
            if Instant::now() > deadline {
                return Err(process.not_ready(limit));
            }
        }
    }

    fn start_with(name: &str, command: Command, log: &Path, output: Output) -> Result<Process, ProcessError> {
        let failed = |source| ProcessError::Start { name: name.to_owned(), source };
        let file = File::create(log).map_err(failed)?;
        let mut command = with_parent_death_signal(command);
        // In its own process group, so that Ctrl-C reaches only this process, which then stops its children in order.
        command.process_group(0);
        command.stdin(Stdio::null());
        match output {
            Output::Log => command.stderr(file.try_clone().map_err(failed)?).stdout(file),
            Output::FirstLine => command.stderr(file).stdout(Stdio::piped()),
            Output::None => command.stderr(Stdio::null()).stdout(Stdio::null()),
        };
        let child = command.spawn().map_err(failed)?;
        Ok(Process { name: name.to_owned(), child, log: log.to_path_buf() })
    }

    /// Fails if the child has ended, with any status.
    pub fn check(&mut self) -> Result<(), ProcessError> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(ProcessError::Ended {
                name: self.name.clone(),
                status,
                log: self.log.clone(),
                tail: tail(&self.log),
            }),
            _ => Ok(()),
        }
    }

    /// The error for a child that is not ready within `limit`.
    pub fn not_ready(&self, limit: Duration) -> ProcessError {
        ProcessError::NotReady { name: self.name.clone(), limit, log: self.log.clone(), tail: tail(&self.log) }
    }

    /// Sends SIGTERM and waits. After `limit` the child is killed.
    pub fn stop(mut self, limit: Duration) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the child has ended successfully; an error if it failed.
    pub fn is_over(&mut self) -> Result<bool, ProcessError> {
        match self.child.try_wait() {
            Ok(Some(status)) if status.success() => Ok(true),
            _ => self.check().map(|()| false),
        }
    }

    /// Sends a signal.
    fn signal(&self, signal: Signal) {
        // The child has not been reaped, so its id has not been reused.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From now on neither this process nor its children leave a core file, which would hold keys. A limit of one byte also stops
/// the kernel from starting the handler of `core_pattern`, which a limit of 0 does not (core(5), `fs/coredump.c` of Linux).
pub fn leave_no_core() {
    let most = rustix::process::getrlimit(Resource::Core).maximum.map_or(1, |most| most.min(1));
    // A lower limit is always allowed.
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(most), maximum: Some(most) });
}

/// From now on only this user can read the files that this process and its children create: logs and records name callers.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Wraps the command in `setpriv --pdeathsig KILL`, which executes it with the same process id.
fn with_parent_death_signal(command: Command) -> Command {
    let Some(setpriv) = on_path("setpriv").filter(|_| cfg!(target_os = "linux")) else {
        return command;
    };
    let mut wrapped = Command::new(setpriv);
    wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}

/// The first file with this name in `PATH`.
pub fn on_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name.as_ref())).find(|file| file.is_file())
}

fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let start = lines.len().saturating_sub(TAIL);
    lines.get(start..).unwrap_or_default().iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
