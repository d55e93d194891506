//! CreateSession of IAM Roles Anywhere: keys of a role for a certificate.
//!
//! Sources: IAM Roles Anywhere User Guide,
//! https://docs.aws.amazon.com/rolesanywhere/latest/userguide/authentication.html, …/authentication-sign-process.html,
//! …/authentication-create-session.html and …/trust-model.html. Codes and statuses are those of botocore's model. AWS
//! publishes few of its words; those that were not observed are this double's, and say so.

mod chain;
mod parameters;
mod signature;

use hyper::http::request::Parts;
use serde_json::{Value, json};
use time::Duration;

use self::chain::Leaf;
use self::parameters::Asked;
use super::account::{Commercial, Profile, Role, TrustAnchor};
use super::answer::{Answer, Refused, header, text, with_headers};
use super::local::issue;
use super::policy::{Context, Decision, Principal, decide};
use super::{Service, Shared};

pub(super) fn answer(parts: &Parts, body: &[u8], shared: &Shared) -> Answer {
    match session(parts, body, shared) {
        Ok(body) => {
            shared.served("CreateSession");
            json_answer(201, &body, shared)
        }
        Err(refused) => {
            shared.complain(format!("CreateSession: {refused}"));
            refusal(&refused, shared)
        }
    }
}

/// The answer of a service that is busy or broken: a code of botocore's retry rules (`_retry.json`), and one of its model.
pub(super) fn fault(throttled: bool, shared: &Shared) -> Answer {
    let refused = if throttled {
        self::throttled()
    } else {
        Refused::new(
            503,
            "ServiceUnavailableException",
            "The request has failed due to a temporary failure of the service.",
        )
    };
    refusal(&refused, shared)
}

fn throttled() -> Refused {
    Refused::new(429, "ThrottlingException", "Rate exceeded")
}

fn refusal(refused: &Refused, shared: &Shared) -> Answer {
    let answer = json_answer(refused.status, &json!({"message": refused.message}), shared);
    with_headers(answer, &[("x-amzn-errortype", refused.code)])
}

fn json_answer(status: u16, body: &Value, shared: &Shared) -> Answer {
    let headers = [("x-amzn-requestid", &*shared.request_id()), ("content-type", "application/json")];
    with_headers(text(status, body.to_string()), &headers)
}

fn denied(message: impl Into<String>) -> Refused {
    Refused::new(403, "AccessDeniedException", message)
}

fn invalid(message: impl Into<String>) -> Refused {
    Refused::new(400, "ValidationException", message)
}

fn session(parts: &Parts, body: &[u8], shared: &Shared) -> Result<Value, Refused> {
    let region = region(header(parts, "host")).ok_or_else(|| {
        Refused::new(404, "UnknownOperationException", "the host is not an endpoint of Roles Anywhere")
    })?;
    if !shared.may_create_session() {
        return Err(throttled());
    }
    let now = shared.now();
    let (leaf, chain) = signature::check(parts, body, region, now)?;
    let leaf = Leaf::parse(&leaf, now)?;
    let asked = parameters::read(parts, body)?;
    let account = shared.account().commercial;
    let (anchor, profile) = resources(&asked, region, &account)?;
    leaf.check_path(&chain, &anchor.ca_pem, now)?;
    let role = authorize(&asked, &leaf, anchor, profile, &account)?;
    let seconds = duration(&asked, profile, role)?;

    // The hexadecimal serial number, unless the request has a name.
    // Observed: https://github.com/aws/rolesanywhere-credential-helper/issues/19.
    let session = asked.session.clone().unwrap_or_else(|| leaf.serial_hex());
    let lifetime =
        Duration::seconds(seconds).min(shared.lifetime(Service::RolesAnywhere).try_into().unwrap_or(Duration::MAX));
    let (key, expires) = issue(&shared.bedrock, "ASIACERT", now + lifetime);
    Ok(json!({
        "credentialSet": [{
            "assumedRoleUser": {"arn": role.session_arn(&session), "assumedRoleId": Role::session_id(&session)},
            "credentials": {
                "accessKeyId": key.id, "expiration": expires, "secretAccessKey": key.secret, "sessionToken": key.session_token,
            },
            "packedPolicySize": 10,
            "roleArn": role.arn,
            "sourceIdentity": leaf.common_name,
        }],
        "subjectArn": format!("arn:aws:rolesanywhere:{region}:{}:subject/{}", account.id, shared.request_id()),
    }))
}

/// https://docs.aws.amazon.com/general/latest/gr/rolesanywhere.html; with `-fips` in the regions of botocore's `endpoints.json`.
fn region(host: &str) -> Option<&str> {
    let rest = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".api.aws"))?;
    let (service, region) = rest.split_once('.')?;
    let known = match service {
        "rolesanywhere" => super::sts::is_commercial(region),
        "rolesanywhere-fips" => ["us-east-1", "us-east-2", "us-west-1", "us-west-2"].contains(&region),
        _ => false,
    };
    known.then_some(region)
}

/// The trust anchor and the profile, in the region of the request, and enabled.
fn resources<'a>(
    asked: &Asked,
    region: &str,
    account: &'a Commercial,
) -> Result<(&'a TrustAnchor, &'a Profile), Refused> {
    for arn in [&asked.trust_anchor, &asked.profile] {
        if arn.split(':').nth(3) != Some(region) {
            return Err(invalid(format!(
                "{arn} is not in {region}, the region of the endpoint (the words are this double's)"
            )));
        }
    }
    let missing = |arn: &str| {
        Refused::new(404, "ResourceNotFoundException", format!("{arn} does not exist (the words are this double's)"))
    };
    let disabled = |arn: &str| denied(format!("{arn} is disabled (the words are this double's)"));
    let anchor = account.trust_anchors.iter().find(|anchor| anchor.arn == asked.trust_anchor);
    let anchor = anchor.ok_or_else(|| missing(&asked.trust_anchor))?;
    let profile = account.profiles.iter().find(|profile| profile.arn == asked.profile);
    let profile = profile.ok_or_else(|| missing(&asked.profile))?;
    if !anchor.enabled {
        return Err(disabled(&anchor.arn));
    }
    if !profile.enabled {
        return Err(disabled(&profile.arn));
    }
    Ok((anchor, profile))
}

/// The role, if the profile has it and its trust policy allows the certificate.
fn authorize<'a>(
    asked: &Asked,
    leaf: &Leaf<'_>,
    anchor: &TrustAnchor,
    profile: &Profile,
    account: &'a Commercial,
) -> Result<&'a Role, Refused> {
    // Observed: https://github.com/aws/rolesanywhere-credential-helper/issues/19.
    if asked.session.is_some() && !profile.accept_role_session_name {
        return Err(denied("Not authorized to set roleSessionName."));
    }
    // The first words observed: https://github.com/aws/rolesanywhere-credential-helper/issues/77.
    let unable = format!("Unable to assume role for {}", asked.role);
    let role = account.role(&asked.role).filter(|_| profile.role_arns.contains(&asked.role));
    let role = role.ok_or_else(|| denied(unable.clone()))?;
    // Observed: the same issue, and https://github.com/aws/rolesanywhere-credential-helper/issues/188.
    let unmapped = leaf.unmapped();
    if !unmapped.is_empty() {
        return Err(denied(format!("{unable}. Some attributes failed to be mapped into session tags. {unmapped}")));
    }
    let mut context = Context::default()
        .with("aws:SourceArn", [anchor.arn.as_str()])
        .with("aws:SourceAccount", [account.id.as_str()])
        .with("sts:SourceIdentity", [leaf.common_name.as_str()]);
    for (name, value) in leaf.tags() {
        context = context.with(&format!("aws:PrincipalTag/{name}"), [value.as_str()]);
        context = context.with(&format!("aws:RequestTag/{name}"), [value.as_str()]);
    }
    // The target role "MUST have an AssumeRolePolicyDocument that allows" these three (authentication.html).
    let principal = Principal { kind: "Service", name: "rolesanywhere.amazonaws.com" };
    for action in ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"] {
        let decision = decide(&role.trust, action, Some(principal), &context);
        let decision = decision.map_err(|error| Refused::new(500, "InternalServerException", error))?;
        if decision != Decision::Allowed {
            return Err(denied(unable));
        }
    }
    Ok(role)
}

/// The seconds of the session. "The effective ceiling for a request is the lower of the profile's durationSeconds and the
/// role's MaxSessionDuration, so a value accepted here may still be rejected by the service" (awslabs/iam-roles-anywhere-session
/// 3.0.0). The profile's duration is the default.
fn duration(asked: &Asked, profile: &Profile, role: &Role) -> Result<i64, Refused> {
    let ceiling = profile.duration_seconds.min(role.max_session.as_secs());
    let seconds = asked.seconds.unwrap_or(ceiling);
    if seconds > ceiling {
        let message =
            format!("durationSeconds is above {ceiling}, the profile's or the role's (the words are this double's)");
        return Err(invalid(message));
    }
    Ok(i64::try_from(seconds).unwrap_or(i64::MAX))
}
