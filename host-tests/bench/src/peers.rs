//! Other gateways that sign for Bedrock, each as its own documents say to start it. Neither is an Envoy: what a call takes in
//! all is compared.

use std::path::Path;
use std::process::Command;

use bedrock_double::{EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY};

use crate::client::{Calls, filled};
use crate::error::{Error, variable};
use crate::upstream::{LOCAL, SESSION_TOKEN, Upstream};

const REGION: &str = "us-east-1";
const MODEL: &str = "anthropic.claude-3-5-sonnet-20241022-v2:0";
/// A key of the proxy's callers.
const LITELLM_KEY: &str = "sk-example";

/// LiteLLM passes Converse on in Bedrock's own format (<https://docs.litellm.ai/docs/pass_through/bedrock>).
pub(crate) fn litellm(upstream: &Upstream, dir: &Path, port: u16) -> Result<Command, Error> {
    let config = dir.join("config.yaml");
    let endpoint = endpoint(upstream);
    std::fs::write(
        &config,
        format!(
            "model_list:\n  - model_name: claude\n    litellm_params:\n      model: bedrock/{MODEL}\n      \
             custom_llm_provider: bedrock\n      aws_region_name: {REGION}\n      api_base: {endpoint}\n"
        ),
    )?;
    let mut command = Command::new(variable("BENCH_LITELLM_PYTHON")?);
    command.args(["-m", "litellm.proxy.proxy_cli", "--host", "127.0.0.1", "--port", &port.to_string(), "--config"]);
    command.arg(config).env_clear();
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", EXAMPLE_ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", EXAMPLE_SECRET_KEY),
        ("AWS_SESSION_TOKEN", SESSION_TOKEN),
        ("LITELLM_MASTER_KEY", LITELLM_KEY),
        ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
        ("LITELLM_LOG", "ERROR"),
    ] {
        command.env(name, value);
    }
    command.env("SSL_CERT_FILE", &upstream.ca).env("HOME", dir);
    Ok(command)
}

/// Calls of LiteLLM.
pub(crate) fn litellm_calls(size: usize) -> Calls {
    let headers = vec![("authorization", format!("Bearer {LITELLM_KEY}"))];
    Calls { path: "/bedrock/model/claude/converse".to_owned(), headers, ..Calls::converse(size) }
}

/// Portkey's gateway translates OpenAI's chat completions to Converse; each call brings the credentials
/// (<https://portkey.ai/docs/api-reference/inference-api/headers>).
pub(crate) fn portkey(upstream: &Upstream, dir: &Path, port: u16) -> Result<Command, Error> {
    let mut command = Command::new("node");
    command.arg(variable("BENCH_PORTKEY_DIR")?.join("node_modules/@portkey-ai/gateway/build/start-server.js"));
    command.args([&format!("--port={port}"), "--headless"]).env_clear();
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env("PATH", path).env("HOME", dir).env("NODE_ENV", "production").env("NODE_EXTRA_CA_CERTS", &upstream.ca);
    Ok(command)
}

/// Calls of Portkey's gateway.
pub(crate) fn portkey_calls(upstream: &Upstream, size: usize) -> Calls {
    let headers = [
        ("x-portkey-provider", "bedrock"),
        ("x-portkey-custom-host", &endpoint(upstream)),
        ("x-portkey-aws-access-key-id", EXAMPLE_ACCESS_KEY),
        ("x-portkey-aws-secret-access-key", EXAMPLE_SECRET_KEY),
        ("x-portkey-aws-session-token", SESSION_TOKEN),
        ("x-portkey-aws-region", REGION),
    ];
    let start = format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":""#);
    Calls {
        path: "/v1/chat/completions".to_owned(),
        headers: headers.map(|(name, value)| (name, value.to_owned())).to_vec(),
        body: filled(&start, r#""}]}"#, size),
        ..Calls::converse(size)
    }
}

fn endpoint(upstream: &Upstream) -> String {
    format!("https://{LOCAL}:{}", upstream.address.port())
}
