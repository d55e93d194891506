//! AssumeRoleWithWebIdentity, as STS in the Commercial partition answers it.
//!
//! Sources: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html, botocore's model of STS,
//! https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_cross_partition.html, …_setup.html and
//! …_controls.html. A token may be used until it expires, as at AWS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use hyper::http::request::Parts;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::super::account::{Commercial, IssuerKind, Provider, Role};
use super::super::answer::Refused;
use super::super::jwt::{Token, member};
use super::super::local::issue;
use super::super::policy::{Context, Decision, Principal, decide};
use super::super::{Service, Shared};
use super::form::{Constraints, Form, invalid};
use super::{Endpoint, Reply, internal};
use crate::sigv4::AccessKey;

/// The parameters of a valid request.
#[derive(Debug)]
struct Asked {
    role: String,
    session: String,
    token: String,
    seconds: u64,
}

pub(super) fn with_web_identity(
    parts: &Parts,
    body: &[u8],
    endpoint: Endpoint<'_>,
    form: Form,
    shared: &Shared,
) -> Result<Reply, Refused> {
    // AWS serves this action on the global endpoint. It is in us-east-1 only, so the gateway must not use it.
    let Endpoint::Regional { partition, .. } = endpoint else {
        return Err(Refused::new(400, "InvalidAction", "use a regional endpoint of STS (this double's rule)"));
    };
    // With a header of the other partition AWS refuses the token.
    // Words observed: https://github.com/aws/aws-sdk-php/issues/1725.
    if ["authorization", "x-amz-security-token", "x-amz-date"].iter().any(|name| parts.headers.contains_key(*name)) {
        return Err(token_refused(NO_KEY));
    }
    let asked = parameters(form)?;
    let account = shared.account();
    let token = Token::parse(&asked.token)
        .ok_or_else(|| token_refused("The token is not a valid JWT (the words are this double's)"))?;
    let (provider, audience) = check_token(&token, partition, &account.commercial, shared)?;
    let role = authorize(&asked, &token, provider, audience, &account.commercial)?;
    if let Some(sts) = shared.sts {
        let passed = tokio::task::block_in_place(|| pass_on(sts, body, shared));
        return passed.map(Reply::Whole).map_err(|error| internal(format!("it was not passed on: {error}")));
    }
    let seconds = i64::try_from(asked.seconds).unwrap_or(i64::MAX);
    let expires = shared.now()
        + Duration::seconds(seconds).min(shared.lifetime(Service::CommercialSts).try_into().unwrap_or(Duration::MAX));
    let (key, expires) = issue(&shared.bedrock, "ASIACOM", expires);
    Ok(Reply::Result(format!(
        "<Audience>{audience}</Audience><AssumedRoleUser><AssumedRoleId>{}</AssumedRoleId><Arn>{}</Arn></AssumedRoleUser>\
         <Provider>{}</Provider><Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{expires}</Expiration></Credentials>\
         <SubjectFromWebIdentityToken>{}</SubjectFromWebIdentityToken>",
        Role::session_id(&asked.session),
        role.session_arn(&asked.session),
        super::escape(token.text("iss").unwrap_or_default()),
        key.id,
        key.secret,
        key.session_token.unwrap_or_default(),
        super::escape(token.text("sub").unwrap_or_default()),
    )))
}

/// Observed: https://github.com/awslabs/aws-sdk-rust/issues/827 (with both spaces).
const NO_KEY: &str = "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity \
                      documentation for requirements";

/// InvalidIdentityToken, 400: botocore's model.
fn token_refused(message: impl Into<String>) -> Refused {
    Refused::new(400, "InvalidIdentityToken", message)
}

fn parameters(mut form: Form) -> Result<Asked, Refused> {
    let mut constraints = Constraints::default();
    let [role, session, token] = ["RoleArn", "RoleSessionName", "WebIdentityToken"].map(|name| form.take(name));
    constraints.length("roleArn", role.as_deref(), 20, 2048);
    constraints.length("roleSessionName", session.as_deref(), 2, 64);
    if session.as_ref().is_some_and(|name| !name.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c))) {
        let pattern = "Member must satisfy regular expression pattern: [\\w+=,.@-]*";
        constraints.broken(session.as_deref().unwrap_or_default(), "roleSessionName", pattern);
    }
    match token.as_ref().map(String::len) {
        None => constraints.broken("null", "webIdentityToken", "Member must not be null"),
        // A token is not shown.
        Some(0..4) => {
            constraints.broken("***", "webIdentityToken", "Member must have length greater than or equal to 4");
        }
        Some(4..=20_000) => {}
        Some(_) => constraints.broken("***", "webIdentityToken", "Member must have length less than or equal to 20000"),
    }
    let duration = form.take("DurationSeconds");
    let seconds = constraints.number("durationSeconds", duration.as_deref(), 900, 43_200, 3600);
    constraints.check()?;
    form.end()?;
    let [role, session, token] = [role, session, token].map(Option::unwrap_or_default);
    Ok(Asked { role, session, token, seconds })
}

/// The provider that a valid token belongs to, and the audience that counts.
fn check_token<'a>(
    token: &'a Token<'_>,
    partition: &str,
    account: &'a Commercial,
    shared: &Shared,
) -> Result<(&'a Provider, &'a str), Refused> {
    // Observed: https://github.com/aws/aws-sdk-ruby/issues/2698 (aud),
    // https://github.com/aws-actions/configure-aws-credentials/issues/502 (sub).
    let missing = |claim: &str| token_refused(format!("Missing a required claim: {claim}"));
    let issuer = token.text("iss").ok_or_else(|| missing("iss"))?;
    token.text("sub").ok_or_else(|| missing("sub"))?;
    let issued = token.seconds("iat").ok_or_else(|| missing("iat"))?;
    let expires = token.seconds("exp").ok_or_else(|| missing("exp"))?;
    // Observed: https://github.com/aws-actions/configure-aws-credentials/issues/280.
    let provider = account
        .providers
        .iter()
        .find(|provider| partition == "aws" && issuer.strip_prefix("https://") == Some(provider.issuer.as_str()))
        .ok_or_else(|| token_refused(format!("No OpenIDConnect provider found in your account for {issuer}")))?;
    let audiences = token.audiences();
    if audiences.is_empty() {
        return Err(missing("aud"));
    }
    let signed = match &provider.issuer_kind {
        IssuerKind::Sts { partition: source } => {
            // "The destination role must be in a different AWS partition from the one where the token was issued."
            if source == partition {
                return Err(token_refused(
                    "The token was issued in the partition of this role (the words are this double's)",
                ));
            }
            // "AssumeRoleWithWebIdentity rejects tokens from GetWebIdentityToken that have more than one audience."
            if audiences.len() > 1 {
                return Err(token_refused("The token has more than one audience (the words are this double's)"));
            }
            shared.signers().any(|signer| token.is_signed_by(signer.public_key()))
        }
        IssuerKind::Other { keys } => keys.iter().any(|key| token.is_signed_by(key)),
        IssuerKind::Published(documents) => {
            let keys = tokio::task::block_in_place(|| documents.keys(&provider.issuer));
            // IDPCommunicationError, 400: botocore's model; the words are those of the API's page.
            let unreachable = "The request could not be fulfilled because the identity provider (IDP) that was asked to verify \
                               the incoming identity token could not be reached";
            let keys = keys.map_err(|_| Refused::new(400, "IDPCommunicationError", unreachable))?;
            keys.iter().any(|key| token.is_signed_by(key))
        }
    };
    // The words are those for a key that is not in the issuer's key set; those for a wrong signature are not published.
    if !signed {
        return Err(token_refused(NO_KEY));
    }
    let now = shared.now().unix_timestamp();
    // Observed: https://github.com/aws/aws-sdk-java-v2/issues/5709.
    if expires <= now {
        let message =
            format!("Token expired: current date/time {now} must be before the expiration date/time {expires}");
        return Err(Refused::new(400, "ExpiredTokenException", message));
    }
    // Five minutes for clocks that differ, as for signatures.
    if token.seconds("nbf").unwrap_or(issued).max(issued) > now + 300 {
        return Err(token_refused("The token is not valid yet (the words are this double's)"));
    }
    // `azp` counts before `aud`, if it is there:
    // https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#condition-keys-wif
    // Observed: https://github.com/aws-actions/configure-aws-credentials/issues/1309.
    let is_client = |audience: &&str| provider.client_ids.iter().any(|client| client == audience);
    let audience = match token.text("azp") {
        Some(azp) => Some(azp).filter(is_client),
        None => audiences.into_iter().find(is_client),
    };
    Ok((provider, audience.ok_or_else(|| token_refused("Incorrect token audience"))?))
}

/// The role, if its trust policy lets the token assume it.
fn authorize<'a>(
    asked: &Asked,
    token: &Token<'_>,
    provider: &Provider,
    audience: &str,
    account: &'a Commercial,
) -> Result<&'a Role, Refused> {
    // Observed: https://github.com/aws/aws-sdk-java-v2/issues/1470. A role that does not exist gets the same answer.
    let denied = |action: &str| Refused::new(403, "AccessDenied", format!("Not authorized to perform {action}"));
    let role = account.role(&asked.role).ok_or_else(|| denied("sts:AssumeRoleWithWebIdentity"))?;
    let arn = format!("arn:aws:iam::{}:oidc-provider/{}", account.id, provider.issuer);
    let principal = Principal { kind: "Federated", name: &arn };
    let tags = tags(token);
    let mut context = Context::default()
        .with(&format!("{}:aud", provider.issuer), [audience])
        .with(&format!("{}:sub", provider.issuer), [token.text("sub").unwrap_or_default()])
        .with("sts:RoleSessionName", [asked.session.as_str()])
        .with("aws:TagKeys", tags.iter().map(|(key, _)| key));
    for (key, value) in &tags {
        context = context.with(&format!("aws:RequestTag/{key}"), [value]);
    }
    // Tags need sts:TagSession: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
    let tagging = (!tags.is_empty()).then_some("sts:TagSession");
    for action in ["sts:AssumeRoleWithWebIdentity"].into_iter().chain(tagging) {
        if decide(&role.trust, action, Some(principal), &context).map_err(internal)? != Decision::Allowed {
            return Err(denied(action));
        }
    }
    // Observed: https://github.com/kreuzwerker/awsu/issues/27.
    if asked.seconds > role.max_session.as_secs() {
        return Err(invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role."));
    }
    Ok(role)
}

/// The session tags of a token: those of GetWebIdentityToken, and the claim of "Passing session tags in STS".
fn tags(token: &Token<'_>) -> Vec<(String, String)> {
    let claims = [
        member(member(&token.claims, "https://sts.amazonaws.com/"), "request_tags"),
        member(member(&token.claims, "https://aws.amazon.com/tags"), "principal_tags"),
    ];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs = claims.into_iter().filter_map(Value::as_object).flatten();
    pairs.map(|(key, value)| (key.clone(), text(value))).collect()
}

/// Passes the call to another STS, and lets Bedrock accept the keys that it issues.
fn pass_on(sts: SocketAddr, body: &[u8], shared: &Shared) -> Result<String, Box<dyn std::error::Error>> {
    let mut stream = TcpStream::connect(sts)?;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: sts.us-east-1.amazonaws.com\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let element = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>")).ok_or_else(|| format!("no {name} in {answer}"))?;
        Ok::<_, String>(rest.split('<').next().unwrap_or_default().to_owned())
    };
    let key = AccessKey {
        id: element("AccessKeyId")?,
        secret: element("SecretAccessKey")?,
        session_token: Some(element("SessionToken")?),
    };
    shared.bedrock.add(key, OffsetDateTime::parse(&element("Expiration")?, &Rfc3339)?);
    let (_, xml) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    Ok(xml.to_owned())
}
