//! Entries that are rejected are kept, listed and read again; a database of another release is migrated or refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::fs;
use std::path::Path;

use audit_collector::batch::{Batch, Rejected};
use audit_collector::query::Query;
use audit_collector::store::sqlite::SqliteStore;
use common::program::{program, start, terminate};
use common::{ago, line, record, wait_for};
use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use prost::Message;
use serde_json::Value;
use time::OffsetDateTime;

fn output(arguments: &[&str]) -> String {
    let output = program(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A feed entry, and one without a start time.
fn entries() -> [Vec<u8>; 2] {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode/answered/als.bin");
    let mut entry = HttpAccessLogEntry::decode(fs::read(file).unwrap().as_slice()).unwrap();
    let common = entry.common_properties.as_mut().unwrap();
    common.start_time.as_mut().unwrap().seconds = OffsetDateTime::now_utc().unix_timestamp();
    let good = entry.encode_to_vec();
    entry.common_properties.as_mut().unwrap().start_time = None;
    [good, entry.encode_to_vec()]
}

#[test]
fn rejected_entries_are_listed_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::open(&path).unwrap();
    let db = path.to_str().unwrap();
    // As if an older release had rejected them.
    let long = line("long").replace("10.1.2.3", &"x".repeat(50_000));
    let [good, bad] = entries();
    let kept = record("kept", &ago(60));
    let other = serde_json::to_vec(&record("kept", &ago(50))).unwrap();
    let rejected = [
        ("file", line("one").into_bytes()),
        ("file", long.into_bytes()),
        ("file", b"garbage\x1b".to_vec()),
        ("file", vec![b'x'; 100_000]),
        ("als", good),
        ("als", bad),
        ("store", other),
    ];
    let rejected = rejected.iter().zip(0..).map(|((source, content), offset)| {
        Rejected::new(source, "access.log".to_owned(), offset, "an older release".to_owned(), content)
    });
    store.write(&Batch { records: vec![kept.clone()], rejected: rejected.collect(), ..Batch::default() }).unwrap();

    let listed = output(&["rejected", "list", "--sqlite", db]);
    assert_eq!(listed.lines().count(), 7);
    assert!(listed.contains("file  access.log offset 0: an older release"), "{listed}");
    let json = output(&["rejected", "list", "--sqlite", db, "--json"]);
    assert!(!json.contains('\x1b'));
    let json: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&json[2]["content"], &json[3]["whole"]), (&"garbage\u{1b}".into(), &false.into()));

    assert_eq!(output(&["rejected", "retry", "--sqlite", db]), "stored 3, still rejected 4\n");
    let query = Query { limit: 10, ..Query::default() };
    let found = store.query(&query, OffsetDateTime::now_utc()).unwrap();
    assert_eq!(found.len(), 4);
    assert!(found.contains(&kept), "a stored record stays");
    let left = output(&["rejected", "list", "--sqlite", db]);
    for reason in ["not a log entry", "not kept as a whole", "start time is missing", "belongs to another exchange"] {
        assert!(left.contains(reason), "{reason}: {left}");
    }
    assert_eq!(output(&["rejected", "retry", "--sqlite", db]), "stored 0, still rejected 4\n");
}

#[tokio::test]
async fn a_line_that_was_rejected_is_kept_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (log, path) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let bad = line("bad").replace("\"status\":200", "\"status\":\"ok\"").replace("10.1.2.3", &"x".repeat(9_000));
    fs::write(&log, bad.clone() + &line("good")).unwrap();
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", path.to_str().unwrap()];
    let (child, _) = start(&mut program(&arguments));
    let store = SqliteStore::open_to_read(&path).unwrap();
    wait_for("the entry", || store.rejected(0, 1).unwrap().len() == 1).await;
    terminate(child);
    let kept = store.rejected(0, 10).unwrap();
    assert_eq!((kept[0].entry.text(), kept[0].entry.whole), (bad.trim_end().into(), true));
}

#[test]
fn an_older_file_is_migrated_to_keep_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE records (request_id TEXT NOT NULL PRIMARY KEY, time TEXT NOT NULL, attempts INTEGER NOT NULL,
           status INTEGER NOT NULL, bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, latency_ms INTEGER NOT NULL,
           expires_at INTEGER NOT NULL) STRICT;
         CREATE TABLE checkpoints (log TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL) STRICT;
         CREATE TABLE rejected (seen_at INTEGER NOT NULL, source TEXT NOT NULL, file TEXT NOT NULL, start INTEGER NOT NULL,
           reason TEXT NOT NULL, content TEXT NOT NULL) STRICT;
         PRAGMA user_version = 1;",
    )
    .unwrap();
    let mut insert = db.prepare("INSERT INTO rejected VALUES (1, ?, 'access.log', 0, 'older', ?)").unwrap();
    let cut: String = line("cut").repeat(20).chars().take(4096).collect();
    for (source, content) in
        [("file", line("one")), ("file", cut), ("als", "412 bytes of HTTPAccessLogEntry".to_owned())]
    {
        insert.execute([source, &content]).unwrap();
    }
    let name = path.to_str().unwrap();
    // Listed without a migration, too.
    assert_eq!(output(&["rejected", "list", "--sqlite", name]).lines().count(), 3);
    assert_eq!(output(&["rejected", "retry", "--sqlite", name]), "stored 1, still rejected 2\n");
    db.execute_batch("PRAGMA user_version = 99").unwrap();
    let refused = program(&["rejected", "retry", "--sqlite", name]).output().unwrap();
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(stderr.contains("schema version 99: a newer release of audit-collector wrote it"), "{stderr}");
}
