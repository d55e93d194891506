//! The cluster and the listener that answer with a token's file.

use std::path::Path;

use bedrock_gateway::bootstrap::{self, sources};
use bedrock_gateway::bootstrap_error::BootstrapError;
use bedrock_gateway::document::{Choices, Written};
use bedrock_gateway::istio;
use filter_core::config::Auth;
use serde_json::{Value, json};

use super::{base, cluster, settings};

fn web_identity(token: &Value) -> Value {
    json!({
        "source": "web_identity", "token": token,
        "commercial": { "cluster": "sts", "region": "us-east-1" },
        "role_arn": "arn:aws:iam::111122223333:role/bedrock-gateway",
    })
}

fn render(credentials: &Value, sets: &Value) -> Result<Value, BootstrapError> {
    let document = json!({
        "regions": { "us-east-1": {} },
        "route_classes": [{ "name": "any", "paths": ["internet"] }],
        "credentials": credentials,
        "credential_sets": sets,
    });
    let (base, settings) = (base(), settings(&["internet"]));
    let choices =
        Choices { auth: Auth::Sigv4, fips: false, regions: Vec::new(), paths: None, audited: false, desk: None };
    let written = Written::in_file(Path::new("policy.json"), &document.to_string(), &base).unwrap();
    let document = written.compile(&choices).unwrap();
    let mut config = bootstrap::render(&base, &settings, &document)?;
    sources::add(&mut config, &base, &document, &settings)?;
    Ok(config)
}

fn listeners<'a>(config: &'a Value, name: &str) -> Vec<&'a Value> {
    let all = config["static_resources"]["listeners"].as_array().unwrap();
    all.iter().filter(|listener| listener["name"] == name).collect()
}

/// The body of the only route of a token's listener.
fn body(config: &Value, name: &str) -> Value {
    let [listener] = listeners(config, name)[..] else { return Value::Null };
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(manager.get("access_log"), None);
    assert_eq!(manager["route_config"]["max_direct_response_body_size_bytes"], 20_000);
    manager["route_config"]["virtual_hosts"][0]["routes"][0]["direct_response"]["body"].clone()
}

#[test]
fn a_token_file_gets_a_cluster_and_a_listener() {
    let token = json!({ "cluster": "web-identity-token", "file": "/var/run/secrets/bedrock-gateway/token" });
    // Both sources read one file.
    let config = render(&web_identity(&token), &json!({ "second": web_identity(&token) })).unwrap();
    let address =
        &cluster(&config, "web-identity-token")["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    assert_eq!(address["address"]["envoy_internal_address"]["server_listener_name"], "web-identity-token");
    assert_eq!(
        body(&config, "web-identity-token"),
        json!({
            "filename": "/var/run/secrets/bedrock-gateway/token",
            "watched_directory": { "path": "/var/run/secrets/bedrock-gateway" },
        })
    );
    // No other machine can connect to it.
    assert_eq!(listeners(&config, "web-identity-token")[0]["internal_listener"], json!({}));
    assert_eq!(listeners(&config, "web-identity-token")[0].get("address"), None);
    assert_eq!(cluster(&config, "sts")["load_assignment"]["endpoints"].as_array().unwrap().len(), 1);
}

#[test]
fn a_container_token_gets_them_too() {
    let token = json!({ "cluster": "container-token", "file": "/t/token" });
    let using = json!({ "source": "container", "cluster": "audit-als", "token": token });
    // `audit-als` stands for a cluster that the base has; only the operator knows a container endpoint's address.
    let error = render(&using, &json!({})).unwrap_err().to_string();
    assert!(error.contains("no cluster `audit-als`"), "{error}");
    let using = json!({ "source": "container", "cluster": "bedrock-streams", "token": token });
    let secret = json!({ "source": "secrets_manager", "cluster": "secrets", "secret": "s", "region": "us-gov-west-1",
        "using": using });
    for credentials in [&using, &secret] {
        let config = render(credentials, &json!({})).unwrap();
        assert_eq!(body(&config, "container-token")["filename"], "/t/token");
    }
}

#[test]
fn refuses_a_token_cluster_that_is_not_known() {
    let error = |token: &Value, sets: &Value| render(&web_identity(token), sets).unwrap_err().to_string();
    assert_eq!(
        error(&json!({ "cluster": "token" }), &json!({})),
        "the Envoy configuration has no cluster `token`, which the document's credentials name; only the operator knows its \
         address, or for a token its `file`"
    );
    let other = json!({ "second": web_identity(&json!({ "cluster": "token", "file": "/b/token" })) });
    assert_eq!(
        error(&json!({ "cluster": "token", "file": "/a/token" }), &other),
        "`token.cluster` is `token` for /a/token and for /b/token; want a cluster for each file"
    );
    let taken = error(&json!({ "cluster": "streams", "file": "/a/token" }), &json!({}));
    assert!(taken.contains("a listener `streams`, and no cluster of this name"), "{taken}");
}

#[test]
fn keeps_a_token_cluster_of_the_base() {
    let token = json!({ "cluster": "bedrock-streams", "file": "/a/token" });
    let config = render(&web_identity(&token), &json!({})).unwrap();
    assert!(listeners(&config, "bedrock-streams").is_empty());
}

#[test]
fn istio_gets_the_listener_and_the_cluster() {
    let token = json!({ "cluster": "web-identity-token", "file": "/var/run/secrets/bedrock-gateway/token" });
    let text = istio::envoy_filter(render(&web_identity(&token), &json!({})).unwrap()).unwrap();
    for part in [
        "# A token's file for the filter (`token`)",
        "# The relay for streams",
        "filename: /var/run/secrets/bedrock-gateway/token",
        "server_listener_name: web-identity-token",
        "cluster_name: sts\n",
    ] {
        assert_eq!(text.matches(part).count(), 1, "{part}");
    }
}
