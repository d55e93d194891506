//! One run's hosts, gateway and load.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::lab::Lab;
use super::policy::{self, CALLERS_KEY};
use super::record::{self, Call, Exchange};
use crate::keys::{ACCESS_KEY, SECRET_KEY};
use crate::programs::Programs;
use crate::{Error, tools};
use bedrock_gateway::gateway::run_dir;
use bedrock_gateway::process::Process;
use bedrock_gateway::signals::Signals;

/// Time for the gateway to be ready.
const GATEWAY_START: Duration = Duration::from_secs(90);
/// Time for calls in flight to end once no new ones are made: the load generator gives up a call before.
const LAST_CALLS: Duration = Duration::from_secs(300);
/// Time for the gateway to end.
const GATEWAY_STOP: Duration = Duration::from_secs(40);
/// Calls that think, at any time.
const THINKERS: u32 = 2;
/// Before each of a stream's frames, in milliseconds: a stream of some 30 words takes some eight seconds.
const PAUSE_MS: u32 = 250;
/// The filter's document, in a run's directory.
const POLICY: &str = "policy.json";
/// A call in Envoy's access log is flushed within 100 ms.
const FLUSH: Duration = Duration::from_millis(500);

/// What a run starts with.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The run's name.
    pub name: &'a str,
    /// The regions that there are.
    pub regions: &'a [&'static str],
    /// Whether the upstreams offer HTTP/1.1 only.
    pub http1: bool,
    /// The filter's document, in place of that in `envoy/standalone.yaml`.
    pub policy: Option<Value>,
    /// Whether callers show tokens.
    pub tokens: bool,
}

/// What the load generator is to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    /// Converse calls in a second.
    pub rate: u32,
    /// For how long new calls are begun, in seconds.
    pub seconds: u64,
    /// Streams that run at any time.
    pub streams: u32,
    /// How long the models of two calls think, in seconds; 0: there are none.
    pub think: u64,
    /// Uploads that run at any time.
    pub bulk: u32,
    /// Their bytes.
    pub bulk_bytes: u64,
    /// Callers with tokens; 0: nobody shows one.
    pub callers: u32,
}

/// A load generator at work, and where it tells of its calls.
#[derive(Debug)]
pub struct Running {
    process: Process,
    calls: PathBuf,
}

/// Hosts, and the gateway in one of them.
#[derive(Debug)]
pub struct Harness {
    // Before the hosts: it ends first.
    gateway: Process,
    /// The hosts.
    pub lab: Lab,
    plain: SocketAddr,
    load: PathBuf,
    dir: PathBuf,
}

impl Harness {
    /// Starts all of it.
    pub fn start(setup: &Setup<'_>, programs: &Programs, signals: &Signals) -> Result<Harness, Error> {
        let dir = run_dir(&tools::target(), "chaos")?.join(setup.name);
        std::fs::create_dir_all(&dir).map_err(Error::file("cannot create", &dir))?;
        let lab = Lab::build(&dir, &programs.double, !setup.http1, setup.regions)?;
        let mut command = lab.at_gateway(&programs.gateway);
        command.args(["up", "--upstream-ca"]).arg(lab.ca());
        command.arg("--access-log").arg(dir.join("access.jsonl"));
        command.args(lab.arguments()?);
        if let Some(policy) = &setup.policy {
            let file = dir.join(POLICY);
            write(&file, policy)?;
            command.arg("--policy").arg(file);
        }
        if setup.tokens {
            let file = dir.join("config.json");
            write(&file, &policy::with_tokens(policy::standalone()?))?;
            command.arg("--config").arg(file);
        }
        command
            .env("BEDROCK_GATEWAY_STATE", dir.join("state"))
            .env(tools::MODULE, &programs.module)
            .env(tools::ENVOY, &programs.envoy);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env_remove("AWS_SESSION_TOKEN").env_remove("AWS_BEARER_TOKEN_BEDROCK").env_remove("BEDROCK_PATHS");
        if signals.count() > 0 {
            return Err(interrupted());
        }
        let (gateway, ready) =
            Process::start_and_wait("the gateway", command, &dir.join("gateway.log"), GATEWAY_START)?;
        let plain = listener(&ready)
            .ok_or_else(|| Error::Failed(format!("the gateway does not say where it listens: {ready}")))?;
        Ok(Harness { gateway, lab, plain, load: programs.load.clone(), dir })
    }

    /// Starts a load.
    pub fn load(&self, name: &str, load: &Load) -> Result<Running, Error> {
        let calls = self.dir.join(name).with_extension("jsonl");
        // Who only uploads is to take no CPU from what is measured.
        let mut command: Command = match load.rate {
            0 => {
                let mut gently = self.lab.at_clients(Path::new("nice"));
                gently.args(["-n", "19"]).arg(&self.load);
                gently
            }
            _ => self.lab.at_clients(&self.load),
        };
        command.args(["--gateway", &self.plain.to_string(), "--record"]).arg(&calls);
        let thinkers = if load.think == 0 { 0 } else { THINKERS };
        for (option, value) in [
            ("--rate", u64::from(load.rate)),
            ("--seconds", load.seconds),
            ("--streams", load.streams.into()),
            ("--pause-ms", PAUSE_MS.into()),
            ("--thinkers", thinkers.into()),
            ("--thought-ms", load.think * 1000),
            ("--bulk", load.bulk.into()),
            ("--bulk-bytes", load.bulk_bytes),
            ("--callers", load.callers.into()),
        ] {
            command.args([option, &value.to_string()]);
        }
        command.args(["--callers-key", CALLERS_KEY]);
        let process = Process::start("bedrock-load", command, &calls.with_extension("log"))?;
        Ok(Running { process, calls })
    }

    /// Gives the gateway another document, which it takes by itself.
    pub fn change(&self, policy: &Value) -> Result<(), Error> {
        let (file, new) = (self.dir.join(POLICY), self.dir.join("policy.new"));
        write(&new, policy)?;
        std::fs::rename(&new, &file).map_err(Error::file("cannot write", &file))
    }

    /// Waits, and looks after what runs.
    pub fn wait_until(&mut self, time: Instant, signals: &Signals) -> Result<(), Error> {
        while Instant::now() < time {
            self.look(signals)?;
            std::thread::sleep(Duration::from_millis(10).min(time.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Waits for a load's last call; its calls.
    pub fn settle(&mut self, mut load: Running, signals: &Signals) -> Result<Vec<Call>, Error> {
        let start = Instant::now();
        while !load.process.is_over()? {
            self.look(signals)?;
            if start.elapsed() > LAST_CALLS {
                return Err(load.process.not_ready(LAST_CALLS).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(record::calls(&read(&load.calls)?))
    }

    /// What the gateway's access log has of all that is over.
    pub fn exchanges(&self) -> Result<Vec<Exchange>, Error> {
        std::thread::sleep(FLUSH);
        Ok(record::exchanges(&read(&self.dir.join("access.jsonl"))?))
    }

    /// Ends the gateway, then the hosts.
    pub fn stop(self) {
        self.gateway.stop(GATEWAY_STOP);
        drop(self.lab);
    }

    fn look(&mut self, signals: &Signals) -> Result<(), Error> {
        if signals.count() > 0 {
            return Err(interrupted());
        }
        self.gateway.check()?;
        self.lab.check_doubles()
    }
}

/// A file's text.
pub fn read(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file).map_err(Error::file("cannot read", file))
}

fn write(file: &Path, value: &Value) -> Result<(), Error> {
    std::fs::write(file, format!("{value:#}")).map_err(Error::file("cannot write", file))
}

/// A signal came.
pub fn interrupted() -> Error {
    Error::Failed("interrupted; its hosts and processes are gone".into())
}

/// The plain listener of `http://ADDRESS:PORT https://…`.
pub fn listener(ready: &str) -> Option<SocketAddr> {
    ready.split(' ').find_map(|word| word.strip_prefix("http://"))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_listener_in_the_line_that_says_ready() {
        let line = "http://127.0.0.1:4711 https://127.0.0.1:4712 (CA x) region us-east-1 auth sigv4 paths dx,vpn";
        assert_eq!(listener(line), Some(SocketAddr::from(([127, 0, 0, 1], 4711))));
        assert_eq!(listener("https://127.0.0.1:4712"), None);
    }
}
