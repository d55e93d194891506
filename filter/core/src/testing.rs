//! What the tests of exchanges and attempts share.

use crate::attempt::{Attempt, AttemptInput};
use crate::catalogue::CatalogueStore;
use crate::credentials::shared_credentials::SharedCredentials;
use crate::credentials::store::CredentialStore;
use crate::credentials::{Credentials, Fetched, Keys, Secret, Session};
use crate::exchange::Exchange;
use crate::headers::Headers;
use crate::limits::Worker;
use crate::policy::Policy;
use crate::shared::tests::Memory;
use crate::step::{Context, Forward, RequestEvent, RequestStep, ResponseEvent, ResponseStep};
use serde_json::{Value, json};
use std::time::SystemTime;

pub(crate) const NOW: SystemTime = SystemTime::UNIX_EPOCH;
pub(crate) const MODEL: &str = "anthropic.claude-v2:0";
pub(crate) const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// The id of the exchange.
pub(crate) const ID: &str = "5d9f8e1c-2222-4333-8444-555566667777";

pub(crate) fn policy(role: &str, auth: &str) -> Policy {
    Policy::parse(document(role, auth).to_string().as_bytes(), None).unwrap()
}

/// The document of [`policy`].
pub(crate) fn document(role: &str, auth: &str) -> Value {
    let regions = if role == "combined" { json!(["us-east-1"]) } else { json!(["us-east-1", "us-west-2"]) };
    json!({
        "role": role,
        "auth": auth,
        "regions": {"us-east-1": {}, "us-west-2": {}},
        "region": "us-east-1",
        "inference_profiles": {MODEL: format!("us.{MODEL}")},
        "models": {"deny": ["*forbidden*"]},
        "max_body_bytes": 100,
        "route_classes": [
            {"name": "private-only", "principals": ["spiffe://secret/*"], "paths": ["dx", "vpn"], "regions": ["us-east-1"]},
            {"name": "any", "operations": ["Converse", "InvokeModel", "ListFoundationModels"], "regions": regions,
             "paths": ["dx", "vpn", "internet"]}
        ]
    })
}

pub(crate) fn keys() -> Credentials {
    Credentials::Keys(Keys {
        session: Session {
            arn: Some("arn:aws:sts::111122223333:assumed-role/bedrock-gateway/test".into()),
            token_id: Some("the-token-id".into()),
        },
        ..Keys::new(
            "AKIDEXAMPLE",
            Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            Some(Secret::new("the-token")),
        )
    })
}

pub(crate) fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

/// A Converse call as Envoy shows it, with many headers that must not cross.
pub(crate) fn converse(extra: &[(&str, &str)]) -> Headers {
    let mut all = vec![
        (":authority", "127.0.0.1:10000"),
        (":method", "POST"),
        (":path", "/model/anthropic.claude-v2:0/converse"),
        (":scheme", "http"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "0b4e4b0a-1111-4222-8333-444455556666"),
        ("content-type", "application/json"),
        ("authorization", "AWS4-HMAC-SHA256 Credential=CLIENT/20260102/us-gov-west-1/bedrock/aws4_request, …"),
        ("x-amz-date", "20260102T030405Z"),
        ("x-amz-security-token", "clients-own"),
        ("x-amz-content-sha256", "clients-own"),
        ("x-amz-user-agent", "aws-sdk-js"),
        ("x-amzn-bedrock-trace", "ENABLED"),
        ("x-envoy-retry-on", "5xx"),
        ("x-bedrock-gateway-cluster", "audit-als"),
        ("user-agent", "Boto3"),
        ("cookie", "a=b"),
    ];
    all.extend_from_slice(extra);
    headers(&all)
}

/// An InvokeModel call: nothing in its body matters.
pub(crate) fn invoke(extra: &[(&str, &str)]) -> Headers {
    let path = |name: &str| name == ":path";
    let others =
        converse(extra).iter().filter(|(name, _)| !path(name)).map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
    let mut headers: Headers = others;
    headers.push(":path", "/model/anthropic.claude-v2:0/invoke");
    headers
}

/// A client, and the exchange of its call.
pub(crate) struct Client {
    pub(crate) exchange: Exchange,
    pub(crate) policy: Policy,
    pub(crate) credentials: CredentialStore,
    pub(crate) catalogue: CatalogueStore,
    pub(crate) shared: Memory,
    pub(crate) worker: Worker,
    pub(crate) now: SystemTime,
}

impl Client {
    pub(crate) fn new(role: &str, auth: &str, credentials: Option<Credentials>) -> Self {
        Self::of(policy(role, auth), credentials)
    }

    pub(crate) fn of(policy: Policy, credentials: Option<Credentials>) -> Self {
        let credentials = CredentialStore::fixed(credentials);
        Self {
            exchange: Exchange::new(ID.to_owned()),
            policy,
            credentials,
            catalogue: CatalogueStore::default(),
            shared: Memory::default(),
            worker: Worker::new(1),
            now: NOW,
        }
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            policy: &self.policy,
            credentials: &self.credentials,
            catalogue: &self.catalogue,
            shared: &self.shared,
            worker: &self.worker,
            now: self.now,
        }
    }

    /// Lets the exchange act.
    pub(crate) fn with<T>(&mut self, act: impl FnOnce(&mut Exchange, Context<'_>) -> T) -> T {
        let mut exchange = std::mem::take(&mut self.exchange);
        let done = act(&mut exchange, self.context());
        self.exchange = exchange;
        done
    }

    pub(crate) fn request(&mut self, event: RequestEvent<'_>) -> RequestStep {
        self.with(|exchange, context| exchange.on_request(event, context))
    }

    pub(crate) fn response(&mut self, event: ResponseEvent<'_>) -> ResponseStep {
        self.exchange.on_response(event, self.now)
    }

    pub(crate) fn headers(&mut self, headers: &Headers, end_of_stream: bool) -> RequestStep {
        self.request(RequestEvent::Headers {
            headers,
            principal: Ok(None),
            groups: Ok(Vec::new()),
            end_of_stream,
            address: None,
        })
    }

    pub(crate) fn body(&mut self, chunk: &[u8], end_of_stream: bool) -> RequestStep {
        self.request(RequestEvent::Body { chunk, end_of_stream })
    }
}

pub(crate) fn worker() -> &'static Worker {
    Box::leak(Box::new(Worker::new(1)))
}

pub(crate) fn no_catalogue() -> &'static CatalogueStore {
    Box::leak(Box::default())
}

pub(crate) fn context<'a>(policy: &'a Policy, credentials: Option<&'a Credentials>) -> Context<'a> {
    let credentials = Box::leak(Box::new(CredentialStore::fixed(credentials.cloned())));
    let shared = Box::leak(Box::<Memory>::default());
    Context { policy, credentials, catalogue: no_catalogue(), shared, worker: worker(), now: NOW }
}

/// A first attempt over Direct Connect.
pub(crate) fn attempt(
    headers: &Headers,
    handoff: Option<&[u8]>,
    region: Option<&[u8]>,
    context: Context<'_>,
) -> RequestStep {
    let input = AttemptInput { handoff, previous: None, path: Some(b"dx"), region };
    Attempt::default().request(headers, input, context)
}

pub(crate) fn forwarded(step: RequestStep) -> Forward {
    match step {
        RequestStep::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

/// Status, error type and message.
pub(crate) fn refused(step: RequestStep) -> (u16, &'static str, String) {
    match step {
        RequestStep::Reply(reply) => (reply.status, reply.error, reply.message),
        other => panic!("{other:?}"),
    }
}

/// A document whose credentials are fetched, for a role; and shared credentials without any.
pub(crate) fn fetched(role: &str) -> (Policy, CredentialStore, SharedCredentials) {
    let document = json!({
        "role": role,
        "regions": {"us-east-1": {}},
        "route_classes": [{"name": "any", "paths": ["dx", "vpn"]}],
        "credentials": {"source": "imds", "cluster": "imds"}
    });
    let policy = Policy::parse(document.to_string().as_bytes(), None).unwrap();
    let store = CredentialStore::resolve(&policy.credential_sources, policy.auth, 7, &|_| None).unwrap();
    (policy, store, SharedCredentials::new("default", 7))
}

pub(crate) fn publish(credentials: &SharedCredentials, memory: &Memory, now: SystemTime, seconds: u64) {
    credentials.due(memory, now);
    let expires = Some(now + std::time::Duration::from_secs(seconds));
    credentials.publish(memory, &Fetched { credentials: keys(), expires, certificate: None }, now, 0.0);
}
