//! The endpoints on the gateway's own machine: the instance metadata service, the container endpoint and the Secrets
//! Manager Agent.

use hyper::http::request::Parts;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answer::{Answer, header, text};
use super::{AGENT_TOKEN, CONTAINER_TOKEN, ROLE, SECRET, Service, Shared};
use crate::Keyring;
use crate::sigv4::{AccessKey, percent_decode};

const IMDS_KEYS: &str = "/latest/meta-data/iam/security-credentials/";

/// A status, and what is wrong with the request.
type Refusal = (u16, String);

pub(super) fn answer(parts: &Parts, shared: &Shared) -> Answer {
    let question = (parts.method.as_str(), parts.uri.path());
    let answered = match question {
        ("PUT", "/latest/api/token") => imds_session(parts, shared),
        ("GET", path) if path.starts_with(IMDS_KEYS) => imds(parts, path, shared),
        ("GET", "/v1/credentials") => container(parts, shared),
        ("GET", "/secretsmanager/get") => agent(parts, shared),
        _ => Err((404, format!("nothing is at {question:?}"))),
    };
    answered.unwrap_or_else(|(status, complaint)| {
        shared.complain(complaint.clone());
        text(status, complaint)
    })
}

/// AWS answers a PUT that came through a proxy with 403, so that an open proxy cannot get sessions.
fn imds_session(parts: &Parts, shared: &Shared) -> Result<Answer, Refusal> {
    if parts.headers.contains_key("x-forwarded-for") {
        return Err((403, "the metadata service was asked for a session with x-forwarded-for".into()));
    }
    let ttl: u32 = header(parts, "x-aws-ec2-metadata-token-ttl-seconds").parse().unwrap_or(0);
    if !(1..=21_600).contains(&ttl) {
        return Err((400, "the metadata service was asked for a session with a missing or too long TTL".into()));
    }
    shared.served("imds session");
    Ok(text(200, shared.give_token("imds-session-")))
}

fn imds(parts: &Parts, path: &str, shared: &Shared) -> Result<Answer, Refusal> {
    if !shared.gave(header(parts, "x-aws-ec2-metadata-token")) {
        return Err((401, format!("{path} was asked for without a session")));
    }
    match path.strip_prefix(IMDS_KEYS) {
        Some("") => {
            shared.served("imds role");
            Ok(text(200, ROLE.to_owned()))
        }
        Some(ROLE) => {
            shared.served("imds keys");
            Ok(local_keys(shared))
        }
        _ => Err((404, format!("{path}: unknown role"))),
    }
}

fn container(parts: &Parts, shared: &Shared) -> Result<Answer, Refusal> {
    if header(parts, "authorization") != CONTAINER_TOKEN {
        return Err((401, "the container endpoint was asked without its token".into()));
    }
    shared.served("container keys");
    Ok(local_keys(shared))
}

fn agent(parts: &Parts, shared: &Shared) -> Result<Answer, Refusal> {
    if parts.headers.contains_key("x-forwarded-for") {
        return Err((400, "the agent was asked through a proxy".into()));
    }
    if header(parts, "x-aws-parameters-secrets-token") != AGENT_TOKEN {
        return Err((403, "the agent was asked without its token".into()));
    }
    let wanted = format!("secretId={SECRET}");
    if String::from_utf8_lossy(&percent_decode(parts.uri.query().unwrap_or_default())) != wanted {
        return Err((404, "the agent was asked for a secret that it does not have".into()));
    }
    shared.served("agent secret");
    let key = shared.bedrock.issue("AKIDAGENT", shared.now() + time::Duration::days(1000));
    let keys = json!({"AccessKeyId": key.id, "SecretAccessKey": key.secret, "SessionToken": key.session_token});
    Ok(text(200, json!({"ARN": "arn", "Name": SECRET, "SecretString": keys.to_string()}).to_string()))
}

/// Keys of the container endpoint and the metadata service.
fn local_keys(shared: &Shared) -> Answer {
    let keyring = if shared.gives_bedrock_keys { &shared.bedrock } else { &shared.local };
    let (key, expires) = issue(keyring, "ASIALOCAL", shared.now() + shared.lifetime(Service::Local));
    text(
        200,
        json!({
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key.id, "SecretAccessKey": key.secret,
            "Token": key.session_token, "Expiration": expires,
        })
        .to_string(),
    )
}

/// Issues keys, and writes their end to the second, as AWS does.
pub(super) fn issue(keyring: &Keyring, prefix: &str, expires: OffsetDateTime) -> (AccessKey, String) {
    let expires = expires.replace_nanosecond(0).unwrap_or(expires);
    (keyring.issue(prefix, expires), expires.format(&Rfc3339).unwrap_or_default())
}
