//! `region_order: fastest`: new calls leave a region that becomes slow, and come back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bedrock_double::PathFault::Delay;
use serde_json::json;

use crate::harness::{Harness, Keys, eventually};
use crate::istio::pod::wait_for_paths;

const MODEL: &str = "us.anthropic.claude-3-5-sonnet-20241022-v2%3A0";
const CALLERS: usize = 4;

fn request() -> Vec<u8> {
    let body = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] }).to_string();
    format!(
        "POST /model/{MODEL}/converse-stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// How many calls each region got in a time.
fn calls_in(harness: &Harness, time: Duration) -> [usize; 2] {
    harness.doubles.iter().for_each(bedrock_double::Running::clear);
    std::thread::sleep(time);
    [0, 1].map(|place| harness.doubles[place].requests().iter().filter(|one| !one.labels.is_empty()).count())
}

fn share_of_second([first, second]: [usize; 2]) -> f64 {
    second as f64 / (first + second).max(1) as f64
}

#[test]
fn new_calls_leave_a_slow_region_and_come_back() {
    let soak = std::env::var_os("SOAK").is_some();
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let regions = ["us-east-1", "us-west-2"];
    let class = json!({ "name": "any", "paths": ["dx"], "regions": regions, "region_order": "fastest" });
    let document = json!({ "regions": { "us-east-1": {}, "us-west-2": {} }, "route_classes": [class] });
    std::fs::write(&policy, document.to_string()).unwrap();
    let places = ["dx@us-east-1", "dx@us-west-2"];
    let harness = Harness::new(Keys::LongLived, &places, |double| double, &["--policy", policy.to_str().unwrap()]);
    wait_for_paths(|page| harness.gateway.admin(page));
    let base = Delay(Duration::from_millis(50));
    harness.doubles.iter().for_each(|double| double.set_fault(base.clone()));
    let (over, slow) = (AtomicBool::new(false), Delay(Duration::from_millis(250)));
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let (status, head, body) = harness.gateway.raw(&request());
                    assert!(status == 200 && !body.contains("xception"), "{head} {body}");
                }
            });
        }
        let checks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let before = calls_in(&harness, Duration::from_secs(if soak { 60 } else { 4 }));
            assert!(
                before[1] > 0 && share_of_second(before) < 0.2,
                "the other region is tried now and then: {before:?}"
            );
            harness.doubles[0].set_fault(slow);
            let start = Instant::now();
            eventually("new calls leave the slow region", || {
                (share_of_second(calls_in(&harness, Duration::from_secs(1))) > 0.8).then_some(())
            });
            println!("left within {:.1} s", start.elapsed().as_secs_f64());
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
            let left = calls_in(&harness, Duration::from_secs(if soak { 120 } else { 4 }));
            println!("of {left:?} calls {:.3} left", share_of_second(left));
            assert!(share_of_second(left) >= 0.95, "{left:?}");
            // It is tried every 5 s at most.
            assert!(left[0] > 0 || !soak, "{left:?}");
            harness.doubles[0].set_fault(base);
            let start = Instant::now();
            eventually("calls come back", || {
                (share_of_second(calls_in(&harness, Duration::from_secs(1))) < 0.2).then_some(())
            });
            println!("back within {:.1} s", start.elapsed().as_secs_f64());
            for _ in 0..if soak { 600 } else { 3 } {
                let seconds = calls_in(&harness, Duration::from_secs(1));
                assert!(share_of_second(seconds) < 0.5, "no oscillation: {seconds:?}");
            }
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(problem) = checks {
            std::panic::resume_unwind(problem);
        }
    });
    harness.assert_no_violation();
}
