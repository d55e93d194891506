//! AWS Signature Version 4 ("Create a signed AWS API request", AWS IAM User Guide).
//!
//! The path is normalised and encoded once more, the payload hash is the body's, and the signed headers are exactly those
//! passed in, plus `host`, `x-amz-date` and `x-amz-security-token`. AWS's own library for Rust is the oracle of the tests: it
//! is written for every service and every form of signature, and takes several times as long.

pub mod derived_keys;
pub mod stages;
pub mod x509;

use self::stages::{Canonical, canonical};
use crate::credentials::{Keys, Secret};
use crate::encoding::hex;
use std::time::SystemTime;

/// Bedrock's service name in the credential scope, for both endpoints.
pub const BEDROCK: &str = "bedrock";

/// What a signature is valid for.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The service's signing name.
    pub service: &'a str,
    /// The region.
    pub region: &'a str,
}

/// A request that only lacks its signature.
#[derive(Debug, Clone, Copy)]
pub struct Unsigned<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The `Host` that is sent.
    pub host: &'a str,
    /// Path and query exactly as they are sent.
    pub path: &'a str,
    /// The other headers to sign, names in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    /// SHA-256 of the body, in hexadecimal.
    pub body_sha256: &'a str,
}

/// The request has no signature. The text says why and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request cannot be signed: {0}")]
pub struct SignError(String);

/// The algorithm of access keys.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Signs a request and returns the headers to set: `x-amz-date`, `authorization` and, with temporary keys,
/// `x-amz-security-token`.
///
/// # Errors
/// [`SignError`] if a header's value is not visible ASCII, the path is malformed, or the time has no year of four digits.
pub fn sign(
    request: Unsigned<'_>,
    keys: &Keys,
    scope: Scope<'_>,
    now: SystemTime,
) -> Result<Vec<(&'static str, String)>, SignError> {
    let Canonical { string_to_sign, amz_date, scope: credential_scope, signed_headers, .. } =
        canonical(request, token(keys).as_slice(), ALGORITHM, scope, now)?;
    let day = amz_date.split('T').next().unwrap_or_default();
    let signature = hex(&keys.derived.sign(keys.secret_access_key.reveal(), day, scope, string_to_sign.as_bytes()));
    let Keys { access_key_id, session_token, .. } = keys;
    let authorization = [
        ALGORITHM,
        " Credential=",
        access_key_id,
        "/",
        &credential_scope,
        ", SignedHeaders=",
        &signed_headers,
        ", Signature=",
        &signature,
    ]
    .concat();
    let mut headers = vec![("x-amz-date", amz_date), ("authorization", authorization)];
    headers.extend(session_token.as_ref().map(|token| ("x-amz-security-token", token.reveal().to_owned())));
    Ok(headers)
}

/// The header of temporary keys, which is signed too.
fn token(keys: &Keys) -> Option<(&'static str, &str)> {
    keys.session_token.as_ref().map(|token| ("x-amz-security-token", token.reveal()))
}

/// The header of a Bedrock API key.
pub fn bearer(key: &Secret) -> (String, String) {
    ("authorization".to_owned(), format!("Bearer {}", key.reveal()))
}

#[cfg(test)]
#[path = "sigv4_tests.rs"]
mod tests;
