use crate::config::Config;
use crate::envoy_names::CLUSTER_HEADER;
use crate::handoff::Handoff;
use crate::headers::Headers;
use crate::policy::Policy;
use crate::reply::{Answer, Reply};
use crate::step::{
    RequestBodyMode, RequestEvent, RequestStep, ResponseBodyMode, ResponseEvent, ResponseStep, WholeResponse,
};
use crate::testing::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn policy_with(auth: &str, changes: Value) -> Policy {
    let mut document = json!({
        "role": "gateway", "auth": auth, "regions": {"us-east-1": {}, "us-west-2": {}}, "lambda_api": {},
        "models": {"deny": ["*forbidden*"]}, "max_body_bytes": 400,
        "inference_profiles": {MODEL: format!("us.{MODEL}")},
        "route_classes": [
            {"name": "claude", "models": ["anthropic.*"], "paths": ["dx"], "regions": ["us-west-2"]},
            {"name": "any", "paths": ["dx", "vpn", "internet"], "regions": ["us-east-1"]},
        ],
    });
    document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    Policy::compile(&Config::parse(document.to_string().as_bytes()).unwrap(), None).unwrap()
}

fn client() -> Client {
    Client::of(policy_with("sigv4", json!({})), Some(keys()))
}

fn call(method: &str, path: &str) -> Headers {
    headers(&[
        (":method", method),
        (":path", path),
        (":authority", "127.0.0.1:10000"),
        ("x-forwarded-proto", "http"),
        ("authorization", "Bearer of-api-gateway"),
        ("x-api-key", "of-api-gateway"),
        ("accept", "*/*"),
        ("content-type", "application/json"),
    ])
}

/// Sends an envelope as Envoy shows it, in two parts, and takes the step at its end.
fn invoke(client: &mut Client, envelope: &[u8]) -> RequestStep {
    assert_eq!(client.headers(&call("POST", "/v1/bedrock/invoke-model"), false), RequestStep::AwaitBody);
    assert_eq!(client.exchange.request_body_mode(), RequestBodyMode::Hold);
    let (first, rest) = (envelope.len() / 2, envelope.len() - envelope.len() / 2);
    let step = client.request(RequestEvent::UnreadBody { length: first, end_of_stream: false });
    assert_eq!(step, RequestStep::AwaitBody);
    match client.request(RequestEvent::UnreadBody { length: rest, end_of_stream: true }) {
        RequestStep::EditBody => client.request(RequestEvent::WholeBody { body: &mut envelope.to_vec() }),
        step => step,
    }
}

fn envelope(model: &str) -> Vec<u8> {
    json!({"modelId": model, "body": {"max_tokens": 1}}).to_string().into_bytes()
}

#[test]
fn a_call_passes_as_invoke_model() {
    let mut client = client();
    let forward = forwarded(invoke(&mut client, &envelope(MODEL)));
    assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock-runtime.claude"));
    assert_eq!(forward.headers.get_str(":path"), Some("/model/anthropic.claude-v2%3A0/invoke"));
    assert_eq!(forward.headers.get_str("accept"), Some("application/json"));
    assert_eq!((forward.headers.get("authorization"), forward.headers.get("x-api-key")), (None, None));
    let inner = br#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":1}"#;
    let handoff: Handoff = serde_json::from_slice(&forward.states[0].1).unwrap();
    assert_eq!(handoff.body_sha256, Some(crate::encoding::hex(&Sha256::digest(inner))));
    assert_eq!(handoff.content_length, Some(inner.len() as u64));
    let facts = client.exchange.facts(true);
    assert_eq!((facts.operation.as_deref(), facts.api.as_deref()), (Some("InvokeModel"), Some("lambda")));
    assert_eq!((facts.model.as_deref(), facts.class.as_deref()), (Some(MODEL), Some("claude")));
    // Of another class.
    let forward = forwarded(invoke(&mut self::client(), &envelope("amazon.titan-v1")));
    assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock-runtime.any"));
}

#[test]
fn bearer_holds_the_call_too() {
    let key = crate::credentials::Credentials::ApiKey(crate::credentials::Secret::new("ABSKexample"));
    let mut client = Client::of(policy_with("bearer", json!({})), Some(key));
    let forward = forwarded(invoke(&mut client, &envelope("amazon.titan-v1")));
    let handoff: Handoff = serde_json::from_slice(&forward.states[0].1).unwrap();
    assert_eq!((handoff.body_sha256, handoff.content_length), (None, Some(16)));
}

#[test]
fn paths_are_unknown_without_the_key() {
    let mut document = policy_with("sigv4", json!({}));
    document.lambda_api = None;
    let mut client = Client::of(document, Some(keys()));
    let RequestStep::Reply(reply) = client.headers(&call("POST", "/v1/bedrock/invoke-model"), false) else { panic!() };
    assert_eq!((reply.status, reply.lambda), (404, false));
    assert_eq!(client.exchange.facts(true).api, None);
}

fn reply(step: RequestStep) -> (Reply, Value) {
    let RequestStep::Reply(reply) = step else { panic!("{step:?}") };
    let body = serde_json::from_slice(&reply.body(ID)).unwrap();
    (reply, body)
}

#[test]
fn refuses_calls_in_their_own_form() {
    let long = json!({"modelId": MODEL, "body": {"x": "y".repeat(400)}}).to_string().into_bytes();
    let limited = json!({"route_classes": [{"name": "any", "paths": ["dx"], "limits": {"requests_per_minute": 1}}]});
    for (changes, envelope, status, code) in [
        (json!({}), envelope("a.forbidden"), 403, "AccessDeniedException"),
        (json!({}), envelope("us-gov-east-1 x"), 400, "ValidationException"),
        (json!({}), b"{\"modelId\":".to_vec(), 400, "ValidationException"),
        (json!({}), long, 413, "ValidationException"),
        (
            json!({"hosts": ["a.example"], "anonymous": "refuse", "principal": [{"from": "mtls"}]}),
            Vec::new(),
            403,
            "AccessDeniedException",
        ),
        (limited, envelope(MODEL), 429, "ThrottlingException"),
    ] {
        let mut client = Client::of(policy_with("sigv4", changes), Some(keys()));
        let early = envelope.is_empty();
        let (refusal, body) = match code {
            // The first call takes all.
            "ThrottlingException" => {
                forwarded(invoke(&mut client, &envelope));
                let mut next = Client { exchange: crate::exchange::Exchange::new(ID.to_owned()), ..client };
                reply(invoke(&mut next, &envelope))
            }
            _ if early => reply(client.headers(&call("POST", "/v1/bedrock/invoke-model"), false)),
            _ => reply(invoke(&mut client, &envelope)),
        };
        assert_eq!((refusal.status, refusal.error), (status, code), "{body}");
        assert_eq!(body, json!({"error": {"code": code, "message": refusal.message, "requestId": ID}}));
        assert!(refusal.headers(ID).contains(&("x-request-id", ID.as_bytes().to_vec())));
    }
    let (_, body) = reply(client().headers(&call("POST", "/v1/bedrock/other"), false));
    assert_eq!(body["error"]["code"], "UnknownOperationException");
    let (unbodied, _) = reply(client().headers(&call("POST", "/v1/bedrock/invoke-model"), true));
    assert_eq!(unbodied.status, 400);
    let mut missing = Client::of(policy_with("sigv4", json!({})), None);
    assert_eq!(reply(invoke(&mut missing, &envelope(MODEL))).0.status, 503);
}

/// The response as the client gets it.
fn respond(client: &mut Client, head: &[(&str, &str)], body: &[u8]) -> (Headers, Value) {
    let head = headers(head);
    assert_eq!(client.response(ResponseEvent::Headers { headers: &head, relayed: false }), ResponseStep::Continue);
    assert_eq!(client.exchange.response_body_mode(), ResponseBodyMode::Hold);
    assert_eq!(client.response(ResponseEvent::Body { chunk: body }), ResponseStep::Continue);
    let policy = policy_with("sigv4", json!({}));
    let whole = WholeResponse { headers: &head, body, region: Some("us-west-2"), policy: &policy };
    match client.response(ResponseEvent::Whole(whole)) {
        ResponseStep::Edit { headers, body } => (headers, serde_json::from_slice(&body).unwrap()),
        step => panic!("{step:?}"),
    }
}

#[test]
fn a_models_answer_gets_the_form() {
    let mut client = client();
    invoke(&mut client, &envelope(MODEL));
    let answer = br#"{"usage":{"input_tokens":3,"output_tokens":5}}"#;
    let head = [(":status", "200"), ("content-type", "application/json"), ("x-amzn-requestid", "aws-1")];
    let (head, body) = respond(&mut client, &head, answer);
    assert_eq!(body, json!({"body": std::str::from_utf8(answer).unwrap(), "contentType": "application/json"}));
    for (name, wanted) in [
        (":status", "200"),
        ("content-type", "application/json"),
        ("x-request-id", ID),
        ("x-source-partition", "govcloud"),
        ("x-destination-partition", "commercial"),
    ] {
        assert_eq!(head.get_str(name), Some(wanted), "{name}");
    }
    let facts = client.exchange.facts(true);
    assert_eq!((facts.usage.input, facts.usage.output), (Some(3), Some(5)), "of the model's own answer");
    assert_eq!(facts.upstream_id.as_deref(), Some("aws-1"));
}

#[test]
fn a_failure_gets_the_form() {
    for (head, body, code, message) in [
        (
            &[(":status", "400"), ("x-amzn-errortype", "ValidationException:http://x/")][..],
            &br#"{"message":"max_tokens: required"}"#[..],
            "ValidationException",
            "max_tokens: required",
        ),
        (&[(":status", "503")], b"", "InternalError", "Amazon Bedrock answered with status 503."),
    ] {
        let mut client = client();
        invoke(&mut client, &envelope(MODEL));
        let (head_out, out) = respond(&mut client, head, body);
        assert_eq!(out, json!({"error": {"code": code, "message": message, "requestId": ID}}));
        assert_eq!(head_out.get_str(":status"), Some(head[0].1));
        assert_eq!((head_out.get_str("x-request-id"), head_out.get("x-source-partition")), (Some(ID), None));
    }
    // Envoy's own, while the call is still held.
    let mut client = client();
    client.headers(&call("POST", "/v1/bedrock/invoke-model"), false);
    let (_, out) = respond(
        &mut client,
        &[(":status", "408"), ("x-amzn-errortype", "ValidationException")],
        br#"{"message":"late"}"#,
    );
    assert_eq!(out["error"]["message"], "late");
}

#[test]
fn models_are_listed_as_policy_allows() {
    let mut client = client();
    let forward = forwarded(client.headers(&call("GET", "/v1/bedrock/models?x=y"), true));
    assert_eq!(forward.headers.get_str(":path"), Some("/foundation-models"));
    assert_eq!(client.exchange.facts(true).operation.as_deref(), Some("ListFoundationModels"));
    let list = br#"{"modelSummaries":[{"modelId":"a.good"},{"modelId":"a.forbidden"}]}"#;
    let (_, body) = respond(&mut client, &[(":status", "200")], list);
    assert_eq!((&body["totalModels"], &body["models"][0]["modelId"]), (&json!(1), &json!("a.good")));
    assert_eq!(body["region"]["description"], "US West (Oregon) - Commercial AWS");
    let (_, body) = {
        let mut client = self::client();
        client.headers(&call("GET", "/v1/bedrock/models"), true);
        respond(
            &mut client,
            &[(":status", "403"), ("x-amzn-errortype", "AccessDeniedException")],
            br#"{"message":"no"}"#,
        )
    };
    assert_eq!(body["error"]["code"], "AccessDeniedException");
}

#[test]
fn the_route_is_described() {
    let mut client = client();
    let RequestStep::Answer(Answer { status, body, .. }) =
        client.headers(&call("GET", "/v1/bedrock/invoke-model"), true)
    else {
        panic!("no answer")
    };
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &body["routing"]["source"]["region"]), (200, &json!("us-gov-west-1")));
    assert_eq!((body["request_info"]["request_id"].as_str(), client.exchange.facts(true).error), (Some(ID), None));
    let mut closed = Client::of(
        policy_with("sigv4", json!({"hosts": [], "anonymous": "refuse", "principal": [{"from": "mtls"}]})),
        Some(keys()),
    );
    assert_eq!(reply(closed.headers(&call("GET", "/v1/bedrock/invoke-model"), true)).0.status, 403);
}
