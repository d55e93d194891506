//! Compares what Bedrock's double got with the records.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bedrock_double::{Received, Verdict};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::load::Call;
use super::scene::Scene;
use super::{Fault, OTHER, REQUIRED};

/// How long until calls are accepted after a repair, at most, in seconds.
const ACCEPTED_WITHIN: f64 = 5.0;
/// Two clocks that are read one after the other differ by that many seconds.
const SLACK: f64 = 0.05;

/// A fault, by this machine's clock.
#[derive(Debug)]
pub(super) struct Repair {
    pub(super) fault: Fault,
    pub(super) broken: f64,
    pub(super) repaired: f64,
}

/// The time in which a record says that calls may be lost, by the clock that steps, and their number at most.
type Window = (f64, f64, u64);

pub(super) fn check(scene: &Scene, calls: &[Call], repairs: &[Repair]) {
    let requests = scene.double.requests();
    let received: BTreeSet<String> = requests.iter().filter_map(|request| model_of(&request.path)).collect();
    // With a clock that is days off, signatures are not valid.
    let wrong = requests.iter().filter(|request| request.is_violation() && !is_of_the_clock(request));
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{:?}", wrong.first());
    let required: BTreeSet<&str> = calls.iter().filter(|call| call.required).map(|call| call.model.as_str()).collect();
    // Until what is missing has been found out.
    let settled = |all: &[Value]| {
        let known = models(all);
        received.iter().filter(|model| required.contains(model.as_str())).all(|model| known.contains(model.as_str()))
    };
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs(9));
    let mut all = scene.store.records();
    while !settled(&all) && begin.elapsed() < Duration::from_secs(90) {
        std::thread::sleep(Duration::from_secs(1));
        all = scene.store.records();
    }
    let known = models(&all);
    let missing: Vec<&Call> =
        calls.iter().filter(|call| received.contains(&call.model) && !known.contains(call.model.as_str())).collect();
    let windows = windows(&all);
    report(calls, received.len(), &all, missing.len(), &windows);

    let lost: Vec<_> = missing.iter().filter(|call| call.required).collect();
    let said = || scene.said();
    assert!(lost.is_empty(), "{} of {}: {:?}\n{}", lost.len(), required.len(), lost.first(), said());
    let is_inside = |call: &Call| {
        let shown = scene.clock.shown(call.start, call.end);
        shown.iter().any(|time| windows.iter().any(|(from, until, _)| (from - SLACK..until + SLACK).contains(time)))
    };
    let outside: Vec<_> = missing.iter().filter(|call| !is_inside(call)).collect();
    assert!(
        outside.is_empty(),
        "{} outside of every window: {:?}, shown as {:?} {windows:?}\n{}",
        outside.len(),
        outside.first(),
        outside.first().map(|call| scene.clock.shown(call.start, call.end)),
        said()
    );
    let bound: u64 = windows.iter().map(|(.., most)| most).sum();
    assert!(missing.len() as u64 <= bound, "{} missing, at most {bound} said: {windows:?}", missing.len());
    check_repairs(calls, repairs);
}

fn report(calls: &[Call], received: usize, all: &[Value], missing: usize, windows: &[Window]) {
    let (mut kinds, mut answers) = (BTreeMap::new(), BTreeMap::new());
    for record in all {
        *kinds.entry(record["kind"].as_str().unwrap_or("exchange")).or_insert(0) += 1;
    }
    calls.iter().for_each(|call| *answers.entry((call.required, call.status)).or_insert(0) += 1);
    println!("answers by (required, status): {answers:?}");
    println!("{} calls, {received} upstream, records {kinds:?}, without a record {missing}", calls.len());
    let bound: u64 = windows.iter().map(|(.., most)| most).sum();
    println!("{} windows, of at most {bound} calls", windows.len());
}

fn check_repairs(calls: &[Call], repairs: &[Repair]) {
    let last = calls.iter().map(|call| call.start).fold(0.0, f64::max);
    let mut served: Vec<f64> =
        calls.iter().filter(|call| call.required && ![0, 503].contains(&call.status)).map(|call| call.start).collect();
    served.sort_by(f64::total_cmp);
    let (mut seen, mut kinds) = (0, BTreeMap::new());
    for repair in repairs {
        let Repair { fault, repaired, .. } = repair;
        let first = served.get(served.partition_point(|start| start < repaired));
        let after = first.map_or(f64::INFINITY, |start| start - repaired);
        // Until the next fault, or the end of the load.
        let next = repairs.iter().map(|repair| repair.broken).filter(|broken| broken >= repaired);
        let calm = next.fold(last, f64::min) - repaired;
        let within = after < ACCEPTED_WITHIN;
        assert!(
            within || calm < ACCEPTED_WITHIN,
            "{fault:?}: calls with `required` are accepted {after:.1} s after the repair"
        );
        seen += usize::from(within);
        let (count, longest) = kinds.entry(fault).or_insert((0, 0.0));
        *count += 1;
        if within {
            *longest = after.max(*longest);
        }
    }
    for (fault, (count, longest)) in &kinds {
        println!("{fault:?}: {count}, accepted again after {longest:.2} s at most");
    }
    assert!(seen * 2 >= repairs.len(), "{seen} of {} repairs were seen", repairs.len());
}

fn models(all: &[Value]) -> BTreeSet<&str> {
    all.iter().filter_map(|record| record["model_asked"].as_str()).collect()
}

fn windows(all: &[Value]) -> Vec<Window> {
    // A call of which only its intent is known says until when it may have ended, and nothing is lost.
    let lossy = all.iter().filter(|record| !record["until"].is_null() && record["model_asked"].is_null());
    // The end of an Envoy has the sums of its VMs.
    let lossy = lossy.filter(|record| record["kind"] != "envoy_end");
    lossy
        .map(|record| {
            let most = record["lost_at_most"].as_u64().or(record["lost"].as_u64()).unwrap_or(0);
            (seconds(&record["time"]), seconds(&record["until"]), most)
        })
        .collect()
}

fn seconds(time: &Value) -> f64 {
    let time = OffsetDateTime::parse(time.as_str().unwrap(), &Rfc3339).unwrap();
    time.unix_timestamp_nanos() as f64 / 1e9
}

/// Whether the double refused the signature because its time is off.
fn is_of_the_clock(request: &Received) -> bool {
    let Verdict::Refused { message, .. } = &request.verdict else { return false };
    message.starts_with("Signature expired") || message.starts_with("Signature not yet current")
}

/// The model in a request's path.
fn model_of(path: &str) -> Option<String> {
    path.split('/').find(|part| part.starts_with(REQUIRED) || part.starts_with(OTHER)).map(str::to_owned)
}
