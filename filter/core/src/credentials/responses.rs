//! Parses the responses of credential sources, each in its API's form.

use super::identity::{CertificateMaterial, Validity};
use super::{Credentials, Fetched, Keys, Secret, Session, secret_json};
use quick_xml::Reader;
use quick_xml::events::Event;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

/// A response without credentials. The message names what is missing, never what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Not a JSON object with these keys.
    #[error("the response is not a JSON object with {0}")]
    Json(&'static str),
    /// Not XML, or without the element.
    #[error("the response is not XML with an element {0}")]
    Xml(&'static str),
    /// Not one line of text.
    #[error("the response is not one line of text")]
    Line,
    /// A token's file without a token.
    #[error("the token is empty: is the file of the token cluster empty?")]
    NoToken,
    /// A token that no header and no request can carry.
    #[error("the token is not one line of visible characters")]
    TokenLine,
    /// A token that AssumeRoleWithWebIdentity refuses.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TokenLength,
    /// A text that is not a token.
    #[error("the token is not a JSON Web Token: want three parts with dots between them")]
    TokenParts,
    /// An empty value, or one that no header can carry.
    #[error("{0} is empty or holds white space or characters that are not ASCII")]
    Malformed(&'static str),
    /// Not a time of RFC 3339.
    #[error("{0} is not a time of RFC 3339")]
    Time(&'static str),
    /// A secret that holds neither keys nor an API key, or both.
    #[error(
        "the secret does not hold either access keys or an API key: want a JSON object with AccessKeyId and SecretAccessKey, or with ApiKey"
    )]
    Secret,
    /// A secret that does not hold a certificate and a key.
    #[error(
        "the secret does not hold a certificate: want a JSON object with Certificate, PrivateKey and, if there are intermediates, CertificateChain"
    )]
    Certificate,
}

/// Longest `WebIdentityToken` (botocore's model of STS).
const MAX_TOKEN: usize = 20_000;
/// Longest session token or role name of the metadata service.
const MAX_LINE: usize = 4096;

/// The response of the container endpoint and of the instance metadata service.
#[derive(Deserialize)]
struct LocalKeys {
    #[serde(rename = "AccessKeyId")]
    access_key_id: String,
    #[serde(rename = "SecretAccessKey")]
    secret_access_key: String,
    #[serde(rename = "Token")]
    token: Option<String>,
    #[serde(rename = "Expiration")]
    expiration: Option<String>,
}

/// The secret's text, in the spellings that consoles and tools use.
#[derive(Deserialize)]
struct SecretKeys {
    #[serde(alias = "access_key_id", alias = "aws_access_key_id", alias = "AWS_ACCESS_KEY_ID", rename = "AccessKeyId")]
    access_key_id: Option<String>,
    #[serde(
        alias = "secret_access_key",
        alias = "aws_secret_access_key",
        alias = "AWS_SECRET_ACCESS_KEY",
        rename = "SecretAccessKey"
    )]
    secret_access_key: Option<String>,
    #[serde(
        alias = "Token",
        alias = "session_token",
        alias = "aws_session_token",
        alias = "AWS_SESSION_TOKEN",
        rename = "SessionToken"
    )]
    session_token: Option<String>,
    #[serde(
        alias = "api_key",
        alias = "bedrock_api_key",
        alias = "bedrock_bearer_token",
        alias = "AWS_BEARER_TOKEN_BEDROCK",
        rename = "ApiKey"
    )]
    api_key: Option<String>,
}

#[derive(Deserialize)]
struct SecretValue<'a> {
    #[serde(borrow, rename = "SecretString")]
    secret_string: &'a RawValue,
}

/// A secret's text, in the form of `aws acm export-certificate`.
#[derive(Deserialize)]
struct SecretCertificate<'a> {
    #[serde(rename = "Certificate")]
    certificate: String,
    #[serde(rename = "CertificateChain")]
    chain: Option<String>,
    #[serde(borrow, rename = "PrivateKey")]
    key: &'a RawValue,
}

/// CreateSession's response.
#[derive(Deserialize)]
struct Sessions {
    #[serde(rename = "credentialSet")]
    sessions: Vec<SessionEntry>,
}

#[derive(Deserialize)]
struct SessionEntry {
    credentials: SessionKeys,
    #[serde(rename = "assumedRoleUser")]
    user: Option<AssumedRoleUser>,
}

#[derive(Deserialize)]
struct AssumedRoleUser {
    arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionKeys {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

/// `{"AccessKeyId": …, "SecretAccessKey": …, "Token": …, "Expiration": …}`.
pub fn local_keys(body: &[u8]) -> Result<Fetched, ResponseError> {
    let keys: LocalKeys = serde_json::from_slice(body)
        .map_err(|_| ResponseError::Json("AccessKeyId, SecretAccessKey, Token and Expiration"))?;
    let expires = keys.expiration.as_deref().map(|text| time("Expiration", text)).transpose()?;
    Ok(Fetched {
        credentials: Credentials::Keys(checked(keys.access_key_id, keys.secret_access_key, keys.token)?),
        expires,
        certificate: None,
    })
}

/// GetSecretValue's response, whose SecretString holds access keys or an API key.
pub fn secret(body: &[u8]) -> Result<Fetched, ResponseError> {
    let keys: SecretKeys = serde_json::from_str(&secret_string(body)?).map_err(|_| ResponseError::Secret)?;
    let credentials = match (keys.access_key_id, keys.secret_access_key, keys.api_key) {
        (Some(id), Some(secret), None) => Credentials::Keys(checked(id, secret, keys.session_token)?),
        (None, None, Some(key)) => Credentials::ApiKey(Secret::new(header_value("ApiKey", key)?)),
        _ => return Err(ResponseError::Secret),
    };
    Ok(Fetched { credentials, expires: None, certificate: None })
}

/// GetSecretValue's response, whose SecretString holds a certificate and its key.
pub fn certificate(body: &[u8]) -> Result<CertificateMaterial, ResponseError> {
    let text = secret_string(body)?;
    let SecretCertificate { certificate, chain, key } =
        serde_json::from_str(&text).map_err(|_| ResponseError::Certificate)?;
    let key = secret_json::unescaped(key).ok_or(ResponseError::Certificate)?;
    let chain = chain.filter(|chain| !chain.is_empty());
    Ok(CertificateMaterial { certificate, chain, key: key.into() })
}

fn secret_string(body: &[u8]) -> Result<Zeroizing<String>, ResponseError> {
    let missing = || ResponseError::Json("SecretString");
    let value: SecretValue<'_> = serde_json::from_slice(body).map_err(|_| missing())?;
    secret_json::unescaped(value.secret_string).ok_or_else(missing)
}

/// CreateSession's response, of the session that a certificate asked for.
pub fn session_keys(body: &[u8], certificate: Validity) -> Result<Fetched, ResponseError> {
    let missing = || ResponseError::Json("credentialSet[0].credentials");
    let response: Sessions = serde_json::from_slice(body).map_err(|_| missing())?;
    let SessionEntry { credentials: keys, user } = response.sessions.into_iter().next().ok_or_else(missing)?;
    let expires = Some(time("expiration", &keys.expiration)?);
    let mut keys = checked(keys.access_key_id, keys.secret_access_key, Some(keys.session_token))?;
    keys.session = user.map(|user| Session::new(&user.arn)).unwrap_or_default();
    Ok(Fetched { credentials: Credentials::Keys(keys), expires, certificate: Some(certificate) })
}

/// AssumeRoleWithWebIdentity's response. `token_id` is the id of the token that was exchanged.
pub fn sts_keys(body: &[u8], token_id: Option<String>) -> Result<Fetched, ResponseError> {
    let text = |name| xml_text(body, name);
    let mut keys = checked(text("AccessKeyId")?, text("SecretAccessKey")?, Some(text("SessionToken")?))?;
    keys.session = Session { token_id, ..text("Arn").map(|arn| Session::new(&arn)).unwrap_or_default() };
    let expires = Some(time("Expiration", &text("Expiration")?)?);
    Ok(Fetched { credentials: Credentials::Keys(keys), expires, certificate: None })
}

/// The text of the first element of a name.
pub fn xml_text(body: &[u8], name: &'static str) -> Result<String, ResponseError> {
    let missing = || ResponseError::Xml(name);
    let mut reader = Reader::from_str(std::str::from_utf8(body).map_err(|_| missing())?);
    loop {
        match reader.read_event().map_err(|_| missing())? {
            Event::Start(start) if start.local_name().as_ref() == name.as_bytes() => {
                let text = reader.read_text(start.name()).map_err(|_| missing())?;
                let text = quick_xml::escape::unescape(&text.decode().map_err(|_| missing())?)
                    .map_err(|_| missing())?
                    .into_owned();
                return Ok(text.trim().to_owned());
            }
            Event::Eof => return Err(missing()),
            _ => {}
        }
    }
}

/// One line: a session token of the metadata service, a role's name.
pub fn line(body: &[u8]) -> Result<&str, ResponseError> {
    let text = std::str::from_utf8(body).map_err(|_| ResponseError::Line)?.trim();
    let plain = (1..=MAX_LINE).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if plain { Ok(text) } else { Err(ResponseError::Line) }
}

/// The token of a file for the container endpoint, which chooses its form.
pub fn container_token(body: &[u8]) -> Result<Secret, ResponseError> {
    token(body).map(Secret::new)
}

/// The token of a file for AssumeRoleWithWebIdentity: a JSON Web Token in its compact form.
pub fn web_identity_token(body: &[u8]) -> Result<Secret, ResponseError> {
    let token = token(body)?;
    let encoded =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if token.split('.').count() != 3 || !token.split('.').all(encoded) {
        return Err(ResponseError::TokenParts);
    }
    Ok(Secret::new(token))
}

fn token(body: &[u8]) -> Result<&str, ResponseError> {
    let text = body.trim_ascii();
    match text.len() {
        0 => Err(ResponseError::NoToken),
        1..=MAX_TOKEN if text.iter().all(u8::is_ascii_graphic) => {
            std::str::from_utf8(text).map_err(|_| ResponseError::TokenLine)
        }
        1..=MAX_TOKEN => Err(ResponseError::TokenLine),
        _ => Err(ResponseError::TokenLength),
    }
}

fn checked(id: String, secret: String, token: Option<String>) -> Result<Keys, ResponseError> {
    Ok(Keys::new(
        header_value("AccessKeyId", id)?,
        Secret::new(header_value("SecretAccessKey", secret)?),
        token.map(|token| header_value("Token", token)).transpose()?.map(Secret::new),
    ))
}

fn header_value(name: &'static str, value: String) -> Result<String, ResponseError> {
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic());
    if plain { Ok(value) } else { Err(ResponseError::Malformed(name)) }
}

fn time(name: &'static str, text: &str) -> Result<SystemTime, ResponseError> {
    OffsetDateTime::parse(text, &Rfc3339).map(SystemTime::from).map_err(|_| ResponseError::Time(name))
}
