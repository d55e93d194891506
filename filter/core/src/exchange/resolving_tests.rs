use super::*;
use crate::config::Auth;
use crate::handoff::Handoff;
use crate::resolve::table::{Answer, Outcome};
use crate::step::{Forward, RequestBodyMode, RequestEvent};
use crate::testing::{Client, forwarded, headers, keys, refused};
use serde_json::{Value, json};
use std::time::Duration;

const PROFILE: &str = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6";
const NAME: &str = "a1b2c3d4e5f6";
const CLAUDE: &str = "anthropic.claude-opus-5";
const NOVA: &str = "amazon.nova-lite-v1:0";

/// A gateway on which calls to Claude never take the internet.
fn client(more: Value) -> Client {
    let mut document = json!({
        "role": "gateway",
        "regions": {"us-east-1": {}, "us-west-2": {}},
        "max_body_bytes": 100_000,
        "resolve": {"cluster": "polls", "refresh_seconds": 60},
        "route_classes": [
            {"name": "private", "models": ["anthropic.*"], "paths": ["dx", "vpn"]},
            {"name": "any", "paths": ["dx", "vpn", "internet"]},
        ],
    });
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let policy = crate::policy::Policy::parse(document.to_string().as_bytes(), None).unwrap();
    Client::of(policy, Some(keys()))
}

fn call(id: &str, operation: &str) -> Headers {
    let path = format!("/model/{}/{operation}", id.replace(':', "%3A").replace('/', "%2F"));
    headers(&[
        (":authority", "g"),
        (":method", "POST"),
        (":path", &path),
        (":scheme", "http"),
        ("content-type", "application/json"),
    ])
}

impl Client {
    fn tick(&mut self, seconds: u64) -> RequestStep {
        self.now += Duration::from_secs(seconds);
        self.request(RequestEvent::Tick)
    }

    /// The ids that are looked up now.
    fn due(&self) -> Vec<Want> {
        let rules = self.policy.resolve.as_ref().unwrap();
        self.catalogue.resources.due(rules, 7, &self.shared, self.now, |_| true)
    }

    fn publish(&self, found: Result<Answer, Problem>) {
        for want in self.due() {
            self.catalogue.resources.publish(&want, 7, Outcome(found.clone()), &self.shared, self.now);
        }
    }

    /// A call whose body comes at once, and what is published while it waits.
    fn call_resource(&mut self, id: &str, found: Result<Answer, Problem>) -> RequestStep {
        let step = self.headers(&call(id, "converse"), false);
        if step != RequestStep::AwaitResolution {
            return step;
        }
        assert_eq!(
            self.request(RequestEvent::UnreadBody { length: 2, end_of_stream: true }),
            RequestStep::AwaitResolution
        );
        self.publish(found);
        match self.tick(0) {
            RequestStep::ReadBody { length: 2, complete: true } => self.body(b"{}", true),
            step => step,
        }
    }
}

fn runs(models: &[&str]) -> Result<Answer, Problem> {
    Ok(Answer::Runs(models.iter().map(|model| (*model).to_owned()).collect()))
}

fn class(forward: &Forward) -> String {
    forward.headers.get_str("x-bedrock-gateway-class").unwrap().to_owned()
}

fn handoff(forward: &Forward) -> Handoff {
    serde_json::from_slice(&forward.states.iter().find(|(name, _)| name.ends_with("handoff")).unwrap().1).unwrap()
}

#[test]
fn a_call_waits_for_what_it_runs() {
    let mut client = client(json!({}));
    assert_eq!(client.headers(&call(PROFILE, "converse"), false), RequestStep::AwaitResolution);
    assert_eq!(client.exchange.request_body_mode(), RequestBodyMode::Hold);
    assert_eq!(
        client.request(RequestEvent::UnreadBody { length: 1, end_of_stream: false }),
        RequestStep::AwaitResolution
    );
    assert_eq!(client.tick(1), RequestStep::AwaitResolution);
    let want = client.due().pop().unwrap();
    assert_eq!(client.tick(0), RequestStep::AwaitResolution);
    assert!(client.due().is_empty(), "it is under way");
    client.catalogue.resources.publish(&want, 7, Outcome(runs(&[CLAUDE])), &client.shared, client.now);
    // The part of the body that has come is read again, and then the rest.
    assert_eq!(client.tick(0), RequestStep::ReadBody { length: 1, complete: false });
    assert_eq!(client.exchange.request_body_mode(), RequestBodyMode::Hash);
    assert_eq!(client.body(b"{", false), RequestStep::AwaitBody);
    let forward = forwarded(client.body(b"}", true));
    assert_eq!(class(&forward), "private");
    let handoff = handoff(&forward);
    assert_eq!((handoff.labels[0].as_str(), handoff.content_length), (PROFILE, Some(2)));
    let sha256 = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!(handoff.body_sha256.as_deref(), Some(sha256));
    assert_eq!(client.exchange.facts(true).resolved_models.as_deref(), Some(CLAUDE));
    // The next one does not wait.
    client.exchange = Exchange::new("next".to_owned());
    assert_eq!(client.headers(&call(PROFILE, "converse"), false), RequestStep::AwaitBody);
}

#[test]
fn the_strictest_path_holds_for_all_kinds() {
    let own = |resource: &str| format!("arn:aws:bedrock:us-east-1:123456789012:{resource}");
    for id in [
        PROFILE.to_owned(),
        own("default-prompt-router/anthropic.claude:1"),
        own("prompt-router/a1b2c3d4e5f6"),
        own("provisioned-model/a1b2c3d4e5f6"),
        own("custom-model/anthropic.claude/a1b2c3d4e5f6"),
        own("custom-model-deployment/a1b2c3d4e5f6"),
        NAME.to_owned(),
    ] {
        for (models, wanted) in [(&[CLAUDE][..], "private"), (&[NOVA, CLAUDE], "private"), (&[NOVA], "any")] {
            let mut client = client(json!({}));
            let forward = forwarded(client.call_resource(&id, runs(models)));
            assert_eq!(class(&forward), wanted, "{id} {models:?}");
            assert_eq!(
                handoff(&forward).only_region.map(|region| region.to_string()).as_deref(),
                Some("us-east-1"),
                "{id}"
            );
        }
        let mut client = client(json!({"models": {"deny": ["anthropic.*"]}}));
        let (status, error, text) = refused(client.call_resource(&id, runs(&[NOVA, CLAUDE])));
        assert_eq!((status, error), (403, "AccessDeniedException"), "{text}");
        // A router whose own name is denied is not even looked up.
        let own_name = id.ends_with("anthropic.claude:1");
        assert!((own_name || text.contains(CLAUDE)) && text.contains(&id), "{text}");
    }
}

#[test]
fn refuses_what_cannot_be_resolved() {
    let own = |resource: &str| format!("arn:aws:bedrock:us-east-1:123456789012:{resource}");
    for (id, words) in [
        (own("imported-model/a1b2c3d4e5f6"), "base model of an imported model"),
        (own("prompt/ABCDEFGHIJ:1"), "a prompt has its model in another service"),
        ("arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/a1b2c3d4e5f6".to_owned(), "eu-west-1 is not one of"),
    ] {
        let mut client = client(json!({}));
        let (status, error, text) = refused(client.headers(&call(&id, "converse"), false));
        assert_eq!((status, error), (403, "AccessDeniedException"), "{text}");
        assert!(text.contains(words) && text.contains(&id) && text.contains("`models` of a route class"), "{text}");
        assert!(client.due().is_empty());
    }
}

#[test]
fn refuses_by_what_bedrock_answered() {
    for (found, status, error, retry) in [
        (Ok(Answer::Refused(Problem::new(404, "none"))), 404, "ResourceNotFoundException", None),
        (Ok(Answer::Refused(Problem::new(403, "none"))), 403, "AccessDeniedException", None),
        (Ok(Answer::Refused(Problem::new(400, "none"))), 400, "ValidationException", None),
        (Ok(Answer::Refused(Problem::new(0, "none"))), 403, "AccessDeniedException", None),
        (Err(Problem::new(503, "none")), 503, "ServiceUnavailableException", Some(1)),
    ] {
        let mut client = client(json!({}));
        let RequestStep::Reply(reply) = client.call_resource(PROFILE, found) else { panic!() };
        assert_eq!((reply.status, reply.error, reply.retry_after), (status, error, retry));
        assert!(reply.message.contains(PROFILE) && reply.message.contains("none"), "{}", reply.message);
    }
}

#[test]
fn refuses_when_nobody_answers_in_time() {
    let mut client = client(json!({}));
    assert_eq!(client.headers(&call(PROFILE, "converse"), true), RequestStep::AwaitResolution);
    assert_eq!(client.tick(4), RequestStep::AwaitResolution);
    let (status, error, text) = refused(client.tick(1));
    assert_eq!((status, error), (503, "ServiceUnavailableException"));
    assert!(text.contains("in time"), "{text}");
}

#[test]
fn nothing_waits_where_nothing_depends() {
    let mut client = client(json!({"route_classes": [{"name": "any", "paths": ["dx"]}]}));
    assert_eq!(client.headers(&call(PROFILE, "converse"), false), RequestStep::AwaitBody);
    assert!(client.due().is_empty());
    let forward = forwarded(client.body(b"{}", true));
    assert_eq!(client.exchange.facts(true).resolved_models, None);
    assert_eq!(handoff(&forward).labels, [PROFILE]);
}

#[test]
fn rules_judge_what_runs() {
    let rules = json!([
        {"id": "all", "effect": "allow"},
        {"id": "no-claude", "effect": "deny", "models": ["anthropic.*"], "principals": ["*"]},
    ]);
    let with = |found| {
        let document = json!({"rules": rules, "principal": [{"from": "mtls"}], "route_classes": [{"name": "any", "paths": ["dx"]}]});
        let mut client = client(document);
        let named = |client: &mut Client, headers: &Headers| {
            let principal = Ok(Some("app".to_owned()));
            client.request(RequestEvent::Headers {
                headers,
                principal,
                groups: Ok(Vec::new()),
                end_of_stream: true,
                address: None,
            })
        };
        assert_eq!(named(&mut client, &call(PROFILE, "converse")), RequestStep::AwaitResolution);
        client.publish(found);
        match client.tick(0) {
            RequestStep::ReadBody { length: 0, complete: true } => client.body(b"", true),
            step => step,
        }
    };
    forwarded(with(runs(&[NOVA])));
    let (status, _, text) = refused(with(runs(&[NOVA, CLAUDE])));
    assert!(status == 403 && text.contains("rule 'no-claude' denies"), "{text}");
    // The reason is what was tried, not the rule.
    let (status, error, text) = refused(with(Err(Problem::new(503, "no answer"))));
    assert!(status == 503 && error == "ServiceUnavailableException" && text.contains("no answer"), "{text}");
}

#[test]
fn rules_that_allow_need_each_model() {
    let rules = json!([{"id": "nova", "effect": "allow", "models": ["amazon.*"]}]);
    for (found, status) in
        [(runs(&[NOVA]), 200), (runs(&[NOVA, CLAUDE]), 403), (Ok(Answer::Refused(Problem::new(404, "x"))), 404)]
    {
        let mut client = client(json!({"rules": rules, "route_classes": [{"name": "any", "paths": ["dx"]}]}));
        match client.call_resource(PROFILE, found.clone()) {
            RequestStep::Forward(_) => assert_eq!(status, 200, "{found:?}"),
            step => assert_eq!(refused(step).0, status, "{found:?}"),
        }
    }
}

#[test]
fn an_id_without_an_arn_stays_where_it_is() {
    // The class of Claude begins in another region, or has other credentials.
    for private in [json!({"regions": ["us-west-2", "us-east-1"]}), json!({"credentials": "other"})] {
        let mut first = json!({"name": "private", "models": ["anthropic.*"], "paths": ["dx"]});
        first.as_object_mut().unwrap().extend(private.as_object().unwrap().clone());
        let classes = json!([{"name": "nova", "models": ["amazon.*"], "paths": ["dx"]}, first, {"name": "any", "paths": ["internet"]}]);
        let document = json!({"route_classes": classes, "credential_sets": {"other": {"source": "environment"}}});
        let mut own = client(document.clone());
        let (status, error, text) = refused(own.call_resource(NAME, runs(&[CLAUDE])));
        assert_eq!((status, error), (400, "ValidationException"), "{text}");
        assert!(text.contains("by its ARN") && text.contains("us-east-1"), "{text}");
        let mut own = client(document.clone());
        forwarded(own.call_resource(NAME, runs(&[NOVA])));
        let mut own = client(document);
        own.call_resource(PROFILE, runs(&[CLAUDE]));
        assert_eq!(own.exchange.facts(true).class.as_deref(), Some("private"));
    }
}

#[test]
fn a_body_that_grows_too_long_is_refused() {
    let mut client = client(json!({"max_body_bytes": 10}));
    client.headers(&call(PROFILE, "converse"), false);
    let step = client.request(RequestEvent::UnreadBody { length: 11, end_of_stream: false });
    assert_eq!(step, RequestStep::DiscardBody);
    assert_eq!(refused(client.request(RequestEvent::UnreadBody { length: 0, end_of_stream: true })).0, 413);
}

#[test]
fn an_api_keys_call_is_held_while_it_waits() {
    let mut client = client(json!({"auth": "bearer"}));
    assert_eq!(client.policy.auth, Auth::Bearer);
    client.credentials = crate::credentials::store::CredentialStore::fixed(Some(
        crate::credentials::Credentials::ApiKey(crate::credentials::Secret::new("key")),
    ));
    let forward = forwarded(client.call_resource(PROFILE, runs(&[CLAUDE])));
    assert_eq!(class(&forward), "private");
}

#[test]
fn the_operators_entry_asks_nobody() {
    let runs =
        json!({PROFILE: [CLAUDE], "arn:aws:bedrock:us-east-1:123456789012:imported-model/a1b2c3d4e5f6": [CLAUDE]});
    for id in [PROFILE, "arn:aws:bedrock:us-east-1:123456789012:imported-model/a1b2c3d4e5f6"] {
        let mut client = client(json!({"resolve": {"refresh_seconds": 0, "runs": runs}}));
        assert_eq!(client.headers(&call(id, "converse"), false), RequestStep::AwaitBody);
        assert_eq!(class(&forwarded(client.body(b"{}", true))), "private");
        assert_eq!(client.exchange.facts(true).resolved_models.as_deref(), Some(CLAUDE));
    }
    let mut client = client(json!({"resolve": {"refresh_seconds": 0, "runs": {"other": [CLAUDE]}}}));
    assert_eq!(refused(client.headers(&call(PROFILE, "converse"), false)).0, 403);
}

#[test]
fn refuses_to_count_for_an_unknown_kind() {
    let kind = "arn:aws:bedrock:us-east-1:123456789012:x:inference-profile/us.anthropic.claude-v2";
    for resolve in [Value::Null, json!({"cluster": "polls", "refresh_seconds": 60})] {
        for (rule, ids) in [
            (json!({"models": {"allow": ["amazon.*"]}}), &[kind, "us.us.anthropic.x", "global.global.anthropic.x"][..]),
            (json!({"models": {"deny": ["anthropic.*"]}}), &[kind, "us.us.anthropic.x"]),
            (json!({"models": {"deny": ["global.*"]}}), &["global.global.anthropic.x"]),
            (json!({"residency": ["us"]}), &[kind, "global.global.anthropic.x"]),
        ] {
            let mut document = json!({"resolve": resolve, "route_classes": [{"name": "any", "paths": ["dx"]}]});
            document.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
            for id in ids {
                let mut client = client(document.clone());
                let mut step = client.headers(&call(id, "count-tokens"), true);
                if step == RequestStep::AwaitResolution {
                    client.publish(runs(&["global.anthropic.claude-v2"]));
                    step = client.tick(0);
                }
                assert_eq!(refused(step).0, 403, "{id} {document}");
            }
        }
    }
    // A profile of a known kind counts as its model.
    let mut client = client(json!({"route_classes": [{"name": "any", "paths": ["dx"]}]}));
    assert_eq!(client.headers(&call("us.anthropic.claude-v2", "count-tokens"), false), RequestStep::AwaitBody);
    assert_eq!(handoff(&forwarded(client.body(b"{}", true))).labels, ["anthropic.claude-v2"]);
}

/// A call to a resource by its name, with a guardrail in the header or the body.
fn call_by_name(document: &Value, header: Option<&str>, in_body: Option<&str>) -> RequestStep {
    let mut client = client(document.clone());
    let mut headers = call(NAME, "converse");
    if let Some(guardrail) = header {
        headers.push("x-amzn-bedrock-guardrailidentifier", guardrail);
    }
    let body = in_body.map_or(json!({}), |id| json!({"guardrailConfig": {"guardrailIdentifier": id}})).to_string();
    match client.headers(&headers, false) {
        RequestStep::AwaitResolution => {
            client.request(RequestEvent::UnreadBody { length: body.len(), end_of_stream: true });
            client.publish(runs(&[NOVA]));
            match client.tick(0) {
                RequestStep::ReadBody { .. } => client.body(body.as_bytes(), true),
                step => step,
            }
        }
        RequestStep::AwaitBody => client.body(body.as_bytes(), true),
        step => step,
    }
}

#[test]
fn refuses_a_name_with_an_arn_of_elsewhere() {
    let [east, west] =
        ["us-east-1", "us-west-2"].map(|region| format!("arn:aws:bedrock:{region}:123456789012:guardrail/g1"));
    let entry = json!({"refresh_seconds": 0, "runs": {NAME: [NOVA]}});
    for resolve in [json!({"cluster": "polls", "refresh_seconds": 60}), entry] {
        let document = json!({
            "resolve": resolve, "models": {"deny": ["anthropic.*"]}, "route_classes": [{"name": "any", "paths": ["dx"]}],
        });
        for (header, in_body) in [(Some(&*west), None), (None, Some(&*west)), (Some(&*east), Some(&*west))] {
            let (status, error, text) = refused(call_by_name(&document, header, in_body));
            assert_eq!((status, error), (400, "ValidationException"), "{text}");
            assert!(text.contains("us-east-1") && text.contains("us-west-2"), "{text}");
        }
        for (header, in_body) in [(None, None), (Some(&*east), None), (Some("g1"), Some(&*east))] {
            let forward = forwarded(call_by_name(&document, header, in_body));
            let only = handoff(&forward).only_region.map(|region| region.to_string());
            assert_eq!(only.as_deref(), Some("us-east-1"), "{document} {header:?} {in_body:?}");
        }
    }
}

#[test]
fn a_rules_own_refusal_keeps_its_id() {
    let by_operation = json!({"id": "no-converse", "effect": "deny", "operations": ["Converse"]});
    let by_model = json!({"id": "no-claude", "effect": "deny", "models": ["anthropic.*"]});
    let off = Value::Null;
    let on = json!({"refresh_seconds": 0, "runs": {"other": [CLAUDE]}});
    for (resolve, rules, words) in [
        (&off, json!([by_operation, by_model]), "rule 'no-converse' denies"),
        (&off, json!([by_model]), "rule 'no-claude' denies"),
        (&on, json!([by_operation, by_model]), "rule 'no-converse' denies"),
        (&on, json!([by_model]), "no entry of `resolve.runs` names it"),
        (&off, json!([{"id": "nova", "effect": "allow", "models": ["amazon.*"]}]), "no rule of the gateway allows"),
        (&on, json!([{"id": "nova", "effect": "allow", "models": ["amazon.*"]}]), "`models` of a rule depends on that"),
    ] {
        let classes = json!([{"name": "any", "paths": ["dx"]}]);
        let mut client = client(json!({"resolve": resolve, "rules": rules, "route_classes": classes}));
        let (status, _, text) = refused(client.headers(&call(PROFILE, "converse"), true));
        assert!(status == 403 && text.contains(words), "{resolve} {rules}: {text}");
    }
}

#[test]
fn a_rule_that_is_tried_makes_nobody_wait() {
    let tried = json!([{"id": "no-claude", "effect": "deny", "mode": "dry_run", "models": ["anthropic.*"]}]);
    let mut client = client(json!({"rules": tried, "route_classes": [{"name": "any", "paths": ["dx"]}]}));
    assert_eq!(client.headers(&call(PROFILE, "converse"), false), RequestStep::AwaitBody);
    forwarded(client.body(b"{}", true));
    assert!(client.due().is_empty());
    assert_eq!(client.exchange.facts(true).rule.as_deref(), Some("no-claude"));
}

#[test]
fn a_full_queue_leaves_the_rules_to_decide() {
    let named = |nth: usize| PROFILE.replace("a1b2c3d4e5f6", &format!("a1b2c3d4{nth:04}"));
    for (patterns, wanted) in [(json!(["amazon.*", "arn:aws:bedrock:us-east-*"]), 200), (json!(["amazon.*"]), 429)] {
        let rules = json!([
            {"id": "own", "effect": "allow", "models": patterns},
            {"id": "nova", "effect": "allow", "models": ["amazon.*"]},
        ]);
        let mut client = client(json!({"rules": rules, "route_classes": [{"name": "any", "paths": ["dx"]}]}));
        for nth in 0..64 {
            client.exchange = Exchange::new(format!("id-{nth}"));
            assert_eq!(client.headers(&call(&named(nth), "converse"), true), RequestStep::AwaitResolution);
        }
        client.exchange = Exchange::new("last".to_owned());
        match client.headers(&call(&named(64), "converse"), true) {
            RequestStep::Reply(reply) => assert_eq!(reply.status, wanted, "{}", reply.message),
            step => assert!(wanted == 200 && matches!(step, RequestStep::Forward(_)), "{step:?}"),
        }
    }
}

#[test]
fn refuses_a_denied_caller_before_a_lookup() {
    let rules = json!([
        {"id": "no-claude", "effect": "deny", "models": ["anthropic.*"]},
        {"id": "no-converse", "effect": "deny", "operations": ["Converse"]},
    ]);
    let mut client = client(json!({"rules": rules}));
    let (status, _, text) = refused(client.headers(&call(PROFILE, "converse"), true));
    assert!(status == 403 && text.contains("rule 'no-converse' denies"), "{text}");
    assert!(client.due().is_empty());
    assert_eq!(client.exchange.facts(true).rule.as_deref(), Some("no-converse"));
    client.exchange = Exchange::new("next".to_owned());
    assert_eq!(client.headers(&call(PROFILE, "invoke"), true), RequestStep::AwaitResolution);
}
