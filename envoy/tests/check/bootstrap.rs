//! Mistakes of a bootstrap, planted in the shipped one.

use bedrock_gateway::platform::Platform;

use super::{Dir, Mistake, POLICY, faults, planted, shipped};

const BOOTSTRAP: [Mistake; 45] = [
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
    (
        "request_body_buffer_limit: 33554432",
        "request_body_limit: 33554432",
        "standalone.yaml:",
        "request_body_buffer_limit: is missing: Envoy would refuse bodies over the listener's",
    ),
    (
        "num_retries: 3",
        "num_retries: 1",
        "standalone.yaml:",
        "retry_policy.num_retries: want 2 or more, not 1: class 'any' has 3 endpoints",
    ),
    ("num_retries: 3", "retries: 3", "standalone.yaml:", "num_retries: want 2 or more, not 1"),
    (
        "name: envoy.retry_priorities.previous_priorities",
        "name: envoy.retry_priorities.other",
        "standalone.yaml:",
        "retry_policy.retry_priority: want envoy.retry_priorities.previous_priorities",
    ),
    (
        "per_connection_buffer_limit_bytes: 33554432",
        "per_connection_buffer_limit_bytes: 1048576",
        "standalone.yaml:",
        "per_connection_buffer_limit_bytes: is less than `max_body_bytes` (26214400)",
    ),
    (
        "per_connection_buffer_limit_bytes: 33554432",
        "buffer_limit_bytes: 33554432",
        "standalone.yaml:",
        "per_connection_buffer_limit_bytes: is missing, and Envoy's default of 1 MiB is less than",
    ),
    ("health_checks:", "health_check:", "standalone.yaml:", "health_checks: is missing: new calls would go to a path"),
    (
        "expected_statuses: [{ end: 600, start: 200 }]",
        "expected_statuses: [{ end: 300, start: 200 }]",
        "standalone.yaml:",
        "expected_statuses: want [{ start: 200, end: 600 }]",
    ),
    (
        "healthy_threshold: 2",
        "healthy_threshold: 1",
        "standalone.yaml:",
        "healthy_threshold: want 2, not 1: `failback_seconds` is 5, and checks are 5 s apart",
    ),
    (
        "healthy_panic_threshold: { value: 0 }",
        "healthy_panic_threshold: { value: 50 }",
        "standalone.yaml:",
        "healthy_panic_threshold: want { value: 0 }",
    ),
    (
        "tcp_keepalive: { keepalive_interval: 15, keepalive_probes: 4, keepalive_time: 60 }",
        "drain_type: DEFAULT",
        "standalone.yaml:",
        "listeners[0].tcp_keepalive: is missing: load balancers and NAT gateways forget a call that is silent for 350 s",
    ),
    (
        "keepalive_probes: 4, keepalive_time: 60 }",
        "keepalive_probes: 4 }",
        "standalone.yaml:",
        "keepalive_time: want 175 s or less, not the kernel's default",
    ),
    (
        "- name: bedrock.connections",
        "- name: another",
        "standalone.yaml:",
        "listeners[0].filter_chains[0].filters: no filter bedrock.connections: one client can take all connections",
    ),
    (
        "- name: bedrock.hash",
        "- name: another",
        "standalone.yaml:",
        "http_filters: no filter bedrock.hash after the gateway's: calls with bodies of `envoy_hashes_body_bytes` would be refused",
    ),
    (
        "\\\"per_client\\\": 500",
        "\\\"per_client\\\": 10000",
        "standalone.yaml:",
        "per_client is 10000, and Envoy accepts 10000 connections",
    ),
    ("keepalive_time: 60", "keepalive_time: 300", "standalone.yaml:", "want 175 s or less, not 300"),
    (
        "upstream_connection_options:",
        "upstream_options:",
        "standalone.yaml:",
        "upstream_connection_options.tcp_keepalive: is missing",
    ),
    ("healthy_panic_threshold: { value: 0 }, ", "", "standalone.yaml:", "healthy_panic_threshold: want { value: 0 }"),
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

/// Whatever source the document names: the values are in the bootstrap, and on the admin page.
#[test]
fn secrets_written_into_a_bootstrap_are_named() {
    let dir = Dir::new();
    let standalone = shipped("envoy/standalone.yaml");
    let imds = r#""credentials": {"source": "imds", "cluster": "audit-als"}, "auth": "sigv4""#;
    let fetching = standalone.replace(r#""auth": "sigv4""#, imds);
    let names = [
        ("AWS_SECRET_ACCESS_KEY", "s", true),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "t", true),
        ("BEDROCK_GATEWAY_PRIVATE_KEY", "k", true),
        ("BEDROCK_GATEWAY_CERTIFICATE", "-----BEGIN EC PRIVATE KEY-----", true),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/var/run/secrets/token", false),
        ("BEDROCK_PATHS", "dx", false),
    ];
    for (text, (name, value, is_secret)) in
        [&standalone, &fetching].into_iter().flat_map(|text| names.map(|name| (text, name)))
    {
        let given = format!("key_values: {{ {name}: \"{value}\" }}\n                      host_env_keys:\n");
        let envoy = dir.file("standalone.yaml", &planted(text, "host_env_keys:\n", &given));
        let found = faults(&[envoy], |_| {});
        let says =
            format!("key_values.{name}: a secret in the configuration is shown by /config_dump; want host_env_keys");
        assert_eq!(found.iter().filter(|said| said.contains(&says)).count(), usize::from(is_secret), "{found:#?}");
    }
}

#[test]
fn a_ca_bundle_of_another_system_is_named() {
    let dir = Dir::new();
    let text = shipped("envoy/standalone.yaml");
    let file = dir.file("standalone.yaml", &text);
    let key = "common_tls_context.validation_context.trusted_ca.filename: ";
    let bundle = |found: Vec<String>| found.into_iter().filter(|said| said.contains(key)).collect::<Vec<_>>();
    let found = bundle(faults(std::slice::from_ref(&file), |options| options.platform = Some(Platform::Debian)));
    let says = "want /etc/ssl/certs/ca-certificates.crt: /etc/pki/tls/certs/ca-bundle.crt is where amazon-linux has";
    assert!(
        matches!(found.as_slice(), [only] if only.starts_with("standalone.yaml:") && only.contains(says)),
        "{found:#?}"
    );
    assert_eq!(bundle(faults(std::slice::from_ref(&file), |_| {})), Vec::<String>::new());
    // For this host: every bundle that it lacks.
    for platform in Platform::ALL {
        let own = text.replace(Platform::AmazonLinux.ca_bundle(), platform.ca_bundle());
        let found = bundle(faults(&[dir.file("own.yaml", &own)], |options| options.platform = None));
        let is_here = std::path::Path::new(platform.ca_bundle()).is_file();
        assert_eq!(found.is_empty(), is_here, "{found:#?}");
        assert!(
            found.iter().all(|said| said.starts_with("note: ") && said.contains("This host lacks it")),
            "{found:#?}"
        );
    }
}

/// Callers without a certificate have no name. A note, because callers with names may come in elsewhere.
#[test]
fn tls_without_client_certificates_is_noted() {
    let dir = Dir::new();
    let standalone = shipped("envoy/standalone.yaml");
    let noted = |text: &str| faults(&[dir.file("standalone.yaml", text)], |_| {});
    let found = noted(&standalone);
    let [note] = found.as_slice() else { panic!("{found:#?}") };
    assert!(note.starts_with("note: standalone.yaml:") && note.contains("class private-only takes none"), "{note}");
    let asks = "common_tls_context:\n                validation_context: { trusted_ca: { filename: /ca.pem } }\n";
    let at = standalone.find("alpn_protocols: [h2, http/1.1]").unwrap();
    let (before, after) = standalone.split_at(standalone[..at].rfind("common_tls_context:\n").unwrap());
    let text = format!("{before}{}", planted(after, "common_tls_context:\n", asks));
    assert_eq!(noted(&text), Vec::<String>::new());
    let nobody = standalone.replace("\"principals\": [", "\"models\": [");
    assert_eq!(noted(&nobody), Vec::<String>::new());
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

#[test]
fn missing_certificate_variables_are_named() {
    let dir = Dir::new();
    let start = POLICY.find(r#""source": "federation""#).unwrap();
    let end = start + POLICY[start..].find("\n  }").unwrap();
    let own = r#""source": "roles_anywhere", "cluster": "rolesanywhere", "region": "us-east-1",
    "trust_anchor_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:trust-anchor/4f7b6b0e-0000-4000-8000-000000000002",
    "profile_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:profile/4f7b6b0e-0000-4000-8000-000000000001",
    "role_arn": "arn:aws:iam::111122223333:role/gateway", "certificate": { "source": "environment" }"#;
    let rules = dir.file("rules.json", &format!("{}{own}{}", &POLICY[..start], &POLICY[end..]));
    let standalone = shipped("envoy/standalone.yaml");
    let envoy = dir.file("envoy.yaml", &standalone.replace("BEDROCK_GATEWAY_PRIVATE_KEY", "BEDROCK_GATEWAY_KEY"));
    let found = faults(&[rules], |options| options.envoy = Some(envoy));
    let said = |says: &str| found.iter().any(|said| said.contains(says));
    assert!(said("BEDROCK_GATEWAY_PRIVATE_KEY is missing: the filter would have no credentials"), "{found:#?}");
    assert!(said("cluster `rolesanywhere` is missing, which `credentials` names"), "{found:#?}");
    assert!(!said("BEDROCK_GATEWAY_CERTIFICATE is missing"), "{found:#?}");
}

#[test]
fn a_missing_token_cluster_is_named() {
    let dir = Dir::new();
    let envoy = dir.file("envoy.yaml", &shipped("envoy/standalone.yaml"));
    let container = r#""source": "container", "cluster": "pod", "token": { "cluster": "container-token" } }"#;
    let using = planted(POLICY, r#""source": "imds", "cluster": "imds" }"#, container);
    let own = planted(POLICY, r#""source": "federation""#, r#""source": "web_identity""#);
    let own =
        planted(&own, r#""using": { "source": "imds", "cluster": "imds" }"#, r#""token": { "cluster": "pod-token" }"#);
    let own = planted(&own, r#""govcloud": { "cluster": "sts-govcloud", "region": "us-gov-west-1" },"#, "");
    let own = planted(&own, "gateway\",\n    \"audience\": \"bedrock-gateway\"", "gateway\"");
    for (text, cluster) in [(using, "container-token"), (own, "pod-token")] {
        let rules = dir.file("rules.json", &text);
        let found = faults(&[rules], |options| options.envoy = Some(envoy.clone()));
        let says = format!("cluster `{cluster}` is missing, which `credentials` names");
        assert!(found.iter().any(|said| said.contains(&says)), "{found:#?}");
    }
}

/// The shipped bootstrap, with a cluster for each of the document's that has the rendered filter.
fn with_sources(filter_of: impl Fn(&str) -> String) -> String {
    let cluster = |name: &&str| {
        format!(
            "    - name: {name}\n      connect_timeout: 1s\n      typed_extension_protocol_options:\n        \
             envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ http_filters: [{}] }}\n",
            filter_of(name)
        )
    };
    let clusters: String = ["imds", "sts-govcloud", "sts-commercial"].iter().map(cluster).collect();
    planted(&shipped("envoy/standalone.yaml"), "  clusters:\n", &format!("  clusters:\n{clusters}"))
}

#[test]
fn a_source_without_its_filter_is_named() {
    let dir = Dir::new();
    let rules = dir.file("rules.json", POLICY);
    let filter = |name: &str, id: &str, vm: &str| {
        format!(
            r#"{{ typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: {{
            failure_policy: FAIL_RELOAD, allow_on_headers_stop_iteration: true,
            vm_config: {{ vm_id: {id}, configuration: {vm} }},
            configuration: {{ value: '{{"source_cluster": "{name}"}}' }} }} }} }}"#
        )
    };
    let found = |text: String| {
        let envoy = dir.file("envoy.yaml", &text);
        let found = faults(std::slice::from_ref(&rules), |options| options.envoy = Some(envoy));
        found.into_iter().filter(|said| said.contains("source_cluster") || said.contains("vm_config")).collect()
    };
    let none: Vec<String> = found(with_sources(|name| filter(name, "bedrock", "source")));
    assert_eq!(none, Vec::<String>::new());
    let without: Vec<String> = found(with_sources(|_| String::new()));
    assert_eq!(without.len(), 3, "{without:#?}");
    let says = "no Wasm filter has `source_cluster` sts-govcloud: at debug Envoy would log the tokens and signatures";
    assert!(without.iter().any(|said| said.contains(says)), "{without:#?}");
    for (text, says) in [
        (with_sources(|_| filter("imds", "bedrock", "source")), "has `source_cluster` imds; want sts-govcloud"),
        (with_sources(|name| filter(name, "other", "source")), "vm_config.vm_id: differs from the gateway's"),
        (with_sources(|name| filter(name, "bedrock", "null")), "vm_config.configuration: is the gateway's"),
    ] {
        let wrong: Vec<String> = found(text);
        assert!(wrong.iter().any(|said| said.contains(says)), "{says}: {wrong:#?}");
    }
}

#[test]
fn a_class_without_its_time_out_is_named() {
    let dir = Dir::new();
    let timed =
        planted(POLICY, r#""weights": { "dx": 1 }"#, r#""weights": { "dx": 1 }, "first_byte_timeout_ms": 2500"#);
    let rules = dir.file("rules.json", &timed);
    let envoy = dir.file("envoy.yaml", &shipped("envoy/standalone.yaml"));
    let found = faults(&[rules], |options| options.envoy = Some(envoy));
    let says = "class 'any' has `first_byte_timeout_ms`, and no route of it has `per_try_timeout: 2.5s`";
    assert!(found.iter().any(|said| said.contains(says)), "{found:#?}");
}

#[test]
fn a_retry_that_cannot_leave_is_named() {
    let dir = Dir::new();
    let rules = dir.file(
        "rules.json",
        r#"{ "regions": { "us-east-1": {}, "us-west-2": {} }, "route_classes": [{ "name": "any", "paths": ["dx", "vpn"] }] }"#,
    );
    let mut render = std::process::Command::new(env!("CARGO_BIN_EXE_bedrock-gateway"));
    render.args(["render", "envoy", "--path", "dx=10.0.0.1:443", "--path", "vpn=10.0.0.2:443", "--policy"]);
    let rendered = String::from_utf8(render.arg(&rules).output().unwrap().stdout).unwrap();
    let rendered: serde_json::Value = serde_json::from_str(&rendered).unwrap();
    let found = |from: &str, to: &str| {
        let text = rendered.to_string();
        assert!(text.contains(from), "{from}");
        let envoy = dir.file("envoy.json", &text.replace(from, to));
        faults(std::slice::from_ref(&rules), |options| options.envoy = Some(envoy))
    };
    assert_eq!(found("{", "{"), Vec::<String>::new());
    for (from, to, says) in [
        (r#""instead_of":["us-west-2"]"#, r#""instead_of":["us-west-1"]"#, "an endpoint in us-east-1 has no us-west-2"),
        (r#""list_as_any":true"#, r#""list_as_any":false"#, "lb_subset_config: want"),
        ("x-bedrock-gateway-leave", "x-leave", "no filter reads"),
        (r#""fallback_list":[{},"#, r#""other_list":[{},"#, "metadata_match: want `fallback_list"),
    ] {
        let found = found(from, to);
        assert!(found.iter().any(|said| said.contains(says)), "{says}: {found:#?}");
    }
}
