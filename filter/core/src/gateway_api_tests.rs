use super::*;
use crate::breaker::Breaker;
use crate::config::Config;
use crate::credentials::shared_credentials::SharedCredentials;
use crate::credentials::store::CredentialStore;
use crate::exchange::Exchange;
use crate::policy::Policy;
use crate::step::{RequestEvent, RequestStep};
use crate::testing::*;
use serde_json::{Value, json};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

pub(super) fn document() -> Value {
    json!({
        "role": "gateway", "gateway_api": {}, "principal": [{"from": "mtls"}],
        "regions": {"us-east-1": {}, "us-west-2": {"inference_profiles": {"c.d": "us.c.d"}}, "us-east-2": {}},
        "inference_profiles": {"a.b": "us.a.b"}, "aliases": {"team": "a.b", "x": "a.b"}, "models": {"deny": ["global.*"]},
        "route_classes": [
            {"name": "private", "principals": ["secret"], "paths": ["dx"], "regions": ["us-east-2"]},
            {"name": "any", "paths": ["dx", "internet"], "regions": ["us-east-1"]},
        ],
    })
}

pub(super) fn policy_of(document: &Value) -> Policy {
    Policy::compile(&Config::parse(document.to_string().as_bytes()).unwrap(), None).unwrap()
}

pub(super) fn client(document: &Value) -> Client {
    Client::of(policy_of(document), Some(keys()))
}

pub(super) fn ask(client: &mut Client, path: &str, principal: Option<&str>, extra: &[(&str, &str)]) -> RequestStep {
    client.exchange = Exchange::new(ID.to_owned());
    let all = [&[(":method", "GET"), (":path", path), (":authority", "127.0.0.1")], extra].concat();
    let principal = Ok(principal.map(str::to_owned));
    client.request(RequestEvent::Headers {
        headers: &headers(&all),
        principal,
        groups: Ok(Vec::new()),
        end_of_stream: true,
        address: None,
    })
}

pub(super) fn answered(step: RequestStep) -> (Answer, Value) {
    let RequestStep::Answer(answer) = step else { panic!("{step:?}") };
    let body = if answer.body.is_empty() { Value::Null } else { serde_json::from_slice(&answer.body).unwrap() };
    (answer, body)
}

#[test]
fn schemas_in_docs_are_current() {
    let models = schemars::schema_for!(models::Models<'_>);
    for (name, schema) in [("status", schemars::schema_for!(Status<'_>)), ("models", models)] {
        let generated = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let file = format!("{DOCS}/{name}.schema.json");
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&file, &generated).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == generated, "{file} is old: run UPDATE_SCHEMA=1 cargo test -p filter-core schema");
    }
}

#[test]
fn status_shows_what_concerns_the_caller() {
    let mut client = client(&document());
    Breaker::new(&client.shared, "us-east-1", "a.b", NOW).failed(None);
    let (answer, body) = answered(ask(&mut client, "/gateway/v1/status", None, &[]));
    let digest = policy_of(&document()).digest().to_owned();
    let wanted = json!({
        "version": env!("CARGO_PKG_VERSION"), "document": digest,
        "classes": [{"name": "any", "paths": ["dx", "internet"], "regions": ["us-east-1"], "credentials": "default"}],
        "regions": [{"name": "us-east-1", "throttled_models": 1, "lists_read": null}],
        "credentials": [{"name": "default", "state": "usable", "fetched": null, "expires": null}],
    });
    assert_eq!((answer.status, body), (200, wanted));
    let facts = client.exchange.facts(true);
    assert_eq!((facts.api.as_deref(), facts.error, facts.class), (Some("gateway"), None, None));
    let (_, body) = answered(ask(&mut client, "/gateway/v1/status?x=y", Some("secret"), &[]));
    assert_eq!(body["classes"].as_array().map(Vec::len), Some(2));
    // Of another role it is the same document.
    let mut signer = document();
    signer["role"] = json!("signer");
    assert_eq!(policy_of(&signer).digest(), digest);
    signer["fips"] = json!(true);
    assert_ne!(policy_of(&signer).digest(), digest);
}

#[test]
fn status_shows_when_lists_were_read() {
    let mut document = document();
    document["catalogue"] = json!({"cluster": "polls"});
    let lists = crate::catalogue::tests::offers(&[("a.b", &["ON_DEMAND"])], &[]);
    for (refresh, wanted) in [(300, json!("1970-01-12T13:46:40Z")), (0, json!(null))] {
        document["catalogue"]["refresh_seconds"] = json!(refresh);
        document["catalogue"]["snapshot"] = json!({"us-east-1": {"on_demand": ["a.b"]}});
        let mut client = client(&document);
        client.catalogue = crate::catalogue::tests::store(&[("us-east-1", lists.clone())]);
        let (_, body) = answered(ask(&mut client, "/gateway/v1/status", None, &[]));
        assert_eq!(body["regions"][0]["lists_read"], wanted, "{refresh}");
    }
}

#[test]
fn credentials_show_their_end() {
    let mut document = document();
    document["credentials"] = json!({"source": "imds", "cluster": "imds"});
    let policy = policy_of(&document);
    let store = CredentialStore::resolve(&policy.credential_sources, policy.auth, 7, &|_| None).unwrap();
    let shared = SharedCredentials::new("default", 7);
    let mut client = Client { credentials: store, ..Client::of(policy, None) };
    let source =
        |client: &mut Client| answered(ask(client, "/gateway/v1/status", None, &[])).1["credentials"][0].clone();
    assert_eq!(source(&mut client), json!({"name": "default", "state": "pending", "fetched": null, "expires": null}));
    // At the time 0, nothing would be known.
    let now = NOW + Duration::from_secs(86_400);
    client.now = now;
    publish(&shared, &client.shared, now, 3600);
    let usable = json!({"name": "default", "state": "usable", "fetched": "1970-01-02T00:00:00Z", "expires": "1970-01-02T01:00:00Z"});
    assert_eq!(source(&mut client), usable);
    client.now = now + Duration::from_millis(1500);
    assert_eq!(source(&mut client), usable);
    client.now = now + Duration::from_secs(3601);
    let expired = json!({"name": "default", "state": "expired", "fetched": "1970-01-02T00:00:00Z", "expires": null});
    assert_eq!(source(&mut client), expired);
}

#[test]
fn an_answer_that_is_known_is_not_sent() {
    let mut client = client(&document());
    let (answer, _) = answered(ask(&mut client, "/gateway/v1/status", None, &[]));
    let tag = answer.headers.iter().find(|(name, _)| *name == "etag").map(|(_, value)| value.clone()).unwrap();
    let tag = String::from_utf8(tag).unwrap();
    for (given, status) in [
        (tag.clone(), 304),
        (format!("W/{tag}"), 304),
        (format!("\"x\", {tag}"), 304),
        ("*".to_owned(), 304),
        ("\"x\"".to_owned(), 200),
        (tag.trim_matches('"').to_owned(), 200),
    ] {
        let (answer, _) = answered(ask(&mut client, "/gateway/v1/status", None, &[("if-none-match", &given)]));
        assert_eq!((answer.status, answer.body.is_empty()), (status, status == 304), "{given}");
        assert!(answer.headers.iter().any(|(name, value)| *name == "etag" && *value == tag.as_bytes()));
    }
}

#[test]
fn refuses_callers_that_may_not_read_it() {
    let mut confined = document();
    confined["gateway_api"] = json!({"principals": ["operator-*"]});
    let mut client = client(&confined);
    for (principal, extra, status) in [
        (None, &[][..], 403),
        (Some("app"), &[], 403),
        (Some("operator-1"), &[("origin", "https://evil.example")], 403),
    ] {
        assert_eq!(refused(ask(&mut client, "/gateway/v1/status", principal, extra)).0, status);
    }
    answered(ask(&mut client, "/gateway/v1/status", Some("operator-1"), &[]));
    assert_eq!(refused(ask(&mut client, "/gateway/v1/other", Some("operator-1"), &[])).0, 404);
    let mut closed = document();
    closed.as_object_mut().unwrap().remove("gateway_api");
    assert_eq!(refused(ask(&mut self::client(&closed), "/gateway/v1/status", None, &[])).0, 404);
    confined["gateway_api"] = json!({"principals": [""]});
    let error = Policy::parse(confined.to_string().as_bytes(), None).unwrap_err();
    assert_eq!(error.key, "gateway_api.principals[0]");
}
