//! Checks a request: its host, its headers, its signature or key.

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use time::OffsetDateTime;

use super::keyring::{Issued, Keyring};
use super::operation::{Call, Service, Unrecognised, recognise};
use super::sigv4::{AccessKey, Authorization, Expected, Refusal, WireRequest, verify};

/// The signing name of all services.
const SIGNING_NAME: &str = "bedrock";

/// The headers that may cross, with `x-amzn-bedrock-*`.
const ALLOWED: &[&str] = &[
    "host",
    "content-type",
    "content-length",
    "transfer-encoding",
    "accept",
    "authorization",
    "x-amz-date",
    "x-amz-security-token",
];

/// The host names that the double serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Endpoints {
    /// With and without `-fips`.
    #[default]
    Any,
    /// Without.
    Standard,
    /// With.
    Fips,
}

/// The rules that every request must meet.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The keys that may sign.
    pub access_keys: Vec<AccessKey>,
    pub keyring: Option<Keyring>,
    /// The accepted bearer token.
    pub bearer: Option<String>,
    pub regions: Vec<String>,
    pub endpoints: Endpoints,
    /// Accepts any header, and a port in Host: for SDKs that call the double without a gateway.
    pub lenient_headers: bool,
}

/// The verdict on a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verdict {
    /// The signature is valid.
    Signed,
    /// The API key is right.
    Bearer,
    /// A health check, which has no credentials: gets 403, and is not a violation.
    Health,
    /// The peer left before the body was complete.
    Aborted,
    /// A violation: a gateway must never send this.
    Refused {
        status: u16,
        /// `x-amzn-errortype`.
        error_type: String,
        message: String,
    },
}

/// A request that may be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The region that Host names.
    pub region: String,
    pub call: Call,
    pub verdict: Verdict,
}

fn refused(status: u16, error_type: &str, message: impl Into<String>) -> Verdict {
    Verdict::Refused { status, error_type: error_type.to_owned(), message: message.into() }
}

impl Rules {
    /// Every host name that is served.
    #[must_use]
    pub fn host_names(&self) -> Vec<String> {
        let suffixes: &[&str] = match self.endpoints {
            Endpoints::Any => &["", "-fips"],
            Endpoints::Standard => &[""],
            Endpoints::Fips => &["-fips"],
        };
        let hosts = Service::ALL
            .iter()
            .flat_map(|service| suffixes.iter().map(move |suffix| format!("{}{suffix}", service.as_str())));
        hosts.flat_map(|host| self.regions.iter().map(move |region| format!("{host}.{region}.amazonaws.com"))).collect()
    }

    /// Service and region of a host name that is served, exactly as written.
    #[must_use]
    pub fn endpoint(&self, host: &str) -> Option<(Service, &str)> {
        let label = host.split('.').next()?;
        let name = label.strip_suffix("-fips").unwrap_or(label);
        let service = Service::ALL.into_iter().find(|service| service.as_str() == name)?;
        let region = self.regions.iter().find(|region| host == format!("{label}.{region}.amazonaws.com"))?;
        let fits = match self.endpoints {
            Endpoints::Any => true,
            Endpoints::Standard => !label.ends_with("-fips"),
            Endpoints::Fips => label.ends_with("-fips"),
        };
        fits.then_some((service, region))
    }

    /// Checks a request. `sni` is the TLS server name.
    ///
    /// # Errors
    /// [`Verdict::Health`] or [`Verdict::Refused`].
    pub fn judge(
        &self,
        request: &WireRequest<'_>,
        sni: Option<&str>,
        now: OffsetDateTime,
    ) -> Result<Admitted, Verdict> {
        let has = |name: &str| request.values(name).next().is_some();
        let of_aws = |name: &str| name == "authorization" || name.starts_with("x-amz");
        if request.method == "GET" && request.path == "/" && !request.headers.iter().any(|(name, _)| of_aws(name)) {
            return Err(Verdict::Health);
        }
        let (service, region) = self.check_host(request, sni)?;
        self.check_headers(request)?;
        let verdict = match (request.values("authorization").next(), &self.bearer) {
            (Some(value), Some(key)) if value.starts_with(b"Bearer ") => check_bearer(request, value, key)?,
            (Some(value), None) if value.starts_with(b"Bearer ") => {
                return Err(refused(403, "UnrecognizedClientException", "This double takes no API keys."));
            }
            (None, _) if !has("x-amz-security-token") && !has("x-amz-date") => {
                return Err(refusal(&Refusal::Missing));
            }
            _ => self.check_signature(request, region, now)?,
        };
        let call = recognise(request.method, request.path).map_err(|error| match error {
            Unrecognised::Unknown { .. } => refused(404, "UnknownOperationException", error.to_string()),
            Unrecognised::Encoding { .. } => refused(400, "ValidationException", error.to_string()),
        })?;
        if call.operation.service() != service {
            let message = format!("{:?} is not an operation of {}", call.operation, service.as_str());
            return Err(refused(404, "UnknownOperationException", message));
        }
        // https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-reference.html; its status and text were not seen.
        if service == Service::BedrockAgentRuntime && verdict == Verdict::Bearer {
            return Err(refused(403, "AccessDeniedException", "This operation does not take API keys."));
        }
        Ok(Admitted { region: region.to_owned(), call, verdict })
    }

    /// Host is served, sent once, and equal to the TLS server name.
    fn check_host(&self, request: &WireRequest<'_>, sni: Option<&str>) -> Result<(Service, &str), Verdict> {
        let hosts: Vec<&[u8]> = request.values("host").collect();
        let &[host] = &hosts[..] else {
            return Err(refused(400, "ValidationException", "Host must be sent once"));
        };
        let host = std::str::from_utf8(host).unwrap_or_default();
        let name = host.split_once(':').filter(|_| self.lenient_headers).map_or(host, |(name, _)| name);
        let found = self.endpoint(name).ok_or_else(|| {
            refused(421, "MisdirectedRequestException", format!("no endpoint here has the host {host:?}"))
        })?;
        if sni != Some(name) {
            return Err(refused(
                421,
                "MisdirectedRequestException",
                format!("Host is {name:?}, but TLS was opened for {sni:?}"),
            ));
        }
        Ok(found)
    }

    fn check_headers(&self, request: &WireRequest<'_>) -> Result<(), Verdict> {
        if self.lenient_headers {
            return Ok(());
        }
        let foreign = request
            .headers
            .iter()
            .find(|(name, _)| !ALLOWED.contains(&name.as_str()) && !name.starts_with("x-amzn-bedrock-"));
        match foreign {
            Some((name, _)) => {
                Err(refused(400, "ValidationException", format!("The header {name:?} must not be sent here")))
            }
            None => Ok(()),
        }
    }

    fn check_signature(
        &self,
        request: &WireRequest<'_>,
        region: &str,
        now: OffsetDateTime,
    ) -> Result<Verdict, Verdict> {
        let value = request.values("authorization").next().and_then(|value| std::str::from_utf8(value).ok());
        let id = value.and_then(|value| Authorization::parse(value).ok()).map(|parts| parts.access_key.to_owned());
        if let Some(issued) = self.keyring.as_ref().and_then(|keyring| keyring.find(id.as_deref()?)) {
            return check_issued(request, &issued, region, now);
        }
        // An unknown key is checked with the first one, so that the rest of the request is checked too.
        let key = self.access_keys.iter().find(|key| Some(&key.id) == id.as_ref()).or(self.access_keys.first());
        let key = key.ok_or_else(|| refused(403, "UnrecognizedClientException", "This double takes API keys only."))?;
        let expected = Expected { region, service: SIGNING_NAME, now };
        verify(request, key, &expected).map(|()| Verdict::Signed).map_err(|error| refusal(&error))
    }
}

/// Bedrock's text for keys of STS.
fn check_issued(
    request: &WireRequest<'_>,
    issued: &Issued,
    region: &str,
    now: OffsetDateTime,
) -> Result<Verdict, Verdict> {
    let expected = Expected { region, service: SIGNING_NAME, now };
    verify(request, &issued.key, &expected).map_err(|error| refusal(&error))?;
    if issued.revoked {
        return Err(refused(
            403,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ));
    }
    if issued.expires <= now {
        return Err(refused(403, "ExpiredTokenException", "The security token included in the request is expired"));
    }
    Ok(Verdict::Signed)
}

fn refusal(error: &Refusal) -> Verdict {
    refused(403, error.error_type(), error.to_string())
}

/// Compares under a MAC, so that the time does not depend on where two keys differ.
fn check_bearer(request: &WireRequest<'_>, value: &[u8], key: &str) -> Result<Verdict, Verdict> {
    if request.values("authorization").count() > 1 {
        return Err(refusal(&Refusal::Duplicate("authorization".to_owned())));
    }
    if let Some((name, _)) = request.headers.iter().find(|(name, _)| name.starts_with("x-amz-")) {
        return Err(refused(
            400,
            "ValidationException",
            format!("The header {name:?} must not be sent with an API key"),
        ));
    }
    let mac = |text: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"bedrock-double").ok()?;
        mac.update(text);
        Some(mac)
    };
    let wanted = mac(key.as_bytes()).map(|mac| mac.finalize().into_bytes()).unwrap_or_default();
    let sent = value.strip_prefix(b"Bearer ").unwrap_or_default();
    match mac(sent).map(|mac| mac.verify_slice(&wanted)) {
        Some(Ok(())) => Ok(Verdict::Bearer),
        _ => {
            Err(refused(403, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid."))
        }
    }
}
