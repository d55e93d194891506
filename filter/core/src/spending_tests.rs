//! What calls take of their callers' allowances.

use crate::caller::Address;
use crate::credentials::{Credentials, Secret};
use crate::exchange::{Endpoint, Exchange};
use crate::headers::Headers;
use crate::policy::Policy;
use crate::step::{RequestBodyMode, RequestEvent, RequestStep, ResponseEvent};
use crate::testing::{Client, ID, MODEL, converse, fetched, headers, keys};
use audit::{Estimate, ExchangeFacts};
use serde_json::{Value, json};
use std::time::Duration;

const BODY: &[u8] = br#"{"messages":[],"inferenceConfig":{"maxTokens":100}}"#;
const STREAM: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/vnd.amazon.eventstream")];
const JSON: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/json")];

fn client(limits: &Value, auth: &str) -> Client {
    let document = json!({
        "role": "gateway", "auth": auth, "regions": {"us-east-1": {}},
        "credentials": {"source": "environment"},
        "route_classes": [{"name": "any", "paths": ["dx"], "limits": limits}]
    });
    let credentials = if auth == "bearer" { Credentials::ApiKey(Secret::new("k")) } else { keys() };
    Client::of(Policy::parse(document.to_string().as_bytes(), None).unwrap(), Some(credentials))
}

fn request(path: &str) -> Headers {
    let path = format!("/model/{MODEL}/{path}");
    converse(&[])
        .iter()
        .map(|(name, value)| (name.to_owned(), if name == ":path" { path.as_bytes() } else { value }.to_vec()))
        .collect()
}

/// Begins a call from an address. `None`: it was sent; else seconds until it may be tried again.
fn begin(client: &mut Client, path: &str, address: &str) -> Option<u64> {
    client.exchange = Exchange::new(ID.to_owned());
    let headers = request(path);
    let event = RequestEvent::Headers {
        headers: &headers,
        principal: Ok(None),
        groups: Ok(Vec::new()),
        end_of_stream: false,
        address: Address::of(address.as_bytes()),
    };
    let mut step = client.request(event);
    if step == RequestStep::AwaitBody {
        step = client.body(BODY, true);
    }
    match step {
        RequestStep::Forward(_) => None,
        RequestStep::Reply(reply) => {
            assert_eq!((reply.status, reply.error), (429, "ThrottlingException"), "{}", reply.message);
            Some(reply.retry_after.unwrap())
        }
        step => panic!("{step:?}"),
    }
}

/// Ends the call: the facts of its record.
fn end(client: &mut Client, head: &[(&str, &str)], body: &[u8], complete: bool) -> ExchangeFacts {
    client.response(ResponseEvent::Headers { headers: &headers(head), relayed: false });
    client.response(ResponseEvent::Body { chunk: body });
    let facts = client.exchange.facts(complete);
    settle(client, &facts);
    facts
}

fn settle(client: &mut Client, facts: &ExchangeFacts) {
    client.exchange.settle(facts, Endpoint::default(), client.context());
}

#[test]
fn calls_in_flight_reserve_their_tokens() {
    // A body of 51 bytes is 12 tokens, and the model's output counts once.
    let mut client = client(&json!({"tokens_per_minute": 300}), "sigv4");
    assert_eq!(begin(&mut client, "converse", "10.0.0.1:1"), None);
    assert_eq!(begin(&mut client, "converse", "10.0.0.1:1"), None);
    assert_eq!(begin(&mut client, "converse", "10.0.0.1:1"), Some(8), "76 left, 112 wanted, 5 in a second");
    assert_eq!(begin(&mut client, "converse", "10.0.0.2:1"), None, "each address has its own");
    assert_eq!(begin(&mut client, "converse", "[fd00::1]:1"), None);
    assert_eq!(begin(&mut client, "converse", "[fd00::2]:1"), None);
    assert_eq!(begin(&mut client, "converse", "[fd00::3]:1"), Some(8), "a network is one client");
}

#[test]
fn what_was_used_replaces_the_reservation() {
    let mut client = client(&json!({"tokens_per_minute": 120}), "sigv4");
    let answer = br#"{"usage":{"inputTokens":3,"outputTokens":7,"totalTokens":10}}"#;
    for _ in 0..2 {
        assert_eq!(begin(&mut client, "converse", "a"), None);
        let facts = end(&mut client, JSON, answer, true);
        assert_eq!((facts.usage.output, facts.estimate), (Some(7), None));
        client.now += Duration::from_secs(5);
    }
    // A refusal of Bedrock's costs nothing.
    assert_eq!(begin(&mut client, "converse", "a"), None);
    let facts = end(&mut client, &[(":status", "429"), ("content-type", "application/json")], b"{}", true);
    assert_eq!((facts.usage, facts.estimate), (audit::Usage::default(), None));
    assert_eq!(begin(&mut client, "converse", "a"), None);
}

#[test]
fn a_stream_left_before_its_end_is_charged() {
    let mut client = client(&json!({"tokens_per_minute": 120}), "sigv4");
    assert_eq!(begin(&mut client, "converse-stream", "a"), None);
    let facts = end(&mut client, STREAM, &[0; 6400], false);
    assert_eq!(facts.estimate, Some(Estimate { input: Some(12), output: Some(200) }));
    assert_eq!(begin(&mut client, "converse-stream", "a"), Some(47), "92 overdrawn, one wanted, 2 in a second");
}

#[test]
fn an_answer_that_cannot_be_read_is_charged() {
    for (head, body) in [
        (JSON, &[b"{\"a\":1}}", &[b' '; 4000][..]].concat()),
        // More than any model writes.
        (STREAM, &vec![0; 12_800]),
    ] {
        let mut client = client(&json!({"tokens_per_minute": 120}), "sigv4");
        assert_eq!(begin(&mut client, "converse", "a"), None);
        let facts = end(&mut client, head, body, false);
        assert!(facts.estimate.is_some_and(|estimate| estimate.output >= Some(400)), "{facts:?}");
        assert!(begin(&mut client, "converse", "a").is_some_and(|seconds| seconds > 100));
    }
}

#[test]
fn a_nested_answer_is_read_to_its_counts() {
    let mut client = client(&json!({"tokens_per_minute": 120}), "sigv4");
    assert_eq!(begin(&mut client, "converse", "a"), None);
    let nested =
        format!(r#"{{"output":{}{},"usage":{{"inputTokens":500,"outputTokens":2}}}}"#, "[".repeat(90), "]".repeat(90));
    assert_eq!(end(&mut client, JSON, nested.as_bytes(), true).usage.input, Some(500));
    assert!(begin(&mut client, "converse", "a").is_some());
}

#[test]
fn an_absurd_usage_locks_nobody_out() {
    let mut client = client(&json!({"tokens_per_minute": 120}), "sigv4");
    assert_eq!(begin(&mut client, "converse", "a"), None);
    let answer = br#"{"usage":{"inputTokens":18446744073709551615,"outputTokens":18446744073709551615}}"#;
    let facts = end(&mut client, JSON, answer, true);
    assert_eq!(facts.usage, audit::Usage::default());
    assert_eq!(begin(&mut client, "converse", "a"), None);
}

#[test]
fn calls_at_the_same_time_are_limited() {
    let mut client = client(&json!({"concurrent_calls": 2}), "sigv4");
    assert_eq!(begin(&mut client, "converse", "a"), None);
    assert_eq!(begin(&mut client, "converse", "a"), None);
    let last = std::mem::replace(&mut client.exchange, Exchange::new(ID.to_owned()));
    assert_eq!(begin(&mut client, "converse", "a"), Some(1));
    let facts = client.exchange.facts(true);
    settle(&mut client, &facts);
    assert_eq!(begin(&mut client, "converse", "a"), Some(1), "a refused call was never counted");
    client.exchange = last;
    end(&mut client, JSON, b"{}", true);
    assert_eq!(begin(&mut client, "converse", "a"), None);
}

#[test]
fn a_streaming_body_reserves_by_its_length() {
    let mut client = client(&json!({"tokens_per_minute": 6000}), "bearer");
    for (length, wanted) in [("4000", "it is sent"), ("4000", "5096 of 6000 are reserved")] {
        let step = begin_streaming(&mut client, Some(length));
        assert_eq!(matches!(step, RequestStep::Forward(_)), wanted == "it is sent", "{wanted}: {step:?}");
    }
}

/// Begins a call whose body passes while it is read; `length` is announced. Returns its step.
fn begin_streaming(client: &mut Client, length: Option<&str>) -> RequestStep {
    client.exchange = Exchange::new(ID.to_owned());
    let length = length.map(|length| ("content-length", length));
    let headers = converse(length.as_slice());
    client.headers(&headers, false)
}

fn error(step: RequestStep) -> &'static str {
    match step {
        RequestStep::Reply(reply) => reply.error,
        step => panic!("{step:?}"),
    }
}

#[test]
fn a_streaming_body_reserves_as_it_passes() {
    let mut client = client(&json!({"tokens_per_minute": 30_000}), "bearer");
    begin_streaming(&mut client, Some("40000"));
    let step = begin_streaming(&mut client, None);
    assert!(matches!(step, RequestStep::Forward(_)), "{step:?}");
    assert_eq!(client.exchange.request_body_mode(), RequestBodyMode::Observe);
    // The first call has 14,096 tokens and this one's answer 4096, so 11,808 are left for its body: 47,232 bytes.
    for _ in 0..5 {
        assert_eq!(client.body(&[b' '; 8192], false), RequestStep::Continue);
    }
    assert_eq!(error(client.body(&[b' '; 8192], false)), "ThrottlingException");
    let facts = client.exchange.facts(false);
    settle(&mut client, &facts);
    let step = begin_streaming(&mut client, Some("51"));
    assert!(matches!(step, RequestStep::Forward(_)), "it cost nothing: {step:?}");
}

#[test]
fn a_streaming_bodys_limit_is_read() {
    let mut client = client(&json!({"tokens_per_minute": 20_000}), "bearer");
    let body = br#"{"max_tokens":19000}"#;
    begin_streaming(&mut client, Some("20"));
    assert_eq!(client.body(body, true), RequestStep::Continue);
    assert_eq!(client.exchange.request_body_mode(), RequestBodyMode::Stream);
    assert_eq!(error(begin_streaming(&mut client, Some("20"))), "ThrottlingException");
    client.now += Duration::from_secs(30);
    let step = begin_streaming(&mut client, Some("20"));
    assert!(matches!(step, RequestStep::Forward(_)), "{step:?}");
    assert_eq!(error(client.body(body, true)), "ThrottlingException", "it is refused before its last bytes pass");
}

#[test]
fn a_body_is_read_while_credentials_are_awaited() {
    let mut client = client(&json!({"tokens_per_minute": 20_000}), "bearer");
    client.credentials = fetched("gateway").1;
    let step = begin_streaming(&mut client, Some("20"));
    assert_eq!(step, RequestStep::AwaitCredentials);
    assert_eq!(client.exchange.request_body_mode(), RequestBodyMode::Hash);
    assert_eq!(client.body(br#"{"max_tokens":19000}"#, true), RequestStep::AwaitCredentials);
    assert_eq!(client.exchange.request_body_mode(), RequestBodyMode::Hold);
    assert_eq!(error(begin_streaming(&mut client, Some("20"))), "ThrottlingException");
}

#[test]
fn a_call_left_before_its_answer_is_charged() {
    let mut client = client(&json!({"tokens_per_minute": 120}), "sigv4");
    assert_eq!(begin(&mut client, "converse", "a"), None);
    let facts = client.exchange.facts(false);
    assert_eq!(facts.estimate, Some(Estimate { input: Some(12), output: None }));
    settle(&mut client, &facts);
    assert_eq!(begin(&mut client, "converse", "a"), Some(52), "8 of 120 are left, 112 wanted, 2 in a second");
}
