//! The gateway's own API: what this Envoy knows of its classes, regions and credentials, and which models a caller may use
//! ([`models`]).
//!
//! It shows what concerns its caller: the classes whose `principals` it matches, and their regions, credentials and models.

mod models;

use crate::breaker;
use crate::credentials::id::CredentialId;
use crate::credentials::store::CredentialStatus;
use crate::encoding::hex;
use crate::headers::Headers;
use crate::names::{PathName, RegionName};
use crate::operation::CallError;
use crate::policy::Viewer;
use crate::reply::Answer;
use crate::retention::guard;
use crate::route::RouteClass;
use crate::shared::millis;
use crate::step::Context;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const PREFIX: &str = "/gateway/v1/";

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Status,
    Models,
}

/// `GET /gateway/v1/status`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Status<'a> {
    /// The gateway's version.
    version: &'static str,
    /// SHA-256 of the document, without keys that have their default and without `role`: the same on gateways with the same rules.
    document: &'a str,
    /// The route classes that take calls of this caller, in order.
    classes: Vec<Class<'a>>,
    /// Their regions.
    regions: Vec<Region<'a>>,
    /// Their sources of credentials.
    credentials: Vec<Source<'a>>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Class<'a> {
    /// Its name.
    name: &'a str,
    /// The paths that its calls take, in order, as the document has them. Which are up is known to Envoy, and not shown here.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    paths: &'a [PathName],
    /// Its regions, in order.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    regions: &'a [RegionName],
    /// Its source of credentials.
    credentials: &'a str,
    /// The data retention mode of each of its regions, if it demands one: `none`, `aws_review`, `provider_data_share`, `default` (each
    /// model's own) or `unresolved` (not known).
    #[serde(skip_serializing_if = "Option::is_none")]
    data_retention: Option<BTreeMap<&'a str, &'static str>>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Region<'a> {
    /// Its name.
    name: &'a str,
    /// How many models it throttles, by Bedrock's answers to this Envoy, so that new calls for them avoid it.
    throttled_models: usize,
    /// When its lists of models were last read (`catalogue`; RFC 3339, UTC); `null` if they are not polled, or were not read yet.
    lists_read: Option<String>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Source<'a> {
    /// Its name: `default`, or a key of `credential_sets`.
    name: &'a str,
    /// Whether calls can be signed.
    state: State,
    /// When the last credentials were fetched (RFC 3339, UTC); `null` if there are none, or they are the environment's.
    fetched: Option<String>,
    /// Until when the last credentials may be used (RFC 3339, UTC); `null` if they have no known end, or if there are none.
    expires: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum State {
    /// Calls can be signed.
    Usable,
    /// The first ones are being fetched.
    Pending,
    /// They could not be replaced in time.
    Expired,
    /// The environment has none.
    Missing,
}

/// What a request asks for; `None` if its path is of another API.
pub(crate) fn asked(headers: &Headers) -> Option<Result<Asked, CallError>> {
    let rest = headers.get_str(":path")?.split(['?', '#']).next()?.strip_prefix(PREFIX)?;
    Some(match (headers.get_str(":method")?, rest) {
        ("GET", "status") => Ok(Asked::Status),
        ("GET", "models") => Ok(Asked::Models),
        _ => Err(CallError::Unknown),
    })
}

/// The answer to a caller that may read it: 304 if the caller has it already.
pub(crate) fn answer(asked: Asked, headers: &Headers, viewer: Viewer<'_>, context: Context<'_>) -> Answer {
    let body = match asked {
        // A table of texts: serialising it cannot fail.
        Asked::Status => serde_json::to_vec(&status(viewer.principal, context)).unwrap_or_default(),
        Asked::Models => models::body(viewer, context),
    };
    let digest = hex(&Sha256::digest(&body));
    let tag = format!("\"{}\"", digest.get(..32).unwrap_or_default());
    let own = vec![("etag", tag.clone().into_bytes()), ("cache-control", b"private, no-cache".to_vec())];
    let known = |value: &[u8]| {
        String::from_utf8_lossy(value).split(',').any(|given| {
            let given = given.trim();
            given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag
        })
    };
    if headers.iter().any(|(name, value)| name == "if-none-match" && known(value)) {
        return Answer { status: 304, headers: own, body: Vec::new() };
    }
    let mut answer = Answer::json(body);
    answer.headers.extend(own);
    answer
}

fn status<'a>(principal: Option<&str>, context: Context<'a>) -> Status<'a> {
    let Context { policy, credentials, shared, now, .. } = context;
    let classes: Vec<&RouteClass> = policy.classes().iter().filter(|class| class.takes_caller(principal)).collect();
    let regions: BTreeSet<&RegionName> = classes.iter().flat_map(|class| class.regions()).collect();
    let polls = policy.catalogue.as_ref().and_then(|catalogue| catalogue.refresh).is_some();
    let region = |region: &'a RegionName| Region {
        name: region.as_str(),
        throttled_models: breaker::throttled_models(shared, region.as_str(), now),
        lists_read: context.catalogue.polled_at(region).filter(|_| polls).map(at_millis),
    };
    let sources: BTreeSet<&str> = classes.iter().map(|class| class.credentials()).collect();
    let left: BTreeMap<&str, Duration> = credentials.left(shared, now).into_iter().collect();
    let fetched: BTreeMap<&str, u64> = credentials.fetched_at(shared).into_iter().collect();
    let source = |name: &'a str| {
        let state = match credentials.status(&CredentialId::of_source(name), shared, now) {
            CredentialStatus::Usable { .. } => State::Usable,
            CredentialStatus::Pending | CredentialStatus::Queued(_) => State::Pending,
            CredentialStatus::Expired => State::Expired,
            CredentialStatus::Missing => State::Missing,
        };
        let left = left.get(name).filter(|left| !left.is_zero());
        let expires = left.map(|left| text_of(now + *left));
        Source { name, state, fetched: fetched.get(name).map(|at| at_millis(*at)), expires }
    };
    Status {
        version: env!("CARGO_PKG_VERSION"),
        document: policy.digest(),
        classes: classes
            .iter()
            .map(|class| Class {
                name: class.name(),
                paths: class.paths(),
                regions: class.regions(),
                credentials: class.credentials(),
                data_retention: guard::modes(class, context),
            })
            .collect(),
        regions: regions.into_iter().map(region).collect(),
        credentials: sources.into_iter().map(source).collect(),
    }
}

fn at_millis(millis: u64) -> String {
    text_of(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}

/// A time to the second.
fn text_of(time: SystemTime) -> String {
    let seconds = millis(time) / 1000;
    let time = OffsetDateTime::from(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
#[path = "gateway_api_tests.rs"]
mod tests;
