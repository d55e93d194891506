//! Validates Istio files against the schemas of Istio and Kubernetes.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use bedrock_gateway::check;
use bedrock_gateway::gateway::Options;
use bedrock_gateway::istio::{self, GENERATED, Target};
use serde_json::Value;

/// Directory of the shipped files.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("istio")
}

/// Faults of these files by the schemas of Istio and Kubernetes.
fn faults(files: &[PathBuf]) -> Vec<String> {
    let python =
        std::env::var_os("ISTIO_SCHEMAS_PYTHON").expect("ISTIO_SCHEMAS_PYTHON is not set: run `cargo xtask test`");
    let mut command = Command::new(python);
    // -E ignores the caller's Python variables; -B writes no bytecode into the sources.
    command.args(["-E", "-B"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("checks/istio.py")).args(files);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().map(|line| {
        let fault: Value = serde_json::from_str(line).unwrap();
        let part = |key: &str| fault[key].as_str().unwrap_or_default().to_owned();
        format!("{}: {}: {}: {}", part("file"), part("object"), part("at"), part("what"))
    });
    lines.collect()
}

/// The example's document for version 2, with outputs of stacks filled in.
fn policy() -> Planted {
    let text = include_str!("../../infra/environments/example/policy-2.json");
    let text = text.replace("@{commercial/identity.RoleArn}", "arn:aws:iam::111122223333:role/gateway");
    Planted::new(&text.replace("@{environment}", "prod"))
}

#[test]
fn renders_an_egress_gateway_for_given_paths() {
    let policy = policy();
    let paths = vec!["vpn=10.0.0.9:443".parse().unwrap(), "internet".parse().unwrap()];
    let own = Options { policy: Some(policy.0.clone()), paths, ..Options::default() };
    let made = istio::render(Target::Egress, &own, None).unwrap();
    for part in ["address: \"10.0.0.9\"", "name: sts-commercial", "bedrock-runtime.any"] {
        assert!(made.contains(part), "{part}");
    }
    let file = Planted::new(&made);
    assert_eq!(faults(std::slice::from_ref(&file.0)), Vec::<String>::new());
}

#[test]
fn refuses_a_sidecar_that_fetches_credentials() {
    let policy = policy();
    let own =
        Options { policy: Some(policy.0.clone()), paths: vec!["internet".parse().unwrap()], ..Options::default() };
    for target in [Target::Plugin, Target::Sidecar] {
        let error = istio::render(target, &own, None).unwrap_err().to_string();
        assert!(error.contains("configuration key `credentials`: a sidecar has no cluster"), "{error}");
    }
}

/// A temporary file that is removed when dropped.
struct Planted(PathBuf);

impl Planted {
    fn new(text: &str) -> Planted {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("bedrock-gateway-istio-{}-{number}.yaml", std::process::id()));
        std::fs::write(&file, text).unwrap();
        Planted(file)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// File, text, the planted replacement, and the expected fault.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    // The schemas.
    ("egress/mesh.yaml", "resolution: DNS", "resolutoin: DNS", "spec.resolutoin: Extra inputs are not permitted"),
    ("egress/mesh.yaml", "resolution: DNS", "resolution: dns", "spec.resolution: Input should be"),
    (
        "egress/mesh.yaml",
        "mode: ISTIO_MUTUAL }\n      # Only",
        "mode: ISTIO }\n      # Only",
        "spec.servers.0.tls.mode: Input should be",
    ),
    ("egress/mesh.yaml", "number: 80,", "number: eighty,", "spec.ports.0.number: Input should be a valid integer"),
    ("egress/mesh.yaml", "mtls: { mode: STRICT }", "mtls: { mode: ON }", "spec.mtls.mode: Input should be"),
    ("egress/mesh.yaml", "action: ALLOW", "action: PERMIT", "spec.action: Input should be"),
    ("egress/mesh.yaml", "kind: Gateway", "kind: Gatewway", "no kind Gatewway in networking.istio.io/v1"),
    (
        "egress/mesh.yaml",
        "networking.istio.io/v1\nkind: Gateway",
        "networking.istio.io/v2\nkind: Gateway",
        "no kind Gateway in networking.istio.io/v2",
    ),
    ("egress/mesh.yaml", "  name: bedrock-gateway\n", "  title: bedrock-gateway\n", "metadata.name: Field required"),
    (
        "egress/envoyfilter.yaml",
        "applyTo: NETWORK_FILTER",
        "applyTo: NETWORK_FILTERS",
        "spec.configPatches.1.applyTo: Input should be",
    ),
    (
        "egress/envoyfilter.yaml",
        "operation: MERGE",
        "operation: PUT",
        "spec.configPatches.0.patch.operation: Input should be",
    ),
    (
        "egress/gateway.yaml",
        "mountPath: /var/log",
        "mountpath: /var/log",
        "initContainers.0.volumeMounts.0.mountpath: Extra inputs are not permitted",
    ),
    ("egress/gateway.yaml", "replicas: 2", "replicas: two", "spec.replicas: Input should be a valid integer"),
    (
        "sidecar/plugin.yaml",
        "failStrategy: FAIL_RELOAD",
        "failStrategy: FAIL_SAFE",
        "spec.failStrategy: Input should be",
    ),
];

#[test]
fn istio_files_match_the_schemas() {
    let all = check::files_below(&directory()).unwrap();
    assert!(GENERATED.iter().all(|(_, name)| all.contains(&directory().join(name))));
    assert_eq!(faults(&all), Vec::<String>::new());

    let planted: Vec<Planted> = MISTAKES
        .iter()
        .map(|(file, there, planted, _)| {
            let text = std::fs::read_to_string(directory().join(file)).unwrap();
            assert!(text.contains(there), "{file} has no {there:?}");
            Planted::new(&text.replacen(there, planted, 1))
        })
        .collect();
    let files: Vec<PathBuf> = planted.iter().map(|planted| planted.0.clone()).collect();
    let faults = faults(&files);
    for ((file, _, planted, said), at) in MISTAKES.iter().zip(&files) {
        let of_file: Vec<&String> = faults.iter().filter(|fault| fault.starts_with(at.to_str().unwrap())).collect();
        assert!(of_file.iter().any(|fault| fault.contains(said)), "{file}: {planted}: {of_file:#?}");
    }
}
