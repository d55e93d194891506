//! The hosts, gateway and load of one run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::hosts::Hosts;
use super::policy::{self, CALLERS_KEY};

use crate::keys::{ACCESS_KEY, SECRET_KEY};
use crate::programs::{Programs, interrupted, listener};
use crate::record::{self, Call, Exchange, read};
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
/// Concurrent calls whose model thinks.
const THINKERS: u32 = 2;
/// Milliseconds before each frame of a stream; a stream of some 30 words takes some eight seconds.
const PAUSE_MS: u32 = 250;
/// The filter's document, in a run's directory.
const POLICY: &str = "policy.json";
/// A call in Envoy's access log is flushed within 100 ms.
const FLUSH: Duration = Duration::from_millis(500);

/// The setup of a run.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    /// The run's name.
    pub name: &'a str,
    pub regions: &'a [&'static str],
    /// Whether the upstreams offer HTTP/1.1 only.
    pub http1: bool,
    /// The filter's document, in place of `envoy/example.yaml`.
    pub policy: Option<Value>,
    /// Whether callers send tokens.
    pub tokens: bool,
}

/// The load of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// Converse calls in a second.
    pub rate: u32,
    /// Seconds in which new calls are started.
    pub seconds: u64,
    /// Concurrent streams.
    pub streams: u32,
    /// Seconds that the models of two calls think; 0 for no such calls.
    pub think: u64,
    /// Concurrent uploads.
    pub bulk: u32,
    /// Bytes of an upload.
    pub bulk_bytes: u64,
    /// Callers with tokens; 0 for calls without tokens.
    pub callers: u32,
}

/// A running load generator, and the file of its calls.
#[derive(Debug)]
pub(crate) struct Running {
    process: Process,
    calls: PathBuf,
}

/// Hosts, and the gateway in one of them.
#[derive(Debug)]
pub(crate) struct Harness {
    // Declared before the hosts, so that it ends first.
    gateway: Process,
    pub hosts: Hosts,
    plain: SocketAddr,
    load: PathBuf,
    dir: PathBuf,
}

impl Harness {
    /// Starts hosts and gateway.
    pub(crate) fn start(setup: &Setup<'_>, programs: &Programs, signals: &Signals) -> Result<Harness, Error> {
        let dir = run_dir(&tools::target(), "chaos")?.join(setup.name);
        std::fs::create_dir_all(&dir).map_err(Error::file("cannot create", &dir))?;
        let hosts = Hosts::build(&dir, &programs.double, !setup.http1, setup.regions)?;
        let mut command = hosts.at_gateway(&programs.gateway);
        command.args(["up", "--upstream-ca"]).arg(hosts.ca());
        command.arg("--access-log").arg(dir.join("access.jsonl"));
        command.args(hosts.arguments()?);
        if let Some(policy) = &setup.policy {
            let file = dir.join(POLICY);
            write(&file, policy)?;
            command.arg("--policy").arg(file);
        }
        if setup.tokens {
            let file = dir.join("base.json");
            write(&file, &policy::base_with_tokens()?)?;
            command.arg("--base").arg(file);
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
        Ok(Harness { gateway, hosts, plain, load: programs.load.clone(), dir })
    }

    /// Starts a load.
    pub(crate) fn load(&self, name: &str, load: &Load) -> Result<Running, Error> {
        let calls = self.dir.join(name).with_extension("jsonl");
        // A load of uploads only must take no CPU from what is measured.
        let mut command: Command = match load.rate {
            0 => {
                let mut gently = self.hosts.at_clients(Path::new("nice"));
                gently.args(["-n", "19"]).arg(&self.load);
                gently
            }
            _ => self.hosts.at_clients(&self.load),
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

    /// Replaces the policy document; the gateway watches the file.
    pub(crate) fn change(&self, policy: &Value) -> Result<(), Error> {
        let (file, new) = (self.dir.join(POLICY), self.dir.join("policy.new"));
        write(&new, policy)?;
        std::fs::rename(&new, &file).map_err(Error::file("cannot write", &file))
    }

    /// Waits; fails early if a process ends or a signal arrives.
    pub(crate) fn wait_until(&mut self, time: Instant, signals: &Signals) -> Result<(), Error> {
        while Instant::now() < time {
            self.look(signals)?;
            std::thread::sleep(Duration::from_millis(10).min(time.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Waits for a load's last call; its calls.
    pub(crate) fn settle(&mut self, mut load: Running, signals: &Signals) -> Result<Vec<Call>, Error> {
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

    /// The exchanges in the gateway's access log.
    pub(crate) fn exchanges(&self) -> Result<Vec<Exchange>, Error> {
        std::thread::sleep(FLUSH);
        Ok(record::exchanges(&read(&self.dir.join("access.jsonl"))?))
    }

    /// Ends the gateway, then the hosts.
    pub(crate) fn stop(self) {
        self.gateway.stop(GATEWAY_STOP);
        drop(self.hosts);
    }

    fn look(&mut self, signals: &Signals) -> Result<(), Error> {
        if signals.count() > 0 {
            return Err(interrupted());
        }
        self.gateway.check()?;
        self.hosts.check_doubles()
    }
}

fn write(file: &Path, value: &Value) -> Result<(), Error> {
    std::fs::write(file, format!("{value:#}")).map_err(Error::file("cannot write", file))
}
