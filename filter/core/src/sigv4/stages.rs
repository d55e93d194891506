//! The stages of a signature, one by one. AWS prints two of them when it refuses a signature, so they are what a person
//! compares. Source: "Create a signed AWS API request", AWS IAM User Guide.
//!
//! [`sign`](super::sign) leaves all of this to the library, which does not show it. The tests compare the two.

use super::{Scope, SignError, Unsigned};
use crate::credentials::{Keys, Secret};
use crate::encoding::{canonical_query, encode_into, hex, path_segments};
use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use sha2::{Digest, Sha256};
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const AMZ_DATE: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");
const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]");

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
    let token = keys.session_token.as_ref().map(|token| ("x-amz-security-token", token.reveal()));
    let added: Vec<_> = token.into_iter().collect();
    let Canonical { canonical_request, string_to_sign, .. } = canonical(request, &added, ALGORITHM, scope, now)?;
    let Scope { region, service } = scope;
    let key = generate_signing_key(keys.secret_access_key.reveal(), now, region, service);
    let signature = calculate_signature(&key, string_to_sign.as_bytes());
    Ok(Stages { canonical_request, string_to_sign, signing_key: Secret::new(hex(key.as_ref())), signature })
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
    let utc = OffsetDateTime::from(now);
    let amz_date = utc.format(AMZ_DATE).map_err(|error| refuse(&error))?;
    let day = utc.format(DAY).map_err(|error| refuse(&error))?;

    let mut headers: Vec<(&str, &str)> = [request.headers, added].concat();
    headers.extend([("host", request.host), ("x-amz-date", &amz_date)]);
    headers.sort_by_key(|(name, _)| *name);
    let signed_headers = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let headers: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", one_space(value))).collect();
    let (path, query) = request.path.split_once('?').unwrap_or((request.path, ""));
    let path = encoded_again(&normalised(path));
    let query = canonical_query(query).map_err(|error| refuse(&error))?;
    let (method, body_sha256) = (request.method, request.body_sha256);
    let canonical_request = format!("{method}\n{path}\n{query}\n{headers}\n{signed_headers}\n{body_sha256}");

    let digest = hex(&Sha256::digest(canonical_request.as_bytes()));
    let scope = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let string_to_sign = format!("{algorithm}\n{amz_date}\n{scope}\n{digest}");
    Ok(Canonical { canonical_request, string_to_sign, amz_date, scope, signed_headers })
}

/// Trims a header's value; runs of spaces become one.
fn one_space(value: &str) -> String {
    value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The path without empty and dot segments; it keeps a slash at its end.
fn normalised(path: &str) -> String {
    let kept = path_segments(path);
    let is_folder = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    let end = if is_folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

/// Percent-encodes what is encoded on the wire once more; slashes stay.
fn encoded_again(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            encoded.push('/');
        }
        encode_into(segment.as_bytes(), &mut encoded);
    }
    encoded
}

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
