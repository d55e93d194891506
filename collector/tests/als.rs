//! Tests the access log service with a gRPC client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use audit_collector::query::Query;
use audit_collector::report::{Counts, Report};
use audit_collector::run::{RunError, Sources, run};
use audit_collector::source::als;
use audit_collector::source::buffer::{Buffer, Capacity};
use audit_collector::store::Store;
use audit_collector::store::sqlite::SqliteStore;
use common::wait_for;
use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogType, HttpAccessLogEntry, TcpAccessLogEntry};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries,
};
use prost::Message;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;

/// An entry that Envoy wrote, with another id.
fn entry(id: &str) -> HttpAccessLogEntry {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode/answered/als.bin");
    let mut entry = HttpAccessLogEntry::decode(std::fs::read(file).unwrap().as_slice()).unwrap();
    let common = entry.common_properties.as_mut().unwrap();
    common.filter_state_objects = HashMap::new();
    common.stream_id = id.to_owned();
    // The same for both entries of an id.
    static START: LazyLock<i64> = LazyLock::new(|| OffsetDateTime::now_utc().unix_timestamp());
    common.start_time.as_mut().unwrap().seconds = *START;
    entry
}

fn message(entries: Vec<HttpAccessLogEntry>) -> StreamAccessLogsMessage {
    let identifier = Some(Identifier { node: None, log_name: "bedrock-audit".to_owned() });
    let log_entries = Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries }));
    StreamAccessLogsMessage { identifier, log_entries }
}

/// Opens a stream as Envoy does: it stays open and gets no response.
async fn open(address: SocketAddr) -> mpsc::Sender<StreamAccessLogsMessage> {
    let (send, receive) = mpsc::channel(100);
    let mut client = AccessLogServiceClient::connect(format!("http://{address}")).await.unwrap();
    tokio::spawn(async move { client.stream_access_logs(ReceiverStream::new(receive)).await });
    send
}

struct Running {
    address: SocketAddr,
    report: Arc<Report>,
    stop: watch::Sender<bool>,
    ended: tokio::task::JoinHandle<Result<Counts, RunError>>,
}

async fn start(store: Store) -> Running {
    let report = Arc::new(Report::default());
    let (stop, stopped) = watch::channel(false);
    let (ready, sources) = oneshot::channel();
    let to_run = Arc::clone(&report);
    let ended = tokio::spawn(async move {
        let sources = Sources { als: Some("127.0.0.1:0".parse().unwrap()), file: None, ..Sources::default() };
        run(&sources, &store, to_run, stopped, |sources| ready.send(sources.to_owned()).unwrap()).await
    });
    let address = sources.await.unwrap().strip_prefix("als=").unwrap().parse().unwrap();
    Running { address, report, stop, ended }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_several_streams_and_stops_while_open() {
    let folder = tempfile::tempdir().unwrap();
    let db = SqliteStore::open(&folder.path().join("a.db")).unwrap();
    let running = start(Store::Sqlite(db.clone())).await;
    let (one, two) = (open(running.address).await, open(running.address).await);
    for number in 0..30 {
        one.send(message(vec![entry(&format!("a{number}")), entry(&format!("b{number}"))])).await.unwrap();
        two.send(message(vec![entry(&format!("c{number}")), entry(&format!("a{number}"))])).await.unwrap();
    }
    let mut started = entry("not-yet");
    started.common_properties.as_mut().unwrap().access_log_type = AccessLogType::DownstreamStart as i32;
    one.send(message(vec![started, HttpAccessLogEntry::default()])).await.unwrap();
    let tcp = TcpAccessLogEntries { log_entry: vec![TcpAccessLogEntry::default()] };
    let tcp = StreamAccessLogsMessage { identifier: None, log_entries: Some(LogEntries::TcpLogs(tcp)) };
    two.send(tcp).await.unwrap();
    wait_for("all entries", || {
        let counts = running.report.counts();
        counts.stored == 120 && counts.rejected == 1 && counts.skipped == 2
    })
    .await;
    running.stop.send(true).unwrap();
    let counts = tokio::time::timeout(Duration::from_secs(5), running.ended).await.unwrap().unwrap().unwrap();
    assert_eq!(counts, Counts { stored: 120, repeated: 30, rejected: 1, dropped: 0, skipped: 2, ..Counts::default() });
    let query = Query { limit: 1000, ..Query::default() };
    assert_eq!(db.query(&query, OffsetDateTime::now_utc()).unwrap().len(), 90);
}

#[tokio::test(flavor = "multi_thread")]
async fn loses_nothing_while_the_store_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let running = start(Store::Sqlite(SqliteStore::open(&path).unwrap())).await;
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("ALTER TABLE records RENAME TO away").unwrap();
    let stream = open(running.address).await;
    stream.send(message((0..100).map(|number| entry(&format!("e{number}"))).collect())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(running.report.counts().stored, 0);
    other.execute_batch("ALTER TABLE away RENAME TO records").unwrap();
    wait_for("the store to accept writes", || running.report.counts().stored == 100).await;
    running.stop.send(true).unwrap();
    running.ended.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_drops_and_counts_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let db = SqliteStore::open(&folder.path().join("a.db")).unwrap();
    let report = Arc::new(Report::default());
    let buffer = Arc::new(Buffer::new(Capacity { entries: 10, bytes: 1 << 20 }, Arc::clone(&report)));
    let (stop, stopped) = watch::channel(false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(als::serve(listener, Arc::clone(&buffer), stopped.clone()));
    let stream = open(address).await;
    stream.send(message((0..25).map(|number| entry(&format!("e{number:02}"))).collect())).await.unwrap();
    wait_for("drops", || report.counts().dropped == 15).await;
    stop.send(true).unwrap();
    serving.await.unwrap().unwrap();
    assert_eq!(buffer.drain(&Store::Sqlite(db.clone()), None, stopped).await, 0);
    let query = Query { limit: 1000, ..Query::default() };
    let mut kept: Vec<_> =
        db.query(&query, OffsetDateTime::now_utc()).unwrap().into_iter().map(|record| record.request_id).collect();
    kept.sort();
    assert_eq!(kept, (15..25).map(|number| format!("e{number}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_entries_fill_the_buffer_earlier() {
    let report = Arc::new(Report::default());
    let buffer = Arc::new(Buffer::new(Capacity { entries: 10_000, bytes: 200_000 }, Arc::clone(&report)));
    let (stop, stopped) = watch::channel(false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(als::serve(listener, Arc::clone(&buffer), stopped.clone()));
    let stream = open(address).await;
    // Entries that cannot be decoded are kept as they are; here 20 kB each.
    for number in 0..50 {
        let mut large = entry(&format!("e{number:02}{}", "x".repeat(20_000)));
        large.common_properties.as_mut().unwrap().start_time = None;
        stream.send(message(vec![large])).await.unwrap();
    }
    wait_for("drops", || report.counts().dropped >= 40).await;
    stop.send(true).unwrap();
    serving.await.unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let db = SqliteStore::open(&folder.path().join("a.db")).unwrap();
    assert_eq!(buffer.drain(&Store::Sqlite(db.clone()), None, stopped).await, 0);
    let kept = db.rejected(0, 100).unwrap();
    assert!((5..10).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.len() as u64 + report.counts().dropped, 50);
}
