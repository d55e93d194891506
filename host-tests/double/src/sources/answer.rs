//! Answers one request to a credential source as AWS does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use http_body_util::Full;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{AGENT_TOKEN, CONTAINER_TOKEN, ROLE, SECRET, Shared};
use crate::sigv4::{AccessKey, Authorization, Expected, WireRequest, percent_decode, verify};

type Answer = Response<Full<Bytes>>;

const IMDS_KEYS: &str = "/latest/meta-data/iam/security-credentials/";

pub(super) fn answer(parts: &Parts, body: &[u8], shared: &Shared) -> Answer {
    let question = (parts.method.as_str(), parts.uri.path());
    let answered = match question {
        ("PUT", "/latest/api/token") => imds_session(parts, shared),
        ("GET", path) if path.starts_with(IMDS_KEYS) => imds(parts, path, shared),
        ("GET", "/v1/credentials") => container(parts, shared),
        ("GET", "/secretsmanager/get") => agent(parts, shared),
        ("POST", "/") => sts(parts, body, shared),
        _ => Err((404, format!("nothing is at {question:?}"))),
    };
    answered.unwrap_or_else(|(status, complaint)| {
        let code = if status == 403 { "AccessDenied" } else { "InvalidRequest" };
        shared.complain(complaint);
        text(status, format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>"))
    })
}

fn header<'a>(parts: &'a Parts, name: &str) -> &'a str {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// AWS answers a PUT that came through a proxy with 403, so that an open proxy cannot get sessions.
fn imds_session(parts: &Parts, shared: &Shared) -> Result<Answer, (u16, String)> {
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

fn imds(parts: &Parts, path: &str, shared: &Shared) -> Result<Answer, (u16, String)> {
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

fn container(parts: &Parts, shared: &Shared) -> Result<Answer, (u16, String)> {
    if header(parts, "authorization") != CONTAINER_TOKEN {
        return Err((401, "the container endpoint was asked without its token".into()));
    }
    shared.served("container keys");
    Ok(local_keys(shared))
}

fn agent(parts: &Parts, shared: &Shared) -> Result<Answer, (u16, String)> {
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
    let key = shared.bedrock.issue("AKIDAGENT", OffsetDateTime::now_utc() + time::Duration::days(1000));
    let keys = json!({"AccessKeyId": key.id, "SecretAccessKey": key.secret, "SessionToken": key.session_token});
    Ok(text(200, json!({"ARN": "arn", "Name": SECRET, "SecretString": keys.to_string()}).to_string()))
}

/// The two calls of federation, in STS's query protocol.
fn sts(parts: &Parts, body: &[u8], shared: &Shared) -> Result<Answer, (u16, String)> {
    let form: Vec<(String, String)> = String::from_utf8_lossy(body)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(&percent_decode(value)).into_owned()))
        .collect();
    let get = |wanted: &str| form.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    match get("Action") {
        Some("GetWebIdentityToken") => {
            check_signature(parts, body, shared).map_err(|error| (403, format!("GetWebIdentityToken: {error}")))?;
            let wanted = [("SigningAlgorithm", "RS256"), ("Version", "2011-06-15")];
            if wanted.iter().any(|(name, value)| get(name) != Some(value)) || get("Audience.member.1").is_none() {
                return Err((400, "GetWebIdentityToken lacks Audience, SigningAlgorithm or Version".into()));
            }
            shared.served("GetWebIdentityToken");
            let token = shared.give_token("eyJhbGciOiJSUzI1NiJ9.example.");
            Ok(text(
                200,
                format!(
                    "<GetWebIdentityTokenResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetWebIdentityTokenResult>\
                 <WebIdentityToken>{token}</WebIdentityToken></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>"
                ),
            ))
        }
        Some("AssumeRoleWithWebIdentity") => {
            if parts.headers.contains_key("authorization") || parts.headers.contains_key("x-amz-security-token") {
                return Err((400, "AssumeRoleWithWebIdentity came with credentials of the other partition".into()));
            }
            if !get("WebIdentityToken").is_some_and(|token| shared.gave(token)) {
                return Err((400, "AssumeRoleWithWebIdentity has a token that no source issued".into()));
            }
            if !get("RoleArn").is_some_and(|arn| arn.starts_with("arn:aws:iam::")) || get("RoleSessionName").is_none() {
                return Err((400, "AssumeRoleWithWebIdentity lacks RoleArn or RoleSessionName".into()));
            }
            shared.served("AssumeRoleWithWebIdentity");
            if let Some(sts) = shared.sts {
                return tokio::task::block_in_place(|| pass_on(sts, body, shared))
                    .map_err(|error| (500, format!("AssumeRoleWithWebIdentity was not passed on: {error}")));
            }
            let (key, expires) = issue(&shared.bedrock, "ASIACOM", shared);
            Ok(text(
                200,
                format!(
                    "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                 <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{}</AccessKeyId>\
                 <SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken><Expiration>{expires}</Expiration>\
                 </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
                    key.id,
                    key.secret,
                    key.session_token.unwrap_or_default()
                ),
            ))
        }
        action => Err((400, format!("STS was asked for {action:?}"))),
    }
}

/// Passes the call to another STS, and lets Bedrock accept the keys that it issues.
fn pass_on(sts: SocketAddr, body: &[u8], shared: &Shared) -> Result<Answer, Box<dyn std::error::Error>> {
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
    Ok(text(200, xml.to_owned()))
}

/// GovCloud's STS accepts signatures by the keys that the local endpoints issued.
fn check_signature(parts: &Parts, body: &[u8], shared: &Shared) -> Result<(), String> {
    let headers: Vec<(String, Vec<u8>)> =
        parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    let hash = hex::encode(Sha256::digest(body));
    let request = WireRequest { method: "POST", path: "/", query: "", headers: &headers, body_sha256: &hash };
    let id = Authorization::parse(header(parts, "authorization")).map_err(|error| error.to_string())?.access_key;
    let issued = shared.local.find(id).ok_or_else(|| format!("the key {id} is not of this partition"))?;
    let now = OffsetDateTime::now_utc();
    if issued.expires <= now {
        return Err(format!("the key {id} has expired"));
    }
    let expected = Expected { region: "us-gov-west-1", service: "sts", now };
    verify(&request, &issued.key, &expected).map_err(|error| error.to_string())
}

/// Keys of the container endpoint and the metadata service.
fn local_keys(shared: &Shared) -> Answer {
    let keyring = if shared.gives_bedrock_keys { &shared.bedrock } else { &shared.local };
    let (key, expires) = issue(keyring, "ASIALOCAL", shared);
    text(
        200,
        json!({
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key.id, "SecretAccessKey": key.secret,
            "Token": key.session_token, "Expiration": expires,
        })
        .to_string(),
    )
}

fn issue(keyring: &crate::Keyring, prefix: &str, shared: &Shared) -> (AccessKey, String) {
    let expires = OffsetDateTime::now_utc() + shared.lifetime();
    // To the second, as at AWS.
    let expires = expires.replace_nanosecond(0).unwrap_or(expires);
    (keyring.issue(prefix, expires), expires.format(&Rfc3339).unwrap_or_default())
}

fn text(status: u16, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
