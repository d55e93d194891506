//! What the operations answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bedrock_double::{ListFault, Retention};
use serde_json::{Value, json};

use crate::client::{CONTROL, Call, HELLO, Harness, SONNET, events};

#[tokio::test]
async fn converse_counts_words() {
    let harness = Harness::plain();
    let answered = harness.client().ok(&Call::converse(SONNET)).await;
    let body = answered.json();
    assert_eq!(body["output"]["message"]["content"][0]["text"], "echo: hello there");
    assert_eq!(body["usage"], json!({ "inputTokens": 2, "outputTokens": 3, "totalTokens": 5 }));
    assert!(answered.header("x-amzn-requestid").len() == 36);
    assert_eq!(answered.header("x-amzn-requestid"), harness.running.requests()[0].request_id);
}

#[tokio::test]
async fn converse_stream_comes_frame_by_frame() {
    let harness = Harness::plain();
    for client in [harness.client(), harness.client().h2()] {
        let answered = client.ok(&Call::stream(SONNET)).await;
        assert_eq!(answered.header("content-type"), "application/vnd.amazon.eventstream");
        let (events, error) = events(&answered.bytes());
        assert_eq!(error, None);
        let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
        let delta = "contentBlockDelta";
        assert_eq!(kinds, ["messageStart", delta, delta, delta, "contentBlockStop", "messageStop", "metadata"]);
        assert_eq!(events.last().unwrap().1["usage"]["totalTokens"], 5);
        assert_eq!(answered.pieces.len(), events.len(), "each frame is flushed by itself");
    }
}

#[tokio::test]
async fn invoke_answers_as_anthropic_does() {
    let harness = Harness::plain();
    let body = json!({
        "anthropic_version": "bedrock-2023-05-31", "max_tokens": 64,
        "system": [{ "type": "text", "text": "be very brief", "cache_control": { "type": "ephemeral" } }],
        "messages": [{ "role": "user", "content": "hello there" }],
    });
    let call = |operation: &str| Call::post(format!("/model/{SONNET}/{operation}"), body.to_string());
    let answered = harness.client().ok(&call("invoke")).await;
    for (name, value) in [
        ("x-amzn-bedrock-input-token-count", "2"),
        ("x-amzn-bedrock-output-token-count", "3"),
        ("x-amzn-bedrock-cache-read-input-token-count", "3"),
        ("x-amzn-bedrock-cache-write-input-token-count", "0"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(answered.header(name), value, "{name}");
    }
    assert_eq!(answered.json()["content"][0]["text"], "echo: hello there");
    assert_eq!(answered.json()["usage"]["cache_read_input_tokens"], 3);

    let answered = harness.client().ok(&call("invoke-with-response-stream")).await;
    let (events, error) = events(&answered.bytes());
    assert_eq!(error, None);
    let inner: Vec<Value> = events
        .iter()
        .inspect(|(kind, _)| assert_eq!(kind, "chunk"))
        .map(|(_, payload)| STANDARD.decode(payload["bytes"].as_str().unwrap()).unwrap())
        .map(|bytes| serde_json::from_slice(&bytes).unwrap())
        .collect();
    assert_eq!(inner.first().unwrap()["type"], "message_start");
    let metrics = &inner.last().unwrap()["amazon-bedrock-invocationMetrics"];
    assert_eq!((&metrics["inputTokenCount"], &metrics["outputTokenCount"]), (&json!(2), &json!(3)));
    assert_eq!(answered.header("x-amzn-bedrock-content-type"), "application/json");
}

#[tokio::test]
async fn every_listing_of_bedrock_answers() {
    let harness = Harness::plain();
    for (target, member) in [
        ("/foundation-models?byProvider=anthropic&byOutputModality=TEXT", "modelSummaries"),
        ("/foundation-models/amazon.nova-lite-v1%3A0", "modelDetails"),
        ("/foundation-model-availability/amazon.nova-lite-v1%3A0", "regionAvailability"),
        ("/inference-profiles?maxResults=5&type=SYSTEM_DEFINED", "inferenceProfileSummaries"),
        ("/inference-profiles/us.anthropic.claude-3-5-sonnet-20241022-v2%3A0", "inferenceProfileArn"),
        ("/imported-models", "modelSummaries"),
        ("/custom-models", "modelSummaries"),
        ("/provisioned-model-throughputs", "provisionedModelSummaries"),
        ("/prompt-routers", "promptRouterSummaries"),
        ("/marketplace-model/endpoints", "marketplaceModelEndpoints"),
    ] {
        let body = harness.client().ok(&Call::get(target)).await.json();
        assert!(!body[member].is_null(), "{target}: {body}");
    }
    let seen = harness.running.requests();
    assert_eq!(seen[0].query, "byProvider=anthropic&byOutputModality=TEXT");
    assert!(harness.running.violations().is_empty());
}

#[tokio::test]
async fn inference_profiles_page_to_the_end() {
    let harness = Harness::plain();
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = harness.client().ok(&Call::get(format!("/inference-profiles?maxResults=25{token}"))).await.json();
        all.extend(page["inferenceProfileSummaries"].as_array().unwrap().clone());
        match page["nextToken"].as_str() {
            Some(next) => token = format!("&nextToken={next}"),
            None => break,
        }
    }
    let mut ids: Vec<&str> = all.iter().map(|profile| profile["inferenceProfileId"].as_str().unwrap()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert!(count > 50 && ids.len() == count, "{count} profiles, {} different", ids.len());
    assert!(ids.iter().all(|id| !id.starts_with("eu.")), "of other regions");
}

#[tokio::test]
async fn lists_change_and_fail_on_demand() {
    let harness = Harness::plain();
    let (models, profiles) = (Call::get("/foundation-models"), Call::get("/inference-profiles?type=SYSTEM_DEFINED"));
    let listed = async || harness.client().ok(&models).await.json()["modelSummaries"].as_array().unwrap().len();
    assert!(listed().await > 100);
    let own = "model_id,provider,mode,profile_prefixes_seen,on_demand\nx.y-v1,x,chat,us|eu,no\n";
    harness.running.set_models(own).unwrap();
    harness.running.set_models("model_id\n").unwrap_err();
    assert_eq!(listed().await, 1);
    let page = harness.client().ok(&profiles).await.json();
    assert_eq!(page["inferenceProfileSummaries"].as_array().unwrap().len(), 1, "of other regions: {page}");
    for (fault, model, profile) in [
        (ListFault::Garbage, "<html>", "<html>"),
        (ListFault::Truncated, "{\"model", "{\"infer"),
        (ListFault::Empty, "{\"modelSummaries\":[]}", "{\"inferenceProfileSummaries\":[]}"),
        (ListFault::Endless, "{\"modelSummaries\":[{", "{\"inferenceProfileSummaries\":[{"),
        (ListFault::Huge, "{\"modelSummaries\":[{", "{\"inferenceProfileSummaries\":[{"),
    ] {
        harness.running.set_list_fault(fault);
        for (call, start) in [(&models, model), (&profiles, profile)] {
            let body = harness.client().ok(call).await.bytes();
            assert!(body.starts_with(start.as_bytes()), "{fault:?}");
            assert_eq!(body.len() > 8 << 20, fault == ListFault::Huge);
            let parsed: Result<Value, _> = serde_json::from_slice(&body);
            let broken = matches!(fault, ListFault::Garbage | ListFault::Truncated);
            assert_eq!(parsed.is_err(), broken, "{fault:?}");
            let token = parsed.ok().and_then(|list| list["nextToken"].as_str().map(str::to_owned));
            assert_eq!(token.is_some(), fault == ListFault::Endless && std::ptr::eq(call, &profiles));
        }
    }
    harness.running.set_list_fault(ListFault::Status(500));
    assert_eq!(harness.client().send(&models).await.unwrap().error().0, 500);
    harness.client().ok(&Call::get("/custom-models")).await;
    harness.running.set_list_fault(ListFault::None);
    for query in ["type=OTHER", "maxResults=0", "maxResults=1001", "nextToken=x"] {
        let refused = harness.client().send(&Call::get(format!("/inference-profiles?{query}"))).await.unwrap().error();
        assert_eq!((refused.0, refused.1.as_str()), (400, "ValidationException"), "{query}");
    }
}

#[tokio::test]
async fn errs_as_bedrock_does() {
    let harness = Harness::plain();
    let bare = "anthropic.claude-3-5-sonnet-20241022-v2%3A0";
    for (call, status, error, text) in [
        (Call::converse(bare), 400, "ValidationException", "on-demand throughput isn\u{2019}t supported"),
        (Call::converse("unknown.nothing-v1%3A0"), 404, "ResourceNotFoundException", "Could not resolve"),
        (Call::post(format!("/model/{SONNET}/converse"), "{"), 400, "ValidationException", "not valid JSON"),
        (Call::post(format!("/model/{SONNET}/converse"), ""), 400, "ValidationException", "not a JSON object"),
        (Call::post(format!("/model/{SONNET}/converse"), "{}"), 400, "ValidationException", "messages"),
        (Call::post(format!("/model/{SONNET}/invoke"), "{}"), 400, "ValidationException", "anthropic_version"),
    ] {
        let (seen, kind, message) = harness.client().send(&call).await.unwrap().error();
        assert_eq!((seen, kind.as_str()), (status, error), "{message}");
        assert!(message.contains(text), "{message}");
    }
    assert!(harness.running.violations().is_empty(), "a client's mistakes are not the gateway's");
}

#[tokio::test]
async fn large_bodies_are_hashed_and_bounded() {
    let harness = Harness::plain();
    let body = |bytes: usize| {
        json!({ "messages": [{ "role": "user", "content": [{ "text": "x".repeat(bytes) }] }] }).to_string()
    };
    let call = |bytes: usize| Call::post(format!("/model/{SONNET}/converse"), body(bytes));
    for client in [harness.client(), harness.client().h2()] {
        let answered = client.ok(&call(20 << 20)).await;
        assert_eq!(answered.json()["usage"]["inputTokens"], 1);
        assert!(harness.running.requests().pop().unwrap().body_bytes > 20 << 20);
        assert_eq!(client.send(&call(33 << 20)).await.unwrap().status, 413);
    }
}

/// The patterns are those of the service model.
#[tokio::test]
async fn a_resource_is_found_by_id_or_arn() {
    let harness = Harness::plain();
    let client = harness.client();
    let arn = |region: &str| format!("arn%3Aaws%3Abedrock%3A{region}%3A123456789012%3Aguardrail%2Fabc123def456");
    for (path, status, error_type) in [
        ("/guardrails/abc123def456?guardrailVersion=1".to_owned(), 200, ""),
        (format!("/guardrails/{}", arn("us-east-1")), 200, ""),
        (format!("/guardrails/{}", arn("us-west-2")), 404, "ResourceNotFoundException"),
        ("/guardrails/abc123def456?guardrailVersion=2".to_owned(), 404, "ResourceNotFoundException"),
        ("/guardrails/abc123def456?guardrailVersion=01".to_owned(), 400, "ValidationException"),
        ("/guardrails/a.b".to_owned(), 400, "ValidationException"),
        ("/guardrails?guardrailIdentifier=abc123def456".to_owned(), 200, ""),
        ("/imported-models/abc123def456".to_owned(), 200, ""),
        ("/imported-models/other".to_owned(), 404, "ResourceNotFoundException"),
        (format!("/imported-models/{}", arn("us-east-1")), 400, "ValidationException"),
        ("/provisioned-model-throughput/abc123def456".to_owned(), 200, ""),
        ("/prompt-routers/abc123def456".to_owned(), 400, "ValidationException"),
        ("/marketplace-model/endpoints/market".to_owned(), 400, "ValidationException"),
    ] {
        let answered = client.send(&Call::get(path.clone())).await.unwrap();
        assert_eq!(answered.status, status, "{path}");
        if !error_type.is_empty() {
            assert_eq!(answered.header("x-amzn-errortype"), error_type, "{path}");
        }
    }
}

/// A guardrail, its version or a project of another form is refused, in every place.
#[tokio::test]
async fn refuses_ids_of_another_form() {
    let harness = Harness::plain();
    let client = harness.client();
    let invoke = || {
        let body = r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}"#;
        Call::post(format!("/model/{SONNET}/invoke"), body)
    };
    let header = |name: &str, value: &str| invoke().signed_header(&format!("x-amzn-bedrock-{name}"), value);
    let converse = |key: &str, value: Value| {
        let mut body: Value = serde_json::from_str(HELLO).unwrap();
        body[key] = value;
        Call::post(format!("/model/{SONNET}/converse"), body.to_string())
    };
    let guarded = |id: &str, version: &str| {
        converse("guardrailConfig", json!({ "guardrailIdentifier": id, "guardrailVersion": version }))
    };
    let apply = |id: &str, version: &str| {
        let body = r#"{"source":"INPUT","content":[{"text":{"text":"hello"}}]}"#;
        Call::post(format!("/guardrail/{id}/version/{version}/apply"), body)
    };
    let arn = "arn:aws:bedrock:us-east-1:123456789012:";
    for (call, member) in [
        (header("projectidentifier", "team_1"), ""),
        (header("projectidentifier", &format!("{arn}project/p1")), ""),
        (header("projectidentifier", "team.1"), "projectIdentifier"),
        (header("guardrailidentifier", "g1").signed_header("x-amzn-bedrock-guardrailversion", "DRAFT"), ""),
        (header("guardrailidentifier", "g-1"), "guardrailIdentifier"),
        (header("guardrailversion", "01"), "guardrailVersion"),
        (converse("projectIdentifier", json!("p1")), ""),
        (converse("projectIdentifier", json!("p 1")), "projectIdentifier"),
        (converse("projectIdentifier", json!(format!("{arn}guardrail/p1"))), "projectIdentifier"),
        (guarded("g1", "1"), ""),
        (guarded("G1", "1"), "guardrailIdentifier"),
        (guarded("g1", "v1"), "guardrailVersion"),
        (apply("g1", "1"), ""),
        (apply("g_1", "1"), "guardrailIdentifier"),
        (apply("g1", "latest"), "guardrailVersion"),
        (Call::get("/foundation-models?projectIdentifier=p1"), ""),
        (Call::get("/foundation-models?projectIdentifier=p.1"), "projectIdentifier"),
        (Call::get("/guardrails/G1"), "guardrailIdentifier"),
    ] {
        let answered = client.send(&call).await.unwrap();
        if member.is_empty() {
            assert_eq!(answered.status, 200, "{}", call.target);
            continue;
        }
        let (status, error_type, message) = answered.error();
        assert_eq!((status, error_type.as_str()), (400, "ValidationException"), "{}", call.target);
        assert!(message.contains(&format!("'{member}'")), "{}: {message}", call.target);
    }
}

/// A job's model is resolved as that of a call, and its role must be the account's.
#[tokio::test]
async fn a_batch_job_is_checked_before_it_is_made() {
    let harness = Harness::plain();
    let client = harness.client();
    let whole = json!({
        "jobName": "nightly", "roleArn": "arn:aws:iam::123456789012:role/batch", "modelId": "amazon.nova-lite-v1:0",
        "inputDataConfig": { "s3InputDataConfig": { "s3Uri": "s3://bucket/in/" } },
        "outputDataConfig": { "s3OutputDataConfig": { "s3Uri": "s3://bucket/out/" } },
    });
    let with = |key: &str, value: Value| {
        let mut body = whole.clone();
        body[key] = value;
        body
    };
    for (body, status) in [
        (whole.clone(), 200),
        (with("jobName", json!("-")), 400),
        (with("clientRequestToken", json!("a-1")), 200),
        (with("clientRequestToken", json!("a-")), 400),
        (with("clientRequestToken", json!("a_1")), 400),
        (with("roleArn", json!("batch")), 400),
        (with("roleArn", json!("arn:aws:iam::444455556666:role/batch")), 403),
        (with("roleArn", json!("arn:aws-us-gov:iam::123456789012:role/batch")), 403),
        (with("modelId", json!("unknown.model")), 404),
        (with("timeoutDurationInHours", json!(1)), 400),
        (with("outputDataConfig", json!({})), 400),
        (with("modelInvocationType", json!("Stream")), 400),
    ] {
        let mut call = Call::post("/model-invocation-job", body.to_string());
        call.host = CONTROL.to_owned();
        let answered = client.send(&call).await.unwrap();
        assert_eq!(answered.status, status, "{body}");
    }
}

/// Required members and bounds of the service model, and the one knowledge base.
#[tokio::test]
async fn knowledge_bases_check_what_they_are_asked() {
    let harness = Harness::plain();
    let client = harness.client();
    let model = "arn:aws:bedrock:us-east-1::foundation-model/amazon.rerank-v1:0";
    let source =
        json!({ "type": "INLINE", "inlineDocumentSource": { "type": "TEXT", "textDocument": { "text": "a" } } });
    let rerank = |queries: Value, model: &str| {
        json!({
            "queries": queries, "sources": [source],
            "rerankingConfiguration": {
                "type": "BEDROCK_RERANKING_MODEL",
                "bedrockRerankingConfiguration": { "modelConfiguration": { "modelArn": model } },
            },
        })
    };
    let query = json!({ "type": "TEXT", "textQuery": { "text": "a" } });
    let asked = json!({ "retrievalQuery": { "text": "a" } });
    for (path, body, status) in [
        ("/rerank", rerank(json!([query]), model), 200),
        ("/rerank", rerank(json!([query, query]), model), 400),
        ("/rerank", rerank(json!([{ "type": "TEXT" }]), model), 400),
        ("/rerank", rerank(json!([query]), "unknown.model"), 404),
        ("/rerank", rerank(json!([query]), &model.replace("us-east-1", "us-west-2")), 400),
        ("/knowledgebases/KB12345678/retrieve", asked.clone(), 200),
        ("/knowledgebases/KB12345678/retrieve", json!({}), 400),
        ("/knowledgebases/KB1/retrieve", asked.clone(), 400),
        ("/knowledgebases/KB00000000/retrieve", asked, 404),
        ("/retrieveAndGenerate", json!({ "input": { "text": "a" } }), 400),
    ] {
        let mut call = Call::post(path, body.to_string());
        call.host = "bedrock-agent-runtime.us-east-1.amazonaws.com".to_owned();
        assert_eq!(client.send(&call).await.unwrap().status, status, "{path} {body}");
    }
}

/// Its modes change while it runs, and each call is marked with the mode that it arrived under.
#[tokio::test]
async fn data_retention_is_of_account_and_project() {
    let harness = Harness::plain();
    let client = harness.client();
    let get = |path: &str| Call::get(path);
    assert_eq!(client.ok(&get("/data-retention")).await.json()["mode"], "inherit");
    let retention = Retention::of("none", "inherit").project("proj_a", "aws_review");
    harness.running.set_retention(retention.clone());
    assert_eq!(client.ok(&get("/data-retention")).await.json()["mode"], "none");
    let project = client.ok(&get("/projects/proj_a")).await.json();
    assert_eq!((&project["id"], &project["dataRetention"]), (&json!("proj_a"), &json!({ "mode": "aws_review" })));
    let arn = project["arn"].as_str().unwrap().replace(':', "%3A").replace('/', "%2F");
    assert_eq!(client.ok(&get(&format!("/projects/{arn}"))).await.json(), project);
    for (path, status) in [
        ("/projects/proj_b".to_owned(), 404),
        (format!("/projects/{}", arn.replace("us-east-1", "us-west-2")), 404),
        ("/projects/proj.a".to_owned(), 400),
    ] {
        assert_eq!(client.send(&get(&path)).await.unwrap().status, status, "{path}");
    }
    harness.running.clear();
    client.ok(&Call::converse(SONNET)).await;
    harness.running.set_retention(retention.unreadable(503));
    assert_eq!(client.send(&get("/data-retention")).await.unwrap().status, 503);
    let marks: Vec<Option<String>> = harness.running.requests().into_iter().map(|request| request.retention).collect();
    assert_eq!(marks, [Some("none".to_owned()), None]);
}
