use super::*;
use crate::step::{ResponseBodyMode, ResponseEvent};
use crate::testing::*;

const LIST: &[u8] = br#"{"modelSummaries": [{"modelId":"a.good"}, {"modelId":"a.forbidden"}]}"#;

/// A client whose list has gone upstream. The policy refuses `*forbidden*`.
fn listing() -> Client {
    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    forwarded(client.headers(&headers(&[(":method", "GET"), (":path", "/foundation-models")]), true));
    client
}

fn respond(client: &mut Client, head: &[(&str, &str)], body: &[u8]) -> ResponseStep {
    let head = headers(head);
    let step = client.response(ResponseEvent::Headers { headers: &head, relayed: false });
    assert_eq!(step, ResponseStep::Continue);
    assert_eq!(client.exchange.response_body_mode(), ResponseBodyMode::Hold);
    for chunk in body.chunks(7) {
        assert_eq!(client.response(ResponseEvent::Body { chunk }), ResponseStep::Continue);
    }
    let policy = policy("gateway", "sigv4");
    client.response(ResponseEvent::Whole(WholeResponse { headers: &head, body, region: None, policy: &policy }))
}

#[test]
fn a_list_is_held_and_cut() {
    let mut client = listing();
    let head =
        [(":status", "200"), ("content-length", "70"), ("transfer-encoding", "chunked"), ("x-amzn-requestid", "r")];
    let ResponseStep::Edit { headers: head, body } = respond(&mut client, &head, LIST) else { panic!("not edited") };
    assert_eq!(String::from_utf8(body).unwrap(), r#"{"modelSummaries": [{"modelId":"a.good"}]}"#);
    assert_eq!(head, headers(&[(":status", "200"), ("x-amzn-requestid", "r"), ("content-length", "42")]));
    assert_eq!(client.exchange.facts(true).error, None);
    // Nothing to cut.
    let whole = br#"{"modelSummaries":[]}"#;
    assert_eq!(respond(&mut listing(), &[(":status", "200")], whole), ResponseStep::Continue);
}

#[test]
fn other_responses_are_not_held() {
    let mut client = listing();
    let refusal = headers(&[(":status", "403"), ("x-amzn-errortype", "AccessDeniedException")]);
    client.response(ResponseEvent::Headers { headers: &refusal, relayed: false });
    assert_eq!(client.exchange.response_body_mode(), ResponseBodyMode::Ignore);

    let mut client = Client::new("gateway", "sigv4", Some(keys()));
    client.headers(&converse(&[]), false);
    client.body(b"{}", true);
    client.response(ResponseEvent::Headers { headers: &headers(&[(":status", "200")]), relayed: false });
    assert_eq!(client.exchange.response_body_mode(), ResponseBodyMode::Observe);

    // A reply of the gateway's own.
    let mut client = listing();
    client.exchange.refuse(&Refusal::NotConfigured);
    client.response(ResponseEvent::Headers { headers: &headers(&[(":status", "503")]), relayed: false });
    assert_eq!(client.exchange.response_body_mode(), ResponseBodyMode::Ignore);
}

#[test]
fn refuses_a_list_that_it_cannot_read() {
    for (head, body, message) in [
        (&[(":status", "200")][..], &LIST[..20], "it is not a JSON object"),
        (&[(":status", "200")], b"", "it is not a JSON object"),
        (&[(":status", "200"), ("content-encoding", "gzip")], LIST, "it has a content-encoding"),
        (&[(":status", "200")], b"{}", "its member 'modelSummaries' is not a list"),
    ] {
        let mut client = listing();
        let ResponseStep::Reply(reply) = respond(&mut client, head, body) else { panic!("{message}: it passes") };
        assert_eq!((reply.status, reply.error), (502, "ServiceUnavailableException"));
        assert!(reply.message.contains(message), "{}", reply.message);
        assert_eq!(client.exchange.facts(true).error.as_deref(), Some("ServiceUnavailableException"));
        assert!(client.exchange.is_refused());
    }
}

#[test]
fn refuses_a_list_without_end() {
    let mut client = listing();
    client.response(ResponseEvent::Headers { headers: &headers(&[(":status", "200")]), relayed: false });
    let chunk = vec![b' '; 1 << 20];
    for _ in 0..MAX_HELD >> 20 {
        assert_eq!(client.response(ResponseEvent::Body { chunk: &chunk }), ResponseStep::Continue);
    }
    let ResponseStep::Reply(reply) = client.response(ResponseEvent::Body { chunk: b" " }) else { panic!("it is held") };
    assert_eq!(reply.status, 502);
    assert!(reply.message.contains("longer than 8388608 bytes"), "{}", reply.message);
    assert_eq!(client.exchange.response_body_mode(), ResponseBodyMode::Ignore);
}
