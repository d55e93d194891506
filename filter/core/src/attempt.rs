//! One try of a call upstream (role `signer`): signed for the endpoint that Envoy chose; and whether its answer is worth
//! another try.

use crate::breaker::Breaker;
use crate::clock;
use crate::config::Path;
use crate::credentials::wallet::Found;
use crate::exchange::{ATTEMPT_PROPERTY, Forward, Given, Step};
use crate::handoff::{Handoff, sign, to_json};
use crate::headers::Headers;
use crate::metrics::{Sample, breaker_opened};
use crate::reply::Refusal;
use crate::route::RouteClass;
use audit::{AttemptFacts, Resigned};
use std::time::{Duration, SystemTime};

/// The response header by which the signer asks Envoy for another try (`retriable_headers`). Clients do not see it.
pub const RETRY_HEADER: &str = "x-bedrock-gateway-retry";

/// What Envoy tells of an attempt.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told<'a> {
    /// Filter state that the gateway role left.
    pub handoff: Option<&'a [u8]>,
    /// Filter state that the attempt before left.
    pub previous: Option<&'a [u8]>,
    /// The endpoint's label of its path.
    pub path: Option<&'a [u8]>,
    /// The endpoint's label of its region.
    pub region: Option<&'a [u8]>,
}

/// One try of a call upstream.
#[derive(Debug, Default)]
pub struct Attempt {
    sent: Option<Sent>,
    /// Since when it waits for new credentials.
    waits_since: Option<SystemTime>,
}

/// What went out.
#[derive(Debug)]
struct Sent {
    handoff: Handoff,
    region: String,
    /// The generation of the credentials; 0 where they are never fetched.
    generation: u64,
    facts: AttemptFacts,
}

/// What is to be done with an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Whether Envoy is to try once more.
    pub retry: bool,
    /// What the next attempt is to find in [`ATTEMPT_PROPERTY`], where that is new.
    pub state: Option<Vec<u8>>,
    /// What it adds to the metrics.
    pub samples: Vec<Sample>,
}

impl Attempt {
    /// Signs the request for the endpoint. `headers` are the request's as they stand: an earlier attempt may have changed
    /// them. After [`Step::AwaitCredentials`] it is called again, with the same.
    pub fn request(&mut self, headers: &Headers, told: Told<'_>, given: Given<'_>) -> Step {
        self.signed(headers, told, given).unwrap_or_else(|refusal| Step::Reply(refusal.reply()))
    }

    fn signed(&mut self, headers: &Headers, told: Told<'_>, given: Given<'_>) -> Result<Step, Refusal> {
        let handoff = told.handoff.ok_or(Refusal::NotPassed("no handoff in filter state"))?;
        let handoff: Handoff =
            serde_json::from_slice(handoff).map_err(|_| Refusal::NotPassed("unreadable handoff in filter state"))?;
        let class =
            given.policy.class(&handoff.class).ok_or(Refusal::NotPassed("a route class that it does not know"))?;
        // Envoy's clusters should hold no others. That a class without the internet never takes it does not hang on that.
        let foreign = |kind, label: &[u8]| Refusal::ForeignEndpoint {
            kind,
            label: String::from_utf8_lossy(label).into_owned(),
            class: handoff.class.clone(),
        };
        let label = told.path.ok_or(Refusal::NotPassed("the endpoint has no path label"))?;
        let path = class.paths().iter().find(|path| path.name().as_bytes() == label);
        let path = *path.ok_or_else(|| foreign("path", label))?;
        let label = told.region.ok_or(Refusal::NotPassed("the endpoint has no region label"))?;
        let region = reached(class, &handoff).into_iter().find(|region| region.as_bytes() == label);
        let region = region.and_then(|name| given.policy.region(name)).ok_or_else(|| foreign("region", label))?;
        let previous = told.previous.and_then(|facts| serde_json::from_slice::<AttemptFacts>(facts).ok());
        let previous = previous.unwrap_or_default();
        let found = given.wallet.find(class.credentials(), given.shared, given.now);
        let (credentials, generation) = match found {
            Found::Never => return Err(Refusal::NoCredentials),
            Found::Expired => return Err(Refusal::ExpiredCredentials),
            Found::Awaited => return self.wait(given, Refusal::AwaitedCredentials),
            // Those of the attempt before were refused: there must be others.
            Found::Ready(_, generation) if previous.resigned == Some(Resigned::Credentials(generation)) => {
                return self.wait(given, Refusal::ExpiredCredentials);
            }
            Found::Ready(credentials, generation) => (credentials, generation),
        };
        let host = region.host(path, handoff.service());
        let now = clock::corrected(given.shared, given.now);
        let (headers, facts) = sign(&handoff, headers, region, &host, &credentials, now)?;
        let mut tried = previous.tried;
        tried.push(place(path, region.name()));
        let facts = AttemptFacts { tried, resigned: previous.resigned, ..facts };
        let state = to_json(&facts);
        self.sent = Some(Sent { region: region.name().to_owned(), handoff, generation, facts });
        Ok(Step::Forward(Forward { headers, states: vec![(ATTEMPT_PROPERTY, state)], relayed: None }))
    }

    /// Waits for credentials, within bounds.
    fn wait(&mut self, given: Given<'_>, otherwise: Refusal) -> Result<Step, Refusal> {
        let since = *self.waits_since.get_or_insert(given.now);
        let waited = given.now.duration_since(since).unwrap_or_default();
        if waited < given.policy.credentials_wait { Ok(Step::AwaitCredentials) } else { Err(otherwise) }
    }

    /// The exchange's id, if the call came through the relay.
    pub fn relayed(&self) -> Option<&str> {
        self.sent.as_ref()?.handoff.relayed.as_deref()
    }

    /// Whether the request is signed: nothing of it may go before.
    pub fn is_signed(&self) -> bool {
        self.sent.is_some()
    }

    /// Takes the answer's headers: the breaker of the region learns of it, and 429 and 503 are tried again where there is
    /// somewhere to try.
    pub fn response(&self, headers: &Headers, given: Given<'_>) -> Answered {
        let nothing = Answered::default();
        let Some(sent) = &self.sent else { return nothing };
        let breaker =
            |region: &str| sent.handoff.model().map(|model| Breaker::new(given.shared, region, model, given.now));
        match headers.get_str(":status").unwrap_or_default() {
            "429" | "503" => {}
            "403" => return self.refused(sent, headers, given),
            status => {
                if status.starts_with('2')
                    && let Some(breaker) = breaker(&sent.region)
                {
                    breaker.succeeded();
                }
                return nothing;
            }
        }
        let throttled = headers.get_str(":status") == Some("429");
        let retry_after =
            headers.get_str("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let opened = breaker(&sent.region).is_some_and(|breaker| breaker.failed(retry_after));
        let samples = if opened { vec![breaker_opened(&sent.region)] } else { Vec::new() };
        let Some(class) = given.policy.class(&sent.handoff.class) else {
            return Answered { samples, ..Answered::default() };
        };
        let regions = reached(class, &sent.handoff);
        let untried = |region: &str| class.paths().iter().any(|path| !sent.facts.tried.contains(&place(*path, region)));
        let retry = if throttled {
            // A region that throttles one path throttles all.
            regions
                .iter()
                .filter(|region| **region != sent.region && untried(region))
                .any(|region| breaker(region).is_none_or(|breaker| breaker.takes_retries()))
        } else {
            regions
                .iter()
                .filter(|region| untried(region))
                .any(|region| breaker(region).is_none_or(|breaker| !breaker.hopeless()))
        };
        Answered { retry, samples, state: None }
    }

    /// Bedrock refused the signature: for credentials that are expired or invalid, or for its time. Either is mended once in
    /// an exchange.
    fn refused(&self, sent: &Sent, headers: &Headers, given: Given<'_>) -> Answered {
        let error = headers.get_str("x-amzn-errortype").unwrap_or_default();
        let error = error.split(':').next().unwrap_or_default();
        let set = given.policy.class(&sent.handoff.class).map_or("", RouteClass::credentials);
        let resigned = match error {
            _ if sent.facts.resigned.is_some() => None,
            "ExpiredTokenException" | "ExpiredToken" | "UnrecognizedClientException" | "InvalidClientTokenId" => {
                let renewed = given.wallet.refused(set, given.shared, sent.generation);
                renewed.then_some(Resigned::Credentials(sent.generation))
            }
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed" | "RequestExpired" => {
                clock::learn(given.shared, headers, given.now).then_some(Resigned::Clock)
            }
            _ => None,
        };
        let state = resigned.map(|_| to_json(&AttemptFacts { resigned, ..sent.facts.clone() }));
        Answered { retry: resigned.is_some(), state, samples: Vec::new() }
    }
}

/// The regions that the call may go to.
fn reached<'a>(class: &'a RouteClass, handoff: &Handoff) -> Vec<&'a str> {
    let reach = |region: &&str| handoff.only_region.as_deref().is_none_or(|only| only == *region);
    class.regions().iter().map(String::as_str).filter(reach).collect()
}

/// `dx/us-east-1`.
fn place(path: Path, region: &str) -> String {
    format!("{}/{region}", path.name())
}
