//! Real, unmodified clients in front of the gateway, which only their environment points to it. `cargo xtask soak clients`
//! runs them and prints what each got; without SOAK these tests do nothing, as the suite does not install the clients.

use std::path::Path;
use std::process::Command;

use bedrock_double::Verdict;
use serde_json::Value;

use crate::clients::{clients, run};
use crate::harness::{Harness, Keys, policy, required};

/// The model that the clients call with `refused`, and the policy does not allow.
const DENIED: &str = "anthropic.claude-3-haiku-20240307-v1:0";
/// What no request to Bedrock may have anywhere, in lower case.
const CALLERS: &str = "callers";

/// Runs a client against a gateway of its own. `refused` is what it raises for a model that the policy does not allow.
fn serve(refused: &str, command: impl FnOnce(&Harness) -> Command) {
    if std::env::var_os("SOAK").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let policy = policy(dir.path(), "\n  deny: []\n", &format!("\n  deny: [\"{DENIED}\"]\n"));
    let harness = Harness::new(Keys::Temporary, &["internet"], |double| double, &["--policy", &policy]);
    let mut command = command(&harness);
    with_environment(&mut command, &harness.gateway.http, dir.path());
    let rows = run(&mut command);
    let over = protocols(&harness);
    for row in &rows {
        println!("{}", shown(row, &over));
    }

    harness.assert_no_violation();
    let received = harness.received();
    assert!(!received.is_empty() && received.iter().all(|request| request.verdict == Verdict::Signed), "{received:#?}");
    for request in &received {
        let sent = serde_json::to_string(request).unwrap().to_ascii_lowercase();
        assert!(!sent.contains(CALLERS), "the caller's own keys went to Bedrock: {sent}");
        assert!(!request.labels.iter().any(|label| label.contains(DENIED)), "{request:#?}");
    }
    let (errors, answers): (Vec<&Value>, Vec<&Value>) = rows.iter().partition(|row| row["call"] == "refused");
    assert!(!errors.is_empty() && !answers.is_empty(), "{rows:#?}");
    for row in errors {
        let text = row["message"].as_str().unwrap_or_default();
        assert!(row["error"] == refused && text.contains(DENIED), "{row:#}");
    }
    for row in answers {
        assert!(row["text"].as_str().is_some_and(|text| text.starts_with("echo: ")), "{row:#}");
        assert!(row["input"].as_u64() > Some(0) && row["output"].as_u64() > Some(1), "{row:#}");
        assert!(row["streams"] == false || row["events"].as_u64() > Some(2), "{row:#}");
    }
}

/// The versions of HTTP that the client spoke.
fn protocols(harness: &Harness) -> String {
    let page = harness.gateway.admin("/stats?filter=http.gateway.downstream_cx");
    let counted = |name: &str| page.lines().any(|line| line.starts_with(name) && !line.ends_with(" 0"));
    let spoken = [("HTTP/1.1", "http1_total"), ("HTTP/2", "http2_total"), ("TLS", "ssl_total")];
    let spoken = spoken.map(|(shown, name)| (shown, counted(&format!("http.gateway.downstream_cx_{name}:"))));
    let spoken: Vec<&str> = spoken.iter().filter(|(_, counted)| *counted).map(|(shown, _)| *shown).collect();
    spoken.join(", ")
}

/// A line of the table.
fn shown(row: &Value, over: &str) -> String {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let streams = if row["streams"] == true { "streaming" } else { "whole" };
    let got = match &row["error"] {
        Value::Null => format!("{} tokens in, {} out", row["input"], row["output"]),
        error => format!("{}: {}", error.as_str().unwrap_or_default(), text("message").replace('\n', " ")),
    };
    let events = row["events"].as_u64().map(|events| format!(", {events} events")).unwrap_or_default();
    format!("| {} {} | {over} | {} | {streams} | {got}{events} |", text("client"), text("version"), text("call"))
}

/// What users of these clients set, and nothing of this process but its PATH.
fn with_environment(command: &mut Command, gateway: &str, home: &Path) {
    let python = std::env::var_os("PYTHONPYCACHEPREFIX");
    let own = command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    let own: Vec<_> = own.collect();
    command.env_clear().env("PATH", required("PATH")).env("HOME", home).env("LANG", "C.UTF-8");
    command.envs(python.map(|folder| ("PYTHONPYCACHEPREFIX", folder)));
    command.envs([
        ("AWS_ACCESS_KEY_ID", "AKIACALLERSOWN"),
        ("AWS_SECRET_ACCESS_KEY", "callers-own"),
        ("AWS_SESSION_TOKEN", "callers-own-token"),
        ("AWS_REGION", "us-gov-west-1"),
        ("AWS_DEFAULT_REGION", "us-gov-west-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", gateway),
        ("AWS_ENDPOINT_URL_BEDROCK", gateway),
        ("AWS_BEDROCK_RUNTIME_ENDPOINT", gateway),
        ("ANTHROPIC_BEDROCK_BASE_URL", gateway),
    ]);
    command.envs(own);
}

/// A client of `matrix.py` in the Python that a variable names.
fn python(variable: &'static str, client: &'static str) -> impl FnOnce(&Harness) -> Command {
    move |_| {
        let mut command = Command::new(required(variable));
        command.arg(clients().join("matrix/matrix.py")).arg(client);
        command
    }
}

/// A client of `matrix.mjs` in the directory that a variable names.
fn javascript(variable: &'static str, client: &'static str) -> impl FnOnce(&Harness) -> Command {
    move |_| {
        let mut command = Command::new("node");
        command.arg(clients().join("matrix/matrix.mjs")).arg(client).current_dir(required(variable));
        command
    }
}

#[test]
fn client_matrix_boto3() {
    serve("AccessDeniedException", python("GATEWAY_PYTHON", "boto3"));
}

#[test]
fn client_matrix_aiobotocore() {
    serve("AccessDeniedException", python("MATRIX_AIOBOTOCORE_PYTHON", "aiobotocore"));
}

#[test]
fn client_matrix_javascript_h2c() {
    serve("AccessDeniedException", javascript("GATEWAY_JS_DIR", "h2c"));
}

#[test]
fn client_matrix_javascript_http1() {
    serve("AccessDeniedException", javascript("GATEWAY_JS_DIR", "http1"));
}

#[test]
fn client_matrix_rust() {
    serve("AccessDeniedException", |harness| {
        let mut command = Command::new(required("MATRIX_RUST_BIN"));
        command.arg(&harness.gateway.ca).env("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", &harness.gateway.https);
        command
    });
}

/// It has no commands for streams.
#[test]
fn client_matrix_aws_cli_1() {
    serve("AccessDeniedException", python("MATRIX_AWSCLI_PYTHON", "awscli"));
}

#[test]
fn client_matrix_aws_cli_2() {
    serve("AccessDeniedException", |harness| {
        let mut command = python("GATEWAY_PYTHON", "awscli")(harness);
        command.arg(required("MATRIX_AWS_BIN"));
        command
    });
}

#[test]
fn client_matrix_anthropic_python() {
    serve("PermissionDeniedError", python("GATEWAY_PYTHON", "anthropic"));
}

#[test]
fn client_matrix_anthropic_javascript() {
    serve("PermissionDeniedError", javascript("MATRIX_JS_DIR", "anthropic"));
}

#[test]
fn client_matrix_litellm() {
    serve("PermissionDeniedError", |harness| {
        let mut command = python("MATRIX_LITELLM_PYTHON", "litellm")(harness);
        // Prices are in the package; by default it asks for newer ones.
        command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
        command
    });
}

#[test]
fn client_matrix_langchain() {
    serve("AccessDeniedException", python("MATRIX_LANGCHAIN_PYTHON", "langchain"));
}

#[test]
fn client_matrix_claude_code() {
    serve("provider_credentials", |harness| {
        let mut command = python("GATEWAY_PYTHON", "claude")(harness);
        // npm's `claude` is a script that installs a link to this program.
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
        let program = format!("node_modules/@anthropic-ai/claude-code-linux-{arch}/claude");
        command.arg(required("MATRIX_JS_DIR").join(program));
        command.envs([
            ("CLAUDE_CODE_USE_BEDROCK", "1"),
            // By default it repeats a 403 for minutes, since its credentials may be old.
            ("CLAUDE_CODE_MAX_RETRIES", "0"),
            // It calls nothing but the gateway.
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ("DISABLE_TELEMETRY", "1"),
            ("DISABLE_AUTOUPDATER", "1"),
        ]);
        command
    });
}
