//! Unmodified SDKs are served, and every signature holds.

use filter_core::operation::{OPERATIONS, Operation};

use crate::clients::{assert_all_answered, call, javascript, python};
use crate::harness::{Harness, Keys, policy};
use crate::pool::pooled;

const PROFILE: &str = "us.anthropic.claude-3-5-sonnet-20241022-v2:0";

#[test]
fn boto3_calls_every_operation() {
    let dir = tempfile::tempdir().unwrap();
    let policy = policy(dir.path(), "\nregions:\n", "\noptional_operations: [batch_jobs, agent_runtime]\nregions:\n");
    let harness = Harness::new(Keys::Temporary, &["internet"], |double| double, &["--policy", &policy]);
    let calls = [python("operations", &harness.gateway.http), python("optional", &harness.gateway.http)].concat();
    assert_all_answered(&calls);
    harness.assert_no_violation();

    let received = harness.received();
    let reached = |name: &str| received.iter().any(|request| request.operation.as_deref() == Some(name));
    // boto3 has no call for bidirectional streams, which the gateway refuses by name (`tests/filter/gateway.rs`).
    let carried = OPERATIONS.iter().filter(|operation| **operation != Operation::InvokeModelWithBidirectionalStream);
    let missing: Vec<&str> = carried.map(|operation| operation.name()).filter(|name| !reached(name)).collect();
    assert!(
        missing.is_empty(),
        "call these in suite_operations or suite_optional of host-tests/clients/calls.py: {missing:?}"
    );
    assert_eq!(received.len(), calls.len());
    assert!(received.iter().all(|request| request.header("x-amz-security-token").is_some()));
    // A bare id becomes the profile, except where Bedrock wants the model itself.
    let labels = |operation: &str| -> Vec<&str> {
        let of = received.iter().filter(|request| request.operation.as_deref() == Some(operation));
        of.filter_map(|request| request.labels.first()).map(String::as_str).collect()
    };
    assert_eq!(labels("Converse")[0], PROFILE);
    assert!(labels("Converse")[1].starts_with("arn:aws:bedrock:us-east-1:123456789012:inference-profile/"));
    assert_eq!(labels("CountTokens"), ["anthropic.claude-3-5-sonnet-20241022-v2:0"]);
    let largest = received.iter().map(|request| request.body_bytes).max();
    assert!(largest.is_some_and(|bytes| bytes > 20_000_000), "{largest:?}");

    assert!(call(&calls, "ConverseStream")["usage"]["outputTokens"].as_u64() > Some(0));
    assert_eq!(call(&calls, "ListFoundationModels")["providers"].as_array().unwrap().len(), 1);
    let query = received.iter().find(|request| request.operation.as_deref() == Some("ListFoundationModels")).unwrap();
    assert!(query.query.contains("byProvider=Anthropic"), "{}", query.query);
}

#[test]
fn refuses_operations_that_are_not_listed() {
    let harness = pooled();
    let calls = python("batch", &harness.gateway.http);
    let error = &call(&calls, "CreateModelInvocationJob")["error"];
    assert_eq!((&error["class"], &error["status"]), (&"AccessDeniedException".into(), &403.into()));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("CreateModelInvocationJob") && message.contains("`optional_operations`"), "{message}");
    assert!(message.contains("lists `batch_jobs`"), "{message}");
    assert!(harness.received().is_empty());
}

/// The stream's exceptions are those of its service model, and a broken one is told by a name that SDKs know.
#[test]
fn knowledge_bases_answer_over_their_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let policy = policy(dir.path(), "\nregions:\n", "\noptional_operations: [agent_runtime]\nregions:\n");
    let harness = Harness::new(Keys::Temporary, &["internet"], |double| double, &["--policy", &policy]);
    let calls = python("agent", &harness.gateway.http);
    for name in ["Rerank", "Retrieve", "RetrieveAndGenerate", "RetrieveAndGenerateStream"] {
        assert!(call(&calls, name)["error"].is_null(), "{calls:#?}");
    }
    let stream = call(&calls, "RetrieveAndGenerateStream");
    assert_eq!((&stream["text"], &stream["events"]), (&"echo: hello there".into(), &4.into()));
    assert_eq!(stream["session"], call(&calls, "RetrieveAndGenerate")["session"]);
    let broken = call(&calls, "broken");
    assert_eq!(broken["code"], "badGatewayException");
    assert!(broken["message"].as_str().unwrap().contains("broke off"), "{broken}");
    assert_eq!(call(&calls, "exception")["code"], "throttlingException");
    assert_eq!(call(&calls, "unknown")["error"]["class"], "ResourceNotFoundException");
    harness.assert_no_violation();
    assert!(harness.received().iter().all(|request| request.host == "bedrock-agent-runtime.us-east-1.amazonaws.com"));
}

#[test]
fn refuses_knowledge_bases_with_an_api_key() {
    let harness = Harness::lone(Keys::Api);
    let calls = python("agent", &harness.gateway.http);
    for name in ["Rerank", "Retrieve", "RetrieveAndGenerate", "RetrieveAndGenerateStream"] {
        let error = &call(&calls, name)["error"];
        assert_eq!((&error["class"], &error["status"]), (&"AccessDeniedException".into(), &403.into()), "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("takes no API key for {name}")), "{message}");
    }
    assert!(harness.received().is_empty());
}

#[test]
fn upstream_is_http2_tls13_with_a_pinned_name() {
    let harness = pooled();
    assert_all_answered(&python("converse", &harness.gateway.http));
    let request = harness.received().pop().unwrap();
    assert_eq!((request.alpn.as_deref(), request.tls.as_str()), (Some("h2"), "TLSv1_3"));
    assert_eq!(request.host, "bedrock-runtime.us-east-1.amazonaws.com");
    assert_eq!(request.sni.as_deref(), Some("bedrock-runtime.us-east-1.amazonaws.com"));
}

#[test]
fn upstream_falls_back_to_http1() {
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double.h2(false), &[]);
    assert_all_answered(&python("converse", &harness.gateway.http));
    assert_eq!(harness.received().pop().unwrap().alpn.as_deref(), Some("http/1.1"));
    harness.assert_no_violation();
}

#[test]
fn fips_hosts_are_called_where_they_are_wanted() {
    let fips = |double: bedrock_double::Builder| double.endpoints(bedrock_double::Endpoints::Fips);
    let harness = Harness::new(Keys::LongLived, &["internet"], fips, &["--fips", "--region", "us-west-2"]);
    assert_all_answered(&python("converse", &harness.gateway.http));
    assert_eq!(harness.received().pop().unwrap().host, "bedrock-runtime-fips.us-west-2.amazonaws.com");
    harness.assert_no_violation();
}

#[test]
fn refuses_an_upstream_with_another_name() {
    // The double has no certificate for this region, though the path leads to it.
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--region", "ca-central-1"]);
    let calls = python("converse", &harness.gateway.http);
    assert_eq!(call(&calls, "Converse")["error"]["code"], "ServiceUnavailableException");
    assert!(harness.doubles[0].requests().is_empty());
}

#[test]
fn anthropics_sdk_is_served_with_its_raw_paths() {
    let harness = pooled();
    let calls = python("anthropic", &harness.gateway.http);
    assert_all_answered(&calls);
    harness.assert_no_violation();
    assert!(call(&calls, "messages.create")["output"].as_u64() > Some(0));
    assert!(call(&calls, "messages.stream")["text"].as_str().is_some_and(|text| !text.is_empty()));
}

#[test]
fn the_javascript_sdk_is_served_over_h2c() {
    let harness = pooled();
    let calls = javascript("operations", &harness.gateway.http);
    assert_all_answered(&calls);
    harness.assert_no_violation();
    assert!(call(&calls, "ConverseStream")["usage"]["inputTokens"].as_u64() > Some(0));
    assert_eq!(harness.received().len(), 3);
}
