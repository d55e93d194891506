//! CreateSession of IAM Roles Anywhere: its request.
//! <https://docs.aws.amazon.com/rolesanywhere/latest/userguide/authentication-create-session.html>

use super::call::Call;
use super::identity::ValidIdentity;
use super::session_name::SessionName;
use crate::config::{ConfigError, at};
use crate::encoding::hex;
use crate::headers::Headers;
use crate::names::RegionName;
use crate::sigv4::{Scope, SignError, Unsigned, x509};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::time::SystemTime;

const SERVICE: &str = "rolesanywhere";
const PATH: &str = "/sessions";
const CONTENT_TYPE: &str = "application/json";

/// A request for a session, checked, before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// Envoy's cluster of IAM Roles Anywhere.
    pub cluster: String,
    region: RegionName,
    members: Members,
}

/// The members of the request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Members {
    /// Seconds that the keys live.
    pub duration_seconds: u32,
    /// The profile.
    pub profile_arn: String,
    /// The role.
    pub role_arn: String,
    /// The trust anchor.
    pub trust_anchor_arn: String,
    /// The session's name, where the profile accepts one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_session_name: Option<String>,
}

impl SessionRequest {
    /// Checks the ARNs of a request. `key` is the source's key in the document.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what is wrong with it.
    pub fn new(cluster: &str, region: RegionName, members: Members, key: &str) -> Result<Self, ConfigError> {
        let sub = |name: &str| format!("{key}.{name}");
        let account = resource_account(&sub("trust_anchor_arn"), &members.trust_anchor_arn, "trust-anchor", &region)?;
        let profile = resource_account(&sub("profile_arn"), &members.profile_arn, "profile", &region)?;
        if profile != account {
            let problem = format!("is of account {profile}, and the trust anchor of {account}; they must be the same");
            return Err(at(sub("profile_arn"), problem));
        }
        let role = role_account(&members.role_arn).ok_or_else(|| {
            let role = &members.role_arn;
            at(
                sub("role_arn"),
                format!("'{role}' is not a role of the Commercial partition: want arn:aws:iam::ACCOUNT:role/NAME"),
            )
        })?;
        if role != account {
            let problem = format!("is of account {role}, and the trust anchor of {account}; they must be the same");
            return Err(at(sub("role_arn"), problem));
        }
        Ok(Self { cluster: cluster.to_owned(), region, members })
    }

    /// The request for a session of this name.
    pub(super) fn named(mut self, name: &SessionName) -> Self {
        self.members.role_session_name = Some(name.to_string());
        self
    }

    /// The signed call.
    ///
    /// # Errors
    /// As [`x509::sign`].
    pub fn call(&self, identity: ValidIdentity<'_>, now: SystemTime) -> Result<Call, SignError> {
        let host = format!("{SERVICE}.{}.amazonaws.com", self.region);
        // A struct of texts and a number: serialising it cannot fail.
        let body = serde_json::to_vec(&self.members).unwrap_or_default();
        let body_sha256 = hex(&Sha256::digest(&body));
        let extra = [("content-type", CONTENT_TYPE)];
        let unsigned = Unsigned { method: "POST", host: &host, path: PATH, headers: &extra, body_sha256: &body_sha256 };
        let scope = Scope { service: SERVICE, region: self.region.as_str() };
        let length = body.len().to_string();
        let mut headers = Headers::default();
        for (name, value) in [
            (":method", "POST"),
            (":authority", &host),
            (":path", PATH),
            ("content-type", CONTENT_TYPE),
            ("content-length", &length),
        ] {
            headers.push(name, value);
        }
        for (name, value) in x509::sign(unsigned, identity, scope, now)? {
            headers.push(name, value);
        }
        Ok(Call { cluster: self.cluster.clone(), headers, body })
    }
}

/// The account of `arn:aws:rolesanywhere:REGION:ACCOUNT:KIND/UUID`.
fn resource_account<'a>(key: &str, arn: &'a str, kind: &str, region: &RegionName) -> Result<&'a str, ConfigError> {
    let wrong = || {
        let problem = format!("'{arn}' is not of the form arn:aws:{SERVICE}:REGION:ACCOUNT:{kind}/UUID");
        at(key, problem)
    };
    let parts: Vec<&str> = arn.split(':').collect();
    let ["arn", partition, SERVICE, own, account, resource] = parts.as_slice() else { return Err(wrong()) };
    if *partition != "aws" {
        return Err(at(
            key,
            format!("'{arn}' is of the partition {partition}; want one of the Commercial partition, aws"),
        ));
    }
    let id = resource.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')).ok_or_else(wrong)?;
    if !is_account(account) || !is_uuid(id) {
        return Err(wrong());
    }
    if region.as_str() != *own {
        return Err(at(key, format!("is of the region {own}, and `region` is {region}; they must be the same")));
    }
    Ok(account)
}

/// The account of `arn:aws:iam::ACCOUNT:role/PATH/NAME`, in characters that IAM allows.
pub fn role_account(arn: &str) -> Option<&str> {
    let (account, name) = arn.strip_prefix("arn:aws:iam::")?.split_once(":role/")?;
    let valid = is_account(account)
        && !name.split('/').any(str::is_empty)
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    valid.then_some(account)
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}
