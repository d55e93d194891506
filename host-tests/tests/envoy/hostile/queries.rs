//! Parameters of the query: only those of the operation cross, each once.

use super::{Case, MODEL, converse, path_of, try_all};
use crate::harness::{Harness, Keys};

const INVALID: &str = "ValidationException";
/// What a client must not get across, nor back.
const MARK: &str = "must-not-cross";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

#[test]
fn other_parameters_are_refused_by_name() {
    let harness = Harness::lone(Keys::LongLived);
    let presigned = "does not accept presigned urls";
    let quotes = "\"".repeat(30_000);
    let refused = |query: &str, message: &'static str| {
        Case::new(query.chars().take(40).collect::<String>(), get(&format!("/foundation-models?{query}")), 400, INVALID)
            .says(message)
    };
    let post = |query: &str, message: &'static str| {
        Case::new(query, converse(&format!("{}?{query}", path_of(MODEL)), ""), 400, INVALID).says(message)
    };
    let cases = [
        Case::new("known", get("/foundation-models?byProvider=Amazon&byOutputModality=TEXT"), 200, ""),
        Case::new("none", get("/foundation-models?"), 200, ""),
        refused(&format!("X-Amz-Security-Token={MARK}"), presigned),
        refused(&format!("x-amz-credential={MARK}"), presigned),
        refused(&format!("%58-Amz-Signature={MARK}"), presigned),
        refused(&format!("byProvider=Amazon&X-Amz-Algorithm={MARK}"), presigned),
        refused(&format!("AWSAccessKeyId={MARK}"), presigned),
        refused(&format!("nextToken={MARK}"), "'nexttoken', which the operation does not have"),
        refused(&format!("byprovider={MARK}"), "'byprovider', which the operation does not have"),
        refused(&format!("Action={MARK}"), "'action', which the operation does not have"),
        refused(&format!("{MARK}%20{MARK}=1"), "has a parameter, which"),
        refused(&format!("={MARK}"), "has a parameter, which"),
        refused(&format!("byProvider={MARK}&byProvider={MARK}"), "'byprovider' more than once"),
        refused("byProvider=%", "malformed"),
        refused("byProvider=%ff", "malformed"),
        refused(&format!("byProvider={quotes}"), "less than or equal to 2048"),
        refused(&quotes, "has a parameter, which"),
        refused(&format!("a={quotes}"), "'a', which the operation does not have"),
        post(&format!("X-Amz-Security-Token={MARK}"), presigned),
        post(&format!("nextToken={MARK}"), "'nexttoken', which the operation does not have"),
    ];
    for (case, answer) in cases.iter().zip(try_all(&harness, &cases)) {
        assert!(!format!("{answer:?}").contains(MARK), "{}: {answer:?}", case.name);
    }
    assert!(harness.received().iter().all(|request| !request.query.contains(MARK)));
}
