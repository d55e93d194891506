use crate::credentials::{Credentials, Secret};
use crate::envoy_names::CLUSTER_HEADER;
use crate::headers::Headers;
use crate::policy::Policy;
use crate::step::RequestStep;
use crate::testing::*;
use serde_json::{Value, json};

fn policy_with(auth: &str, extra: &Value) -> Policy {
    let mut document = json!({
        "role": "gateway", "auth": auth, "regions": {"us-east-1": {}, "us-west-2": {}},
        "govcloud_accounts": ["999988887777"], "headers": {"allow": ["X-Amzn-Bedrock-Newest"]},
        "route_classes": [{"name": "any", "paths": ["dx", "vpn"], "region_weights": {"us-east-1": 1, "us-west-2": 1}}]
    });
    document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Policy::parse(document.to_string().as_bytes(), None).unwrap()
}

fn request(line: &str, extra: &[(&str, &str)]) -> Headers {
    let (method, path) = line.split_once(' ').unwrap();
    let own = [(":method", method), (":path", path), (":scheme", "http"), ("content-type", "application/json")];
    headers(&[&own, extra].concat())
}

/// Sends a call as the exchange `id`, its body in two parts.
fn send(policy: Policy, id: &str, headers: &Headers, body: &str) -> (Client, RequestStep) {
    let credentials = match policy.auth {
        crate::config::Auth::Bearer => Credentials::ApiKey(Secret::new("k")),
        crate::config::Auth::Sigv4 => keys(),
    };
    let mut client = Client::of(policy, Some(credentials));
    client.exchange = crate::exchange::Exchange::new(id.to_owned());
    let mut step = client.headers(headers, body.is_empty());
    if matches!(step, RequestStep::AwaitBody) {
        let (first, second) = body.split_at(body.len() / 2);
        client.body(first.as_bytes(), false);
        step = client.body(second.as_bytes(), true);
    }
    (client, step)
}

/// The ends of the names of the clusters that 40 calls go to.
fn clusters(auth: &str, headers: &Headers, body: &str) -> Vec<String> {
    let mut clusters: Vec<String> = (0..40)
        .map(|nth| {
            let (_, step) = send(policy_with(auth, &json!({})), &format!("id-{nth}"), headers, body);
            let cluster = forwarded(step).headers.get_str(CLUSTER_HEADER).unwrap().to_owned();
            cluster.split_once(".any.").unwrap().1.to_owned()
        })
        .collect();
    clusters.sort();
    clusters.dedup();
    clusters
}

#[test]
fn a_call_stays_where_its_resources_are() {
    const CONVERSE: &str = "POST /model/anthropic.claude-v2:0/converse";
    const INVOKE: &str = "POST /model/anthropic.claude-v2:0/invoke";
    const WEST: &str = "arn:aws:bedrock:us-west-2:111122223333:";
    let (guardrail, project) = (format!("{WEST}guardrail/g1"), format!("{WEST}project/p1"));
    let body = |member: &str, id: &str| match member {
        "guardrail" => format!(r#"{{"messages":[],"guardrailConfig":{{"guardrailIdentifier":"{id}"}}}}"#),
        _ => format!(r#"{{"projectIdentifier":"{id}","messages":[]}}"#),
    };
    let header = |name| format!("x-amzn-bedrock-{name}identifier");
    let (everywhere, first, west) = (&["us-east-1", "us-west-2"][..], &["only-us-east-1"][..], &["only-us-west-2"][..]);
    for auth in ["sigv4", "bearer"] {
        assert_eq!(clusters(auth, &request(CONVERSE, &[]), r#"{"messages":[]}"#), everywhere, "{auth}");
        assert_eq!(clusters(auth, &request(INVOKE, &[]), "{}"), everywhere, "{auth}");
        for (member, arn) in [("guardrail", &guardrail), ("project", &project)] {
            for (id, wanted) in [("g1", first), (arn.as_str(), west)] {
                let name = header(member);
                assert_eq!(clusters(auth, &request(INVOKE, &[(&name, id)]), "{}"), wanted, "{auth} {name}: {id}");
                assert_eq!(clusters(auth, &request(CONVERSE, &[]), &body(member, id)), wanted, "{auth} {member} {id}");
            }
        }
        let default = [("x-amzn-bedrock-projectidentifier", "default")];
        assert_eq!(clusters(auth, &request(INVOKE, &default), "{}"), everywhere, "{auth}");
        let models = "GET /foundation-models";
        assert_eq!(clusters(auth, &request(models, &[]), ""), everywhere, "{auth}");
        assert_eq!(clusters(auth, &request(&format!("{models}?projectIdentifier=p1"), &[]), ""), first, "{auth}");
        // The models' own bodies are not looked into, and nor is a client's text.
        assert_eq!(clusters(auth, &request(INVOKE, &[]), &body("project", &project)), everywhere, "{auth}");
        // It names nothing of the account.
        assert_eq!(clusters(auth, &request("POST /guardrail-checks/invoke", &[]), "{}"), everywhere, "{auth}");
        let label = "POST /guardrail/arn%3Aaws%3Abedrock%3Aus-west-2%3A111122223333%3Aguardrail%2Fg1/version/1/apply";
        assert_eq!(clusters(auth, &request(label, &[]), "{}"), west, "{auth}");
        let query = format!("GET /custom-models?baseModelArnEquals={}", crate::encoding::encode(&guardrail));
        assert_eq!(clusters(auth, &request(&query, &[]), ""), west, "{auth}");
    }
}

#[test]
fn the_record_names_the_project() {
    let project = |line, extra: &[_], body| {
        let (client, _) = send(policy_with("sigv4", &json!({})), ID, &request(line, extra), body);
        client.exchange.facts(true).project
    };
    let header = [("x-amzn-bedrock-projectidentifier", "p-1")];
    assert_eq!(project("POST /model/a.b/invoke", &header, "{}").as_deref(), Some("p-1"));
    assert_eq!(project("POST /model/a.b/converse", &[], r#"{"projectIdentifier":"p-2"}"#).as_deref(), Some("p-2"));
    assert_eq!(project("POST /model/a.b/converse", &[], "{}"), None);
}

#[test]
fn govclouds_ids_are_refused_in_every_place() {
    let gov = "arn:aws-us-gov:bedrock:us-gov-west-1:999988887777:guardrail/g1";
    let region = "arn:aws:bedrock:us-gov-west-1:111122223333:guardrail/g1";
    let account = "arn:aws:bedrock:us-east-1:999988887777:guardrail/g1";
    let invoke = "POST /model/anthropic.claude-v2:0/invoke";
    for id in [gov, region, account] {
        let encoded = crate::encoding::encode(id);
        let in_body = format!(r#"{{"guardrailConfig":{{"guardrailIdentifier":"{id}"}}}}"#);
        let project = format!(r#"{{"projectIdentifier":"{id}"}}"#);
        for (place, line, extra, body) in [
            ("path", format!("POST /guardrail/{encoded}/version/1/apply"), vec![], "{}"),
            ("path", format!("GET /async-invoke/{encoded}"), vec![], ""),
            ("baseModelArnEquals", format!("GET /custom-models?baseModelArnEquals={encoded}"), vec![], ""),
            (
                "x-amzn-bedrock-guardrailidentifier",
                invoke.into(),
                vec![("x-amzn-bedrock-guardrailidentifier", id)],
                "{}",
            ),
            ("x-amzn-bedrock-projectidentifier", invoke.into(), vec![("x-amzn-bedrock-projectidentifier", id)], "{}"),
            ("guardrailConfig.guardrailIdentifier", "POST /model/a.b/converse".into(), vec![], &in_body),
            ("projectIdentifier", "POST /model/a.b/converse-stream".into(), vec![], &project),
        ] {
            let (_, step) = send(policy_with("sigv4", &json!({})), ID, &request(&line, &extra), body);
            let (status, error, message) = refused(step);
            assert_eq!((status, error), (403, "AccessDeniedException"), "{line}");
            assert!(message.contains(id) && message.contains(&format!("(in '{place}')")), "{line}: {message}");
        }
        let line = format!("POST /model/{encoded}/invoke");
        let (_, step) = send(policy_with("sigv4", &json!({})), ID, &request(&line, &[]), "{}");
        assert_eq!(refused(step).0, 403, "{line}");
    }
}

#[test]
fn govclouds_models_are_translated() {
    for (line, wanted) in [
        ("POST /model/us-gov.anthropic.claude-v2/converse", "/model/anthropic.claude-v2/converse"),
        ("GET /foundation-models/us-gov.anthropic.claude-v2", "/foundation-models/anthropic.claude-v2"),
        ("GET /foundation-model-availability/us-gov.a.b", "/foundation-model-availability/a.b"),
        // CountTokens takes no profile.
        ("POST /model/us.anthropic.claude-v2/count-tokens", "/model/anthropic.claude-v2/count-tokens"),
        ("POST /model/global.anthropic.claude-v2/count-tokens", "/model/anthropic.claude-v2/count-tokens"),
        (
            "POST /model/arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Ainference-profile%2Fus.a.b/count-tokens",
            "/model/a.b/count-tokens",
        ),
    ] {
        let body = if line.starts_with("GET") { "" } else { "{}" };
        let (_, step) = send(policy_with("sigv4", &json!({})), ID, &request(line, &[]), body);
        assert_eq!(forwarded(step).headers.get_str(":path"), Some(wanted), "{line}");
    }
}

#[test]
fn a_model_in_a_body_is_judged() {
    let models = json!({"models": {"deny": ["*nova-reel*"]}, "aliases": {"video": "amazon.nova-canvas-v1:0"}});
    let start =
        |extra: &Value, body: &str| send(policy_with("sigv4", extra), ID, &request("POST /async-invoke", &[]), body);
    let body = |id: &str| format!(r#"{{"modelInput":{{"modelId":"x"}},"modelId":"{id}","outputDataConfig":{{}}}}"#);
    let (client, step) = start(&models, &body("amazon.nova-canvas-v1:0"));
    assert_eq!(forwarded(step).headers.get_str(":path"), Some("/async-invoke"));
    assert_eq!(client.exchange.facts(true).model.as_deref(), Some("amazon.nova-canvas-v1:0"));
    let west = "arn:aws:bedrock:us-west-2::foundation-model/amazon.nova-canvas-v1:0";
    let forward = forwarded(start(&models, &body(west)).1);
    assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock-runtime.any.only-us-west-2"));
    for (id, status, wanted) in [
        ("amazon.nova-reel-v1:0", 403, "policy does not allow model 'amazon.nova-reel-v1:0'"),
        ("us.amazon.nova-reel-v1:0", 403, "does not allow"),
        ("arn:aws:bedrock:us-east-1:111122223333:provisioned-model/a1", 403, "cannot tell which model"),
        ("us-gov.amazon.nova-canvas-v1:0", 400, "write 'amazon.nova-canvas-v1:0'"),
        ("video", 400, "'modelId' is 'video': write 'amazon.nova-canvas-v1:0'"),
    ] {
        let (client, step) = start(&models, &body(id));
        let reply = refused(step);
        assert_eq!(reply.0, status, "{id}");
        assert!(reply.2.contains(wanted), "{id}: {}", reply.2);
        assert_eq!(client.exchange.facts(true).model.as_deref(), Some(id));
    }
    let twice = r#"{"modelId":"amazon.nova-canvas-v1:0","modelId":"amazon.nova-reel-v1:0"}"#;
    assert!(refused(start(&models, twice).1).2.contains("'modelId' more than once"));
    let none = r#"{"modelInput":{}}"#;
    forwarded(start(&models, none).1);
    // A class is chosen before the body arrives.
    let classes = json!({"route_classes": [{"name": "any", "models": ["*"], "paths": ["dx"]}, {"name": "rest", "paths": ["dx"]}]});
    let reply = refused(start(&classes, &body("a.b")).1);
    assert_eq!((reply.0, reply.1), (403, "AccessDeniedException"));
    assert!(reply.2.contains("StartAsyncInvoke names its model in the body"), "{}", reply.2);
    // A WasmPlugin with an API key does not hold bodies.
    let plugin = json!({"role": "combined", "region": "us-east-1", "models": {"deny": ["a.*"]},
        "route_classes": [{"name": "any", "paths": ["dx"], "regions": ["us-east-1"]}]});
    let send = |line| send(policy_with("bearer", &plugin), ID, &request(line, &[]), &body("b.c")).1;
    assert_eq!(refused(send("POST /async-invoke")).0, 403);
    forwarded(send("POST /model/b.c/converse"));
}

#[test]
fn bedrocks_headers_cross_or_are_refused() {
    let invoke = "POST /model/anthropic.claude-v2:0/invoke";
    let send = |name: &str, value: &str| {
        send(policy_with("sigv4", &json!({})), ID, &request(invoke, &[(name, value)]), "{}").1
    };
    let long = format!("x-amzn-bedrock-{}", "n".repeat(100));
    for (name, value, crosses) in [
        ("x-amzn-bedrock-projectidentifier", "p-1", Some("p-1")),
        ("x-amzn-bedrock-newest", "1", Some("1")),
        // Tabs are white space; letters are the client's.
        ("x-amzn-bedrock-request-metadata", "{\"a\":\t\"B\"}\t", Some("{\"a\": \"B\"}")),
        ("accept", "Application/JSON", Some("Application/JSON")),
        ("x-amzn-bedrock-projectid", "p-1", None),
        ("x-amzn-bedrock-", "1", None),
        (long.as_str(), "1", None),
    ] {
        match (crosses, send(name, value)) {
            (Some(wanted), step) => assert_eq!(forwarded(step).headers.get_str(name), Some(wanted), "{name}"),
            (None, step) => {
                let (status, error, message) = refused(step);
                assert_eq!((status, error), (400, "ValidationException"), "{name}");
                let shown: String = name.chars().take(64).collect();
                assert!(message.contains(&format!("the header '{shown}'")), "{message}");
            }
        }
    }
    // What is nobody's concern is dropped as before.
    let forward = forwarded(send("x-amzn-trace-id", "Root=1"));
    assert_eq!(forward.headers.get("x-amzn-trace-id"), None);
    forwarded(send("content-encoding", "Identity"));
}

#[test]
fn a_body_that_can_be_misread_is_refused() {
    for body in [r#"{"messages":[]"#, r#"{"projectIdentifier":"a","projectIdentifier":"b"}"#, "hello"] {
        for auth in ["sigv4", "bearer"] {
            let (_, step) = send(policy_with(auth, &json!({})), ID, &request("POST /model/a.b/converse", &[]), body);
            let (status, error, _) = refused(step);
            assert_eq!((status, error), (400, "ValidationException"), "{body}");
        }
    }
}
