//! The request that goes on: the headers that cross, what the signer is handed, and the request as it is signed.

use crate::bedrock_headers::{BEDROCKS, CROSSING, is_signed, is_unknown};
use crate::catalogue::{age, choice};
use crate::clock;
use crate::credentials::session_name::SessionName;
use crate::credentials::{Credentials, Session};
use crate::envoy_names::{BODY_SHA256_HEADER, HANDOFF_PROPERTY, HASH_HEADER};
use crate::headers::{Headers, Repeated};
use crate::names::RegionName;
use crate::operation::{Operation, Service};
use crate::region::Region;
use crate::reply::Refusal;
use crate::retention::guard::Admitted;
use crate::sigv4::{self, Scope, Unsigned};
use crate::step::{Context, Forward};
use audit::AttemptFacts;
use serde::{Deserialize, Serialize};

/// Headers that Envoy set and still needs before the signer: its route match fails without the first, and the second becomes
/// the stream id of its access log. The signer drops them.
const ENVOYS_OWN: &[&str] = &["x-forwarded-proto", "x-request-id", ":scheme"];

/// Most handoffs and facts of attempts are not longer, in bytes.
const USUAL_JSON: usize = 512;

/// Longest name of a header that an error repeats.
const MAX_SHOWN_NAME: usize = 64;

/// What the gateway role knows of a call and the signer role needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// The route class.
    pub(crate) class: String,
    /// The only region that may serve the call; absent if every region of the class may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) only_region: Option<RegionName>,
    /// The caller's own session, if the class has sessions by caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<SessionName>,
    pub(crate) operation: Operation,
    pub(crate) labels: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) query: String,
    /// SHA-256 of the body in hexadecimal; absent if no signature needs it, or if Envoy's filter is asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body_sha256: Option<String>,
    /// Whether Envoy's filter is asked for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) envoy_hashes: bool,
    /// Length of the body in bytes, if it is known before the request leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_length: Option<u64>,
    /// The exchange's id, if the call goes through the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relayed: Option<String>,
    /// The inference profiles that may be sent; absent if no rule depends on the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) profiles: Option<Vec<String>>,
    /// What its class demands of the regions' data retention, if the call carries data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retention: Option<Admitted>,
}

impl Handoff {
    /// The service that is called.
    pub(crate) fn service(&self) -> Service {
        self.operation.service()
    }

    /// The model, as the policy means it.
    pub(crate) fn model(&self) -> Option<&str> {
        self.operation.names_model().then(|| self.labels.first().map(String::as_str)).flatten()
    }

    /// Takes the body's hash that Envoy's filter was asked for. Returns whether that was missing so far.
    pub(crate) fn take_hash(&mut self, headers: &Headers) -> Result<bool, Refusal> {
        if !self.envoy_hashes || self.body_sha256.is_some() {
            return Ok(false);
        }
        let is_hash = |hash: &&str| hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let hash = headers.get_only(BODY_SHA256_HEADER)?.and_then(|hash| std::str::from_utf8(hash).ok());
        self.body_sha256 = Some(hash.filter(is_hash).ok_or(Refusal::NotHashed)?.to_owned());
        Ok(true)
    }

    /// Whether the rules let the call go by a profile.
    pub(crate) fn permits(&self, profile: &str) -> bool {
        self.profiles.as_ref().is_none_or(|profiles| profiles.iter().any(|known| known == profile))
    }

    /// The model id as it is sent to a region. `by_profile`: a region has refused to run the model on demand.
    pub(crate) fn sent_id(
        &self,
        region: &Region,
        by_profile: bool,
        context: Context<'_>,
    ) -> Result<Option<String>, Refusal> {
        let Some(id) = self.model() else { return Ok(None) };
        let class = context.policy.class(&self.class);
        if let Some(old) =
            class.and_then(|class| age::refusal(class, (self.operation, Some(id)), &[region.name()], context))
        {
            return Err(old);
        }
        let profile = by_profile.then(|| choice::by_profile(self.operation, id, region, context)).flatten();
        if let Some(profile) = profile.filter(|profile| self.permits(profile)) {
            return Ok(Some(profile));
        }
        let sent = choice::sent_id(self.operation, id, region, context);
        let sent =
            sent.ok_or_else(|| Refusal::NotOfferedHere { model: id.to_owned(), region: region.name().to_string() })?;
        // What is offered may have changed since the rules decided.
        if sent != id && !self.permits(&sent) {
            return Err(Refusal::OtherProfile { model: id.to_owned(), profile: sent.into_owned() });
        }
        Ok(Some(sent.into_owned()))
    }
}

// === the request ===

/// The headers that cross, each at most once. `allowed` are those that the operator lets cross besides the known ones.
pub(crate) fn crossing(all: &Headers, allowed: &[String]) -> Result<Headers, Refusal> {
    if let Some(name) = all.iter().map(|(name, _)| name).find(|name| is_unknown(name, allowed)) {
        return Err(Refusal::UnknownHeader(name.chars().take(MAX_SHOWN_NAME).collect()));
    }
    let mut headers = Headers::default();
    for name in CROSSING.iter().chain(ENVOYS_OWN).copied().chain(allowed.iter().map(String::as_str)) {
        if let Some(value) = all.get_only(name)? {
            // Envoy joins repeated values of this header.
            if name == "content-type" && value.contains(&b',') {
                return Err(Repeated(name.to_owned()).into());
            }
            if is_signed(name) {
                headers.push(name, visible(name, value)?);
            } else {
                headers.push(name, value);
            }
        }
    }
    Ok(headers)
}

/// The request as it goes to the signer, which builds its own from the handoff: Envoy only needs a complete one.
pub(crate) fn hand_over(handoff: &Handoff, mut headers: Headers) -> Forward {
    let Handoff { operation, labels, query, content_length, .. } = handoff;
    headers.push(":method", operation.method().as_str());
    headers.push(":path", operation.path(labels, query));
    headers.push(":authority", operation.service().name());
    if let Some(length) = content_length {
        headers.push("content-length", length.to_string());
    }
    if handoff.envoy_hashes {
        headers.push(HASH_HEADER, "sha256");
    }
    Forward { headers, states: vec![(HANDOFF_PROPERTY, to_json(handoff))], relayed: None }
}

/// Builds the complete request for a region, to be sent to `host`, and signs it. Nothing else crosses. `model` is the id as it is
/// [sent](Handoff::sent_id).
pub(crate) fn sign(
    handoff: &Handoff,
    model: Option<String>,
    passed: &Headers,
    region: &Region,
    host: &str,
    credentials: &Credentials,
    context: Context<'_>,
) -> Result<(Headers, AttemptFacts), Refusal> {
    let Handoff { operation, labels, query, body_sha256, content_length, .. } = handoff;
    let mut labels = labels.clone();
    if let (Some(sent), Some(id)) = (&model, labels.first_mut()) {
        id.clone_from(sent);
    }
    let now = clock::corrected(context.shared, context.now);
    let path = operation.path(&labels, query);
    let method = operation.method().as_str();

    let mut headers = Headers::default();
    headers.push(":method", method);
    headers.push(":scheme", passed.get(":scheme").unwrap_or(b"https"));
    headers.push(":authority", host);
    headers.push(":path", path.as_str());
    let mut signed = Vec::new();
    // Of Bedrock's own, the gateway role has left those that cross.
    for (name, value) in passed.iter().filter(|(name, _)| CROSSING.contains(name) || name.starts_with(BEDROCKS)) {
        if is_signed(name) {
            let value = visible(name, value)?;
            headers.push(name, value.as_str());
            signed.push((name, value));
        } else {
            headers.push(name, value);
        }
    }
    let signed: Vec<(&str, &str)> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if let Some(length) = content_length {
        headers.push("content-length", length.to_string());
    }
    match (credentials, body_sha256) {
        (Credentials::ApiKey(key), _) => {
            let (name, value) = sigv4::bearer(key);
            headers.push(name, value);
        }
        (Credentials::Keys(keys), Some(body_sha256)) => {
            let request = Unsigned { method, host, path: &path, headers: &signed, body_sha256 };
            for (name, value) in
                sigv4::sign(request, keys, Scope { service: sigv4::BEDROCK, region: region.name().as_str() }, now)?
            {
                headers.push(name, value);
            }
        }
        (Credentials::Keys(_), None) => return Err(Refusal::NotPassed("no body hash")),
    }
    let (access_key_id, session) = match credentials {
        Credentials::Keys(keys) => (Some(keys.access_key_id.clone()), keys.session.clone()),
        Credentials::ApiKey(_) => (None, Session::default()),
    };
    let facts = AttemptFacts {
        model,
        region: region.name().to_string(),
        access_key_id,
        session: session.arn,
        token_id: session.token_id,
        ..AttemptFacts::default()
    };
    Ok((headers, facts))
}

/// The value of a header that is signed. A tab is white space as a blank is (RFC 9110, 5.6.3); signatures know blanks only.
fn visible(name: &str, value: &[u8]) -> Result<String, Refusal> {
    let text = std::str::from_utf8(value).ok();
    let text = text.filter(|text| text.bytes().all(|b| b.is_ascii_graphic() || matches!(b, b' ' | b'\t')));
    let text = text.ok_or_else(|| Refusal::HeaderValue(name.to_owned()))?;
    Ok(text.trim_matches([' ', '\t']).replace('\t', " "))
}

pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut json = Vec::with_capacity(USUAL_JSON);
    // These types are maps of strings and numbers; serialising them cannot fail.
    serde_json::to_writer(&mut json, value).map(|()| json).unwrap_or_default()
}
