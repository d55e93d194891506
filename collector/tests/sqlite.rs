//! The SQLite store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::path::Path;

use audit::FieldValue;
use audit_collector::batch::{Batch, Rejected};
use audit_collector::checkpoint::Checkpoint;
use audit_collector::query::{Cursor, Progress, Query, Status, Zone, time_argument};
use audit_collector::store::sqlite::{SqliteError, SqliteStore};
use common::{ago, expected, full_record, record};
use time::OffsetDateTime;

fn all() -> Query {
    Query { limit: 1000, ..Query::default() }
}

fn batch(records: Vec<audit::AuditRecord>) -> Batch {
    Batch { records, ..Batch::default() }
}

fn ids(store: &SqliteStore, query: &Query) -> Vec<String> {
    let now = OffsetDateTime::now_utc();
    store.query(query, now).unwrap().into_iter().map(|record| record.request_id).collect()
}

#[test]
fn a_stored_record_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("a.db")).unwrap();
    let first = record("r-1", &ago(60));
    let second = audit::AuditRecord { status: 500, ..first.clone() };
    let written = store.write(&batch(vec![first.clone(), first.clone(), second.clone()])).unwrap();
    assert_eq!((written.stored, written.repeated, written.refused.len()), (2, 1, 1));
    let written = store.write(&batch(vec![second, first.clone()])).unwrap();
    assert_eq!((written.stored, written.repeated), (1, 1));
    assert_eq!(written.refused[0].reason, "the stored record of its exchange has another status");
    // A release that did not know a field.
    let older = audit::AuditRecord { principal: None, ..first.clone() };
    assert_eq!(store.write(&batch(vec![older])).unwrap().repeated, 1);
    assert_eq!(store.query(&all(), OffsetDateTime::now_utc()).unwrap(), [first]);
}

#[test]
fn an_entry_replaces_only_what_was_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("a.db")).unwrap();
    for (first, second, kept) in common::REPLACEMENTS {
        let id = format!("{first:?} {second:?}");
        let [first, second] = [first, second].map(|kind| common::of_kind(&id, kind));
        store.write(&batch(vec![first.clone()])).unwrap();
        let written = store.write(&batch(vec![second.clone()])).unwrap();
        assert_eq!((written.stored, written.refused.len()), (1, 0), "{id}");
        let query = Query { request_id: Some(id.clone()), ..all() };
        let found = store.query(&query, OffsetDateTime::now_utc()).unwrap();
        assert_eq!(found, [if kept == 0 { first } else { second }], "{id}");
    }
}

#[test]
fn every_field_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("a.db")).unwrap();
    let full = full_record("r-1", &ago(60));
    store.write(&batch(vec![full.clone()])).unwrap();
    assert_eq!(store.query(&all(), OffsetDateTime::now_utc()).unwrap(), [full]);
}

/// The table of version 0.1. Do not add columns here: a file of that release must stay usable.
const FIRST_RELEASE: &str = "
    CREATE TABLE records (request_id TEXT NOT NULL PRIMARY KEY, time TEXT NOT NULL, principal TEXT, source_address TEXT,
        operation TEXT, model_asked TEXT, model_sent TEXT, route_class TEXT, region TEXT, path TEXT,
        attempts INTEGER NOT NULL, status INTEGER NOT NULL, error_type TEXT, bytes_in INTEGER NOT NULL,
        bytes_out INTEGER NOT NULL, tokens_in INTEGER, tokens_out INTEGER, tokens_cache_read INTEGER,
        tokens_cache_write INTEGER, latency_ms INTEGER NOT NULL, first_byte_ms INTEGER, upstream_request_id TEXT,
        expires_at INTEGER NOT NULL) STRICT;
    CREATE TABLE checkpoints (log TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL) STRICT;
    CREATE TABLE rejected (seen_at INTEGER NOT NULL, source TEXT NOT NULL, file TEXT NOT NULL, start INTEGER NOT NULL,
        reason TEXT NOT NULL, content TEXT NOT NULL) STRICT;
    PRAGMA user_version = 1;";

/// Opens a file that an older release wrote, to read and then to write.
fn assert_usable(older: &str, columns: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch(older).unwrap();
    let expires = OffsetDateTime::now_utc().unix_timestamp() + 60;
    let insert = format!("INSERT INTO records ({columns}) VALUES ('old', ?, 1, 200, 2, 3, 4, ?)");
    other.execute(&insert, rusqlite::params![ago(60), expires]).unwrap();

    let reader = SqliteStore::open_to_read(&path).unwrap();
    assert_eq!(ids(&reader, &all()), ["old"]);
    let full = full_record("new", &ago(1));
    for _ in 0..2 {
        let store = SqliteStore::open(&path).unwrap();
        store.write(&batch(vec![full.clone()])).unwrap();
    }
    for store in [reader, SqliteStore::open_to_read(&path).unwrap()] {
        let found = store.query(&all(), OffsetDateTime::now_utc()).unwrap();
        assert_eq!(found[0], full);
        assert_eq!((found[1].request_id.as_str(), found[1].status, &found[1].principal), ("old", 200, &None));
    }
}

const REQUIRED: &str = "request_id, time, attempts, status, bytes_in, bytes_out, latency_ms, expires_at";

#[test]
fn a_file_of_the_first_release_stays_usable() {
    assert_usable(FIRST_RELEASE, REQUIRED);
}

#[test]
fn columns_that_a_file_lacks_are_added() {
    let older = FIRST_RELEASE.replace(" principal TEXT,", "").replace(" first_byte_ms INTEGER,", "");
    assert!(older.len() < FIRST_RELEASE.len() - 30);
    assert_usable(&older, REQUIRED);
}

#[test]
fn refuses_another_exchange_under_a_stored_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::open(&path).unwrap();
    let (first, second) = (record("r-1", &ago(60)), record("r-1", &ago(59)));
    let written = store.write(&batch(vec![first.clone(), second])).unwrap();
    assert_eq!((written.stored, written.repeated), (1, 0));
    let reason = format!("its request id belongs to another exchange, of {}", first.time);
    assert_eq!((written.refused[0].file.as_str(), written.refused[0].reason.as_str()), ("r-1", reason.as_str()));
    let other = rusqlite::Connection::open(&path).unwrap();
    let kept: String = other.query_row("SELECT content FROM rejected", [], |row| row.get(0)).unwrap();
    assert!(kept.contains(r#""request_id":"r-1""#), "{kept}");
    assert!(store.rejected(0, 10).unwrap()[0].entry.whole);
}

#[test]
fn queries_filter_and_return_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("a.db")).unwrap();
    let old = record("old", &ago(7200));
    let mut new = record("new", &ago(60));
    new.operation = Some("InvokeModel".to_owned());
    new.path = Some("vpn".to_owned());
    new.status = 503;
    new.principal = None;
    new.model_sent = Some("us.meta.llama".to_owned());
    store.write(&batch(vec![old, new])).unwrap();
    let now = OffsetDateTime::now_utc();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(ids(&store, &all()), ["new", "old"]);
    assert_eq!(ids(&store, &Query { limit: 1, ..all() }), ["new"]);
    for (query, wanted) in [
        (Query { since: Some(time_argument("1h", now, &Zone::default()).unwrap()), ..all() }, vec!["new"]),
        (Query { until: Some(time_argument("1h", now, &Zone::default()).unwrap()), ..all() }, vec!["old"]),
        (Query { operation: text("converse"), ..all() }, vec!["old"]),
        (Query { model: text("llama"), ..all() }, vec!["new"]),
        (Query { model: text("sonnet"), ..all() }, vec!["new", "old"]),
        (Query { principal: text("sa/chat"), ..all() }, vec!["old"]),
        (Query { path: text("vpn"), ..all() }, vec!["new"]),
        (Query { status: Some("5xx".parse().unwrap()), ..all() }, vec!["new"]),
        (Query { status: Some(Status::Is(200)), ..all() }, vec!["old"]),
        (Query { request_id: text("old"), ..all() }, vec!["old"]),
        (Query { request_id: text("none"), ..all() }, vec![]),
    ] {
        assert_eq!(ids(&store, &query), wanted, "{query:?}");
    }
}

/// The file of an older release, which is opened to read only, lacks columns.
#[test]
fn filters_in_sql_find_what_matches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::open(&path).unwrap();
    let (mut records, queries) = common::filtered();
    store.write(&batch(records.clone())).unwrap();
    for lacking in [None, Some("kind"), Some("session")] {
        if let Some(column) = lacking {
            let other = rusqlite::Connection::open(&path).unwrap();
            other.execute_batch(&format!("ALTER TABLE records DROP COLUMN {column}")).unwrap();
            for record in &mut records {
                if column == "kind" { record.kind = None } else { record.session = None }
            }
        }
        let store = SqliteStore::open_to_read(&path).unwrap();
        for query in &queries {
            let wanted = expected(&records, query);
            assert_eq!(ids(&store, query), wanted, "{query:?}");
            let mut visited = Vec::new();
            let each = |values: &[FieldValue<'_>]| {
                let [FieldValue::Text(id), _] = values else { panic!("{values:?}") };
                visited.push((*id).to_owned());
                true
            };
            let now = OffsetDateTime::now_utc();
            store.visit(query, &["request_id", "session"], now, each, &mut Progress::new(false)).unwrap();
            visited.sort();
            let mut all = expected(&records, &Query { limit: usize::MAX, ..query.clone() });
            all.sort();
            assert_eq!(visited, all, "{query:?}");
            for after in wanted.iter().step_by(7) {
                let after = records.iter().find(|record| record.request_id == *after).map(Cursor::of);
                let rest = Query { after, ..query.clone() };
                assert_eq!(ids(&store, &rest), expected(&records, &rest), "{rest:?}");
            }
        }
    }
}

#[test]
fn a_batch_is_one_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::open(&path).unwrap();
    let at = |offset| Checkpoint { inode: 1, offset, head: u64::MAX, head_bytes: 3, parts: Vec::new() };
    let log = Path::new("/var/log/access.log");
    let write = |id: &str, offset| Batch {
        records: vec![record(id, &ago(1))],
        rejected: vec![Rejected::new("file", "access.log".to_owned(), offset, "why".to_owned(), b"what")],
        checkpoint: Some((log.to_owned(), at(offset))),
        ..Batch::default()
    };
    store.write(&write("one", 10)).unwrap();
    assert_eq!(store.checkpoint(log).unwrap(), Some(at(10)));
    assert_eq!(store.checkpoint(Path::new("/other")).unwrap(), None);

    // The checkpoint is written last: its failure rolls the rest back.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("DROP TABLE checkpoints").unwrap();
    store.write(&write("two", 20)).unwrap_err();
    assert_eq!(ids(&store, &all()), ["one"]);
    let rejected: i64 = other.query_row("SELECT count(*) FROM rejected", [], |row| row.get(0)).unwrap();
    assert_eq!(rejected, 1);
}

/// By a thread while records are written, and by the last connection.
#[test]
fn the_wal_is_copied_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, wal) = (folder.path().join("a.db"), folder.path().join("a.db-wal"));
    let store = SqliteStore::open(&path).unwrap();
    let empty = std::fs::metadata(&path).unwrap().len();
    let records = (0..1000).map(|n| record(&format!("r{n}"), &ago(n))).collect();
    store.write(&batch(records)).unwrap();
    let copied = || std::fs::metadata(&path).unwrap().len() > empty + 100_000;
    let since = std::time::Instant::now();
    while !copied() {
        assert!(since.elapsed() < std::time::Duration::from_secs(10), "the WAL has it all: {}", wal.exists());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let other = store.clone();
    drop(store);
    assert!(wal.exists());
    drop(other);
    assert!(!wal.exists());
}

#[test]
fn refuses_a_missing_file_and_a_foreign_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    assert!(matches!(SqliteStore::open_to_read(&path), Err(SqliteError::Missing(_))));
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 7; CREATE TABLE t (a)").unwrap();
    for result in [SqliteStore::open(&path), SqliteStore::open_to_read(&path)] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("schema version 7: a newer release of audit-collector wrote it"), "{error}");
    }
}
