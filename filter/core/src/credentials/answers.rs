//! What the answers of credential sources say, each in its API's form.

use super::fetch::Fetched;
use super::{Credentials, Keys, Secret};
use crate::headers::Headers;
use quick_xml::Reader;
use quick_xml::events::Event;
use serde::Deserialize;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// An answer that holds no credentials. It names what is missing, never what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// No JSON of the wanted form.
    #[error("the answer is no JSON object with {0}")]
    Json(&'static str),
    /// No XML, or without the element.
    #[error("the answer is no XML with an element {0}")]
    Xml(&'static str),
    /// Not the one line that was wanted.
    #[error("the answer is not one line of text")]
    Line,
    /// A value that no header can carry, or none.
    #[error("{0} is empty or holds white space or characters that are not ASCII")]
    Malformed(&'static str),
    /// A time that is none.
    #[error("{0} is no time of RFC 3339")]
    Time(&'static str),
    /// The secret says one thing and its form another.
    #[error(
        "the secret holds neither access keys nor an API key: wanted a JSON object with AccessKeyId and SecretAccessKey, or with ApiKey"
    )]
    Secret,
}

/// Longest session token or role name of the metadata service.
const MAX_LINE: usize = 4096;

/// The container endpoint's answer, and that of the instance metadata service.
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

/// The secret's text; the names are those that people and consoles use.
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
    #[serde(alias = "api_key", alias = "AWS_BEARER_TOKEN_BEDROCK", rename = "ApiKey")]
    api_key: Option<String>,
}

#[derive(Deserialize)]
struct SecretValue {
    #[serde(rename = "SecretString")]
    secret_string: String,
}

/// `{"AccessKeyId": …, "SecretAccessKey": …, "Token": …, "Expiration": …}`.
pub fn local_keys(body: &[u8]) -> Result<Fetched, AnswerError> {
    let keys: LocalKeys = serde_json::from_slice(body)
        .map_err(|_| AnswerError::Json("AccessKeyId, SecretAccessKey, Token and Expiration"))?;
    let expires = keys.expiration.as_deref().map(|text| time("Expiration", text)).transpose()?;
    Ok(Fetched {
        credentials: Credentials::Keys(checked(keys.access_key_id, keys.secret_access_key, keys.token)?),
        expires,
    })
}

/// GetSecretValue's answer, whose SecretString holds access keys or an API key.
pub fn secret(body: &[u8]) -> Result<Fetched, AnswerError> {
    let value: SecretValue = serde_json::from_slice(body).map_err(|_| AnswerError::Json("SecretString"))?;
    let keys: SecretKeys = serde_json::from_str(&value.secret_string).map_err(|_| AnswerError::Secret)?;
    let credentials = match (keys.access_key_id, keys.secret_access_key, keys.api_key) {
        (Some(id), Some(secret), None) => Credentials::Keys(checked(id, secret, keys.session_token)?),
        (None, None, Some(key)) => Credentials::ApiKey(Secret::new(header_value("ApiKey", key)?)),
        _ => return Err(AnswerError::Secret),
    };
    Ok(Fetched { credentials, expires: None })
}

/// AssumeRoleWithWebIdentity's answer.
pub fn sts_keys(body: &[u8]) -> Result<Fetched, AnswerError> {
    let text = |name| xml_text(body, name);
    let keys = checked(text("AccessKeyId")?, text("SecretAccessKey")?, Some(text("SessionToken")?))?;
    Ok(Fetched { credentials: Credentials::Keys(keys), expires: Some(time("Expiration", &text("Expiration")?)?) })
}

/// The text of the first element of a name.
pub fn xml_text(body: &[u8], name: &'static str) -> Result<String, AnswerError> {
    let missing = || AnswerError::Xml(name);
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

/// One line: a session of the metadata service, a role's name.
pub fn line(body: &[u8]) -> Result<&str, AnswerError> {
    let text = std::str::from_utf8(body).map_err(|_| AnswerError::Line)?.trim();
    let plain = (1..=MAX_LINE).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if plain { Ok(text) } else { Err(AnswerError::Line) }
}

/// AWS's error code in an answer: in a header, in JSON or in XML.
pub fn error_code(headers: &Headers, body: &[u8]) -> Option<String> {
    let json = || {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        let code = ["__type", "code", "Code"].iter().find_map(|key| body.get(key)?.as_str())?;
        Some(code.to_owned())
    };
    let header = headers.get_str("x-amzn-errortype").map(str::to_owned);
    let code = header.or_else(json).or_else(|| xml_text(body, "Code").ok())?;
    let code = code.split(':').next().unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default();
    let named = (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    named.then(|| code.to_owned())
}

fn checked(id: String, secret: String, token: Option<String>) -> Result<Keys, AnswerError> {
    Ok(Keys {
        access_key_id: header_value("AccessKeyId", id)?,
        secret_access_key: Secret::new(header_value("SecretAccessKey", secret)?),
        session_token: token.map(|token| header_value("Token", token)).transpose()?.map(Secret::new),
    })
}

fn header_value(name: &'static str, value: String) -> Result<String, AnswerError> {
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic());
    if plain { Ok(value) } else { Err(AnswerError::Malformed(name)) }
}

fn time(name: &'static str, text: &str) -> Result<SystemTime, AnswerError> {
    OffsetDateTime::parse(text, &Rfc3339).map(SystemTime::from).map_err(|_| AnswerError::Time(name))
}
