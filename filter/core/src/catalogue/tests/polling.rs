//! Polls, and how workers share them.

use super::*;
use crate::attempt::AttemptInput;
use crate::catalogue::poll::{Poll, PollError, class_of};
use crate::envoy_names::RELAY_HEADER;
use crate::testing::{context, forwarded, keys};

fn follow(store: &CatalogueStore, memory: &Memory) {
    store.follow([&region("us-east-1")].into_iter(), memory);
}

fn east() -> Task {
    task(&region("us-east-1"), Duration::from_secs(60))
}

/// The path of the poll's next call, which the signer signs for the region.
fn path(poll: &Poll, policy: &Policy) -> String {
    let next = poll.call("the-id", policy).unwrap();
    assert_eq!((next.call.cluster.as_str(), next.call.headers.get_str(RELAY_HEADER)), ("polls", Some("the-id")));
    assert_eq!(next.relayed.class, "any");
    let passed = next.call.headers.clone();
    let name = poll.region().as_str().as_bytes();
    let input =
        AttemptInput { handoff: Some(&next.relayed.handoff), previous: None, path: Some(b"dx"), region: Some(name) };
    let keys = keys();
    let step = crate::attempt::Attempt::default().request(&passed, input, context(policy, Some(&keys)));
    let signed = forwarded(step).headers;
    assert!(signed.get(RELAY_HEADER).is_none() && signed.get_str("authorization").is_some());
    assert_eq!(signed.get_str(":authority"), Some(format!("bedrock.{}.amazonaws.com", poll.region()).as_str()));
    assert_eq!(signed.get_str(":path"), next.call.headers.get_str(":path"));
    signed.get_str(":path").unwrap().to_owned()
}

fn answered(poll: &mut Poll, body: &str) -> Result<Option<Offers>, PollError> {
    poll.answered(Some((200, Ok(body.as_bytes()))))
}

#[test]
fn a_poll_reads_both_lists() {
    let policy = policy(&["us-east-1", "us-west-2"], json!({}));
    let mut poll = Poll::new(region("us-west-2"));
    assert_eq!(path(&poll, &policy), "/foundation-models");
    assert_eq!(poll.call("x", &policy).unwrap().relayed.cluster, "bedrock.any.only-us-west-2");
    assert_eq!(answered(&mut poll, &models(&[("a.b", &["ON_DEMAND"]), ("c.d", &[])])), Ok(None));
    assert_eq!(path(&poll, &policy), "/inference-profiles?maxResults=1000&type=SYSTEM_DEFINED");
    assert_eq!(answered(&mut poll, &profiles(&["us.c.d"], Some("a+/ =&b"))), Ok(None));
    assert_eq!(
        path(&poll, &policy),
        "/inference-profiles?maxResults=1000&nextToken=a%2B%2F%20%3D%26b&type=SYSTEM_DEFINED"
    );
    let offers = answered(&mut poll, &profiles(&["eu.c.d"], None)).unwrap().unwrap();
    assert_eq!(offers.find("c.d").unwrap().geographies().collect::<Vec<_>>(), ["eu", "us"]);
}

#[test]
fn refuses_a_poll_that_goes_wrong() {
    let good = models(&[("a.b", &["ON_DEMAND"])]);
    let second = || {
        let mut poll = Poll::new(region("us-east-1"));
        assert_eq!(answered(&mut poll, &good), Ok(None));
        poll
    };
    for (answer, problem) in [
        (None, "no answer"),
        (Some((500, Ok(good.as_bytes()))), "answered 500"),
        (Some((200, Err(5 << 20))), "the answer has 5242880 bytes"),
        (Some((200, Ok(&good.as_bytes()[..40]))), "not a list"),
    ] {
        let first = Poll::new(region("us-east-1")).answered(answer).unwrap_err().to_string();
        assert!(first.starts_with("ListFoundationModels: ") && first.contains(problem), "{first}");
        let error = second().answered(answer).unwrap_err().to_string();
        assert!(error.starts_with("ListInferenceProfiles: "), "{error}");
    }
    let error = Poll::new(region("us-east-1")).answered(Some((403, Ok(b"")))).unwrap_err().to_string();
    assert!(error.contains("the IAM action bedrock:ListFoundationModels"), "{error}");
    // A page that leads to itself, and pages without end.
    let mut poll = second();
    assert_eq!(answered(&mut poll, &profiles(&[], Some("0"))), Ok(None));
    assert_eq!(answered(&mut poll, &profiles(&[], Some("0"))), Err(PollError::Pages));
    let mut poll = second();
    let pages = (0..100).take_while(|nth| answered(&mut poll, &profiles(&[], Some(&nth.to_string()))).is_ok()).count();
    assert_eq!(pages, 15);
}

#[test]
fn polls_take_the_first_class_that_lists() {
    let class = |name: &str, more: Value| {
        let mut class = json!({"name": name, "paths": ["dx"]});
        class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        class
    };
    let of = |classes: Value, name: &str| {
        let policy =
            policy(&["us-east-1", "us-west-2"], json!({"route_classes": classes, "principal": [{"from": "mtls"}]}));
        class_of(&policy, &region(name)).map(|class| class.name().to_owned())
    };
    let named = class("named", json!({"principals": ["*"]}));
    let calls = class("calls", json!({"operations": ["Converse"]}));
    let west = class("west", json!({"regions": ["us-west-2"]}));
    let any = class("any", json!({}));
    for (classes, name, wanted) in [
        (json!([named, calls, west, any]), "us-east-1", Some("any")),
        (json!([named, calls, west, any]), "us-west-2", Some("west")),
        (json!([named, calls]), "us-east-1", Some("named")),
        (json!([west]), "us-east-1", None),
    ] {
        assert_eq!(of(classes.clone(), name).as_deref(), wanted, "{classes} {name}");
    }
}

#[test]
fn one_worker_polls_and_all_see_it() {
    let (memory, east) = (Memory::default(), east());
    let workers: Vec<(Polls, CatalogueStore)> =
        (1..=4).map(|worker| (Polls::new(worker), CatalogueStore::default())).collect();
    let due = |seconds| workers.iter().filter(|(polls, _)| polls.due(&east, &memory, at(seconds))).count();
    assert_eq!((due(0), due(1)), (1, 0));
    let found = offers(&[("a.b", &["ON_DEMAND"])], &[]);
    workers[0].0.publish(&east, found.as_bytes(), &memory, at(2));
    for (_, store) in &workers {
        assert!(store.offers(&region("us-east-1")).is_none());
        follow(store, &memory);
        assert_eq!(store.offers(&region("us-east-1")).as_deref(), Some(&found));
        assert_eq!(store.age(&region("us-east-1"), at(12)), Some(Duration::from_secs(10)));
    }
    assert_eq!((due(61), due(62), due(63)), (0, 1, 0));
    // The same lists are new, but no change.
    workers[0].0.publish(&east, found.as_bytes(), &memory, at(64));
    let (_, store) = &workers[1];
    let written = memory.get(&east.value).unwrap().1;
    assert_eq!(written, 1);
    follow(store, &memory);
    let samples = store.look(&memory, at(65));
    let samples: Vec<(&str, u64)> = samples.iter().map(|sample| (sample.name.as_str(), sample.value)).collect();
    let wanted =
        [("bedrock_catalogue_age_seconds;region=us-east-1", 1), ("bedrock_catalogue_models;region=us-east-1", 1)];
    assert_eq!(samples, wanted);
    // A change is seen, and what was removed has gone.
    assert_eq!(due(200), 1);
    workers[0].0.publish(&east, offers(&[("c.d", &[])], &[]).as_bytes(), &memory, at(200));
    follow(store, &memory);
    let known = store.offers(&region("us-east-1")).unwrap();
    assert!(known.find("a.b").is_none() && known.find("c.d").is_some());
}

/// The old document is followed while its calls last, by the same store.
#[test]
fn a_new_documents_regions_are_read() {
    let (memory, polls, store) = (Memory::default(), Polls::new(1), CatalogueStore::default());
    let found = offers(&[("a.b", &["ON_DEMAND"])], &[]);
    assert!(polls.due(&east(), &memory, at(0)));
    polls.publish(&east(), found.as_bytes(), &memory, at(0));
    store.follow([region("us-west-2")].iter(), &memory);
    assert!(store.look(&memory, at(0)).is_empty());
    follow(&store, &memory);
    assert_eq!(store.offers(&region("us-east-1")).as_deref(), Some(&found));
}

#[test]
fn a_failure_keeps_the_last_lists() {
    let (memory, east) = (Memory::default(), east());
    let (polls, store) = (Polls::new(1), CatalogueStore::default());
    assert!(polls.due(&east, &memory, at(0)));
    polls.publish(&east, offers(&[("a.b", &["ON_DEMAND"])], &[]).as_bytes(), &memory, at(0));
    let (mut now, mut waits) = (60, Vec::new());
    for _ in 0..8 {
        let start = now;
        while !polls.due(&east, &memory, at(now)) {
            now += 1;
        }
        waits.push(now - start);
        polls.failed(&east, &memory, at(now));
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60], "the longest is the time between two polls");
    follow(&store, &memory);
    assert!(store.offers(&region("us-east-1")).unwrap().find("a.b").is_some());
    store.look(&memory, at(now));
    assert_eq!(store.age(&region("us-east-1"), at(now)), Some(Duration::from_secs(now)));
}

#[test]
fn a_thread_without_the_relay_hands_over() {
    let (memory, east) = (Memory::default(), east());
    let (main, worker) = (Polls::new(1), Polls::new(2));
    assert!(main.due(&east, &memory, at(0)) && main.hand_over(&east, &memory));
    assert!(!main.due(&east, &memory, at(0)) && worker.due(&east, &memory, at(0)));
    worker.publish(&east, offers(&[("a.b", &[])], &[]).as_bytes(), &memory, at(0));
    // Later polls are left to the other as well. If it does not poll, this one tries, and fails as others do.
    assert!(!main.due(&east, &memory, at(59)));
    assert!(!main.due(&east, &memory, at(60)) && !main.due(&east, &memory, at(61)));
    assert!(main.due(&east, &memory, at(62)) && !main.hand_over(&east, &memory));
}

#[test]
fn a_worker_that_dies_loses_its_lease() {
    let (memory, east) = (Memory::default(), east());
    let (first, second) = (Polls::new(1), Polls::new(2));
    assert!(first.due(&east, &memory, at(0)));
    first.extend(&east, &memory, at(5));
    assert!(!second.due(&east, &memory, at(16)) && second.due(&east, &memory, at(17)));
    // The first was only slow: the lease is the second's.
    first.failed(&east, &memory, at(18));
    assert!(!Polls::new(3).due(&east, &memory, at(28)));
}

#[test]
fn refuses_lists_that_lack_every_profile() {
    for (kinds, ids, good) in [
        (&["INFERENCE_PROFILE"][..], &[][..], false),
        (&["INFERENCE_PROFILE"], &["us.a.b"], true),
        // None needs one.
        (&["ON_DEMAND"], &[], true),
        (&["ON_DEMAND", "INFERENCE_PROFILE"], &[], true),
    ] {
        let mut poll = Poll::new(region("us-east-1"));
        assert_eq!(answered(&mut poll, &models(&[("a.b", kinds)])), Ok(None));
        assert_eq!(answered(&mut poll, &profiles(ids, None)).is_ok(), good, "{kinds:?} {ids:?}");
    }
}
