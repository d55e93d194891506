//! Clients that leave and upstreams that reset are ordinary: they write no line at level error, or the log would hide real faults.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::{BODY, MODEL, assert_no_reload, converse, path_of, records, send};
use crate::harness::{Harness, Keys, text_of};

/// How many streams are cut.
const STREAMS: u64 = 200;
/// How long clients stay at most, in microseconds: half of them leave while their call is on its way through the gateway.
const STAY_US: [u64; 2] = [8_000, 400_000];
/// Streams that end, that drip, that do not begin, and those that their upstream resets.
const MODELS: [&str; 5] = [MODEL, "fault.drip-20ms", "fault.slow-60s", "fault.reset-midstream", "fault.drip-500ms"];

/// A sequence without a pattern, the same in each run (xorshift).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Calls, and leaves after a while: in the middle of its request, before the answer, or in the middle of the answer.
fn leave(address: &str, number: u64) {
    let mut random = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let model = MODELS[usize::try_from(number).unwrap() % MODELS.len()];
    let head = format!(
        "POST /model/{model}/converse-stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        BODY.len()
    );
    let request = head + BODY;
    let mut stream = TcpStream::connect(address).unwrap();
    let part = if number.is_multiple_of(7) { request.len() - 5 } else { request.len() };
    let _ = stream.write_all(&request.as_bytes()[..part]);
    let longest = STAY_US[usize::from(next(&mut random).is_multiple_of(2))];
    let stay = Duration::from_micros(1 + next(&mut random) % longest);
    stream.set_read_timeout(Some(stay)).unwrap();
    if next(&mut random).is_multiple_of(2) {
        let _ = stream.read(&mut [0; 16]);
    } else {
        std::thread::sleep(stay);
    }
    // Some say that they are done and wait a moment; the others leave what has come unread, which resets the connection.
    if next(&mut random).is_multiple_of(3) {
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0; 4096]);
    }
}

fn errors(harness: &Harness) -> Vec<String> {
    let log = text_of(&harness.gateway.run_dir().join("envoy.log"));
    assert!(!log.is_empty(), "no log");
    log.lines().filter(|line| line.contains("[error]") || line.contains("[critical]")).map(str::to_owned).collect()
}

fn leaves_no_error_line(keys: Keys) {
    let harness = Harness::new(keys, &["dx", "vpn"], |double| double, &[]);
    let address = harness.gateway.http.strip_prefix("http://").unwrap();
    std::thread::scope(|scope| {
        for number in 0..STREAMS {
            scope.spawn(move || leave(address, number));
        }
    });
    // On a busy machine health checks can be late, too.
    let call = converse(&path_of(MODEL), "content-type: application/json\r\n");
    crate::harness::eventually("the neighbour's call", || (send(&harness, &call).status == 200).then_some(()));
    records(&harness, usize::try_from(STREAMS).unwrap() + 1);
    assert_eq!(errors(&harness), Vec::<String>::new());
    assert_no_reload(&harness);
    harness.assert_no_violation();
}

#[test]
fn clients_that_leave_write_no_error_line() {
    leaves_no_error_line(Keys::LongLived);
}

#[test]
fn leaving_with_an_api_key_writes_no_error() {
    leaves_no_error_line(Keys::Api);
}
