//! STS of both partitions: the way across with the policies of `infra/policies`, and each refusal.

use std::time::Duration;

use base64::Engine as _;
use bedrock_double::Keyring;
use bedrock_double::sigv4::percent_encode;
use bedrock_double::sources::Sources;
use bedrock_double::sources::account::{
    Account, COMMERCIAL_ROLE_ARN, GOVCLOUD_ROLE_ARN, ISSUER, IssuerKind, Provider, Role,
};
use bedrock_double::sources::jwt::{Algorithm, Signer};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Post, Reply};

const GOVCLOUD: &str = "sts.us-gov-west-1.amazonaws.com";
const COMMERCIAL: &str = "sts.us-east-1.amazonaws.com";

struct Harness {
    sources: Sources,
    bedrock: Keyring,
}

impl Harness {
    fn new() -> Self {
        let bedrock = Keyring::default();
        let sources = Sources::start(Duration::from_secs(43_200), &bedrock, false).unwrap();
        Self { sources, bedrock }
    }

    /// GetWebIdentityToken, as the gateway sends it with changes: `None` leaves a parameter out.
    fn get_token(&self, host: &str, changes: &[(&str, Option<&str>)]) -> Reply {
        let key = self.sources.govcloud_key(now() + time::Duration::hours(1));
        let defaults =
            [("Audience.member.1", "bedrock-gateway"), ("DurationSeconds", "300"), ("SigningAlgorithm", "RS256")];
        let region = if host.contains("us-gov-west-1") { "us-gov-west-1" } else { "us-east-1" };
        post(host, &form("GetWebIdentityToken", &defaults, changes))
            .signed(&key, region, now())
            .send(self.sources.addr())
    }

    /// AssumeRoleWithWebIdentity with changes.
    fn assume(&self, token: &str, changes: &[(&str, Option<&str>)]) -> Reply {
        let defaults =
            [("RoleArn", COMMERCIAL_ROLE_ARN), ("RoleSessionName", "bedrock-gateway"), ("WebIdentityToken", token)];
        post(COMMERCIAL, &form("AssumeRoleWithWebIdentity", &defaults, changes)).send(self.sources.addr())
    }

    /// AssumeRoleWithWebIdentity with a token of these claims, signed by GovCloud's key.
    fn assume_with(&self, changes: &[(&str, Value)]) -> Reply {
        let mut claims = claims();
        for (name, value) in changes {
            claims[*name] = value.clone();
        }
        self.assume(&self.sources.token_signer(Algorithm::Es384).sign(&claims).unwrap(), &[])
    }
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn claims() -> Value {
    let now = now().unix_timestamp();
    json!({
        "iss": format!("https://{ISSUER}"), "aud": "bedrock-gateway", "sub": GOVCLOUD_ROLE_ARN, "iat": now, "exp": now + 300,
    })
}

fn post(host: &str, body: &str) -> Post {
    let headers = vec![("content-type".to_owned(), "application/x-www-form-urlencoded; charset=utf-8".to_owned())];
    Post { host: host.to_owned(), path: "/".to_owned(), headers, body: body.to_owned() }
}

fn form(action: &str, defaults: &[(&str, &str)], changes: &[(&str, Option<&str>)]) -> String {
    let mut all: Vec<(&str, &str)> = vec![("Action", action), ("Version", "2011-06-15")];
    all.extend(defaults);
    all.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    all.extend(changes.iter().filter_map(|(name, value)| Some((*name, (*value)?))));
    let pairs = all.iter().map(|(name, value)| format!("{name}={}", percent_encode(value.as_bytes(), false)));
    pairs.collect::<Vec<_>>().join("&")
}

/// The claims of a token, whose signature STS verifies.
fn claims_of(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[track_caller]
fn assert_refused(reply: &Reply, status: u16, code: &str, message: &str) {
    assert_eq!((reply.status, reply.element("Code")), (status, code), "{}", reply.body);
    assert!(reply.element("Message").contains(message), "{} does not say {message}", reply.body);
    assert_eq!(reply.element("Type"), "Sender");
    assert!(
        reply.body.starts_with(r#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">"#),
        "{}",
        reply.body
    );
    let id = reply.element("RequestId");
    assert!(!id.is_empty() && reply.head.contains(&format!("x-amzn-requestid: {id}")), "{}", reply.head);
}

#[test]
fn a_govcloud_role_gets_commercial_keys() {
    for algorithm in ["RS256", "ES384"] {
        let harness = Harness::new();
        harness.sources.change(|account| account.govcloud.policy = account.govcloud.policy.replace("RS256", algorithm));
        let reply = harness.get_token(
            GOVCLOUD,
            &[
                ("SigningAlgorithm", Some(algorithm)),
                ("Tags.member.1.Key", Some("environment")),
                ("Tags.member.1.Value", Some("west 1")),
            ],
        );
        assert_eq!(reply.status, 200, "{}", reply.body);
        let token = reply.element("WebIdentityToken").to_owned();
        let claims = claims_of(&token);
        assert_eq!(claims["iss"], format!("https://{ISSUER}"));
        assert_eq!((&claims["aud"], &claims["sub"]), (&json!("bedrock-gateway"), &json!(GOVCLOUD_ROLE_ARN)));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
        assert_eq!(
            claims["https://sts.amazonaws.com/"],
            json!({
                "aws_account": "444455556666", "source_region": "us-gov-west-1", "principal_id": GOVCLOUD_ROLE_ARN,
                "request_tags": {"environment": "west 1"},
            })
        );
        // A token may be used again until it expires.
        for count in 1..=2 {
            let reply = harness.assume(&token, &[("DurationSeconds", Some("900"))]);
            assert_eq!(reply.status, 200, "{}", reply.body);
            let issued = harness.bedrock.find(reply.element("AccessKeyId")).unwrap();
            assert!((890..=900).contains(&(issued.expires - now()).whole_seconds()));
            assert_eq!(reply.element("SecretAccessKey"), issued.key.secret);
            assert_eq!(
                ["Audience", "SubjectFromWebIdentityToken", "Arn"].map(|name| reply.element(name)),
                [
                    "bedrock-gateway",
                    GOVCLOUD_ROLE_ARN,
                    "arn:aws:sts::111122223333:assumed-role/bedrock-gateway/bedrock-gateway"
                ]
            );
            assert!(reply.head.contains("x-amzn-requestid: "), "{}", reply.head);
            assert_eq!(harness.bedrock.count(), count);
        }
        assert_eq!(harness.sources.complaints(), Vec::<String>::new());
    }
}

#[test]
fn get_web_identity_token_refuses() {
    let long = "a".repeat(1001);
    let many: Vec<(String, &str)> = (1..=11).map(|nth| (format!("Audience.member.{nth}"), "bedrock-gateway")).collect();
    let many: Vec<(&str, Option<&str>)> = many.iter().map(|(name, value)| (name.as_str(), Some(*value))).collect();
    let denied = "User: arn:aws-us-gov:sts::444455556666:assumed-role/bedrock-gateway/i-0123456789abcdef0 is not authorized to \
                  perform: sts:GetWebIdentityToken because no identity-based policy allows the sts:GetWebIdentityToken action";
    let below = "1 validation error detected: Value '59' at 'durationSeconds' failed to satisfy constraint: Member must have \
                 value greater than or equal to 60";
    type Case<'a> = (&'a [(&'a str, Option<&'a str>)], u16, &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (&[("Audience.member.1", Some("other"))], 403, "AccessDenied", denied),
        (&[("Audience.member.2", Some("other"))], 403, "AccessDenied", denied),
        (&[("DurationSeconds", Some("301"))], 403, "AccessDenied", denied),
        (&[("DurationSeconds", None)], 403, "AccessDenied", denied),
        (&[("DurationSeconds", Some("59"))], 400, "ValidationError", below),
        (&[("DurationSeconds", Some("3601"))], 400, "ValidationError", "less than or equal to 3600"),
        (&[("DurationSeconds", Some("x"))], 400, "ValidationError", "'durationSeconds'"),
        (&[("Audience.member.1", None)], 400, "ValidationError", "Value null at 'audience' failed"),
        (&[("Audience.member.1", Some(""))], 400, "ValidationError", "length greater than or equal to 1"),
        (&[("Audience.member.1", Some(&long))], 400, "ValidationError", "length less than or equal to 1000"),
        (&many, 400, "ValidationError", "length less than or equal to 10"),
        (&[("SigningAlgorithm", None)], 400, "ValidationError", "Value null at 'signingAlgorithm' failed"),
        (&[("SigningAlgorithm", Some("ES256"))], 400, "ValidationError", "[RS256, ES384]"),
        (&[("Tags.member.1.Key", Some("a"))], 400, "ValidationError", "Value null at 'tags.1.member.value'"),
        (
            &[("Tags.member.1.Key", Some("a(b)")), ("Tags.member.1.Value", Some("c"))],
            400,
            "ValidationError",
            "regular expression pattern",
        ),
        (&[("Version", Some("2010-05-08"))], 400, "InvalidAction", "GetWebIdentityToken in version 2010-05-08"),
        (&[("Action", Some("GetCallerIdentity"))], 400, "InvalidAction", "GetCallerIdentity"),
        (&[("DurationSecond", Some("300"))], 400, "ValidationError", "DurationSecond is unknown"),
    ];
    let harness = Harness::new();
    for (nth, (changes, status, code, message)) in (1..).zip(cases) {
        assert_refused(&harness.get_token(GOVCLOUD, changes), *status, code, message);
        assert_eq!(harness.sources.complaints().len(), nth, "{changes:?}");
    }
}

#[test]
fn tokens_need_the_endpoint_and_the_account() {
    let harness = Harness::new();
    let global = harness.get_token("sts.amazonaws.com", &[]);
    assert_refused(&global, 400, "InvalidAction", "not available on the STS global endpoint");
    let other = harness.get_token(COMMERCIAL, &[]);
    assert_refused(&other, 403, "InvalidClientTokenId", "The security token included in the request is invalid");

    let tags = [("Tags.member.1.Key", Some("environment")), ("Tags.member.1.Value", Some("b"))];
    assert_eq!(harness.get_token(GOVCLOUD, &tags).status, 200);
    let shipped = Account::default().govcloud.policy;
    for policy in [
        shipped.replace("sts:TagGetWebIdentityToken", "sts:TagSession"),
        shipped.replace("[\"environment\"]", "[\"team\"]"),
        // The action has no duration, so a condition on one denies it.
        shipped
            .replace("\"sts:GetWebIdentityToken\"", "[\"sts:GetWebIdentityToken\", \"sts:TagGetWebIdentityToken\"]")
            .replace("\"Action\": \"sts:TagGetWebIdentityToken\"", "\"Action\": \"sts:TagSession\""),
    ] {
        harness.sources.change(|account| account.govcloud.policy = policy);
        assert_refused(&harness.get_token(GOVCLOUD, &tags), 403, "AccessDenied", "perform: sts:TagGetWebIdentityToken");
        assert_eq!(harness.get_token(GOVCLOUD, &[]).status, 200);
    }

    harness.sources.change(|account| account.govcloud.policy = account.govcloud.policy.replace("Allow", "Deny"));
    assert_refused(
        &harness.get_token(GOVCLOUD, &[]),
        403,
        "AccessDenied",
        "with an explicit deny in an identity-based policy",
    );

    harness.sources.change(|account| {
        *account = Account::default();
        account.govcloud.outbound_federation = false;
    });
    let disabled = harness.get_token(GOVCLOUD, &[]);
    assert_refused(&disabled, 403, "OutboundWebIdentityFederationDisabledException", "is not enabled for this account");
}

#[test]
fn tokens_need_a_valid_signature() {
    let harness = Harness::new();
    let (addr, hour) = (harness.sources.addr(), time::Duration::hours(1));
    let body = form(
        "GetWebIdentityToken",
        &[("Audience.member.1", "bedrock-gateway"), ("DurationSeconds", "300"), ("SigningAlgorithm", "RS256")],
        &[],
    );
    let key = harness.sources.govcloud_key(now() + hour);
    let signed = || post(GOVCLOUD, &body).signed(&key, "us-gov-west-1", now());
    assert_eq!(signed().send(addr).status, 200);

    let unsigned = post(GOVCLOUD, &body).send(addr);
    assert_refused(&unsigned, 403, "MissingAuthenticationToken", "Request is missing Authentication Token");
    let mut changed = signed();
    changed.body.push_str("&x=y");
    assert_refused(&changed.send(addr), 403, "SignatureDoesNotMatch", "does not match the signature you provided");
    let region = post(GOVCLOUD, &body).signed(&key, "us-gov-east-1", now()).send(addr);
    assert_refused(&region, 403, "SignatureDoesNotMatch", "Credential should be scoped to a valid region");
    let late = post(GOVCLOUD, &body).signed(&key, "us-gov-west-1", now() - hour).send(addr);
    assert_refused(&late, 403, "SignatureDoesNotMatch", "Signature expired");
    let mut incomplete = signed();
    incomplete.headers.last_mut().unwrap().1 = "AWS4-HMAC-SHA256 Credential=x".into();
    assert_refused(&incomplete.send(addr), 400, "IncompleteSignature", "");
    let mut stranger = key.clone();
    stranger.session_token = Some("other".into());
    let stranger = post(GOVCLOUD, &body).signed(&stranger, "us-gov-west-1", now()).send(addr);
    assert_refused(&stranger, 403, "InvalidClientTokenId", "The security token included in the request is invalid");

    let expired = harness.sources.govcloud_key(now());
    let expired = post(GOVCLOUD, &body).signed(&expired, "us-gov-west-1", now()).send(addr);
    assert_refused(&expired, 403, "ExpiredToken", "The security token included in the request is expired");
    let short = harness.sources.govcloud_key(now() + time::Duration::seconds(200));
    let short = post(GOVCLOUD, &body).signed(&short, "us-gov-west-1", now()).send(addr);
    assert_refused(&short, 403, "SessionDurationEscalationException", "beyond its original expiration time");
}

#[test]
fn assume_role_refuses_parameters() {
    let harness = Harness::new();
    let token = harness.sources.token_signer(Algorithm::Rs256).sign(&claims()).unwrap();
    for (changes, message) in [
        (("RoleArn", None), "Value null at 'roleArn' failed to satisfy constraint: Member must not be null"),
        (
            ("RoleArn", Some("arn")),
            "Value 'arn' at 'roleArn' failed to satisfy constraint: Member must have length greater",
        ),
        (
            ("RoleSessionName", Some("a b")),
            "Value 'a b' at 'roleSessionName' failed to satisfy constraint: Member must satisfy",
        ),
        (("RoleSessionName", Some("a")), "length greater than or equal to 2"),
        (("WebIdentityToken", None), "Value null at 'webIdentityToken'"),
        (("DurationSeconds", Some("899")), "value greater than or equal to 900"),
        (("DurationSeconds", Some("43201")), "value less than or equal to 43200"),
        (
            ("DurationSeconds", Some("3601")),
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role",
        ),
        (("ProviderId", Some("www.amazon.com")), "ProviderId is unknown"),
    ] {
        assert_refused(&harness.assume(&token, &[changes]), 400, "ValidationError", message);
    }
    let two = harness.assume(&token, &[("RoleArn", None), ("RoleSessionName", None)]);
    assert_refused(&two, 400, "ValidationError", "2 validation errors detected: Value null at 'roleArn'");
    let unknown = harness.assume(&token, &[("RoleArn", Some("arn:aws:iam::111122223333:role/other"))]);
    assert_refused(&unknown, 403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity");
    assert_refused(&harness.assume("eyJh.x", &[]), 400, "InvalidIdentityToken", "not a valid JWT");

    // Headers of the other partition, and the global endpoint.
    let body = form(
        "AssumeRoleWithWebIdentity",
        &[("RoleArn", COMMERCIAL_ROLE_ARN), ("RoleSessionName", "bedrock-gateway"), ("WebIdentityToken", &token)],
        &[],
    );
    let mut with_header = post(COMMERCIAL, &body);
    with_header.headers.push(("x-amz-security-token".into(), "x".into()));
    let refused = with_header.send(harness.sources.addr());
    assert_refused(
        &refused,
        400,
        "InvalidIdentityToken",
        "Couldn't retrieve verification key from your identity provider",
    );
    let global = post("sts.amazonaws.com", &body).send(harness.sources.addr());
    assert_refused(&global, 400, "InvalidAction", "regional endpoint");
    let own = post(GOVCLOUD, &body).send(harness.sources.addr());
    assert_refused(&own, 400, "InvalidIdentityToken", "No OpenIDConnect provider found in your account for https://");
    assert_eq!(harness.bedrock.count(), 0);
    assert_eq!(harness.sources.complaints().len(), 15);
}

#[test]
fn assume_role_refuses_tokens() {
    let harness = Harness::new();
    let now = now().unix_timestamp();
    assert_eq!(harness.assume_with(&[]).status, 200);
    for (changes, code, message) in [
        (("exp", json!(now - 1)), "ExpiredTokenException", "must be before the expiration date/time"),
        (("iat", json!(now + 3600)), "InvalidIdentityToken", "not valid yet"),
        (
            ("iss", json!("https://other.example")),
            "InvalidIdentityToken",
            "No OpenIDConnect provider found in your account for https://other.example",
        ),
        (("iss", json!(ISSUER)), "InvalidIdentityToken", "No OpenIDConnect provider found"),
        (("iss", Value::Null), "InvalidIdentityToken", "Missing a required claim: iss"),
        (("sub", Value::Null), "InvalidIdentityToken", "Missing a required claim: sub"),
        (("aud", Value::Null), "InvalidIdentityToken", "Missing a required claim: aud"),
        (("exp", json!("soon")), "InvalidIdentityToken", "Missing a required claim: exp"),
        (("aud", json!("other")), "InvalidIdentityToken", "Incorrect token audience"),
        (("aud", json!(["bedrock-gateway", "other"])), "InvalidIdentityToken", "more than one audience"),
    ] {
        assert_refused(&harness.assume_with(&[changes]), 400, code, message);
    }
    let subject = harness.assume_with(&[("sub", json!("arn:aws-us-gov:iam::444455556666:role/other"))]);
    assert_refused(&subject, 403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity");
    let stranger = Signer::new(Algorithm::Es384, "EC384_0").unwrap().sign(&claims()).unwrap();
    assert_refused(&harness.assume(&stranger, &[]), 400, "InvalidIdentityToken", "Couldn't retrieve verification key");

    // A token of tags needs sts:TagSession, and the provider its client.
    let tags = ("https://sts.amazonaws.com/", json!({"request_tags": {"gateway": "west-1"}}));
    assert_eq!(harness.assume_with(std::slice::from_ref(&tags)).status, 200);
    harness.sources.change(|account| {
        let trust = &mut account.commercial.roles[0].trust;
        *trust = trust.replace("sts:TagSession", "sts:SetSourceIdentity");
    });
    assert_refused(&harness.assume_with(&[tags]), 403, "AccessDenied", "Not authorized to perform sts:TagSession");
    assert_eq!(harness.assume_with(&[]).status, 200);
    let provider = |change: fn(&mut Provider)| {
        harness.sources.change(|account| change(&mut account.commercial.providers[0]));
        harness.assume_with(&[])
    };
    let clients = provider(|provider| provider.client_ids = vec!["other".into()]);
    assert_refused(&clients, 400, "InvalidIdentityToken", "Incorrect token audience");
    let same = provider(|provider| provider.issuer_kind = IssuerKind::Sts { partition: "aws".into() });
    assert_refused(&same, 400, "InvalidIdentityToken", "in the partition of this role");
}

#[test]
fn a_trust_policy_decides_by_every_element() {
    for (from, to) in [
        ("\"Allow\"", "\"Deny\""),
        ("sts:AssumeRoleWithWebIdentity", "sts:AssumeRole"),
        ("111122223333:oidc-provider", "444455556666:oidc-provider"),
        (":aud\": \"bedrock-gateway\"", ":aud\": \"other\""),
        (":sub\": \"", ":sub\": \"x"),
        (":sub\"", ":subject\""),
    ] {
        let harness = Harness::new();
        harness.sources.change(|account| {
            let trust = &mut account.commercial.roles[0].trust;
            assert!(trust.contains(from), "{trust}");
            *trust = trust.replace(from, to);
        });
        assert_refused(
            &harness.assume_with(&[]),
            403,
            "AccessDenied",
            "Not authorized to perform sts:AssumeRoleWithWebIdentity",
        );
    }
}

#[test]
fn a_cluster_can_issue_tokens() {
    let harness = Harness::new();
    let cluster = Signer::new(Algorithm::Rs256, "cluster-key").unwrap();
    let issuer = "oidc.cluster.example/id/0123";
    let arn = "arn:aws:iam::111122223333:role/pod";
    harness.sources.change(|account| {
        account.commercial.providers.push(Provider {
            issuer: issuer.into(),
            client_ids: vec!["sts.amazonaws.com".into()],
            issuer_kind: IssuerKind::Other { keys: vec![cluster.public_key().clone()] },
        });
        let trust = json!({"Statement": [{
            "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
            "Principal": {"Federated": format!("arn:aws:iam::111122223333:oidc-provider/{issuer}")},
            "Condition": {"StringEquals": {
                format!("{issuer}:aud"): "sts.amazonaws.com", format!("{issuer}:sub"): "system:serviceaccount:gateway:gateway",
            }},
        }]});
        account.commercial.roles.push(Role { arn: arn.into(), trust: trust.to_string(), max_session: Duration::from_secs(3600) });
    });
    let token = |subject: &str| {
        let mut claims = claims();
        claims["iss"] = json!(format!("https://{issuer}"));
        // Several audiences are allowed here.
        claims["aud"] = json!(["other", "sts.amazonaws.com"]);
        claims["sub"] = json!(subject);
        cluster.sign(&claims).unwrap()
    };
    let own = harness.assume(&token("system:serviceaccount:gateway:gateway"), &[("RoleArn", Some(arn))]);
    assert_eq!((own.status, own.element("Audience")), (200, "sts.amazonaws.com"), "{}", own.body);
    let other = harness.assume(&token("system:serviceaccount:default:default"), &[("RoleArn", Some(arn))]);
    assert_refused(&other, 403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity");
    // Not the gateway's role either.
    let cross = harness.assume(&token(GOVCLOUD_ROLE_ARN), &[]);
    assert_refused(&cross, 403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity");
}
