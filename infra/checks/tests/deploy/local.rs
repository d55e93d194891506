//! The real Envoy with doubles of Bedrock behind it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bedrock_gateway::gateway::{Gateway, Options};
use bedrock_gateway::process::Process;
use bedrock_gateway::programs::Programs;
use lab::tools::{DOUBLE, ENVOY, MODULE, required};

const KEYS: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");

/// A gateway whose access log is `dir/access.jsonl`, and a double for each path, in the order of `paths`.
pub(crate) fn gateway(dir: &Path, paths: &[&str]) -> (Vec<Process>, Gateway) {
    let limit = Duration::from_secs(10);
    let mut doubles = Vec::new();
    let mut ways = Vec::new();
    for path in paths {
        let mut command = Command::new(required(DOUBLE).unwrap());
        command.args(["serve", "--listen", "127.0.0.1:0", "--region", "us-east-1", "--path-name", path]);
        command.args(["--access-key", KEYS.0, "--secret-key", KEYS.1, "--tls-dir"]).arg(dir.join("tls"));
        let log = dir.join(format!("double-{path}.log"));
        let (double, address) = Process::start_and_wait("bedrock-double", command, &log, limit).unwrap();
        doubles.push(double);
        ways.push(format!("{path}={address}").parse().unwrap());
    }
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let programs = Programs {
        envoy: Some(required(ENVOY).unwrap()),
        module: Some(required(MODULE).unwrap()),
        state: Some(dir.join("gateway")),
        ..Programs::default()
    };
    let options = Options {
        programs,
        paths: ways,
        upstream_ca: Some(dir.join("tls/ca.pem")),
        access_log: Some(dir.join("access.jsonl")),
        concurrency: Some(1),
        regions: vec!["us-east-1".parse().unwrap()],
        environment: vec![
            set("AWS_ACCESS_KEY_ID", KEYS.0),
            set("AWS_SECRET_ACCESS_KEY", KEYS.1),
            set("AWS_SESSION_TOKEN", ""),
            set("AWS_BEARER_TOKEN_BEDROCK", ""),
            set("BEDROCK_PATHS", ""),
        ],
        ..Options::default()
    };
    let gateway = Gateway::start(&options, || false).unwrap();
    (doubles, gateway)
}
