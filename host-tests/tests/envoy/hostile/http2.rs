//! HTTP/2 frame by frame, and gRPC's calls over it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::{MODEL, assert_no_reload, path_of, records};
use crate::harness::{Harness, Keys};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const SETTINGS: u8 = 4;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// What a client sends first (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame (RFC 9113, section 4.1).
pub(super) fn frame(kind: u8, flags: u8, on: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[length[1], length[2], length[3], kind, flags], &on.to_be_bytes()[..], payload].concat()
}

/// Headers as literals without indexing (RFC 7541, section 6.2.2).
pub(super) fn literals(headers: &[(&str, &str)]) -> Vec<u8> {
    headers.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A string's length, in a prefix of seven bits (RFC 7541, section 5.1), and the string.
pub(super) fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len().min(127)).unwrap()];
    if let Some(mut rest) = text.len().checked_sub(127) {
        while rest > 127 {
            bytes.push((rest & 127) as u8 | 128);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }
    bytes.extend(text.as_bytes());
    bytes
}

/// Sends the headers of a call without a body, and waits for the end of the answer.
fn call(harness: &Harness, headers: &[(&str, &str)]) {
    let mut stream = TcpStream::connect(harness.gateway.http.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let settings = frame(SETTINGS, 0, 0, &[]);
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &literals(headers));
    stream.write_all(&[PREFACE, &settings, &request].concat()).unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).unwrap();
        // Of HEADERS and DATA, on the call's stream.
        if head[3] <= HEADERS && head[8] == 1 && head[4] & END_STREAM != 0 {
            return;
        }
    }
}

#[test]
fn grpc_over_http2_is_refused_by_415() {
    let harness = Harness::lone(Keys::LongLived);
    let path = path_of(MODEL);
    let types = ["application/grpc", "application/grpc+proto", "application/grpc-web"];
    for content_type in types {
        call(
            &harness,
            &[
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "x"),
                (":path", &path),
                ("content-type", content_type),
                ("te", "trailers"),
            ],
        );
    }
    for (facts, line) in records(&harness, types.len()) {
        assert_eq!((&line["status"], &facts["error"]), (&415.into(), &"ValidationException".into()), "{line}");
    }
    assert!(harness.received().is_empty());
    assert_no_reload(&harness);
}
