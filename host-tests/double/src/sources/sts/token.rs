//! GetWebIdentityToken, as STS in GovCloud answers it.
//!
//! Sources: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html, botocore's model of STS,
//! https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_policies.html and
//! …/id_roles_providers_outbound_token_claims.html.

use std::collections::BTreeMap;

use hyper::http::request::Parts;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::super::Shared;
use super::super::account::GovCloud;
use super::super::answer::{Refused, header, wire_headers};
use super::super::jwt::Algorithm;
use super::super::policy::{Context, Decision, decide};
use super::form::{Constraints, Form, invalid};
use super::{Endpoint, internal};
use crate::keyring::Issued;
use crate::sigv4::{Authorization, Expected, Refusal, WireRequest, verify};

/// The parameters of a valid request.
#[derive(Debug)]
struct Asked {
    audiences: Vec<String>,
    algorithm: Algorithm,
    /// Seconds that the token lives.
    seconds: i64,
    /// Whether the request has DurationSeconds.
    has_duration: bool,
    tags: BTreeMap<String, String>,
}

pub(super) fn get(
    parts: &Parts,
    body: &[u8],
    endpoint: Endpoint<'_>,
    form: Form,
    shared: &Shared,
) -> Result<String, Refused> {
    // "The GetWebIdentityToken API is not available on the STS Global endpoint." The code is one of "Common Errors"; the
    // words are ours, since AWS's are not published.
    let Endpoint::Regional { region, partition } = endpoint else {
        return Err(Refused::new(
            400,
            "InvalidAction",
            "GetWebIdentityToken is not available on the STS global endpoint",
        ));
    };
    let issued = check_signature(parts, body, partition, region, shared)?;
    let asked = parameters(form)?;
    let account = shared.account();
    authorize(&asked, &account.govcloud)?;
    // Codes and words of both exceptions: botocore's model.
    if !account.govcloud.outbound_federation {
        return Err(Refused::new(
            403,
            "OutboundWebIdentityFederationDisabledException",
            "The outbound web identity federation feature is not enabled for this account. To use this feature, you must first \
             enable it through the Amazon Web Services Management Console or API.",
        ));
    }
    let now = shared.now();
    let expires = now + Duration::seconds(asked.seconds);
    if expires > issued.expires {
        return Err(Refused::new(
            403,
            "SessionDurationEscalationException",
            "The requested token duration would extend the session beyond its original expiration time. You cannot use this \
             operation to extend the lifetime of a session beyond what was granted when the session was originally created.",
        ));
    }
    let claims = claims(&asked, &account.govcloud, region, (now, expires), &shared.request_id());
    let token = shared.signer(asked.algorithm).sign(&claims).map_err(|error| internal(error.to_string()))?;
    let expires = expires.replace_nanosecond(0).unwrap_or(expires).format(&Rfc3339).unwrap_or_default();
    Ok(format!("<WebIdentityToken>{token}</WebIdentityToken><Expiration>{expires}</Expiration>"))
}

fn parameters(mut form: Form) -> Result<Asked, Refused> {
    let mut constraints = Constraints::default();
    let audiences = form.take_list("Audience");
    if audiences.is_empty() {
        constraints.broken("null", "audience", "Member must not be null");
    } else if audiences.len() > 10 {
        constraints.broken(
            &format!("[{}]", audiences.join(", ")),
            "audience",
            "Member must have length less than or equal to 10",
        );
    }
    for (nth, audience) in (1..).zip(&audiences) {
        constraints.length(&format!("audience.{nth}.member"), Some(audience), 1, 1000);
    }
    let duration = form.take("DurationSeconds");
    let seconds = constraints.number("durationSeconds", duration.as_deref(), 60, 3600, 300);
    let algorithm = form.take("SigningAlgorithm");
    let algorithm = match algorithm.as_deref() {
        Some("RS256") => Algorithm::Rs256,
        Some("ES384") => Algorithm::Es384,
        other => {
            let constraint = match other {
                Some(_) => "Member must satisfy enum value set: [RS256, ES384]",
                None => "Member must not be null",
            };
            constraints.broken(other.unwrap_or("null"), "signingAlgorithm", constraint);
            Algorithm::Es384
        }
    };
    let pairs = form.take_pairs("Tags");
    if pairs.len() > 50 {
        constraints.broken(
            &format!("{} tags", pairs.len()),
            "tags",
            "Member must have length less than or equal to 50",
        );
    }
    let mut tags = BTreeMap::new();
    for (nth, (key, value)) in (1..).zip(pairs) {
        constraints.length(&format!("tags.{nth}.member.key"), key.as_deref(), 1, 128);
        constraints.length(&format!("tags.{nth}.member.value"), value.as_deref(), 0, 256);
        let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
        for (name, text) in [("key", &key), ("value", &value)] {
            if !is_tag(text) {
                let pattern = "Member must satisfy regular expression pattern: [\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]+";
                constraints.broken(text, &format!("tags.{nth}.member.{name}"), pattern);
            }
        }
        if tags.insert(key.clone(), value).is_some() {
            return Err(invalid(format!("the tag {key} is sent twice (the words are this double's)")));
        }
    }
    constraints.check()?;
    form.end()?;
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Ok(Asked { audiences, algorithm, seconds, has_duration: duration.is_some(), tags })
}

/// The characters of a tag (`tagKeyType`, `tagValueType`). Of separators, only the space is let in.
pub(in super::super) fn is_tag(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || " _.:/=+-@".contains(c))
}

/// The caller's policy, with the condition keys of "Controlling access with IAM policies". A request without DurationSeconds
/// has no `sts:DurationSeconds`: AWS does not say whether the default counts, so the strict reading holds. For
/// sts:TagGetWebIdentityToken there are only the keys of tags: the Service Authorization Reference names no others.
/// https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecuritytokenservice.html
fn authorize(asked: &Asked, caller: &GovCloud) -> Result<(), Refused> {
    let mut of_tags = Context::default().with("aws:TagKeys", asked.tags.keys());
    for (key, value) in &asked.tags {
        of_tags = of_tags.with(&format!("aws:RequestTag/{key}"), [value]);
    }
    let mut of_token = of_tags
        .clone()
        .with("sts:IdentityTokenAudience", &asked.audiences)
        .with("sts:SigningAlgorithm", [asked.algorithm.name()]);
    if asked.has_duration {
        of_token = of_token.with("sts:DurationSeconds", [asked.seconds.to_string()]);
    }
    let tagging = (!asked.tags.is_empty()).then_some(("sts:TagGetWebIdentityToken", of_tags));
    for (action, context) in [("sts:GetWebIdentityToken", of_token)].into_iter().chain(tagging) {
        // Words: https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
        let because = match decide(&caller.policy, action, None, &context).map_err(internal)? {
            Decision::Allowed => continue,
            Decision::ImplicitDeny => format!("because no identity-based policy allows the {action} action"),
            Decision::ExplicitDeny => "with an explicit deny in an identity-based policy".to_owned(),
        };
        let message = format!("User: {} is not authorized to perform: {action} {because}", caller.session_arn());
        return Err(Refused::new(403, "AccessDenied", message));
    }
    Ok(())
}

/// "Understanding token claims". A single audience is a string.
fn claims(
    asked: &Asked,
    account: &GovCloud,
    region: &str,
    (now, expires): (OffsetDateTime, OffsetDateTime),
    id: &str,
) -> Value {
    let aud = match asked.audiences.as_slice() {
        [one] => json!(one),
        several => json!(several),
    };
    let mut aws = BTreeMap::from([
        ("aws_account", json!(account.id())),
        ("source_region", json!(region)),
        ("principal_id", json!(account.role_arn)),
    ]);
    if !asked.tags.is_empty() {
        aws.insert("request_tags", json!(asked.tags));
    }
    json!({
        "iss": format!("https://{}", account.issuer), "aud": aud, "sub": account.role_arn,
        "iat": now.unix_timestamp(), "exp": expires.unix_timestamp(), "jti": id, "https://sts.amazonaws.com/": aws,
    })
}

/// STS accepts signatures by keys of its own partition, made for its own region.
fn check_signature(
    parts: &Parts,
    body: &[u8],
    partition: &str,
    region: &str,
    shared: &Shared,
) -> Result<Issued, Refused> {
    let headers = wire_headers(parts);
    let hash = hex::encode(Sha256::digest(body));
    let request = WireRequest { method: "POST", path: "/", query: "", headers: &headers, body_sha256: &hash };
    if !parts.headers.contains_key("authorization") {
        return Err(Refused::new(403, "MissingAuthenticationToken", "Request is missing Authentication Token"));
    }
    let id =
        Authorization::parse(header(parts, "authorization")).map_err(|refusal| signature_refused(&refusal))?.access_key;
    // Keys of another partition are unknown here, as keys that were never issued.
    // Observed: https://github.com/aws-azure-login/aws-azure-login/issues/251.
    let unknown = || Refused::new(403, "InvalidClientTokenId", "The security token included in the request is invalid");
    let issued = shared.local.find(id).filter(|_| partition == "aws-us-gov").ok_or_else(unknown)?;
    let now = shared.now();
    verify(&request, &issued.key, &Expected { region, service: "sts", now })
        .map_err(|refusal| if refusal == Refusal::Token { unknown() } else { signature_refused(&refusal) })?;
    // Observed: https://github.com/pulumi/pulumi-aws/issues/2560.
    if issued.expires <= now {
        return Err(Refused::new(403, "ExpiredToken", "The security token included in the request is expired"));
    }
    Ok(issued)
}

/// STS's codes for a wrong signature: "Common Errors", and for SignatureDoesNotMatch
/// https://docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-troubleshooting.html.
fn signature_refused(refusal: &Refusal) -> Refused {
    let (status, code) = match refusal.error_type() {
        "MissingAuthenticationTokenException" => (403, "MissingAuthenticationToken"),
        "IncompleteSignatureException" => (400, "IncompleteSignature"),
        "UnrecognizedClientException" => (403, "InvalidClientTokenId"),
        _ => (403, "SignatureDoesNotMatch"),
    };
    Refused::new(status, code, refusal.to_string())
}
