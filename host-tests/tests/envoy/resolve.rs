//! Ids that do not name their model: each is judged by what it runs, as Bedrock says it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bedrock_double::{GetFault, PathFault, Planted, Running};
use serde_json::{Value, json};

use crate::clients::{call, python_with};
use crate::harness::{Harness, Keys, eventually, text_of};
use crate::istio::pod::wait_for_paths;

const CLAUDE: &str = "anthropic.claude-3-5-sonnet-20241022-v2:0";
const NOVA: &str = "amazon.nova-lite-v1:0";
const GETS: [&str; 6] = [
    "GetInferenceProfile",
    "GetPromptRouter",
    "GetProvisionedModelThroughput",
    "GetCustomModel",
    "GetCustomModelDeployment",
    "GetMarketplaceModelEndpoint",
];

fn own(resource: &str) -> String {
    format!("arn:aws:bedrock:us-east-1:123456789012:{resource}")
}

fn model(id: &str) -> String {
    format!("arn:aws:bedrock:us-east-1::foundation-model/{id}")
}

fn planted(arn: String, runs: Value) -> Planted {
    Planted { arn, runs }
}

/// A profile whose id has these first letters.
fn profile(letters: &str, runs: &str) -> Planted {
    let arn = own(&format!("application-inference-profile/{letters:0<12}"));
    planted(arn, json!({ "models": [{ "modelArn": model(runs) }] }))
}

/// One of each kind that runs a model, and that calls may name. The router's fallback is the one that does.
fn kinds(letter: char, runs: &str) -> Vec<Planted> {
    let id = |nth: u32| format!("{letter}{nth:0>11}");
    let custom = own(&format!("custom-model/{}/{}", runs.replace(":0", ""), id(4)));
    let target = |id: &str| json!({ "modelArn": model(id) });
    vec![
        planted(own(&format!("application-inference-profile/{}", id(1))), json!({ "models": [target(runs)] })),
        planted(
            own(&format!("default-prompt-router/{letter}.router:1")),
            json!({ "models": [target(NOVA)], "fallbackModel": target(runs) }),
        ),
        planted(
            own(&format!("provisioned-model/{}", id(3))),
            json!({ "modelArn": custom, "desiredModelArn": custom, "foundationModelArn": model(runs) }),
        ),
        planted(own(&format!("custom-model-deployment/{}", id(5))), json!({ "modelArn": custom })),
        // Named by others only.
        planted(custom, json!({ "baseModelArn": model(runs) })),
    ]
}

/// What calls name: the ARNs, and the profile's bare id.
fn named(planted: &[Planted]) -> Vec<String> {
    let arns = planted.iter().filter(|one| !one.arn.contains(":custom-model/")).map(|one| one.arn.clone());
    let id = planted[0].arn.rsplit('/').next().unwrap().to_owned();
    arns.chain([id]).collect()
}

/// A gateway on which Claude never takes the internet, and all other models take it first.
fn harness(resources: &[Planted], concurrency: &str) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let document = json!({
        "regions": { "us-east-1": {} },
        "resolve": { "refresh_seconds": 60 },
        "route_classes": [
            { "name": "private", "models": ["anthropic.*"], "paths": ["dx", "vpn"] },
            { "name": "descriptions", "operations": GETS, "paths": ["dx", "vpn"] },
            { "name": "any", "paths": ["dx", "vpn", "internet"], "weights": { "internet": 1 } },
        ],
    });
    std::fs::write(&policy, document.to_string()).unwrap();
    let arguments = ["--policy", policy.to_str().unwrap(), "--concurrency", concurrency];
    let harness = Harness::new(Keys::LongLived, &["dx", "vpn", "internet"], |double| double, &arguments);
    harness.doubles.iter().for_each(|double| double.set_resources(resources.to_vec()));
    wait_for_paths(|page| harness.gateway.admin(page));
    harness
}

/// Status and body of a call.
fn converse(harness: &Harness, id: &str) -> (u16, String) {
    let body = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] }).to_string();
    let request = format!(
        "POST /model/{}/converse HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        id.replace(':', "%3A").replace('/', "%2F"),
        body.len()
    );
    let (status, head, body) = harness.gateway.raw(request.as_bytes());
    (status, head + &body)
}

/// How many requests of these operations a double got.
fn got(double: &Running, operations: &[&str]) -> usize {
    let asked = double.requests();
    asked.iter().filter(|request| request.operation.as_deref().is_some_and(|name| operations.contains(&name))).count()
}

fn lookups(harness: &Harness) -> usize {
    harness.doubles.iter().map(|double| got(double, &GETS)).sum()
}

#[test]
fn never_internet_holds_for_every_kind() {
    let (claude, nova) = (kinds('c', CLAUDE), kinds('n', NOVA));
    let harness = harness(&[claude.clone(), nova.clone()].concat(), "2");
    let internet = &harness.doubles[2];
    // The first calls come from boto3, and wait.
    let asked = named(&claude);
    let rows = python_with("models", &harness.gateway.https, &harness.gateway.ca, &asked);
    for id in &asked {
        assert!(call(&rows, id).get("error").is_none(), "{id}: {}", call(&rows, id));
    }
    assert_eq!(got(internet, &["Converse"]), 0);
    // Custom models take a second step, names two.
    assert_eq!(lookups(&harness), 7);
    // Under load, by all kinds at once, while Direct Connect goes down and comes back.
    let (failed, calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for nth in 0..8 {
            let (harness, asked, failed, calls) = (&harness, &asked, &failed, &calls);
            scope.spawn(move || {
                for round in 0..60 {
                    let (status, answer) = converse(harness, &asked[(nth + round) % asked.len()]);
                    calls.fetch_add(1, Ordering::Relaxed);
                    if status != 200 {
                        println!("{status} {answer}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        harness.doubles[0].set_fault(PathFault::Refuse);
        std::thread::sleep(Duration::from_millis(500));
        harness.doubles[0].set_fault(PathFault::None);
    });
    let (failed, calls) = (failed.into_inner(), calls.into_inner());
    println!("{calls} calls of {} ids, {failed} failed, {} lookups", asked.len(), lookups(&harness));
    assert_eq!((failed, got(internet, &["Converse"])), (0, 0));
    assert_eq!(lookups(&harness), 7);
    // The same kinds with another model do take the internet.
    let asked = named(&nova);
    let rows = python_with("models", &harness.gateway.https, &harness.gateway.ca, &asked);
    asked.iter().for_each(|id| assert!(call(&rows, id).get("error").is_none(), "{}", call(&rows, id)));
    assert_eq!(got(internet, &["Converse"]), asked.len());
    // Where nothing private is left, these calls fail rather than leave.
    harness.doubles.iter().take(2).for_each(|double| double.set_fault(PathFault::Refuse));
    internet.clear();
    for id in named(&claude) {
        assert_eq!(converse(&harness, &id).0, 503, "{id}");
    }
    assert_eq!(got(internet, &["Converse"]), 0);
    harness.assert_no_violation();
    eventually("the record", || {
        let log = text_of(&harness.access_log());
        (log.contains("resolved_models") && log.contains(&format!("{NOVA},{CLAUDE}"))).then_some(())
    });
}

#[test]
fn refuses_what_bedrock_cannot_tell() {
    let harness = harness(&[profile("good", CLAUDE)], "1");
    let hub = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/market";
    let custom_router = own("prompt-router/a1b2c3d4e5f6");
    let cases = [
        (own("application-inference-profile/a1b2c3d4e5f6"), "ResourceNotFoundException", 404),
        (
            "arn:aws:bedrock:us-east-1:999999999999:provisioned-model/a1b2c3d4e5f6".to_owned(),
            "ResourceNotFoundException",
            404,
        ),
        ("nosuchname00".to_owned(), "ResourceNotFoundException", 404),
        (own("imported-model/abc123def456"), "AccessDeniedException", 403),
        (own("prompt/ABCDEFGHIJ:1"), "AccessDeniedException", 403),
        // A model of the Marketplace is not one that patterns of Bedrock's ids know.
        (hub.to_owned(), "AccessDeniedException", 403),
        // AWS documents GetPromptRouter for ARNs of `default-prompt-router` alone.
        (custom_router, "ValidationException", 400),
    ];
    let asked: Vec<String> = cases.iter().map(|(id, ..)| id.clone()).collect();
    let rows = python_with("models", &harness.gateway.https, &harness.gateway.ca, &asked);
    for (id, class, status) in &cases {
        let error = &call(&rows, id)["error"];
        assert_eq!((&error["class"], &error["status"]), (&json!(class), &json!(status)), "{id}: {error}");
    }
    let sent: usize = harness.doubles.iter().map(|double| got(double, &["Converse"])).sum();
    assert_eq!(sent, 0);
    harness.assert_no_violation();
}

#[test]
fn refuses_when_lookups_fail_or_hang() {
    let harness = harness(&[profile("one", CLAUDE), profile("two", CLAUDE), profile("three", CLAUDE)], "1");
    let spoil = |fault: GetFault| harness.doubles.iter().for_each(|double| double.set_get_fault(fault));
    let id = |letters: &str| profile(letters, CLAUDE).arn;
    spoil(GetFault::Status(403));
    let (status, answer) = converse(&harness, &id("one"));
    assert!(status == 403 && answer.contains("bedrock:GetInferenceProfile"), "{answer}");
    spoil(GetFault::Status(500));
    let (status, answer) = converse(&harness, &id("two"));
    assert!(status == 503 && answer.contains("GetInferenceProfile answered 500"), "{answer}");
    spoil(GetFault::Silent);
    let start = Instant::now();
    let (status, answer) = converse(&harness, &id("three"));
    let waited = start.elapsed();
    println!("refused after {waited:?}: {answer}");
    assert!(status == 503 && answer.contains(&id("three")), "{answer}");
    assert!(waited < Duration::from_secs(7), "{waited:?}");
    // Calls that name their model go on.
    assert_eq!(converse(&harness, &format!("us.{CLAUDE}")).0, 200);
    spoil(GetFault::None);
    eventually("a lookup succeeds", || (converse(&harness, &id("two")).0 == 200).then_some(()));
    assert_eq!(got(&harness.doubles[2], &["Converse"]), 0);
    harness.assert_no_violation();
}

#[test]
fn first_calls_at_once_make_one_lookup() {
    let harness = harness(&[profile("first", CLAUDE)], "2");
    let id = profile("first", CLAUDE).arn;
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let (status, answer) = converse(&harness, &id);
                if status != 200 {
                    println!("{status} {answer}");
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!((failed.into_inner(), lookups(&harness)), (0, 1));
    harness.assert_no_violation();
}

#[test]
fn a_flood_of_random_ids_stays_bounded() {
    let harness = harness(&[profile("good", CLAUDE)], "2");
    let start = Instant::now();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (harness, done) = (&harness, &done);
            scope.spawn(move || {
                let mut nth = 0;
                while start.elapsed() < Duration::from_secs(8) {
                    let (status, _) = converse(harness, &format!("r{thread:0>3}{nth:0>8}"));
                    assert!([404, 429, 503].contains(&status), "{status}");
                    done.fetch_add(1, Ordering::Relaxed);
                    nth += 1;
                }
            });
        }
        std::thread::sleep(Duration::from_secs(2));
        // A caller of another kind, whose ids name their models, sees nothing of it.
        let (status, answer) = converse(&harness, &format!("us.{CLAUDE}"));
        assert_eq!(status, 200, "{answer}");
    });
    let seconds = start.elapsed().as_secs_f64();
    let (found, done) = (lookups(&harness), done.into_inner());
    println!("{done} calls with random ids in {seconds:.1} s made {found} lookups");
    assert!((found as f64) <= 40.0 + 11.0 * seconds, "{found} lookups in {seconds} s");
    let good = profile("good", CLAUDE).arn;
    eventually("a good id", || (converse(&harness, &good).0 == 200).then_some(()));
    assert_eq!(got(&harness.doubles[2], &["Converse"]), 0);
    harness.assert_no_violation();
}
