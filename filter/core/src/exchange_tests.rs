use super::*;
use crate::attempt::{Attempt, Told};
use crate::credentials::{Credentials, Keys, Secret};
use crate::shared::tests::Memory;
use audit::AttemptFacts;
use serde_json::json;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const MODEL: &str = "anthropic.claude-v2:0";
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn policy(role: &str, auth: &str) -> Policy {
    let regions = if role == "combined" { json!(["us-east-1"]) } else { json!(["us-east-1", "us-west-2"]) };
    let document = json!({
        "role": role,
        "auth": auth,
        "regions": {"us-east-1": {}, "us-west-2": {}},
        "region": "us-east-1",
        "inference_profiles": {MODEL: format!("us.{MODEL}")},
        "models": {"deny": ["*forbidden*"]},
        "max_body_bytes": 100,
        "route_classes": [
            {"name": "private-only", "principals": ["spiffe://secret/*"], "paths": ["dx", "vpn"], "regions": ["us-east-1"]},
            {"name": "any", "operations": ["Converse", "InvokeModel", "ListFoundationModels"], "regions": regions,
             "paths": ["dx", "vpn", "internet"]}
        ]
    });
    Policy::parse(document.to_string().as_bytes(), None).unwrap()
}

fn keys() -> Credentials {
    Credentials::Keys(Keys {
        access_key_id: "AKIDEXAMPLE".into(),
        secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        session_token: Some(Secret::new("the-token")),
    })
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

/// A Converse call as Envoy shows it, with everything on it that must not cross.
fn converse(extra: &[(&str, &str)]) -> Headers {
    let mut all = vec![
        (":authority", "127.0.0.1:10000"),
        (":method", "POST"),
        (":path", "/model/anthropic.claude-v2:0/converse"),
        (":scheme", "http"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "0b4e4b0a-1111-4222-8333-444455556666"),
        ("content-type", "application/json"),
        ("authorization", "AWS4-HMAC-SHA256 Credential=CLIENT/20260102/us-gov-west-1/bedrock/aws4_request, …"),
        ("x-amz-date", "20260102T030405Z"),
        ("x-amz-security-token", "clients-own"),
        ("x-amz-content-sha256", "clients-own"),
        ("x-amz-user-agent", "aws-sdk-js"),
        ("x-amzn-bedrock-trace", "ENABLED"),
        ("x-envoy-retry-on", "5xx"),
        ("x-bedrock-gateway-cluster", "audit-als"),
        ("user-agent", "Boto3"),
        ("cookie", "a=b"),
    ];
    all.extend_from_slice(extra);
    headers(&all)
}

/// What the exchange is named by.
const ID: &str = "5d9f8e1c-2222-4333-8444-555566667777";

struct Client {
    exchange: Exchange,
    policy: Policy,
    wallet: Wallet,
    shared: Memory,
    now: SystemTime,
}

impl Client {
    fn new(role: &str, auth: &str, credentials: Option<Credentials>) -> Self {
        Self::of(policy(role, auth), credentials)
    }

    fn of(policy: Policy, credentials: Option<Credentials>) -> Self {
        let wallet = Wallet::fixed(credentials);
        Self { exchange: Exchange::new(ID.to_owned()), policy, wallet, shared: Memory::default(), now: NOW }
    }

    fn on(&mut self, event: Event<'_>) -> Step {
        let given = Given { policy: &self.policy, wallet: &self.wallet, shared: &self.shared, now: self.now };
        self.exchange.on(event, given)
    }

    fn headers(&mut self, headers: &Headers, end_of_stream: bool) -> Step {
        self.on(Event::RequestHeaders { headers, principal: None, end_of_stream })
    }

    fn body(&mut self, chunk: &[u8], end_of_stream: bool) -> Step {
        self.on(Event::RequestBody { chunk, end_of_stream })
    }
}

fn given<'a>(policy: &'a Policy, credentials: Option<&'a Credentials>) -> Given<'a> {
    let wallet = Box::leak(Box::new(Wallet::fixed(credentials.cloned())));
    Given { policy, wallet, shared: Box::leak(Box::<Memory>::default()), now: NOW }
}

/// A first attempt over Direct Connect.
fn attempt(headers: &Headers, handoff: Option<&[u8]>, region: Option<&[u8]>, given: Given<'_>) -> Step {
    let told = Told { handoff, previous: None, path: Some(b"dx"), region };
    Attempt::default().request(headers, told, given)
}

fn forwarded(step: Step) -> Forward {
    match step {
        Step::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

fn refused(step: Step) -> (u16, &'static str, String) {
    match step {
        Step::Reply(reply) => (reply.status, reply.error, reply.message),
        other => panic!("{other:?}"),
    }
}

fn names(headers: &Headers) -> Vec<&str> {
    let mut names: Vec<_> = headers.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_call_goes_from_headers_to_signature() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    assert_eq!(client.headers(&converse(&[]), false), Step::AwaitBody);
    assert_eq!(client.body(b"{\"mess", false), Step::AwaitBody);
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
        let signed = forwarded(attempt(&passed, Some(handoff), Some(label.as_bytes()), given(&policy, Some(&keys()))));
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
        assert_eq!(facts, AttemptFacts { model, region: label.to_owned(), tried, resigned: None });

        // A second attempt finds the headers as the first one left them, and signs the same.
        let again = attempt(&signed.headers, Some(handoff), Some(label.as_bytes()), given(&policy, Some(&keys())));
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
    assert_eq!(client.headers(&converse(&[]), false), Step::AwaitBody);
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
    let list = headers(&[(":method", "GET"), (":path", "/foundation-models?byProvider=x&byA=y")]);
    let forward = forwarded(client.headers(&list, true));
    assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock.any.us-east-1"));
    assert_eq!(forward.headers.get_str(":path"), Some("/foundation-models?byA=y&byProvider=x"));
    let handoff: Handoff = serde_json::from_slice(&forward.states[0].1).unwrap();
    assert_eq!((handoff.body_sha256.as_deref(), handoff.content_length), (Some(EMPTY_SHA256), None));
}

#[test]
fn bearer_lets_the_body_stream() {
    let key = Credentials::ApiKey(Secret::new("ABSKexample"));
    let mut client = Client::new("gateway", "bearer", Some(key.clone()));
    let forward = forwarded(client.headers(&converse(&[("content-length", "20")]), false));
    assert!(!client.exchange.wants_request_body());
    assert_eq!(client.on(Event::RequestBodyPassing { length: 20, end_of_stream: true }), Step::Continue);
    let policy = policy("signer", "bearer");
    let (_, handoff) = &forward.states[0];
    let signed = forwarded(attempt(&forward.headers, Some(handoff), Some(b"us-east-1"), given(&policy, Some(&key))));
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
        (&[(":path", "/async-invoke")], 403, "AccessDeniedException", "StartAsyncInvoke names its model in the body"),
        (&[(":path", "/model/x/converse-stream")], 403, "AccessDeniedException", "no route class"),
        (&[("content-length", "-1")], 400, "ValidationException", "'content-length'"),
        (&[("x-amzn-bedrock-trace", "twice")], 400, "ValidationException", "'x-amzn-bedrock-trace' is repeated"),
        (&[("content-encoding", "gzip")], 400, "ValidationException", "content-encoding"),
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
        // What was asked for is in the record, refused or not.
        assert_eq!(
            facts.operation.is_some(),
            *error != "UnknownOperationException" && !message.contains("query") && !message.contains("modelId")
        );
        assert_eq!(client.body(b"late", true), Step::Continue);
    }
}

#[test]
fn refuses_a_body_that_is_too_long_once_it_is_over() {
    let too_long = |step| {
        let (status, error, message) = refused(step);
        assert_eq!((status, error), (413, "ValidationException"));
        assert!(message.contains("100 bytes"), "{message}");
    };
    // It grows too long while it is held.
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    assert_eq!(client.headers(&converse(&[]), false), Step::AwaitBody);
    assert_eq!(client.body(&[b'x'; 100], false), Step::AwaitBody);
    assert_eq!(client.body(b"x", false), Step::Discard);
    assert!(!client.exchange.wants_request_body());
    assert_eq!(client.on(Event::RequestBodyPassing { length: 500, end_of_stream: false }), Step::Discard);
    too_long(client.on(Event::RequestBodyPassing { length: 1, end_of_stream: true }));

    // It announces its length.
    let key = Credentials::ApiKey(Secret::new("k"));
    for (auth, credentials) in [("sigv4", keys()), ("bearer", key.clone())] {
        let mut client = Client::new("gateway", auth, Some(credentials));
        assert_eq!(client.headers(&converse(&[("content-length", "101")]), false), Step::Discard);
        assert_eq!(client.on(Event::RequestBodyPassing { length: 101, end_of_stream: false }), Step::Discard);
        too_long(client.on(Event::RequestTrailers));
    }

    // There is an end to patience.
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    assert_eq!(client.headers(&converse(&[("content-length", "100000")]), false), Step::Discard);
    assert_eq!(client.on(Event::RequestBodyPassing { length: 800, end_of_stream: false }), Step::Discard);
    too_long(client.on(Event::RequestBodyPassing { length: 1, end_of_stream: false }));

    // It has gone upstream already.
    let mut client = Client::new("gateway", "bearer", Some(key));
    forwarded(client.headers(&converse(&[]), false));
    too_long(client.on(Event::RequestBodyPassing { length: 101, end_of_stream: false }));
}

#[test]
fn refuses_without_credentials() {
    for (role, auth) in [("gateway", "sigv4"), ("gateway", "bearer"), ("combined", "sigv4"), ("combined", "bearer")] {
        let reply = refused(Client::new(role, auth, None).headers(&converse(&[]), false));
        assert_eq!((reply.0, reply.1), (503, "ServiceUnavailableException"));
    }
}

#[test]
fn the_signer_refuses_what_the_gateway_did_not_pass() {
    let policy = policy("signer", "sigv4");
    let keys = keys();
    let good =
        json!({"class": "any", "operation": "Converse", "labels": ["x"], "body_sha256": EMPTY_SHA256}).to_string();
    let unhashed = json!({"class": "any", "operation": "Converse", "labels": ["x"]}).to_string();
    let stranger = good.replace("any", "other");
    let east = Some("us-east-1");
    for (handoff, region, credentials, message) in [
        (None, east, Some(&keys), "no handoff"),
        (Some("{}"), east, Some(&keys), "unreadable handoff"),
        (Some("\u{0}"), east, Some(&keys), "unreadable handoff"),
        (Some(unhashed.as_str()), east, Some(&keys), "no body hash"),
        (Some(stranger.as_str()), east, Some(&keys), "a route class that it does not know"),
        (Some(good.as_str()), None, Some(&keys), "no region label"),
        (Some(good.as_str()), Some("us-gov-west-1"), Some(&keys), "'us-gov-west-1'"),
        (Some(good.as_str()), east, None, "no credentials"),
    ] {
        let region = region.map(str::as_bytes);
        let reply = refused(attempt(&converse(&[]), handoff.map(str::as_bytes), region, given(&policy, credentials)));
        assert_eq!((reply.0, reply.1), (503, "ServiceUnavailableException"));
        assert!(reply.2.contains(message), "{message}: {}", reply.2);
    }
}

#[test]
fn principals_choose_the_class() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    let (headers, principal) = (converse(&[]), Some("spiffe://secret/a".to_owned()));
    client.on(Event::RequestHeaders { headers: &headers, principal, end_of_stream: false });
    let forward = forwarded(client.body(b"", true));
    assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock-runtime.private-only"));
    assert_eq!(client.exchange.facts(true).principal.as_deref(), Some("spiffe://secret/a"));
}

#[test]
fn responses_leave_their_facts() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    client.headers(&converse(&[]), false);
    client.body(b"{}", true);
    let response = headers(&[(":status", "200"), ("content-type", "application/json"), ("x-amzn-requestid", "aws-1")]);
    client.on(Event::ResponseHeaders { headers: &response, relayed: false });
    assert!(client.exchange.wants_response_body());
    client.on(Event::ResponseBody { chunk: br#"{"usage":{"inputTokens":7,"outputT"# });
    client.on(Event::ResponseBody { chunk: br#"okens":8}}"# });
    let facts = client.exchange.facts(true);
    assert_eq!((facts.usage.input, facts.usage.output), (Some(7), Some(8)));
    assert_eq!((facts.upstream_id.as_deref(), facts.error), (Some("aws-1"), None));

    for (header, wanted) in [
        ("ThrottlingException", Some("ThrottlingException")),
        ("ThrottlingException:http://internal.amazon.com/", Some("ThrottlingException")),
        ("com.amazon#ThrottlingException", Some("ThrottlingException")),
        ("bad type", None),
    ] {
        client.on(Event::ResponseHeaders {
            headers: &headers(&[(":status", "429"), ("x-amzn-errortype", header)]),
            relayed: false,
        });
        assert_eq!(client.exchange.facts(true).error.as_deref(), wanted);
    }
}

/// Two calls of a gateway with a relay: what goes there, and how its response ends.
#[test]
fn streams_go_through_the_relay_and_end_with_an_exception_where_they_break_off() {
    let document = json!({
        "role": "gateway",
        "regions": {"us-east-1": {}},
        "stream_relay": "bedrock-streams",
        "route_classes": [{"name": "any", "paths": ["dx", "vpn"]}]
    });
    let relayed = || Policy::parse(document.to_string().as_bytes(), None).unwrap();
    let mut client = Client::of(relayed(), Some(keys()));
    client.headers(&converse(&[]), false);
    let forward = forwarded(client.body(b"{}", true));
    assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock-runtime.any"));
    assert_eq!((forward.headers.get(RELAY_HEADER), forward.relayed), (None, None), "no stream");

    let call = headers(&[(":method", "POST"), (":path", "/model/anthropic.claude-v2:0/converse-stream")]);
    let response = headers(&[(":status", "200"), ("content-type", "application/vnd.amazon.eventstream")]);
    for (whole, error) in [(true, None), (false, Some("ServiceUnavailableException"))] {
        let mut client = Client::of(relayed(), Some(keys()));
        client.headers(&call, false);
        let forward = forwarded(client.body(b"{}", true));
        assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock-streams"));
        assert_eq!(forward.headers.get_str(RELAY_HEADER), Some(ID));
        let relayed = forward.relayed.unwrap();
        assert_eq!((relayed.cluster.as_str(), relayed.class.as_str()), ("bedrock-runtime.any", "any"));
        let handoff: Handoff = serde_json::from_slice(&relayed.handoff).unwrap();
        assert_eq!(handoff.relayed.as_deref(), Some(ID));
        assert!(!client.exchange.rewrites_response_body());
        client.on(Event::ResponseHeaders { headers: &response, relayed: true });
        assert!(client.exchange.rewrites_response_body());
        assert_eq!(client.on(Event::ResponseBody { chunk: &[0; 5] }), Step::Pass(Vec::new()));
        let Step::Pass(last) = client.on(Event::ResponseEnd { whole }) else { panic!("an end") };
        assert_eq!(last == [0; 5], whole, "what was held passes only if there is no more to come");
        let read = client.exchange.facts(true).error;
        assert_eq!(read.as_deref(), error.or(Some("EventStreamTruncated")));
    }

    // Envoy's own answer is whole.
    let mut client = Client::of(relayed(), Some(keys()));
    client.headers(&call, false);
    client.body(b"{}", true);
    client.on(Event::ResponseHeaders { headers: &headers(&[(":status", "503")]), relayed: false });
    assert!(client.exchange.is_relayed() && !client.exchange.rewrites_response_body());

    // An error that breaks off has nothing that could follow it.
    let mut client = Client::of(relayed(), Some(keys()));
    client.headers(&call, false);
    client.body(b"{}", true);
    client.on(Event::ResponseHeaders { headers: &headers(&[(":status", "424")]), relayed: true });
    assert_eq!(client.on(Event::ResponseBody { chunk: b"{" }), Step::Pass(b"{".to_vec()));
    assert_eq!(client.on(Event::ResponseEnd { whole: false }), Step::Cut);
}

#[test]
fn metrics_name_models_of_the_configuration_only() {
    for (path, label) in [
        ("/model/anthropic.claude-v2:0/converse", ";model=anthropic.claude-v2:0"),
        ("/model/made.up/converse", ";model=other"),
        ("/nothing", ";model=none"),
    ] {
        let mut client = Client::new("gateway", "sigv4", Some(keys()));
        client.headers(&headers(&[(":method", "POST"), (":path", path)]), true);
        let facts = client.exchange.facts(true);
        let endpoint = Endpoint { path: Some("dx"), region: Some("us-east-1"), attempts: 1 };
        let samples = client.exchange.settle(&facts, endpoint, given(&client.policy, None));
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
        Step::AwaitBody => client.body(b"{}", true),
        step => step,
    };
    forwarded(step).headers.get_str(CLUSTER_HEADER).unwrap().to_owned()
}

#[test]
fn what_is_in_one_region_goes_to_that_region_only() {
    let arn = "/model/arn:aws:bedrock:us-west-2:123456789012:inference-profile%2Fus.x/converse";
    let elsewhere = "/model/arn:aws:bedrock:eu-west-1:123456789012:inference-profile%2Feu.x/converse";
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
fn a_region_that_throttles_a_model_is_passed_over_for_it() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    Breaker::new(&client.shared, "us-east-1", MODEL, NOW).failed(None);
    assert_eq!(cluster_of(&mut client, &converse(&[])), "bedrock-runtime.any.us-west-2");
    // Where both do, the first is asked: its answer is the true one.
    client.exchange = Exchange::new(ID.to_owned());
    Breaker::new(&client.shared, "us-west-2", MODEL, NOW).failed(None);
    assert_eq!(cluster_of(&mut client, &converse(&[])), "bedrock-runtime.any.us-east-1");
}

#[test]
fn a_caller_that_used_up_its_minute_is_told_when_to_come_back() {
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
            (Step::AwaitBody, true) => {}
            (Step::Reply(reply), false) => {
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
    assert_eq!(client.headers(&converse(&[]), false), Step::AwaitBody);
    let mut facts = client.exchange.facts(true);
    facts.usage = audit::Usage { input: Some(50), output: Some(20), cache_read: Some(900), cache_write: Some(1) };
    let given = Given { policy: &client.policy, wallet: &client.wallet, shared: &client.shared, now: NOW };
    client.exchange.settle(&facts, Endpoint::default(), given);
    client.exchange = Exchange::new(ID.to_owned());
    // 11 overdrawn and one wanted, at one a second.
    assert!(matches!(client.headers(&converse(&[]), false), Step::Reply(reply) if reply.retry_after == Some(12)));
}

/// A document whose credentials are fetched, for a role; and a keeper that has fetched none.
fn fetched(role: &str) -> (Policy, Wallet, crate::credentials::keeper::Keeper) {
    let document = json!({
        "role": role,
        "regions": {"us-east-1": {}},
        "route_classes": [{"name": "any", "paths": ["dx", "vpn"]}],
        "credentials": {"source": "imds", "cluster": "imds"}
    });
    let policy = Policy::parse(document.to_string().as_bytes(), None).unwrap();
    let wallet = Wallet::compile(&policy.credentials, &policy.credential_sets, policy.auth, 7, &|_| None).unwrap();
    (policy, wallet, crate::credentials::keeper::Keeper::new("default", 7))
}

fn publish(keeper: &crate::credentials::keeper::Keeper, memory: &Memory, now: SystemTime, seconds: u64) {
    keeper.due(memory, now);
    let expires = Some(now + std::time::Duration::from_secs(seconds));
    keeper.publish(memory, &crate::credentials::fetch::Fetched { credentials: keys(), expires }, now, 0.0);
}

#[test]
fn calls_wait_for_the_first_credentials_and_no_longer_than_allowed() {
    let seconds = std::time::Duration::from_secs;
    for (after, comes) in [(1, true), (2, false)] {
        let (policy, wallet, keeper) = fetched("gateway");
        let mut client = Client::of(policy, None);
        client.wallet = wallet;
        assert_eq!(client.headers(&converse(&[]), false), Step::AwaitBody);
        assert_eq!(client.body(b"{}", true), Step::AwaitCredentials);
        assert_eq!(client.on(Event::Tick), Step::AwaitCredentials);
        client.now = NOW + seconds(after);
        if comes {
            publish(&keeper, &client.shared, client.now, 60);
            let forward = forwarded(client.on(Event::Tick));
            assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock-runtime.any"));
            assert_eq!(client.on(Event::Tick), Step::Continue);
        } else {
            let reply = refused(client.on(Event::Tick));
            assert_eq!((reply.0, reply.1), (503, "ServiceUnavailableException"));
            assert!(reply.2.contains("still waiting for its first credentials"), "{}", reply.2);
        }
    }
}

#[test]
fn expired_credentials_are_refused_at_once() {
    let (policy, wallet, keeper) = fetched("gateway");
    let mut client = Client::of(policy, None);
    client.wallet = wallet;
    publish(&keeper, &client.shared, NOW, 60);
    client.now = NOW + std::time::Duration::from_secs(60);
    let reply = refused(client.headers(&converse(&[]), false));
    assert_eq!(reply.0, 503);
    assert!(reply.2.contains("have expired"), "{}", reply.2);
}

#[test]
fn a_key_that_is_refused_is_replaced_and_the_call_signed_anew_once() {
    let (policy, wallet, keeper) = fetched("signer");
    let memory = Memory::default();
    publish(&keeper, &memory, NOW, 3600);
    let handoff =
        json!({"class": "any", "operation": "Converse", "labels": ["x"], "body_sha256": EMPTY_SHA256}).to_string();
    let given = |now| Given { policy: &policy, wallet: &wallet, shared: &memory, now };
    let told =
        |previous| Told { handoff: Some(handoff.as_bytes()), previous, path: Some(b"dx"), region: Some(b"us-east-1") };
    let denied = |error: &str| headers(&[(":status", "403"), ("x-amzn-errortype", error)]);
    let mut first = Attempt::default();
    forwarded(first.request(&converse(&[]), told(None), given(NOW)));
    assert!(!first.response(&denied("AccessDeniedException"), given(NOW)).retry);
    let answered = first.response(&denied("ExpiredTokenException:http://x"), given(NOW));
    assert!(answered.retry);

    // The next attempt waits for others, which are fetched now.
    let state = answered.state.unwrap();
    let mut second = Attempt::default();
    assert_eq!(second.request(&converse(&[]), told(Some(&state)), given(NOW)), Step::AwaitCredentials);
    assert_eq!(wallet.due(&memory, NOW), ["default"]);
    publish(&keeper, &memory, NOW, 3600);
    let forward = forwarded(second.request(&converse(&[]), told(Some(&state)), given(NOW)));
    let facts: AttemptFacts = serde_json::from_slice(&forward.states[0].1).unwrap();
    assert_eq!(facts.tried.len(), 2);
    assert!(!second.response(&denied("ExpiredTokenException"), given(NOW)).retry, "once");

    let mut third = Attempt::default();
    let late = told(Some(&state));
    let state = AttemptFacts { resigned: Some(audit::Resigned::Credentials(2)), ..facts };
    let state = to_json(&state);
    let late = Told { previous: Some(&state), ..late };
    assert_eq!(third.request(&converse(&[]), late, given(NOW)), Step::AwaitCredentials);
    let reply = refused(third.request(&converse(&[]), late, given(NOW + std::time::Duration::from_secs(2))));
    assert!(reply.2.contains("have expired"), "{}", reply.2);
}

#[test]
fn a_clock_that_is_off_is_learnt_and_the_call_signed_anew() {
    let policy = policy("signer", "sigv4");
    // 1994-11-06T08:49:37Z, ten minutes on.
    let now = NOW + std::time::Duration::from_secs(784_111_777 + 600);
    let keys = keys();
    let given = Given { now, ..given(&policy, Some(&keys)) };
    let handoff =
        json!({"class": "any", "operation": "Converse", "labels": ["x"], "body_sha256": EMPTY_SHA256}).to_string();
    let told =
        Told { handoff: Some(handoff.as_bytes()), previous: None, path: Some(b"dx"), region: Some(b"us-east-1") };
    let mut first = Attempt::default();
    let date = |step| forwarded(step).headers.get_str("x-amz-date").unwrap().to_owned();
    assert_eq!(date(first.request(&converse(&[]), told, given)), "19941106T085937Z");
    let answer = headers(&[
        (":status", "403"),
        ("x-amzn-errortype", "InvalidSignatureException"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ]);
    let answered = first.response(&answer, given);
    assert!(answered.retry);
    let mut second = Attempt::default();
    let told = Told { previous: answered.state.as_deref(), ..told };
    assert_eq!(date(second.request(&converse(&[]), told, given)), "19941106T084937Z");
    assert!(!second.response(&answer, given).retry);
}
