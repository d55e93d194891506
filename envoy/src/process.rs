//! Child processes: their output in a file, their end with ours, and a clean stop by signal.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Lines of a log that an error shows.
const TAIL: usize = 12;

/// Why a child is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start {name}: {source}")]
    Start {
        /// What.
        name: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It ended by itself.
    #[error("{name} ended ({status}); the end of {}:\n{tail}", log.display())]
    Ended {
        /// What.
        name: String,
        /// How.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// It did not become ready.
    #[error("{name} was not ready within {} s; the end of {}:\n{tail}", limit.as_secs(), log.display())]
    NotReady {
        /// What.
        name: String,
        /// The time it had.
        limit: Duration,
        /// Its log.
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

impl Process {
    /// Starts `command` with its stderr (and stdout, unless `first_line` wants it) in the file `log`.
    ///
    /// On Linux it is started through `setpriv --pdeathsig`, so that it dies with this process however that ends; where
    /// `setpriv` is missing, a `kill -9` of this process leaves it running.
    pub fn start(name: &str, command: Command, log: &Path) -> Result<Process, ProcessError> {
        Self::start_with(name, command, log, false)
    }

    /// As [`Process::start`], then waits for the first line on stdout that starts with `ready`, and gives its rest.
    pub fn start_and_wait(
        name: &str,
        command: Command,
        log: &Path,
        limit: Duration,
    ) -> Result<(Process, String), ProcessError> {
        let mut process = Self::start_with(name, command, log, true)?;
        let (sender, receiver) = mpsc::channel();
        if let Some(stdout) = process.child.stdout.take() {
            // Reads on to the end: a full pipe would stop the child.
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

    fn start_with(name: &str, command: Command, log: &Path, pipe: bool) -> Result<Process, ProcessError> {
        let failed = |source| ProcessError::Start { name: name.to_owned(), source };
        let file = File::create(log).map_err(failed)?;
        let mut command = dying_with_us(command);
        // A group of its own: Ctrl-C reaches this process alone, which then ends its children in order.
        command.process_group(0);
        command.stdin(Stdio::null()).stderr(file.try_clone().map_err(failed)?);
        command.stdout(if pipe { Stdio::piped() } else { Stdio::from(file) });
        let child = command.spawn().map_err(failed)?;
        Ok(Process { name: name.to_owned(), child, log: log.to_path_buf() })
    }

    /// Fails if the child has ended.
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

    /// The error of a child that took too long.
    pub fn not_ready(&self, limit: Duration) -> ProcessError {
        ProcessError::NotReady { name: self.name.clone(), limit, log: self.log.clone(), tail: tail(&self.log) }
    }

    /// Asks the child to end (SIGTERM) and waits; after `limit` it is killed.
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

    /// Whether the child has ended well; an error if it ended otherwise.
    pub fn is_over(&mut self) -> Result<bool, ProcessError> {
        match self.child.try_wait() {
            Ok(Some(status)) if status.success() => Ok(true),
            _ => self.check().map(|()| false),
        }
    }

    /// Sends it a signal.
    fn signal(&self, signal: Signal) {
        // The child is not reaped yet, so the id is still its own.
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

/// The same command under `setpriv --pdeathsig KILL`, which execs it: the process id is the command's own.
fn dying_with_us(command: Command) -> Command {
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

/// The first executable of that name in `PATH`.
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
