//! Decodes each case of `fixtures/decode`. `line.json` is a line of the file and `als.bin` the gRPC entry of the same
//! exchange; in cases with an `als.bin`, Envoy 1.40 wrote both. `record.json` is the record, without null fields;
//! `error.txt` is the start of the error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

use std::fs;
use std::path::Path;

use audit::AuditRecord;
use audit_collector::decode;
use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogType, HttpAccessLogEntry};
use prost::Message;

fn case(name: &str, file: &str) -> Option<Vec<u8>> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode").join(name).join(file)).ok()
}

fn cases() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode");
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn lines_give_their_record_or_error() {
    assert!(cases().len() >= 20, "fixtures are missing");
    for name in cases() {
        let line = case(&name, "line.json").unwrap();
        match (decode::line::record(line.trim_ascii_end()), case(&name, "record.json"), case(&name, "error.txt")) {
            (Ok(record), Some(wanted), None) => {
                // A new field must not change the fixtures.
                assert!(!wanted.windows(4).any(|text| text == b"null"), "{name}: leave out null fields");
                let wanted: AuditRecord = serde_json::from_slice(&wanted).unwrap();
                assert_eq!(record, wanted, "{name}");
            }
            (Err(error), None, Some(wanted)) => {
                let wanted = String::from_utf8(wanted).unwrap();
                assert!(error.to_string().starts_with(wanted.trim_end()), "{name}: {error}");
            }
            (result, ..) => panic!("{name}: {result:?}"),
        }
    }
}

#[test]
fn both_sources_give_the_same_record() {
    let mut seen = 0;
    for name in cases() {
        let Some(bytes) = case(&name, "als.bin") else { continue };
        let entry = HttpAccessLogEntry::decode(bytes.as_slice()).unwrap();
        assert!(decode::als::finished(&entry), "{name}");
        let wanted: AuditRecord = serde_json::from_slice(&case(&name, "record.json").unwrap()).unwrap();
        assert_eq!(decode::als::record(&entry).unwrap(), wanted, "{name}");

        // Without the tag, the flags come from the message's own field.
        let mut untagged = entry.clone();
        untagged.common_properties.as_mut().unwrap().custom_tags.remove("flags");
        assert_eq!(decode::als::record(&untagged).unwrap(), wanted, "{name} without the tag");
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn only_the_end_of_a_request_is_finished() {
    let mut entry = HttpAccessLogEntry::decode(case("answered", "als.bin").unwrap().as_slice()).unwrap();
    for kind in [AccessLogType::DownstreamStart, AccessLogType::DownstreamPeriodic, AccessLogType::UpstreamEnd] {
        entry.common_properties.as_mut().unwrap().access_log_type = kind as i32;
        assert!(!decode::als::finished(&entry), "{kind:?}");
    }
}

#[test]
fn refuses_filter_state_of_an_unknown_type() {
    let mut entry = HttpAccessLogEntry::decode(case("answered", "als.bin").unwrap().as_slice()).unwrap();
    for state in entry.common_properties.as_mut().unwrap().filter_state_objects.values_mut() {
        state.type_url = "type.googleapis.com/google.protobuf.Struct".to_owned();
    }
    let error = decode::als::record(&entry).unwrap_err().to_string();
    assert_eq!(error, r#"filter state wasm.bedrock.exchange has type "type.googleapis.com/google.protobuf.Struct""#);
}
