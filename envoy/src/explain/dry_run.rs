//! Runs core as the filter's shell does, without sending anything: the gateway role's decision about a request, and the
//! requests that the signer role would send.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::SystemTime;

use audit::RuleDecision;
use filter_core::attempt::{Attempt, AttemptInput};
use filter_core::catalogue::CatalogueStore;
use filter_core::config::{self, Auth, Config, ConfigError, Principal};
use filter_core::credentials::id::CredentialId;
use filter_core::credentials::source::{CredentialSources, DEFAULT};
use filter_core::credentials::store::{CredentialStatus, CredentialStore};
use filter_core::credentials::{Credentials, Keys};
use filter_core::encoding::hex;
use filter_core::envoy_names::{BODY_SHA256_HEADER, CLUSTER_HEADER, HANDOFF_PROPERTY};
use filter_core::exchange::Exchange;
use filter_core::headers::Headers;
use filter_core::limits::Worker;
use filter_core::operation::{OPERATIONS, Operation};
use filter_core::policy::Policy;
use filter_core::reply::{Answer, Refusal, Reply};
use filter_core::route::{RouteClass, Subject as Call};
use filter_core::shared::Shared;
use filter_core::step::{Context, Forward, RequestEvent, RequestStep};
use sha2::{Digest as _, Sha256};

use super::handoff::Handoff;
use super::reasons::{self, Verdict};
use super::record::Record;
use super::request::Request;
use super::retention::{self, RegionMode};
use super::routes::{self, Endpoint, Route};
use super::rules;
use super::signature::{SentRequest, Signature, Signer, signature};
use super::subject::Subject;

/// Reads a variable of the environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// AWS's example key ("Create a signed AWS API request", AWS IAM User Guide), for an environment without credentials.
const EXAMPLE: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ("AWS_BEARER_TOKEN_BEDROCK", "example"),
];

/// A gateway with a document, at a moment.
#[derive(Debug)]
pub struct DryRun<'a> {
    /// The document as it is written.
    pub config: &'a Config,
    /// The document as the filter compiles it.
    pub policy: &'a Policy,
    /// The caller's name.
    pub principal: Option<String>,
    /// The caller's groups.
    pub groups: Vec<String>,
    /// The time of the call.
    pub now: SystemTime,
    /// Whether the environment has no credentials, and the example is used.
    pub example_key: bool,
    credentials: CredentialStore,
    /// No region was polled for its lists.
    catalogue: CatalogueStore,
    /// The regions' data retention, as far as it is given.
    retention: Vec<RegionMode>,
    worker: Worker,
}

/// What the gateway role decides.
#[derive(Debug)]
pub struct Decision {
    /// The operation, if it was recognised.
    pub operation: Option<Operation>,
    /// The model that the client named.
    pub model: Option<String>,
    /// The length of the body in bytes, as route classes see it.
    pub announced: Option<u64>,
    /// What it runs, if its id does not say that and the document does.
    pub runs: Option<String>,
    /// The class that took the call.
    pub class: Option<String>,
    /// Whether the call was refused because no class took it.
    pub unclassed: bool,
    /// What the rules decided, and the rule; absent if they were not asked.
    pub rules: Option<(RuleDecision, Option<String>)>,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Outcome {
    /// It goes to the signer.
    Forwarded(Box<ForwardedCall>),
    /// The gateway answers it.
    Answered(Answer),
    /// The gateway refuses it.
    Refused(Reply),
}

/// A call as it goes to the signer.
#[derive(Debug)]
pub struct ForwardedCall {
    headers: Headers,
    /// The handoff as filter state.
    state: Vec<u8>,
    handoff: Handoff,
    /// The cluster of the relay, if the call goes through it.
    pub relay: Option<String>,
    /// The cluster that core chose for this call. Where weights decide, another call may get another one.
    pub cluster: String,
}

/// Shared data of an Envoy that has just started: no breaker is open, and no allowance is used up. It keeps nothing,
/// since a call does not read what it wrote.
#[derive(Debug)]
struct FreshData;

impl Shared for FreshData {
    fn get(&self, _: &str) -> Option<(Vec<u8>, u32)> {
        None
    }

    fn set(&self, _: &str, _: &[u8], _: Option<u32>) -> bool {
        true
    }
}

// === impl DryRun: the calls of core ===

impl<'a> DryRun<'a> {
    /// A gateway with a document. Credentials are the environment's or AWS's example, whatever source the document
    /// names.
    ///
    /// # Errors
    /// [`ConfigError`]: the environment has half of a pair, or a value that a header cannot carry.
    pub fn new(
        config: &'a Config,
        policy: &'a Policy,
        principal: Option<String>,
        now: SystemTime,
        environment: Lookup<'_>,
    ) -> Result<Self, ConfigError> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let needed: &[&str] = match policy.auth {
            Auth::Sigv4 => &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
            Auth::Bearer => &["AWS_BEARER_TOKEN_BEDROCK"],
        };
        let example_key = needed.iter().all(|name| set(name).is_none());
        let example =
            |name: &str| EXAMPLE.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let lookup = |name: &str| if example_key { example(name) } else { set(name) };
        let source = config::Credentials::Environment {};
        let sets = config.credential_sets.keys().map(|name| (name.clone(), source.clone())).collect();
        let sources = CredentialSources::compile(&source, &sets, policy.auth)?;
        let credentials = CredentialStore::resolve(&sources, policy.auth, 1, &lookup)?;
        Ok(Self {
            config,
            policy,
            principal,
            groups: Vec::new(),
            now,
            example_key,
            credentials,
            catalogue: retention::known(policy, &[], now),
            retention: Vec::new(),
            worker: Worker::new(1),
        })
    }

    /// The same for a caller in groups.
    #[must_use]
    pub fn in_groups(self, groups: &[String]) -> Self {
        Self { groups: groups.to_vec(), ..self }
    }

    /// The same with regions of these data retention modes.
    #[must_use]
    pub fn with_retention(self, given: &[RegionMode]) -> Self {
        Self { catalogue: retention::known(self.policy, given, self.now), retention: given.to_vec(), ..self }
    }

    fn context(&self) -> Context<'_> {
        Context {
            policy: self.policy,
            credentials: &self.credentials,
            catalogue: &self.catalogue,
            shared: &FreshData,
            worker: &self.worker,
            now: self.now,
        }
    }

    /// What the gateway role decides about a call.
    pub fn decide(&self, subject: &Subject) -> Decision {
        let request = match subject {
            Subject::Request(request) => request.clone(),
            Subject::Record(record) => request_of(record),
        };
        let mut headers = Headers::default();
        headers.push(":method", request.method.as_str());
        headers.push(":scheme", "http");
        headers.push(":path", request.path.as_str());
        // A record has no host, and was not refused for it.
        let host = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        headers.push(":authority", host.map_or(b"localhost".as_slice(), |(_, value)| value.as_slice()));
        for (name, value) in &request.headers {
            headers.push(name.as_str(), value.as_slice());
        }
        let end_of_stream = matches!(subject, Subject::Request(request) if request.body.is_empty());
        let mut exchange = Exchange::new("explained".to_owned());
        let step = self.step(&mut exchange, &headers, &request.body, end_of_stream);
        let outcome = match step {
            RequestStep::Forward(forward) => match ForwardedCall::read(forward, &request.body) {
                Some(call) => Outcome::Forwarded(Box::new(call)),
                None => Outcome::Refused(not_passed("the handoff cannot be read")),
            },
            RequestStep::Reply(reply) => Outcome::Refused(reply),
            RequestStep::Answer(answer) => Outcome::Answered(answer),
            RequestStep::AwaitResolution => {
                let facts = exchange.facts(false);
                let model = facts.model.as_deref().unwrap_or_default();
                Outcome::Refused(Refusal::not_looked_up(config_id(self.config, model)).reply())
            }
            _ => Outcome::Refused(not_passed("an unexpected step")),
        };
        let facts = exchange.facts(false);
        let recognised = facts.operation.as_deref();
        let announced = headers.get_str("content-length").and_then(|length| length.parse().ok());
        Decision {
            operation: OPERATIONS.iter().copied().find(|operation| Some(operation.name()) == recognised),
            model: facts.model,
            announced: if end_of_stream { Some(0) } else { announced },
            class: facts.class,
            rules: facts.rule_decision.map(|decision| (decision, facts.rule)),
            runs: facts.resolved_models,
            unclassed: matches!(&outcome, Outcome::Refused(reply) if *reply == Refusal::NoRouteClass.reply()),
            outcome,
        }
    }

    /// The step that decides the call, after its headers or after its body.
    fn step(&self, exchange: &mut Exchange, headers: &Headers, body: &[u8], end_of_stream: bool) -> RequestStep {
        let (principal, groups) = (Ok(self.principal.clone()), Ok(self.groups.clone()));
        let event = RequestEvent::Headers { headers, principal, groups, end_of_stream, address: None };
        let step = exchange.on_request(event, self.context());
        let unread = RequestEvent::UnreadBody { length: body.len(), end_of_stream: true };
        match step {
            RequestStep::AwaitBody => {
                match exchange.on_request(RequestEvent::Body { chunk: body, end_of_stream: true }, self.context()) {
                    RequestStep::EditBody => {
                        let whole = RequestEvent::WholeBody { body: &mut body.to_vec() };
                        exchange.on_request(whole, self.context())
                    }
                    step => step,
                }
            }
            RequestStep::DiscardBody => exchange.on_request(unread, self.context()),
            // With `auth: bearer` the body streams behind the headers. One that is too long ends the call.
            RequestStep::Forward(forward) if !end_of_stream => match exchange.on_request(unread, self.context()) {
                RequestStep::Reply(reply) => RequestStep::Reply(reply),
                _ => RequestStep::Forward(forward),
            },
            step => step,
        }
    }

    /// The request that the signer role sends to an endpoint.
    ///
    /// # Errors
    /// The reply that the client gets instead.
    pub fn send(&self, call: &ForwardedCall, endpoint: &Endpoint) -> Result<SentRequest, Reply> {
        let input = AttemptInput {
            handoff: Some(&call.state),
            previous: None,
            path: Some(endpoint.path.as_str().as_bytes()),
            region: Some(endpoint.region.as_str().as_bytes()),
        };
        match Attempt::default().request(&call.headers, input, self.context()) {
            RequestStep::Forward(forward) => Ok(SentRequest::from(&forward.headers)),
            RequestStep::Reply(reply) => Err(reply),
            _ => Err(not_passed("an unexpected step")),
        }
    }

    /// The stages of the signature that a request to an endpoint carries; `None` if it carries none.
    pub fn signature(&self, call: &ForwardedCall, endpoint: &Endpoint, sent: &SentRequest) -> Option<Signature> {
        let hash = call.handoff.body_sha256.as_deref()?;
        let keys = self.keys()?;
        let service = filter_core::sigv4::BEDROCK;
        let signer = Signer { keys: &keys, region: endpoint.region.as_str(), service, now: self.now };
        // Stages are shown only if they lead to the signature that core has sent.
        let authorization = sent.header("authorization")?;
        signature(sent, hash, &signer).filter(|stages| authorization.ends_with(&stages.signature))
    }

    /// Every source has the same keys, so those of the default one serve for all.
    fn keys(&self) -> Option<Keys> {
        match self.credentials.status(&CredentialId::of_source(DEFAULT), &FreshData, self.now) {
            CredentialStatus::Usable { credentials: Credentials::Keys(keys), .. } => Some(keys),
            _ => None,
        }
    }
}

/// The id that an alias stands for.
fn config_id<'a>(config: &'a Config, named: &'a str) -> &'a str {
    config.aliases.get(named).map_or(named, String::as_str)
}

// === impl DryRun: what the document says of the call ===

impl DryRun<'_> {
    /// The clusters that the call may be sent to.
    pub fn routes(&self, call: &ForwardedCall) -> Vec<Route> {
        routes::routes(self.config, self.policy, self.principal.as_deref(), &call.handoff)
    }

    /// What the class that took a call demands of the regions' data retention. `model` is the model as resolved.
    pub fn retention_note(&self, decision: &Decision, model: Option<&str>) -> Option<String> {
        retention::note(self.class(decision)?, model, &self.retention, self.context())
    }

    /// The classes up to the one that took the call, each with its reasons. `model` is the model as resolved.
    pub fn verdicts(&self, decision: &Decision, model: Option<&str>) -> Vec<Verdict> {
        let Some(operation) = decision.operation.filter(|_| decision.class.is_some() || decision.unclassed) else {
            return Vec::new();
        };
        let principal = self.principal.as_deref();
        let call = Call { operation, model, principal, body_bytes: decision.announced };
        // A resource has the class of a model that it runs.
        let runs = decision.runs.iter().flat_map(|runs| runs.split(','));
        let taken = |model: &&str| {
            self.policy.route_class(Call { model: Some(model), ..call }).map(RouteClass::name)
                == decision.class.as_deref()
        };
        let model = runs.into_iter().find(taken).or(model);
        reasons::classes(self.config, Call { model, ..call })
    }

    /// What the rules decided, with their reasons. `model` is the model as resolved.
    pub fn judgement(&self, decision: &Decision, model: Option<&str>) -> Option<rules::Verdict> {
        let (decided, rule) = decision.rules.as_ref()?;
        let principal = self.principal.as_deref();
        let call = Call { operation: decision.operation?, model, principal, body_bytes: decision.announced };
        Some(rules::verdict(self.config, (*decided, rule.as_deref()), call, &self.groups))
    }

    /// The class that took a call.
    pub fn class(&self, decision: &Decision) -> Option<&RouteClass> {
        self.policy.class(decision.class.as_deref()?)
    }

    /// A class as the document has it.
    pub fn rule(&self, class: &str) -> Option<&config::RouteClass> {
        self.config.route_classes.iter().find(|rule| rule.name == class)
    }

    /// What the calls of a caller with a name keep in a class (`path`, `region`), the key of the weights that give it, and these.
    pub fn sticky_weights(&self, class: &str) -> Vec<(&'static str, &'static str, String)> {
        let Some(rule) = self.rule(class).filter(|_| self.principal.is_some()) else { return Vec::new() };
        let regions = rule.region_weights.as_ref().filter(|_| rule.region_sticky);
        let paths = rule.weights.as_ref().map(|weights| ("path", "weights", listed(weights)));
        paths.into_iter().chain(regions.map(|weights| ("region", "region_weights", listed(weights)))).collect()
    }

    /// Whether calls are signed.
    pub fn signs(&self) -> bool {
        self.policy.auth == Auth::Sigv4
    }

    /// Where the document takes callers' names from.
    pub fn principal_sources(&self) -> &[Principal] {
        &self.policy.principal
    }
}

// === impl ForwardedCall ===

impl ForwardedCall {
    /// `None` if the forward lacks the cluster or a readable handoff.
    fn read(Forward { mut headers, states, relayed }: Forward, body: &[u8]) -> Option<Self> {
        let state = match &relayed {
            Some(relayed) => relayed.handoff.clone(),
            None => states.into_iter().find(|(name, _)| *name == HANDOFF_PROPERTY).map(|(_, state)| state)?,
        };
        let named = headers.get_str(CLUSTER_HEADER)?.to_owned();
        let (relay, cluster) = match relayed {
            Some(relayed) => (Some(named), relayed.cluster),
            None => (None, named),
        };
        let mut handoff: Handoff = serde_json::from_slice(&state).ok()?;
        if handoff.envoy_hashes {
            let hash = hex(&Sha256::digest(body));
            headers.push(BODY_SHA256_HEADER, hash.as_str());
            handoff.body_sha256 = Some(hash);
        }
        Some(Self { headers, state, handoff, relay, cluster })
    }
}

fn not_passed(why: &'static str) -> Reply {
    Refusal::NotPassed(why).reply()
}

/// A request like that of a record. Of the ids in the path, a record has only the model; the others get a placeholder.
fn request_of(Record { operation, record }: &Record) -> Request {
    let model = record.model_asked.clone().filter(|_| operation.names_model());
    let labels: Vec<String> = model.into_iter().chain(std::iter::repeat_n("1".to_owned(), 4)).collect();
    let length = ("content-length".to_owned(), record.bytes_in.to_string().into_bytes());
    Request {
        method: operation.method().as_str().to_owned(),
        path: operation.path(&labels, ""),
        headers: vec![length],
        body: Vec::new(),
    }
}

/// `dx 90, vpn 10`
fn listed<T: Display>(weights: &BTreeMap<T, u32>) -> String {
    weights.iter().map(|(name, weight)| format!("{name} {weight}")).collect::<Vec<_>>().join(", ")
}
