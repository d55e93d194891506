//! The source `roles_anywhere`: its clusters in the rendered bootstrap.

use std::path::Path;

use bedrock_gateway::bootstrap::{self, sources};
use bedrock_gateway::bootstrap_error::BootstrapError;
use bedrock_gateway::document::{Choices, Written};
use filter_core::config::Auth;
use serde_json::{Value, json};

use super::{base, settings};

fn document() -> Value {
    json!({
        "regions": { "us-east-1": {} },
        "route_classes": [{ "name": "any", "paths": ["vpn", "internet"] }],
        "credentials": {
            "source": "roles_anywhere",
            "cluster": "sessions",
            "region": "us-east-1",
            "trust_anchor_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:trust-anchor/4f7b6b0e-0000-4000-8000-000000000002",
            "profile_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:profile/4f7b6b0e-0000-4000-8000-000000000001",
            "role_arn": "arn:aws:iam::111122223333:role/bedrock-gateway",
            "certificate": {
                "source": "secrets_manager", "cluster": "secrets", "secret": "x509", "region": "us-gov-west-1",
                "using": { "source": "imds", "cluster": "imds" }
            }
        }
    })
}

fn render(document: &Value, paths: &[&str]) -> Result<Value, BootstrapError> {
    let (base, settings) = (base(), settings(paths));
    let choices =
        Choices { auth: Auth::Sigv4, fips: false, regions: Vec::new(), paths: None, audited: false, desk: None };
    let written = Written::in_file(Path::new("policy.json"), &document.to_string(), &base).unwrap();
    let document = written.compile(&choices).unwrap();
    let mut config = bootstrap::render(&base, &settings, &document)?;
    sources::add(&mut config, &base, &document, &settings)?;
    Ok(config)
}

/// The addresses of a cluster, and the name in the certificate that Envoy wants of them.
fn addresses(config: &Value, name: &str) -> Vec<String> {
    let clusters = config["static_resources"]["clusters"].as_array().unwrap();
    let cluster = clusters.iter().find(|cluster| cluster["name"] == name).unwrap();
    let groups = cluster["load_assignment"]["endpoints"].as_array().unwrap();
    let of = |group: &Value| {
        let endpoint = &group["lb_endpoints"][0]["endpoint"];
        let address = &endpoint["address"]["socket_address"];
        let host = endpoint["hostname"].as_str().unwrap_or("local");
        format!("{} {host}:{}", address["address"].as_str().unwrap(), address["port_value"])
    };
    groups.iter().map(of).collect()
}

#[test]
fn clusters_follow_the_paths() {
    let host = "rolesanywhere.us-east-1.amazonaws.com";
    let config = render(&document(), &["vpn=10.0.0.2:443", "vpn/rolesanywhere=10.0.0.3:8443", "internet"]).unwrap();
    assert_eq!(addresses(&config, "sessions"), [format!("10.0.0.3 {host}:8443"), format!("{host} {host}:443")]);
    let secrets = "secretsmanager.us-gov-west-1.amazonaws.com";
    assert_eq!(addresses(&config, "secrets"), [format!("{secrets} {secrets}:443")]);
    assert_eq!(addresses(&config, "imds"), ["169.254.169.254 local:80"]);
}

#[test]
fn no_path_to_roles_anywhere_is_refused() {
    let error = render(&document(), &["vpn=10.0.0.2:443", "internet=10.0.0.4:443"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "cluster `sessions`: no --path reaches rolesanywhere in us-east-1; give `internet`, or such as vpn/rolesanywhere=HOST:443"
    );
}

#[test]
fn environment_certificates_have_no_cluster() {
    let mut document = document();
    document["credentials"]["certificate"] = json!({ "source": "environment" });
    let config = render(&document, &["vpn=10.0.0.2:443", "internet"]).unwrap();
    assert_eq!(addresses(&config, "sessions").len(), 1);
    let text = config.to_string();
    assert!(!text.contains("secretsmanager") && text.contains("BEDROCK_GATEWAY_PRIVATE_KEY"));
}
