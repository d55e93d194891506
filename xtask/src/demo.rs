//! `cargo xtask demo`: what the gateway does, in one screen.
//!
//! Three Bedrock doubles stand for the far ends of Direct Connect, VPN and internet; an unmodified boto3 calls the
//! gateway; Direct Connect and then the VPN are cut by killing their double.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gateway::{Gateway, Options};
use crate::paths::{PathName, PathSpec, Region};
use crate::process::Process;
use crate::up::Signals;
use crate::{Error, artifacts, dirs, tools};

/// AWS's documented example keys; the doubles verify every signature against them.
pub(crate) const ACCESS_KEY: &str = "AKIDEXAMPLE";
pub(crate) const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(crate) const REGION: &str = "us-east-1";
/// Round trips of a link, a tunnel over the internet, and the internet.
const DELAYS_MS: [(PathName, u64); 3] = [(PathName::Dx, 8), (PathName::Vpn, 24), (PathName::Internet, 35)];
/// Time for the audit records to arrive.
const AUDIT: Duration = Duration::from_secs(15);

/// Runs it to its end; an error if a call failed or went another way than it should have.
pub fn run() -> Result<(), Error> {
    let signals = Signals::listen()?;
    let dir = dirs::target().join("demo");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).map_err(Error::file("cannot create", &dir))?;
    let clients = dirs::root().join("host-tests/clients");
    let python = tools::python::find(&dirs::tools(), &clients.join("requirements.txt"))?;
    let collector = artifacts::collector()?;
    let mut paths = start_paths(&dir)?;
    let audit = dir.join("audit.db");
    let gateway = Gateway::start(&options(&paths, &dir, &audit)?, || signals.count() > 0)?;
    let mut client = Client::start(&python, &clients.join("demo.py"), gateway.plain)?;

    say("");
    say("  boto3 (unmodified) ─▶ gateway: Envoy 1.40 + filter ─▶ dx │ vpn │ internet ─▶ Amazon Bedrock (a double that");
    say("  http, dummy credentials   signs, routes, audits           TLS 1.3, SigV4        verifies every signature)");
    let mut rounds = Vec::new();
    for (title, expected) in [
        ("All paths are up", PathName::Dx),
        ("Direct Connect is cut", PathName::Vpn),
        ("The VPN is cut, too", PathName::Internet),
    ] {
        if expected != PathName::Dx {
            // Dropped is killed: the path ends in the middle of everything.
            drop(paths.remove(0));
        }
        let calls = client.calls()?;
        let records = records(&collector, &audit, &calls, &signals)?;
        print_round(title, &calls, &records);
        rounds.push((expected, calls, records));
    }
    print_audit(&collector, &audit)?;
    gateway.stop(|| signals.count() > 0);
    verdict(&rounds)
}

/// A double and the path that ends at it.
struct PathEnd {
    _double: Process,
    spec: PathSpec,
}

fn start_paths(dir: &Path) -> Result<Vec<PathEnd>, Error> {
    let program = artifacts::bedrock_double()?;
    let mut ends = Vec::new();
    for (name, delay) in DELAYS_MS {
        let mut command = Command::new(&program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--region", REGION, "--path-name", name.as_str()]);
        command.args(["--delay-ms", &delay.to_string(), "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]);
        command.arg("--tls-dir").arg(dir.join("tls"));
        let log = dir.join(format!("double-{name}.log"));
        let (double, address) = Process::start_and_wait("bedrock-double", command, &log, Duration::from_secs(10))?;
        ends.push(PathEnd { _double: double, spec: format!("{name}={address}").parse()? });
    }
    Ok(ends)
}

fn options(paths: &[PathEnd], dir: &Path, audit: &Path) -> Result<Options, Error> {
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Ok(Options {
        paths: paths.iter().map(|end| end.spec.clone()).collect(),
        upstream_ca: Some(dir.join("tls/ca.pem")),
        listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
        listen_tls: None,
        concurrency: None,
        audit: Some(audit.to_path_buf()),
        access_log: None,
        policy: None,
        regions: vec![REGION.parse::<Region>()?],
        fips: false,
        config: None,
        environment: vec![
            set("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            set("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            set("AWS_SESSION_TOKEN", ""),
            set("AWS_BEARER_TOKEN_BEDROCK", ""),
            set("BEDROCK_PATHS", ""),
        ],
    })
}

/// The Python client, which makes its calls once for each line that it reads.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start(python: &Path, script: &Path, gateway: SocketAddr) -> Result<Client, Error> {
        let failed = |error| Error::Failed(format!("cannot run {}: {error}", script.display()));
        let mut command = Command::new(python);
        command.arg(script).arg(format!("http://{gateway}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Client { child, input, output: BufReader::new(output) }),
            _ => Err(Error::Failed("the client has no pipes".into())),
        }
    }

    /// One round: an object for each call, with `call`, `status`, `ms`, `request_id` and `error`.
    fn calls(&mut self) -> Result<Vec<Value>, Error> {
        let failed = |error: std::io::Error| Error::Failed(format!("the client ended: {error}"));
        self.input.write_all(b"\n").and_then(|()| self.input.flush()).map_err(failed)?;
        let mut calls = Vec::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).map_err(failed)? == 0 {
                return Err(Error::Failed("the client ended before its calls were made".into()));
            }
            if line.trim().is_empty() {
                return Ok(calls);
            }
            let call = serde_json::from_str(&line).map_err(|error| Error::Failed(format!("the client: {error}")))?;
            calls.push(call);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The audit record of each call, in order, waited for as they arrive.
fn records(collector: &Path, audit: &Path, calls: &[Value], signals: &Signals) -> Result<Vec<Value>, Error> {
    let start = Instant::now();
    loop {
        let output = query(collector, audit, &["--json", "--limit", "100"])?;
        let stored: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let found: Vec<Value> = calls
            .iter()
            .filter_map(|call| {
                let id = call.get("request_id").and_then(Value::as_str)?;
                stored.iter().find(|record| text(record, "upstream_request_id") == id).cloned()
            })
            .collect();
        if found.len() == calls.len() || calls.iter().any(|call| !text(call, "error").is_empty()) {
            return Ok(found);
        }
        if start.elapsed() > AUDIT || signals.count() > 0 {
            let missing = calls.len() - found.len();
            return Err(Error::Failed(format!("{missing} of {} audit records did not arrive", calls.len())));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn query(collector: &Path, audit: &Path, arguments: &[&str]) -> Result<String, Error> {
    let mut command = Command::new(collector);
    let output = command.args(["query", "--sqlite"]).arg(audit).args(arguments).output();
    let output = output.map_err(|error| Error::Failed(format!("cannot run audit-collector query: {error}")))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::Failed(format!("audit-collector query: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}

fn print_round(title: &str, calls: &[Value], records: &[Value]) {
    say(&format!("\n{title}"));
    say(&format!(
        "  {:<31} {:<45} {:<8} {:>6} {:>11} {:>5}",
        "SDK call", "model sent", "path", "status", "tokens", "ms"
    ));
    for call in calls {
        let id = text(call, "request_id");
        let record = records.iter().find(|record| text(record, "upstream_request_id") == id);
        let field = |name: &str| record.map_or_else(String::new, |record| text(record, name));
        let or_dash = |value: String| if value.is_empty() { "–".to_owned() } else { value };
        let tokens = match (field("tokens_in"), field("tokens_out")) {
            (input, output) if input.is_empty() && output.is_empty() => "–".to_owned(),
            (input, output) => format!("{} → {}", or_dash(input), or_dash(output)),
        };
        say(&format!(
            "  {:<31} {:<45} {:<8} {:>6} {:>11} {:>5}",
            text(call, "call"),
            or_dash(field("model_sent")),
            or_dash(field("path")),
            text(call, "status"),
            tokens,
            text(call, "ms"),
        ));
        if !text(call, "error").is_empty() {
            say(&format!("    {}", text(call, "error")));
        }
    }
}

fn print_audit(collector: &Path, audit: &Path) -> Result<(), Error> {
    let shown = dirs::shown(audit);
    say(&format!("\nThe audit has every call (audit-collector query --sqlite {shown}); the last five:"));
    for line in query(collector, audit, &["--limit", "5"])?.lines() {
        say(&format!("  {line}"));
    }
    Ok(())
}

/// Every call answered, every one over the path that was left.
fn verdict(rounds: &[(PathName, Vec<Value>, Vec<Value>)]) -> Result<(), Error> {
    let calls: usize = rounds.iter().map(|(_, calls, _)| calls.len()).sum();
    let failed: usize = rounds.iter().map(|(_, calls, _)| calls.iter().filter(|call| !answered(call)).count()).sum();
    if failed > 0 || calls == 0 {
        return Err(Error::Failed(format!("{failed} of {calls} calls failed")));
    }
    for (expected, _, records) in rounds {
        if let Some(record) = records.iter().find(|record| text(record, "path") != expected.as_str()) {
            let (operation, path) = (text(record, "operation"), text(record, "path"));
            return Err(Error::Failed(format!("{operation} went over {path}, and should have over {expected}")));
        }
    }
    say(&format!(
        "\n{calls} calls, none failed: dx → vpn → internet. Every signature was verified, every call is in the audit."
    ));
    Ok(())
}

fn answered(call: &Value) -> bool {
    text(call, "error").is_empty() && text(call, "status") == "200"
}

/// A field as text; nothing for null.
fn text(value: &Value, field: &str) -> String {
    match value.get(field) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
