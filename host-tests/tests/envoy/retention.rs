//! Data retention: a call never enters a region of another mode, however its regions fail and change under load.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bedrock_double::PathFault::{None as Healthy, Refuse, Throttle};
use bedrock_double::{Received, Retention, Running};
use bedrock_load::MODEL;
use serde_json::{Value, json};

use crate::harness::{Harness, Keys, eventually, text_of};
use crate::istio::pod::wait_for_paths;
use crate::sources::load;

const REGIONS: [&str; 3] = ["us-east-1", "us-east-2", "us-west-2"];
const REFRESH: Duration = Duration::from_secs(5);
const MAX_AGE: Duration = Duration::from_secs(10);
/// A poll, the time until it is due, and the ticks of the workers, on a machine that runs other tests too.
const WITHIN: Duration = Duration::from_secs(9);
const RATE: u32 = 200;

/// A gateway in front of a double for each region, whose account modes these are, and which it has read.
fn start(class: &Value, modes: [&str; 3], extra: &Value) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let mut own = json!({ "name": "any", "paths": ["dx"], "regions": REGIONS });
    own.as_object_mut().unwrap().extend(class.as_object().unwrap().clone());
    let mut retention = json!({ "refresh_seconds": REFRESH.as_secs(), "max_age_seconds": MAX_AGE.as_secs() });
    retention.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let document = json!({
        "regions": REGIONS.map(|name| (name.to_owned(), json!({}))).into_iter().collect::<serde_json::Map<_, _>>(),
        "inference_profiles": { MODEL: format!("us.{MODEL}") },
        "data_retention": retention,
        "route_classes": [own],
    });
    std::fs::write(&policy, document.to_string()).unwrap();
    let places = REGIONS.map(|region| format!("dx@{region}"));
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let arguments = ["--policy", policy.to_str().unwrap(), "--concurrency", "2"];
    let harness = Harness::new(Keys::LongLived, &places, |double| double, &arguments);
    for (double, mode) in harness.doubles.iter().zip(modes) {
        double.set_retention(Retention::of(mode, "inherit"));
    }
    wait_for_paths(|page| harness.gateway.admin(page));
    for (region, mode) in REGIONS.into_iter().zip(modes) {
        known(&harness, region, mode);
    }
    std::thread::sleep(Duration::from_secs(1));
    harness.doubles.iter().for_each(Running::clear);
    harness
}

/// Waits until the gateway has read that a region has this mode.
fn known(harness: &Harness, region: &str, mode: &str) {
    let mode = if mode == "inherit" { "default" } else { mode };
    let labels = [r#"source="default""#.to_owned(), format!("region=\"{region}\""), format!("type=\"{mode}\"")];
    let is_it = |line: &str| {
        line.contains("bedrock_retention_mode{")
            && labels.iter().all(|label| line.contains(label))
            && line.ends_with(" 1")
    };
    eventually(&format!("{region} has {mode}"), || {
        harness.gateway.admin("/stats/prometheus").lines().map(str::trim_end).any(is_it).then_some(())
    });
}

/// The calls of models that a region got, by the mode that it had then.
fn calls(double: &Running) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mode = |request: &Received| request.retention.clone();
    for mode in double.requests().iter().filter_map(mode) {
        *found.entry(mode).or_default() += 1;
    }
    found
}

fn total(double: &Running) -> usize {
    calls(double).values().sum()
}

/// A region fails in this way under load: the others of its mode serve its calls, and nobody else's region does.
fn fail(harness: &Harness, fault: bedrock_double::PathFault, lost: usize) {
    harness.doubles.iter().for_each(Running::clear);
    let (failed, all) = std::thread::scope(|scope| {
        let running = scope.spawn(|| load(harness, RATE, Duration::from_secs(5)));
        std::thread::sleep(Duration::from_secs(1));
        harness.doubles[0].set_fault(fault.clone());
        running.join().unwrap()
    });
    harness.doubles[0].set_fault(Healthy);
    let served: Vec<_> = harness.doubles.iter().map(calls).collect();
    println!("{fault:?}: {all} calls, {} failed, {served:?}", failed.len());
    assert!(failed.len() <= lost && all > 900, "{} of {all} failed: {:?}", failed.len(), failed.first());
    assert!(served[1].is_empty(), "{served:?}");
    assert!(total(&harness.doubles[2]) > 500, "{served:?}");
    harness.assert_no_violation();
    // The breaker of the region closes.
    eventually("the first region serves again", || {
        harness.doubles[0].clear();
        load(harness, 20, Duration::from_secs(1));
        (total(&harness.doubles[0]) > 0).then_some(())
    });
}

/// The second region has another mode, then the class's, then another one again, and then cannot be read.
fn never_enters_another_mode(order: &Value) {
    let mut class = order.clone();
    class["retention"] = json!("none");
    let harness = start(&class, ["none", "provider_data_share", "none"], &json!({}));
    fail(&harness, Throttle(429, String::new()), 0);
    fail(&harness, Throttle(503, String::new()), 0);
    // A connection that is cut while it sends may lose its call.
    fail(&harness, Refuse, 10);

    // The region is used once it has the mode, and never later than one poll after it has lost it.
    let (double, mode) =
        (&harness.doubles[1], |mode: &str| harness.doubles[1].set_retention(Retention::of(mode, "inherit")));
    mode("none");
    known(&harness, "us-east-2", "none");
    harness.doubles[0].set_fault(Throttle(429, String::new()));
    harness.doubles.iter().for_each(Running::clear);
    let (changed, last) = std::thread::scope(|scope| {
        let running = scope.spawn(|| load(&harness, RATE, Duration::from_secs(26)));
        eventually("the region is used", || (total(double) > 0).then_some(()));
        std::thread::sleep(Duration::from_secs(2));
        mode("aws_review");
        let changed = Instant::now();
        let (mut seen, mut last) = (0, Duration::ZERO);
        while !running.is_finished() {
            let now = calls(double).get("aws_review").copied().unwrap_or_default();
            if now > seen {
                (seen, last) = (now, changed.elapsed());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let (failed, all) = running.join().unwrap();
        println!(
            "changed under load: {all} calls, {} failed, {seen} in the region after its change, the last after {last:?}",
            failed.len()
        );
        assert!(failed.is_empty(), "{:?}", failed.first());
        (changed, last)
    });
    assert!(last < WITHIN && changed.elapsed() > last + Duration::from_secs(3), "{last:?}");

    // Settings that cannot be read count until they are too old.
    mode("none");
    known(&harness, "us-east-2", "none");
    harness.doubles[1].set_retention(Retention::of("none", "inherit").unreadable(500));
    known(&harness, "us-east-2", "unresolved");
    harness.doubles.iter().for_each(Running::clear);
    let (failed, all) = load(&harness, RATE, Duration::from_secs(3));
    println!("unreadable: {all} calls, {} failed", failed.len());
    assert!(failed.is_empty() && total(double) == 0, "{:?} {:?}", failed.first(), calls(double));
    harness.assert_no_violation();
    let record = r#""retention":"none""#;
    assert!(text_of(&harness.access_log()).replace(['\\', ' '], "").contains(record), "no record has the mode");
}

/// Streams pass Envoy twice, and go where calls go.
#[test]
fn streams_keep_the_mode_too() {
    let harness = start(&json!({ "retention": "same" }), ["none", "aws_review", "none"], &json!({}));
    for fault in [Healthy, Throttle(429, String::new()), Throttle(503, String::new()), Refuse] {
        harness.doubles.iter().for_each(Running::clear);
        harness.doubles[0].set_fault(fault.clone());
        let request = {
            let body = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] }).to_string();
            format!(
                "POST /model/{}/converse-stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                MODEL.replace(':', "%3A"),
                body.len()
            )
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let (status, head, body) = harness.gateway.raw(request.as_bytes());
                        assert!(status == 200 && !body.contains("xception"), "{fault:?}: {head} {body}");
                    }
                });
            }
        });
        let served: Vec<_> = harness.doubles.iter().map(calls).collect();
        println!("{fault:?}: {served:?}");
        assert!(served[1].is_empty(), "{served:?}");
        let other = if fault == Healthy { 0 } else { 2 };
        assert!(total(&harness.doubles[other]) >= 190, "{served:?}");
    }
    harness.assert_no_violation();
}

#[test]
fn ordered_failover_keeps_the_mode() {
    never_enters_another_mode(&json!({}));
}

#[test]
fn weighted_failover_keeps_the_mode() {
    never_enters_another_mode(&json!({ "region_weights": { "us-east-1": 8, "us-east-2": 1, "us-west-2": 1 } }));
}

#[test]
fn fastest_failover_keeps_the_mode() {
    never_enters_another_mode(&json!({ "region_order": "fastest" }));
}

/// `same` compares with the first region; two regions that leave the mode to the model prove nothing without a statement.
#[test]
fn refuses_modes_that_are_equal_by_name() {
    let class = json!({ "retention": "same" });
    let modes = ["inherit", "default", "inherit"];
    let unproved = start(&class, modes, &json!({}));
    unproved.doubles[0].set_fault(Throttle(429, String::new()));
    let (failed, all) = load(&unproved, RATE, Duration::from_secs(2));
    assert!(failed.len() == all && failed.iter().all(|one| one.status == 429), "{:?}", failed.first());
    assert_eq!((total(&unproved.doubles[1]), total(&unproved.doubles[2])), (0, 0));
    unproved.assert_no_violation();

    let models = json!({ "models": [{ "models": ["anthropic.*"], "mode": "none" }] });
    let proved = start(&class, modes, &models);
    proved.doubles[0].set_fault(Throttle(429, String::new()));
    let (failed, _) = load(&proved, RATE, Duration::from_secs(2));
    assert!(failed.is_empty() && total(&proved.doubles[1]) > 100, "{:?}", failed.first());
    proved.assert_no_violation();
}
