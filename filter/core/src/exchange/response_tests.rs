use super::*;
use crate::envoy_names::{CLUSTER_HEADER, RELAY_HEADER};
use crate::handoff::Handoff;
use crate::policy::Policy;
use crate::testing::*;
use serde_json::json;

#[test]
fn a_change_of_protocol_is_refused() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    client.headers(&converse(&[]), false);
    client.body(b"{}", true);
    let response = headers(&[(":status", "101"), ("upgrade", "websocket"), ("connection", "upgrade")]);
    let step = client.response(ResponseEvent::Headers { headers: &response, relayed: false });
    let ResponseStep::Reply(reply) = step else { panic!("{step:?}") };
    assert_eq!((reply.status, reply.error), (502, "ServiceUnavailableException"));
    assert_eq!(client.exchange.facts(true).error.as_deref(), Some("ServiceUnavailableException"));
}

#[test]
fn responses_leave_their_facts() {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    client.headers(&converse(&[]), false);
    client.body(b"{}", true);
    let response = headers(&[(":status", "200"), ("content-type", "application/json"), ("x-amzn-requestid", "aws-1")]);
    client.response(ResponseEvent::Headers { headers: &response, relayed: false });
    assert_eq!(client.exchange.response_body_mode(), ResponseBodyMode::Observe);
    client.response(ResponseEvent::Body { chunk: br#"{"usage":{"inputTokens":7,"outputT"# });
    client.response(ResponseEvent::Body { chunk: br#"okens":8}}"# });
    let facts = client.exchange.facts(true);
    assert_eq!((facts.usage.input, facts.usage.output), (Some(7), Some(8)));
    assert_eq!((facts.upstream_id.as_deref(), facts.error), (Some("aws-1"), None));

    for (header, wanted) in [
        ("ThrottlingException", Some("ThrottlingException")),
        ("ThrottlingException:http://internal.amazon.com/", Some("ThrottlingException")),
        ("com.amazon#ThrottlingException", Some("ThrottlingException")),
        ("bad type", None),
    ] {
        client.response(ResponseEvent::Headers {
            headers: &headers(&[(":status", "429"), ("x-amzn-errortype", header)]),
            relayed: false,
        });
        assert_eq!(client.exchange.facts(true).error.as_deref(), wanted);
    }
}

#[test]
fn broken_relayed_streams_end_with_an_exception() {
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
    assert_eq!((forward.headers.get(RELAY_HEADER), forward.relayed), (None, None), "not a stream");

    let call = headers(&[(":method", "POST"), (":path", "/model/anthropic.claude-v2:0/converse-stream")]);
    let response = headers(&[(":status", "200"), ("content-type", "application/vnd.amazon.eventstream")]);
    for (complete, error) in [(true, None), (false, Some("ServiceUnavailableException"))] {
        let mut client = Client::of(relayed(), Some(keys()));
        client.headers(&call, false);
        let forward = forwarded(client.body(b"{}", true));
        assert_eq!(forward.headers.get_str(CLUSTER_HEADER), Some("bedrock-streams"));
        assert_eq!(forward.headers.get_str(RELAY_HEADER), Some(ID));
        let relayed = forward.relayed.unwrap();
        assert_eq!((relayed.cluster.as_str(), relayed.class.as_str()), ("bedrock-runtime.any", "any"));
        let handoff: Handoff = serde_json::from_slice(&relayed.handoff).unwrap();
        assert_eq!(handoff.relayed.as_deref(), Some(ID));
        assert_eq!(client.exchange.response_body_mode(), ResponseBodyMode::Ignore);
        client.response(ResponseEvent::Headers { headers: &response, relayed: true });
        assert_eq!(client.exchange.response_body_mode(), ResponseBodyMode::Rewrite);
        assert_eq!(client.response(ResponseEvent::Body { chunk: &[0; 5] }), ResponseStep::Replace(Vec::new()));
        let ResponseStep::Replace(last) = client.response(ResponseEvent::End { complete }) else { panic!("reset") };
        assert_eq!(last == [0; 5], complete, "held bytes pass only at a complete end");
        let read = client.exchange.facts(true).error;
        assert_eq!(read.as_deref(), error.or(Some("EventStreamTruncated")));
    }

    // Envoy's own response is complete.
    let mut client = Client::of(relayed(), Some(keys()));
    client.headers(&call, false);
    client.body(b"{}", true);
    client.response(ResponseEvent::Headers { headers: &headers(&[(":status", "503")]), relayed: false });
    assert!(client.exchange.is_relayed());
    assert_ne!(client.exchange.response_body_mode(), ResponseBodyMode::Rewrite);

    // Nothing can follow an error response that breaks off.
    let mut client = Client::of(relayed(), Some(keys()));
    client.headers(&call, false);
    client.body(b"{}", true);
    client.response(ResponseEvent::Headers { headers: &headers(&[(":status", "424")]), relayed: true });
    assert_eq!(client.response(ResponseEvent::Body { chunk: b"{" }), ResponseStep::Replace(b"{".to_vec()));
    assert_eq!(client.response(ResponseEvent::End { complete: false }), ResponseStep::Reset);
}

#[test]
fn only_own_replies_are_restored() {
    let translated =
        headers(&[(":status", "200"), ("grpc-status", "2"), ("grpc-message", "%7B%22message%22:%22m%22%7D")]);
    let status = |client: &Client| client.exchange.restored(&translated, || Some(408));
    let status = |client: &Client| status(client).map(|headers| headers.get_str(":status").map(str::to_owned));
    let mut grpc = Client::new("gateway", "sigv4", Some(keys()));
    refused(grpc.headers(&headers(&[(":method", "GET"), (":path", "/x"), ("content-type", "application/grpc")]), true));
    assert_eq!(status(&grpc), Some(Some("404".to_owned())));
    // Without its configuration the module does not look at the headers.
    let mut unconfigured = Client::new("gateway", "sigv4", Some(keys()));
    unconfigured.exchange.refuse(&Refusal::NotConfigured);
    assert_eq!(status(&unconfigured), Some(Some("503".to_owned())));
    let mut other = Client::new("gateway", "sigv4", Some(keys()));
    other.headers(&converse(&[]), false);
    assert_eq!(status(&other), None);
}

#[test]
fn envoys_own_refusals_have_an_error() {
    let client = Client::new("gateway", "sigv4", Some(keys()));
    for (status, error) in [
        (0, None),
        (200, Some("ValidationException")),
        (431, Some("ValidationException")),
        (503, Some("ServiceUnavailableException")),
    ] {
        assert_eq!(client.exchange.envoys_error(status, b""), error, "{status}");
    }
    let refused = client.exchange.envoys_error(401, b"jwt_authn_access_denied{Jwt_is_expired}");
    assert_eq!(refused, Some("AccessDeniedException"));
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    client.headers(&converse(&[]), false);
    assert_eq!(client.exchange.envoys_error(408, b""), None);
}
