//! The calls that read a token's file, and those that use the token.

use super::responses::ResponseError;
use super::tests::{KEYS, ROLE_KEYS, environment, keys, line, plan, run};
use crate::config::{self, Auth};
use crate::credentials::provider::Provider;
use crate::credentials::source::Source;
use serde_json::{Value, json};

const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln-_";

fn web_identity() -> Value {
    json!({
        "source": "web_identity",
        "token": {"cluster": "pod-token", "file": "/var/run/secrets/gateway/token"},
        "commercial": {"cluster": "sts-com", "region": "us-east-1"},
        "role_arn": "arn:aws:iam::123456789012:role/bedrock",
        "session_name": "pod-1",
        "duration_seconds": 900
    })
}

fn container() -> Value {
    json!({"source": "container", "cluster": "pod-identity", "token": {"cluster": "container-token"}})
}

#[test]
fn a_pods_token_is_exchanged_for_keys() {
    let plan = plan(&web_identity());
    // The file may end with a line break.
    let (calls, fetched) = run(&plan, &[(200, &format!("{TOKEN}\n")), (200, ROLE_KEYS)]);
    assert_eq!(
        calls.iter().map(line).collect::<Vec<_>>(),
        ["pod-token GET localhost/", "sts-com POST sts.us-east-1.amazonaws.com/"]
    );
    assert_eq!(
        String::from_utf8_lossy(&calls[1].body),
        format!(
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fbedrock\
             &DurationSeconds=900&RoleSessionName=pod-1&WebIdentityToken={TOKEN}"
        )
    );
    assert_eq!(calls[1].headers.get("authorization"), None);
    assert_eq!(keys(&fetched.unwrap()), ("ASIACOM", "com/secret+1", Some("com&token==")));
}

#[test]
fn each_fetch_reads_the_token_again() {
    let plan = plan(&web_identity());
    for token in ["a.b.c", "d.e.f"] {
        let (calls, _) = run(&plan, &[(200, token), (200, ROLE_KEYS)]);
        assert!(String::from_utf8_lossy(&calls[1].body).ends_with(&format!("&WebIdentityToken={token}")));
    }
}

#[test]
fn a_bad_token_is_refused_before_sts() {
    let too_long = format!("{}.b.c", "a".repeat(20_000));
    for (status, body, wanted) in [
        (
            503,
            "no healthy upstream",
            "cluster 'pod-token' was not reached: Envoy answered 503: no healthy upstream".to_owned(),
        ),
        (404, "", "answered 404".to_owned()),
        (204, TOKEN, "answered 204".to_owned()),
        (200, "", ResponseError::NoToken.to_string()),
        (200, " \n", ResponseError::NoToken.to_string()),
        (200, "a.b.c\nd.e.f", ResponseError::TokenLine.to_string()),
        (200, "a.b c", ResponseError::TokenLine.to_string()),
        (200, "a.b.é", ResponseError::TokenLine.to_string()),
        (200, "<!DOCTYPE html>\n<html></html>", ResponseError::TokenLine.to_string()),
        (200, "<html>a.b.c</html>", ResponseError::TokenParts.to_string()),
        (200, &too_long, ResponseError::TokenLength.to_string()),
        (200, "token", ResponseError::TokenParts.to_string()),
        (200, "a.b", ResponseError::TokenParts.to_string()),
        (200, "a..c", ResponseError::TokenParts.to_string()),
        (200, "a.b.c.d", ResponseError::TokenParts.to_string()),
    ] {
        let (calls, fetched) = run(&plan(&web_identity()), &[(status, body)]);
        assert_eq!(fetched.unwrap_err(), format!("token file: {wanted}"), "{body}");
        assert_eq!(calls.len(), 1, "{body}");
    }
    let (_, fetched) = run(&plan(&web_identity()), &[]);
    assert_eq!(fetched.unwrap_err(), "token file: no answer from cluster 'pod-token'");
}

#[test]
fn sts_errors_hold_no_token() {
    let error = format!(
        "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>{} is bad</Message></Error></ErrorResponse>",
        TOKEN.repeat(2)
    );
    let (_, fetched) = run(&plan(&web_identity()), &[(200, TOKEN), (400, &error)]);
    assert_eq!(fetched.unwrap_err(), "AssumeRoleWithWebIdentity: answered 400 InvalidIdentityToken: … is bad");
}

#[test]
fn a_container_token_may_be_in_a_file() {
    // The file is used even if the environment has a token, as AWS's SDKs do.
    let (calls, fetched) = run(&plan(&container()), &[(200, "opaque-token\n"), (200, KEYS)]);
    assert_eq!(
        calls.iter().map(line).collect::<Vec<_>>(),
        ["container-token GET localhost/", "pod-identity GET 169.254.170.23/v1/credentials"]
    );
    assert_eq!(calls[0].headers.get("authorization"), None);
    assert_eq!(calls[1].headers.get_str("authorization"), Some("opaque-token"));
    assert_eq!(keys(&fetched.unwrap()).0, "AKIDGOV");
    for (status, body, wanted) in [
        (
            503,
            "no healthy upstream",
            "cluster 'container-token' was not reached: Envoy answered 503: no healthy upstream",
        ),
        (200, "", "the token is empty: is the file of the token cluster empty?"),
        (200, "two\nlines", "the token is not one line of visible characters"),
    ] {
        let (calls, fetched) = run(&plan(&container()), &[(status, body)]);
        assert_eq!(fetched.unwrap_err(), format!("token file: {wanted}"));
        assert_eq!(calls.len(), 1);
    }
}

#[test]
fn a_container_with_a_token_file_signs() {
    let secret = json!({"source": "secrets_manager", "cluster": "secrets", "secret": "s", "region": "us-gov-west-1",
        "using": container()});
    let answer = json!({"SecretString": r#"{"AccessKeyId":"AKIDX","SecretAccessKey":"x"}"#}).to_string();
    let (calls, fetched) = run(&plan(&secret), &[(200, "t"), (200, KEYS), (200, &answer)]);
    let clusters: Vec<&str> = calls.iter().map(|call| call.cluster.as_str()).collect();
    assert_eq!(clusters, ["container-token", "pod-identity", "secrets"]);
    assert_eq!(keys(&fetched.unwrap()).0, "AKIDX");

    let federation = json!({"source": "federation", "using": container(), "audience": "a",
        "govcloud": {"cluster": "sts-gov", "region": "us-gov-west-1"},
        "commercial": {"cluster": "sts-com", "region": "us-east-1"},
        "role_arn": "arn:aws:iam::123456789012:role/bedrock"});
    let issued = "<a><WebIdentityToken>a.b.c</WebIdentityToken></a>";
    let (calls, fetched) = run(&plan(&federation), &[(200, "t"), (200, KEYS), (200, issued), (200, ROLE_KEYS)]);
    let clusters: Vec<&str> = calls.iter().map(|call| call.cluster.as_str()).collect();
    assert_eq!(clusters, ["container-token", "pod-identity", "sts-gov", "sts-com"]);
    assert_eq!(keys(&fetched.unwrap()).0, "ASIACOM");
}

#[test]
fn refuses_a_token_file_that_no_one_reads() {
    let with_file = |name: &str| match name {
        "AWS_CONTAINER_AUTHORIZATION_TOKEN" => None,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE" => Some("/var/run/secrets/pods.eks.amazonaws.com/token".to_owned()),
        other => environment(other),
    };
    let resolve = |document: &Value| {
        let config: config::Credentials = serde_json::from_value(document.clone()).unwrap();
        let source = Source::compile(&config, Auth::Sigv4, "credentials").unwrap();
        Provider::resolve(&source, Auth::Sigv4, "credentials", &with_file)
    };
    let mut document = container();
    resolve(&document).unwrap();
    document.as_object_mut().unwrap().remove("token");
    let error = resolve(&document).unwrap_err();
    assert_eq!(error.key, "credentials");
    assert_eq!(
        error.problem,
        r#"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE in the VM's environment names a file, and the filter reads no files: set `token` to {"cluster": "container-token", "file": "/var/run/secrets/pods.eks.amazonaws.com/token"}"#
    );
}
