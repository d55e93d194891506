use super::*;

#[test]
fn http_11_becomes_http_10() {
    let request = b"POST /model/a/converse-stream HTTP/1.1\r\nhost: x\r\n\r\n HTTP/1.1\r\n";
    let FirstBytes::Replace(bytes) = as_http_10(request.to_vec()) else { panic!("replaced") };
    assert_eq!(bytes, b"POST /model/a/converse-stream HTTP/1.0\r\nhost: x\r\n\r\n HTTP/1.1\r\n");
    for cut in 0.."POST /model/a/converse-stream HTTP/1.1\r".len() {
        assert_eq!(as_http_10(request[..cut].to_vec()), FirstBytes::Wait, "{cut}");
    }
    for other in ["PRI * HTTP/2.0\r\n\r\n", "\r\nPOST / HTTP/1.1\r\n", "\n", "GET / HTTP/1.0\r\n", "GET / HTTP/1.1\n"] {
        assert_eq!(as_http_10(other.into()), FirstBytes::Keep, "{other:?}");
    }
    assert_eq!(as_http_10(vec![b'x'; MAX_REQUEST_LINE]), FirstBytes::Keep);
}

#[test]
fn the_relay_sends_only_what_the_gateway_left() {
    let headers: Headers = [(":path", "/p"), (RELAY_HEADER, "id"), (CLUSTER_HEADER, "forged"), ("content-type", "a/b")]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .into_iter()
        .collect();
    let relayed = RelayedCall { cluster: "bedrock-runtime.any".into(), class: "any".into(), handoff: b"{}".to_vec() };
    let RequestStep::Forward(forward) = pass_on(&headers, Some(&relayed)) else { panic!("forward") };
    let all: Vec<_> = forward.headers.iter().map(|(name, value)| (name, std::str::from_utf8(value).unwrap())).collect();
    assert_eq!(
        all,
        [(":path", "/p"), ("content-type", "a/b"), (CLUSTER_HEADER, "bedrock-runtime.any"), (CLASS_HEADER, "any")]
    );
    assert_eq!(forward.states, [(HANDOFF_PROPERTY, b"{}".to_vec()), (CLASS_PROPERTY, b"any".to_vec())]);
    let RequestStep::Reply(reply) = pass_on(&headers, None) else { panic!("refused") };
    assert_eq!((reply.status, reply.error), (503, "ServiceUnavailableException"));
}
