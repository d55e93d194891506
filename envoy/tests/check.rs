//! `check` names each planted mistake by file and key, says how to put it right, and finds no fault with the shipped files.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use bedrock_gateway::check::{self, Options};
use serde_json::Value;

#[path = "check/every_mistake.rs"]
mod every_mistake;
#[path = "check/messages.rs"]
mod messages;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn shipped(file: &str) -> String {
    std::fs::read_to_string(repository().join(file)).unwrap()
}

/// A directory that is removed with the test.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Each fault as `check` prints it, without the directory.
fn faults(files: &[PathBuf], change: impl FnOnce(&mut Options)) -> Vec<String> {
    let mut options = Options { files: files.to_vec(), placeholders: true, ..Options::default() };
    change(&mut options);
    let found = check::faults(&options).unwrap();
    let name = |file: &str| Path::new(file).file_name().unwrap().to_string_lossy().into_owned();
    found.into_iter().map(|fault| check::Fault { file: name(&fault.file), ..fault }.to_string()).collect()
}

/// The text with one part replaced; the part must be there.
fn planted(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in the text");
    text.replacen(from, to, 1)
}

/// What is there, what is planted, and how the fault's line begins and what else it says.
type Mistake = (&'static str, &'static str, &'static str, &'static str);

const POLICY: &str = r#"{
  "regions": { "us-east-1": {}, "us-west-2": {} },
  "models": { "allow": ["*"] },
  "aliases": { "sonnet": "anthropic.claude-sonnet-5" },
  "principal": [{ "from": "mtls" }],
  "route_classes": [
    { "name": "bulk", "operations": ["StartAsyncInvoke"], "paths": ["internet"], "dscp": 10 },
    { "name": "any", "paths": ["dx", "vpn"], "weights": { "dx": 1 }, "regions": ["us-east-1"] }
  ],
  "credentials": {
    "source": "federation",
    "using": { "source": "imds", "cluster": "imds" },
    "govcloud": { "cluster": "sts-govcloud", "region": "us-gov-west-1" },
    "commercial": { "cluster": "sts-commercial", "region": "us-east-1" },
    "role_arn": "arn:aws:iam::111122223333:role/gateway",
    "audience": "bedrock-gateway"
  },
  "max_body_bytes": 26214400
}
"#;

const DOCUMENT: [Mistake; 27] = [
    (r#""models": {"#, r#""models" {"#, "rules.json:3:12: ", "`:`"),
    (r#""aliases""#, r#""alias""#, "rules.json:4:3: alias: ", "did you mean `aliases`?"),
    (r#""principal""#, r#""models""#, "rules.json:5:3: models: ", "is there twice"),
    (r#""dscp": 10"#, r#""dscp": 64"#, "rules.json:7:82: route_classes[0].dscp: ", "from 0 to 63"),
    (r#""dscp": 10"#, r#""dscp": "af11""#, "rules.json:7:82: route_classes[0].dscp: ", "from 0 to 63"),
    (r#"["internet"]"#, r#"["internett"]"#, "rules.json:7:", "did you mean `internet`?"),
    (r#"["dx", "vpn"]"#, "[]", "rules.json:8:22: route_classes[1].paths: ", ""),
    (r#"["dx", "vpn"]"#, r#"["dx", "dx"]"#, "rules.json:8:", "dx"),
    (r#"{ "dx": 1 }"#, r#"{ "dx": 0 }"#, "rules.json:8:46: route_classes[1].weights: ", "every weight is zero"),
    (r#"{ "dx": 1 }"#, r#"{ "internet": 1 }"#, "rules.json:8:", "internet"),
    (r#""regions": ["us-east-1"]"#, r#""regions": ["us-east-2"]"#, "rules.json:8:", "us-east-2"),
    (r#""us-west-2": {}"#, r#""us-gov-west-1": {}"#, "rules.json:2:", "Commercial partition"),
    (r#""us-west-2": {}"#, r#""us_west_2": {}"#, "rules.json:2:", "such as us-east-1"),
    (r#""StartAsyncInvoke""#, r#""StartAsyncInvok""#, "rules.json:7:", "did you mean `StartAsyncInvoke`?"),
    (r#""name": "any""#, r#""name": "bulk""#, "rules.json:8:", "bulk"),
    (r#""name": "any""#, r#""name": "Any Class""#, "rules.json:8:7: route_classes[1].name: ", "lower-case"),
    (
        "arn:aws:iam::111122223333:role/gateway",
        "arn:aws-us-gov:iam::1:role/x",
        "rules.json:15:5: credentials.role_arn: ",
        "arn:aws:iam::ACCOUNT:role/NAME",
    ),
    (
        r#""audience": "#,
        r#""duration_seconds": 60, "audience": "#,
        "rules.json:16:5: credentials.duration_seconds: ",
        "900",
    ),
    ("26214400", r#""25 MB""#, "rules.json:18:3: max_body_bytes: ", "whole number"),
    (r#""operations": ["StartAsyncInvoke"], "#, "", "rules.json:8:5: route_classes[1]: ", "bulk"),
    (r#""max_body_bytes""#, r#""role": "server", "max_body_bytes""#, "rules.json:18:3: role: ", "gateway"),
    (
        "\"models\": { \"allow\": [\"*\"] },\n  \"aliases\": { \"sonnet\": \"anthropic.claude-sonnet-5\" },",
        r#""models": { "allow": ["meta.*"], "deny": ["*"] },"#,
        "rules.json:3:36: models.deny: ",
        "no model is left",
    ),
    (
        "\"principal\": [{ \"from\": \"mtls\" }],\n  \"route_classes\": [",
        r#""route_classes": [{ "name": "x", "principals": ["spiffe://*"], "paths": ["dx"] },"#,
        "rules.json:5:36: route_classes[0].principals: ",
        "callers have no name",
    ),
    (r#""source": "imds""#, r#""source": "imsd""#, "rules.json:12:", "did you mean `imds`?"),
    (
        r#""operations": ["StartAsyncInvoke"]"#,
        r#""principals": ["*"], "paths": ["dx"] }, { "name": "chat", "principals": ["spiffe://a/*"], "operations": ["Converse"]"#,
        "rules.json:7:",
        "class 'chat' is never reached: 'bulk' before it takes",
    ),
    (
        r#""max_body_bytes""#,
        r#""credential_sets": { "spare": { "source": "imds", "cluster": "imds" } }, "max_body_bytes""#,
        "rules.json:18:24: credential_sets.spare: ",
        "no route class uses it",
    ),
    (
        "\"allow\": [\"*\"] },\n  \"aliases\": { \"sonnet\": \"anthropic.claude-sonnet-5\" },\n  \"principal\": [{ \"from\": \"mtls\" }],\n  \"route_classes\": [",
        "\"allow\": [\"anthropic.*\"] },\n  \"route_classes\": [\n    { \"name\": \"chat\", \"models\": [\"anthropc.*\", \"anthropic.*\"], \"paths\": [\"dx\"] },",
        "rules.json:5:34: route_classes[0].models[0]: ",
        "did you mean `anthropic.*`?",
    ),
];

#[test]
fn mistakes_of_a_document_are_named() {
    let dir = Dir::new();
    let good = dir.file("rules.json", POLICY);
    assert_eq!(faults(&[good], |_| {}), Vec::<String>::new());
    for (from, to, start, says) in DOCUMENT {
        let file = dir.file("rules.json", &planted(POLICY, from, to));
        let found = faults(&[file], |_| {});
        let said = found.first().unwrap_or_else(|| panic!("{to}: nothing was found"));
        assert!(said.starts_with(start) && said.contains(says), "{to}: {said}");
        // In the operator's words.
        for word in ["expected u", "struct ", "variant", "i64", "f64", "enum "] {
            assert!(!said.contains(word), "{to}: {said}");
        }
    }
}

#[test]
fn mistakes_in_yaml_have_its_positions() {
    let dir = Dir::new();
    let example = shipped("envoy/example.yaml");
    for (from, to, says) in [
        ("    paths: [dx, vpn]\n", "    paths: [dx, vpm]\n", "route_classes[0].paths[1]: unknown"),
        ("fips: false", "fips: maybe", "fips: want true or false"),
        ("fips: false", "fips: [", "not YAML"),
        ("fips: false", "auth: bearer", "auth"),
    ] {
        let text = planted(&example, from, to);
        let line = text.lines().position(|line| to.trim() == line.trim()).unwrap() + 1;
        let found = faults(&[dir.file("rules.yaml", &text)], |_| {});
        let said = found.first().unwrap_or_else(|| panic!("{to}: nothing was found"));
        assert!(said.starts_with("rules.yaml:") && said.contains(says), "{to}: {said}");
        if says.contains('[') || says.contains("fips") {
            assert!(said.starts_with(&format!("rules.yaml:{line}:")), "{to}: {said}");
        }
    }
}

#[test]
fn paths_without_addresses_are_named() {
    let dir = Dir::new();
    let file = dir.file("rules.json", POLICY);
    let paths = |specs: &[&str]| specs.iter().map(|spec| spec.parse().unwrap()).collect();
    let found = faults(std::slice::from_ref(&file), |options| options.paths = paths(&["dx=10.0.0.1:443"]));
    assert_eq!(
        found,
        [
            "rules.json:7:59: route_classes[0].paths: no --path is given for internet: every call of class 'bulk' would get 503"
        ]
    );
    let found = faults(&[file], |options| options.paths = paths(&["dx=10.0.0.1:443", "internet", "vpn=10.0.0.2:1"]));
    assert_eq!(found, Vec::<String>::new());
}

const BOOTSTRAP: [Mistake; 27] = [
    (
        "failure_policy: FAIL_RELOAD",
        "failure_policy: FAIL_OPEN",
        "standalone.yaml:",
        "failure_policy: FAIL_OPEN lets calls past",
    ),
    ("failure_policy: FAIL_RELOAD", "fail_open: true", "standalone.yaml:", "fail_open: true lets calls past"),
    (
        "allow_on_headers_stop_iteration: true",
        "allow_on_headers_stop_iteration: false",
        "standalone.yaml:",
        "allow_on_headers_stop_iteration: want true",
    ),
    (
        "name: bedrock-runtime.any\n",
        "name: bedrock-runtime.an\n",
        "standalone.yaml:",
        "cluster `bedrock-runtime.any` is missing",
    ),
    ("name: bedrock-streams\n", "name: bedrock-stream\n", "standalone.yaml:", "did you mean `bedrock-stream`?"),
    (
        "path: dx, region: us-east-1",
        "path: dx, region: us-east-2",
        "standalone.yaml:",
        "the class does not take dx/us-east-2",
    ),
    (
        "metadata: { filter_metadata: { bedrock: { path: dx, region: us-east-1 } } }",
        "metadata: {}",
        "standalone.yaml:",
        "no metadata `bedrock`",
    ),
    (
        "auto_sni_san_validation: true",
        "auto_sni_san_validation: false",
        "standalone.yaml:",
        "auto_sni_san_validation: want true",
    ),
    ("auto_host_sni: true", "auto_host_sni: false", "standalone.yaml:", "auto_host_sni: want true"),
    ("trusted_ca: ", "custom_ca: ", "standalone.yaml:", "Envoy would trust any certificate"),
    (
        "cluster_header: x-bedrock-gateway-cluster",
        "cluster_header: x-cluster",
        "standalone.yaml:",
        "cluster_header: 'x-cluster' is not the filter's header",
    ),
    ("retriable-headers", "5xx", "standalone.yaml:", "`retriable-headers` is missing"),
    ("name: x-bedrock-gateway-retry", "name: x-retry", "standalone.yaml:", "want x-bedrock-gateway-retry, not x-retry"),
    (
        "request_body_buffer_limit: 33554432",
        "request_body_buffer_limit: 1048576",
        "standalone.yaml:",
        "is less than `max_body_bytes` (26214400)",
    ),
    ("timeout: 0s", "timeout: 15s", "standalone.yaml:", "timeout: want 0s"),
    ("normalize_path: false", "normalize_path: true", "standalone.yaml:", "normalize_path: want false"),
    (
        "wasm.bedrock.exchange:PLAIN",
        "wasm.bedrock.echange:PLAIN",
        "standalone.yaml:",
        "filter state wasm.bedrock.exchange is missing",
    ),
    ("- AWS_SECRET_ACCESS_KEY", "- AWS_SECRET_KEY", "standalone.yaml:", "AWS_SECRET_ACCESS_KEY is missing"),
    ("vm_id: bedrock", "vm_id: other", "standalone.yaml:", "want the same `vm_config`"),
    (r#""role": "gateway""#, r#""role": "getaway""#, "standalone.yaml:", "not a document with a `role`"),
    (r#""auth": "sigv4""#, r#""auth": "sigv4a""#, "standalone.yaml:", "sigv4a"),
    (
        "                  hostname: bedrock-runtime.us-east-1.amazonaws.com",
        "                  hostname: bedrock-runtime.us-west-2.amazonaws.com",
        "standalone.yaml:",
        "hostname: want bedrock-runtime.us-east-1.amazonaws.com, for which calls are signed",
    ),
    ("tls_minimum_protocol_version: TLSv1_2", "tls_minimum_protocol_version: TLSv1_0", "standalone.yaml:", "TLSv1_0"),
    (
        "address: \"127.0.0.1\", port_value: 9901",
        "address: \"0.0.0.0\", port_value: 9901",
        "standalone.yaml:",
        "want 127.0.0.1",
    ),
    (
        "preserve_external_request_id: false",
        "preserve_external_request_id: true",
        "standalone.yaml:",
        "preserve_external_request_id: want false",
    ),
    ("use_remote_address: true", "use_remote_address: false", "standalone.yaml:", "use_remote_address: want true"),
    (r#""role": "gateway""#, r#""role": "signer""#, "standalone.yaml:", "is there 0 times"),
];

#[test]
fn mistakes_of_a_bootstrap_are_named() {
    let dir = Dir::new();
    let standalone = shipped("envoy/standalone.yaml");
    for (from, to, start, says) in BOOTSTRAP {
        let found = faults(&[dir.file("standalone.yaml", &planted(&standalone, from, to))], |_| {});
        assert!(found.iter().any(|said| said.starts_with(start) && said.contains(says)), "{to}: {found:#?}");
    }
}

#[test]
fn a_bootstrap_must_serve_the_document() {
    let dir = Dir::new();
    let (rules, envoy) = (dir.file("rules.json", POLICY), dir.file("envoy.yaml", &shipped("envoy/standalone.yaml")));
    let found = faults(&[rules], |options| options.envoy = Some(envoy));
    for says in [
        "cluster `bedrock-runtime.bulk",
        "cluster `imds` is missing, which `credentials` names",
        "cluster `sts-commercial` is missing",
    ] {
        assert!(found.iter().any(|said| said.contains(says)), "{says}: {found:#?}");
    }
}

/// File, what is there, what is planted, and what is said.
const MESH: [(&str, &str, &str, &str); 19] = [
    (
        "sidecar/plugin.yaml",
        "failStrategy: FAIL_RELOAD",
        "failStrategy: FAIL_OPEN",
        "WasmPlugin/bedrock-gateway: spec.failStrategy: FAIL_OPEN lets calls past",
    ),
    (
        "sidecar/plugin.yaml",
        "auth: bearer",
        "auth: sigv4",
        "WasmPlugin/bedrock-gateway: spec.pluginConfig.auth: a WasmPlugin cannot hold a call",
    ),
    (
        "sidecar/plugin.yaml",
        "selector: { matchLabels: { bedrock-gateway: sidecar } }",
        "selector: { matchLabels: { bedrock-gateway: sidecars } }",
        "selects no pod",
    ),
    (
        "sidecar/envoyfilter.yaml",
        "failure_policy: FAIL_RELOAD",
        "failure_policy: FAIL_OPEN",
        "failure_policy: FAIL_OPEN lets calls past",
    ),
    (
        "sidecar/envoyfilter.yaml",
        "  workloadSelector: { labels: { bedrock-gateway: sidecar } }\n",
        "",
        "EnvoyFilter/bedrock-gateway: spec.workloadSelector: is missing",
    ),
    (
        "sidecar/workload.yaml",
        "@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ":1.0",
        "Deployment/example: spec.template.spec.containers[0].image: pin the image",
    ),
    (
        "egress/mesh.yaml",
        "action: ALLOW",
        "action: AUDIT",
        "AuthorizationPolicy/bedrock-gateway: spec.action: AUDIT refuses nobody",
    ),
    ("egress/mesh.yaml", "namespaces: [mission, restricted]", "namespaces: []", "namespaces: is empty"),
    (
        "egress/mesh.yaml",
        "kind: PeerAuthentication",
        "kind: PeerAuthentification",
        "unknown kind 'PeerAuthentification'; did you mean `PeerAuthentication`?",
    ),
    ("egress/mesh.yaml", "from: [{ source: { namespaces: [mission, restricted] } }]", "from: []", "from: is empty"),
    (
        "egress/mesh.yaml",
        "  rules:\n    - from: [{ source: { namespaces: [mission, restricted] } }]\n      to: [{ operation: { ports: [\"8443\"] } }]",
        "  rules: [{}]",
        "spec.rules[0]: has no condition",
    ),
    (
        "egress/mesh.yaml",
        "mtls: { mode: STRICT }",
        "mtls: { mode: PERMISSIVE }",
        "PeerAuthentication/default: spec.mtls.mode: want STRICT",
    ),
    (
        "egress/mesh.yaml",
        "gateways: [mesh, bedrock-gateway]",
        "gateways: [mesh, bedrock-getaway]",
        "Gateway `bedrock-getaway` is missing; did you mean `bedrock-gateway`?",
    ),
    (
        "egress/mesh.yaml",
        "host: bedrock-gateway.bedrock-gateway.svc.cluster.local, port: { number: 8443 }",
        "host: bedrock-gateway.bedrock-gateway.svc.cluster.local, port: { number: 8444 }",
        "has no port 8444; it has 8443",
    ),
    (
        "egress/mesh.yaml",
        "  host: bedrock-gateway.bedrock-gateway.svc.cluster.local\n",
        "  host: bedrock-gateway.bedrock-gatewy.svc.cluster.local\n",
        "DestinationRule/bedrock-gateway: spec.host: no Service or ServiceEntry has the host",
    ),
    (
        "egress/gateway.yaml",
        "targetPort: 8443",
        "targetPort: 8444",
        "Service/bedrock-gateway: spec.ports[0].targetPort: no container of the selected pods has port 8444",
    ),
    ("egress/envoyfilter.yaml", "portNumber: 8443", "portNumber: 8444", "has port 8444, so the patch matches nothing"),
    (
        "egress/envoyfilter.yaml",
        "          name: bedrock-runtime.any\n",
        "          name: bedrock-runtime.many\n",
        "names cluster `bedrock-runtime.any`, which no patch adds; did you mean `bedrock-runtime.many`?",
    ),
    ("egress/envoyfilter.yaml", r#""role": "gateway""#, r#""rol": "gateway""#, "configuration.value"),
];

#[test]
fn mistakes_of_istio_files_are_named() {
    for (file, from, to, says) in MESH {
        let dir = Dir::new();
        let folder = repository().join("envoy/istio").join(Path::new(file).parent().unwrap());
        let files: Vec<PathBuf> = check::files_below(&folder)
            .unwrap()
            .iter()
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                let text = std::fs::read_to_string(path).unwrap();
                let text = if file.ends_with(&format!("/{name}")) { planted(&text, from, to) } else { text };
                dir.file(name, &text)
            })
            .collect();
        let found = faults(&files, |_| {});
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        let named = |said: &&String| said.starts_with(&format!("{name}:")) && said.contains(says);
        assert!(found.iter().any(|said| named(&said)), "{file}: {to}: {found:#?}");
    }
}

#[test]
fn placeholders_are_faults_outside_templates() {
    let plugin = repository().join("envoy/istio/sidecar/plugin.yaml");
    let policy = repository().join("infra/environments/example/policy-2.json");
    let found = faults(&[plugin, policy], |options| options.placeholders = false);
    for says in [
        "plugin.yaml:",
        "the digest of zeros is a placeholder",
        "policy-2.json:15:18: @{commercial/identity.RoleArn} is a placeholder",
    ] {
        assert!(found.iter().any(|said| said.contains(says)), "{says}: {found:#?}");
    }
}

#[test]
fn shipped_files_have_no_fault() {
    let mut files = vec![repository().join("envoy/example.yaml"), repository().join("envoy/standalone.yaml")];
    files.extend(check::files_below(&repository().join("envoy/istio")).unwrap());
    let environments = check::files_below(&repository().join("infra/environments")).unwrap();
    assert!(environments.len() > 2, "{environments:?}");
    files.extend(environments);
    assert_eq!(faults(&files, |_| {}), Vec::<String>::new());
}

#[test]
fn a_missing_file_is_one_line() {
    let error = check::run(&Options { files: vec!["/nowhere.yaml".into()], ..Options::default() }).unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("cannot read /nowhere.yaml: ") && !said.contains('\n'), "{said}");
}

#[test]
fn what_is_not_an_object_is_named() {
    let dir = Dir::new();
    for (text, says) in [
        ("spec: [", "not YAML"),
        ("apiVersion: v1\n", "want `apiVersion` and `kind`"),
        ("- a\n- b\n", "want an object"),
    ] {
        let found = faults(&[dir.file("x.yaml", text)], |_| {});
        assert!(found.iter().any(|said| said.starts_with("x.yaml") && said.contains(says)), "{text}: {found:#?}");
    }
}

/// The example is what `example` prints: a whole document for two classes, with callers by certificate.
#[test]
fn the_example_is_whole() {
    let example: Value = serde_saphyr::from_str(&shipped("envoy/example.yaml")).unwrap();
    assert_eq!(example["principal"][0]["from"], "mtls");
    assert_eq!(example["route_classes"].as_array().unwrap().len(), 2);
}

#[test]
fn kinds_of_others_are_not_taken_for_mistakes() {
    let dir = Dir::new();
    for kind in [
        "Secret",
        "Job",
        "CronJob",
        "Role",
        "RoleBinding",
        "HTTPRoute",
        "ReplicaSet",
        "DaemonSet",
        "StatefulSet",
        "Sidecar",
        "Ingress",
        "WorkloadEntry",
        "WorkloadGroup",
        "RequestAuthentication",
        "NetworkPolicy",
        "Kustomization",
        "ProxyConfig",
        "HorizontalPodAutoscaler",
        "PersistentVolumeClaim",
        "Pod",
        "Lease",
        "Endpoints",
        "EndpointSlice",
        "Certificate",
    ] {
        let object = format!("apiVersion: v1\nkind: {kind}\nmetadata: {{ name: x, namespace: y }}\n");
        assert_eq!(faults(&[dir.file("object.yaml", &object)], |_| {}), Vec::<String>::new(), "{kind}");
    }
}
