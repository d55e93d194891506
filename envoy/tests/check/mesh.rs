//! Mistakes in objects for Istio, planted in the shipped ones.

use std::path::{Path, PathBuf};

use bedrock_gateway::check;

use super::{Dir, faults, planted, repository};

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
