use super::*;
use crate::credentials::{Credentials, Secret};
use crate::shared::tests::Memory;
use crate::testing::*;
use serde_json::{Value, json};

#[test]
fn refuses_calls_without_a_valid_handoff() {
    let policy = policy("signer", "sigv4");
    let keys = keys();
    let good =
        json!({"class": "any", "operation": "Converse", "labels": ["x"], "body_sha256": EMPTY_SHA256}).to_string();
    let unhashed = json!({"class": "any", "operation": "Converse", "labels": ["x"]}).to_string();
    let stranger = good.replace("any", "other");
    let east = Some("us-east-1");
    for (handoff, region, credentials, message) in [
        (None, east, Some(&keys), "no handoff"),
        (Some("{}"), east, Some(&keys), "unreadable handoff"),
        (Some("\u{0}"), east, Some(&keys), "unreadable handoff"),
        (Some(unhashed.as_str()), east, Some(&keys), "no body hash"),
        (Some(stranger.as_str()), east, Some(&keys), "a route class that it does not know"),
        (Some(good.as_str()), None, Some(&keys), "no region label"),
        (Some(good.as_str()), Some("us-gov-west-1"), Some(&keys), "'us-gov-west-1'"),
        (Some(good.as_str()), east, None, "no credentials"),
    ] {
        let region = region.map(str::as_bytes);
        let reply = refused(attempt(&converse(&[]), handoff.map(str::as_bytes), region, context(&policy, credentials)));
        assert_eq!((reply.0, reply.1), (503, "ServiceUnavailableException"));
        assert!(reply.2.contains(message), "{message}: {}", reply.2);
    }
}

#[test]
fn envoys_hash_is_signed_and_kept() {
    let (policy, keys) = (policy("signer", "sigv4"), keys());
    let handoff = |hash: &Value| {
        let mut handoff = json!({"class": "any", "operation": "Converse", "labels": ["x"]});
        handoff.as_object_mut().unwrap().extend(hash.as_object().unwrap().clone());
        handoff.to_string().into_bytes()
    };
    let east = Some(b"us-east-1".as_slice());
    let sent = |headers: &Headers, handoff: &[u8]| attempt(headers, Some(handoff), east, context(&policy, Some(&keys)));
    let mut passed = converse(&[]);
    passed.set("x-amz-content-sha256", EMPTY_SHA256);
    let hashed_here = forwarded(sent(&converse(&[]), &handoff(&json!({"body_sha256": EMPTY_SHA256}))));
    let hashed_by_envoy = forwarded(sent(&passed, &handoff(&json!({"envoy_hashes": true}))));
    assert_eq!(hashed_by_envoy.headers, hashed_here.headers, "the hash itself does not cross");

    // The next attempt finds no header, and takes the hash from the handoff.
    let [_, (HANDOFF_PROPERTY, kept)] = hashed_by_envoy.states.as_slice() else { panic!("{hashed_by_envoy:?}") };
    let again = forwarded(sent(&hashed_by_envoy.headers, kept));
    assert_eq!((&again.headers, again.states.len()), (&hashed_here.headers, 1));

    let upper = EMPTY_SHA256.to_uppercase();
    for wrong in ["", "UNSIGNED-PAYLOAD", &EMPTY_SHA256[1..], &upper] {
        passed.set("x-amz-content-sha256", wrong);
        let (status, error, message) = refused(sent(&passed, &handoff(&json!({"envoy_hashes": true}))));
        assert_eq!((status, error), (503, "ServiceUnavailableException"), "{wrong}");
        assert!(message.contains("`bedrock.hash` has left no hash"), "{message}");
    }
    // A header that the gateway role did not ask for is not taken.
    passed.set("x-amz-content-sha256", EMPTY_SHA256);
    let (_, _, message) = refused(sent(&passed, &handoff(&json!({}))));
    assert!(message.contains("no body hash"), "{message}");
}

#[test]
fn a_refused_key_is_replaced_once() {
    let (policy, store, shared_credentials) = fetched("signer");
    let memory = Memory::default();
    publish(&shared_credentials, &memory, NOW, 3600);
    let handoff =
        json!({"class": "any", "operation": "Converse", "labels": ["x"], "body_sha256": EMPTY_SHA256}).to_string();
    let catalogue = no_catalogue();
    let context =
        |now| Context { policy: &policy, credentials: &store, catalogue, shared: &memory, worker: worker(), now };
    let input = |previous| AttemptInput {
        handoff: Some(handoff.as_bytes()),
        previous,
        path: Some(b"dx"),
        region: Some(b"us-east-1"),
    };
    let denied = |error: &str| headers(&[(":status", "403"), ("x-amzn-errortype", error)]);
    let mut first = Attempt::default();
    forwarded(first.request(&converse(&[]), input(None), context(NOW)));
    assert!(!first.response(&denied("AccessDeniedException"), context(NOW)).retry);
    let decision = first.response(&denied("ExpiredTokenException:http://x"), context(NOW));
    assert!(decision.retry);

    // The next attempt waits for others, which are fetched now.
    let state = decision.state.unwrap();
    let mut second = Attempt::default();
    assert_eq!(second.request(&converse(&[]), input(Some(&state)), context(NOW)), RequestStep::AwaitCredentials);
    assert_eq!(store.due(&memory, NOW), [CredentialId::of_source("default")]);
    publish(&shared_credentials, &memory, NOW, 3600);
    let forward = forwarded(second.request(&converse(&[]), input(Some(&state)), context(NOW)));
    let facts: AttemptFacts = serde_json::from_slice(&forward.states[0].1).unwrap();
    assert_eq!(facts.tried.len(), 2);
    assert!(!second.response(&denied("ExpiredTokenException"), context(NOW)).retry, "once");

    let mut third = Attempt::default();
    let late = input(Some(&state));
    let state = AttemptFacts { resigned: Some(Resigned::Credentials(2)), ..facts };
    let state = to_json(&state);
    let late = AttemptInput { previous: Some(&state), ..late };
    assert_eq!(third.request(&converse(&[]), late, context(NOW)), RequestStep::AwaitCredentials);
    let reply = refused(third.request(&converse(&[]), late, context(NOW + Duration::from_secs(2))));
    assert!(reply.2.contains("have expired"), "{}", reply.2);
}

#[test]
fn a_wrong_clock_is_corrected_once() {
    let policy = policy("signer", "sigv4");
    // 1994-11-06T08:49:37Z, ten minutes on.
    let now = NOW + Duration::from_secs(784_111_777 + 600);
    let keys = keys();
    let context = Context { now, ..context(&policy, Some(&keys)) };
    let handoff =
        json!({"class": "any", "operation": "Converse", "labels": ["x"], "body_sha256": EMPTY_SHA256}).to_string();
    let input = AttemptInput {
        handoff: Some(handoff.as_bytes()),
        previous: None,
        path: Some(b"dx"),
        region: Some(b"us-east-1"),
    };
    let mut first = Attempt::default();
    let date = |step| forwarded(step).headers.get_str("x-amz-date").unwrap().to_owned();
    assert_eq!(date(first.request(&converse(&[]), input, context)), "19941106T085937Z");
    let response = headers(&[
        (":status", "403"),
        ("x-amzn-errortype", "InvalidSignatureException"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ]);
    let decision = first.response(&response, context);
    assert!(decision.retry);
    let mut second = Attempt::default();
    let input = AttemptInput { previous: decision.state.as_deref(), ..input };
    assert_eq!(date(second.request(&converse(&[]), input, context)), "19941106T084937Z");
    assert!(!second.response(&response, context).retry);
}

/// Whatever a trial's outcome, the next call may go to the region, or finds it open: none is kept out until the trial expires.
#[test]
fn every_outcome_ends_a_trial() {
    let policy = policy("signer", "sigv4");
    let keys = keys();
    let handoff = json!({"class": "any", "operation": "Converse", "labels": ["a.b"], "body_sha256": EMPTY_SHA256});
    let text = handoff.to_string();
    let input =
        AttemptInput { handoff: Some(text.as_bytes()), previous: None, path: Some(b"dx"), region: Some(b"us-east-1") };
    for (status, admitted, closed) in [
        (Some("200"), true, true),
        (Some("400"), true, true),
        (Some("403"), true, true),
        (Some("404"), true, true),
        (Some("500"), true, false),
        (Some("502"), true, false),
        (Some("429"), false, false),
        (Some("503"), false, false),
        (None, true, false),
    ] {
        let context = context(&policy, Some(&keys));
        Breaker::new(context.shared, "us-east-1", "a.b", NOW).failed(None);
        let context = Context { now: NOW + Duration::from_secs(1), ..context };
        let breaker = Breaker::new(context.shared, "us-east-1", "a.b", context.now);
        let mut attempt = Attempt::default();
        forwarded(attempt.request(&converse(&[]), input, context));
        assert!(attempt.waits_for_end() && !breaker.admits(), "{status:?}");
        if let Some(status) = status {
            attempt.response(&headers(&[(":status", status)]), context);
            assert!(!attempt.waits_for_end(), "{status}");
        }
        attempt.end(context);
        assert_eq!((breaker.admits(), breaker.takes_retries()), (admitted, closed), "{status:?}");
    }
}

#[test]
fn a_body_that_streams_is_no_trial() {
    let policy = policy("signer", "bearer");
    let key = Credentials::ApiKey(Secret::new("ABSKexample"));
    let context = context(&policy, Some(&key));
    Breaker::new(context.shared, "us-east-1", "a.b", NOW).failed(None);
    let context = Context { now: NOW + Duration::from_secs(1), ..context };
    for (length, trial) in [(json!(20), false), (json!(null), false), (json!(0), true)] {
        let handoff = json!({"class": "any", "operation": "Converse", "labels": ["a.b"], "content_length": length});
        let text = handoff.to_string();
        let input = AttemptInput {
            handoff: Some(text.as_bytes()),
            previous: None,
            path: Some(b"dx"),
            region: Some(b"us-east-1"),
        };
        let mut attempt = Attempt::default();
        forwarded(attempt.request(&converse(&[]), input, context));
        assert_eq!(attempt.waits_for_end(), trial, "{length}");
    }
}

/// A response's time counts once, or never; an attempt without a response counts when it ends.
#[test]
fn each_attempt_is_timed_once() {
    let document = json!({
        "role": "signer", "regions": {"us-east-1": {}, "us-west-2": {}},
        "route_classes": [{"name": "any", "paths": ["dx"], "region_order": "fastest"}]
    });
    let policy = crate::policy::Policy::parse(document.to_string().as_bytes(), None).unwrap();
    let (keys, text) = (
        keys(),
        json!({"class": "any", "operation": "Converse", "labels": ["a.b"],
        "body_sha256": EMPTY_SHA256, "content_length": 20})
        .to_string(),
    );
    let input =
        AttemptInput { handoff: Some(text.as_bytes()), previous: None, path: Some(b"dx"), region: Some(b"us-east-1") };
    for (status, after) in [("200", 1), ("400", 1), ("429", 1), ("503", 1), ("200", -1)] {
        let context = context(&policy, Some(&keys));
        let context = Context { now: NOW + Duration::from_secs(10), ..context };
        let mut attempt = Attempt::default();
        forwarded(attempt.request(&converse(&[]), input, context));
        assert!(attempt.waits_for_end());
        let now = NOW + Duration::from_secs(10u64.saturating_add_signed(after));
        attempt.response(&headers(&[(":status", status)]), Context { now, ..context });
        assert!(!attempt.waits_for_end(), "{status} {after}");
        let known = (0..64).any(|key| context.shared.get(&format!("latency/any/{key}")).is_some());
        assert_eq!(known, status == "200" && after > 0, "{status} {after}");
    }
}
