//! One run's hosts, gateway and load.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lab::{Lab, path_argument};
use super::report::{self, Call, Exchange};
use crate::demo::{ACCESS_KEY, REGION, SECRET_KEY};
use crate::process::Process;
use crate::test::variables;
use crate::up::Signals;
use crate::{Error, artifacts, bootstrap, dirs, gateway, tools};

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
/// A call in Envoy's access log is flushed within 100 ms.
const FLUSH: Duration = Duration::from_millis(500);

/// What runs in the hosts, built.
#[derive(Debug)]
pub struct Programs {
    module: PathBuf,
    envoy: PathBuf,
    double: PathBuf,
    load: PathBuf,
    xtask: PathBuf,
}

impl Programs {
    /// Builds them, since the hosts have no network to fetch anything by.
    pub fn build() -> Result<Programs, Error> {
        Ok(Programs {
            module: artifacts::module()?,
            envoy: tools::envoy::find(&dirs::tools())?,
            double: artifacts::bedrock_double()?,
            load: artifacts::bedrock_load()?,
            xtask: std::env::current_exe()
                .map_err(|error| Error::Failed(format!("cannot find this program: {error}")))?,
        })
    }
}

/// Hosts, and the gateway in one of them.
#[derive(Debug)]
pub struct Stand {
    // Before the hosts: it ends first.
    gateway: Process,
    /// The hosts.
    pub lab: Lab,
    plain: SocketAddr,
    load: PathBuf,
    dir: PathBuf,
}

impl Stand {
    /// Starts all of it; `config` changes `envoy/standalone.yaml`.
    pub fn start(
        name: &str,
        programs: &Programs,
        http1: bool,
        config: Option<fn(Value) -> Value>,
        signals: &Signals,
    ) -> Result<Stand, Error> {
        let dir = gateway::run_dir("chaos")?.join(name);
        std::fs::create_dir_all(&dir).map_err(Error::file("cannot create", &dir))?;
        let lab = Lab::build(&dir, &programs.double, !http1)?;
        let mut command = lab.at_gateway(&programs.xtask);
        command.args(["up", "--listen", "127.0.0.1:0", "--region", REGION, "--upstream-ca"]).arg(lab.ca());
        command.arg("--access-log").arg(dir.join("access.jsonl"));
        for (path, address) in lab.paths() {
            command.args(["--path", &path_argument(path, &address)?]);
        }
        if let Some(change) = config {
            let file = dir.join("config.json");
            let changed = change(bootstrap::read(&dirs::root().join("envoy/standalone.yaml"))?);
            std::fs::write(&file, changed.to_string()).map_err(Error::file("cannot write", &file))?;
            command.arg("--config").arg(file);
        }
        command.env(variables::MODULE, &programs.module).env(variables::ENVOY, &programs.envoy);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env_remove("AWS_SESSION_TOKEN").env_remove("AWS_BEARER_TOKEN_BEDROCK");
        if signals.count() > 0 {
            return Err(interrupted());
        }
        let (gateway, ready) =
            Process::start_and_wait("the gateway", command, &dir.join("gateway.log"), GATEWAY_START)?;
        let plain = listener(&ready)
            .ok_or_else(|| Error::Failed(format!("the gateway does not say where it listens: {ready}")))?;
        Ok(Stand { gateway, lab, plain, load: programs.load.clone(), dir })
    }

    /// Starts the load.
    pub fn load(&self, rate: u32, seconds: u64, streams: u32, think: u64) -> Result<Process, Error> {
        let mut command: Command = self.lab.at_gateway(&self.load);
        command.args(["--gateway", &self.plain.to_string(), "--record"]).arg(self.calls());
        let thinkers = if think == 0 { 0 } else { THINKERS };
        for (option, value) in [
            ("--rate", u64::from(rate)),
            ("--seconds", seconds),
            ("--streams", streams.into()),
            ("--pause-ms", PAUSE_MS.into()),
            ("--thinkers", thinkers.into()),
            ("--thought-ms", think * 1000),
        ] {
            command.args([option, &value.to_string()]);
        }
        Ok(Process::start("bedrock-load", command, &self.dir.join("load.log"))?)
    }

    /// Waits, and looks after what runs.
    pub fn wait_until(&mut self, time: Instant, signals: &Signals) -> Result<(), Error> {
        while Instant::now() < time {
            self.look(signals)?;
            std::thread::sleep(Duration::from_millis(10).min(time.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Waits for the load's last call; the calls and the exchanges.
    pub fn settle(&mut self, mut load: Process, signals: &Signals) -> Result<(Vec<Call>, Vec<Exchange>), Error> {
        let start = Instant::now();
        while !load.is_over()? {
            self.look(signals)?;
            if start.elapsed() > LAST_CALLS {
                return Err(load.not_ready(LAST_CALLS).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(FLUSH);
        let text = |file: PathBuf| std::fs::read_to_string(&file).map_err(Error::file("cannot read", file));
        let (calls, log) = (text(self.calls())?, text(self.dir.join("access.jsonl"))?);
        Ok((report::calls(&calls), report::exchanges(&log)))
    }

    /// As [`Stand::settle`], and ends everything.
    pub fn finish(mut self, load: Process, signals: &Signals) -> Result<(Vec<Call>, Vec<Exchange>), Error> {
        let found = self.settle(load, signals)?;
        self.stop();
        Ok(found)
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

    fn calls(&self) -> PathBuf {
        self.dir.join("calls.jsonl")
    }
}

fn interrupted() -> Error {
    Error::Failed("interrupted; its hosts and processes are gone".into())
}

/// The plain listener of `http://127.0.0.1:PORT https://…`.
fn listener(ready: &str) -> Option<SocketAddr> {
    ready.split(' ').find_map(|word| word.strip_prefix("http://"))?.parse().ok()
}

/// The configuration with `private-only` as its only class, which takes every call.
pub fn private_config(mut config: Value) -> Value {
    const CLASS: &str = "private-only";
    let classes = json!([{ "name": CLASS, "paths": ["dx", "vpn"] }]);
    if let Some(clusters) = config.pointer_mut("/static_resources/clusters").and_then(Value::as_array_mut) {
        let of_another_class = |cluster: &Value| {
            let name = cluster.get("name").and_then(Value::as_str).unwrap_or_default();
            name.split_once('.').is_some_and(|(_, class)| class != CLASS)
        };
        clusters.retain(|cluster| !of_another_class(cluster));
    }
    set_classes(&mut config, &classes);
    config
}

/// Gives every filter's document these classes.
fn set_classes(value: &mut Value, classes: &Value) {
    match value {
        Value::Object(object) => {
            if object.contains_key("vm_config")
                && let Some(text) = object.get_mut("configuration").and_then(|held| held.get_mut("value"))
                && let Some(mut document) =
                    text.as_str().and_then(|text| serde_json::from_str::<serde_json::Map<String, Value>>(text).ok())
            {
                document.insert("route_classes".into(), classes.clone());
                *text = Value::String(Value::Object(document).to_string());
            }
            object.values_mut().for_each(|value| set_classes(value, classes));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| set_classes(value, classes)),
        _ => {}
    }
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

    #[test]
    fn private_only_is_left_alone_and_without_the_internet() {
        let standalone = bootstrap::read(&dirs::root().join("envoy/standalone.yaml")).unwrap();
        let text = private_config(standalone).to_string();
        assert!(!text.contains("\"path\":\"internet\"") && !text.contains("bedrock-runtime.any"));
        assert!(text.contains("bedrock-runtime.private-only") && text.contains("audit-als"));
        assert_eq!(
            text.matches(r#"\"route_classes\":[{\"name\":\"private-only\",\"paths\":[\"dx\",\"vpn\"]}]"#).count(),
            4
        );
    }
}
