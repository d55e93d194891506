//! A batch job whose connection is reset: Envoy sends the call again, and Bedrock may have taken the first one.

use std::time::Duration;

use bedrock_double::PathFault::{Delay, Reset};
use bedrock_double::Received;
use serde_json::Value;

use crate::clients::{assert_all_answered, python};
use crate::harness::{Harness, Keys, eventually, policy};
use crate::istio::pod::wait_for_paths;

/// The hashes of the bodies of jobs that a double got.
fn jobs(harness: &Harness, double: usize) -> Vec<String> {
    let is_job = |request: &Received| request.operation.as_deref() == Some("CreateModelInvocationJob");
    let requests = harness.doubles[double].requests();
    requests.into_iter().filter(is_job).map(|request| request.body_sha256).collect()
}

fn text(call: &Value, key: &str) -> String {
    call[key].as_str().unwrap().to_owned()
}

#[test]
fn a_job_that_is_sent_twice_has_one_token() {
    let dir = tempfile::tempdir().unwrap();
    let policy = policy(dir.path(), "\nregions:\n", "\noptional_operations: [batch_jobs]\nregions:\n");
    let harness = Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &["--policy", &policy]);
    wait_for_paths(|page| harness.gateway.admin(page));
    // The first path takes the job, and its answer is lost.
    harness.doubles[0].set_fault(Delay(Duration::from_secs(60)));
    let url = harness.gateway.http.clone();
    let client = std::thread::spawn(move || python("job", &url));
    eventually("the job", || (!jobs(&harness, 0).is_empty()).then_some(()));
    harness.doubles[0].set_fault(Reset);
    let first = client.join().unwrap();
    assert_all_answered(&first);
    let sent = [text(&first[0], "sha256")];
    assert_eq!((jobs(&harness, 0).as_slice(), jobs(&harness, 1).as_slice()), (&sent[..], &sent[..]));

    // Another job of the same arguments has another token: the body has it, and the gateway does not change it.
    let second = python("job", &harness.gateway.http);
    assert_all_answered(&second);
    assert_ne!(text(&first[0], "token"), text(&second[0], "token"));
    assert_eq!(jobs(&harness, 1), [text(&first[0], "sha256"), text(&second[0], "sha256")]);
    harness.assert_no_violation();
}
