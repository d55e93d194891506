use super::*;
use serde_json::{Value, json};

fn federation() -> Value {
    json!({
        "source": "federation",
        "using": {"source": "imds", "cluster": "imds"},
        "govcloud": {"cluster": "sts-gov", "region": "us-gov-west-1"},
        "commercial": {"cluster": "sts-com", "region": "us-east-1"},
        "role_arn": "arn:aws:iam::123456789012:role/bedrock",
        "audience": "bedrock-gateway",
        "tags": {"gateway": "a b"}
    })
}

fn compile(document: &Value, auth: Auth) -> Result<Source, ConfigError> {
    let config: config::Credentials = serde_json::from_value(document.clone()).unwrap();
    Source::compile(&config, auth, "credentials")
}

#[test]
fn mistakes_are_refused_by_key() {
    for (change, auth, key, problem) in [
        (json!({"source": "imds", "cluster": ""}), Auth::Sigv4, "credentials.cluster", "is empty"),
        (json!({"source": "imds", "cluster": "a b"}), Auth::Sigv4, "credentials.cluster", "white space"),
        (json!({"source": "imds", "cluster": "a"}), Auth::Bearer, "credentials.source", "`auth` is `bearer`"),
        (
            json!({"source": "secrets_manager", "cluster": "a", "secret": "s", "region": "us-gov-west-1"}),
            Auth::Sigv4,
            "credentials.using",
            "is missing",
        ),
        (
            json!({"source": "secrets_manager", "cluster": "a", "secret": "s", "using": {"source": "imds", "cluster": "i"}}),
            Auth::Sigv4,
            "credentials.region",
            "is missing",
        ),
        (
            json!({"source": "secrets_manager", "cluster": "a", "secret": "s", "region": "evil.example", "using": {"source": "imds", "cluster": "i"}}),
            Auth::Sigv4,
            "credentials.region",
            "is not a region name",
        ),
    ] {
        let error = compile(&change, auth).unwrap_err();
        assert_eq!(error.key, key, "{change}: {error}");
        assert!(error.problem.contains(problem), "{error}");
    }
    for (pointer, value, problem) in [
        ("/govcloud/region", json!("us-east-1"), "not in GovCloud"),
        ("/commercial/region", json!("us-gov-west-1"), "not in the Commercial partition"),
        ("/role_arn", json!("arn:aws-us-gov:iam::123456789012:role/x"), "not a role of the Commercial partition"),
        ("/audience", json!(""), "is empty"),
    ] {
        let mut document = federation();
        *document.pointer_mut(pointer).unwrap() = value;
        let error = compile(&document, Auth::Sigv4).unwrap_err();
        assert_eq!(error.key, format!("credentials{}", pointer.replace('/', ".")));
        assert!(error.problem.contains(problem), "{error}");
    }
    for (key, value) in [("session_name", json!("a b")), ("duration_seconds", json!(60))] {
        let mut document = federation();
        document[key] = value;
        assert_eq!(compile(&document, Auth::Sigv4).unwrap_err().key, format!("credentials.{key}"));
    }
}

fn roles_anywhere() -> Value {
    json!({
        "source": "roles_anywhere",
        "cluster": "rolesanywhere",
        "region": "us-east-1",
        "trust_anchor_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:trust-anchor/4f7b6b0e-0000-4000-8000-000000000002",
        "profile_arn": "arn:aws:rolesanywhere:us-east-1:111122223333:profile/4f7b6b0e-0000-4000-8000-000000000001",
        "role_arn": "arn:aws:iam::111122223333:role/bedrock-gateway",
        "certificate": {"source": "environment"}
    })
}

#[test]
fn roles_anywhere_is_refused_by_key() {
    compile(&roles_anywhere(), Auth::Sigv4).unwrap();
    let anchor = "arn:aws:rolesanywhere:us-east-1:111122223333:trust-anchor/4f7b6b0e-0000-4000-8000-000000000002";
    let profile = "arn:aws:rolesanywhere:us-east-1:111122223333:profile/4f7b6b0e-0000-4000-8000-000000000001";
    for (pointer, value, problem) in [
        ("/cluster", json!(""), "is empty"),
        ("/region", json!("us-gov-west-1"), "not in the Commercial partition"),
        ("/region", json!("evil.example"), "is not a region name"),
        ("/trust_anchor_arn", json!("x"), "is not of the form arn:aws:rolesanywhere:REGION:ACCOUNT:trust-anchor/UUID"),
        ("/trust_anchor_arn", json!(profile), "is not of the form"),
        ("/trust_anchor_arn", json!(anchor.replace("4f7b6b0e-", "")), "is not of the form"),
        ("/trust_anchor_arn", json!(anchor.replace(":111122223333:", ":1:")), "is not of the form"),
        ("/trust_anchor_arn", json!(anchor.replace("arn:aws:", "arn:aws-us-gov:")), "is of the partition aws-us-gov"),
        ("/trust_anchor_arn", json!(anchor.replace("us-east-1", "us-west-2")), "is of the region us-west-2"),
        ("/profile_arn", json!(anchor), "is not of the form arn:aws:rolesanywhere:REGION:ACCOUNT:profile/UUID"),
        ("/profile_arn", json!(profile.replace("us-east-1", "us-west-2")), "is of the region us-west-2"),
        ("/profile_arn", json!(profile.replace("1111", "4444")), "is of account 444422223333"),
        ("/role_arn", json!("arn:aws-us-gov:iam::111122223333:role/x"), "not a role of the Commercial partition"),
        ("/role_arn", json!("arn:aws:iam::444455556666:role/x"), "is of account 444455556666"),
        ("/duration_seconds", json!(899), "from 900 to 43200"),
        ("/duration_seconds", json!(43_201), "from 900 to 43200"),
        ("/session_name", json!("a b"), "want 2 to 64 letters"),
        ("/session_name", json!("a"), "want 2 to 64 letters"),
    ] {
        let mut document = roles_anywhere();
        let key = pointer.trim_start_matches('/');
        document[key] = value;
        let error = compile(&document, Auth::Sigv4).unwrap_err();
        assert_eq!(error.key, format!("credentials.{key}"), "{error}");
        assert!(error.problem.contains(problem), "{error}");
    }
    let mut document = roles_anywhere();
    document["certificate"] =
        json!({"source": "secrets_manager", "cluster": "a", "secret": "s", "region": "us-gov-west-1"});
    assert_eq!(compile(&document, Auth::Sigv4).unwrap_err().key, "credentials.certificate.using");
    document["certificate"]["using"] = json!({"source": "imds", "cluster": ""});
    assert_eq!(compile(&document, Auth::Sigv4).unwrap_err().key, "credentials.certificate.using.cluster");
    assert_eq!(compile(&roles_anywhere(), Auth::Bearer).unwrap_err().key, "credentials.source");
}

#[test]
fn refuses_unknown_keys_of_a_certificate() {
    for (key, value) in [
        ("certificate", json!({"source": "environment", "cluster": "a"})),
        ("certificate", json!({"source": "file"})),
        ("certificate", json!({})),
        ("audience", json!("x")),
    ] {
        let mut document = roles_anywhere();
        document[key] = value;
        assert!(serde_json::from_value::<config::Credentials>(document.clone()).is_err(), "{document}");
    }
}

#[test]
fn token_files_are_refused_by_key() {
    let document = json!({
        "source": "web_identity",
        "token": {"cluster": "token", "file": "/var/run/secrets/gateway/token"},
        "commercial": {"cluster": "sts-com", "region": "us-east-1"},
        "role_arn": "arn:aws:iam::123456789012:role/bedrock"
    });
    compile(&document, Auth::Sigv4).unwrap();
    for (pointer, value, problem) in [
        ("/token/cluster", json!(""), "is empty"),
        ("/token/file", json!("token"), "is not the absolute path of a file"),
        ("/token/file", json!("/var/run/secrets/"), "is not the absolute path of a file"),
        ("/commercial/cluster", json!("a b"), "white space"),
        ("/commercial/region", json!("us-gov-west-1"), "not in the Commercial partition"),
        ("/role_arn", json!("arn:aws-us-gov:iam::123456789012:role/x"), "not a role of the Commercial partition"),
        ("/session_name", json!("a"), "want 2 to 64 letters"),
        ("/duration_seconds", json!(899), "from 900 to 43200"),
    ] {
        let mut document = document.clone();
        match pointer.rsplit_once('/').unwrap() {
            ("", key) => document[key] = value,
            (parent, key) => document.pointer_mut(parent).unwrap()[key] = value,
        }
        let error = compile(&document, Auth::Sigv4).unwrap_err();
        assert_eq!(error.key, format!("credentials{}", pointer.replace('/', ".")));
        assert!(error.problem.contains(problem), "{error}");
    }
    assert_eq!(compile(&document, Auth::Bearer).unwrap_err().key, "credentials.source");
    for key in ["audience", "tags", "using"] {
        let mut document = document.clone();
        document[key] = json!("x");
        assert!(serde_json::from_value::<config::Credentials>(document).is_err(), "{key}");
    }
    let container = json!({"source": "container", "cluster": "a", "token": {"cluster": ""}});
    assert_eq!(compile(&container, Auth::Sigv4).unwrap_err().key, "credentials.token.cluster");
    let mut federation = federation();
    federation["using"] = container;
    assert_eq!(compile(&federation, Auth::Sigv4).unwrap_err().key, "credentials.using.token.cluster");
}
