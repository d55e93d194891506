//! The live catalogue: what regions list while the gateway runs decides which models it carries.

use std::time::{Duration, Instant};

use bedrock_double::{ListFault, Running};
use bedrock_load::MODEL;
use serde_json::{Value, json};

use crate::clients::{call, python_with};
use crate::harness::{Harness, Keys, eventually, text_of};
use crate::istio::pod::wait_for_paths;
use crate::sources::load;

const REFRESH: Duration = Duration::from_secs(5);
/// One poll, and the time until it is due and done, on a machine that runs other tests too.
const WITHIN: Duration = Duration::from_secs(10);
const HEAD: &str = "model_id,provider,mode,profile_prefixes_seen,on_demand\n";

/// Models, in the form of the double's lists: the load's, and others.
fn models(others: &[&str]) -> String {
    let rows: String = others.iter().map(|row| format!("{row}\n")).collect();
    format!("{HEAD}{MODEL},anthropic,chat,us,no\nacme.bare-v1:0,acme,chat,,yes\n{rows}")
}

/// A gateway in front of a double for each region.
fn start(regions: &[&str], concurrency: &str, catalogue: &Value) -> Harness {
    start_class(regions, concurrency, catalogue, json!({}))
}

/// The same with more keys of the route class.
fn start_class(regions: &[&str], concurrency: &str, catalogue: &Value, keys: Value) -> Harness {
    let mut class = json!({ "name": "any", "paths": ["dx"], "regions": regions });
    class.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let own: serde_json::Map<String, Value> = regions.iter().map(|region| ((*region).to_owned(), json!({}))).collect();
    let document = json!({
        "regions": own,
        "catalogue": catalogue,
        "inference_profiles": { "acme.own-v1:0": "us.acme.own-v1:0" },
        "route_classes": [class],
    });
    std::fs::write(&policy, document.to_string()).unwrap();
    let places: Vec<String> = regions.iter().map(|region| format!("dx@{region}")).collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let arguments = ["--policy", policy.to_str().unwrap(), "--concurrency", concurrency];
    let harness = Harness::new(Keys::LongLived, &places, |double| double.models(models(&[])), &arguments);
    wait_for_paths(|page| harness.gateway.admin(page));
    harness
}

/// The same, and it has read the regions' lists.
fn harness(regions: &[&str], concurrency: &str) -> Harness {
    let harness = start(regions, concurrency, &json!({ "refresh_seconds": REFRESH.as_secs() }));
    eventually("the first poll of each region", || {
        regions.iter().all(|region| counted(&harness, "polls", region) > 0).then_some(())
    });
    // The other workers take it at their next ticks, 0.1 s apart. Until then their calls go as without a catalogue.
    std::thread::sleep(Duration::from_secs(2));
    harness
}

/// A series of the catalogue.
fn counted(harness: &Harness, what: &str, region: &str) -> u64 {
    let page = harness.gateway.admin("/stats/prometheus");
    let series = format!("bedrock_catalogue_{what}{{region=\"{region}\"}} ");
    page.lines().find_map(|line| line.split_once(&series)?.1.trim().parse().ok()).unwrap_or(0)
}

/// Status, error type and body of a call.
fn converse(harness: &Harness, model: &str) -> (u16, String) {
    let body = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] }).to_string();
    let request = format!(
        "POST /model/{}/converse HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        model.replace(':', "%3A"),
        body.len()
    );
    let (status, head, body) = harness.gateway.raw(request.as_bytes());
    (status, head + &body)
}

/// The polls that a double got: lists of models.
fn polls(double: &Running) -> usize {
    let lists = |operation: &str| {
        double.requests().iter().filter(|request| request.operation.as_deref() == Some(operation)).count()
    };
    let (models, profiles) = (lists("ListFoundationModels"), lists("ListInferenceProfiles"));
    assert!(models.abs_diff(profiles) <= 1, "{models} {profiles}");
    models
}

/// Waits until a call gets this status and these words. Returns how long that took.
fn until(harness: &Harness, model: &str, wanted: u16, words: &str) -> Duration {
    let start = Instant::now();
    eventually(&format!("{wanted} for {model}"), || {
        let (status, answer) = converse(harness, model);
        (status == wanted && answer.contains(words)).then_some(())
    });
    start.elapsed()
}

#[test]
fn models_come_and_go_within_one_poll() {
    let harness = harness(&["us-east-1"], "2");
    let new = "acme.new-v1:0";
    let (status, answer) = converse(&harness, new);
    assert_eq!(status, 404, "{answer}");
    harness.doubles[0].clear();
    let start = Instant::now();
    let (failed, calls) = std::thread::scope(|scope| {
        let calls = scope.spawn(|| load(&harness, 200, Duration::from_secs(24)));
        std::thread::sleep(Duration::from_secs(2));
        for round in 0..2 {
            harness.doubles[0].set_models(&models(&["acme.new-v1:0,acme,chat,us|global,no"])).unwrap();
            let came = until(&harness, new, 200, "");
            harness.doubles[0].set_models(&models(&[])).unwrap();
            // Bedrock itself refuses it at once, without its name.
            let went = until(&harness, new, 404, &format!("'{new}' is not offered in us-east-1"));
            println!("round {round}: usable after {came:?}, refused by name after {went:?}");
            assert!(came < WITHIN && went < WITHIN, "{came:?} {went:?}");
        }
        calls.join().unwrap()
    });
    assert!(failed.is_empty() && calls > 3500, "{} of {calls} failed: {:?}", failed.len(), failed.first());
    // Two workers and the main thread poll as one.
    let (found, seconds) = (polls(&harness.doubles[0]), start.elapsed().as_secs_f64());
    println!("{calls} calls, none failed; {found} polls in {seconds:.1} s");
    let most = seconds / REFRESH.as_secs_f64() + 1.5;
    assert!(found as f64 <= most && found as f64 >= seconds / 7.0 - 1.5, "{found} polls in {seconds} s");
    let profiles = harness.received().iter().filter(|request| request.labels == [format!("us.{new}")]).count();
    assert!(profiles > 0);
    harness.assert_no_violation();
    // A poll is not a client's call.
    let log = text_of(&harness.access_log());
    assert!(log.contains("Converse") && !log.contains("ListFoundationModels"), "a poll has a record");
}

#[test]
fn wrong_lists_keep_the_last_good_ones() {
    let harness = harness(&["us-east-1"], "2");
    let double = &harness.doubles[0];
    for fault in [
        ListFault::Status(500),
        ListFault::Garbage,
        ListFault::Truncated,
        ListFault::Huge,
        ListFault::Empty,
        ListFault::Endless,
    ] {
        // What a wrong list has would be taken at once.
        double.set_models(&models(&["acme.new-v1:0,acme,chat,,yes"])).unwrap();
        double.set_list_fault(fault);
        let before = counted(&harness, "failures", "us-east-1");
        eventually("a poll fails", || (counted(&harness, "failures", "us-east-1") > before).then_some(()));
        for (model, wanted) in [(MODEL, 200), ("acme.bare-v1:0", 200), ("acme.new-v1:0", 404)] {
            let (status, answer) = converse(&harness, model);
            assert_eq!(status, wanted, "{fault:?}: {answer}");
        }
    }
    eventually("the age grows", || (counted(&harness, "age_seconds", "us-east-1") >= 10).then_some(()));
    let (_, answer) = converse(&harness, "acme.new-v1:0");
    assert!(answer.contains(" s old: newer ones could not be read"), "{answer}");
    double.set_list_fault(ListFault::None);
    until(&harness, "acme.new-v1:0", 200, "");
    harness.assert_no_violation();
}

#[test]
fn refuses_calls_by_lists_that_are_too_old() {
    let catalogue = json!({ "refresh_seconds": REFRESH.as_secs() });
    let most = 2 * REFRESH.as_secs();
    let harness = start_class(&["us-east-1"], "2", &catalogue, json!({ "catalogue_max_age_seconds": most }));
    let double = &harness.doubles[0];
    double.set_models(&models(&["acme.own-v1:0,acme,chat,us,no"])).unwrap();
    until(&harness, MODEL, 200, "");
    double.set_list_fault(ListFault::Status(500));
    let refused = until(&harness, MODEL, 503, "s old, and route class 'any' of the gateway sends calls only by lists");
    println!("refused {refused:?} after the lists were last read or failed");
    assert!(refused <= Duration::from_secs(most + 5), "{refused:?}");
    // What boto3 raises, and what the lists do not decide.
    let asked = [MODEL, "acme.own-v1:0"].map(str::to_owned);
    let rows = python_with("models", &harness.gateway.https, &harness.gateway.ca, &asked);
    let error = &call(&rows, MODEL)["error"];
    assert_eq!((&error["class"], &error["status"]), (&json!("ServiceUnavailableException"), &json!(503)), "{error}");
    assert!(error["message"].as_str().unwrap().contains("`catalogue_max_age_seconds`"), "{error}");
    assert_eq!(call(&rows, "acme.own-v1:0")["status"], 200, "{rows:?}");
    double.set_list_fault(ListFault::None);
    until(&harness, MODEL, 200, "");
    harness.assert_no_violation();
}

#[test]
fn calls_go_where_their_model_is() {
    let harness = harness(&["us-east-1", "us-west-2"], "1");
    harness.doubles[1].set_models(&models(&["acme.west-v1:0,acme,chat,us,no"])).unwrap();
    until(&harness, "acme.west-v1:0", 200, "");
    harness.doubles.iter().for_each(Running::clear);
    let asked = ["acme.west-v1:0", MODEL, "acme.none-v1:0"].map(str::to_owned);
    let rows = python_with("models", &harness.gateway.https, &harness.gateway.ca, &asked);
    let error = &call(&rows, "acme.none-v1:0")["error"];
    assert_eq!((&error["class"], &error["status"]), (&json!("ResourceNotFoundException"), &json!(404)), "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("'acme.none-v1:0'") && message.contains("us-east-1, us-west-2"), "{message}");
    let got = |double: &Running| -> Vec<String> {
        double.requests().into_iter().filter_map(|request| request.labels.first().cloned()).collect()
    };
    assert_eq!(got(&harness.doubles[0]), [format!("us.{MODEL}")]);
    assert_eq!(got(&harness.doubles[1]), ["us.acme.west-v1:0"]);
    harness.assert_no_violation();
}

#[test]
fn long_lists_have_pages() {
    let harness = harness(&["us-east-1"], "2");
    let rows: Vec<String> = (0..600).map(|nth| format!("acme.model-{nth}-v1:0,acme,chat,us|global,no")).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    harness.doubles[0].set_models(&models(&rows)).unwrap();
    harness.doubles[0].clear();
    until(&harness, "acme.model-599-v1:0", 200, "");
    eventually("the number of models", || (counted(&harness, "models", "us-east-1") == 602).then_some(()));
    let asked: Vec<String> = harness.received().into_iter().map(|request| request.query).collect();
    assert!(asked.iter().any(|query| query == "maxResults=1000&nextToken=1000&type=SYSTEM_DEFINED"), "{asked:?}");
    harness.assert_no_violation();
}

#[test]
fn a_snapshot_serves_without_polls() {
    let snapshot = json!({ "us-east-1": { "on_demand": ["acme.bare-v1:0"], "profiles": [format!("us.{MODEL}")] } });
    let harness = start(&["us-east-1"], "1", &json!({ "refresh_seconds": 0, "snapshot": snapshot }));
    for (model, wanted) in [(MODEL, 200), ("acme.bare-v1:0", 200), ("acme.none-v1:0", 404)] {
        let (status, answer) = converse(&harness, model);
        assert_eq!(status, wanted, "{answer}");
    }
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(polls(&harness.doubles[0]), 0);
    assert!(!harness.gateway.admin("/config_dump").contains("bedrock-polls"));
    harness.assert_no_violation();
}
