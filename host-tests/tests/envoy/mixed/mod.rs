//! Mixed traffic for an hour, while regions and paths fail, the document changes and keys are rotated: no wrong answer.
//!
//! The rate follows the machine's CPU, which Envoy shares with the doubles and the load: 70 % of all cores.

mod judge;
mod load;
mod report;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bedrock_double::PathFault::{self, Refuse, Reset, Stall, Throttle};
use bedrock_double::sources::Sources;
use bedrock_double::sources::jwt::{Algorithm, Signer};
use bedrock_double::{Builder, Keyring};
use bedrock_load::MODEL;
use serde_json::{Value, json};

use self::load::Expected;
use self::report::Report;
use crate::harness::{Harness, Keys, text_of};
use crate::istio::pod::wait_for_paths;
use crate::sessions::{GATEWAY, jwt_authn};
use crate::sources::configuration;

const PLACES: [&str; 4] = ["dx@us-east-1", "vpn@us-east-1", "dx@us-west-2", "vpn@us-west-2"];
/// Callers of two classes. The second one may not count tokens.
const CALLERS: [&str; 2] = ["first/app", "second/app"];
/// Its calls by the second caller are refused by every other document.
const CHANGING: &str = "amazon.titan-text-express-v1";
/// Refused to everybody.
const FORBIDDEN: &str = "meta.llama3-1-8b-instruct-v1:0";
/// How long a place may take to answer first. Longer than any answer without a fault.
const FIRST_BYTE_MS: u64 = 2000;

fn document(refuses: bool) -> String {
    let class = |name: &str, callers: &str| {
        json!({
            "name": name, "principals": [callers], "paths": ["dx", "vpn"], "regions": ["us-east-1", "us-west-2"],
            "first_byte_timeout_ms": FIRST_BYTE_MS,
        })
    };
    let mut rules = vec![
        json!({ "id": "all", "effect": "allow" }),
        json!({ "id": "forbidden", "effect": "deny", "models": ["meta.*"] }),
        json!({ "id": "no-counts", "effect": "deny", "principals": ["second/*"], "operations": ["CountTokens"] }),
    ];
    if refuses {
        rules.push(json!({ "id": "changing", "effect": "deny", "principals": ["second/*"], "models": [CHANGING] }));
    }
    json!({
        "regions": { "us-east-1": {}, "us-west-2": {} },
        "principal": [{ "from": "jwt", "payload": "caller", "claim": "sub" }],
        "inference_profiles": { MODEL: format!("us.{MODEL}") },
        "route_classes": [class("first", "first/*"), class("second", "second/*")],
        "rules": rules,
        "stream_relay": "bedrock-streams",
        "credentials": { "source": "imds", "cluster": "imds" },
    })
    .to_string()
}

/// The places that fail, how, and whether that breaks answers that have begun.
type Fault = (&'static [usize], fn() -> PathFault, bool);

/// One region or one path at a time, so that another place can serve each call.
const FAULTS: [Fault; 9] = [
    (&[0, 1], || Throttle(429, String::new()), false),
    (&[0, 2], || Refuse, true),
    (&[0, 1], || Throttle(503, String::new()), false),
    (&[0], || Reset, true),
    (&[2, 3], || Throttle(429, String::new()), false),
    (&[0, 1], || Stall(Duration::from_secs(4), false), false),
    (&[0, 1], || Refuse, true),
    (&[0], || Stall(Duration::from_secs(4), true), false),
    (&[1, 3], || Reset, true),
];

/// How long things last, and how fast the calls come.
#[derive(Debug, Clone, Copy)]
struct Times {
    all: Duration,
    /// From one fault to the next; a fault lasts for a third of it.
    fault: Duration,
    change: Duration,
    /// Keys are renewed at some 55 % of it, and refused after it.
    keys: Duration,
    /// Calls a second, at most. In the suite other tests run at the same time.
    most: f64,
}

impl Times {
    /// An hour or SOAK_SECONDS by `cargo xtask soak mixed`; 25 seconds in the suite.
    fn get() -> Times {
        let soak = std::env::var_os("SOAK").is_some();
        let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse::<u64>().ok());
        let of = |short: u64, long: u64| Duration::from_secs(if soak { long } else { short });
        let all = seconds.filter(|_| soak).map_or(of(25, 3600), Duration::from_secs);
        let most = if soak { 5000.0 } else { 50.0 };
        Times { all, fault: of(3, 15), change: of(5, 20), keys: of(12, 60), most }
    }
}

#[test]
fn mixed_traffic_has_no_wrong_answer() {
    let times = Times::get();
    let keyring = Keyring::default();
    let sources = Sources::start(times.keys, &keyring, true).unwrap();
    let signer = Signer::new(Algorithm::Es256, "callers").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut arguments = configuration(dir.path(), &sources, 9, "{ source: environment }");
    let base = text_of(arguments[1].as_ref());
    assert_eq!(base.matches(GATEWAY).count(), 1);
    std::fs::write(&arguments[1], base.replace(GATEWAY, &jwt_authn(&signer))).unwrap();
    let policy = arguments[3].clone();
    std::fs::write(&policy, document(false)).unwrap();
    "2".clone_into(&mut arguments[5]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Violations are kept apart from the others.
    let change = |double: Builder| double.keyring(&keyring).keep(200);
    let harness = Harness::new(Keys::Local, &PLACES, change, &arguments);
    wait_for_paths(|page| harness.gateway.admin(page));
    let tokens = CALLERS.map(|caller| {
        let claims: Value = json!({ "iss": "https://mesh.example", "sub": caller });
        format!("Bearer {}", signer.sign(&claims).unwrap())
    });
    let address: SocketAddr = harness.gateway.http.strip_prefix("http://").unwrap().parse().unwrap();
    let expected = Arc::new(Mutex::new(Expected::default()));
    let report = Arc::new(Mutex::new(Report::default()));
    let end = Instant::now() + times.all;
    std::thread::scope(|scope| {
        let (of_load, of_report) = (Arc::clone(&expected), Arc::clone(&report));
        scope.spawn(move || load::run(address, tokens, (end, times.most), of_load, of_report));
        scope.spawn(|| change_document(&harness, &policy, times.change, end, &expected));
        scope.spawn(|| fail(&harness, times.fault, end, &expected));
        report::watch(harness.gateway.envoy_pid(), &harness.access_log(), end, &report);
    });
    harness.doubles.iter().for_each(|double| double.set_fault(PathFault::None));
    let (expected, report) = (expected.lock().unwrap(), report.lock().unwrap());
    report.print(times.all, &expected, keyring.count());
    for double in &harness.doubles {
        let (refused, first) = double.refused();
        assert_eq!(refused, 0, "a double refused requests: {first:#?}");
    }
    assert_eq!(sources.complaints(), Vec::<String>::new());
    assert!(expected.changes > 1 && keyring.count() > 1, "{} changes, {} keys", expected.changes, keyring.count());
    report.check(times.all);
}

/// Replaces the document by the next one, and notes from when on it decides.
fn change_document(harness: &Harness, policy: &str, pause: Duration, end: Instant, expected: &Mutex<Expected>) {
    while Instant::now() + pause + Duration::from_secs(2) < end {
        std::thread::sleep(pause);
        let (number, refuses) = {
            let mut expected = expected.lock().unwrap();
            expected.changed = None;
            expected.changes += 1;
            (expected.changes, expected.changes % 2 == 1)
        };
        // A file that is read is complete.
        let new = format!("{policy}.new");
        std::fs::write(&new, document(refuses)).unwrap();
        std::fs::rename(&new, policy).unwrap();
        crate::harness::eventually("the change", || {
            harness.gateway.said().contains(&format!("taken (change {number})")).then_some(())
        });
        // Each worker takes it in its own time.
        std::thread::sleep(Duration::from_millis(500));
        expected.lock().unwrap().changed = Some((Instant::now(), refuses));
    }
}

fn fail(harness: &Harness, pause: Duration, end: Instant, expected: &Mutex<Expected>) {
    for (places, fault, cuts) in FAULTS.iter().cycle() {
        std::thread::sleep(pause * 2 / 3);
        if Instant::now() + pause > end {
            return;
        }
        if *cuts {
            expected.lock().unwrap().cuts.push(Instant::now());
        }
        expected.lock().unwrap().faults += 1;
        places.iter().for_each(|place| harness.doubles[*place].set_fault(fault()));
        std::thread::sleep(pause / 3);
        places.iter().for_each(|place| harness.doubles[*place].set_fault(PathFault::None));
    }
}
