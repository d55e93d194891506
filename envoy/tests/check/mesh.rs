//! Mistakes in objects for Istio, planted in the shipped ones.

use std::path::{Path, PathBuf};

use bedrock_gateway::check;

use super::{Dir, faults, planted, repository};

/// File, what is there, what is planted, and what is said.
const MESH: [(&str, &str, &str, &str); 42] = [
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
        "egress/envoyfilter.yaml",
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "trusted_ca.filename: want /etc/ssl/certs/ca-certificates.crt",
    ),
    ("egress/envoyfilter.yaml", "tcp_keepalive: ", "keepalive: ", "patch.value.tcp_keepalive: is missing"),
    (
        "egress/envoyfilter.yaml",
        "upstream_connection_options:",
        "connection_options:",
        "patch.value.upstream_connection_options.tcp_keepalive: is missing",
    ),
    (
        "sidecar/mesh.yaml",
        "tcpKeepalive: { time: 60s,",
        "tcpKeepalive: { time: 7200s,",
        "DestinationRule/bedrock-runtime-commercial: spec.trafficPolicy.connectionPool.tcp.tcpKeepalive: want { time: 60s",
    ),
    (
        "egress/gateway.yaml",
        "      containers:\n        - name: istio-proxy\n",
        "      containers:\n        - { name: audit-collector, args: [run, --file, /log] }\n        - name: istio-proxy\n",
        "Deployment/bedrock-gateway: spec.template.spec.containers[0]: ends in no order with istio-proxy",
    ),
    (
        "egress/gateway.yaml",
        "        - name: audit-collector\n          restartPolicy: Always\n",
        "        - name: audit-collector\n",
        "spec.template.spec.initContainers[0].restartPolicy: want Always",
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
    (
        "egress/mesh.yaml",
        "action: ALLOW",
        "action: DENY",
        "AuthorizationPolicy/bedrock-gateway: spec.action: DENY refuses the callers that the rules name and lets all others",
    ),
    (
        "egress/mesh.yaml",
        "action: ALLOW\n  rules:\n",
        "action: ALLOW\n  rules:\n    - from: [{ source: { namespaces: [mission] } }]\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: refuse, namespace: bedrock-gateway }\nspec:\n  action: DENY\n  rules:\n    - from: [{ source: { namespaces: [mission] } }]\n",
        "AuthorizationPolicy/refuse: spec.rules[0].from: refuses the callers that AuthorizationPolicy/bedrock-gateway lets in",
    ),
    (
        "egress/mesh.yaml",
        "ports: [\"8443\"]",
        "ports: [\"8443\", \"8444\"]",
        "spec.rules[0].to[0].operation.ports[1]: the selected pods have no port 8444; they have 8443",
    ),
    (
        "egress/mesh.yaml",
        "svc.cluster.local, port: { number: 8443 } }",
        "svc.cluster.local, port: { number: 8443 }, subset: v2 }",
        "VirtualService/bedrock: spec.http[0].route[0].destination.subset: no DestinationRule of host",
    ),
    (
        "egress/mesh.yaml",
        "  host: bedrock-gateway.bedrock-gateway.svc.cluster.local\n",
        "  host: bedrock-gateway.bedrock-gateway.svc.cluster.local\n  subsets: [{ name: v1, labels: { version: v1 } }]\n",
        "DestinationRule/bedrock-gateway: spec.subsets[0].labels: `version: v1` selects no pod",
    ),
    (
        "egress/mesh.yaml",
        "    connectionPool:\n",
        "    portLevelSettings: [{ port: { number: 8444 } }]\n    connectionPool:\n",
        "spec.trafficPolicy.portLevelSettings[0].port.number: host",
    ),
    (
        "egress/mesh.yaml",
        "match: [{ gateways: [mesh], port: 80 }]",
        "match: [{ gateways: [mesh], port: 81 }]",
        "spec.http[0].match[0].port: neither the hosts nor a Gateway have port 81",
    ),
    (
        "egress/mesh.yaml",
        "match: [{ gateways: [bedrock-gateway], port: 8443 }]",
        "match: [{ gateways: [bedrock-getaway], port: 8443 }]",
        "spec.http[1].match[0].gateways[0]: `bedrock-getaway` is not in `spec.gateways`",
    ),
    (
        "egress/mesh.yaml",
        "        - ./bedrock-runtime.us-gov-west-1.amazonaws.com\n        - ./bedrock.us-gov-west-1.amazonaws.com\n        - ./bedrock-agent-runtime.us-gov-west-1.amazonaws.com\n        - ./bedrock-runtime.us-east-1.amazonaws.com\n        - ./bedrock.us-east-1.amazonaws.com\n        - ./bedrock-agent-runtime.us-east-1.amazonaws.com\n",
        "        - ./other.example\n",
        "spec.gateways[1]: Gateway `bedrock-gateway` serves none of the hosts; it serves other.example",
    ),
    (
        "egress/mesh.yaml",
        "  resolution: DNS\n",
        "  resolution: STATIC\n  workloadSelector: { labels: { app: bedrock-getaway } }\n",
        "ServiceEntry/bedrock: spec.workloadSelector.labels: `app: bedrock-getaway` selects no pod",
    ),
    (
        "egress/mesh.yaml",
        "    - bedrock-runtime.us-gov-west-1.amazonaws.com\n    - bedrock.us-gov-west-1.amazonaws.com\n    - bedrock-agent-runtime.us-gov-west-1.amazonaws.com\n    - bedrock-runtime.us-east-1.amazonaws.com\n    - bedrock.us-east-1.amazonaws.com\n    - bedrock-agent-runtime.us-east-1.amazonaws.com\n  gateways",
        "    - bedrock-runtime.us-gov-weast-1.amazonaws.com\n  gateways",
        "VirtualService/bedrock: spec.hosts[0]: no Service or ServiceEntry has the host",
    ),
    (
        "egress/envoyfilter.yaml",
        "gateway: bedrock-gateway/bedrock-gateway, vhost",
        "gateway: bedrock-gateway/bedrock-getaway, vhost",
        "match.routeConfiguration.gateway: Gateway `bedrock-gateway/bedrock-getaway` is missing",
    ),
    (
        "egress/envoyfilter.yaml",
        "route: { name: closed }",
        "route: { name: close }",
        "no VirtualService has a route `close`, so the patch matches nothing; did you mean `closed`?",
    ),
    (
        "sidecar/plugin.yaml",
        "ports: [{ number: 10000 }]",
        "ports: [{ number: 10001 }]",
        "WasmPlugin/bedrock-gateway: spec.match[0].ports[0].number: no ServiceEntry or Service has port 10001",
    ),
    (
        "sidecar/plugin.yaml",
        "kind: WasmPlugin",
        "kind: WasmPlugin",
        "spec.selector: EnvoyFilter/bedrock-gateway puts the filter into the same sidecars",
    ),
    (
        "sidecar/mesh.yaml",
        "host: bedrock.us-east-1.amazonaws.com, port: { number: 10000 }",
        "host: bedrock.us-east-1.amazonaws.com, port: { number: 443 }",
        "has no port 443; it has 10000",
    ),
    (
        "sidecar/mesh.yaml",
        "    - bedrock-runtime.us-east-1.amazonaws.com\n    - bedrock.us-east-1.amazonaws.com\n",
        "    - bedrock-runtime.us-east-1.amazonaws.com\n    - bedrock.us-eest-1.amazonaws.com\n",
        "ServiceEntry/bedrock-commercial: spec.hosts[1]: this version does not know region 'us-eest-1'",
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

/// A Service may be called by its name alone in its namespace, and without the end of its host.
#[test]
fn short_names_of_services_are_hosts() {
    let dir = Dir::new();
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: { name: web, namespace: apps }\nspec: { ports: [{ port: 80 }] }\n";
    let route = |host: &str, rest: &str| {
        let route = format!("{{ host: {host}, subset: v1{rest} }}");
        format!(
            "{service}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{ name: web, namespace: apps }}\n\
             spec: {{ host: web.apps.svc.cluster.local, subsets: [{{ name: v1 }}] }}\n---\napiVersion: networking.istio.io/v1\n\
             kind: VirtualService\nmetadata: {{ name: web, namespace: apps }}\n\
             spec: {{ hosts: [web], http: [{{ route: [{{ destination: {route} }}] }}] }}\n"
        )
    };
    for host in ["web", "web.apps", "web.apps.svc", "web.apps.svc.cluster.local"] {
        assert_eq!(faults(&[dir.file("x.yaml", &route(host, ""))], |_| {}), Vec::<String>::new(), "{host}");
        let found = faults(&[dir.file("x.yaml", &route(host, ", port: { number: 81 }"))], |_| {});
        assert!(matches!(found.as_slice(), [only] if only.contains("has no port 81; it has 80")), "{host}: {found:?}");
    }
    let found = faults(&[dir.file("x.yaml", &route("wep", ""))], |_| {});
    assert!(found.iter().any(|said| said.contains("no Service or ServiceEntry has the host `wep`")), "{found:?}");
}
