//! The members of CreateSession: "The request accepts the following as URI parameters or as JSON in the request body"
//! (authentication-create-session.html) holds for the three ARNs; the other members are in the body.

use hyper::http::request::Parts;
use serde_json::{Map, Value};

use super::super::answer::{Refused, header};
use super::invalid;
use crate::sigv4::percent_decode;

/// The members of a valid request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) trust_anchor: String,
    pub(super) profile: String,
    pub(super) role: String,
    pub(super) seconds: Option<u64>,
    pub(super) session: Option<String>,
}

pub(super) fn read(parts: &Parts, body: &[u8]) -> Result<Asked, Refused> {
    let mut members: Map<String, Value> = if body.is_empty() {
        Map::new()
    } else {
        // The first is AWS's page, the second its Python client.
        if !["application/json", "application/x-amz-json-1.0"].contains(&header(parts, "content-type")) {
            return Err(invalid("the content type must be application/json (this double's rule)"));
        }
        serde_json::from_slice(body).map_err(|error| invalid(format!("the body is not a JSON object: {error}")))?
    };
    for pair in parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !["trustAnchorArn", "profileArn", "roleArn"].contains(&name) {
            return Err(invalid(format!("{name} is unknown in the query (this double's rule)")));
        }
        let value = String::from_utf8_lossy(&percent_decode(value)).into_owned();
        if members.insert(name.to_owned(), value.into()).is_some() {
            return Err(invalid(format!("{name} is sent twice (this double's rule)")));
        }
    }
    let mut errors = Vec::new();
    let mut broken = |value: &str, name: &str, constraint: &str| {
        errors.push(format!("Value {value} at '{name}' failed to satisfy constraint: {constraint}"));
    };
    let [trust_anchor, profile, role] = [
        ("trustAnchorArn", "arn:aws:rolesanywhere:", ":trust-anchor/"),
        ("profileArn", "arn:aws:rolesanywhere:", ":profile/"),
        ("roleArn", "arn:aws:iam::", ":role/"),
    ]
    .map(|(name, start, kind)| match members.remove(name) {
        Some(Value::String(arn)) if arn.starts_with(start) && arn.contains(kind) => arn,
        Some(other) => {
            broken(
                &quoted(&other),
                name,
                &format!("Member must be an ARN of the form {start}…{kind}… (the words are this double's)"),
            );
            String::new()
        }
        None => {
            broken("null", name, "Member must not be null");
            String::new()
        }
    });
    let seconds = members.remove("durationSeconds");
    let seconds = seconds.and_then(|value| match value.as_u64() {
        Some(seconds @ 900..=43_200) => Some(seconds),
        Some(..900) => {
            broken(&quoted(&value), "durationSeconds", "Member must have value greater than or equal to 900");
            None
        }
        Some(_) => {
            broken(&quoted(&value), "durationSeconds", "Member must have value less than or equal to 43200");
            None
        }
        None => {
            broken(&quoted(&value), "durationSeconds", "Member must be a number (the words are this double's)");
            None
        }
    });
    let session = members.remove("roleSessionName").map(|value| {
        let name = value.as_str().unwrap_or_default();
        if !(2..=64).contains(&name.len()) || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c))
        {
            broken(
                &quoted(&value),
                "roleSessionName",
                "Member must satisfy regular expression pattern: [\\w+=,.@-]{2,64}",
            );
        }
        name.to_owned()
    });
    // `sessionName` is deprecated (authentication-create-session.html), so no client may give one. The crate `needroleshere`
    // 0.4.0 sends it as null. `instanceProperties` needs a profile that requires it.
    if members.get("sessionName") == Some(&Value::Null) {
        members.remove("sessionName");
    }
    for name in members.keys() {
        errors.push(format!("{name} is unknown (this double's rule)"));
    }
    match errors.len() {
        0 => Ok(Asked { trust_anchor, profile, role, seconds, session }),
        // Observed: https://github.com/DataDog/stratus-red-team/issues/331.
        1 => Err(invalid(format!("1 validation error detected: {}", errors.concat()))),
        n => Err(invalid(format!("{n} validation errors detected: {}", errors.join("; ")))),
    }
}

fn quoted(value: &Value) -> String {
    format!("'{}'", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}
