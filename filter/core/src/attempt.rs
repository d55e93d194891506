//! One attempt of a call upstream (role `signer`): signs it for the endpoint that Envoy chose, and decides whether its response
//! is worth another attempt.

mod on_demand;

pub use on_demand::MAX_REFUSAL;

use crate::breaker::Breaker;
use crate::catalogue::{age, choice};
use crate::clock;
use crate::config::{RegionOrder, RetentionMode};
use crate::credentials::id::CredentialId;
use crate::credentials::store::CredentialStatus;
use crate::envoy_names::{ATTEMPT_PROPERTY, HANDOFF_PROPERTY};
use crate::handoff::{Handoff, sign, to_json};
use crate::headers::Headers;
use crate::latency::Latency;
use crate::metrics::{Sample, breaker_opened};
use crate::names::{PathName, RegionName};
use crate::reply::Refusal;
use crate::retention::guard::carries_data;
use crate::route::RouteClass;
use crate::step::{Context, Forward, RequestStep};
use audit::{AttemptFacts, Resigned};
use std::time::{Duration, SystemTime};

/// What Envoy knows of an attempt.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttemptInput<'a> {
    /// Filter state that the gateway role left.
    pub handoff: Option<&'a [u8]>,
    /// Filter state that the previous attempt left.
    pub previous: Option<&'a [u8]>,
    /// The endpoint's path label.
    pub path: Option<&'a [u8]>,
    /// The endpoint's region label.
    pub region: Option<&'a [u8]>,
}

/// One attempt of a call upstream.
#[derive(Debug, Default)]
pub struct Attempt {
    sent: Option<Sent>,
    /// Since when it waits for new credentials.
    waits_since: Option<SystemTime>,
}

/// What was sent.
#[derive(Debug)]
struct Sent {
    handoff: Handoff,
    region: RegionName,
    /// The generation of the credentials; 0 where they are never fetched.
    generation: u64,
    facts: AttemptFacts,
    /// Whether it is the trial of its region's breaker, and has no outcome yet.
    trial: bool,
    /// Since when its response is waited for, if its time matters and is not known yet.
    timed: Option<SystemTime>,
}

/// What to do after a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RetryDecision {
    /// Whether Envoy should make another attempt.
    pub retry: bool,
    /// The region that this attempt must not go to; absent: Envoy takes the next endpoint, which may be another path of the same
    /// region. Envoy takes the first such region of an exchange only.
    pub leave: Option<RegionName>,
    /// The new value of [`ATTEMPT_PROPERTY`] for the next attempt, if it changes.
    pub state: Option<Vec<u8>>,
    /// What the response adds to the metrics.
    pub samples: Vec<Sample>,
    /// What the response has taught, for the log.
    pub learnt: Option<String>,
}

// === impl Attempt: the request ===

impl Attempt {
    /// Signs the request for the endpoint. `headers` are the request's current ones, which an earlier attempt may have
    /// changed. After [`RequestStep::AwaitCredentials`], call it again with the same arguments.
    pub fn request(&mut self, headers: &Headers, input: AttemptInput<'_>, context: Context<'_>) -> RequestStep {
        self.signed(headers, input, context).unwrap_or_else(|refusal| RequestStep::Reply(refusal.reply()))
    }

    fn signed(
        &mut self,
        headers: &Headers,
        input: AttemptInput<'_>,
        context: Context<'_>,
    ) -> Result<RequestStep, Refusal> {
        let handoff = input.handoff.ok_or(Refusal::NotPassed("no handoff in filter state"))?;
        let mut handoff: Handoff =
            serde_json::from_slice(handoff).map_err(|_| Refusal::NotPassed("unreadable handoff in filter state"))?;
        let class =
            context.policy.class(&handoff.class).ok_or(Refusal::NotPassed("a route class that it does not know"))?;
        let hashed = handoff.take_hash(headers)?;
        // Envoy's clusters should hold only the class's endpoints. A class without the internet must not depend on that.
        let foreign = |kind, label: &[u8]| Refusal::ForeignEndpoint {
            kind,
            label: String::from_utf8_lossy(label).into_owned(),
            class: handoff.class.clone(),
        };
        let label = input.path.ok_or(Refusal::NotPassed("the endpoint has no path label"))?;
        let path = class.paths().iter().find(|path| path.as_str().as_bytes() == label);
        let path = *path.ok_or_else(|| foreign("path", label))?;
        let label = input.region.ok_or(Refusal::NotPassed("the endpoint has no region label"))?;
        let region = allowed_regions(class, &handoff).find(|region| region.as_str().as_bytes() == label);
        let region =
            region.and_then(|name| context.policy.region(name.as_str())).ok_or_else(|| foreign("region", label))?;
        let retention = checked_retention(class, &handoff, region.name(), context)?;
        let previous = input.previous.and_then(|facts| serde_json::from_slice::<AttemptFacts>(facts).ok());
        let previous = previous.unwrap_or_default();
        let id = credential_id(class, &handoff);
        let status = context.credentials.status(&id, context.shared, context.now);
        let (credentials, generation) = match status {
            CredentialStatus::Missing => return Err(Refusal::NoCredentials),
            CredentialStatus::Expired => return Err(Refusal::ExpiredCredentials),
            CredentialStatus::Pending | CredentialStatus::Queued(_) => {
                context.credentials.miss(&id, context.shared);
                return self.wait(context, Refusal::PendingCredentials);
            }
            // The previous attempt's credentials were refused: wait for others.
            CredentialStatus::Usable { generation, .. }
                if previous.resigned == Some(Resigned::Credentials(generation)) =>
            {
                return self.wait(context, Refusal::ExpiredCredentials);
            }
            CredentialStatus::Usable { credentials, generation } => (credentials, generation),
        };
        let host = region.host(path, handoff.service());
        let by_profile = previous.refused_on_demand.is_some();
        let sent = handoff.sent_id(region, by_profile, context)?;
        let (headers, facts) = sign(&handoff, sent, headers, region, &host, &credentials, context)?;
        let mut tried = previous.tried;
        tried.push(place(path, region.name()));
        let AttemptFacts { resigned, refused_on_demand, .. } = previous;
        let retention = retention.map(|mode| mode.as_str().to_owned());
        let facts = AttemptFacts { tried, resigned, refused_on_demand, retention, ..facts };
        let mut states = vec![(ATTEMPT_PROPERTY, to_json(&facts))];
        if hashed {
            // The next attempt gets the headers that this one leaves, without the hash.
            states.push((HANDOFF_PROPERTY, to_json(&handoff)));
        }
        let mut sent = Sent { region: region.name().clone(), handoff, generation, facts, trial: false, timed: None };
        // A body that still streams may never end, so a call with one is not a trial.
        let complete = sent.handoff.body_sha256.is_some() || sent.handoff.content_length == Some(0);
        sent.timed = (class.region_order() == RegionOrder::Fastest && complete).then_some(context.now);
        sent.trial = complete && sent.breaker(context).is_some_and(|breaker| breaker.begin_trial());
        self.sent = Some(sent);
        Ok(RequestStep::Forward(Forward { headers, states, relayed: None }))
    }

    /// Waits for credentials, as long as the policy allows.
    fn wait(&mut self, context: Context<'_>, otherwise: Refusal) -> Result<RequestStep, Refusal> {
        let since = *self.waits_since.get_or_insert(context.now);
        let waited = context.now.duration_since(since).unwrap_or_default();
        if waited < context.policy.credentials_wait { Ok(RequestStep::AwaitCredentials) } else { Err(otherwise) }
    }

    /// The exchange's id, if the call came through the relay.
    pub fn relayed(&self) -> Option<&str> {
        self.sent.as_ref()?.handoff.relayed.as_deref()
    }

    /// Whether the request is signed. Nothing of it may leave before.
    pub fn is_signed(&self) -> bool {
        self.sent.is_some()
    }
}

// === impl Attempt: the response ===

impl Attempt {
    /// Takes the response's headers, and tells the region's breaker. Throttling (429) and unavailability (503) are retried if
    /// an endpoint is left to try, a refused signature (403) once with new credentials or a corrected clock.
    pub fn response(&mut self, headers: &Headers, context: Context<'_>) -> RetryDecision {
        let Some(sent) = &mut self.sent else { return RetryDecision::default() };
        let status = headers.get_str(":status").unwrap_or_default();
        sent.answered(status, context);
        if matches!(status, "429" | "503") {
            sent.trial = false;
            return Self::unavailable(sent, status == "429", headers, context);
        }
        // A refusal of the client's call is an answer too. Other failures say nothing about the region.
        if status.starts_with(['2', '3', '4']) {
            sent.trial = false;
            if let Some(breaker) = sent.breaker(context) {
                breaker.answered();
            }
        }
        sent.end_trial(context);
        if status.starts_with('2')
            && let Some(class) = context.policy.class(&sent.handoff.class)
        {
            let id = credential_id(class, &sent.handoff);
            context.credentials.accepted(&id, context.shared, sent.generation, context.now);
        }
        if status == "403" { Self::refused(sent, headers, context) } else { RetryDecision::default() }
    }

    /// Whether a response's headers wait for the first byte of its body: Envoy's router ends an attempt by its time-out only while
    /// it has no headers, and a stream may stall after them.
    pub fn holds_headers(&self, headers: &Headers, context: Context<'_>) -> bool {
        let class = self.sent.as_ref().and_then(|sent| context.policy.class(&sent.handoff.class));
        class.is_some_and(|class| class.first_byte_timeout().is_some())
            && headers.get_str(":status").is_some_and(|status| status.starts_with('2'))
    }

    /// Whether its end matters: see [`Attempt::end`].
    pub fn waits_for_end(&self) -> bool {
        self.sent.as_ref().is_some_and(|sent| sent.trial || sent.timed.is_some())
    }

    /// The attempt is over, with or without a response.
    pub fn end(&mut self, context: Context<'_>) {
        if let Some(sent) = &mut self.sent {
            sent.end_trial(context);
            sent.unanswered(context);
        }
    }

    fn unavailable(sent: &Sent, throttled: bool, headers: &Headers, context: Context<'_>) -> RetryDecision {
        let breaker = |region: &RegionName| sent.breaker_in(region, context);
        let retry_after =
            headers.get_str("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let opened = breaker(&sent.region).is_some_and(|breaker| breaker.failed(retry_after));
        let samples = if opened { vec![breaker_opened(sent.region.as_str())] } else { Vec::new() };
        let Some(class) = context.policy.class(&sent.handoff.class) else {
            return RetryDecision { samples, ..RetryDecision::default() };
        };
        let untried =
            |region: &RegionName| class.paths().iter().any(|path| !sent.facts.tried.contains(&place(*path, region)));
        let takes = |region: &RegionName| {
            let takes = |breaker: Breaker<'_>| if throttled { breaker.takes_retries() } else { !breaker.hopeless() };
            untried(region) && breaker(region).is_none_or(takes)
        };
        let retains = |region: &RegionName| checked_retention(class, &sent.handoff, region, context).is_ok();
        // A region that throttles on one path throttles on all.
        let stay = !throttled && takes(&sent.region) && retains(&sent.region);
        let asked = (sent.handoff.operation, sent.handoff.model());
        let serves = |region: &RegionName| {
            choice::serves(asked.0, asked.1, region, context) && !age::is_too_old(class, asked, region, context)
        };
        let others = allowed_regions(class, &sent.handoff).filter(|region| **region != sent.region);
        let mut others = others.filter(|region| serves(region) && retains(region));
        let retry = stay || others.any(takes);
        let leave = (retry && !stay).then(|| sent.region.clone());
        RetryDecision { retry, leave, samples, ..RetryDecision::default() }
    }

    /// Bedrock refused the signature, for expired or invalid credentials or for its time. Either is corrected once in an
    /// exchange.
    fn refused(sent: &Sent, headers: &Headers, context: Context<'_>) -> RetryDecision {
        let error = headers.get_str("x-amzn-errortype").unwrap_or_default();
        let error = error.split(':').next().unwrap_or_default();
        let class = context.policy.class(&sent.handoff.class);
        let renew = |class| {
            let id = credential_id(class, &sent.handoff);
            context.credentials.refused(&id, context.shared, sent.generation, context.now)
        };
        let resigned = match error {
            _ if sent.facts.resigned.is_some() => None,
            "ExpiredTokenException" | "ExpiredToken" | "UnrecognizedClientException" | "InvalidClientTokenId" => {
                class.is_some_and(renew).then_some(Resigned::Credentials(sent.generation))
            }
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed" | "RequestExpired" => {
                clock::learn(context.shared, headers, context.now).then_some(Resigned::Clock)
            }
            _ => None,
        };
        let state = resigned.map(|_| to_json(&AttemptFacts { resigned, ..sent.facts.clone() }));
        RetryDecision { retry: resigned.is_some(), state, ..RetryDecision::default() }
    }
}

impl Sent {
    /// The breaker of the call's model in its region; calls without a model have none.
    fn breaker<'a>(&self, context: Context<'a>) -> Option<Breaker<'a>> {
        self.breaker_in(&self.region, context)
    }

    fn breaker_in<'a>(&self, region: &RegionName, context: Context<'a>) -> Option<Breaker<'a>> {
        let model = self.handoff.model()?;
        Some(Breaker::new(context.shared, region.as_str(), model, context.now))
    }

    /// Takes the time of a response. One that is not a success has no time that says how fast the region is.
    fn answered(&mut self, status: &str, context: Context<'_>) {
        if let Some((latency, class, took)) = self.take_time(context)
            && status.starts_with('2')
        {
            latency.answered(&self.region, class.regions(), took);
        }
    }

    /// Takes the time of an attempt that had no response.
    fn unanswered(&mut self, context: Context<'_>) {
        if let Some((latency, class, took)) = self.take_time(context) {
            latency.unanswered(&self.region, class.regions(), took);
        }
    }

    /// The time since the attempt was sent, once.
    fn take_time<'a>(&mut self, context: Context<'a>) -> Option<(Latency<'a>, &'a RouteClass, Duration)> {
        let took = context.now.duration_since(self.timed.take()?).ok()?;
        let (class, model) = (context.policy.class(&self.handoff.class)?, self.handoff.model()?);
        let streams = self.handoff.operation.streams();
        Some((Latency::new(context.shared, class.name(), model, streams, context.now), class, took))
    }

    /// Gives the trial away, if it has no outcome.
    fn end_trial(&mut self, context: Context<'_>) {
        if std::mem::take(&mut self.trial)
            && let Some(breaker) = self.breaker(context)
        {
            breaker.release_trial();
        }
    }
}

/// The credentials that sign the call.
fn credential_id(class: &RouteClass, handoff: &Handoff) -> CredentialId {
    CredentialId { source: class.credentials().to_owned(), session: handoff.session.clone() }
}

/// The regions of its class that the call may go to.
fn allowed_regions<'a>(class: &'a RouteClass, handoff: &'a Handoff) -> impl Iterator<Item = &'a RegionName> {
    let admitted = |region: &RegionName| handoff.retention.as_ref().is_none_or(|admitted| admitted.has(region));
    let only = |region: &RegionName| handoff.only_region.as_ref().is_none_or(|only| only == region);
    class.regions().iter().filter(move |region| only(region) && admitted(region))
}

/// The data retention mode of the region that an attempt goes to, if its class demands one.
fn checked_retention(
    class: &RouteClass,
    handoff: &Handoff,
    region: &RegionName,
    context: Context<'_>,
) -> Result<Option<RetentionMode>, Refusal> {
    if class.retention().is_none() || !carries_data(handoff.operation) {
        return Ok(None);
    }
    let admitted = handoff.retention.as_ref().ok_or(Refusal::NotPassed("no data retention in the handoff"))?;
    admitted.check(class, region, handoff.model(), context)
}

/// `dx/us-east-1`.
fn place(path: PathName, region: &RegionName) -> String {
    format!("{path}/{region}")
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
