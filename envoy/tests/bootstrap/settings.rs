//! Files, addresses and options of a run, and a base that cannot be used.

use std::path::{Path, PathBuf};

use bedrock_gateway::base::Base;
use bedrock_gateway::bootstrap::{self, Settings};
use bedrock_gateway::bootstrap_error::BootstrapError;
use bedrock_gateway::document::{Choices, Document, Written};
use filter_core::config::Auth;
use serde_json::{Value, json};

use super::{base, cluster, endpoints, settings};

fn choices() -> Choices {
    Choices {
        auth: Auth::Sigv4,
        fips: false,
        regions: vec!["us-west-2".parse().unwrap()],
        paths: None,
        audited: false,
        desk: None,
    }
}

fn document(choices: &Choices) -> Document {
    Written::example(&base()).unwrap().compile(choices).unwrap()
}

fn render(settings: &Settings) -> Value {
    render_for(settings, &choices())
}

fn render_for(settings: &Settings, choices: &Choices) -> Value {
    bootstrap::render(&base(), settings, &document(choices)).unwrap()
}

#[test]
fn defaults_to_public_endpoints() {
    let config = render(&settings(&[]));
    let runtime = "internet/us-west-2 bedrock-runtime.us-west-2.amazonaws.com:443";
    assert_eq!(endpoints(&config, "bedrock-runtime.any"), [runtime]);
    assert_eq!(endpoints(&config, "bedrock.any"), ["internet/us-west-2 bedrock.us-west-2.amazonaws.com:443"]);
    // A class without `internet` has no endpoint.
    assert!(endpoints(&config, "bedrock-runtime.private-only").is_empty());
}

#[test]
fn endpoints_follow_the_order_of_their_class() {
    let config = render(&settings(&["internet=10.0.0.3:3", "vpn=10.0.0.2:2", "dx=10.0.0.1:1"]));
    let private = ["dx/us-west-2 10.0.0.1:1", "vpn/us-west-2 10.0.0.2:2"];
    assert_eq!(endpoints(&config, "bedrock.private-only"), private);
    assert_eq!(endpoints(&config, "bedrock.any"), [&private[..], &["internet/us-west-2 10.0.0.3:3"]].concat());
    let endpoint = &cluster(&config, "bedrock.any")["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    assert_eq!(endpoint["hostname"], "bedrock.us-west-2.amazonaws.com");
}

#[test]
fn single_endpoints_have_no_health_checks() {
    let config = render(&settings(&["dx=10.0.0.1:1", "internet=10.0.0.3:3"]));
    for key in ["health_checks", "outlier_detection", "upstream_bind_config"] {
        assert!(cluster(&config, "bedrock.any").get(key).is_some(), "{key}");
        assert!(cluster(&config, "bedrock.private-only").get(key).is_none(), "{key}");
    }
    let keepalive = &cluster(&config, "bedrock.private-only")["upstream_connection_options"]["tcp_keepalive"];
    assert_eq!(keepalive["keepalive_time"], 60, "NAT gateways forget a silent connection");
}

#[test]
fn removes_the_live_feed_without_a_collector() {
    let config = render(&settings(&[]));
    assert_eq!(cluster(&config, "audit-als"), &Value::Null);
    assert!(!config.to_string().contains("audit-als"));
    let config = render(&Settings { als: Some(([127, 0, 0, 1], 4317).into()), ..settings(&[]) });
    let als = &cluster(&config, "audit-als")["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
    assert_eq!(als["endpoint"]["address"]["socket_address"]["port_value"], 4317);
}

#[test]
fn the_collectors_socket_is_where_it_listens() {
    let without = render(&settings(&[]));
    assert_eq!(cluster(&without, "audit"), &Value::Null);
    assert!(!without.to_string().contains(r#"\"audit\""#), "the filter would call a cluster that is not there");
    let socket = PathBuf::from("/a/socket");
    let run = Settings { intents: Some(socket), ..settings(&[]) };
    let config = render_for(&run, &Choices { audited: true, ..choices() });
    let pipe = &cluster(&config, "audit")["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
    assert_eq!(pipe, &json!({ "pipe": { "path": "/a/socket" } }));
    assert!(config.to_string().contains(r#"\"cluster\": \"audit\""#));
}

#[test]
fn required_intents_need_a_collector() {
    let policy =
        r#"{"regions": {"us-east-1": {}}, "route_classes": [{"name": "any", "paths": ["dx"], "audit": "required"}]}"#;
    let base = Base::shipped().unwrap();
    let written = || Written::in_file(Path::new("rules.json"), policy, &base).unwrap();
    let error = written().compile(&choices()).unwrap_err().to_string();
    assert!(error.contains("route_classes[0].audit") && error.contains("--audit FILE"), "{error}");
    written().compile(&Choices { audited: true, ..choices() }).unwrap();
}

#[test]
fn uses_the_files_and_options_of_the_run() {
    let run = Settings {
        upstream_ca: PathBuf::from("/upstream.pem"),
        als: Some(([127, 0, 0, 1], 4317).into()),
        ..settings(&["dx=10.0.0.1:1"])
    };
    let config = render_for(&run, &Choices { auth: Auth::Bearer, fips: true, ..choices() });
    let text = config.to_string();
    for given in ["/module.wasm", "/cert.pem", "/key.pem", "/upstream.pem", "/access.jsonl"] {
        assert!(text.contains(given), "{given}");
    }
    for shipped in ["/etc/bedrock-gateway", "/var/log/bedrock-gateway", "/etc/ssl/certs", "/etc/pki", "us-east-1"] {
        assert!(!text.contains(shipped), "{shipped}");
    }
    assert!(text.contains(r#"\"auth\": \"bearer\""#) && text.contains(r#"\"fips\": true"#));
    assert!(text.contains("bedrock-runtime-fips.us-west-2.amazonaws.com"));
}

#[test]
fn omits_us_profiles_in_other_regions() {
    let abroad = Choices { regions: vec!["eu-central-1".parse().unwrap()], ..choices() };
    assert!(!render_for(&settings(&[]), &abroad).to_string().contains("us.anthropic"));
    assert!(render(&settings(&[])).to_string().contains("us.anthropic"));
}

#[test]
fn refuses_a_base_that_lacks_a_part() {
    for (pointer, key, part) in [
        ("", "admin", "no admin"),
        ("", "static_resources", "no static_resources"),
        ("/static_resources", "listeners", "no listeners"),
        ("/static_resources", "clusters", "no clusters"),
    ] {
        let mut config: Value = serde_saphyr::from_str(include_str!("../../base.yaml")).unwrap();
        config.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
        let base = Base::parse(&config.to_string(), Path::new("base.yaml")).unwrap();
        let error = bootstrap::render(&base, &settings(&[]), &document(&choices())).unwrap_err();
        assert!(matches!(error, BootstrapError::Missing(_)), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn refuses_invalid_yaml_with_its_line() {
    let file = std::env::temp_dir().join(format!("bedrock-gateway-bootstrap-{}.yaml", std::process::id()));
    std::fs::write(&file, "node: { id: x\nadmin: [").unwrap();
    let error = Base::read(&file).unwrap_err().to_string();
    std::fs::remove_file(&file).unwrap();
    assert!(error.contains(&file.display().to_string()) && error.contains("line"), "{error}");
    assert!(matches!(Base::read(&file), Err(BootstrapError::Read { .. })));
}

#[test]
fn role_combined_has_no_signer() {
    let text = include_str!("../../base.yaml").replace(r#"{"role": "gateway"}"#, r#"{"role": "combined"}"#);
    let base = Base::parse(&text, Path::new("base.yaml")).unwrap();
    let document = Written::example(&base).unwrap().compile(&choices()).unwrap();
    let rendered = bootstrap::render(&base, &settings(&[]), &document).unwrap().to_string();
    assert!(!rendered.contains("bedrock.signer") && rendered.contains("upstream_codec"));
    assert!(!rendered.contains("stream_relay"), "the relay serves role gateway only");
}

#[test]
fn refuses_a_vpc_endpoint_that_is_not_fips() {
    let fips = Choices { fips: true, regions: vec!["us-east-1".parse().unwrap()], ..choices() };
    let endpoint = |service: &str| format!("internet=vpce-0a1b-c2d3.{service}.us-east-1.vpce.amazonaws.com:443");
    let render = |path: &str| bootstrap::render(&base(), &settings(&[path]), &document(&fips));
    assert!(render(&endpoint("bedrock-runtime-fips")).is_ok());
    let error = render(&endpoint("bedrock-runtime")).unwrap_err().to_string();
    assert!(error.starts_with("--path internet: vpce-0a1b-c2d3") && error.contains("bedrock-runtime-fips"), "{error}");
}
