use super::*;
use crate::breaker::Breaker;
use crate::credentials::{Credentials, Secret};
use crate::envoy_names::{ATTEMPT_PROPERTY, CLASS_PROPERTY, CLUSTER_HEADER, HASH_HEADER};
use crate::handoff::Handoff;
use crate::principal::PrincipalError;
use crate::testing::*;
use audit::AttemptFacts;
use serde_json::json;

fn names(headers: &Headers) -> Vec<&str> {
    let mut names: Vec<_> = headers.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_call_goes_from_headers_to_signature() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    assert_eq!(client.headers(&converse(&[]), false), RequestStep::AwaitBody);
    assert_eq!(client.body(b"{\"mess", false), RequestStep::AwaitBody);
    let forward = forwarded(client.body(b"ages\":[]}", true));
    assert_eq!(forward.headers.get(CLUSTER_HEADER), Some(b"bedrock-runtime.any.us-east-1".as_slice()));
    assert_eq!(forward.headers.get_str("content-length"), Some("15"));
    let (_, handoff) = &forward.states[0];

    for (label, host) in [
        ("us-east-1", "bedrock-runtime.us-east-1.amazonaws.com"),
        ("us-west-2", "bedrock-runtime.us-west-2.amazonaws.com"),
    ] {
        let policy = policy("signer", "sigv4");
        // Envoy adds headers between the chains; they must not cross either.
        let mut passed = forward.headers.clone();
        passed.push("x-envoy-attempt-count", "1");
        passed.push("x-forwarded-for", "10.0.0.1");
        let signed =
            forwarded(attempt(&passed, Some(handoff), Some(label.as_bytes()), context(&policy, Some(&keys()))));
        assert_eq!(
            names(&signed.headers),
            [
                ":authority",
                ":method",
                ":path",
                ":scheme",
                "authorization",
                "content-length",
                "content-type",
                "x-amz-date",
                "x-amz-security-token",
                "x-amzn-bedrock-trace"
            ]
        );
        assert_eq!(signed.headers.get_str(":authority"), Some(host));
        assert_eq!(signed.headers.get_str(":path"), Some("/model/us.anthropic.claude-v2%3A0/converse"));
        let authorization = signed.headers.get_str("authorization").unwrap();
        assert!(
            authorization.contains(&format!("AKIDEXAMPLE/19700101/{label}/bedrock/aws4_request")),
            "{authorization}"
        );
        let wanted = "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amzn-bedrock-trace,";
        assert!(authorization.contains(wanted), "{authorization}");
        assert_eq!(signed.headers.get_str("x-amz-security-token"), Some("the-token"));
        let facts: AttemptFacts = serde_json::from_slice(&signed.states[0].1).unwrap();
        let tried = vec![format!("dx/{label}")];
        let model = Some(format!("us.{MODEL}"));
        let wanted = AttemptFacts {
            model,
            region: label.to_owned(),
            access_key_id: Some("AKIDEXAMPLE".to_owned()),
            session: Some("arn:aws:sts::111122223333:assumed-role/bedrock-gateway/test".to_owned()),
            token_id: Some("the-token-id".to_owned()),
            retention: None,
            tried,
            resigned: None,
            refused_on_demand: None,
        };
        assert_eq!(facts, wanted);

        // A second attempt finds the headers as the first one left them, and signs the same.
        let again = attempt(&signed.headers, Some(handoff), Some(label.as_bytes()), context(&policy, Some(&keys())));
        assert_eq!(forwarded(again), signed);
    }
    let facts = client.exchange.facts(true);
    // Not the `x-request-id` of its headers.
    assert_eq!(facts.id, ID);
    assert_eq!((facts.operation.as_deref(), facts.model.as_deref()), (Some("Converse"), Some(MODEL)));
    assert_eq!(facts.class.as_deref(), Some("any"));
}

#[test]
fn combined_signs_at_once_for_its_region() {
    let mut client = Client::new("combined", "sigv4", Some(keys()));
    assert_eq!(client.headers(&converse(&[]), false), RequestStep::AwaitBody);
    let forward = forwarded(client.body(b"{}", true));
    assert_eq!(forward.headers.get_str(":authority"), Some("bedrock-runtime.us-east-1.amazonaws.com"));
    assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock-runtime.any"));
    assert!(forward.headers.get_str("authorization").unwrap().contains("/us-east-1/bedrock/"));
    assert_eq!(forward.states.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [ATTEMPT_PROPERTY, CLASS_PROPERTY]);
    let unique: std::collections::BTreeSet<_> = names(&forward.headers).into_iter().collect();
    assert_eq!(unique.len(), names(&forward.headers).len(), "{:?}", names(&forward.headers));
}

#[test]
fn a_get_goes_at_once_with_the_empty_hash() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    let list = headers(&[(":method", "GET"), (":path", "/foundation-models?byProvider=x&byInferenceType=y")]);
    let forward = forwarded(client.headers(&list, true));
    assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock.any.us-east-1"));
    assert_eq!(forward.headers.get_str(":path"), Some("/foundation-models?byInferenceType=y&byProvider=x"));
    let handoff: Handoff = serde_json::from_slice(&forward.states[0].1).unwrap();
    assert_eq!((handoff.body_sha256.as_deref(), handoff.content_length), (Some(EMPTY_SHA256), None));
}

fn client_of_envoys_hashes(auth: &str, credentials: Credentials) -> Client {
    let mut document = document("gateway", auth);
    document["envoy_hashes_body_bytes"] = json!({"min": 10, "max": 20});
    Client::of(Policy::parse(document.to_string().as_bytes(), None).unwrap(), Some(credentials))
}

#[test]
fn envoy_hashes_long_bodies() {
    let body = br#"{"messages":[]}"#;
    let hash = crate::encoding::hex(&sha2::Sha256::digest(body));
    let here = Some(hash.as_str());
    for (length, known) in [
        (Some("15"), None),
        (Some("10"), None),
        (Some("20"), None),
        (Some("9"), here),
        (Some("21"), here),
        (None, here),
    ] {
        let mut client = client_of_envoys_hashes("sigv4", keys());
        let length: Vec<_> = length.map(|length| ("content-length", length)).into_iter().collect();
        assert_eq!(client.headers(&converse(&length), false), RequestStep::AwaitBody);
        let forward = forwarded(client.body(body, true));
        let handoff: Handoff = serde_json::from_slice(&forward.states[0].1).unwrap();
        assert_eq!((handoff.body_sha256.as_deref(), handoff.envoy_hashes), (known, known.is_none()), "{length:?}");
        assert_eq!(forward.headers.get_str(HASH_HEADER), known.is_none().then_some("sha256"), "{length:?}");
        assert_eq!(forward.headers.get("x-amz-content-sha256"), None, "the client's does not cross");
    }
    // Nobody hashes what is not signed.
    let key = Credentials::ApiKey(Secret::new("ABSKexample"));
    let mut client = client_of_envoys_hashes("bearer", key);
    let forward = forwarded(client.headers(&invoke(&[("content-length", "20")]), false));
    assert_eq!(forward.headers.get(HASH_HEADER), None);
}

#[test]
fn trailers_after_a_long_body_are_refused() {
    for (length, refuses) in [("15", true), ("9", false)] {
        let mut client = client_of_envoys_hashes("sigv4", keys());
        assert_eq!(client.headers(&converse(&[("content-length", length)]), false), RequestStep::AwaitBody);
        assert_eq!(client.body(br#"{"a":0}"#, false), RequestStep::AwaitBody);
        let step = client.request(RequestEvent::Trailers);
        if refuses {
            let (status, error, message) = refused(step);
            assert_eq!((status, error), (400, "ValidationException"));
            assert!(message.contains("trailers"), "{message}");
        } else {
            forwarded(step);
        }
    }
}

#[test]
fn bearer_lets_the_body_stream() {
    let key = Credentials::ApiKey(Secret::new("ABSKexample"));
    let mut client = Client::new("gateway", "bearer", Some(key.clone()));
    let forward = forwarded(client.headers(&invoke(&[("content-length", "20")]), false));
    assert_eq!(client.exchange.request_body_mode(), RequestBodyMode::Stream);
    assert_eq!(client.request(RequestEvent::UnreadBody { length: 20, end_of_stream: true }), RequestStep::Continue);
    let policy = policy("signer", "bearer");
    let (_, handoff) = &forward.states[0];
    let signed = forwarded(attempt(&forward.headers, Some(handoff), Some(b"us-east-1"), context(&policy, Some(&key))));
    assert_eq!(signed.headers.get_str("authorization"), Some("Bearer ABSKexample"));
    assert_eq!(signed.headers.get_str("content-length"), Some("20"));
    assert_eq!(signed.headers.iter().filter(|(name, _)| name.starts_with("x-amz-")).count(), 0);
    let facts = String::from_utf8(client.exchange.facts(true).to_json()).unwrap();
    assert!(!facts.contains("ABSK"), "{facts}");
}

#[test]
fn refuses_by_the_right_name() {
    type Case<'a> = (&'a [(&'a str, &'a str)], u16, &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (&[(":path", "/nothing")], 404, "UnknownOperationException", "Unable to determine"),
        (&[(":path", "/model/%zz/converse")], 400, "ValidationException", "'modelId'"),
        (&[(":path", "/model/x/converse?a=%")], 400, "ValidationException", "query"),
        (
            &[(":path", "/model/x/invoke-with-bidirectional-stream")],
            400,
            "ValidationException",
            "InvokeModelWithBidirectionalStream is not supported",
        ),
        (&[(":path", "/model/a.forbidden/converse")], 403, "AccessDeniedException", "'a.forbidden'"),
        (&[(":path", "/model/a1b2c3d4e5f6/converse")], 403, "AccessDeniedException", "cannot tell which model"),
        (&[("content-type", "application/grpc")], 415, "ValidationException", "gRPC"),
        (
            &[(":path", "/model-invocation-job")],
            403,
            "AccessDeniedException",
            "carries CreateModelInvocationJob only if `optional_operations` of its document lists `batch_jobs`",
        ),
        (
            &[(":path", "/model-invocation-job/abc123def456/stop")],
            403,
            "AccessDeniedException",
            "carries StopModelInvocationJob",
        ),
        (
            &[(":path", "/rerank")],
            403,
            "AccessDeniedException",
            "carries Rerank only if `optional_operations` of its document lists `agent_runtime`",
        ),
        (&[(":path", "/model/a.x/converse-stream")], 403, "AccessDeniedException", "no route class"),
        (&[("content-length", "-1")], 400, "ValidationException", "'content-length'"),
        (&[("x-amzn-bedrock-trace", "twice")], 400, "ValidationException", "'x-amzn-bedrock-trace' is repeated"),
        (&[("content-encoding", "gzip")], 400, "ValidationException", "content-encoding"),
        (&[("x-amzn-bedrock-new", "1")], 400, "ValidationException", "the header 'x-amzn-bedrock-new'"),
        (
            &[("x-amzn-bedrock-guardrailidentifier", "arn:aws-us-gov:bedrock:us-gov-west-1:111122223333:guardrail/x")],
            403,
            "AccessDeniedException",
            "(in 'x-amzn-bedrock-guardrailidentifier')",
        ),
        (
            &[
                ("x-amzn-bedrock-guardrailidentifier", "arn:aws:bedrock:us-east-1:111122223333:guardrail/x"),
                ("x-amzn-bedrock-projectidentifier", "arn:aws:bedrock:us-west-2:111122223333:project/x"),
            ],
            400,
            "ValidationException",
            "resources of two regions",
        ),
        (&[("content-type", "twice")], 400, "ValidationException", "'content-type' is repeated"),
        (&[("x-amzn-bedrock-service-tier", "\u{fc}")], 400, "ValidationException", "'x-amzn-bedrock-service-tier'"),
    ];
    for (extra, status, error, message) in cases {
        // A later pseudo-header replaces the earlier one; other headers are added.
        let given = converse(extra)
            .iter()
            .filter(|(name, value)| {
                !name.starts_with(':') || !extra.iter().any(|(n, v)| n == name && v.as_bytes() != *value)
            })
            .map(|(name, value)| (name.to_owned(), value.to_vec()))
            .collect();
        let mut client = Client::new("gateway", "sigv4", Some(keys()));
        let reply = refused(client.headers(&given, false));
        assert_eq!((reply.0, reply.1), (*status, *error), "{extra:?}");
        assert!(reply.2.contains(message), "{extra:?}: {}", reply.2);
        let facts = client.exchange.facts(true);
        assert_eq!(facts.error.as_deref(), Some(*error));
        // The record has the operation, refused or not.
        assert_eq!(
            facts.operation.is_some(),
            *error != "UnknownOperationException" && !message.contains("query") && !message.contains("modelId")
        );
        assert_eq!(client.body(b"late", true), RequestStep::Continue);
    }
}

#[test]
fn refuses_a_long_body_at_its_end() {
    let too_long = |step| {
        let (status, error, message) = refused(step);
        assert_eq!((status, error), (413, "ValidationException"));
        assert!(message.contains("100 bytes"), "{message}");
    };
    // It grows too long while it is held.
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    assert_eq!(client.headers(&converse(&[]), false), RequestStep::AwaitBody);
    assert_eq!(client.body(&[b'x'; 100], false), RequestStep::AwaitBody);
    assert_eq!(client.body(b"x", false), RequestStep::DiscardBody);
    assert_eq!(client.exchange.request_body_mode(), RequestBodyMode::Discard);
    assert_eq!(
        client.request(RequestEvent::UnreadBody { length: 500, end_of_stream: false }),
        RequestStep::DiscardBody
    );
    too_long(client.request(RequestEvent::UnreadBody { length: 1, end_of_stream: true }));

    // It announces its length.
    let key = Credentials::ApiKey(Secret::new("k"));
    for (auth, credentials) in [("sigv4", keys()), ("bearer", key.clone())] {
        let mut client = Client::new("gateway", auth, Some(credentials));
        assert_eq!(client.headers(&converse(&[("content-length", "101")]), false), RequestStep::DiscardBody);
        assert_eq!(
            client.request(RequestEvent::UnreadBody { length: 101, end_of_stream: false }),
            RequestStep::DiscardBody
        );
        too_long(client.request(RequestEvent::Trailers));
    }

    // A much longer body is ended early.
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    assert_eq!(client.headers(&converse(&[("content-length", "100000")]), false), RequestStep::DiscardBody);
    assert_eq!(
        client.request(RequestEvent::UnreadBody { length: 800, end_of_stream: false }),
        RequestStep::DiscardBody
    );
    too_long(client.request(RequestEvent::UnreadBody { length: 1, end_of_stream: false }));

    // It has gone upstream already.
    let mut client = Client::new("gateway", "bearer", Some(key));
    forwarded(client.headers(&invoke(&[]), false));
    too_long(client.request(RequestEvent::UnreadBody { length: 101, end_of_stream: false }));
}

#[test]
fn refuses_without_credentials() {
    for (role, auth) in [("gateway", "sigv4"), ("gateway", "bearer"), ("combined", "sigv4"), ("combined", "bearer")] {
        let reply = refused(Client::new(role, auth, None).headers(&converse(&[]), false));
        assert_eq!((reply.0, reply.1), (503, "ServiceUnavailableException"));
    }
}

#[test]
fn principals_choose_the_class() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    let (headers, principal) = (converse(&[]), Some("spiffe://secret/a".to_owned()));
    client.request(RequestEvent::Headers {
        headers: &headers,
        principal: Ok(principal),
        groups: Ok(Vec::new()),
        end_of_stream: false,
        address: None,
    });
    let forward = forwarded(client.body(b"", true));
    assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock-runtime.private-only"));
    assert_eq!(client.exchange.facts(true).principal.as_deref(), Some("spiffe://secret/a"));
}

#[test]
fn metrics_name_configured_models_only() {
    for (path, label) in [
        ("/model/anthropic.claude-v2:0/converse", ";model=anthropic.claude-v2:0"),
        ("/model/made.up/converse", ";model=other"),
        ("/nothing", ";model=none"),
    ] {
        let mut client = Client::new("gateway", "sigv4", Some(keys()));
        client.headers(&headers(&[(":method", "POST"), (":path", path)]), true);
        let facts = client.exchange.facts(true);
        let endpoint = Endpoint { path: Some("dx"), region: Some("us-east-1"), attempts: 1 };
        let samples = client.exchange.settle(&facts, endpoint, context(&client.policy, None));
        assert!(samples.iter().all(|sample| sample.name.contains(label)), "{samples:?}");
        assert!(samples.iter().any(|sample| sample.name.starts_with("bedrock_requests;")));
    }
}

#[test]
fn refuses_a_content_type_that_envoy_joined() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    let joined: Headers = converse(&[])
        .iter()
        .map(|(name, value)| {
            let value = if name == "content-type" { b"application/json,text/plain".as_slice() } else { value };
            (name.to_owned(), value.to_vec())
        })
        .collect();
    let reply = refused(client.headers(&joined, false));
    assert!(reply.0 == 400 && reply.2.contains("'content-type' is repeated"), "{reply:?}");
}

/// The cluster that a call is sent to, under a change of the document.
fn cluster_of(client: &mut Client, call: &Headers) -> String {
    let step = match client.headers(call, false) {
        RequestStep::AwaitBody => client.body(b"{}", true),
        step => step,
    };
    forwarded(step).headers.get_str(CLUSTER_HEADER).unwrap().to_owned()
}

#[test]
fn regional_resources_go_to_their_region() {
    let arn = "/model/arn:aws:bedrock:us-west-2:123456789012:inference-profile%2Fus.a.x/converse";
    let elsewhere = "/model/arn:aws:bedrock:eu-west-1:123456789012:inference-profile%2Feu.a.x/converse";
    let guardrail = ("x-amzn-bedrock-guardrailidentifier", "abc");
    let regional = ("x-amzn-bedrock-guardrailidentifier", "arn:aws:bedrock:us-west-2:123456789012:guardrail/abc");
    let plain = (":path", "/model/anthropic.claude-v2:0/converse");
    for (call, cluster) in [
        ([plain, ("accept", "*/*")], "bedrock-runtime.any.us-east-1"),
        ([(":path", arn), ("accept", "*/*")], "bedrock-runtime.any.only-us-west-2"),
        ([(":path", elsewhere), ("accept", "*/*")], "bedrock-runtime.any.only-us-east-1"),
        ([plain, guardrail], "bedrock-runtime.any.only-us-east-1"),
        ([plain, regional], "bedrock-runtime.any.only-us-west-2"),
    ] {
        let mut client = Client::new("gateway", "sigv4", Some(keys()));
        let [first, second] = call;
        assert_eq!(cluster_of(&mut client, &headers(&[(":method", "POST"), first, second])), cluster, "{call:?}");
    }
}

#[test]
fn a_throttled_region_is_passed_over() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    Breaker::new(&client.shared, "us-east-1", MODEL, NOW).failed(None);
    assert_eq!(cluster_of(&mut client, &converse(&[])), "bedrock-runtime.any.us-west-2");
    // If both are, the first is called: the client sees its response.
    client.exchange = Exchange::new(ID.to_owned());
    Breaker::new(&client.shared, "us-west-2", MODEL, NOW).failed(None);
    assert_eq!(cluster_of(&mut client, &converse(&[])), "bedrock-runtime.any.us-east-1");
}

/// A call that only sends its headers must not keep others out of a region that is ready for a trial.
#[test]
fn incomplete_calls_keep_no_region_out_of_use() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    Breaker::new(&client.shared, "us-east-1", MODEL, client.now).failed(None);
    client.now += Duration::from_secs(2);
    for nth in 0..50 {
        client.exchange = Exchange::new(format!("incomplete-{nth}"));
        assert_eq!(client.headers(&converse(&[]), false), RequestStep::AwaitBody);
    }
    client.exchange = Exchange::new(ID.to_owned());
    assert_eq!(cluster_of(&mut client, &converse(&[])), "bedrock-runtime.any.us-east-1");
}

#[test]
fn refuses_names_that_are_not_text() {
    for (problem, message) in [
        (PrincipalError::Claim { claim: "sub".to_owned(), kind: "a number" }, "the claim 'sub' of the caller's token"),
        (PrincipalError::Certificate, "the URI in the caller's certificate"),
        (PrincipalError::Metadata, "metadata"),
    ] {
        let mut client = Client::new("gateway", "sigv4", Some(keys()));
        let headers = converse(&[]);
        let event = RequestEvent::Headers {
            headers: &headers,
            principal: Err(problem),
            groups: Ok(Vec::new()),
            end_of_stream: false,
            address: None,
        };
        let reply = refused(client.request(event));
        assert_eq!((reply.0, reply.1), (403, "AccessDeniedException"));
        assert!(reply.2.contains(message), "{}", reply.2);
        let facts = client.exchange.facts(true);
        assert_eq!((facts.principal, facts.operation.as_deref()), (None, Some("Converse")));
    }
}

#[test]
fn a_throttled_caller_learns_when_to_retry() {
    let mut document = json!({
        "role": "gateway",
        "regions": {"us-east-1": {}},
        "route_classes": [{"name": "any", "paths": ["dx"], "limits": {"requests_per_minute": 2, "tokens_per_minute": 60}}]
    });
    let load = |document: &serde_json::Value| Policy::parse(document.to_string().as_bytes(), None).unwrap();
    let mut client = Client::of(load(&document), Some(keys()));
    for wanted in [true, true, false] {
        client.exchange = Exchange::new(ID.to_owned());
        match (client.headers(&converse(&[]), false), wanted) {
            (RequestStep::AwaitBody, true) => {}
            (RequestStep::Reply(reply), false) => {
                assert_eq!((reply.status, reply.error, reply.retry_after), (429, "ThrottlingException", Some(30)));
                assert!(reply.headers(ID).contains(&("retry-after", b"30".to_vec())));
                assert!(reply.message.contains("route class 'any'"), "{}", reply.message);
            }
            (step, _) => panic!("{step:?}"),
        }
    }
    // Tokens are charged when a call is over.
    document["route_classes"][0]["limits"] = json!({"tokens_per_minute": 60});
    let mut client = Client::of(load(&document), Some(keys()));
    assert_eq!(client.headers(&converse(&[]), false), RequestStep::AwaitBody);
    let mut facts = client.exchange.facts(true);
    facts.usage = audit::Usage {
        input: Some(50),
        output: Some(20),
        cache_read: Some(900),
        cache_write: Some(1),
        ..audit::Usage::default()
    };
    client.exchange.settle(&facts, Endpoint::default(), client.context());
    client.exchange = Exchange::new(ID.to_owned());
    // 11 overdrawn and one wanted, at one a second.
    assert!(
        matches!(client.headers(&converse(&[]), false), RequestStep::Reply(reply) if reply.retry_after == Some(12))
    );
}

#[test]
fn calls_wait_for_first_credentials_at_most() {
    let seconds = Duration::from_secs;
    for (after, comes) in [(1, true), (2, false)] {
        let (policy, store, shared_credentials) = fetched("gateway");
        let mut client = Client::of(policy, None);
        client.credentials = store;
        assert_eq!(client.headers(&converse(&[]), false), RequestStep::AwaitBody);
        assert_eq!(client.body(b"{}", true), RequestStep::AwaitCredentials);
        assert_eq!(client.request(RequestEvent::Tick), RequestStep::AwaitCredentials);
        client.now = NOW + seconds(after);
        if comes {
            publish(&shared_credentials, &client.shared, client.now, 60);
            let forward = forwarded(client.request(RequestEvent::Tick));
            assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock-runtime.any"));
            assert_eq!(client.request(RequestEvent::Tick), RequestStep::Continue);
        } else {
            let reply = refused(client.request(RequestEvent::Tick));
            assert_eq!((reply.0, reply.1), (503, "ServiceUnavailableException"));
            assert!(reply.2.contains("still waiting for its first credentials"), "{}", reply.2);
        }
    }
}

#[test]
fn refuses_when_credentials_expired() {
    let (policy, store, shared_credentials) = fetched("gateway");
    let mut client = Client::of(policy, None);
    client.credentials = store;
    publish(&shared_credentials, &client.shared, NOW, 60);
    client.now = NOW + Duration::from_secs(60);
    let reply = refused(client.headers(&converse(&[]), false));
    assert_eq!(reply.0, 503);
    assert!(reply.2.contains("have expired"), "{}", reply.2);
}

#[test]
fn facts_say_what_was_asked_for() {
    let asked =
        |tier: &str, latency: &str| audit::Serving { tier: Some(tier.to_owned()), latency: Some(latency.to_owned()) };
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    client.headers(&converse(&[]), false);
    client.body(br#"{"serviceTier":{"ty"#, false);
    forwarded(client.body(br#"pe":"flex"},"performanceConfig":{"latency":"optimized"}}"#, true));
    assert_eq!(client.exchange.facts(true).asked, asked("flex", "optimized"));
    let invoke = headers(&[
        (":method", "POST"),
        (":path", &format!("/model/{}/invoke", MODEL.replace(':', "%3A"))),
        ("x-amzn-bedrock-service-tier", "priority"),
        ("x-amzn-bedrock-performanceconfig-latency", "standard"),
    ]);
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    client.headers(&invoke, false);
    forwarded(client.body(br#"{"serviceTier":{"type":"no"}}"#, true));
    assert_eq!(client.exchange.facts(true).asked, asked("priority", "standard"));
}

#[test]
fn an_unknown_path_is_kept_short_and_visible() {
    let long = format!("/{}", "é\u{202e}".repeat(100));
    for (path, wanted) in [
        ("/v1/chat?key=secret", "POST /v1/chat"),
        ("/a\u{1b}[2J", "POST /a\\u{1b}[2J"),
        ("/model/x/invoke#y", "POST /model/x/invoke"),
        (&long, "POST /é\\u{202e}é\\u{202e}é"),
    ] {
        let mut client = Client::new("gateway", "sigv4", Some(keys()));
        client.headers(&headers(&[(":method", "POST"), (":path", path)]), true);
        let kept = client.exchange.facts(true).unknown_path.unwrap_or_default();
        assert!(kept.starts_with(wanted) && kept.len() <= 128, "{kept}");
        assert!(path.len() > 100 || kept == wanted, "{kept}");
    }
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    client.headers(&converse(&[]), false);
    assert_eq!(client.exchange.facts(true).unknown_path, None);
}
