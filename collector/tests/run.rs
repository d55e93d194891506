//! `audit-collector run` on a log file and SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;

use audit_collector::query::Query;
use audit_collector::store::sqlite::SqliteStore;
use common::program::{program, start, terminate};
use common::{line, wait_for};
use time::OffsetDateTime;

fn all() -> Query {
    Query { limit: 5000, ..Query::default() }
}

fn ids(store: &SqliteStore) -> Vec<String> {
    let found = store.query(&all(), OffsetDateTime::now_utc()).unwrap();
    found.into_iter().map(|record| record.request_id).collect()
}

#[tokio::test]
async fn continues_after_restarts_and_bad_lines() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let append = |text: &str| {
        OpenOptions::new().create(true).append(true).open(&log).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let (log_name, db_name) = (log.to_str().unwrap(), db.to_str().unwrap());
    let ready_file = folder.path().join("ready");
    let arguments = ["run", "--file", log_name, "--sqlite", db_name, "--ready-file", ready_file.to_str().unwrap()];
    append(&line("one"));
    append("garbage\n");
    let (child, ready) = start(&mut program(&arguments));
    assert_eq!(ready, format!("ready file={log_name} sqlite={db_name}\n"));
    assert!(ready_file.exists());
    let store = SqliteStore::open_to_read(&db).unwrap();
    wait_for("the first record", || ids(&store) == ["one"]).await;
    append(&line("two"));
    append(&line("three")[..20]);
    let stderr = terminate(child);
    let offset = line("one").len();
    assert!(stderr.contains(&format!("rejected file entry: {log_name} offset {offset}: not a log entry")), "{stderr}");
    assert!(stderr.contains("stored 2 (0 repeated), rejected 1, dropped 0"), "{stderr}");
    assert!(!stderr.contains("garbage"), "the content of a bad line is not printed");

    let whole = fs::read_to_string(&log).unwrap();
    fs::write(&log, whole[..whole.len() - 20].to_owned() + &line("three")).unwrap();
    let (child, _) = start(&mut program(&arguments));
    wait_for("the third record", || ids(&store).len() == 3).await;
    let stderr = terminate(child);
    assert!(stderr.contains("stored 1 (0 repeated), rejected 0"), "{stderr}");

    // A run that fails leaves no file of an earlier one.
    let nowhere =
        ["run", "--file", log_name, "--sqlite", "/nowhere/a.db", "--ready-file", ready_file.to_str().unwrap()];
    assert!(!program(&nowhere).output().unwrap().status.success() && !ready_file.exists());

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
        b"audit-collector: /nowhere/a.db: no such file; `audit-collector run --sqlite` creates it\n"
    );
}

#[tokio::test]
async fn a_killed_collector_loses_and_repeats_none() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let mut file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    for round in 0..4 {
        for number in 0..500 {
            file.write_all(line(&format!("{round}-{number:03}")).as_bytes()).unwrap();
        }
        let (mut child, _) = start(&mut program(&arguments));
        std::thread::sleep(std::time::Duration::from_millis(15));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (child, _) = start(&mut program(&arguments));
    let store = SqliteStore::open_to_read(&db).unwrap();
    wait_for("all records", || ids(&store).len() == 2000).await;
    let stderr = terminate(child);
    assert!(stderr.contains("(0 repeated)"), "{stderr}");
}

#[tokio::test]
async fn nothing_is_read_while_the_store_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let (child, _) = start(&mut program(&["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()]));
    let other = rusqlite::Connection::open(&db).unwrap();
    other.execute_batch("ALTER TABLE records RENAME TO away").unwrap();
    fs::write(&log, (0..60).map(|n| line(&n.to_string())).collect::<String>()).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    other.execute_batch("ALTER TABLE away RENAME TO records").unwrap();
    let store = SqliteStore::open_to_read(&db).unwrap();
    wait_for("all records", || ids(&store).len() == 60).await;
    let stderr = terminate(child);
    assert!(stderr.contains("stored 60 (0 repeated)"), "{stderr}");
    assert!(stderr.contains("no such table: records; retrying in"), "{stderr}");

    // Down at the stop as well: the next start reads the rest.
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    let (child, _) = start(&mut program(&arguments));
    other.execute_batch("ALTER TABLE records RENAME TO away").unwrap();
    let whole = fs::read_to_string(&log).unwrap();
    fs::write(&log, whole + &line("last")).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let stderr = terminate(child);
    assert!(stderr.contains("stopped before every line was stored"), "{stderr}");
    other.execute_batch("ALTER TABLE away RENAME TO records").unwrap();
    let (child, _) = start(&mut program(&arguments));
    wait_for("the last record", || ids(&store).len() == 61).await;
    terminate(child);
}

/// Old files included, which everyone may read.
#[tokio::test]
async fn only_the_owner_reads_what_it_writes() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for round in ["new", "old"] {
        fs::write(&log, line(round)).unwrap();
        let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
        let (child, _) = start(&mut program(&arguments));
        let store = SqliteStore::open_to_read(&db).unwrap();
        wait_for("the record", || ids(&store).iter().any(|id| id == round)).await;
        for name in ["a.db", "a.db-wal", "a.db-shm"] {
            assert_eq!(mode(&folder.path().join(name)), 0o600, "{round} {name}");
        }
        terminate(child);
        fs::set_permissions(&db, fs::Permissions::from_mode(0o644)).unwrap();
    }
}
