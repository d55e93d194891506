//! The request that the signer sends, and the stages of its signature.

use std::time::SystemTime;

use filter_core::credentials::Keys;
use filter_core::headers::Headers;
use filter_core::sigv4::stages::stages;
use filter_core::sigv4::{Scope, Unsigned};

/// Headers that core itself adds to what is signed.
const ADDED_BY_CORE: [&str; 3] = ["host", "x-amz-date", "x-amz-security-token"];

/// A request as it leaves the gateway.
#[derive(Debug, Clone)]
pub struct SentRequest {
    /// The method.
    pub method: String,
    /// The host that it is sent to.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// The headers, without pseudo-headers.
    pub headers: Vec<(String, String)>,
}

/// The stages of a request's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The canonical request.
    pub canonical_request: String,
    /// The string to sign.
    pub string_to_sign: String,
    /// The signature, in hexadecimal.
    pub signature: String,
}

/// What a signature is made with, besides the request.
#[derive(Debug, Clone)]
pub struct Signer<'a> {
    /// The keys.
    pub keys: &'a Keys,
    /// The region.
    pub region: &'a str,
    /// The service's signing name.
    pub service: &'a str,
    /// The time.
    pub now: SystemTime,
}

impl From<&Headers> for SentRequest {
    fn from(headers: &Headers) -> Self {
        let pseudo = |name: &str| headers.get_str(name).unwrap_or_default().to_owned();
        let others = headers.iter().filter(|(name, _)| !name.starts_with(':'));
        let others = others.map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned()));
        Self { method: pseudo(":method"), host: pseudo(":authority"), path: pseudo(":path"), headers: others.collect() }
    }
}

impl SentRequest {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The stages of a signature over the headers that the request's `authorization` names. `None` if the request has no
/// signature, or if none can be made.
pub fn signature(sent: &SentRequest, body_sha256: &str, signer: &Signer<'_>) -> Option<Signature> {
    let (_, names) = sent.header("authorization")?.split_once("SignedHeaders=")?;
    let names: Vec<&str> = names.split(',').next()?.split(';').collect();
    let headers = sent.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let headers: Vec<(&str, &str)> =
        headers.filter(|(name, _)| names.contains(name) && !ADDED_BY_CORE.contains(name)).collect();
    let request = Unsigned { method: &sent.method, host: &sent.host, path: &sent.path, headers: &headers, body_sha256 };
    let scope = Scope { service: signer.service, region: signer.region };
    let stages = stages(request, signer.keys, scope, signer.now).ok()?;
    Some(Signature {
        canonical_request: stages.canonical_request,
        string_to_sign: stages.string_to_sign,
        signature: stages.signature,
    })
}
