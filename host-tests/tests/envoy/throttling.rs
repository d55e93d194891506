//! Two of three regions throttle: every call is answered by the third.

use std::collections::BTreeMap;

use bedrock_double::PathFault::{Refuse, Throttle};
use bedrock_double::Received;
use serde_json::{Value, json};

use crate::clients::{assert_all_answered, python};
use crate::harness::Harness;

const PLACES: [&str; 6] =
    ["dx@us-east-1", "vpn@us-east-1", "dx@us-east-2", "vpn@us-east-2", "dx@us-west-2", "vpn@us-west-2"];

/// The attempts of each call, in order of time. Each call has a text of its own.
fn attempts(harness: &Harness) -> BTreeMap<String, Vec<Received>> {
    let mut calls: BTreeMap<String, Vec<Received>> = BTreeMap::new();
    for request in harness.received() {
        calls.entry(request.body_sha256.clone()).or_default().push(request);
    }
    calls.values_mut().for_each(|attempts| attempts.sort_by(|left, right| left.time.cmp(&right.time)));
    harness.doubles.iter().for_each(bedrock_double::Running::clear);
    calls
}

/// Calls for 4 s, of which each is answered in this place. Returns the number of calls that a region throttled.
fn end_in(harness: &Harness, place: &str) -> usize {
    let answered = python("steady", &harness.gateway.http);
    assert_all_answered(&answered);
    assert!(answered.len() > 20, "{}", answered.len());
    let calls = attempts(harness);
    assert_eq!(calls.len(), answered.len());
    let (mut throttled, mut longest) = (0, 0);
    for attempts in calls.values() {
        let places: Vec<(&str, u16)> =
            attempts.iter().map(|attempt| (attempt.path_name.as_str(), attempt.status)).collect();
        let (last, before) = places.split_last().unwrap();
        assert_eq!(*last, (place, 200), "{places:?}");
        assert!(before.iter().all(|(_, status)| *status == 429), "{places:?}");
        // One attempt in the first region; Envoy tries the second on its other path (docs/architecture.md).
        let in_region = |region: &str| before.iter().filter(|(place, _)| place.ends_with(region)).count();
        let (one, two) = (in_region("us-east-1"), in_region("us-east-2"));
        assert!(one.max(two) <= 2 && one.min(two) <= 1, "{places:?}");
        throttled += usize::from(!before.is_empty());
        longest = longest.max(attempts.len());
    }
    println!("{} calls, {throttled} of them throttled first, at most {longest} attempts", calls.len());
    throttled
}

fn ends_in_the_third_region(class: Value) {
    let harness = Harness::one_class(&PLACES, class, &[]);
    for double in &harness.doubles[..4] {
        double.set_fault(Throttle(429, "claude".to_owned()));
    }
    // The first call opens both breakers. Each then lets a call try after 1 s and 3 s.
    let throttled = end_in(&harness, "dx@us-west-2");
    assert!((1..=5).contains(&throttled), "{throttled} calls were throttled");
    harness.doubles[4].set_fault(Refuse);
    // After 7 s, or 15 s on a slow machine.
    let throttled = end_in(&harness, "vpn@us-west-2");
    assert!(throttled <= 4, "{throttled} calls were throttled");
    harness.assert_no_violation();
}

#[test]
fn calls_end_in_the_region_that_serves() {
    ends_in_the_third_region(json!({ "paths": ["dx", "vpn"], "regions": ["us-east-1", "us-east-2", "us-west-2"] }));
}

#[test]
fn weights_do_not_keep_calls_where_429_is() {
    let weights = json!({ "us-east-1": 45, "us-east-2": 45, "us-west-2": 10 });
    ends_in_the_third_region(json!({ "paths": ["dx", "vpn"], "region_weights": weights }));
}
