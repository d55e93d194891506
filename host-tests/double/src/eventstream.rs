//! Frames of `application/vnd.amazon.eventstream`, written with their two CRC-32s.
//!
//! A frame: total length, length of headers, CRC of those eight bytes (all u32, big endian); headers; payload; CRC of all
//! before it. A header: u8 length of name, name, u8 type (7: string), u16 length of value, value.

/// A frame with string headers, in their order.
#[must_use]
pub fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        // Names and values here are the double's own, far below these limits.
        head.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let total = 12 + head.len() + payload.len() + 4;
    let mut out = Vec::with_capacity(total);
    for length in [total, head.len()] {
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

/// An event of a service's stream.
#[must_use]
pub fn event(event_type: &str, payload: &[u8]) -> Vec<u8> {
    frame(&[(":event-type", event_type), (":content-type", "application/json"), (":message-type", "event")], payload)
}

/// A modelled exception in the middle of a stream, after which nothing follows.
#[must_use]
pub fn exception(exception_type: &str, payload: &[u8]) -> Vec<u8> {
    frame(
        &[(":exception-type", exception_type), (":content-type", "application/json"), (":message-type", "exception")],
        payload,
    )
}

/// The same frame with one bit of its last CRC turned.
#[must_use]
pub fn with_bad_crc(mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(last) = frame.last_mut() {
        *last ^= 1;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/../vectors/eventstream/{name}.bin", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn written(events: &serde_json::Value) -> Vec<u8> {
        let mut out = Vec::new();
        for one in events.as_array().unwrap() {
            let payload = one["payload"].as_str().unwrap().as_bytes();
            let header = |name: &str| one["headers"][name].as_str();
            out.extend(match (header(":event-type"), header(":exception-type")) {
                (Some(name), _) => event(name, payload),
                (_, Some(name)) => exception(name, payload),
                _ => panic!("neither event nor exception"),
            });
        }
        out
    }

    #[test]
    fn writes_the_vectors_byte_for_byte() {
        let manifest: serde_json::Value = serde_json::from_slice(
            &std::fs::read(format!("{}/../vectors/eventstream/manifest.json", env!("CARGO_MANIFEST_DIR"))).unwrap(),
        )
        .unwrap();
        for name in ["converse_stream", "converse_stream_throttled_midway", "invoke_stream_anthropic"] {
            assert_eq!(written(&manifest[name]["events"]), vector(name), "{name}");
        }
        // The truncated one ends within its next frame.
        let whole = written(&manifest["truncated_no_metadata"]["events"]);
        let truncated = vector("truncated_no_metadata");
        assert!(truncated.starts_with(&whole) && truncated.len() > whole.len());
    }

    #[test]
    fn a_bad_crc_is_bad_in_its_last_bit_only() {
        let good = event("x", b"{}");
        let bad = with_bad_crc(good.clone());
        assert_eq!(good.len(), bad.len());
        assert_eq!(good[..good.len() - 1], bad[..bad.len() - 1]);
        assert_ne!(good, bad);
    }
}
