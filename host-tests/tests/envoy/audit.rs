//! Every exchange leaves one record, the same in SQLite and in DynamoDB.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::clients::{assert_all_answered, javascript, python};
use crate::harness::{Harness, Keys, eventually, required};

const TABLE: &str = "bedrock-audit";

/// A child that ends with the test: asked to, so that it can store what it still holds.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// DynamoDB Local on a free port; its URL.
fn dynamodb() -> (Ended, String) {
    let dir = required("DYNAMODB_LOCAL_DIR");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("java");
    command.arg(format!("-Djava.library.path={}", dir.join("DynamoDBLocal_lib").display())).arg("-jar");
    // It writes a file into its working directory.
    command.current_dir(&dir).arg("DynamoDBLocal.jar").args(["-inMemory", "-port", &port.to_string()]);
    let child = Ended(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually("DynamoDB Local", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    (child, format!("http://127.0.0.1:{port}"))
}

fn collector() -> Command {
    let mut command = Command::new(required("AUDIT_COLLECTOR_BIN"));
    command.env("AWS_ACCESS_KEY_ID", "local").env("AWS_SECRET_ACCESS_KEY", "local").env("AWS_REGION", "us-gov-west-1");
    command.env_remove("AWS_SESSION_TOKEN");
    command
}

/// The records of a store, by request id.
fn records(store: &[&str]) -> BTreeMap<String, Value> {
    let output =
        collector().arg("query").args(store).args(["--json", "--kind", "calls", "--limit", "1000"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = all.len();
    let by_id: BTreeMap<String, Value> =
        all.into_iter().map(|record| (record["request_id"].as_str().unwrap().to_owned(), record)).collect();
    assert_eq!(by_id.len(), count, "a request id twice");
    by_id
}

#[test]
fn both_stores_have_every_exchange() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = dir.path().join("audit.db");
    let harness =
        Harness::new(Keys::LongLived, &["dx", "internet"], |double| double, &["--audit", sqlite.to_str().unwrap()]);
    let (_database, url) = dynamodb();
    let dynamo = ["--dynamodb", TABLE, "--endpoint-url", &url];
    let mut second = collector();
    second.arg("run").arg("--file").arg(harness.access_log()).args(dynamo).arg("--create-table");
    let second = Ended(second.stdout(Stdio::null()).spawn().unwrap());

    let answered = python("operations", &harness.gateway.http);
    assert_all_answered(&answered);
    assert_all_answered(&javascript("operations", &harness.gateway.http));
    let refused = python("errors", &harness.gateway.http);
    let (status, ..) = harness.gateway.raw(b"GET /elsewhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(status, 404);
    let exchanges = answered.len() + 3 + refused.len() + 1;

    // The gateway ends and its collector has stored all; the other follows the file.
    let Harness { gateway, .. } = harness;
    gateway.stop();
    let in_sqlite = records(&["--sqlite", sqlite.to_str().unwrap()]);
    assert_eq!(in_sqlite.len(), exchanges);
    let in_dynamo = eventually("DynamoDB's records", || Some(records(&dynamo)).filter(|all| all.len() >= exchanges));
    drop(second);
    assert_eq!(in_sqlite, in_dynamo);

    for call in &answered {
        check_answered(call, &in_sqlite);
    }
    for record in in_sqlite.values() {
        check_expiry(record);
    }
    let of = |error: &str| in_sqlite.values().filter(|record| record["error_type"] == error).count();
    assert_eq!(of("UnknownOperationException"), 1);
    let unknown = in_sqlite.values().filter(|record| record["unknown_path"] != Value::Null);
    assert_eq!(unknown.map(|record| &record["unknown_path"]).collect::<Vec<_>>(), ["GET /elsewhere"]);
    let broken: Vec<_> = in_sqlite
        .values()
        .filter(|record| {
            let streams = record["operation"].as_str().is_some_and(|name| name.ends_with("Stream"));
            let answered = streams && record["status"] == 200;
            let wanted = match (answered, &record["error_type"]) {
                (false, _) => Value::Null,
                (true, Value::Null) => "complete".into(),
                (true, _) => "incomplete".into(),
            };
            record["stream_end"] != wanted
        })
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    // One before the stream, one inside it after a 200.
    assert!(of("ThrottlingException") >= 1, "{in_sqlite:#?}");
    secrets_stay_out(&sqlite);
}

/// The record of a call has its path, status and tokens.
fn check_answered(call: &Value, records: &BTreeMap<String, Value>) {
    let record = records.values().find(|record| record["upstream_request_id"] == call["request_id"]);
    let record = record.unwrap_or_else(|| panic!("no record of {call}"));
    assert_eq!((&record["path"], &record["status"]), (&"dx".into(), &200.into()), "{record}");
    assert_eq!(record["region"], "us-east-1");
    if let Some(usage) = call.get("usage") {
        assert_eq!(record["tokens_in"], usage["inputTokens"], "{call}");
        assert_eq!(record["tokens_out"], usage["outputTokens"], "{call}");
    }
    if let Some(metrics) = call.get("metrics") {
        assert_eq!(record["tokens_in"], metrics["inputTokenCount"], "{call}");
        assert_eq!(record["tokens_out"], metrics["outputTokenCount"], "{call}");
    }
    if call["call"] == "InvokeModel" {
        assert!(record["tokens_out"].as_u64() > Some(0), "{record}");
    }
}

/// Thirty days after its time, to the second.
fn check_expiry(record: &Value) {
    let format = time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::parse(record["time"].as_str().unwrap(), &format).unwrap();
    assert_eq!(record["expires_at"].as_i64(), Some(time.unix_timestamp() + 30 * 86_400), "{record}");
}

/// No prompt, key or token is in the file.
fn secrets_stay_out(sqlite: &Path) {
    let bytes = std::fs::read(sqlite).unwrap();
    for secret in ["hello there", "callers-own", "wJalrXUtnFEMI"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
    }
}
