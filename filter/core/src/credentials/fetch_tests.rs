use super::*;
use crate::config::{self, Auth};
use crate::credentials::provider::Provider;
use crate::credentials::session_name::SessionName;
use crate::credentials::source::Source;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

pub(super) const KEYS: &str = r#"{"Code":"Success","AccessKeyId":"AKIDGOV","SecretAccessKey":"gov/secret","Token":"gov-token","Expiration":"2026-01-02T04:04:05Z"}"#;
pub(super) const ROLE_KEYS: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">
  <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIACOM</AccessKeyId><SecretAccessKey>com/secret+1</SecretAccessKey>
  <SessionToken>com&amp;token==</SessionToken><Expiration>2026-01-02T04:04:05Z</Expiration></Credentials>
  <AssumedRoleUser><AssumedRoleId>AROAX:bedrock-gateway</AssumedRoleId>
  <Arn>arn:aws:sts::123456789012:assumed-role/bedrock/bedrock-gateway</Arn></AssumedRoleUser>
  </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
const TOKEN: &str = "<GetWebIdentityTokenResponse><GetWebIdentityTokenResult><WebIdentityToken>eyJ.eyJqdGkiOiJ0b2tlbi03In0.d-_</WebIdentityToken></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>";

/// 2026-01-02T03:04:05Z
pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045)
}

pub(super) fn environment(name: &str) -> Option<String> {
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

pub(super) fn plan(document: &Value) -> FetchPlan {
    let config: config::Credentials = serde_json::from_value(document.clone()).unwrap();
    let source = Source::compile(&config, Auth::Sigv4, "credentials").unwrap();
    match Provider::resolve(&source, Auth::Sigv4, "credentials", &environment).unwrap() {
        Provider::Fetched(plan) => *plan,
        Provider::Fixed(_) => panic!("fixed"),
    }
}

/// Runs a fetch against canned responses: the calls that it made, and its result.
pub(super) fn run(plan: &FetchPlan, answers: &[(u16, &str)]) -> (Vec<Call>, Result<Fetched, String>) {
    let mut fetch = Fetch::new(plan.clone());
    let mut calls = Vec::new();
    let mut next = fetch.next(CallOutcome::NoResponse, now());
    let mut answers = answers.iter();
    loop {
        match next {
            Ok(Next::Done(fetched)) => return (calls, Ok(fetched)),
            Err(error) => return (calls, Err(error.to_string())),
            Ok(Next::Call(call)) => calls.push(call),
        }
        next = match answers.next() {
            None => fetch.next(CallOutcome::NoResponse, now()),
            Some((status, body)) => {
                let mut headers = Headers::default();
                headers.push(":status", status.to_string());
                fetch.next(CallOutcome::Response { headers: &headers, body: body.as_bytes() }, now())
            }
        };
    }
}

pub(super) fn line(call: &Call) -> String {
    let get = |name| call.headers.get_str(name).unwrap();
    format!("{} {} {}{}", call.cluster, get(":method"), get(":authority"), get(":path"))
}

pub(super) fn keys(fetched: &Fetched) -> (&str, &str, Option<&str>) {
    match &fetched.credentials {
        Credentials::Keys(keys) => {
            (&keys.access_key_id, keys.secret_access_key.reveal(), keys.session_token.as_ref().map(Secret::reveal))
        }
        Credentials::ApiKey(key) => ("", key.reveal(), None),
    }
}

#[test]
fn a_container_call_carries_its_token() {
    let plan = plan(&json!({"source": "container", "cluster": "pod-identity"}));
    let (calls, fetched) = run(&plan, &[(200, KEYS)]);
    assert_eq!(calls.iter().map(line).collect::<Vec<_>>(), ["pod-identity GET 169.254.170.23/v1/credentials"]);
    assert_eq!(calls[0].headers.get_str("authorization"), Some("container-token"));
    let fetched = fetched.unwrap();
    assert_eq!(keys(&fetched), ("AKIDGOV", "gov/secret", Some("gov-token")));
    assert_eq!(fetched.expires, Some(now() + Duration::from_secs(3600)));
}

#[test]
fn the_metadata_service_is_called_in_version_2() {
    let plan = plan(&json!({"source": "imds", "cluster": "imds"}));
    let (calls, fetched) = run(&plan, &[(200, "session=="), (200, "gateway-role\n"), (200, KEYS)]);
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
    let named = self::plan(&json!({"source": "imds", "cluster": "imds", "role": "r"}));
    assert_eq!(run(&named, &[(200, "session"), (200, KEYS)]).0.len(), 2);
}

#[test]
fn a_secret_comes_from_agent_or_service() {
    let agent = plan(&json!({"source": "secrets_manager", "cluster": "agent", "secret": "bedrock/key"}));
    let answer = json!({"ARN": "a", "SecretString": r#"{"ApiKey":"ABSKx"}"#}).to_string();
    let (calls, fetched) = run(&agent, &[(200, &answer)]);
    assert_eq!(line(&calls[0]), "agent GET localhost:2773/secretsmanager/get?secretId=bedrock%2Fkey");
    assert_eq!(calls[0].headers.get_str("x-aws-parameters-secrets-token"), Some("agent-token"));
    assert_eq!(keys(&fetched.unwrap()), ("", "ABSKx", None));

    let direct = plan(&json!({
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

/// The secret of the Lambda-based proxy too.
#[test]
fn a_secret_has_one_of_two_forms() {
    let agent = plan(&json!({"source": "secrets_manager", "cluster": "agent", "secret": "s"}));
    let read = |secret: &str| run(&agent, &[(200, &json!({ "SecretString": secret }).to_string())]).1;
    for (secret, wanted) in [
        (r#"{"bedrock_api_key":"ABSKx","region":"us-east-1"}"#, ("", "ABSKx", None)),
        (r#"{"bedrock_bearer_token":"ABSKx"}"#, ("", "ABSKx", None)),
        (r#"{"aws_access_key_id":"AKIDX","aws_secret_access_key":"x","region":"us-east-1"}"#, ("AKIDX", "x", None)),
    ] {
        assert_eq!(keys(&read(secret).unwrap()), wanted, "{secret}");
    }
    for secret in [
        r#"{"bedrock_api_key":"ABSKx","aws_access_key_id":"AKIDX","aws_secret_access_key":"x"}"#,
        r#"{"bedrock_api_key":"ABSKx","bedrock_bearer_token":"ABSKy"}"#,
        r#"{"bedrock_api_key":"ABSKx","ApiKey":"ABSKx"}"#,
        r#"{"aws_access_key_id":"AKIDX","region":"us-east-1"}"#,
        r#"{"region":"us-east-1"}"#,
        r#"{"bedrock_api_key":1}"#,
    ] {
        let error = read(secret).unwrap_err();
        assert!(error.contains("does not hold either"), "{secret}: {error}");
    }
}

/// What the token says of a session is that session's own.
#[test]
fn a_token_is_tagged_with_its_session() {
    let mut source = federation();
    source["tags"] = json!({"caller": "{session}", "gateway": "a b"});
    let plan = plan(&source);
    let answers = [(200, "session"), (200, "role"), (200, KEYS), (200, TOKEN), (200, ROLE_KEYS)];
    let named = |principal: &str| plan.clone().named(&SessionName::of(principal));
    for (plan, session, tag) in [
        (plan.clone(), "bedrock-gateway", "bedrock-gateway"),
        (named("alice@corp"), "alice%40corp", "alice%40corp"),
        (named("spiffe://corp/a"), "spiffe%3D3A%3D2F%3D2Fcorp%3D2Fa", "spiffe%3D3A%3D2F%3D2Fcorp%3D2Fa"),
        // A tag has no commas.
        (named("a,b"), "a%2Cb", "a%3D2Cb"),
    ] {
        let (calls, fetched) = run(&plan, &answers);
        let (token, role) = (String::from_utf8_lossy(&calls[3].body), String::from_utf8_lossy(&calls[4].body));
        let tags = format!(
            "&Tags.member.1.Key=caller&Tags.member.1.Value={tag}&Tags.member.2.Key=gateway&Tags.member.2.Value=a%20b"
        );
        assert!(token.ends_with(&tags), "{token}");
        assert!(role.contains(&format!("&RoleSessionName={session}&")), "{role}");
        fetched.unwrap();
    }
}

#[test]
fn federation_exchanges_a_token_for_keys() {
    let plan = plan(&federation());
    let answers = [(200, "session"), (200, "role"), (200, KEYS), (200, TOKEN), (200, ROLE_KEYS)];
    let (calls, fetched) = run(&plan, &answers);
    assert_eq!(line(&calls[3]), "sts-gov POST sts.us-gov-west-1.amazonaws.com/");
    assert_eq!(
        String::from_utf8_lossy(&calls[3].body),
        "Action=GetWebIdentityToken&Version=2011-06-15&Audience.member.1=bedrock-gateway&DurationSeconds=300\
         &SigningAlgorithm=RS256&Tags.member.1.Key=gateway&Tags.member.1.Value=a%20b"
    );
    assert!(calls[3].headers.get_str("authorization").unwrap().contains("/us-gov-west-1/sts/aws4_request"));
    assert_eq!(line(&calls[4]), "sts-com POST sts.us-east-1.amazonaws.com/");
    let body = String::from_utf8_lossy(&calls[4].body);
    assert!(body.starts_with("Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fbedrock&DurationSeconds=3600&RoleSessionName=bedrock-gateway&WebIdentityToken=eyJ.eyJqdGkiOiJ0b2tlbi03In0.d-_"), "{body}");
    // GovCloud's keys do not cross to the other partition.
    assert_eq!(calls[4].headers.get("authorization"), None);
    assert!(!body.contains("gov"), "{body}");
    let fetched = fetched.unwrap();
    assert_eq!(keys(&fetched), ("ASIACOM", "com/secret+1", Some("com&token==")));
    let Credentials::Keys(keys) = &fetched.credentials else { panic!("an API key") };
    assert_eq!(
        (keys.session.arn.as_deref(), keys.session.token_id.as_deref()),
        (Some("arn:aws:sts::123456789012:assumed-role/bedrock/bedrock-gateway"), Some("token-7"))
    );
}

#[test]
fn failures_name_the_call_without_secrets() {
    let imds = plan(&json!({"source": "imds", "cluster": "imds"}));
    let federation = plan(&federation());
    let denied = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User: arn:aws-us-gov:iam::1:role/r is not authorized</Message></Error></ErrorResponse>";
    let expired = KEYS.replace("2026-01-02T04", "2026-01-02T03");
    type Case<'a> = (&'a FetchPlan, Vec<(u16, &'a str)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (&imds, vec![], "IMDSv2 token: no answer from cluster 'imds'"),
        (&imds, vec![(403, "")], "IMDSv2 token: answered 403"),
        (&imds, vec![(200, "two words")], "IMDSv2 token: the response is not one line of text"),
        (&imds, vec![(200, "s"), (404, "")], "IMDSv2 role: answered 404"),
        (
            &imds,
            vec![(200, "s"), (200, "r"), (200, "{}")],
            "IMDSv2 credentials: the response is not a JSON object with AccessKeyId, SecretAccessKey, Token and Expiration",
        ),
        (
            &imds,
            vec![(200, "s"), (200, "r"), (200, &expired)],
            "IMDSv2 credentials: the fetched keys have expired already",
        ),
        (
            &federation,
            vec![(200, "s"), (200, "r"), (200, KEYS), (403, denied)],
            "GetWebIdentityToken: answered 403 AccessDenied: User: arn:aws-us-gov:iam::1:role/r is not authorized",
        ),
        (
            &federation,
            vec![(200, "s"), (200, "r"), (200, KEYS), (200, "<a/>")],
            "GetWebIdentityToken: the response is not XML with an element WebIdentityToken",
        ),
        (
            &federation,
            vec![(200, "s"), (200, "r"), (200, KEYS), (200, TOKEN)],
            "AssumeRoleWithWebIdentity: no answer from cluster 'sts-com'",
        ),
        (
            &federation,
            vec![(200, "s"), (200, "r"), (200, KEYS), (200, TOKEN), (200, "\u{0}<<")],
            "AssumeRoleWithWebIdentity: the response is not XML with an element AccessKeyId",
        ),
    ];
    for (plan, answers, wanted) in cases {
        let error = run(plan, &answers).1.unwrap_err();
        assert_eq!(error, wanted);
    }
}

/// Envoy answers a dispatch that failed with an ordinary response, which no source may take for its service's own.
#[test]
fn envoys_answer_is_not_the_services() {
    let imds = plan(&json!({"source": "imds", "cluster": "imds"}));
    let container = plan(&json!({"source": "container", "cluster": "pod"}));
    let agent = plan(&json!({"source": "secrets_manager", "cluster": "agent", "secret": "s"}));
    let secret = plan(&json!({
        "source": "secrets_manager", "cluster": "secrets", "secret": "s", "region": "us-gov-west-1",
        "using": {"source": "container", "cluster": "pod"}
    }));
    let federation = plan(&federation());
    let signed_in = vec![(200, "session"), (200, "role"), (200, KEYS)];
    for (plan, before, step, cluster) in [
        (&imds, vec![], "IMDSv2 token", "imds"),
        (&imds, vec![(200, "session")], "IMDSv2 role", "imds"),
        (&imds, vec![(200, "session"), (200, "role")], "IMDSv2 credentials", "imds"),
        (&container, vec![], "container credentials", "pod"),
        (&agent, vec![], "Secrets Manager Agent", "agent"),
        (&secret, vec![(200, KEYS)], "GetSecretValue", "secrets"),
        (&federation, signed_in.clone(), "GetWebIdentityToken", "sts-gov"),
        (&federation, [signed_in, vec![(200, TOKEN)]].concat(), "AssumeRoleWithWebIdentity", "sts-com"),
    ] {
        for (status, text) in [
            (503, "no healthy upstream"),
            (503, "upstream connect error or disconnect/reset before headers. reset reason: connection timeout"),
            (504, "upstream request timeout"),
        ] {
            let error = run(plan, &[before.clone(), vec![(status, text)]].concat()).1.unwrap_err();
            assert_eq!(error, format!("{step}: cluster '{cluster}' was not reached: Envoy answered {status}: {text}"));
        }
        let own = run(plan, &[before, vec![(503, "<Error><Code>ServiceUnavailable</Code></Error>")]].concat());
        assert_eq!(own.1.unwrap_err(), format!("{step}: answered 503 ServiceUnavailable"));
    }
}

/// A correction of the clock comes from one response of an upstream, which may be wrong.
#[test]
fn a_wrong_correction_does_not_expire_keys() {
    let plan = plan(&json!({"source": "imds", "cluster": "imds"}));
    let keys = answer_keys(900);
    for ahead in [-3600_i64, 0, 3600] {
        let mut fetch = Fetch::new(plan.clone());
        let by = Duration::from_secs(ahead.unsigned_abs());
        let signing = if ahead < 0 { now() - by } else { now() + by };
        let times = Times { machine: now(), signing };
        let mut headers = Headers::default();
        headers.push(":status", "200");
        let mut answers = ["session", "role", &keys].into_iter();
        let mut next = fetch.next(CallOutcome::NoResponse, times).unwrap();
        while let Next::Call(_) = next {
            let body = answers.next().unwrap().as_bytes();
            next = fetch.next(CallOutcome::Response { headers: &headers, body }, times).unwrap();
        }
        assert!(matches!(next, Next::Done(_)), "{ahead}");
    }
}

/// What a local endpoint answers, for keys that live so long.
fn answer_keys(seconds: u64) -> String {
    let ends = time::OffsetDateTime::from(now() + Duration::from_secs(seconds));
    let ends = ends.format(&time::format_description::well_known::Rfc3339).unwrap();
    format!(r#"{{"Code":"Success","AccessKeyId":"AKIA","SecretAccessKey":"s","Token":"t","Expiration":"{ends}"}}"#)
}
