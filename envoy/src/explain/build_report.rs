//! Makes the report from a dry run.

use filter_core::config::{Principal, RegionOrder};
use filter_core::names::RegionName;
use filter_core::operation::Operation as CoreOperation;
use filter_core::reply::Reply;

use super::compare::compare;
use super::dry_run::{Decision, DryRun, ForwardedCall, Outcome};
use super::path_choice::{PathChoice, is_chosen};
use super::report::{
    Answer, Attempt, Comparison, Limits, Line, Model, Operation, OwnAnswer, RecordedRoute, Refusal, RegionModel,
    Report, Route, Stages, Try,
};
use super::request::Request;
use super::routes::{self, Endpoint};
use super::signature::{SentRequest, Signature};
use super::subject::Subject;
use super::{aws, lists, mask, reasons};

/// Headers that the gateway sets, whatever the client sends.
const SET_BY_GATEWAY: [&str; 3] = ["authorization", "x-amz-date", "x-amz-security-token"];

/// What is said of the gateway's own answers.
const FRESH: &str =
    "the answer is that of a gateway that has just started: it has read no list, and no region throttles";

/// What to explain besides the request.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// `--path`; empty: every path.
    pub paths: Vec<PathChoice>,
    /// `--region`; `None`: the first.
    pub region: Option<RegionName>,
    /// The body of AWS's refusal.
    pub aws: Option<aws::Refused>,
}

/// `--region` names a region that the call does not go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--region {region}: the call does not go there{paths}; it goes to {known}")]
pub struct NotThere {
    region: RegionName,
    paths: &'static str,
    known: String,
}

// === impl Choice ===

impl Choice {
    fn has(&self, endpoint: &Endpoint) -> bool {
        is_chosen(&self.paths, endpoint.path, endpoint.service, &endpoint.region)
    }

    /// The first endpoint of each cluster, without repetitions of a host.
    fn first_endpoints<'a>(&self, routes: &'a [routes::Route]) -> Result<Vec<&'a Endpoint>, NotThere> {
        let in_region = |endpoint: &&Endpoint| self.region.as_ref().is_none_or(|own| *own == endpoint.region);
        let mut firsts: Vec<&Endpoint> = Vec::new();
        for route in routes {
            let first = route.endpoints.iter().filter(|endpoint| self.has(endpoint)).find(in_region);
            firsts.extend(first.filter(|first| {
                firsts.iter().all(|known| (&known.region, &known.host) != (&first.region, &first.host))
            }));
        }
        match &self.region {
            Some(region) if firsts.is_empty() => Err(self.not_there(region, routes)),
            _ => Ok(firsts),
        }
    }

    fn not_there(&self, region: &RegionName, routes: &[routes::Route]) -> NotThere {
        let endpoints = routes.iter().flat_map(|route| &route.endpoints).filter(|endpoint| self.has(endpoint));
        let mut known: Vec<&str> = endpoints.map(|endpoint| endpoint.region.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        NotThere {
            region: region.clone(),
            paths: if self.paths.is_empty() { "" } else { " by the paths of --path" },
            known: if known.is_empty() { "no region".to_owned() } else { known.join(", ") },
        }
    }
}

// === impl Report ===

impl Report {
    /// Explains a request.
    ///
    /// # Errors
    /// [`NotThere`] if the call does not go to the region that was asked for.
    pub fn build(run: &DryRun<'_>, subject: &Subject, choice: &Choice) -> Result<Self, NotThere> {
        let decision = run.decide(subject);
        let mut report = Self { notes: notes(run, subject, &decision), request: line(subject), ..Self::default() };
        report.operation = decision.operation.map(|one| Operation { name: one.name(), service: one.service().name() });
        report.model = decision
            .model
            .as_deref()
            .map(|named| Model { id: reasons::model(run.config, run.policy, named), regions: Vec::new() });
        let resolved = report.model.as_ref().and_then(|model| model.id.resolved.clone());
        report.classes = run.verdicts(&decision, resolved.as_deref());
        report.rules = run.judgement(&decision, resolved.as_deref());
        report.notes.extend(run.retention_note(&decision, resolved.as_deref()));
        report.limits = run.class(&decision).map(|class| Limits {
            requests_per_minute: class.limits().requests_per_minute,
            tokens_per_minute: class.limits().tokens_per_minute,
            concurrent_calls: class.limits().concurrent_calls,
            max_body_bytes: run.policy.max_body_bytes,
            bandwidth_kbps: class.bandwidth_kbps(),
            first_byte_timeout_ms: class.first_byte_timeout().map(|time| time.as_millis()),
            catalogue_max_age_seconds: run.rule(class.name()).and_then(|rule| rule.catalogue_max_age_seconds),
            dscp: class.dscp(),
        });
        let mut signatures = Vec::new();
        match &decision.outcome {
            Outcome::Forwarded(call) => {
                signatures = report.follow(run, &decision, call, subject, choice)?;
                let because = decision.operation.map(|one| lists::of_bedrock(run.config, run.policy, one));
                report.answer = because.filter(|because| !because.is_empty()).map(Answer::of_bedrock);
            }
            Outcome::Answered(answer) => {
                let because = lists::of_gateway(run.config, run.policy, run.principal.as_deref());
                report.answer = Some(Answer::of_gateway(answer, because));
                report.notes.push(FRESH.to_owned());
            }
            Outcome::Refused(reply) => report.refusal = Some(Refusal::new(reply)),
        }
        report.aws = choice.aws.as_ref().map(|refused| Comparison::new(refused, &signatures, run.example_key));
        report.record = match subject {
            Subject::Record(record) => Some(report.recorded_route(&record.record)),
            Subject::Request(_) => None,
        };
        Ok(report)
    }

    /// Adds the routes and first attempts of a call that is forwarded. Returns the signatures of the attempts.
    fn follow(
        &mut self,
        run: &DryRun<'_>,
        decision: &Decision,
        call: &ForwardedCall,
        subject: &Subject,
        choice: &Choice,
    ) -> Result<Vec<Signature>, NotThere> {
        let routes = run.routes(call);
        if let (Some(model), Some(operation)) = (&mut self.model, decision.operation) {
            model.regions = region_models(run, operation, &model.id, &routes);
        }
        if run.class(decision).is_some_and(|class| class.region_order() == RegionOrder::Fastest) && routes.len() > 1 {
            let note = "which region is first depends on what the gateway has measured (`region_order: fastest`)";
            self.notes.push(note.to_owned());
        }
        for (kept, key, weights) in decision.class.as_deref().map(|class| run.sticky_weights(class)).unwrap_or_default()
        {
            self.notes.push(format!("the caller's calls keep the first {kept} that `{key}` ({weights}) give its name"));
        }
        self.relay.clone_from(&call.relay);
        let firsts = choice.first_endpoints(&routes)?;
        self.routes = routes.iter().map(|route| Route::new(route, choice)).collect();
        match subject {
            Subject::Request(request) => Ok(self.attempt(run, call, request, &firsts)),
            Subject::Record(_) => Ok(Vec::new()),
        }
    }

    fn attempt(
        &mut self,
        run: &DryRun<'_>,
        call: &ForwardedCall,
        request: &Request,
        endpoints: &[&Endpoint],
    ) -> Vec<Signature> {
        self.notes.extend(credentials_note(run).map(str::to_owned));
        let mut signatures = Vec::new();
        for endpoint in endpoints {
            match run.send(call, endpoint) {
                Ok(sent) => {
                    let signature = run.signature(call, endpoint, &sent);
                    self.attempts.push(Attempt::new(endpoint, &sent, signature.as_ref(), request));
                    signatures.extend(signature);
                }
                Err(reply) => self.refusal = Some(Refusal::new(&reply)),
            }
        }
        signatures
    }

    /// The route in a record, compared with the one that the document gives now.
    fn recorded_route(&self, record: &audit::AuditRecord) -> RecordedRoute {
        let mut differs = Vec::new();
        let class = self.classes.iter().find(|verdict| verdict.takes).map(|verdict| verdict.class.as_str());
        if record.route_class.as_deref() != class {
            let now = class.map_or("no class takes the call".to_owned(), |class| format!("class {class} takes it"));
            differs.push(format!("class: with this document {now}"));
        }
        let mut tries = self.routes.iter().flat_map(|route| &route.tries);
        if let (Some(path), Some(region)) = (&record.path, &record.region)
            && !tries.any(|one| one.path.as_str() == path && one.region.as_str() == region)
        {
            differs.push(format!("{path} in {region}: with this document the call does not go there"));
        }
        RecordedRoute {
            class: record.route_class.clone(),
            path: record.path.clone(),
            region: record.region.clone(),
            differs,
        }
    }
}

/// Says which credentials sign the attempts, if they are not the environment's keys.
fn credentials_note(run: &DryRun<'_>) -> Option<&'static str> {
    if !run.signs() {
        return Some("`auth` is bearer: the API key is sent as it is, and no signature is made");
    }
    run.example_key.then_some("the environment has no AWS_ACCESS_KEY_ID: signed with AWS's documented example key")
}

fn line(subject: &Subject) -> Line {
    match subject {
        Subject::Request(request) => Line {
            method: Some(request.method.clone()),
            path: Some(request.path.clone()),
            body_bytes: request.body.len() as u64,
        },
        Subject::Record(record) => Line { body_bytes: record.record.bytes_in, ..Line::default() },
    }
}

fn notes(run: &DryRun<'_>, subject: &Subject, decision: &Decision) -> Vec<String> {
    let mut notes = Vec::new();
    let sources: &[Principal] = run.principal_sources();
    match &run.principal {
        Some(name) if sources.is_empty() => {
            notes.push(format!(
                "`principal` of the document is empty: in the gateway the caller has no name, here it is {name}"
            ));
        }
        None if !sources.is_empty() => notes.push("the caller has no name; give one with --principal".to_owned()),
        _ => {}
    }
    if !run.policy.groups.is_empty() && run.groups.is_empty() {
        notes.push("the caller is in no group; give each with --group".to_owned());
    }
    if run.policy.catalogue.is_some() && decision.operation.is_some_and(CoreOperation::names_model) {
        notes.push(
            "what the regions offer (`catalogue`) is not known here: the gateway may send another profile, or refuse the model"
                .to_owned(),
        );
    }
    if let Some(runs) = &decision.runs {
        notes.push(format!("`resolve.runs` says that the resource runs {}", runs.replace(',', ", ")));
    }
    let asks = run.policy.resolve.as_ref().is_some_and(|rules| rules.refresh.is_some());
    let names_resource = decision.model.as_deref().is_some_and(|model| {
        let id = run.config.aliases.get(model).map_or(model, String::as_str);
        !filter_core::model::is_resolved(id)
    });
    if asks && names_resource && decision.runs.is_none() {
        notes.push(
            "what the resource runs is not known here (`resolve`): where a rule depends on it, the gateway asks Bedrock and judges every model; \
             an entry of `resolve.runs` shows here what that would decide"
                .to_owned(),
        );
    }
    if let Subject::Record(record) = subject {
        if decision.announced.is_some_and(|length| length > 0) {
            notes.push("a record does not say whether the length of the body was announced: here it was".to_owned());
        }
        if run.policy.rules.limit_bodies() {
            notes.push("a record has no body: limits of rules are judged as for an empty one".to_owned());
        }
        if !record.operation.names_model() {
            notes.push(
                "a record has no ids but the model's: an ARN in the path or a guardrail sends a call to its own region"
                    .to_owned(),
            );
        }
    }
    notes
}

/// The model as each region gets it.
fn region_models(
    run: &DryRun<'_>,
    operation: CoreOperation,
    model: &reasons::Model,
    routes: &[routes::Route],
) -> Vec<RegionModel> {
    let id = model.resolved.as_deref().unwrap_or_default();
    let mut models: Vec<RegionModel> = Vec::new();
    for endpoint in routes.iter().flat_map(|route| &route.endpoints) {
        if models.iter().all(|known| known.region != endpoint.region) {
            models.push(RegionModel {
                region: endpoint.region.clone(),
                model: endpoint.model.clone().unwrap_or_default(),
                because: reasons::profile(run.config, operation, id, &endpoint.region),
            });
        }
    }
    models
}

// === impl parts of the report ===

impl Route {
    fn new(route: &routes::Route, choice: &Choice) -> Self {
        let tries = route.endpoints.iter().map(|endpoint| Try {
            path: endpoint.path,
            region: endpoint.region.clone(),
            host: endpoint.host.clone(),
            given: choice.has(endpoint),
        });
        Self {
            cluster: route.cluster.clone(),
            path_weight: route.path_weight,
            region_weight: route.region_weight,
            tries: tries.collect(),
        }
    }
}

impl Refusal {
    fn new(reply: &Reply) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let headers = reply.headers("").into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
        Self { status: reply.status, headers, body: text(reply.body("")) }
    }
}

impl Answer {
    fn of_bedrock(because: Vec<String>) -> Self {
        Self { own: None, because }
    }

    fn of_gateway(answer: &filter_core::reply::Answer, because: Vec<String>) -> Self {
        let body = serde_json::from_slice(&answer.body).unwrap_or_default();
        Self { own: Some(OwnAnswer { status: answer.status, body }), because }
    }
}

impl Attempt {
    fn new(endpoint: &Endpoint, sent: &SentRequest, signature: Option<&Signature>, request: &Request) -> Self {
        let crosses = |name: &str| name == "host" || (sent.header(name).is_some() && !SET_BY_GATEWAY.contains(&name));
        let names = request.headers.iter().map(|(name, _)| name);
        let mut headers = vec![("host".to_owned(), sent.host.clone())];
        headers.extend(sent.headers.iter().map(|(name, value)| (name.clone(), mask::header(name, value))));
        Self {
            path: endpoint.path,
            region: endpoint.region.clone(),
            host: endpoint.host.clone(),
            signature: signature.map(|stages| Stages {
                canonical_request: mask::canonical_request(&stages.canonical_request),
                string_to_sign: stages.string_to_sign.clone(),
                signature: stages.signature.clone(),
            }),
            request_line: format!("{} {} HTTP/1.1", sent.method, sent.path),
            kept_back: names.filter(|name| !crosses(name)).cloned().collect(),
            headers,
        }
    }
}

impl Comparison {
    /// Compares AWS's texts with the attempt that has the fewest differences.
    fn new(refused: &aws::Refused, signatures: &[Signature], example_key: bool) -> Self {
        let (canonical, to_sign) = (refused.canonical_request.as_deref(), refused.string_to_sign.as_deref());
        let code = refused.code.clone();
        if canonical.is_none() && to_sign.is_none() {
            return Self { code, differences: Vec::new(), meaning: Some(refused.meaning().to_owned()) };
        }
        let compared = signatures.iter().map(|ours| compare(ours, canonical, to_sign));
        let Some(differences) = compared.min_by_key(Vec::len) else {
            let meaning = "the gateway makes no signature for this request, so there is nothing to compare".to_owned();
            return Self { code, differences: Vec::new(), meaning: Some(meaning) };
        };
        let same = "AWS signs the same text as the gateway: the secret access key is not the one of this access key id";
        let meaning = differences.is_empty().then(|| {
            if example_key { format!("{same}, or AWS refused another attempt than this one") } else { same.to_owned() }
        });
        Self { code, differences, meaning }
    }
}
