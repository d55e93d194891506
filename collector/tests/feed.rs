//! A feed without a file: what the collector's kills lose is counted, and no more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use audit_collector::query::Query;
use audit_collector::store::sqlite::SqliteStore;
use common::program::{program, start, terminate};
use common::wait_for;
use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries,
};
use envoy_types::pb::google::protobuf::{Any, BytesValue};
use prost::Message;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// An entry that Envoy wrote, of the call that the VM logged under this number.
fn entry(number: u64) -> HttpAccessLogEntry {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode/answered/als.bin");
    let mut entry = HttpAccessLogEntry::decode(std::fs::read(file).unwrap().as_slice()).unwrap();
    let common = entry.common_properties.as_mut().unwrap();
    let vm = serde_json::json!({"id": "vm-1", "envoy": "e", "begun": number, "logged": number, "in_flight": 0});
    let facts = serde_json::json!({"id": format!("c-{number}"), "usage": {}, "vm": vm}).to_string();
    let value = BytesValue { value: facts.into_bytes() }.encode_to_vec();
    let any = Any { type_url: "type.googleapis.com/google.protobuf.BytesValue".to_owned(), value };
    common.filter_state_objects = [("wasm.bedrock.exchange".to_owned(), any)].into();
    common.start_time.as_mut().unwrap().seconds = OffsetDateTime::now_utc().unix_timestamp();
    entry
}

fn message(entries: Vec<HttpAccessLogEntry>) -> StreamAccessLogsMessage {
    let identifier = Some(Identifier { node: None, log_name: "bedrock-audit".to_owned() });
    let log_entries = Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries }));
    StreamAccessLogsMessage { identifier, log_entries }
}

async fn open(address: &str) -> mpsc::Sender<StreamAccessLogsMessage> {
    let (send, receive) = mpsc::channel(1);
    let mut client = AccessLogServiceClient::connect(format!("http://{address}")).await.unwrap();
    tokio::spawn(async move { client.stream_access_logs(ReceiverStream::new(receive)).await });
    send
}

/// Numbers of stored entries, and of holes.
fn stored(db: &Path) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let store = SqliteStore::open_to_read(db).unwrap();
    let query = Query { limit: 1_000_000, ..Query::default() };
    let (mut received, mut lost) = (BTreeSet::new(), BTreeSet::new());
    for record in store.query(&query, OffsetDateTime::now_utc()).unwrap() {
        if let Some(range) = record.request_id.strip_prefix("hole-vm-1-") {
            let (first, last) = range.split_once('-').unwrap();
            let range = first.parse().unwrap()..=last.parse().unwrap();
            assert_eq!(record.lost, Some(range.clone().count() as u64));
            assert!(range.clone().all(|number| !lost.contains(&number)), "twice: {range:?}");
            lost.extend(range);
        } else if let Some(number) = record.request_id.strip_prefix("c-") {
            received.insert(number.parse().unwrap());
        }
    }
    (received, lost)
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_of_kills_are_counted_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("a.db");
    let arguments = ["run", "--als", "127.0.0.1:0", "--sqlite", db.to_str().unwrap(), "--missing-after", "2"];
    let run = || {
        let (child, ready) = start(&mut program(&arguments));
        let address = ready.split("als=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        (child, address)
    };
    let mut number = 0;
    let mut next = move || {
        number += 1;
        entry(number)
    };
    for round in 0..9 {
        let (mut child, address) = run();
        let stream = open(&address).await;
        let kill = tokio::time::sleep(Duration::from_millis(150 + round * 41 % 130));
        tokio::pin!(kill);
        loop {
            let entries = message((0..20).map(|_| next()).collect());
            tokio::select! {
                () = &mut kill => break,
                sent = stream.send(entries) => sent.unwrap(),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (child, address) = run();
    let stream = open(&address).await;
    stream.send(message(vec![next()])).await.unwrap();
    let sent = (next().common_properties.unwrap().filter_state_objects, ());
    let facts = BytesValue::decode(sent.0["wasm.bedrock.exchange"].value.as_slice()).unwrap().value;
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
    let last = facts["vm"]["logged"].as_u64().unwrap() - 1;
    wait_for("the last entry", || stored(&db).0.contains(&last)).await;
    wait_for("all numbers", || {
        let (received, lost) = stored(&db);
        received.len() + lost.len() >= usize::try_from(last).unwrap()
    })
    .await;
    let (received, lost) = stored(&db);
    println!("{last} sent, {} stored, {} lost", received.len(), lost.len());
    assert!(received.is_disjoint(&lost) && !lost.is_empty(), "{lost:?}");
    assert_eq!(received.union(&lost).copied().collect::<BTreeSet<_>>(), (1..=last).collect());
    terminate(child);
}

/// A store that is down at the stop: the ledger has the entries, and the next start stores them.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_keeps_entries_in_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("a.db");
    let arguments = ["run", "--als", "127.0.0.1:0", "--sqlite", db.to_str().unwrap(), "--missing-after", "2"];
    let (child, ready) = start(&mut program(&arguments));
    let other = rusqlite::Connection::open(&db).unwrap();
    other.execute_batch("ALTER TABLE records RENAME TO away").unwrap();
    let stream = open(ready.split("als=").nth(1).unwrap().split(' ').next().unwrap()).await;
    stream.send(message((1..=700).map(entry).collect())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    terminate(child);
    other.execute_batch("ALTER TABLE away RENAME TO records").unwrap();
    let (child, _) = start(&mut program(&arguments));
    wait_for("all entries", || stored(&db).0.len() == 700).await;
    terminate(child);
}
