//! The signature by the certificate's key: "The signing process is identical to SigV4, with the exception of the keys used,
//! the signature algorithm, and the addition of headers related to the X.509 certificate and trust chain"
//! (authentication-sign-process.html).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::http::request::Parts;
use ring::signature::{self as algorithms, UnparsedPublicKey, VerificationAlgorithm};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::super::answer::{Refused, wire_headers};
use super::denied;
use crate::sigv4::{
    Authorization, Expected, Refusal, WireRequest, canonical_request, check_scope, check_signed_headers, single,
};

const ECDSA: &str = "AWS4-X509-ECDSA-SHA256";
const RSA: &str = "AWS4-X509-RSA-SHA256";

/// DER of the certificate that signed, and of its chain.
pub(super) type Certificates = (Vec<u8>, Vec<Vec<u8>>);

/// Checks everything of the signature but who issued the certificate.
pub(super) fn check(parts: &Parts, body: &[u8], region: &str, now: OffsetDateTime) -> Result<Certificates, Refused> {
    let headers = wire_headers(parts);
    let hash = hex::encode(Sha256::digest(body));
    let query = parts.uri.query().unwrap_or_default();
    let request = WireRequest {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query,
        headers: &headers,
        body_sha256: &hash,
    };
    let one = |name| single(&request, name).map_err(|refusal| refused(&refusal));
    let authorization = one("authorization")?.ok_or_else(|| refused(&Refusal::Missing))?;
    let (algorithm, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
    if ![ECDSA, RSA].contains(&algorithm) {
        return Err(refused(&Refusal::Algorithm(algorithm.to_owned())));
    }
    let authorization = Authorization::parse_parts(rest).map_err(|refusal| refused(&refusal))?;
    let date = one("x-amz-date")?.ok_or_else(|| refused(&Refusal::Incomplete("it requires 'X-Amz-Date'")))?;
    let expected = Expected { region, service: "rolesanywhere", now };
    check_scope(&authorization, date, &expected).map_err(|refusal| refused(&refusal))?;
    check_signed_headers(&request, authorization.signed_headers).map_err(|refusal| refused(&refusal))?;
    if one("x-amz-content-sha256")?.is_some_and(|sent| sent != hash) {
        return Err(refused(&Refusal::ContentHash));
    }

    let certificate = one("x-amz-x509")?.ok_or_else(|| refused(&Refusal::Incomplete("it requires 'X-Amz-X509'")))?;
    let unreadable = || denied("Untrusted certificate. Insufficient certificate");
    let der = |text: &str| STANDARD.decode(text).map_err(|_| unreadable());
    let leaf = der(certificate)?;
    let chain: Vec<Vec<u8>> = match one("x-amz-x509-chain")? {
        Some(chain) => chain.split(',').map(der).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|_| unreadable())?;
    // The serial number in decimal, without leading zeros.
    let is_own = authorization.access_key == parsed.tbs_certificate.serial.to_string();
    let canonical = canonical_request(&request, authorization.signed_headers);
    let digest = hex::encode(Sha256::digest(&canonical));
    let to_sign = format!("{algorithm}\n{date}\n{}\n{digest}", authorization.scope());
    if is_own && is_signed(algorithm, &parsed, to_sign.as_bytes(), authorization.signature) {
        return Ok((leaf, chain));
    }
    // Observed: https://github.com/aws/rolesanywhere-credential-helper/issues/128.
    Err(denied("Invalid signature"))
}

/// SHA-256 for keys of every size. The signature is in lower-case hex, as for Signature Version 4.
fn is_signed(algorithm: &str, certificate: &X509Certificate<'_>, to_sign: &[u8], signature: &str) -> bool {
    let key = certificate.public_key();
    let verifier: &dyn VerificationAlgorithm = match (algorithm, key.parsed()) {
        (RSA, Ok(PublicKey::RSA(_))) => &algorithms::RSA_PKCS1_2048_8192_SHA256,
        (ECDSA, Ok(PublicKey::EC(point))) if point.key_size() == 256 => &algorithms::ECDSA_P256_SHA256_ASN1,
        (ECDSA, Ok(PublicKey::EC(point))) if point.key_size() == 384 => &algorithms::ECDSA_P384_SHA256_ASN1,
        _ => return false,
    };
    let Ok(bytes) = hex::decode(signature) else { return false };
    signature == signature.to_ascii_lowercase()
        && UnparsedPublicKey::new(verifier, &key.subject_public_key.data).verify(to_sign, &bytes).is_ok()
}

/// The codes of Signature Version 4. What Roles Anywhere answers to these was not observed.
fn refused(refusal: &Refusal) -> Refused {
    Refused::new(403, refusal.error_type(), refusal.to_string())
}
