//! What `explain` reads, refuses and reports: requests, records, options, policies and the environment.

use std::path::Path;
use std::time::SystemTime;

use bedrock_gateway::explain::dry_run::{DryRun, Outcome};
use bedrock_gateway::explain::subject::Subject;
use filter_core::config::Config;
use filter_core::policy::Policy;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{CONVERSE, Dir, explain, golden, nothing, report};

fn error(arguments: &[&str]) -> String {
    let error = explain(arguments).unwrap().run(&nothing).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn a_bad_request_is_one_line_with_its_place() {
    let dir = Dir::new("bad");
    let http = dir.file("http", "POST /model/a/invoke HTTP/1.1\nno header\n\n").display().to_string();
    let record = dir.file("record", "{\"operation\": \"Chat\"}").display().to_string();
    let curl = dir.file("curl", "curl gw \\\n  --proxy p\n").display().to_string();
    for (request, wanted) in [
        ("curl 'http://gw", "REQUEST: column 6: the quote ' is not closed".to_owned()),
        ("curl gw -b a=b", "REQUEST: column 9: -b sends cookies".to_owned()),
        ("curl gw --proxy p", "REQUEST: column 9: the option --proxy is not known".to_owned()),
        ("{\"operation\": }", "REQUEST: not an audit record: expected value at line 1 column 15".to_owned()),
        ("/nowhere/at/all", "REQUEST: not a file that can be read (No such file".to_owned()),
        (&http, format!("{http}: line 2: no ':' in a header")),
        (&record, format!("{record}: key `operation`: 'Chat' is not an operation")),
        (&curl, format!("{curl}: line 2, column 3: the option --proxy is not known")),
    ] {
        let error = error(&[request]);
        assert!(error.starts_with(&wanted), "{error}");
    }
}

#[test]
fn a_bad_option_is_named() {
    let dir = Dir::new("options");
    let text = dir.file("text", "no healthy upstream").display().to_string();
    for (option, value, wanted) in [
        ("--region", "us-west-2", "--region us-west-2: the call does not go there; it goes to us-east-1".to_owned()),
        ("--error-body", "/nowhere", "--error-body /nowhere: cannot read it: No such file".to_owned()),
        ("--error-body", &text, format!("--error-body {text}: neither JSON nor XML with a message")),
        ("--policy", "/nowhere", "--policy /nowhere: No such file".to_owned()),
    ] {
        let error = error(&[CONVERSE, option, value]);
        assert!(error.starts_with(&wanted), "{error}");
    }
    for (option, value) in [("--time", "2026-01-02"), ("--path", "satellite")] {
        assert!(explain(&[CONVERSE, option, value]).unwrap_err().to_string().contains(option));
    }
}

#[test]
fn a_record_gives_route_and_reasons_only() {
    let record = json!({
        "operation": "Converse",
        "model_asked": "anthropic.claude-opus-5",
        "principal": "spiffe://x/ns/restricted/sa/y",
        "route_class": "any",
        "path": "internet",
        "region": "us-east-1",
        "bytes_in": 100,
    });
    let report = report(&[&record.to_string()]);
    assert_eq!(report.routes[0].cluster, "bedrock-runtime.private-only");
    assert!(report.attempts.is_empty());
    let differs = report.record.unwrap().differs;
    assert_eq!(
        differs,
        [
            "class: with this document class private-only takes it",
            "internet in us-east-1: with this document the call does not go there"
        ]
    );
}

#[test]
fn explains_records_of_every_operation() {
    for operation in filter_core::operation::OPERATIONS {
        let record = json!({ "operation": operation.name(), "model_asked": "amazon.titan-embed-text-v2:0" });
        let report = report(&[&record.to_string()]);
        assert_eq!(report.operation.unwrap().name, operation.name());
        // The document lists no optional operations.
        let refused = operation.name() == "InvokeModelWithBidirectionalStream" || operation.group().is_some();
        assert_eq!(report.routes.is_empty(), refused, "{operation}");
    }
}

#[test]
fn paths_as_of_up_choose_the_first_attempt() {
    let path = |arguments: &[&str]| {
        report(&[&[CONVERSE], arguments].concat()).attempts.first().map(|first| first.path.as_str())
    };
    assert_eq!(path(&[]), Some("dx"));
    assert_eq!(path(&["--path", "vpn"]), Some("vpn"));
    assert_eq!(path(&["--path", "internet", "--path", "vpn=10.0.0.1:443"]), Some("vpn"));
    assert_eq!(path(&["--path", "dx/bedrock=10.0.0.1:443"]), None);
    assert_eq!(path(&["--path", "dx@us-west-2=10.0.0.1:443"]), None);
}

#[test]
fn follows_the_environments_order_of_paths() {
    let order = |paths: &'static str| move |name: &str| (name == "BEDROCK_PATHS").then(|| paths.to_owned());
    let report = explain(&[CONVERSE]).unwrap().report(&order("vpn,dx")).unwrap();
    let tries: Vec<&str> = report.routes[0].tries.iter().map(|one| one.path.as_str()).collect();
    assert_eq!((report.routes[0].cluster.as_str(), tries), ("bedrock-runtime.any", vec!["vpn", "dx"]));
    let restricted = [CONVERSE, "--principal", "spiffe://x/ns/restricted/y"];
    let report = explain(&restricted).unwrap().report(&order("internet")).unwrap();
    assert_eq!(report.refusal.unwrap().status, 503);
}

#[test]
fn a_principal_keeps_its_weighted_path() {
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/explain/weighted_classes/policy.json");
    let policy = policy.display().to_string();
    let request =
        ["curl gw/model/claude/converse -d {}", "--policy", &policy, "--principal", "spiffe://example.org/ns/a/sa/b"];
    let report = report(&request);
    assert_eq!((report.routes.len(), report.routes[0].path_weight), (1, None));
    assert!(report.notes.iter().any(|note| note.contains("`weights` (dx 90, vpn 10)")), "{:?}", report.notes);
}

/// The clusters listed for any call include the one that core chooses for this call.
#[test]
fn the_cluster_of_core_is_listed() {
    let mut document: Value = serde_json::from_str(&golden("weighted_classes", "policy.json")).unwrap();
    for class in document["route_classes"].as_array_mut().unwrap() {
        class["region_weights"] = json!({ "us-west-2": 3, "us-east-1": 1 });
    }
    let text = document.to_string();
    let policy = Policy::parse(text.as_bytes(), None).unwrap();
    let converse = "curl gw/model/claude/converse -d {}";
    for (request, principal, count) in [
        (converse, None, 4),
        (converse, Some("spiffe://example.org/ns/restricted/sa/chat"), 2),
        (converse, Some("spiffe://example.org/ns/apps/sa/chat"), 2),
        ("curl gw/model/claude/converse -d {} -H 'x-amzn-bedrock-guardrailidentifier: g'", None, 2),
        ("curl gw/model/claude/converse-stream -d {}", None, 2),
        (
            "curl gw/model/arn%3Aaws%3Abedrock%3Aus-west-2%3A1%3Ainference-profile%2Fus.anthropic.claude-x/invoke -d {}",
            None,
            2,
        ),
    ] {
        let config = Config::parse(text.as_bytes()).unwrap();
        let run = DryRun::new(&config, &policy, principal.map(str::to_owned), SystemTime::now(), &nothing).unwrap();
        let Outcome::Forwarded(call) = run.decide(&Subject::read(request).unwrap()).outcome else {
            panic!("{request}")
        };
        let clusters: Vec<String> = run.routes(&call).into_iter().map(|route| route.cluster).collect();
        assert!(clusters.contains(&call.cluster), "{request}: {} is not in {clusters:?}", call.cluster);
        assert_eq!(clusters.len(), count, "{request}: {clusters:?}");
    }
}

#[test]
fn a_principal_keeps_its_sticky_region() {
    let mut document: Value = serde_json::from_str(&golden("weighted_classes", "policy.json")).unwrap();
    for class in document["route_classes"].as_array_mut().unwrap() {
        class["region_weights"] = json!({ "us-west-2": 3, "us-east-1": 1 });
        class["region_sticky"] = json!(true);
    }
    let text = document.to_string();
    let dir = Dir::new("sticky");
    let file = dir.file("policy.json", &text).display().to_string();
    let converse = "curl gw/model/claude/converse -d {}";
    let (config, policy) = (Config::parse(text.as_bytes()).unwrap(), Policy::parse(text.as_bytes(), None).unwrap());
    let mut clusters = Vec::new();
    for nth in 0..8 {
        let name = format!("spiffe://example.org/ns/a/sa/{nth}");
        let report = report(&[converse, "--policy", &file, "--principal", &name]);
        assert_eq!((report.routes.len(), report.routes[0].region_weight), (1, None), "{name}");
        let note = "first region that `region_weights` (us-east-1 1, us-west-2 3)";
        assert!(report.notes.iter().any(|line| line.contains(note)), "{:?}", report.notes);
        // Each call has another id.
        for _ in 0..4 {
            let run = DryRun::new(&config, &policy, Some(name.clone()), SystemTime::now(), &nothing).unwrap();
            let Outcome::Forwarded(call) = run.decide(&Subject::read(converse).unwrap()).outcome else { panic!() };
            assert_eq!(call.cluster, report.routes[0].cluster, "{name}");
        }
        clusters.push(report.routes[0].cluster.clone());
    }
    assert!(clusters.iter().any(|cluster| *cluster != clusters[0]), "{clusters:?}");
    let report = report(&[converse, "--policy", &file]);
    assert_eq!(report.routes.len(), 4, "a caller without a name: call by call");
}

#[test]
fn reads_a_policy_in_yaml() {
    let dir = Dir::new("yaml");
    let policy = dir.file(
        "policy.yaml",
        "# One class.\nauth: sigv4\nregions: {us-west-2: {}}\nroute_classes:\n- {name: only, paths: [vpn]}\n",
    );
    let report = report(&[CONVERSE, "--policy", &policy.display().to_string()]);
    assert_eq!(report.routes[0].cluster, "bedrock-runtime.only");
    assert_eq!(report.attempts[0].host, "bedrock-runtime.us-west-2.amazonaws.com");
}

#[test]
fn fetched_credentials_need_no_source() {
    let dir = Dir::new("fetched");
    let policy = json!({
        "regions": { "us-east-1": {} },
        "credentials": { "source": "imds", "cluster": "imds" },
        "credential_sets": { "other": { "source": "container", "cluster": "container" } },
        "route_classes": [{ "name": "any", "paths": ["dx"], "credentials": "other" }],
    });
    let policy = dir.file("policy.json", policy.to_string()).display().to_string();
    assert!(report(&[CONVERSE, "--policy", &policy]).attempts[0].signature.is_some());
}

#[test]
fn refuses_a_body_that_is_too_long() {
    let dir = Dir::new("long");
    for auth in ["sigv4", "bearer"] {
        let policy = json!({
            "auth": auth,
            "max_body_bytes": 1,
            "regions": { "us-east-1": {} },
            "route_classes": [{ "name": "any", "paths": ["dx"] }],
        });
        let policy = dir.file("policy.json", policy.to_string()).display().to_string();
        for announced in ["", " -H 'transfer-encoding: chunked'"] {
            let report = report(&[&format!("{CONVERSE}{announced}"), "--policy", &policy]);
            assert_eq!(report.refusal.unwrap().status, 413, "{auth}{announced}");
        }
    }
}

#[test]
fn a_resource_is_explained_by_its_entry() {
    let dir = Dir::new("resource");
    let profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6";
    let curl = format!("curl http://gw/model/{}/converse -d {{}}", profile.replace(':', "%3A").replace('/', "%2F"));
    let explained = |resolve: Value| {
        let document = json!({
            "regions": {"us-east-1": {}}, "resolve": resolve,
            "route_classes": [
                {"name": "private", "models": ["anthropic.*"], "paths": ["dx"]},
                {"name": "any", "paths": ["dx", "internet"]},
            ],
        });
        let policy = dir.file("policy.json", document.to_string()).display().to_string();
        serde_json::to_value(report(&[&curl, "--policy", &policy])).unwrap()
    };
    let known = explained(json!({"refresh_seconds": 0, "runs": {profile: ["anthropic.claude-opus-5"]}}));
    assert!(known["notes"].to_string().contains("the resource runs anthropic.claude-opus-5"), "{known}");
    let takes = |verdict: &&Value| verdict["takes"] == json!(true);
    assert_eq!(known["classes"].as_array().unwrap().iter().find(takes).unwrap()["class"], json!("private"), "{known}");
    let unknown = explained(json!({}));
    assert!(unknown["notes"].to_string().contains("what the resource runs is not known here"), "{unknown}");
    assert_eq!(unknown["refusal"]["status"], json!(503), "{unknown}");
}

/// Envoy's filter hashes it on the way to the signer; `explain` does so in its place.
#[test]
fn explains_the_signature_of_a_long_body() {
    let body = format!(r#"{{"messages":[{{"role":"user","content":[{{"text":"{}"}}]}}]}}"#, "a".repeat(20_000));
    let call = CONVERSE.replace("{}", &format!("'{body}'"));
    let report = report(&[&call]);
    let signature = report.attempts[0].signature.as_ref().unwrap();
    let hash = filter_core::encoding::hex(&Sha256::digest(&body));
    assert!(signature.canonical_request.ends_with(&hash), "{hash}: {}", signature.canonical_request);
}
