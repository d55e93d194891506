use super::*;
use crate::usage::eventstream::Frames;

const MESSAGE: &str = "it broke off";

fn event(payload: usize) -> Vec<u8> {
    frame(&[(":message-type", "event"), (":event-type", "contentBlockDelta")], &vec![b'x'; payload])
}

/// What passes of `bytes` given in pieces of `size`.
fn passed(tail: &mut Tail, bytes: &[u8], size: usize) -> Vec<u8> {
    bytes.chunks(size).flat_map(|chunk| tail.feed(chunk)).collect()
}

#[test]
fn a_whole_stream_passes_as_it_is() {
    let stream = [event(3), event(0), event(1000), event(MAX_HELD), event(7)].concat();
    for size in [1, 11, 12, 13, 4096, stream.len()] {
        let mut tail = Tail::new(true);
        let mut all = passed(&mut tail, &stream, size);
        let Ending::Whole(last) = tail.end(true, MESSAGE) else { panic!("whole") };
        all.extend(last);
        assert_eq!(all, stream, "in pieces of {size}");
    }
}

#[test]
fn a_frame_passes_once_it_is_whole() {
    let (first, second) = (event(10), event(20));
    let mut tail = Tail::new(true);
    assert_eq!(tail.feed(&first), first);
    let (begin, rest) = second.split_at(second.len() - 1);
    assert_eq!(tail.feed(begin), b"");
    assert_eq!(tail.feed(rest), second);
}

#[test]
fn a_stream_that_breaks_off_ends_with_an_exception_wherever_it_breaks() {
    let stream = [event(3), event(40), event(5)].concat();
    for cut in 0..=stream.len() {
        let mut tail = Tail::new(true);
        let mut all = tail.feed(&stream[..cut]);
        let Ending::Told(exception) = tail.end(false, MESSAGE) else { panic!("told, cut at {cut}") };
        all.extend(exception);
        let mut frames = Frames::default();
        frames.feed(&all);
        assert_eq!((frames.error(), frames.inside_frame()), (None, false), "cut at {cut}");
        assert_eq!(frames.exception(), Some("ServiceUnavailableException"), "cut at {cut}");
    }
}

#[test]
fn a_long_frame_passes_as_it_comes_and_is_cut_with_the_connection() {
    let (long, short) = (event(MAX_HELD + 1), event(1));
    let mut tail = Tail::new(true);
    let begin = &long[..MAX_HELD];
    assert_eq!(passed(&mut tail, begin, 1 << 14), begin);
    assert!(tail.held.is_empty());
    assert_eq!(tail.end(false, MESSAGE), Ending::Torn);
    let mut tail = Tail::new(true);
    assert_eq!(passed(&mut tail, &[&long[..], &short].concat(), 1 << 14), [&long[..], &short].concat());
    assert!(matches!(tail.end(false, MESSAGE), Ending::Told(_)), "between frames again");
}

#[test]
fn what_is_no_event_stream_passes_and_is_cut_where_it_breaks_off() {
    for mut tail in [Tail::new(false), Tail::new(true)] {
        assert_eq!(tail.feed(br#"{"message": "no frame, "#), br#"{"message": "no frame, "#);
        assert_eq!(tail.end(false, MESSAGE), Ending::Torn);
        assert_eq!(tail.end(true, MESSAGE), Ending::Whole(Vec::new()));
    }
}

#[test]
fn the_bytes_of_a_stream_with_a_bad_frame_are_not_lost() {
    let mut bad = event(9);
    bad[9] ^= 1;
    let stream = [event(1), bad, event(2)].concat();
    let mut tail = Tail::new(true);
    assert_eq!(passed(&mut tail, &stream, 5), stream);
    assert_eq!(tail.end(false, MESSAGE), Ending::Torn);
}

#[test]
fn the_exception_is_the_one_that_sdks_know() {
    let Ending::Told(bytes) = Tail::new(true).end(false, "no \"answer\"") else { panic!("told") };
    let text = String::from_utf8_lossy(&bytes);
    for part in [
        ":exception-type\u{7}\0\u{1b}serviceUnavailableException",
        ":message-type\u{7}\0\u{9}exception",
        r#"{"message":"no \"answer\""}"#,
    ] {
        assert!(text.contains(part), "{text:?}");
    }
}

#[test]
fn a_request_of_http_11_becomes_one_of_http_10() {
    let request = b"POST /model/a/converse-stream HTTP/1.1\r\nhost: x\r\n\r\n HTTP/1.1\r\n";
    let FirstBytes::Replaced(bytes) = as_http_10(request.to_vec()) else { panic!("replaced") };
    assert_eq!(bytes, b"POST /model/a/converse-stream HTTP/1.0\r\nhost: x\r\n\r\n HTTP/1.1\r\n");
    for cut in 0.."POST /model/a/converse-stream HTTP/1.1\r".len() {
        assert_eq!(as_http_10(request[..cut].to_vec()), FirstBytes::Wait, "{cut}");
    }
    for other in ["PRI * HTTP/2.0\r\n\r\n", "\r\nPOST / HTTP/1.1\r\n", "\n", "GET / HTTP/1.0\r\n", "GET / HTTP/1.1\n"] {
        assert_eq!(as_http_10(other.into()), FirstBytes::Kept, "{other:?}");
    }
    assert_eq!(as_http_10(vec![b'x'; MAX_REQUEST_LINE]), FirstBytes::Kept);
}

#[test]
fn the_relay_sends_on_what_the_gateway_left_and_nothing_else() {
    let headers: Headers = [(":path", "/p"), (RELAY_HEADER, "id"), (CLUSTER_HEADER, "forged"), ("content-type", "a/b")]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .into_iter()
        .collect();
    let relayed = Relayed { cluster: "bedrock-runtime.any".into(), class: "any".into(), handoff: b"{}".to_vec() };
    let Step::Forward(forward) = pass_on(&headers, Some(&relayed)) else { panic!("forward") };
    let all: Vec<_> = forward.headers.iter().map(|(name, value)| (name, std::str::from_utf8(value).unwrap())).collect();
    assert_eq!(
        all,
        [(":path", "/p"), ("content-type", "a/b"), (CLUSTER_HEADER, "bedrock-runtime.any"), (CLASS_HEADER, "any")]
    );
    assert_eq!(forward.states, [(HANDOFF_PROPERTY, b"{}".to_vec()), (CLASS_PROPERTY, b"any".to_vec())]);
    let Step::Reply(reply) = pass_on(&headers, None) else { panic!("refused") };
    assert_eq!((reply.status, reply.error), (503, "ServiceUnavailableException"));
}
