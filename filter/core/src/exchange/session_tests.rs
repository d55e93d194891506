use crate::attempt::{Attempt, AttemptInput};
use crate::credentials::id::CredentialId;
use crate::credentials::store::CredentialStore;
use crate::credentials::{Credentials, Fetched, Keys, Secret, Session};
use crate::envoy_names::HANDOFF_PROPERTY;
use crate::policy::Policy;
use crate::step::{Context, RequestEvent, RequestStep};
use crate::testing::*;
use audit::AttemptFacts;
use serde_json::{Value, json};
use std::time::Duration;

fn policy(role: &str) -> Policy {
    let document = json!({
        "role": role, "regions": {"us-east-1": {}}, "principal": [{"from": "mtls"}],
        "route_classes": [{"name": "any", "paths": ["dx"], "session": "principal"}],
        "credentials": {
            "source": "web_identity", "token": {"cluster": "token"},
            "commercial": {"cluster": "sts", "region": "us-east-1"}, "role_arn": "arn:aws:iam::123456789012:role/bedrock",
        },
    });
    Policy::parse(document.to_string().as_bytes(), None).unwrap()
}

fn store(policy: &Policy, holder: u64) -> CredentialStore {
    CredentialStore::resolve(&policy.credential_sources, policy.auth, holder, &|_| None).unwrap()
}

fn client() -> Client {
    let policy = policy("gateway");
    let credentials = store(&policy, 1);
    Client { credentials, ..Client::of(policy, None) }
}

fn ask(client: &mut Client, principal: Option<&str>) -> RequestStep {
    let headers = converse(&[]);
    let principal = Ok(principal.map(str::to_owned));
    client.request(RequestEvent::Headers {
        headers: &headers,
        principal,
        groups: Ok(Vec::new()),
        end_of_stream: false,
        address: None,
    })
}

fn session(id: &CredentialId) -> Fetched {
    let name = id.session.as_ref().map(ToString::to_string);
    let credentials = Credentials::Keys(Keys {
        session: Session { arn: name, token_id: None },
        ..Keys::new("ASIAEXAMPLE", Secret::new("s"), Some(Secret::new("t")))
    });
    Fetched { credentials, expires: Some(NOW + Duration::from_secs(3600)), certificate: None }
}

#[test]
fn a_call_is_signed_in_its_callers_session() {
    let mut client = client();
    assert_eq!(ask(&mut client, Some("spiffe://corp/a")), RequestStep::AwaitBody);
    assert_eq!(client.body(b"{}", true), RequestStep::AwaitCredentials);
    let due = client.credentials.due(&client.shared, NOW);
    let id = due.iter().find(|id| id.session.is_some()).unwrap();
    client.credentials.publish(id, &client.shared, &session(id), NOW, 0.0);
    let forward = forwarded(client.request(RequestEvent::Tick));
    let (_, handoff) = forward.states.iter().find(|(name, _)| *name == HANDOFF_PROPERTY).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(handoff).unwrap()["session"], "spiffe=3A=2F=2Fcorp=2Fa");

    // The signer of another worker.
    let policy = policy("signer");
    let credentials = store(&policy, 2);
    let context = Context {
        policy: &policy,
        credentials: &credentials,
        catalogue: &client.catalogue,
        shared: &client.shared,
        worker: worker(),
        now: NOW,
    };
    let input = AttemptInput { handoff: Some(handoff), previous: None, path: Some(b"dx"), region: Some(b"us-east-1") };
    let signed = forwarded(Attempt::default().request(&forward.headers, input, context));
    let facts: AttemptFacts = serde_json::from_slice(&signed.states[0].1).unwrap();
    assert_eq!(facts.session.as_deref(), Some("spiffe=3A=2F=2Fcorp=2Fa"));

    // For a session that nobody has, it waits, and a worker that fetches is told.
    let other = String::from_utf8(handoff.clone()).unwrap().replace("corp", "other");
    let input = AttemptInput { handoff: Some(other.as_bytes()), ..input };
    assert_eq!(Attempt::default().request(&forward.headers, input, context), RequestStep::AwaitCredentials);
    let due = client.credentials.due(&client.shared, NOW);
    assert_eq!(due.iter().map(ToString::to_string).collect::<Vec<_>>(), ["default, session spiffe=3A=2F=2Fother=2Fa"]);
}

#[test]
fn refuses_callers_without_a_name_a_session() {
    let (status, error, message) = refused(ask(&mut client(), None));
    assert_eq!((status, error), (403, "AccessDeniedException"));
    assert!(message.contains("route class 'any'") && message.contains("proved none"), "{message}");
}

#[test]
fn refuses_a_caller_whose_session_is_late() {
    let mut client = client();
    ask(&mut client, Some("a"));
    assert_eq!(client.body(b"{}", true), RequestStep::AwaitCredentials);
    client.now = NOW + Duration::from_secs(2);
    let RequestStep::Reply(reply) = client.request(RequestEvent::Tick) else { panic!() };
    assert_eq!((reply.status, reply.error, reply.retry_after), (429, "ThrottlingException", Some(1)));
    // A source that fails is not the caller's fault.
    let mut client = self::client();
    ask(&mut client, Some("a"));
    client.body(b"{}", true);
    for id in client.credentials.due(&client.shared, NOW) {
        client.credentials.failed(&id, &client.shared, NOW);
    }
    client.now = NOW + Duration::from_secs(2);
    assert_eq!(refused(client.request(RequestEvent::Tick)).0, 503);
}
