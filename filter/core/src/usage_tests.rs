//! Against the event streams in `host-tests/vectors/eventstream` (`manifest.json` says what each holds).

use super::*;

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../host-tests/vectors/eventstream/{name}.bin", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

fn stream(bytes: &[u8], piece: usize) -> Reading {
    let mut meter = Meter::start(
        Metering::EventStream,
        200,
        &headers(&[("content-type", "application/vnd.amazon.eventstream")]),
        false,
    );
    for piece in bytes.chunks(piece) {
        meter.feed(piece);
    }
    meter.reading(true)
}

fn usage(input: u64, output: u64, cache_read: Option<u64>, cache_write: Option<u64>) -> Usage {
    Usage { input: Some(input), output: Some(output), cache_read, cache_write, ..Usage::default() }
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
    let meter = Meter::start(Metering::Json, 200, &response, false);
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
        let mut meter = Meter::start(Metering::Json, 200, &headers(&[("content-type", "application/json")]), false);
        assert!(meter.wants_body());
        meter.feed(body.as_bytes());
        assert_eq!(meter.reading(true), Reading { usage: wanted, ..Reading::default() });
    }
}

#[test]
fn errors_and_free_calls_are_not_read() {
    let json = headers(&[("content-type", "application/json")]);
    assert!(!Meter::start(Metering::Json, 429, &json, false).wants_body());
    assert!(!Meter::start(Metering::Free, 200, &json, false).wants_body());
}

#[test]
fn no_content_type_means_the_operations_own() {
    let mut meter = Meter::start(Metering::Json, 200, &Headers::default(), false);
    meter.feed(br#"{"usage":{"inputTokens":1,"outputTokens":2}}"#);
    assert_eq!(meter.reading(true).usage, usage(1, 2, None, None));
    let mut meter = Meter::start(Metering::EventStream, 200, &Headers::default(), false);
    meter.feed(&vector("converse_stream"));
    assert_eq!(meter.reading(true).usage.input, Some(9));
    assert!(!Meter::start(Metering::Json, 200, &headers(&[("content-type", "text/html")]), false).wants_body());
}

fn json(body: &str, response: &[(&str, &str)], traced: bool, piece: usize) -> Reading {
    let mut meter = Meter::start(Metering::Json, 200, &headers(response), traced);
    if meter.wants_body() {
        body.as_bytes().chunks(piece).for_each(|piece| meter.feed(piece));
    }
    meter.reading(true)
}

#[test]
fn cache_writes_are_counted_by_their_time() {
    let converse = r#"{"usage":{"inputTokens":1,"outputTokens":2,"cacheWriteInputTokens":60,"cacheDetails":[
        {"ttl":"5m","inputTokens":10},{"inputTokens":20,"ttl":"1h"},{"ttl":"1h","inputTokens":30},{"ttl":"2d","inputTokens":9}]}}"#;
    for piece in [1, 2, 3, 7, 1000] {
        let usage = json(converse, &[], false, piece).usage;
        assert_eq!((usage.cache_write, usage.cache_write_5m, usage.cache_write_1h), (Some(60), Some(10), Some(50)));
    }
    let anthropic = r#"{"usage":{"input_tokens":1,"output_tokens":2,"cache_creation_input_tokens":30,
        "cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20}}}"#;
    let counted = [
        ("x-amzn-bedrock-input-token-count", "1"),
        ("x-amzn-bedrock-output-token-count", "2"),
        ("x-amzn-bedrock-cache-write-input-token-count", "30"),
    ];
    for response in [&[][..], &counted] {
        let usage = json(anthropic, response, false, 5).usage;
        assert_eq!((usage.cache_write, usage.cache_write_5m, usage.cache_write_1h), (Some(30), Some(10), Some(20)));
    }
    // Nothing is written: the body says nothing more.
    assert_eq!(json(anthropic, &counted[..2], false, 5).usage.cache_write, None);
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":1,"cache_creation":{"ephemeral_1h_input_tokens":4}}}}"#;
    assert_eq!(json(start, &[], false, 9).usage.cache_write_1h, Some(4));
}

const USAGE: &str = r#""usage":{"topicPolicyUnits":1,"contentPolicyUnits":2,"wordPolicyUnits":9,"sensitiveInformationPolicyUnits":3,
    "sensitiveInformationPolicyFreeUnits":9,"contextualGroundingPolicyUnits":4,"contentPolicyImageUnits":5,
    "automatedReasoningPolicyUnits":6,"automatedReasoningPolicies":1}"#;

fn units(times: u64) -> GuardrailUnits {
    let some = |units| Some(units * times);
    GuardrailUnits {
        topic: some(1),
        content: some(2),
        sensitive: some(3),
        grounding: some(4),
        image: some(5),
        reasoning: some(6),
    }
}

#[test]
fn guardrails_units_are_added_up() {
    let metrics = format!(r#"{{"invocationMetrics":{{"guardrailProcessingLatency":7,{USAGE}}}}}"#);
    let converse = format!(
        r#"{{"trace":{{"guardrail":{{"inputAssessment":{{"gr1":{metrics}}},"outputAssessments":{{"gr1":[{metrics},{metrics}]}}}}}},
        "usage":{{"inputTokens":8}}}}"#
    );
    let invoke = format!(
        r#"{{"usage":{{"input_tokens":8}},"other":{metrics},"amazon-bedrock-trace":{{"guardrail":{{"input":{{"gr1":{metrics}}},"outputs":[{{"gr1":{metrics}}}]}}}}}}"#
    );
    for (body, times) in [(&converse, 3), (&invoke, 2)] {
        for piece in [1, 13, 5000] {
            let reading = json(body, &[], false, piece);
            assert_eq!((reading.guardrail, reading.usage.input), (units(times), Some(8)), "{body}");
        }
    }
    // With counts in headers the body is read for a trace only.
    let counted = [("x-amzn-bedrock-input-token-count", "8")];
    assert_eq!(json(&invoke, &counted, true, 9).guardrail, units(2));
    assert!(json(&invoke, &counted, false, 9).guardrail.is_empty());
    let apply = format!(r#"{{{USAGE},"action":"NONE","assessments":[{metrics}]}}"#);
    let mut meter = Meter::start(Metering::Guardrail, 200, &Headers::default(), false);
    meter.feed(apply.as_bytes());
    let reading = meter.reading(true);
    assert_eq!((reading.guardrail, reading.usage, meter.estimate(9, true)), (units(1), Usage::default(), None));
}

#[test]
fn tier_mode_and_routed_model_are_read() {
    let model = "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-sonnet-4";
    let body = format!(
        r#"{{"output":{{"serviceTier":{{"type":"no"}}}},"serviceTier":{{"type":"flex"}},"performanceConfig":{{"latency":"optimized"}},
        "trace":{{"promptRouter":{{"invokedModelId":"{model}"}}}}}}"#
    );
    let some = |text: &str| Some(text.to_owned());
    for piece in [1, 4, 5000] {
        let reading = json(&body, &[], false, piece);
        assert_eq!(reading.served, Serving { tier: some("flex"), latency: some("optimized") });
        assert_eq!(reading.invoked.as_deref(), Some(model));
    }
    let response =
        [("x-amzn-bedrock-service-tier", "priority"), ("x-amzn-bedrock-performanceconfig-latency", "standard")];
    let served = json("{}", &response, false, 9).served;
    assert_eq!(served, Serving { tier: some("priority"), latency: some("standard") });
    // Neither long nor strange text is kept.
    let long =
        format!(r#"{{"serviceTier":{{"type":"{}"}},"performanceConfig":{{"latency":"a\u202eb"}}}}"#, "x".repeat(5000));
    assert!(json(&long, &[], false, 100).served.is_empty());
    let metadata = format!(
        r#"{{"usage":{{"inputTokens":1}},"serviceTier":{{"type":"flex"}},"trace":{{"promptRouter":{{"invokedModelId":"{model}"}}}}}}"#
    );
    let event =
        |name, json: &str| eventstream::frame(&[(":message-type", "event"), (":event-type", name)], json.as_bytes());
    let reading = stream(&event("metadata", &metadata), 3);
    assert_eq!((reading.served.tier, reading.invoked.as_deref()), (some("flex"), Some(model)));
}

#[test]
fn a_stream_without_its_end_is_incomplete() {
    let event =
        |name, json: &str| eventstream::frame(&[(":message-type", "event"), (":event-type", name)], json.as_bytes());
    let (text, stop) = (event("contentBlockDelta", "{}"), event("messageStop", r#"{"stopReason":"end_turn"}"#));
    let (complete, incomplete) = (Some(StreamOutcome::Complete), Some(StreamOutcome::Incomplete));
    for (bytes, wanted) in [
        (text.clone(), incomplete),
        ([text.clone(), stop.clone()].concat(), complete),
        (stop[..stop.len() - 1].to_vec(), incomplete),
        (Vec::new(), incomplete),
        (vector("converse_stream"), complete),
        (vector("invoke_stream_anthropic"), complete),
        (vector("truncated_no_metadata"), incomplete),
        (vector("converse_stream_throttled_midway"), incomplete),
    ] {
        assert_eq!(stream(&bytes, 50).stream, wanted);
    }
    assert_eq!(json("{}", &[], false, 9).stream, None);
}

/// Knowledge bases' streams have no counts, and no event that ends them.
#[test]
fn a_stream_without_counts_is_whole_at_its_end() {
    let headers = headers(&[("content-type", "application/vnd.amazon.eventstream")]);
    let event = [(":message-type", "event"), (":event-type", "output"), (":content-type", "application/json")];
    let frame = eventstream::frame(&event, b"{\"text\":\"a\"}");
    let mut meter = Meter::start(Metering::UncountedStream, 200, &headers, false);
    assert!(meter.reads_event_stream());
    meter.feed(&frame);
    assert_eq!(meter.reading(false).stream, Some(StreamOutcome::Incomplete));
    assert_eq!(meter.reading(true).stream, Some(StreamOutcome::Complete));
    assert_eq!((meter.estimate(100, true), meter.estimate(100, false)), (None, None));
    meter.feed(&frame[..9]);
    let cut = meter.reading(true);
    assert_eq!((cut.stream, cut.error.is_some()), (Some(StreamOutcome::Incomplete), true));
}
