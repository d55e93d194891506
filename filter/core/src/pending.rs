//! A call between its headers and its departure: what it asks for, where it goes, and the request that goes upstream.

use crate::breaker::Breaker;
use crate::catalogue::{age, choice};
use crate::config::{Auth, RegionOrder, Role};
use crate::credentials::Credentials;
use crate::credentials::id::CredentialId;
use crate::encoding::hex;
use crate::envoy_names::{ATTEMPT_PROPERTY, CLASS_HEADER, CLASS_PROPERTY, CLUSTER_HEADER, RELAY_HEADER};
use crate::handoff::{Handoff, hand_over, sign, to_json};
use crate::headers::Headers;
use crate::inventory::Names;
use crate::latency::Latency;
use crate::model::{self, is_name, is_resolved};
use crate::names::{PathName, RegionName};
use crate::operation::{Call, Method, Operation, RegionScope};
use crate::pins::Pins;
use crate::policy::{ModelRefusal, Policy};
use crate::reply::Refusal;
use crate::request_body::Value;
use crate::residency::ResidencyRefusal;
use crate::retention::guard::{Admitted, Guard};
use crate::route::{RegionChoice, RouteClass, point};
use crate::step::{Context, Forward, RelayedCall};
use audit::text::visible;
use sha2::{Digest, Sha256};

/// Longest method and path of a request that matches no operation that are kept, in bytes.
const MAX_UNKNOWN_PATH: usize = 128;

/// A call that only lacks its body.
#[derive(Debug)]
pub(crate) struct PendingCall {
    pub(crate) call: Call,
    pub(crate) headers: Headers,
    pub(crate) route: Route,
    pub(crate) pins: Pins,
}

/// Who hashes a body for the signature.
#[derive(Debug)]
pub(crate) enum Hashing {
    /// No signature needs it.
    Unneeded,
    /// The module, as it reads the body.
    Here(Sha256),
    /// Envoy's filter `bedrock.hash`, when the call leaves.
    Envoys,
}

impl Hashing {
    /// A call's. Its length is known if the client announces it.
    pub(crate) fn of(policy: &Policy, length: Option<u64>) -> Self {
        let by_envoy = length.is_some_and(|length| policy.envoy_hashes.is_some_and(|bounds| bounds.has(length)));
        match policy.auth {
            Auth::Bearer => Self::Unneeded,
            Auth::Sigv4 if by_envoy => Self::Envoys,
            Auth::Sigv4 => Self::Here(Sha256::new()),
        }
    }
}

/// A call that is complete, but for credentials.
#[derive(Debug)]
pub(crate) struct PreparedCall {
    call: Call,
    headers: Headers,
    route: Route,
    scope: RegionScope,
    /// Ids of the projects that it names, without the default one.
    projects: Vec<String>,
    /// In hexadecimal; absent if no signature needs it, or if Envoy hashes the body.
    body_sha256: Option<String>,
    envoy_hashes: bool,
    /// In bytes; absent if it is not known.
    content_length: Option<u64>,
}

/// What the headers decide of where a call is sent. The region is chosen when the call leaves, by what is known then.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    class: String,
    credentials: CredentialId,
    /// The path that is tried first.
    first: PathName,
    /// What decides its region by weight.
    region_key: String,
    call_id: String,
}

/// Where a call goes.
#[derive(Debug)]
struct Destination {
    /// The cluster that tries it.
    cluster: String,
    /// The only region that may serve it.
    only_region: Option<RegionName>,
    /// What it leaves with, if its class demands something of the regions' data retention.
    retention: Option<Admitted>,
}

// === recognition ===

/// The operation and its labels.
pub(crate) fn recognise(headers: &Headers) -> Result<Call, Refusal> {
    let method = headers.get_str(":method").ok_or(Refusal::RequestLine("method"))?;
    let path = headers.get_str(":path").ok_or(Refusal::RequestLine("path"))?;
    Ok(Call::recognise(method, path)?)
}

/// Method and path as a record keeps them. A query may hold anything.
pub(crate) fn unknown_path(headers: &Headers) -> String {
    let text = |name| headers.get(name).map(String::from_utf8_lossy).unwrap_or_default();
    let (method, path) = (text(":method"), text(":path"));
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let line = format!("{method} {path}");
    let mut seen = visible(&line).into_owned();
    if seen.len() > MAX_UNKNOWN_PATH {
        let end = (0..=MAX_UNKNOWN_PATH - '…'.len_utf8()).rev().find(|end| seen.is_char_boundary(*end));
        seen.truncate(end.unwrap_or_default());
        seen.push('…');
    }
    seen
}

/// Puts the model that the policy means into the call.
pub(crate) fn resolve(mut call: Call, context: Context<'_>) -> Result<Call, Refusal> {
    let policy = context.policy;
    if policy.hides_model(call.operation) {
        return Err(Refusal::HiddenModel(call.operation));
    }
    let operation = call.operation;
    if let (true, Some(id)) = (operation.names_model(), call.labels.first_mut()) {
        *id = policy.model_id(id)?.to_owned();
        // What a resource runs is judged when it is known.
        let resolved = is_resolved(id);
        if resolved || policy.resolve.is_none() || policy.depends_on(id).is_none() {
            policy.check_model(id, None).map_err(|refusal| offered(refusal, operation, context))?;
        }
        // What is not checked yet is checked later as it is sent.
        if operation == Operation::CountTokens && resolved {
            *id = model::of_profile(id).to_owned();
        }
    } else if let (true, Some(id)) = (operation.describes_model(), call.labels.first_mut()) {
        *id = policy.to_commercial(id).map_err(ModelRefusal::from)?.to_owned();
    }
    Ok(call)
}

/// A refusal names another id only if some region offers that.
fn offered(mut refusal: ModelRefusal, operation: Operation, context: Context<'_>) -> ModelRefusal {
    if let ModelRefusal::Residency(ResidencyRefusal::Geography { instead, .. }) = &mut refusal {
        let is_offered = |id: &String| {
            let mut regions = context.policy.regions();
            regions.any(|region| choice::serves(operation, Some(id.as_str()), region.name(), context))
        };
        *instead = instead.take().filter(is_offered);
    }
    refusal
}

/// The length of the body, if the client announces it.
pub(crate) fn content_length(headers: &Headers) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get_only("content-length")? else { return Ok(None) };
    let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    Ok(Some(length.ok_or_else(|| Refusal::HeaderValue("content-length".to_owned()))?))
}

// === impl Route ===

impl Route {
    /// The route of a caller's call in its class.
    pub(crate) fn new(
        class: &RouteClass,
        credentials: CredentialId,
        caller: &str,
        call_id: &str,
    ) -> Result<Self, Refusal> {
        let first = class.first_path(caller).ok_or_else(|| no_path(class.name()))?;
        let region_key = class.region_key(caller, call_id).to_owned();
        let class = class.name().to_owned();
        Ok(Self { class, credentials, first, region_key, call_id: call_id.to_owned() })
    }

    /// Where the call goes.
    fn destination(
        &self,
        call: &Call,
        (scope, projects): (&RegionScope, &[String]),
        context: Context<'_>,
    ) -> Result<Destination, Refusal> {
        let class = context.policy.class(&self.class).ok_or(Refusal::NoRouteClass)?;
        let admits = |region: &str| {
            call.model().is_none_or(|model| Breaker::new(context.shared, region, model, context.now).admits())
        };
        let asked = (call.operation, call.model());
        let guard = Guard::of(class, asked, projects, context);
        let retains = |region: &RegionName| guard.as_ref().is_none_or(|guard| guard.admits(region));
        let serves = |region: &RegionName| {
            choice::serves(asked.0, asked.1, region, context) && !age::is_too_old(class, asked, region, context)
        };
        let order = || {
            let mut order = match call.model() {
                Some(model) if class.region_order() == RegionOrder::Fastest => {
                    let streams = call.operation.streams();
                    let latency = Latency::new(context.shared, class.name(), model, streams, context.now);
                    latency.order(class.regions(), point(&[&self.call_id]))
                }
                _ => class.regions_for(&self.region_key),
            };
            order.retain(|region| serves(region) && retains(region));
            order
        };
        let mut choice = class.choose_region(scope, order, admits).ok_or_else(|| no_path(class.name()))?;
        if let Some(guard) = &guard {
            let (first, candidates): (_, Vec<&RegionName>) = match choice {
                RegionChoice::Only(only) => (only, vec![only]),
                RegionChoice::From(first) | RegionChoice::Among(first, _) => (first, class.regions().iter().collect()),
            };
            // In the order are only regions that it may go to. Without any, it is the class's first, and below it is said why a region
            // that retains as demanded does not serve the call.
            let retaining =
                if retains(first) { Some(first) } else { candidates.iter().copied().find(|one| retains(one)) };
            let first = retaining.ok_or_else(|| guard.refusal(&candidates))?;
            if let RegionChoice::From(_) = choice {
                choice = class.among(first, |region| serves(region) && retains(region));
            }
        }
        if let Some(model) = call.model().filter(|_| context.policy.catalogue.is_some()) {
            let (RegionChoice::From(region) | RegionChoice::Only(region) | RegionChoice::Among(region, _)) = choice;
            if !serves(region) {
                let all: Vec<&RegionName> = match choice {
                    RegionChoice::Only(only) => vec![only],
                    RegionChoice::From(_) | RegionChoice::Among(..) => class.regions().iter().collect(),
                };
                let old = age::refusal(class, asked, &all, context);
                return Err(old.unwrap_or_else(|| choice::not_offered(model, &all, context)));
            }
            // Failover leads to the class's other regions in their order, and ends where the signer refuses.
            let next = class.regions().iter().find(|other| *other != region);
            if guard.is_none() && next.is_some_and(|next| !serves(next)) {
                choice = RegionChoice::Only(region);
            }
        }
        Ok(Destination {
            cluster: class.cluster(call.operation.service(), self.first, choice),
            only_region: match choice {
                RegionChoice::Only(region) => Some(region.clone()),
                RegionChoice::From(_) | RegionChoice::Among(..) => None,
            },
            retention: guard.map(|guard| guard.admitted(class.in_order(choice).into_iter().cloned().collect())),
        })
    }
}

fn no_path(class: &str) -> Refusal {
    Refusal::NoPath { class: class.to_owned() }
}

// === impl PendingCall ===

impl PendingCall {
    /// The call with a body that was read as it arrived.
    pub(crate) fn with_body(self, hashing: Hashing, length: u64) -> PreparedCall {
        match hashing {
            Hashing::Unneeded => self.prepared(None, Some(length)),
            Hashing::Here(hasher) => self.prepared(Some(hex(&hasher.finalize())), Some(length)),
            Hashing::Envoys => PreparedCall { envoy_hashes: true, ..self.prepared(None, Some(length)) },
        }
    }

    /// Takes what its body names. Returns the models among it.
    pub(crate) fn name(&mut self, values: Vec<Value>, policy: &Policy) -> Result<Vec<String>, Refusal> {
        let mut named = Vec::new();
        for Value { member, text } in values {
            if member.names != Names::Model {
                self.pins.resource(member.name, &text, policy)?;
                continue;
            }
            let id = policy.resolve_model(&text)?;
            if id != text {
                return Err(Refusal::ModelInBody { place: member.name.to_owned(), id: text, instead: id });
            }
            self.pins.arn(member.name, &id)?;
            // What the document says of a name holds in the first region.
            if is_name(&id) && policy.entry(&id).is_some() && policy.depends_on(&id).is_some() {
                let class = policy.class(&self.route.class).ok_or(Refusal::NoRouteClass)?;
                if let Some(first) = class.regions().first() {
                    self.pins.own_region(member.name, first.as_str())?;
                }
            }
            named.push(id);
        }
        Ok(named)
    }

    /// The call with a body that streams behind the headers.
    pub(crate) fn with_streaming_body(self, announced: Option<u64>) -> PreparedCall {
        self.prepared(None, announced)
    }

    fn prepared(self, body_sha256: Option<String>, content_length: Option<u64>) -> PreparedCall {
        let Self { call, headers, route, pins } = self;
        let (scope, projects) = (pins.scope(&call), pins.into_projects());
        // A request that has no body by its method announces none.
        let content_length = content_length.filter(|length| *length > 0 || call.operation.method() == Method::Post);
        PreparedCall { call, headers, route, scope, projects, body_sha256, envoy_hashes: false, content_length }
    }
}

// === impl PreparedCall ===

impl PreparedCall {
    /// The credentials that the call needs.
    pub(crate) fn credentials(&self) -> &CredentialId {
        &self.route.credentials
    }

    /// The request that goes upstream: to the relay, to the signer, or signed here in role `combined`.
    /// `profiles` are those that may be sent, if the rules depend on them.
    pub(crate) fn depart(
        self,
        exchange_id: &str,
        profiles: Option<Vec<String>>,
        credentials: &Credentials,
        context: Context<'_>,
    ) -> Result<Forward, Refusal> {
        let Self { call, headers, route, scope, projects, body_sha256, envoy_hashes, content_length } = self;
        let Destination { cluster, only_region, retention } = route.destination(&call, (&scope, &projects), context)?;
        let (Call { operation, labels, query }, Route { class, credentials: id, .. }) = (call, route);
        let relay = context.policy.stream_relay.as_deref().filter(|_| operation.streams());
        let relayed = relay.map(|_| exchange_id.to_owned());
        let handoff = Handoff {
            class: class.clone(),
            only_region,
            session: id.session,
            operation,
            labels,
            query,
            body_sha256,
            envoy_hashes,
            content_length,
            relayed,
            profiles,
            retention,
        };
        let mut forward = if context.policy.role == Role::Combined {
            sign_here(&handoff, &headers, credentials, context)?
        } else {
            hand_over(&handoff, headers)
        };
        if let Some(relay) = relay {
            forward.headers.push(RELAY_HEADER, exchange_id);
            forward.headers.push(CLUSTER_HEADER, relay);
            forward.relayed = Some(RelayedCall { cluster, class: class.clone(), handoff: to_json(&handoff) });
        } else {
            forward.headers.push(CLUSTER_HEADER, cluster);
        }
        forward.headers.push(CLASS_HEADER, class.as_str());
        forward.states.push((CLASS_PROPERTY, class.into_bytes()));
        Ok(forward)
    }
}

/// Role `combined`: no signer follows, so the request is signed here, for the one region and every path.
fn sign_here(
    handoff: &Handoff,
    headers: &Headers,
    credentials: &Credentials,
    context: Context<'_>,
) -> Result<Forward, Refusal> {
    let region = context.policy.own_region().ok_or(Refusal::NotConfigured)?;
    let host = region.host_of_all(handoff.service());
    let sent = handoff.sent_id(region, false, context)?;
    let (mut signed, facts) = sign(handoff, sent, headers, region, &host, credentials, context)?;
    // Envoy's route match needs it; the route removes it.
    if let Some(value) = headers.get("x-forwarded-proto") {
        signed.push("x-forwarded-proto", value);
    }
    Ok(Forward { headers: signed, states: vec![(ATTEMPT_PROPERTY, to_json(&facts))], relayed: None })
}
