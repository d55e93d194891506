//! `cargo xtask demo`: shows failover of the gateway on one screen.
//!
//! Three Bedrock doubles are the endpoints of Direct Connect, VPN and internet. An unmodified boto3 calls the gateway.
//! The demo cuts Direct Connect and then the VPN: it kills their doubles.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::artifacts::{COLLECTOR, DOUBLE, GATEWAY, Workspace};
use crate::error::Error;
use crate::{dirs, tools};

/// AWS's documented example keys; the doubles verify every signature against them.
const ACCESS_KEY: &str = "AKIDEXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const REGION: &str = "us-east-1";
/// Typical round trips of Direct Connect, a VPN and the internet.
const DELAYS_MS: [(&str, u64); 3] = [("dx", 8), ("vpn", 24), ("internet", 35)];
/// Time limit for audit records to arrive.
const AUDIT: Duration = Duration::from_secs(15);

/// Time limit for a program to be ready: Envoy compiles the module.
const READY: Duration = Duration::from_secs(90);

/// Fails if a call fails or takes another path than expected.
pub(crate) fn run() -> Result<(), Error> {
    let dir = dirs::target().join("demo");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).map_err(Error::file("cannot create", &dir))?;
    let clients = dirs::root().join("host-tests/clients");
    let python = tools::python::find(&dirs::tools(), &clients.join("requirements.txt"))?;
    let mut workspace = Workspace::for_gateway()?;
    workspace.build(&[DOUBLE])?;
    let collector = workspace.file(COLLECTOR)?;
    let mut paths = start_paths(&workspace, &dir)?;
    let audit = dir.join("audit.db");
    let (gateway, address) = start_gateway(&workspace, &paths, &dir, &audit)?;
    let mut client = Client::start(&python, &clients.join("demo.py"), &address)?;

    say("");
    say("  boto3 (unmodified) ─▶ gateway: Envoy 1.40 + filter ─▶ dx │ vpn │ internet ─▶ Amazon Bedrock (a double that");
    say("  http, dummy credentials   signs, routes, audits           TLS 1.3, SigV4        verifies every signature)");
    let mut rounds = Vec::new();
    for (title, expected) in
        [("All paths are up", "dx"), ("Direct Connect is cut", "vpn"), ("The VPN is cut, too", "internet")]
    {
        if expected != "dx" {
            // Kills the double, with connections open.
            drop(paths.remove(0));
        }
        let calls = client.calls()?;
        let records = records(collector, &audit, &calls)?;
        print_round(title, &calls, &records);
        rounds.push((expected, calls, records));
    }
    print_audit(collector, &audit)?;
    gateway.stop();
    verdict(&rounds)
}

/// A child process, killed when dropped. Ctrl-C reaches it because it is in the terminal's process group.
struct Program(Child);

impl Program {
    /// Starts the program with stderr in `log`, and waits for its line `ready …`. Returns the rest of that line.
    fn start(name: &str, mut command: Command, log: &Path) -> Result<(Program, String), Error> {
        let file = File::create(log).map_err(Error::file("cannot create", log))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().map_err(Error::file("cannot run", command.get_program()))?;
        let stdout = child.stdout.take();
        let program = Program(child);
        let (sender, receiver) = mpsc::channel();
        // Reads until the end: a full pipe would block the program.
        std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines().map_while(Result::ok)) {
                if let Some(rest) = line.strip_prefix("ready") {
                    let _ = sender.send(rest.trim().to_owned());
                }
            }
        });
        // The channel closes when the program ends.
        let ready = receiver.recv_timeout(READY);
        let ready = ready.map_err(|_| {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            let end = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n  ");
            Error::Failed(format!("{name} did not start; the end of {}:\n  {end}", log.display()))
        })?;
        Ok((program, ready))
    }

    /// Sends SIGTERM and waits, so that the collector stores its last records.
    fn stop(mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A double, and the path that leads to it.
struct PathEnd {
    _double: Program,
    /// `dx=127.0.0.1:PORT`
    argument: String,
}

fn start_paths(workspace: &Workspace, dir: &Path) -> Result<Vec<PathEnd>, Error> {
    let mut ends = Vec::new();
    for (name, delay) in DELAYS_MS {
        let mut command = Command::new(workspace.file(DOUBLE)?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--region", REGION, "--path-name", name]);
        command.args(["--delay-ms", &delay.to_string(), "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]);
        command.arg("--tls-dir").arg(dir.join("tls"));
        let (double, address) = Program::start("bedrock-double", command, &dir.join(format!("double-{name}.log")))?;
        ends.push(PathEnd { _double: double, argument: format!("{name}={address}") });
    }
    Ok(ends)
}

/// Starts `bedrock-gateway up`. Returns the URL of its plain listener.
fn start_gateway(
    workspace: &Workspace,
    paths: &[PathEnd],
    dir: &Path,
    audit: &Path,
) -> Result<(Program, String), Error> {
    let mut command = workspace.command(GATEWAY)?;
    command.args(["up", "--listen", "127.0.0.1:0", "--region", REGION]);
    command
        .arg("--state")
        .arg(dir.join("state"))
        .arg("--audit")
        .arg(audit)
        .arg("--upstream-ca")
        .arg(dir.join("tls/ca.pem"));
    for end in paths {
        command.args(["--path", &end.argument]);
    }
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.env_remove("AWS_SESSION_TOKEN").env_remove("AWS_BEARER_TOKEN_BEDROCK").env_remove("BEDROCK_PATHS");
    let (gateway, ready) = Program::start("bedrock-gateway", command, &dir.join("gateway.log"))?;
    let address = ready.split(' ').find(|word| word.starts_with("http://")).unwrap_or_default().to_owned();
    Ok((gateway, address))
}

/// The Python client. It makes one round of calls for each line that it reads.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start(python: &Path, script: &Path, gateway: &str) -> Result<Client, Error> {
        let failed = |error| Error::Failed(format!("cannot run {}: {error}", script.display()));
        let mut command = Command::new(python);
        command.arg(script).arg(gateway).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Client { child, input, output: BufReader::new(output) }),
            _ => Err(Error::Failed("the client has no pipes".into())),
        }
    }

    /// Makes one round. Each object has `call`, `status`, `ms`, `request_id` and `error`.
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

/// Waits for the audit record of each call, and returns them in order.
fn records(collector: &Path, audit: &Path, calls: &[Value]) -> Result<Vec<Value>, Error> {
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
        if start.elapsed() > AUDIT {
            let missing = calls.len() - found.len();
            return Err(Error::Failed(format!("{missing} of {} audit records did not arrive", calls.len())));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn query(collector: &Path, audit: &Path, arguments: &[&str]) -> Result<String, Error> {
    ask(collector, "query", audit, &[&["--kind", "calls"], arguments].concat())
}

fn ask(collector: &Path, subcommand: &str, audit: &Path, arguments: &[&str]) -> Result<String, Error> {
    let mut command = Command::new(collector);
    let output = command.args([subcommand, "--sqlite"]).arg(audit).args(arguments).output();
    let output = output.map_err(|error| Error::Failed(format!("cannot run audit-collector {subcommand}: {error}")))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Err(Error::Failed(format!("audit-collector {subcommand}: {} {}", said.trim(), why.trim())))
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
    say(&format!("\nThe auditor's question (audit-collector completeness --sqlite {shown}):"));
    for line in ask(collector, "completeness", audit, &[])?.lines().take(2) {
        say(&format!("  {line}"));
    }
    Ok(())
}

/// Checks that every call succeeded over the best path that was up.
fn verdict(rounds: &[(&str, Vec<Value>, Vec<Value>)]) -> Result<(), Error> {
    let calls: usize = rounds.iter().map(|(_, calls, _)| calls.len()).sum();
    let failed: usize = rounds.iter().map(|(_, calls, _)| calls.iter().filter(|call| !answered(call)).count()).sum();
    if failed > 0 || calls == 0 {
        return Err(Error::Failed(format!("{failed} of {calls} calls failed")));
    }
    for (expected, _, records) in rounds {
        if let Some(record) = records.iter().find(|record| text(record, "path") != *expected) {
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

/// A field as text; empty for null.
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
