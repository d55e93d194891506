use crate::credentials::Credentials;
use crate::credentials::Secret;
use crate::headers::Headers;
use crate::intent::IntentError;
use crate::policy::Policy;
use crate::step::{RequestBodyMode, RequestEvent, RequestStep};
use crate::testing::*;
use audit::AuditMode;
use audit::notice::Intent;
use serde_json::json;

/// Converse is audited as `required`, ListFoundationModels as `off`, the rest by default.
fn client(role: &str, auth: &str, credentials: Option<Credentials>) -> Client {
    let class = |name: &str, operation: Option<&str>, audit: &str| {
        let mut class = json!({"name": name, "paths": ["dx"], "audit": audit});
        if let Some(operation) = operation {
            class["operations"] = json!([operation]);
        }
        class
    };
    let document = json!({
        "role": role, "auth": auth, "regions": {"us-east-1": {}}, "max_body_bytes": 100, "audit": {"cluster": "audit"},
        "route_classes": [
            class("recorded", Some("Converse"), "required"),
            class("unseen", Some("ListFoundationModels"), "off"),
            class("rest", None, "best_effort"),
        ],
    });
    Client::of(Policy::parse(document.to_string().as_bytes(), None).unwrap(), credentials)
}

impl Client {
    fn intent(&mut self, answer: Result<(), IntentError>) -> Option<RequestStep> {
        self.with(|exchange, context| exchange.on_intent(answer, context))
    }
}

fn intent_of(step: RequestStep) -> Intent {
    match step {
        RequestStep::RecordIntent(intent) => *intent,
        other => panic!("{other:?}"),
    }
}

fn get(path: &str) -> Headers {
    headers(&[(":method", "GET"), (":path", path)])
}

#[test]
fn nothing_leaves_before_the_intent_is_durable() {
    for role in ["gateway", "combined"] {
        let mut client = client(role, "sigv4", Some(keys()));
        assert_eq!(client.headers(&converse(&[]), false), RequestStep::AwaitBody);
        let intent = intent_of(client.body(b"{}", true));
        assert_eq!((intent.exchange.id.as_str(), intent.exchange.operation.as_deref()), (ID, Some("Converse")));
        assert_eq!(
            (intent.exchange.class.as_deref(), intent.exchange.audit),
            (Some("recorded"), Some(AuditMode::Required))
        );
        // Nothing but the answer lets it go, and it is asked for once.
        assert_eq!(client.request(RequestEvent::Tick), RequestStep::AwaitIntent);
        assert_eq!(client.request(RequestEvent::Trailers), RequestStep::AwaitIntent);
        forwarded(client.intent(Ok(())).unwrap());
        assert_eq!(client.intent(Ok(())), None);
        assert!(client.exchange.has_intent());
    }
}

#[test]
fn refuses_without_an_intent() {
    for (error, wanted) in [
        (IntentError::NoAnswer, "the audit collector did not answer in time"),
        (IntentError::Refused(503), "the audit collector did not record it (status 503)"),
        (IntentError::Call("status 2".to_owned()), "the audit collector cannot be called: status 2"),
    ] {
        let mut client = client("gateway", "sigv4", Some(keys()));
        client.headers(&converse(&[]), false);
        intent_of(client.body(b"{}", true));
        let (status, name, message) = refused(client.intent(Err(error)).unwrap());
        assert_eq!((status, name), (503, "ServiceUnavailableException"));
        assert!(message.contains("'recorded'") && message.contains(wanted), "{message}");
        // An answer that comes late changes nothing, and the collector is told of the end.
        assert_eq!(client.intent(Ok(())), None);
        assert!(client.exchange.is_refused() && client.exchange.has_intent());
    }
}

#[test]
fn a_streaming_body_waits_for_the_intent() {
    let mut client = client("gateway", "bearer", Some(Credentials::ApiKey(Secret::new("ABSKexample"))));
    intent_of(client.headers(&converse(&[("content-length", "20")]), false));
    assert_eq!(client.exchange.request_body_mode(), RequestBodyMode::Hold);
    let more = RequestEvent::UnreadBody { length: 20, end_of_stream: true };
    assert_eq!(client.request(more), RequestStep::AwaitIntent);
    forwarded(client.intent(Ok(())).unwrap());
    assert_eq!(client.exchange.request_body_mode(), RequestBodyMode::Stream);
}

#[test]
fn an_intent_follows_the_credentials() {
    let (_, store, shared) = fetched("gateway");
    let mut client = client("gateway", "sigv4", None);
    client.credentials = store;
    client.headers(&converse(&[]), false);
    assert_eq!(client.body(b"{}", true), RequestStep::AwaitCredentials);
    publish(&shared, &client.shared, NOW, 3600);
    intent_of(client.request(RequestEvent::Tick));
    assert_eq!(client.request(RequestEvent::Tick), RequestStep::AwaitIntent);
    forwarded(client.intent(Ok(())).unwrap());
}

#[test]
fn other_classes_do_not_wait() {
    for (path, class, mode) in
        [("/foundation-models", "unseen", Some(AuditMode::Off)), ("/inference-profiles", "rest", None)]
    {
        let mut client = client("gateway", "sigv4", Some(keys()));
        forwarded(client.headers(&get(path), true));
        let facts = client.exchange.facts(true);
        assert_eq!((facts.class.as_deref(), facts.audit), (Some(class), mode));
        assert!(!client.exchange.has_intent());
        assert_eq!(client.intent(Ok(())), None);
    }
}

#[test]
fn a_refused_call_asks_for_no_intent() {
    let mut client = client("gateway", "sigv4", Some(keys()));
    client.headers(&converse(&[("content-encoding", "gzip")]), false);
    assert!(client.exchange.is_refused() && !client.exchange.has_intent());
}
