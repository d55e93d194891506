//! A client of the Lambda-based proxy works with a changed URL.

use std::process::Command;

use serde_json::{Value, json};

use crate::clients::{call, clients, run};
use crate::harness::{Harness, Keys, SONNET, eventually, policy, required, text_of};

fn lambda_client(url: &str) -> Vec<Value> {
    run(Command::new(required("GATEWAY_PYTHON")).arg(clients().join("lambda_client.py")).arg(format!("{url}/v1")))
}

fn gateway(keys: Keys) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let policy = policy(dir.path(), "  deny: []\n", "  deny: [meta.*]\n\nlambda_api: {}\n");
    Harness::new(keys, &["internet"], |double| double, &["--policy", &policy])
}

#[test]
fn a_client_of_the_lambda_works_unchanged() {
    let harness = gateway(Keys::LongLived);
    let calls = lambda_client(&harness.gateway.http);
    for name in ["titan", "claude", "profile", "no version", "text", "vpn", "5 MB", "large answer"] {
        let row = call(&calls, name);
        assert_eq!(row["status"], 200, "{row}");
        assert_eq!(row["answer"].as_object().unwrap().keys().collect::<Vec<_>>(), ["body", "contentType"], "{name}");
        assert_eq!(row["answer"]["contentType"], "application/json", "{name}");
        let model: Value = serde_json::from_str(row["answer"]["body"].as_str().unwrap()).unwrap();
        let text = if name == "titan" { &model["completion"] } else { &model["content"][0]["text"] };
        assert!(text.is_string(), "{name}: {model}");
        let headers = &row["headers"];
        assert_eq!(
            (&headers["x-source-partition"], &headers["x-destination-partition"]),
            (&json!("govcloud"), &json!("commercial"))
        );
        assert!(headers["x-request-id"].as_str().is_some_and(|id| id.len() == 36), "{headers}");
    }
    assert!(call(&calls, "large answer")["answer"]["body"].as_str().unwrap().len() >= 5000 << 10);

    let models = &call(&calls, "models")["answer"];
    let ids: Vec<&str> =
        models["models"].as_array().unwrap().iter().filter_map(|model| model["modelId"].as_str()).collect();
    assert_eq!(models["totalModels"], ids.len());
    assert!(ids.contains(&SONNET) && !ids.iter().any(|id| id.starts_with("meta.")), "{ids:?}");
    assert_eq!(
        (&models["region"]["region"], &models["source"]["region"]),
        (&json!("us-east-1"), &json!("us-gov-west-1"))
    );
    assert_eq!(call(&calls, "route")["answer"]["status"], "operational");

    for (name, status, code) in [
        ("throttled", 429, "ThrottlingException"),
        ("model error", 424, "ModelErrorException"),
        ("unknown model", 404, "ResourceNotFoundException"),
        ("denied model", 403, "AccessDeniedException"),
        ("wrong body", 400, "ValidationException"),
        ("no model", 400, "ValidationException"),
        ("not JSON", 400, "ValidationException"),
        ("no path", 404, "UnknownOperationException"),
    ] {
        let row = call(&calls, name);
        let error = &row["answer"]["error"];
        assert_eq!((&row["status"], &error["code"]), (&json!(status), &json!(code)), "{row}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{row}");
        assert_eq!(error["requestId"], row["headers"]["x-request-id"], "{row}");
    }
    // Half of an answer never looks like a whole one. Envoy gives this reply past the filter.
    let cut = call(&calls, "cut");
    assert_eq!((&cut["status"], cut["answer"]["message"].is_string()), (&json!(503), true), "{cut}");
    harness.assert_no_violation();

    let sent = harness.received();
    let paths: Vec<&str> = sent.iter().map(|request| request.path.as_str()).collect();
    assert!(paths.iter().all(|path| path.starts_with("/model/") || *path == "/foundation-models"), "{paths:?}");
    let records: Vec<Value> = eventually("the access log", || {
        let lines: Vec<Value> =
            text_of(&harness.access_log()).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() >= calls.len()).then_some(lines)
    });
    let facts = |line: &Value| -> Value { serde_json::from_str(line["exchange"].as_str().unwrap()).unwrap() };
    let facts: Vec<Value> = records.iter().map(facts).collect();
    assert!(facts.iter().all(|facts| facts["api"] == "lambda"), "{facts:#?}");
    let id = &call(&calls, "claude")["headers"]["x-request-id"];
    let claude = facts.iter().find(|facts| facts["id"] == *id).unwrap();
    assert_eq!(
        (&claude["operation"], &claude["model"], &claude["class"]),
        (&json!("InvokeModel"), &json!(SONNET), &json!("any"))
    );
    assert!(claude["usage"]["output"].as_u64().is_some_and(|tokens| tokens > 0), "{claude}");
}

#[test]
fn refuses_lambda_calls_without_keys() {
    let harness = gateway(Keys::None);
    let calls = lambda_client(&harness.gateway.http);
    for name in ["claude", "models"] {
        let row = call(&calls, name);
        assert_eq!(
            (&row["status"], &row["answer"]["error"]["code"]),
            (&json!(503), &json!("ServiceUnavailableException")),
            "{row}"
        );
    }
    assert!(harness.received().is_empty());
}

#[test]
fn lambda_calls_go_with_an_api_key_too() {
    let harness = Harness::lone(Keys::Api);
    // Without the key of the document the paths are unknown, in Bedrock's own form.
    let row = call(&lambda_client(&harness.gateway.http), "claude").clone();
    assert_eq!((&row["status"], &row["answer"]["message"].is_string()), (&json!(404), &true), "{row}");
    drop(harness);
    let dir = tempfile::tempdir().unwrap();
    let bearer = policy(dir.path(), "auth: sigv4", "auth: bearer\nlambda_api: {}");
    let harness = Harness::new(Keys::Api, &["internet"], |double| double, &["--policy", &bearer]);
    let calls = lambda_client(&harness.gateway.http);
    for name in ["claude", "text", "models", "5 MB"] {
        assert_eq!(call(&calls, name)["status"], 200, "{calls:#?}");
    }
    harness.assert_no_violation();
}
