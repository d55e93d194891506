use super::*;
use crate::usage::eventstream::Frames;

const NAME: &str = "ServiceUnavailableException";
const MESSAGE: &str = "it broke off";

fn event(payload: usize) -> Vec<u8> {
    frame(&[(":message-type", "event"), (":event-type", "contentBlockDelta")], &vec![b'x'; payload])
}

/// The part of `bytes` that passes, given in pieces of `size`.
fn passed(guard: &mut FrameGuard, bytes: &[u8], size: usize) -> Vec<u8> {
    bytes.chunks(size).flat_map(|chunk| guard.feed(chunk)).collect()
}

#[test]
fn a_complete_stream_passes_unchanged() {
    let stream = [event(3), event(0), event(1000), event(MAX_HELD), event(7)].concat();
    for size in [1, 11, 12, 13, 4096, stream.len()] {
        let mut guard = FrameGuard::new(true, NAME);
        let mut all = passed(&mut guard, &stream, size);
        let StreamEnd::Complete(last) = guard.end(true, MESSAGE) else { panic!("complete") };
        all.extend(last);
        assert_eq!(all, stream, "in pieces of {size}");
    }
}

#[test]
fn a_frame_passes_once_it_is_complete() {
    let (first, second) = (event(10), event(20));
    let mut guard = FrameGuard::new(true, NAME);
    assert_eq!(guard.feed(&first), first);
    let (begin, rest) = second.split_at(second.len() - 1);
    assert_eq!(guard.feed(begin), b"");
    assert_eq!(guard.feed(rest), second);
}

#[test]
fn a_broken_stream_ends_with_an_exception() {
    let stream = [event(3), event(40), event(5)].concat();
    for cut in 0..=stream.len() {
        let mut guard = FrameGuard::new(true, NAME);
        let mut all = guard.feed(&stream[..cut]);
        let StreamEnd::Exception(exception) = guard.end(false, MESSAGE) else { panic!("exception, cut at {cut}") };
        all.extend(exception);
        let mut frames = Frames::default();
        frames.feed(&all);
        assert_eq!((frames.error(), frames.inside_frame()), (None, false), "cut at {cut}");
        assert_eq!(frames.exception(), Some("ServiceUnavailableException"), "cut at {cut}");
    }
}

#[test]
fn a_broken_long_frame_is_a_reset() {
    let (long, short) = (event(MAX_HELD + 1), event(1));
    let mut guard = FrameGuard::new(true, NAME);
    let begin = &long[..MAX_HELD];
    assert_eq!(passed(&mut guard, begin, 1 << 14), begin);
    assert!(guard.held.is_empty());
    assert_eq!(guard.end(false, MESSAGE), StreamEnd::Reset);
    let mut guard = FrameGuard::new(true, NAME);
    assert_eq!(passed(&mut guard, &[&long[..], &short].concat(), 1 << 14), [&long[..], &short].concat());
    assert!(matches!(guard.end(false, MESSAGE), StreamEnd::Exception(_)), "between frames again");
}

#[test]
fn a_broken_opaque_response_is_a_reset() {
    for mut guard in [FrameGuard::new(false, NAME), FrameGuard::new(true, NAME)] {
        assert_eq!(guard.feed(br#"{"message": "no frame, "#), br#"{"message": "no frame, "#);
        assert_eq!(guard.end(false, MESSAGE), StreamEnd::Reset);
        assert_eq!(guard.end(true, MESSAGE), StreamEnd::Complete(Vec::new()));
    }
}

#[test]
fn a_malformed_frame_loses_no_bytes() {
    let mut bad = event(9);
    bad[9] ^= 1;
    let stream = [event(1), bad, event(2)].concat();
    let mut guard = FrameGuard::new(true, NAME);
    assert_eq!(passed(&mut guard, &stream, 5), stream);
    assert_eq!(guard.end(false, MESSAGE), StreamEnd::Reset);
}

#[test]
fn the_exception_is_the_one_that_sdks_know() {
    let StreamEnd::Exception(bytes) = FrameGuard::new(true, NAME).end(false, "no \"answer\"") else {
        panic!("exception")
    };
    let text = String::from_utf8_lossy(&bytes);
    for part in [
        ":exception-type\u{7}\0\u{1b}serviceUnavailableException",
        ":message-type\u{7}\0\u{9}exception",
        r#"{"message":"no \"answer\""}"#,
    ] {
        assert!(text.contains(part), "{text:?}");
    }
}
