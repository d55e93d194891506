use super::*;
use crate::credentials::store::CredentialStore;
use crate::credentials::{Credentials, Secret};
use crate::exchange::Endpoint;
use crate::headers::Headers;
use crate::principal::PrincipalError;
use crate::step::{RequestEvent, RequestStep};
use crate::testing::*;
use serde_json::{Value, json};

const DENIED: &str = "AccessDeniedException";

fn client_of(role: &str, auth: &str, rules: Value) -> Client {
    let regions = if role == "combined" { json!({"us-east-1": {}}) } else { json!({"us-east-1": {}, "us-west-2": {}}) };
    let document = json!({
        "role": role, "auth": auth, "regions": regions, "optional_operations": ["batch_jobs"],
        "principal": [{"from": "mtls"}], "groups": [{"from": "jwt", "payload": "p", "claim": "groups"}],
        "inference_profiles": {"anthropic.claude-v2": "global.anthropic.claude-v2"},
        "route_classes": [{"name": "any", "paths": ["dx", "internet"]}],
        "rules": rules,
    });
    Client::of(Policy::parse(document.to_string().as_bytes(), None).unwrap(), Some(keys()))
}

fn client(rules: Value) -> Client {
    client_of("gateway", "sigv4", rules)
}

fn post(path: &str, more: &[(&str, &str)]) -> Headers {
    let line =
        [(":authority", "localhost"), (":method", "POST"), (":path", path), ("content-type", "application/json")];
    headers(&[&line, more].concat())
}

impl Client {
    /// Begins a call of a caller.
    fn call(&mut self, headers: &Headers, principal: &str, groups: &[&str]) -> RequestStep {
        let principal = Ok(Some(principal.to_owned()).filter(|name| !name.is_empty()));
        let groups = Ok(groups.iter().map(|&group| group.to_owned()).collect());
        self.request(RequestEvent::Headers { headers, principal, groups, end_of_stream: false, address: None })
    }

    /// What the record has: decision and rule.
    fn recorded(&self) -> (Option<RuleDecision>, Option<String>) {
        let facts = self.exchange.facts(false);
        (facts.rule_decision, facts.rule)
    }

    /// The series of rules that the call adds to.
    fn counted(&self) -> Vec<String> {
        let samples = self.exchange.settle(&self.exchange.facts(true), Endpoint::default(), self.context());
        samples.into_iter().map(|sample| sample.name).filter(|name| name.starts_with("bedrock_rule")).collect()
    }
}

#[test]
fn two_callers_have_different_rights() {
    let rules = json!([
        {"id": "alice-talks", "effect": "allow", "principals": ["alice"], "operations": ["Converse"]},
        {"id": "staff-reads", "effect": "allow", "groups": ["staff"], "operations": ["CountTokens"]},
        {"id": "no-eve", "effect": "deny", "principals": ["eve"]},
    ]);
    let (converse, count) = (post("/model/anthropic.x/converse", &[]), post("/model/anthropic.x/count-tokens", &[]));
    let allowed = |rule: &str| (Some(RuleDecision::Allowed), Some(rule.to_owned()));
    for (headers, principal, groups, wanted) in [
        (&converse, "alice", &[][..], Ok("alice-talks")),
        (
            &count,
            "alice",
            &[],
            Err("no rule of the gateway allows 'alice' to call CountTokens with model 'anthropic.x'"),
        ),
        (
            &converse,
            "bob",
            &["staff"],
            Err("no rule of the gateway allows 'bob' to call Converse with model 'anthropic.x'"),
        ),
        (&count, "bob", &["other", "staff"], Ok("staff-reads")),
        (&count, "", &["staff"], Ok("staff-reads")),
        (&converse, "", &[], Err("no rule of the gateway allows a caller without a name to call Converse")),
        (&count, "eve", &["staff"], Err("the gateway's rule 'no-eve' denies this call")),
    ] {
        let mut client = client(rules.clone());
        let step = client.call(headers, principal, groups);
        match wanted {
            Ok(rule) => {
                forwarded(client.body(b"{}", true));
                assert_eq!(client.recorded(), allowed(rule));
                assert_eq!(client.counted(), [""; 0]);
            }
            Err(message) => {
                let (status, error, text) = refused(step);
                assert_eq!((status, error), (403, DENIED));
                assert!(text.starts_with(&format!("Access denied: {message}")), "{text}");
                let rule = message.contains("no-eve").then(|| "no-eve".to_owned());
                let series = format!("bedrock_rule_refusals;type=denied;rule={}", rule.as_deref().unwrap_or("none"));
                assert_eq!(client.recorded(), (Some(RuleDecision::Denied), rule));
                assert_eq!(client.counted(), [series]);
            }
        }
    }
}

#[test]
fn a_document_without_rules_records_none() {
    let mut client = client(json!([]));
    client.call(&post("/model/anthropic.x/converse", &[]), "alice", &[]);
    forwarded(client.body(b"{}", true));
    assert_eq!((client.recorded(), client.counted()), ((None, None), Vec::new()));
}

#[test]
fn a_tried_rule_is_recorded_and_counted() {
    let mut client = client(json!([{"id": "new", "effect": "deny", "mode": "dry_run", "principals": ["alice"]}]));
    client.call(&post("/model/anthropic.x/converse", &[]), "alice", &[]);
    forwarded(client.body(b"{}", true));
    assert_eq!(client.recorded(), (Some(RuleDecision::WouldDeny), Some("new".to_owned())));
    assert_eq!(client.counted(), ["bedrock_rule_refusals;type=would_deny;rule=new"]);
}

#[test]
fn refuses_models_that_a_body_names() {
    let rules = json!([
        {"id": "claude", "effect": "allow", "models": ["anthropic.*"], "regions": ["us-east-1"]},
        {"id": "no-meta", "effect": "deny", "models": ["meta.*"]},
    ]);
    for (model, wanted) in [
        (r#"{"modelId":"anthropic.x"}"#, Ok("claude")),
        (r#"{"modelId":"meta.x"}"#, Err("the gateway's rule 'no-meta' denies this call")),
        (
            r#"{"modelId":"amazon.x"}"#,
            Err("no rule of the gateway allows 'alice' to call StartAsyncInvoke with model 'amazon.x'"),
        ),
        (
            r#"{"modelId":"arn:aws:bedrock:us-east-1:123456789012:provisioned-model/x"}"#,
            Err("the gateway's rule 'no-meta'"),
        ),
        // Its model is not known.
        ("{}", Err("the gateway's rule 'no-meta'")),
    ] {
        let mut client = client(rules.clone());
        assert_eq!(client.call(&post("/async-invoke", &[]), "alice", &[]), RequestStep::AwaitBody);
        assert_eq!(client.recorded(), (None, None));
        let step = client.body(model.as_bytes(), true);
        match wanted {
            Ok(rule) => {
                forwarded(step);
                assert_eq!(client.recorded(), (Some(RuleDecision::Allowed), Some(rule.to_owned())));
            }
            Err(message) => {
                let (status, _, text) = refused(step);
                assert!(status == 403 && text.contains(message), "{model} {text}");
                assert_eq!(client.recorded().0, Some(RuleDecision::Denied));
            }
        }
    }
}

#[test]
fn refuses_bodies_over_a_limit() {
    let rules = json!([{"id": "small", "effect": "allow", "max_tokens": 50, "body_bytes": {"max": 60}}]);
    let invoke = |more: &[(&str, &str)]| post("/model/anthropic.x/invoke", more);
    for (body, over) in [
        (r#"{"max_tokens":50}"#, false),
        (r#"{"max_tokens":51}"#, true),
        (r#"{"max_tokens":5e1}"#, true),
        (r#"{"prompt":"x"}"#, true),
        (r#"{"max_tokens":50,"prompt":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#, true),
    ] {
        for auth in ["sigv4", "bearer"] {
            let credentials = if auth == "bearer" { Credentials::ApiKey(Secret::new("k")) } else { keys() };
            let mut client = client_of("gateway", auth, rules.clone());
            client.credentials = CredentialStore::fixed(Some(credentials));
            assert_eq!(client.call(&invoke(&[]), "alice", &[]), RequestStep::AwaitBody, "{auth}");
            for byte in body.as_bytes().iter().take(body.len() - 1) {
                assert_eq!(client.body(&[*byte], false), RequestStep::AwaitBody);
            }
            let step = client.body(b"}", true);
            if over {
                let (status, error, text) = refused(step);
                assert_eq!((status, error), (403, DENIED));
                assert!(
                    text.starts_with("Access denied: the gateway's rule 'small' allows this call only with a body"),
                    "{text}"
                );
                assert_eq!(client.recorded(), (Some(RuleDecision::Denied), Some("small".to_owned())));
            } else {
                forwarded(step);
            }
        }
    }
    // An announced length decides at once, and a body in another charset is not read.
    assert_eq!(refused(client(rules.clone()).call(&invoke(&[("content-length", "61")]), "alice", &[])).0, 403);
    let other = headers(&[
        (":authority", "localhost"),
        (":method", "POST"),
        (":path", "/model/anthropic.x/invoke"),
        ("content-type", "application/json; charset=utf-16"),
    ]);
    assert_eq!(refused(client(rules.clone()).call(&other, "alice", &[])).0, 400);
    // A sidecar with an API key cannot hold a body.
    let mut sidecar = client_of("combined", "bearer", rules);
    assert_eq!(refused(sidecar.call(&invoke(&[("content-length", "20")]), "alice", &[])).0, 403);
}

#[test]
fn a_resource_leaves_one_region() {
    let rules = json!([{"id": "east", "effect": "allow", "regions": ["us-east-1"]}]);
    for (guardrail, served) in [("us-east-1", true), ("us-west-2", false)] {
        let mut client = client(rules.clone());
        let step = client.call(&post("/model/anthropic.x/converse", &[]), "alice", &[]);
        assert_eq!(step, RequestStep::AwaitBody);
        let arn = format!("arn:aws:bedrock:{guardrail}:123456789012:guardrail/x");
        let body = json!({"guardrailConfig": {"guardrailIdentifier": arn}}).to_string();
        let step = client.body(body.as_bytes(), true);
        assert_eq!(matches!(step, RequestStep::Forward(_)), served, "{step:?}");
    }
    // Without one it may go to both.
    let mut client = client(rules);
    client.call(&post("/model/anthropic.x/converse", &[]), "alice", &[]);
    assert_eq!(refused(client.body(b"{}", true)).0, 403);
}

#[test]
fn refuses_what_is_sent_in_place_of_a_model() {
    let mut client = client(json!([{"id": "home", "effect": "deny", "models": ["global.*"]}]));
    let step = client.call(&post("/model/anthropic.claude-v2/converse", &[]), "alice", &[]);
    assert!(refused(step).2.contains("rule 'home' denies"));
    // It takes no profile.
    let step = client_again(&mut client).call(&post("/model/anthropic.claude-v2/count-tokens", &[]), "alice", &[]);
    assert_eq!(step, RequestStep::AwaitBody);
}

fn client_again(client: &mut Client) -> &mut Client {
    client.exchange = Exchange::new(ID.to_owned());
    client
}

#[test]
fn refuses_groups_that_cannot_be_read() {
    let mut client = client(json!([]));
    let problem = PrincipalError::Groups { claim: "groups".to_owned(), kind: "a number".to_owned() };
    let headers = post("/model/anthropic.x/converse", &[]);
    let principal = Ok(Some("alice".to_owned()));
    let event = RequestEvent::Headers {
        headers: &headers,
        principal,
        groups: Err(problem),
        end_of_stream: false,
        address: None,
    };
    let (status, error, text) = refused(client.request(event));
    assert_eq!((status, error), (403, DENIED));
    assert!(
        text.contains("the claim 'groups' of the caller's token is a number, not text or a list of texts"),
        "{text}"
    );
    assert_eq!(client.exchange.facts(false).principal.as_deref(), Some("alice"));
}

#[test]
fn refuses_a_profile_that_the_catalogue_chooses() {
    let document = |rule: Value| {
        json!({
            "role": "gateway", "regions": {"us-east-1": {}}, "route_classes": [{"name": "any", "paths": ["dx"]}],
            "catalogue": {
                "cluster": "polls", "refresh_seconds": 0, "global": true,
                "snapshot": {"us-east-1": {"profiles": ["us.a.regional", "global.a.worldwide"]}},
            },
            "rules": [rule],
        })
    };
    let no_global = json!({"id": "no-global", "effect": "deny", "models": ["global.*"]});
    let policy = Policy::parse(document(no_global).to_string().as_bytes(), None).unwrap();
    let mut client = Client::of(policy, Some(keys()));
    let (status, _, message) = refused(client.call(&post("/model/a.worldwide/converse", &[]), "", &[]));
    assert_eq!(status, 403);
    assert!(message.contains("no-global"), "{message}");
    client.exchange = Exchange::new("next".to_owned());
    assert_eq!(client.call(&post("/model/a.regional/converse", &[]), "", &[]), RequestStep::AwaitBody);
}

#[test]
fn images_are_limited_by_the_body() {
    let rules = json!([{"id": "two", "effect": "allow", "max_images": 2}]);
    let block = r#"{"image":{"format":"png","source":{"bytes":"aGk="}}}"#;
    let body =
        |count: usize| format!(r#"{{"messages":[{{"role":"user","content":[{}]}}]}}"#, vec![block; count].join(","));
    for (path, count, allowed) in [
        ("/model/anthropic.claude-v2/converse", 0, true),
        ("/model/anthropic.claude-v2/converse", 2, true),
        ("/model/anthropic.claude-v2/converse-stream", 3, false),
        ("/model/amazon.nova-pro-v1%3A0/invoke", 2, true),
        ("/model/amazon.nova-pro-v1%3A0/invoke", 3, false),
        // Its form is not known.
        ("/model/meta.llama4-scout-17b-instruct-v1%3A0/invoke", 0, false),
        ("/model/anthropic.claude-v2/count-tokens", 3, true),
    ] {
        for auth in ["sigv4", "bearer"] {
            let mut client = client_of("gateway", auth, rules.clone());
            let text = body(count);
            assert_eq!(client.call(&post(path, &[]), "alice", &[]), RequestStep::AwaitBody, "{path}");
            let step = client.body(text.as_bytes(), true);
            if allowed {
                forwarded(step);
                continue;
            }
            let (status, _, message) = refused(step);
            let says = "the gateway's rule 'two' allows this call only with a body with at most 2 images";
            assert!(status == 403 && message.contains(says), "{path}: {message}");
        }
    }
    // A body that is not held is not read.
    let mut client = client_of("combined", "bearer", rules);
    assert_eq!(refused(client.call(&post("/model/anthropic.claude-v2/converse", &[]), "alice", &[])).0, 403);
}
