//! The gateway's own API: what this Envoy knows of its classes, regions and credentials, and which models a caller may use.
//!
//! It shows what concerns its caller: the classes whose `principals` it matches, and their regions, credentials and models.

use crate::breaker;
use crate::credentials::id::CredentialId;
use crate::credentials::store::CredentialStatus;
use crate::encoding::hex;
use crate::headers::Headers;
use crate::names::{PathName, RegionName};
use crate::operation::CallError;
use crate::policy::{Policy, Viewer};
use crate::reply::Answer;
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
    /// The paths that its calls take, in order.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    paths: &'a [PathName],
    /// Its regions, in order.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    regions: &'a [RegionName],
    /// Its source of credentials.
    credentials: &'a str,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Region<'a> {
    /// Its name.
    name: &'a str,
    /// How many models it throttles, so that new calls for them avoid it.
    throttled_models: usize,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Source<'a> {
    /// Its name: `default`, or a key of `credential_sets`.
    name: &'a str,
    /// Whether calls can be signed.
    state: State,
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

/// `GET /gateway/v1/models`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Models<'a> {
    /// The models that the document names and this caller may use, by id. Others may be usable too: Bedrock lists them.
    models: Vec<Model<'a>>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Model<'a> {
    /// The id that is called.
    id: &'a str,
    /// The operator's names for it.
    aliases: Vec<&'a str>,
    /// The inference profile that is sent, by region. A region without one gets the id.
    profiles: BTreeMap<&'a str, &'a str>,
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
    // Tables of texts: serialising them cannot fail.
    let body = match asked {
        Asked::Status => serde_json::to_vec(&status(viewer.principal, context)),
        Asked::Models => serde_json::to_vec(&models(viewer, context.policy)),
    };
    let body = body.unwrap_or_default();
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
    let regions: BTreeSet<&str> = classes.iter().flat_map(|class| class.regions()).map(RegionName::as_str).collect();
    let sources: BTreeSet<&str> = classes.iter().map(|class| class.credentials()).collect();
    let left: BTreeMap<&str, Duration> = credentials.left(shared, now).into_iter().collect();
    let source = |name: &'a str| {
        let state = match credentials.status(&CredentialId::of_source(name), shared, now) {
            CredentialStatus::Usable { .. } => State::Usable,
            CredentialStatus::Pending | CredentialStatus::Queued(_) => State::Pending,
            CredentialStatus::Expired => State::Expired,
            CredentialStatus::Missing => State::Missing,
        };
        let left = left.get(name).filter(|left| !left.is_zero());
        Source { name, state, expires: left.map(|left| end(now, *left)) }
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
            })
            .collect(),
        regions: regions
            .into_iter()
            .map(|name| Region { name, throttled_models: breaker::throttled_models(shared, name, now) })
            .collect(),
        credentials: sources.into_iter().map(source).collect(),
    }
}

fn models<'a>(viewer: Viewer<'_>, policy: &'a Policy) -> Models<'a> {
    let classes = policy.classes().iter().filter(|class| class.takes_caller(viewer.principal));
    let own: BTreeSet<&RegionName> = classes.flat_map(RouteClass::regions).collect();
    let regions = || policy.regions().filter(|region| own.contains(region.name()));
    let profiled = regions().flat_map(|region| region.profiles().keys());
    let known: BTreeSet<&str> = profiled.chain(policy.aliases().values()).map(String::as_str).collect();
    let model = |id: &'a str| {
        let aliases = policy.aliases().iter().filter(|(_, model)| *model == id).map(|(alias, _)| alias.as_str());
        let profile =
            |region: &'a crate::region::Region| Some((region.name().as_str(), region.profiles().get(id)?.as_str()));
        Model { id, aliases: aliases.collect(), profiles: regions().filter_map(profile).collect() }
    };
    Models { models: known.into_iter().filter(|id| policy.may_use(viewer, id)).map(model).collect() }
}

/// The end of a time that is left, to the second.
fn end(now: SystemTime, left: Duration) -> String {
    let end = Duration::from_millis(millis(now)) + left;
    let end = OffsetDateTime::from(SystemTime::UNIX_EPOCH + Duration::from_secs(end.as_secs()));
    end.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
#[path = "gateway_api_tests.rs"]
mod tests;
