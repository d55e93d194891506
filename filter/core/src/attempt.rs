//! One try of a call upstream (role `signer`): signed for the endpoint that Envoy chose; and whether its answer is worth
//! another try.

use crate::audit::AttemptFacts;
use crate::breaker::Breaker;
use crate::config::Path;
use crate::exchange::{ATTEMPT_PROPERTY, Forward, Given, Handoff, Step, sign, to_json};
use crate::headers::Headers;
use crate::metrics::{Sample, breaker_opened};
use crate::reply::Refusal;
use crate::route::RouteClass;
use std::time::Duration;

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
}

/// What went out.
#[derive(Debug)]
struct Sent {
    handoff: Handoff,
    region: String,
    /// Every attempt of the exchange, this one included.
    tried: Vec<String>,
}

/// What is to be done with an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answered {
    /// Whether Envoy is to try once more.
    pub retry: bool,
    /// What it adds to the metrics.
    pub samples: Vec<Sample>,
}

impl Attempt {
    /// Signs the request for the endpoint. `headers` are the request's as they stand: an earlier attempt may have changed
    /// them.
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
        let host = region.host(path, handoff.service());
        let (headers, facts) = sign(&handoff, headers, region, &host, given)?;

        let previous = told.previous.and_then(|facts| serde_json::from_slice::<AttemptFacts>(facts).ok());
        let mut tried = previous.unwrap_or_default().tried;
        tried.push(place(path, region.name()));
        let facts = AttemptFacts { tried: tried.clone(), ..facts };
        self.sent = Some(Sent { region: region.name().to_owned(), handoff, tried });
        Ok(Step::Forward(Forward { headers, states: vec![(ATTEMPT_PROPERTY, to_json(&facts))] }))
    }

    /// Takes the answer's headers: the breaker of the region learns of it, and 429 and 503 are tried again where there is
    /// somewhere to try.
    pub fn response(&self, headers: &Headers, given: Given<'_>) -> Answered {
        let nothing = Answered { retry: false, samples: Vec::new() };
        let Some(sent) = &self.sent else { return nothing };
        let status = headers.get_str(":status").unwrap_or_default();
        let breaker =
            |region: &str| sent.handoff.model().map(|model| Breaker::new(given.shared, region, model, given.now));
        match status {
            "429" | "503" => {}
            _ => {
                if status.starts_with('2')
                    && let Some(breaker) = breaker(&sent.region)
                {
                    breaker.succeeded();
                }
                return nothing;
            }
        }
        let retry_after =
            headers.get_str("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let opened = breaker(&sent.region).is_some_and(|breaker| breaker.failed(retry_after));
        let samples = if opened { vec![breaker_opened(&sent.region)] } else { Vec::new() };
        let Some(class) = given.policy.class(&sent.handoff.class) else { return Answered { retry: false, samples } };
        let regions = reached(class, &sent.handoff);
        let untried = |region: &str| class.paths().iter().any(|path| !sent.tried.contains(&place(*path, region)));
        let retry = if status == "429" {
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
        Answered { retry, samples }
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
