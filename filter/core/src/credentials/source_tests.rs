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
