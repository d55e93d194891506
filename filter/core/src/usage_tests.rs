//! Against the event streams in `host-tests/vectors/eventstream` (`manifest.json` says what each holds).

use super::*;

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../host-tests/vectors/eventstream/{name}.bin", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

fn stream(bytes: &[u8], piece: usize) -> Reading {
    let mut meter =
        Meter::start(Metering::EventStream, 200, &headers(&[("content-type", "application/vnd.amazon.eventstream")]));
    for piece in bytes.chunks(piece) {
        meter.feed(piece);
    }
    meter.reading(true)
}

fn usage(input: u64, output: u64, cache_read: Option<u64>, cache_write: Option<u64>) -> Usage {
    Usage { input: Some(input), output: Some(output), cache_read, cache_write }
}

#[test]
fn streams_are_read_in_any_chunks() {
    for (name, wanted, error) in [
        ("converse_stream", usage(9, 3, Some(0), Some(0)), None),
        ("converse_stream_throttled_midway", Usage::default(), Some("ThrottlingException")),
        ("truncated_no_metadata", Usage::default(), Some("EventStreamTruncated")),
        ("bad_prelude_crc", Usage::default(), Some("EventStreamBadPreludeCrc")),
        ("bad_message_crc", Usage::default(), Some("EventStreamBadMessageCrc")),
    ] {
        let bytes = vector(name);
        for piece in 1..=bytes.len() {
            let reading = stream(&bytes, piece);
            assert_eq!((reading.usage, reading.error.as_deref()), (wanted, error), "{name} in pieces of {piece}");
        }
    }
}

#[test]
fn the_last_chunks_metrics_count() {
    let bytes = vector("invoke_stream_anthropic");
    for piece in 1..=bytes.len() {
        let reading = stream(&bytes, piece);
        assert_eq!((reading.usage.input, reading.usage.output, reading.error), (Some(9), Some(3), None), "{piece}");
    }
}

#[test]
fn a_stream_may_end_between_frames_only() {
    let bytes = vector("converse_stream");
    assert_eq!(stream(&bytes[..bytes.len() - 1], 64).error.as_deref(), Some("EventStreamTruncated"));
    assert_eq!(stream(&[], 1).error, None);
}

#[test]
fn garbage_is_named_and_harmless() {
    for byte in 0..=255_u8 {
        let reading = stream(&[byte; 300], 7);
        assert_eq!(reading.usage, Usage::default());
        assert!(reading.error.is_some());
    }
    // A frame that says it is 4 GiB long, with a right CRC.
    let mut prelude = [u32::MAX.to_be_bytes(), 0_u32.to_be_bytes()].concat();
    prelude.extend(crc32fast::hash(&prelude).to_be_bytes());
    assert_eq!(stream(&prelude, 5).error.as_deref(), Some("EventStreamBadLength"));
}

#[test]
fn headers_win_over_the_body() {
    let response = headers(&[
        ("content-type", "application/json"),
        ("x-amzn-bedrock-input-token-count", "12"),
        ("x-amzn-bedrock-output-token-count", "34"),
        ("x-amzn-bedrock-cache-read-input-token-count", "5"),
    ]);
    let meter = Meter::start(Metering::Json, 200, &response);
    assert!(!meter.wants_body());
    assert_eq!(meter.reading(true).usage, usage(12, 34, Some(5), None));
}

#[test]
fn bodies_are_read_in_every_providers_form() {
    for (body, wanted) in [
        (
            r#"{"output":{"message":{"content":[{"text":"\"usage\":{\"inputTokens\":1}"}]}},"usage":{"inputTokens":9,"outputTokens":3,"totalTokens":12,"cacheReadInputTokens":4}}"#,
            usage(9, 3, Some(4), None),
        ),
        (
            r#"{"usage":{"input_tokens":1,"output_tokens":2,"cache_creation_input_tokens":3,"cache_read_input_tokens":4}}"#,
            usage(1, 2, Some(4), Some(3)),
        ),
        (r#"{"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11}}"#, usage(5, 6, None, None)),
        (r#"{"results":[]}"#, Usage::default()),
    ] {
        let mut meter = Meter::start(Metering::Json, 200, &headers(&[("content-type", "application/json")]));
        assert!(meter.wants_body());
        meter.feed(body.as_bytes());
        assert_eq!(meter.reading(true), Reading { usage: wanted, error: None });
    }
}

#[test]
fn errors_and_free_calls_are_not_read() {
    let json = headers(&[("content-type", "application/json")]);
    assert!(!Meter::start(Metering::Json, 429, &json).wants_body());
    assert!(!Meter::start(Metering::Free, 200, &json).wants_body());
}

#[test]
fn no_content_type_means_the_operations_own() {
    let mut meter = Meter::start(Metering::Json, 200, &Headers::default());
    meter.feed(br#"{"usage":{"inputTokens":1,"outputTokens":2}}"#);
    assert_eq!(meter.reading(true).usage, usage(1, 2, None, None));
    let mut meter = Meter::start(Metering::EventStream, 200, &Headers::default());
    meter.feed(&vector("converse_stream"));
    assert_eq!(meter.reading(true).usage.input, Some(9));
    assert!(!Meter::start(Metering::Json, 200, &headers(&[("content-type", "text/html")])).wants_body());
}
