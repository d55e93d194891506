//! The stages of a signature, one by one. AWS prints two of them when it refuses a signature, so they are what a person
//! compares. Source: "Create a signed AWS API request", AWS IAM User Guide.
//!
//! [`sign`](super::sign) takes the same way.

use super::derived_keys::{hmac_sha256, signing_key};
use super::{ALGORITHM, Scope, SignError, Unsigned, token};
use crate::credentials::{Keys, Secret};
use crate::encoding::{canonical_query, encode_into, hex, path_segments};
use sha2::{Digest, Sha256};
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const AMZ_DATE: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// What a signature is made of, in the order in which it is made.
#[derive(Debug, Clone)]
pub struct Stages {
    /// The canonical request. It holds the session token, if the keys have one.
    pub canonical_request: String,
    /// The string to sign.
    pub string_to_sign: String,
    /// The key of the day, region and service, in hexadecimal.
    pub signing_key: Secret,
    /// The signature, in hexadecimal.
    pub signature: String,
}

/// The stages of the signature that [`sign`](super::sign) makes of the same arguments.
///
/// # Errors
/// [`SignError`] if the query cannot be decoded or the time has no year of four digits.
pub fn stages(request: Unsigned<'_>, keys: &Keys, scope: Scope<'_>, now: SystemTime) -> Result<Stages, SignError> {
    let Canonical { canonical_request, string_to_sign, amz_date, .. } =
        canonical(request, token(keys).as_slice(), ALGORITHM, scope, now)?;
    let day = amz_date.split('T').next().unwrap_or_default();
    let key = signing_key(keys.secret_access_key.reveal(), day, scope);
    let signature = hex(&hmac_sha256(&*key, string_to_sign.as_bytes()));
    Ok(Stages { canonical_request, string_to_sign, signing_key: Secret::new(hex(&*key)), signature })
}

/// The stages that every algorithm of Signature Version 4 has.
pub(super) struct Canonical {
    pub(super) canonical_request: String,
    pub(super) string_to_sign: String,
    /// The value of `x-amz-date`.
    pub(super) amz_date: String,
    /// `DAY/REGION/SERVICE/aws4_request`
    pub(super) scope: String,
    /// The names of the signed headers, joined by `;`.
    pub(super) signed_headers: String,
}

/// `added` are headers to sign, apart from those of the request, `host` and `x-amz-date`.
pub(super) fn canonical(
    request: Unsigned<'_>,
    added: &[(&str, &str)],
    algorithm: &str,
    scope: Scope<'_>,
    now: SystemTime,
) -> Result<Canonical, SignError> {
    let refuse = |error: &dyn std::fmt::Display| SignError(error.to_string());
    let amz_date = OffsetDateTime::from(now).format(AMZ_DATE).map_err(|error| refuse(&error))?;
    let day = amz_date.split('T').next().unwrap_or_default();
    if !request.path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SignError("the path has a character that is not visible ASCII".to_owned()));
    }
    let (path, query) = request.path.split_once('?').unwrap_or((request.path, ""));

    let mut headers: Vec<(&str, &str)> = [request.headers, added].concat();
    headers.extend([("host", request.host), ("x-amz-date", amz_date.as_str())]);
    headers.sort_unstable_by_key(|(name, _)| *name);
    let signed_headers = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");

    let mut text = String::with_capacity(size_of_headers(&headers) + 2 * request.path.len() + 256);
    text.push_str(request.method);
    text.push('\n');
    push_encoded_again(&normalised(path), &mut text);
    text.push('\n');
    if !query.is_empty() {
        text.push_str(&canonical_query(query).map_err(|error| refuse(&error))?);
    }
    text.push('\n');
    for (name, value) in headers {
        if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(SignError(format!("header '{name}' has a character that is not visible ASCII")));
        }
        text.push_str(name);
        text.push(':');
        push_one_space(value, &mut text);
        text.push('\n');
    }
    for part in ["\n", &signed_headers, "\n", request.body_sha256] {
        text.push_str(part);
    }

    let digest = hex(&Sha256::digest(text.as_bytes()));
    let scope = [day, scope.region, scope.service, "aws4_request"].join("/");
    let string_to_sign = [algorithm, &amz_date, &scope, &digest].join("\n");
    Ok(Canonical { canonical_request: text, string_to_sign, amz_date, scope, signed_headers })
}

/// What headers take in a canonical request, in bytes: their names twice.
fn size_of_headers(headers: &[(&str, &str)]) -> usize {
    headers.iter().map(|(name, value)| 2 * name.len() + value.len() + 3).sum()
}

/// Appends a header's value, trimmed; runs of spaces become one.
fn push_one_space(value: &str, text: &mut String) {
    let mut words = value.split(' ').filter(|word| !word.is_empty());
    text.extend(words.next());
    for word in words {
        text.push(' ');
        text.push_str(word);
    }
}

/// The path without empty and dot segments; it keeps a slash at its end.
fn normalised(path: &str) -> String {
    let kept = path_segments(path);
    let is_folder = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    let end = if is_folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

/// Appends a path; what is percent-encoded on the wire is encoded once more, slashes stay.
fn push_encoded_again(path: &str, text: &mut String) {
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            text.push('/');
        }
        encode_into(segment.as_bytes(), text);
    }
}

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
