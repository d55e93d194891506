//! The judge of signatures: Signature Version 4 computed again from the bytes on the wire.
//!
//! Written on `hmac` and `sha2` alone, so that it shares no code with what signs. Where AWS is lenient, this is strict: a
//! header that is signed and sent twice is refused, and so is a list of signed headers out of order.
//!
//! Source: AWS, "Create a signed AWS API request"; botocore's signer for the encoding of paths.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

/// The only algorithm that is taken.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// How far `x-amz-date` may be from now, either way.
pub const SKEW: Duration = Duration::minutes(5);

const AMZ_DATE: &[FormatItem<'static>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// The bytes on the wire, unchanged.
#[derive(Debug, Clone, Copy)]
pub struct WireRequest<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path, as sent: neither decoded nor normalised.
    pub path: &'a str,
    /// The query without its `?`, as sent; empty if there is none.
    pub query: &'a str,
    /// Every header in the order sent, names in lower case; `host` is among them (`:authority` on HTTP/2).
    pub headers: &'a [(String, Vec<u8>)],
    /// SHA-256 of the body that arrived, in lower-case hex.
    pub body_sha256: &'a str,
}

impl WireRequest<'_> {
    /// The values of one header, in the order sent. `name` is in lower case.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> {
        self.headers.iter().filter(move |(sent, _)| sent == name).map(|(_, value)| value.as_slice())
    }
}

/// An access key as the double's AWS knows it.
#[derive(Clone)]
pub struct AccessKey {
    /// The access key id.
    pub id: String,
    /// The secret key.
    pub secret: String,
    /// The session token, for temporary keys.
    pub session_token: Option<String>,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .field("session_token", &self.session_token.is_some())
            .finish_non_exhaustive()
    }
}

/// What the scope must say, and the time it is.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The region that Host names.
    pub region: &'a str,
    /// The signing name: `bedrock` for both of Bedrock's services.
    pub service: &'a str,
    /// The judge's clock.
    pub now: OffsetDateTime,
}

/// Why a request is not taken; the text is what AWS would say.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("Missing Authentication Token")]
    Missing,
    #[error("Authorization header is incomplete: {0}")]
    Incomplete(&'static str),
    #[error("Unsupported AWS 'algorithm': '{0}'")]
    Algorithm(String),
    #[error("Header '{0}' was sent more than once")]
    Duplicate(String),
    #[error("Date must be in ISO-8601 'basic format'. Got '{0}'")]
    Date(String),
    #[error("Credential should be scoped with a valid terminator: 'aws4_request', not '{0}'")]
    Terminator(String),
    #[error("Credential should be scoped to correct service: '{expected}', not '{got}'")]
    Service { expected: String, got: String },
    #[error("Credential should be scoped to a valid region: '{expected}', not '{got}'")]
    Region { expected: String, got: String },
    #[error(
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{scope}' != '{day}', from '{amz_date}'"
    )]
    ScopeDate { scope: String, day: String, amz_date: String },
    #[error("Signature expired: {amz_date} is now earlier than {bound} (5 min. before the server's time)")]
    Expired { amz_date: String, bound: String },
    #[error("Signature not yet current: {amz_date} is still later than {bound} (5 min. after the server's time)")]
    NotYetCurrent { amz_date: String, bound: String },
    #[error("SignedHeaders must be in lower case, sorted and without repetition: '{0}'")]
    SignedHeadersForm(String),
    #[error("'{0}' must be a 'SignedHeader' in the AWS Authorization")]
    Unsigned(String),
    #[error("'{0}' is a 'SignedHeader' and was not sent")]
    NotSent(String),
    #[error("The security token included in the request is invalid")]
    Token,
    #[error("The value of 'x-amz-content-sha256' is not the SHA-256 of the body")]
    ContentHash,
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. \
         Consult the service documentation for details.\n\nThe Canonical String for this request should have been\n'{canonical}'\n\n\
         The String-to-Sign should have been\n'{string_to_sign}'\n"
    )]
    Mismatch { canonical: String, string_to_sign: String },
}

impl Refusal {
    /// The error type AWS answers with; the status is 403 for all of them.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Incomplete(_) | Self::Algorithm(_) | Self::SignedHeadersForm(_) => "IncompleteSignatureException",
            Self::Token => "UnrecognizedClientException",
            _ => "InvalidSignatureException",
        }
    }
}

/// The parts of `Authorization: AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authorization<'a> {
    /// The access key id.
    pub access_key: &'a str,
    /// The day, `YYYYMMDD`.
    pub date: &'a str,
    pub region: &'a str,
    /// The signing name.
    pub service: &'a str,
    /// `aws4_request`.
    pub terminator: &'a str,
    /// The names of the signed headers with `;` between them.
    pub signed_headers: &'a str,
    /// The signature, in hex.
    pub signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Takes the header apart; every part must be there once and nothing else.
    ///
    /// # Errors
    /// [`Refusal::Algorithm`] and [`Refusal::Incomplete`].
    pub fn parse(header: &'a str) -> Result<Self, Refusal> {
        let (algorithm, rest) = header.split_once(' ').ok_or_else(|| Refusal::Algorithm(header.to_owned()))?;
        if algorithm != ALGORITHM {
            return Err(Refusal::Algorithm(algorithm.to_owned()));
        }
        Self::parse_parts(rest)
    }

    /// Takes what follows the algorithm apart.
    pub(crate) fn parse_parts(rest: &'a str) -> Result<Self, Refusal> {
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or(Refusal::Incomplete("a part is not name=value"))?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(Refusal::Incomplete("a part is not known")),
            };
            if place.replace(value).is_some() {
                return Err(Refusal::Incomplete("a part is repeated"));
            }
        }
        let credential = credential.ok_or(Refusal::Incomplete("it requires 'Credential'"))?;
        let scope: Vec<&str> = credential.split('/').collect();
        let [access_key, date, region, service, terminator] = scope[..] else {
            return Err(Refusal::Incomplete("'Credential' is not KEY/DATE/REGION/SERVICE/aws4_request"));
        };
        Ok(Self {
            access_key,
            date,
            region,
            service,
            terminator,
            signed_headers: signed_headers.ok_or(Refusal::Incomplete("it requires 'SignedHeaders'"))?,
            signature: signature.ok_or(Refusal::Incomplete("it requires 'Signature'"))?,
        })
    }

    /// `DATE/REGION/SERVICE/aws4_request`.
    #[must_use]
    pub fn scope(&self) -> String {
        format!("{}/{}/{}/{}", self.date, self.region, self.service, self.terminator)
    }
}

/// Judges one request. The order is AWS's: form, scope, time, key, then the signature itself.
///
/// # Errors
/// The first thing found wrong.
pub fn verify(request: &WireRequest<'_>, key: &AccessKey, expected: &Expected<'_>) -> Result<(), Refusal> {
    let header = single(request, "authorization")?.ok_or(Refusal::Missing)?;
    let authorization = Authorization::parse(header)?;
    let amz_date = single(request, "x-amz-date")?.ok_or(Refusal::Incomplete("it requires 'X-Amz-Date'"))?;
    check_scope(&authorization, amz_date, expected)?;
    check_signed_headers(request, authorization.signed_headers)?;

    if authorization.access_key != key.id || single(request, "x-amz-security-token")? != key.session_token.as_deref() {
        return Err(Refusal::Token);
    }
    if single(request, "x-amz-content-sha256")?.is_some_and(|hash| hash != request.body_sha256) {
        return Err(Refusal::ContentHash);
    }

    let canonical = canonical_request(request, authorization.signed_headers);
    let string_to_sign = string_to_sign(amz_date, &authorization.scope(), &canonical);
    let signing_key = signing_key(&key.secret, authorization.date, authorization.region, authorization.service);
    if signature_is(&signing_key, &string_to_sign, authorization.signature) {
        Ok(())
    } else {
        Err(Refusal::Mismatch { canonical: String::from_utf8_lossy(&canonical).into_owned(), string_to_sign })
    }
}

pub(crate) fn single<'a>(request: &'a WireRequest<'_>, name: &'a str) -> Result<Option<&'a str>, Refusal> {
    let mut values = request.values(name);
    let first = values.next();
    if values.next().is_some() {
        return Err(Refusal::Duplicate(name.to_owned()));
    }
    first.map(|value| std::str::from_utf8(value).map_err(|_| Refusal::Incomplete("it is not text"))).transpose()
}

pub(crate) fn check_scope(
    authorization: &Authorization<'_>,
    amz_date: &str,
    expected: &Expected<'_>,
) -> Result<(), Refusal> {
    let date =
        PrimitiveDateTime::parse(amz_date, AMZ_DATE).map_err(|_| Refusal::Date(amz_date.to_owned()))?.assume_utc();
    if authorization.terminator != "aws4_request" {
        return Err(Refusal::Terminator(authorization.terminator.to_owned()));
    }
    if authorization.region != expected.region {
        return Err(Refusal::Region { expected: expected.region.to_owned(), got: authorization.region.to_owned() });
    }
    if authorization.service != expected.service {
        return Err(Refusal::Service { expected: expected.service.to_owned(), got: authorization.service.to_owned() });
    }
    let day = amz_date.split('T').next().unwrap_or_default();
    if authorization.date != day {
        return Err(Refusal::ScopeDate {
            scope: authorization.date.to_owned(),
            day: day.to_owned(),
            amz_date: amz_date.to_owned(),
        });
    }
    let bound = |at: OffsetDateTime| at.format(AMZ_DATE).unwrap_or_default();
    if date < expected.now - SKEW {
        return Err(Refusal::Expired { amz_date: amz_date.to_owned(), bound: bound(expected.now - SKEW) });
    }
    if date > expected.now + SKEW {
        return Err(Refusal::NotYetCurrent { amz_date: amz_date.to_owned(), bound: bound(expected.now + SKEW) });
    }
    Ok(())
}

/// `host`, `content-type` and all of `x-amz-*` must be signed if they are there, and what is signed must be there once.
pub(crate) fn check_signed_headers(request: &WireRequest<'_>, signed_headers: &str) -> Result<(), Refusal> {
    let signed: Vec<&str> = signed_headers.split(';').collect();
    let in_form = signed.iter().all(|name| !name.is_empty() && *name == name.to_ascii_lowercase())
        && signed.is_sorted_by(|a, b| a < b);
    if !in_form {
        return Err(Refusal::SignedHeadersForm(signed_headers.to_owned()));
    }
    for name in ["host", "x-amz-date"] {
        if !signed.contains(&name) {
            return Err(Refusal::Unsigned(name.to_owned()));
        }
    }
    for (name, _) in request.headers {
        let must = name == "content-type" || name.starts_with("x-amz-");
        if must && !signed.contains(&name.as_str()) {
            return Err(Refusal::Unsigned(name.clone()));
        }
    }
    for name in signed {
        match request.values(name).count() {
            0 => return Err(Refusal::NotSent(name.to_owned())),
            1 => {}
            _ => return Err(Refusal::Duplicate(name.to_owned())),
        }
    }
    Ok(())
}

/// The canonical request, as bytes: a header's value need not be text. `signed_headers` is the list of the Authorization header.
#[must_use]
pub fn canonical_request(request: &WireRequest<'_>, signed_headers: &str) -> Vec<u8> {
    let path = canonical_path(request.path);
    let query = canonical_query(request.query);
    let mut out = format!("{}\n{path}\n{query}\n", request.method).into_bytes();
    for name in signed_headers.split(';') {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        for (nth, value) in request.values(name).enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&collapse(value));
        }
        out.push(b'\n');
    }
    out.extend_from_slice(format!("\n{signed_headers}\n{}", request.body_sha256).as_bytes());
    out
}

/// The wire path without dot segments and empty segments, then percent-encoded once more, `/` excepted.
#[must_use]
pub fn canonical_path(wire: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in wire.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let mut out = String::from("/");
    out.push_str(&percent_encode(kept.join("/").as_bytes(), true));
    let is_folder = ["/", "/.", "/.."].iter().any(|end| wire.ends_with(end));
    if is_folder && out.len() > 1 {
        out.push('/');
    }
    out
}

/// The query's parts, each encoded exactly once, sorted by name and then by value.
#[must_use]
pub fn canonical_query(wire: &str) -> String {
    let once = |text: &str| percent_encode(&percent_decode(text), false);
    let mut parts: Vec<(String, String)> = wire
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (once(name), once(value)))
        .collect();
    parts.sort();
    let parts: Vec<String> = parts.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    parts.join("&")
}

/// The string to sign. `amz_date` is `YYYYMMDDTHHMMSSZ`.
#[must_use]
pub fn string_to_sign(amz_date: &str, scope: &str, canonical_request: &[u8]) -> String {
    format!("{ALGORITHM}\n{amz_date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical_request)))
}

/// The key of one day, region and service. `date` is `YYYYMMDD`.
#[must_use]
pub fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> [u8; 32] {
    let day = hmac(format!("AWS4{secret}").as_bytes(), date.as_bytes());
    let region = hmac(&day, region.as_bytes());
    let service = hmac(&region, service.as_bytes());
    hmac(&service, b"aws4_request")
}

/// The signature, in hex.
#[must_use]
pub fn signature(signing_key: &[u8; 32], string_to_sign: &str) -> String {
    hex::encode(hmac(signing_key, string_to_sign.as_bytes()))
}

/// Compares in constant time. AWS writes signatures in lower case only.
fn signature_is(signing_key: &[u8; 32], string_to_sign: &str, claimed: &str) -> bool {
    let lower = claimed.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let Ok(claimed) = hex::decode(claimed) else {
        return false;
    };
    mac(signing_key, string_to_sign.as_bytes()).is_some_and(|mac| mac.verify_slice(&claimed).is_ok()) && lower
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    mac(key, data).map(|mac| mac.finalize().into_bytes().into()).unwrap_or_default()
}

/// HMAC takes keys of any length, so this is never `None`.
fn mac(key: &[u8], data: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(data);
    Some(mac)
}

/// Trims, and makes one space of several.
fn collapse(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for &byte in value.trim_ascii() {
        if byte != b' ' || out.last() != Some(&b' ') {
            out.push(byte);
        }
    }
    out
}

/// Encodes all but RFC 3986's unreserved characters, in upper-case hex.
#[must_use]
pub fn percent_encode(bytes: &[u8], keep_slash: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b'/' if keep_slash => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Decodes `%XX`; other text stays as it is, and `+` is a plus.
#[must_use]
pub fn percent_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let decoded = (first == b'%').then(|| tail.get(..2).and_then(|pair| hex::decode(pair).ok())).flatten();
        match decoded.as_deref() {
            Some(&[byte]) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}
