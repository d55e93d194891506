//! gRPC's calls over HTTP/2, frame by frame.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::{MODEL, assert_no_reload, path_of, records};
use crate::harness::{Harness, Keys};

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn write_frame(stream: &mut TcpStream, kind: u8, flags: u8, on: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    stream.write_all(&[length[1], length[2], length[3], kind, flags, 0, 0, 0, on]).unwrap();
    stream.write_all(payload).unwrap();
}

/// Sends the headers of a call without a body, and waits for the end of the answer.
fn call(harness: &Harness, headers: &[(&str, &str)]) {
    let mut stream = TcpStream::connect(harness.gateway.http.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    write_frame(&mut stream, SETTINGS, 0, 0, &[]);
    let mut block = Vec::new();
    for (name, value) in headers {
        // A literal without indexing (RFC 7541, section 6.2.2).
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    write_frame(&mut stream, HEADERS, END_HEADERS | END_STREAM, 1, &block);
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
