//! AWS Signature Version 4 ("Create a signed AWS API request", AWS IAM User Guide).
//!
//! All of the library's settings are explicit: the path is normalised and encoded once more, the payload hash is the body's, and
//! the signed headers are exactly those passed in, plus `host`, `x-amz-date` and `x-amz-security-token`.

pub mod stages;
pub mod x509;

use crate::credentials::{Keys, Secret};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest, SignatureLocation,
    SigningSettings, UriPathNormalizationMode, sign as sign_request,
};
use aws_sigv4::sign::v4;
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

/// The library refused the request. The text says why and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request cannot be signed: {0}")]
pub struct SignError(String);

/// Signs a request and returns the headers to set: `x-amz-date`, `authorization` and, with temporary keys,
/// `x-amz-security-token`.
///
/// # Errors
/// [`SignError`] if a header value is not visible ASCII or the path is malformed.
pub fn sign(
    request: Unsigned<'_>,
    keys: &Keys,
    scope: Scope<'_>,
    now: SystemTime,
) -> Result<Vec<(String, String)>, SignError> {
    let refuse = |error: &dyn std::fmt::Display| SignError(error.to_string());
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Double;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Enabled;
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    settings.signature_location = SignatureLocation::Headers;
    settings.session_token_mode = SessionTokenMode::Include;
    settings.excluded_headers = None;
    let token = keys.session_token.as_ref().map(|token| token.reveal().to_owned());
    let identity =
        Credentials::new(&keys.access_key_id, keys.secret_access_key.reveal(), token, None, "gateway").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| refuse(&error))?
        .into();
    let uri = format!("https://{}{}", request.host, request.path);
    let body = SignableBody::Precomputed(request.body_sha256.to_owned());
    let signable = SignableRequest::new(request.method, uri, request.headers.iter().copied(), body)
        .map_err(|error| refuse(&error))?;
    let (instructions, _) = sign_request(signable, &params).map_err(|error| refuse(&error))?.into_parts();
    Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// The header of a Bedrock API key.
pub fn bearer(key: &Secret) -> (String, String) {
    ("authorization".to_owned(), format!("Bearer {}", key.reveal()))
}

#[cfg(test)]
#[path = "sigv4_tests.rs"]
mod tests;
