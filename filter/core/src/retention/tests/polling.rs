//! Polls of data retention.

use super::*;
use crate::envoy_names::RELAY_HEADER;
use crate::operation::Operation;
use crate::retention::poll::{RetentionPoll, RetentionPollError};
use crate::testing::{context, forwarded, keys};

fn new(policy: &Policy) -> RetentionPoll {
    RetentionPoll::new(place("us-east-1"), policy)
}

/// The path of the poll's next call, which the signer signs for the region, whatever is known of its retention.
fn path(poll: &RetentionPoll, policy: &Policy) -> String {
    let next = poll.call("the-id", policy).unwrap();
    assert_eq!((next.call.cluster.as_str(), next.call.headers.get_str(RELAY_HEADER)), ("polls", Some("the-id")));
    assert_eq!(next.relayed.cluster, "bedrock.any.only-us-east-1");
    let (handoff, keys) = (next.relayed.handoff, keys());
    let step =
        crate::testing::attempt(&next.call.headers, Some(&handoff), Some(b"us-east-1"), context(policy, Some(&keys)));
    let signed = forwarded(step).headers;
    assert_eq!(signed.get_str(":authority"), Some("bedrock.us-east-1.amazonaws.com"));
    signed.get_str(":path").unwrap().to_owned()
}

fn answered(poll: &mut RetentionPoll, body: &Value) -> Result<Option<Settings>, RetentionPollError> {
    poll.answered(Some((200, Ok(body.to_string().as_bytes()))))
}

fn project(id: &str, mode: &str) -> Value {
    json!({
        "id": id, "arn": format!("arn:aws:bedrock:us-east-1:111122223333:project/{id}"), "name": "A \"name\"",
        "status": "active", "createdAt": "2026-01-02T03:04:05Z", "dataRetention": {"mode": mode},
    })
}

#[test]
fn a_poll_reads_account_and_projects() {
    let projects = json!({"data_retention": {"cluster": "polls", "projects": {"us-east-1": ["proj_a", "proj_b"]}}});
    let policy = policy("none", &["us-east-1", "us-west-2"], projects);
    let mut poll = new(&policy);
    assert_eq!(path(&poll, &policy), "/data-retention");
    assert_eq!(answered(&mut poll, &json!({"mode": "inherit", "updatedAt": "2026-01-02T03:04:05Z"})), Ok(None));
    assert_eq!(path(&poll, &policy), "/projects/default");
    assert_eq!(answered(&mut poll, &project("default", "a_mode_of_tomorrow")), Ok(None));
    assert_eq!(path(&poll, &policy), "/projects/proj_a");
    // A region may lack a project.
    assert_eq!(poll.answered(Some((404, Ok(b"{}")))), Ok(None));
    assert_eq!(path(&poll, &policy), "/projects/proj_b");
    let read = answered(&mut poll, &project("proj_b", "none")).unwrap().unwrap();
    assert_eq!(read, settings("inherit", &[("default", "a_mode_of_tomorrow"), ("proj_b", "none")]));
    assert_eq!(Settings::read(&read.write()), Some(read));
}

#[test]
fn refuses_an_answer_without_a_mode() {
    let policy = policy("none", &["us-east-1"], json!({}));
    for body in ["", "<html>", "[]", "{}", r#"{"mode":null}"#, r#"{"mode":""}"#, r#"{"mode":"a b"}"#] {
        let error = new(&policy).answered(Some((200, Ok(body.as_bytes())))).unwrap_err();
        assert_eq!(error, RetentionPollError::Unreadable(Operation::GetAccountDataRetention), "{body}");
    }
    let long = json!({"mode": "m".repeat(65)});
    assert!(answered(&mut new(&policy), &long).is_err());
    for (answer, words) in [
        (None, "GetAccountDataRetention: no answer"),
        (Some((500, Ok(&b""[..]))), "GetAccountDataRetention: answered 500"),
        (Some((404, Ok(b""))), "GetAccountDataRetention: answered 404"),
        (Some((403, Ok(b""))), "the IAM action bedrock:GetAccountDataRetention"),
        (Some((200, Err(1 << 20))), "the answer has 1048576 bytes"),
    ] {
        let error = new(&policy).answered(answer).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let second = || {
        let mut poll = new(&policy);
        assert_eq!(answered(&mut poll, &json!({"mode": "none"})), Ok(None));
        poll
    };
    // Another project, and none: every account has the default one.
    for body in [project("other", "none"), json!({"id": "default"}), json!({"mode": "none"})] {
        let error = answered(&mut second(), &body).unwrap_err();
        assert_eq!(error, RetentionPollError::Unreadable(Operation::GetProject), "{body}");
    }
    let error = second().answered(Some((404, Ok(b"")))).unwrap_err().to_string();
    assert_eq!(error, "GetProject: answered 404");
    let error = second().answered(Some((403, Ok(b"")))).unwrap_err().to_string();
    assert!(error.contains("the IAM action bedrock:GetProject"), "{error}");
}

#[test]
fn each_account_is_polled_where_it_is_used() {
    let class = |name: &str, regions: Value, more: Value| {
        let mut class = json!({"name": name, "paths": ["dx"], "regions": regions});
        class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        class
    };
    let document = json!({
        "credential_sets": {"other": {"source": "environment"}},
        "route_classes": [
            class("free", json!(["us-east-1", "us-west-2", "eu-west-1"]), json!({})),
            class("zero", json!(["us-west-2", "us-east-1"]), json!({"retention": "none"})),
            class("same", json!(["us-east-1"]), json!({"retention": "same", "credentials": "other"})),
        ],
    });
    let policy = policy("none", &["us-east-1", "us-west-2", "eu-west-1"], document);
    let rules = policy.retention.as_ref().unwrap();
    let places: Vec<(&str, &str)> =
        rules.places().map(|place| (place.source.as_str(), place.region.as_str())).collect();
    assert_eq!(places, [("default", "us-east-1"), ("default", "us-west-2"), ("other", "us-east-1")]);
    let call = |place: &Place| RetentionPoll::new(place.clone(), &policy).call("x", &policy).unwrap().relayed.class;
    assert_eq!(rules.places().map(call).collect::<Vec<_>>(), ["zero", "zero", "same"]);
}
