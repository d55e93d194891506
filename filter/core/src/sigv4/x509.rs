//! Signature Version 4 with the key of an X.509 certificate, as IAM Roles Anywhere wants it:
//! <https://docs.aws.amazon.com/rolesanywhere/latest/userguide/authentication-sign-process.html>.
//!
//! It differs from [`sign`](super::sign) in the algorithm's name, in the headers with the certificates, in the serial number
//! as the credential, and in that the private key signs the string to sign itself.

use super::stages::{Canonical, canonical};
use super::{Scope, SignError, Unsigned};
use crate::credentials::identity::ValidIdentity;
use crate::encoding::hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::time::SystemTime;

/// For keys of every curve, the digest is SHA-256.
const ALGORITHM: &str = "AWS4-X509-ECDSA-SHA256";

/// Signs a request and returns the headers to set: `x-amz-date`, `x-amz-x509`, with intermediates `x-amz-x509-chain`, and
/// `authorization`.
///
/// # Errors
/// [`SignError`] if the path is malformed or the time has no year of four digits.
pub fn sign(
    request: Unsigned<'_>,
    identity: ValidIdentity<'_>,
    scope: Scope<'_>,
    now: SystemTime,
) -> Result<Vec<(&'static str, String)>, SignError> {
    let mut headers = certificates(identity);
    let Canonical { string_to_sign, amz_date, scope, signed_headers, .. } = stages(request, &headers, scope, now)?;
    let signature = identity.key().sign(string_to_sign.as_bytes()).map_err(|error| SignError(error.to_string()))?;
    let credential = format!("{}/{scope}", identity.serial());
    let authorization =
        format!("{ALGORITHM} Credential={credential}, SignedHeaders={signed_headers}, Signature={}", hex(&signature));
    headers.extend([("x-amz-date", amz_date), ("authorization", authorization)]);
    Ok(headers)
}

fn stages(
    request: Unsigned<'_>,
    certificates: &[(&'static str, String)],
    scope: Scope<'_>,
    now: SystemTime,
) -> Result<Canonical, SignError> {
    let added: Vec<(&str, &str)> = certificates.iter().map(|(name, value)| (*name, value.as_str())).collect();
    canonical(request, &added, ALGORITHM, scope, now)
}

/// The headers with the certificates: Base64 of DER. Without intermediates, only the first.
fn certificates(identity: ValidIdentity<'_>) -> Vec<(&'static str, String)> {
    let chain: Vec<String> = identity.chain().map(|der| STANDARD.encode(der)).collect();
    let mut headers = vec![("x-amz-x509", STANDARD.encode(identity.certificate()))];
    if !chain.is_empty() {
        headers.push(("x-amz-x509-chain", chain.join(",")));
    }
    headers
}

#[cfg(test)]
#[path = "x509_tests.rs"]
mod tests;
