//! A header of Bedrock's that is newer than the gateway: boto3 sends it as a later version of it would.

use crate::clients::{assert_all_answered, call, python};
use crate::harness::{Harness, Keys, policy};
use crate::pool::pooled;

const HEADER: &str = "x-amzn-bedrock-new";
const OPERATIONS: [&str; 4] = ["Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"];

#[test]
fn a_new_header_is_refused_by_name() {
    let harness = pooled();
    let calls = python("new_header", &harness.gateway.http);
    for name in OPERATIONS {
        let error = &call(&calls, name)["error"];
        assert_eq!((&error["class"], &error["status"]), (&"ValidationException".into(), &400.into()), "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(HEADER) && message.contains("`headers.allow`"), "{message}");
    }
    assert!(harness.received().is_empty());
}

#[test]
fn an_allowed_header_is_signed_and_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let policy = policy(dir.path(), "\nregions:\n", "\nheaders: { allow: [X-Amzn-Bedrock-New] }\nregions:\n");
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--policy", &policy]);
    assert_all_answered(&python("new_header", &harness.gateway.http));
    let received = harness.received();
    assert_eq!(received.len(), OPERATIONS.len());
    for request in received {
        assert_eq!(request.header(HEADER), Some("1"), "{request:?}");
        let signature = request.header("authorization").unwrap();
        let signed = signature.split("SignedHeaders=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
        assert!(signed.split(';').any(|name| name == HEADER), "{signed}");
    }
    harness.assert_no_violation();
}
