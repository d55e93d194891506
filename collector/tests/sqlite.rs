//! Records in SQLite: written once, with their checkpoint, found again, and gone in time. And the whole program on it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use audit_collector::query::{Query, Status, table, time_argument};
use audit_collector::source::tail::Checkpoint;
use audit_collector::store::sqlite::{SqliteError, SqliteStore};
use audit_collector::store::{Batch, Rejected};
use common::{ago, line, record, wait_for};
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
fn a_record_is_written_once_and_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("a.db")).unwrap();
    let first = record("r-1", &ago(60));
    let second = audit::AuditRecord { status: 500, ..first.clone() };
    let written = store.write(&batch(vec![first.clone(), second.clone()])).unwrap();
    assert_eq!((written.stored, written.repeated), (2, 1));
    let written = store.write(&batch(vec![second])).unwrap();
    assert_eq!((written.stored, written.repeated), (1, 1));
    assert_eq!(store.query(&all(), OffsetDateTime::now_utc()).unwrap(), [first]);
}

#[test]
fn another_exchange_under_a_known_id_is_refused_by_name_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::open(&path).unwrap();
    let (first, second) = (record("r-1", &ago(60)), record("r-1", &ago(59)));
    let written = store.write(&batch(vec![first.clone(), second])).unwrap();
    assert_eq!((written.stored, written.repeated), (1, 0));
    let reason = format!("its id is that of another exchange, of {}", first.time);
    assert_eq!(written.refused, [("r-1".to_owned(), reason)]);
    let other = rusqlite::Connection::open(&path).unwrap();
    let kept: String = other.query_row("SELECT content FROM rejected", [], |row| row.get(0)).unwrap();
    assert!(kept.contains(r#""request_id":"r-1""#), "{kept}");
}

#[test]
fn filters_choose_and_the_newest_come_first() {
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
        (Query { since: Some(time_argument("1h", now).unwrap()), ..all() }, vec!["new"]),
        (Query { until: Some(time_argument("1h", now).unwrap()), ..all() }, vec!["old"]),
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

#[test]
fn expired_records_are_not_shown_and_then_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("a.db")).unwrap();
    let month = 30 * 86_400;
    store.write(&batch(vec![record("gone", &ago(month + 60)), record("kept", &ago(month - 3600))])).unwrap();
    assert_eq!(ids(&store, &all()), ["kept"]);
    assert_eq!(store.purge(OffsetDateTime::now_utc()).unwrap(), 1);
    assert_eq!(store.purge(OffsetDateTime::now_utc()).unwrap(), 0);
}

#[test]
fn records_rejects_and_checkpoint_are_one_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = SqliteStore::open(&path).unwrap();
    let at = |offset| Checkpoint { inode: 1, offset, head: u64::MAX, head_bytes: 3 };
    let log = Path::new("/var/log/access.log");
    let write = |id: &str, offset| Batch {
        records: vec![record(id, &ago(1))],
        rejected: vec![Rejected::new("file", "access.log".to_owned(), offset, "why".to_owned(), b"what")],
        checkpoint: Some((log.to_owned(), at(offset))),
    };
    store.write(&write("one", 10)).unwrap();
    assert_eq!(store.checkpoint(log).unwrap(), Some(at(10)));
    assert_eq!(store.checkpoint(Path::new("/other")).unwrap(), None);

    // What fails last takes the rest back.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("DROP TABLE checkpoints").unwrap();
    store.write(&write("two", 20)).unwrap_err();
    assert_eq!(ids(&store, &all()), ["one"]);
    let rejected: i64 = other.query_row("SELECT count(*) FROM rejected", [], |row| row.get(0)).unwrap();
    assert_eq!(rejected, 1);
}

#[test]
fn a_missing_file_and_a_foreign_one_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    assert!(matches!(SqliteStore::open_to_read(&path), Err(SqliteError::Missing(_))));
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 7; CREATE TABLE t (a)").unwrap();
    for result in [SqliteStore::open(&path), SqliteStore::open_to_read(&path)] {
        let error = result.unwrap_err().to_string();
        assert!(error.ends_with("its tables have version 7, this program knows version 1"), "{error}");
    }
}

#[test]
fn a_table_cannot_draw_on_the_terminal() {
    let mut bad = record("r", "2026-11-22T10:00:00.000Z");
    bad.model_sent = Some("a\u{1b}[2Jb\nc".to_owned());
    assert_eq!(
        table(&[bad]),
        "TIME                      OPERATION  MODEL SENT      PATH  TRIES  STATUS  ERROR  TOKENS IN  OUT  MS  PRINCIPAL\n\
         2026-11-22T10:00:00.000Z  Converse   a\\u{1b}[2Jb\\nc  dx        1     200  -              7    9  31  spiffe://mesh/ns/app/sa/chat\n"
    );
}

#[test]
fn arguments_that_say_nothing_are_refused() {
    let now = OffsetDateTime::now_utc();
    for text in ["", "5", "h", "-1h", "1w", "2026-01-02", "99999999999d", "4294967295d"] {
        assert!(time_argument(text, now).is_err(), "{text}");
    }
    assert_eq!(time_argument("2026-01-02T05:04:05+02:00", now).unwrap(), "2026-01-02T03:04:05.000Z");
    for text in ["", "xx", "axx", "5x", "-5"] {
        assert!(text.parse::<Status>().is_err(), "{text}");
    }
}

// The program.

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_audit-collector"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(arguments: &[&str]) -> (Child, String) {
    let mut child = program(arguments).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
    (child, ready)
}

fn terminate(child: Child) -> (bool, String) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn the_program_follows_a_log_through_restarts_and_garbage() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let append = |text: &str| {
        OpenOptions::new().create(true).append(true).open(&log).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let (log_name, db_name) = (log.to_str().unwrap(), db.to_str().unwrap());
    let arguments = ["run", "--file", log_name, "--sqlite", db_name];
    append(&line("one"));
    append("garbage\n");
    let (child, ready) = start(&arguments);
    assert_eq!(ready, format!("ready file={log_name} sqlite={db_name}\n"));
    let store = SqliteStore::open_to_read(&db).unwrap();
    wait_for("the first record", || ids(&store, &all()) == ["one"]).await;
    append(&line("two"));
    append(&line("three")[..20]);
    let (success, told) = terminate(child);
    assert!(success, "{told}");
    let offset = line("one").len();
    assert!(told.contains(&format!("rejected file entry: {log_name} offset {offset}: not a log entry")), "{told}");
    assert!(told.contains("stored 2 (of them repeated 0), rejected 1, dropped 0"), "{told}");
    assert!(!told.contains("garbage"), "what is not understood is not printed");

    let whole = fs::read_to_string(&log).unwrap();
    fs::write(&log, whole[..whole.len() - 20].to_owned() + &line("three")).unwrap();
    let (child, _) = start(&arguments);
    wait_for("the third record", || ids(&store, &all()).len() == 3).await;
    let (success, told) = terminate(child);
    assert!(success && told.contains("stored 1 (of them repeated 0), rejected 0"), "{told}");

    let output = program(&["query", "--sqlite", db_name, "--json", "--request-id", "two"]).output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["request_id"], &found["tokens_out"]), (&"two".into(), &9.into()));
    let output = program(&["query", "--sqlite", db_name, "--status", "500"]).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(output.stderr, b"no records match\n");
    let output = program(&["query", "--sqlite", "/nowhere/a.db"]).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(
        output.stderr,
        b"audit-collector: /nowhere/a.db: no such file; `audit-collector run --sqlite` makes it\n"
    );
}

#[tokio::test]
async fn a_killed_collector_neither_loses_nor_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let mut file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    for round in 0..4 {
        for number in 0..500 {
            file.write_all(line(&format!("{round}-{number:03}")).as_bytes()).unwrap();
        }
        let (mut child, _) = start(&arguments);
        std::thread::sleep(std::time::Duration::from_millis(15));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (child, _) = start(&arguments);
    let store = SqliteStore::open_to_read(&db).unwrap();
    wait_for("all records", || ids(&store, &Query { limit: 5000, ..all() }).len() == 2000).await;
    let (success, told) = terminate(child);
    assert!(success && told.contains("repeated 0"), "{told}");
}

#[test]
fn arguments_that_do_not_fit_each_other_are_refused() {
    for (arguments, wanted) in [
        (&["run", "--sqlite", "a"][..], "<--als <ADDRESS>|--file <PATH>>"),
        (&["run", "--file", "a"], "<--sqlite <FILE>|--dynamodb <TABLE>>"),
        (&["query"], "<--sqlite <FILE>|--dynamodb <TABLE>>"),
        (&["query", "--sqlite", "a", "--dynamodb", "b"], "cannot be used with '--dynamodb <TABLE>'"),
        (
            &["run", "--file", "a", "--sqlite", "b", "--create-table"],
            "'--sqlite <FILE>' cannot be used with '--create-table'",
        ),
        (&["query", "--sqlite", "a", "--endpoint-url", "b"], "'--endpoint-url <URL>'"),
    ] {
        let output = program(arguments).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains(wanted), "{arguments:?}: {told}");
    }
}

#[tokio::test]
async fn while_the_store_is_down_the_log_waits() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let (child, _) = start(&["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()]);
    let other = rusqlite::Connection::open(&db).unwrap();
    other.execute_batch("ALTER TABLE records RENAME TO away").unwrap();
    fs::write(&log, (0..60).map(|n| line(&n.to_string())).collect::<String>()).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    other.execute_batch("ALTER TABLE away RENAME TO records").unwrap();
    let store = SqliteStore::open_to_read(&db).unwrap();
    wait_for("all records", || ids(&store, &all()).len() == 60).await;
    let (success, told) = terminate(child);
    assert!(success && told.contains("stored 60 (of them repeated 0)"), "{told}");
    assert!(told.contains("no such table: records; trying again in"), "{told}");

    // Down at the stop as well: it ends, and the next start reads what is left.
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    let (child, _) = start(&arguments);
    other.execute_batch("ALTER TABLE records RENAME TO away").unwrap();
    let whole = fs::read_to_string(&log).unwrap();
    fs::write(&log, whole + &line("last")).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let (success, told) = terminate(child);
    assert!(success && told.contains("stopped with lines unread, which the next start reads"), "{told}");
    other.execute_batch("ALTER TABLE away RENAME TO records").unwrap();
    let (child, _) = start(&arguments);
    wait_for("the last record", || ids(&store, &all()).len() == 61).await;
    terminate(child);
}
