use super::*;
use crate::config::{self, Auth};
use crate::credentials::source::Origin;
use serde_json::{Value, json};
use std::time::Duration;

const KEYS: &str = r#"{"Code":"Success","AccessKeyId":"AKIDGOV","SecretAccessKey":"gov/secret","Token":"gov-token","Expiration":"2026-01-02T04:04:05Z"}"#;
const ROLE_KEYS: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">
  <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIACOM</AccessKeyId><SecretAccessKey>com/secret+1</SecretAccessKey>
  <SessionToken>com&amp;token==</SessionToken><Expiration>2026-01-02T04:04:05Z</Expiration></Credentials>
  </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
const TOKEN: &str = "<GetWebIdentityTokenResponse><GetWebIdentityTokenResult><WebIdentityToken>eyJ.a-b_c.d</WebIdentityToken></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>";

/// 2026-01-02T03:04:05Z
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045)
}

fn environment(name: &str) -> Option<String> {
    match name {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI" => Some("http://169.254.170.23/v1/credentials".into()),
        "AWS_CONTAINER_AUTHORIZATION_TOKEN" => Some("container-token".into()),
        "AWS_TOKEN" => Some("agent-token".into()),
        _ => None,
    }
}

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

fn compile(document: &Value, auth: Auth) -> Result<Origin, crate::config::ConfigError> {
    let config: config::Credentials = serde_json::from_value(document.clone()).unwrap();
    Origin::compile(&config, auth, "credentials", &environment)
}

fn source(document: &Value) -> Source {
    match compile(document, Auth::Sigv4).unwrap() {
        Origin::Fetched(source) => source,
        Origin::Fixed(_) => panic!("fixed"),
    }
}

/// Runs a fetch against canned answers; the calls that it made, as `METHOD cluster host path`, and its end.
fn run(source: &Source, answers: &[(u16, &str)]) -> (Vec<Call>, Result<Fetched, String>) {
    let mut fetch = Fetch::new(source.clone());
    let mut calls = Vec::new();
    let mut next = fetch.next(Answer::None, now());
    let mut answers = answers.iter();
    loop {
        match next {
            Ok(Next::Done(fetched)) => return (calls, Ok(fetched)),
            Err(error) => return (calls, Err(error.to_string())),
            Ok(Next::Call(call)) => calls.push(call),
        }
        next = match answers.next() {
            None => fetch.next(Answer::None, now()),
            Some((status, body)) => {
                let mut headers = Headers::default();
                headers.push(":status", status.to_string());
                fetch.next(Answer::Came { headers: &headers, body: body.as_bytes() }, now())
            }
        };
    }
}

fn line(call: &Call) -> String {
    let get = |name| call.headers.get_str(name).unwrap();
    format!("{} {} {}{}", call.cluster, get(":method"), get(":authority"), get(":path"))
}

fn keys(fetched: &Fetched) -> (&str, &str, Option<&str>) {
    match &fetched.credentials {
        Credentials::Keys(keys) => {
            (&keys.access_key_id, keys.secret_access_key.reveal(), keys.session_token.as_ref().map(Secret::reveal))
        }
        Credentials::ApiKey(key) => ("", key.reveal(), None),
    }
}

#[test]
fn a_container_shows_its_token() {
    let source = source(&json!({"source": "container", "cluster": "pod-identity"}));
    let (calls, fetched) = run(&source, &[(200, KEYS)]);
    assert_eq!(calls.iter().map(line).collect::<Vec<_>>(), ["pod-identity GET 169.254.170.23/v1/credentials"]);
    assert_eq!(calls[0].headers.get_str("authorization"), Some("container-token"));
    let fetched = fetched.unwrap();
    assert_eq!(keys(&fetched), ("AKIDGOV", "gov/secret", Some("gov-token")));
    assert_eq!(fetched.expires, Some(now() + Duration::from_secs(3600)));
}

#[test]
fn the_metadata_service_is_asked_in_its_second_version() {
    let source = source(&json!({"source": "imds", "cluster": "imds"}));
    let (calls, fetched) = run(&source, &[(200, "session=="), (200, "gateway-role\n"), (200, KEYS)]);
    assert_eq!(
        calls.iter().map(line).collect::<Vec<_>>(),
        [
            "imds PUT 169.254.169.254/latest/api/token",
            "imds GET 169.254.169.254/latest/meta-data/iam/security-credentials/",
            "imds GET 169.254.169.254/latest/meta-data/iam/security-credentials/gateway-role",
        ]
    );
    assert!(calls[0].headers.get("x-aws-ec2-metadata-token-ttl-seconds").is_some());
    for call in &calls[1..] {
        assert_eq!(call.headers.get_str("x-aws-ec2-metadata-token"), Some("session=="));
    }
    assert_eq!(keys(&fetched.unwrap()).0, "AKIDGOV");
    let named = self::source(&json!({"source": "imds", "cluster": "imds", "role": "r"}));
    assert_eq!(run(&named, &[(200, "session"), (200, KEYS)]).0.len(), 2);
}

#[test]
fn a_secret_comes_from_the_agent_or_by_a_signed_question() {
    let agent = source(&json!({"source": "secrets_manager", "cluster": "agent", "secret": "bedrock/key"}));
    let answer = json!({"ARN": "a", "SecretString": r#"{"ApiKey":"ABSKx"}"#}).to_string();
    let (calls, fetched) = run(&agent, &[(200, &answer)]);
    assert_eq!(line(&calls[0]), "agent GET localhost:2773/secretsmanager/get?secretId=bedrock%2Fkey");
    assert_eq!(calls[0].headers.get_str("x-aws-parameters-secrets-token"), Some("agent-token"));
    assert_eq!(keys(&fetched.unwrap()), ("", "ABSKx", None));

    let direct = source(&json!({
        "source": "secrets_manager", "cluster": "secrets", "secret": "s", "region": "us-gov-west-1",
        "using": {"source": "container", "cluster": "pod"}
    }));
    let answer = json!({"SecretString": r#"{"aws_access_key_id":"AKIDX","aws_secret_access_key":"x"}"#}).to_string();
    let (calls, fetched) = run(&direct, &[(200, KEYS), (200, &answer)]);
    assert_eq!(line(&calls[1]), "secrets POST secretsmanager.us-gov-west-1.amazonaws.com/");
    assert_eq!(calls[1].body, br#"{"SecretId":"s"}"#);
    let authorization = calls[1].headers.get_str("authorization").unwrap();
    assert!(authorization.contains("AKIDGOV/20260102/us-gov-west-1/secretsmanager/aws4_request"), "{authorization}");
    assert!(
        authorization.contains("content-type;host;x-amz-date;x-amz-security-token;x-amz-target"),
        "{authorization}"
    );
    assert_eq!(keys(&fetched.unwrap()), ("AKIDX", "x", None));
}

#[test]
fn federation_changes_a_token_for_keys() {
    let source = source(&federation());
    let answers = [(200, "session"), (200, "role"), (200, KEYS), (200, TOKEN), (200, ROLE_KEYS)];
    let (calls, fetched) = run(&source, &answers);
    assert_eq!(line(&calls[3]), "sts-gov POST sts.us-gov-west-1.amazonaws.com/");
    assert_eq!(
        String::from_utf8_lossy(&calls[3].body),
        "Action=GetWebIdentityToken&Version=2011-06-15&Audience.member.1=bedrock-gateway&DurationSeconds=300\
         &SigningAlgorithm=RS256&Tags.member.1.Key=gateway&Tags.member.1.Value=a%20b"
    );
    assert!(calls[3].headers.get_str("authorization").unwrap().contains("/us-gov-west-1/sts/aws4_request"));
    assert_eq!(line(&calls[4]), "sts-com POST sts.us-east-1.amazonaws.com/");
    let body = String::from_utf8_lossy(&calls[4].body);
    assert!(body.starts_with("Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fbedrock&RoleSessionName=bedrock-gateway&DurationSeconds=3600&WebIdentityToken=eyJ.a-b_c.d"), "{body}");
    // Nothing of GovCloud's keys goes to the other partition.
    assert_eq!(calls[4].headers.get("authorization"), None);
    assert!(!body.contains("gov"), "{body}");
    let fetched = fetched.unwrap();
    assert_eq!(keys(&fetched), ("ASIACOM", "com/secret+1", Some("com&token==")));
}

#[test]
fn failures_name_the_call_and_hold_nothing_secret() {
    let imds = source(&json!({"source": "imds", "cluster": "imds"}));
    let federation = source(&federation());
    let denied = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>secret</Message></Error></ErrorResponse>";
    let expired = KEYS.replace("2026-01-02T04", "2026-01-02T03");
    type Case<'a> = (&'a Source, Vec<(u16, &'a str)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (&imds, vec![], "IMDSv2 token: no answer from cluster 'imds'"),
        (&imds, vec![(403, "")], "IMDSv2 token: answered 403"),
        (&imds, vec![(200, "two words")], "IMDSv2 token: the answer is not one line of text"),
        (&imds, vec![(200, "s"), (404, "")], "IMDSv2 role: answered 404"),
        (
            &imds,
            vec![(200, "s"), (200, "r"), (200, "{}")],
            "IMDSv2 credentials: the answer is no JSON object with AccessKeyId, SecretAccessKey, Token and Expiration",
        ),
        (
            &imds,
            vec![(200, "s"), (200, "r"), (200, &expired)],
            "IMDSv2 credentials: the keys that came have expired already",
        ),
        (
            &federation,
            vec![(200, "s"), (200, "r"), (200, KEYS), (403, denied)],
            "GetWebIdentityToken: answered 403 AccessDenied",
        ),
        (
            &federation,
            vec![(200, "s"), (200, "r"), (200, KEYS), (200, "<a/>")],
            "GetWebIdentityToken: the answer is no XML with an element WebIdentityToken",
        ),
        (
            &federation,
            vec![(200, "s"), (200, "r"), (200, KEYS), (200, TOKEN)],
            "AssumeRoleWithWebIdentity: no answer from cluster 'sts-com'",
        ),
        (
            &federation,
            vec![(200, "s"), (200, "r"), (200, KEYS), (200, TOKEN), (200, "\u{0}<<")],
            "AssumeRoleWithWebIdentity: the answer is no XML with an element AccessKeyId",
        ),
    ];
    for (source, answers, wanted) in cases {
        let error = run(source, &answers).1.unwrap_err();
        assert_eq!(error, wanted);
    }
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
            "is no region name",
        ),
    ] {
        let error = compile(&change, auth).unwrap_err();
        assert_eq!(error.key, key, "{change}: {error}");
        assert!(error.problem.contains(problem), "{error}");
    }
    for (pointer, value, problem) in [
        ("/govcloud/region", json!("us-east-1"), "not in GovCloud"),
        ("/commercial/region", json!("us-gov-west-1"), "is in GovCloud"),
        ("/role_arn", json!("arn:aws-us-gov:iam::123456789012:role/x"), "no role of the Commercial partition"),
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
