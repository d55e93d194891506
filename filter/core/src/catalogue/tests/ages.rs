//! Lists that are too old for a class.

use super::choices::{client, cluster, send, signed};
use super::*;
use crate::testing::{Client, forwarded, refused};

/// A class whose lists may be two minutes old, and the operator's own profile of a model.
fn policy_of(regions: &[&str]) -> Policy {
    let class = json!({"name": "any", "paths": ["dx", "vpn"], "regions": regions, "catalogue_max_age_seconds": 120});
    policy(regions, json!({"route_classes": [class], "inference_profiles": {"own.m": "us.own.m"}}))
}

fn known() -> Offers {
    offers(&[("a.b", &["ON_DEMAND"])], &[])
}

fn assert_old(client: &mut Client, words: &[&str]) {
    let (status, error, message) = refused(send(client, "a.b", "converse"));
    assert_eq!((status, error), (503, "ServiceUnavailableException"), "{message}");
    words.iter().for_each(|word| assert!(message.contains(word), "{word}: {message}"));
}

#[test]
fn refuses_calls_by_lists_that_are_too_old() {
    let mut client = client(policy_of(&["us-east-1"]), &[("us-east-1", known())]);
    client.now = at(120);
    let forward = forwarded(send(&mut client, "a.b", "converse"));
    client.now = at(121);
    assert_old(&mut client, &["us-east-1 are 121 s old", "'any'", "at most 120 s", "`catalogue_max_age_seconds`"]);
    // So does the signer, if they grew old on the way.
    assert_eq!(refused(signed(&client, &forward, "us-east-1")).0, 503);
    // The lists say nothing of these.
    for (id, operation) in
        [("own.m", "converse"), ("us.own.m", "converse"), ("arn:aws:bedrock:us-east-1::foundation-model/a.b", "invoke")]
    {
        forwarded(send(&mut client, id, operation));
    }
    assert_eq!(refused(send(&mut client, "a.b", "count-tokens")).0, 503);
}

#[test]
fn refuses_lists_of_a_time_that_comes_again() {
    let (memory, polls, mut client) = (Memory::default(), Polls::new(1), client(policy_of(&["us-east-1"]), &[]));
    let (east, task) = (region("us-east-1"), task(&region("us-east-1"), Duration::from_secs(60)));
    assert!(polls.due(&task, &memory, at(5000)));
    polls.publish(&task, known().as_bytes(), &memory, at(5000));
    client.catalogue.follow([&east].into_iter(), &memory);
    client.now = at(5000);
    forwarded(send(&mut client, "a.b", "converse"));
    client.now = at(1000);
    assert_old(&mut client, &["us-east-1 have not been read yet"]);
    for seconds in [1000, 5000] {
        client.catalogue.look(&memory, at(seconds));
        client.now = at(seconds);
        assert_old(&mut client, &["us-east-1 have not been read yet"]);
    }
}

#[test]
fn refuses_calls_before_the_first_poll() {
    let mut client = client(policy_of(&["us-east-1"]), &[]);
    assert_old(&mut client, &["us-east-1 have not been read yet"]);
    let snapshot = json!({"us-east-1": {"on_demand": ["a.b"]}});
    let class = json!({"name": "any", "paths": ["dx"], "catalogue_max_age_seconds": 120});
    let catalogue = json!({"cluster": "polls", "refresh_seconds": 60, "snapshot": snapshot});
    let policy = policy(&["us-east-1"], json!({"route_classes": [class], "catalogue": catalogue}));
    assert_old(&mut choices::client(policy, &[]), &["have not been read yet"]);
}

#[test]
fn calls_go_where_the_lists_are_young() {
    let regions = ["us-east-1", "us-west-2"];
    let mut client = client(policy_of(&regions), &[]);
    client.catalogue = store_of([("us-east-1", &known(), 0), ("us-west-2", &known(), 100)].into_iter());
    client.now = at(110);
    assert_eq!(cluster(&forwarded(send(&mut client, "a.b", "converse"))), ".us-east-1");
    // No failover into the region with old lists.
    client.now = at(130);
    assert_eq!(cluster(&forwarded(send(&mut client, "a.b", "converse"))), ".only-us-west-2");
    client.now = at(300);
    assert_old(&mut client, &["us-east-1, us-west-2 are 300 s old"]);
}

#[test]
fn refuses_an_age_that_means_nothing() {
    let refused = |catalogue: Value, seconds: u32| {
        let class = json!({"name": "any", "paths": ["dx"], "catalogue_max_age_seconds": seconds});
        let mut document = json!({"role": "gateway", "regions": {"us-east-1": {}}, "route_classes": [class]});
        if !catalogue.is_null() {
            document["catalogue"] = catalogue;
        }
        let error = Policy::parse(document.to_string().as_bytes(), None).unwrap_err();
        assert_eq!(error.key, "route_classes[0].catalogue_max_age_seconds");
        error.to_string()
    };
    let polls = |seconds: u32| json!({"cluster": "polls", "refresh_seconds": seconds});
    assert!(refused(json!(null), 600).contains("needs `catalogue` with polls"));
    let snapshot = json!({"refresh_seconds": 0, "snapshot": {"us-east-1": {"on_demand": ["a.b"]}}});
    assert!(refused(snapshot, 600).contains("needs `catalogue` with polls"));
    assert!(refused(polls(300), 599).contains("from 600 (twice `catalogue.refresh_seconds`)"));
    assert!(refused(polls(300), 3_000_000).contains("to 2592000"));
}
