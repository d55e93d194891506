//! A collector in trouble: a stop in a backlog, a stderr that nobody reads, a database that is damaged or deleted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::program::{program, start, terminate};
use common::{line, wait_for};

fn count(db: &Path) -> i64 {
    let read = || {
        let db = rusqlite::Connection::open_with_flags(db, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.query_row("SELECT count(*) FROM records", [], |row| row.get(0))
    };
    read().unwrap_or(0)
}

#[tokio::test]
async fn a_stop_in_a_backlog_takes_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let lines = 200_000;
    fs::write(&log, (0..lines).map(|n| line(&n.to_string())).collect::<String>()).unwrap();
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    let (child, _) = start(&mut program(&arguments));
    wait_for("some records", || count(&db) > 0).await;
    let stop = Instant::now();
    let stderr = terminate(child);
    assert!(stop.elapsed() < Duration::from_secs(5), "{:?}", stop.elapsed());
    assert!(stderr.contains("stopped before its end; the next start reads on there"), "{stderr}");
    let stored = count(&db);
    assert!(stored > 0 && stored < lines, "{stored}");
}

#[tokio::test]
async fn an_unread_stderr_does_not_stop_ingest() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    // Each bad line is reported: several pipes full.
    let bad = "garbage\n".repeat(10_000);
    fs::write(&log, bad + &line("last")).unwrap();
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    let (mut child, _) = start(program(&arguments).stderr(Stdio::piped()));
    wait_for("the record behind the bad lines", || count(&db) == 1).await;
    let stop = Instant::now();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    assert!(stop.elapsed() < Duration::from_secs(5), "{:?}", stop.elapsed());
}

#[tokio::test]
async fn a_damaged_database_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let lines = 2_000;
    fs::write(&log, (0..lines).map(|n| line(&n.to_string())).collect::<String>()).unwrap();
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    let (child, _) = start(&mut program(&arguments));
    wait_for("the records", || count(&db) == lines).await;
    terminate(child);
    let whole = fs::read(&db).unwrap();
    // A page in the middle, and the header.
    for at in [whole.len() / 2 / 4096 * 4096, 0] {
        let mut bytes = whole.clone();
        bytes[at..at + 4096].fill(0xa5);
        fs::write(&db, &bytes).unwrap();
        let output = program(&arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains("the database is damaged"), "at {at}: {stderr}");
        assert_eq!(fs::read(&db).unwrap(), bytes, "it is left as it was");
    }
    // Moved away, a new one is made of the log.
    fs::remove_file(&db).unwrap();
    let (child, _) = start(&mut program(&arguments));
    wait_for("the records", || count(&db) == lines).await;
    terminate(child);
}

#[tokio::test]
async fn a_deleted_database_ends_the_collector() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    fs::write(folder.path().join("access.log.1"), line("one")).unwrap();
    fs::write(&log, line("two")).unwrap();
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    let (mut child, _) = start(&mut program(&arguments));
    wait_for("the records", || count(&db) == 2).await;
    for file in ["a.db", "a.db-wal", "a.db-shm"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    wait_for("the end", || child.try_wait().unwrap().is_some()).await;
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("the database was deleted or replaced"), "{stderr}");
    // The next start stores all that the log still has.
    let (child, _) = start(&mut program(&arguments));
    wait_for("the records", || count(&db) == 2).await;
    terminate(child);
}

type Change<'c> = (&'static str, &'c dyn Fn(&Path));

/// Other programs see nothing of what is written then, and a shortened file is damaged by the next copy of the WAL.
#[tokio::test]
async fn a_database_changed_by_hand_is_noticed() {
    let remove = |path: &Path, suffix: &str| fs::remove_file(format!("{}{suffix}", path.display())).unwrap();
    let backup = |path: &Path| {
        let older = path.with_extension("older");
        drop(audit_collector::store::sqlite::SqliteStore::open(&older).unwrap());
        fs::copy(older, path).unwrap();
    };
    let changes: [Change<'_>; 4] = [
        ("without its WAL", &|path| remove(path, "-wal")),
        ("without its index of the WAL", &|path| remove(path, "-shm")),
        ("emptied", &|path| fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap()),
        ("overwritten by an older one", &backup),
    ];
    for (what, change) in changes {
        let folder = tempfile::tempdir().unwrap();
        let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
        fs::write(&log, (0..600).map(|n| line(&n.to_string())).collect::<String>()).unwrap();
        let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
        terminate({
            let (child, _) = start(&mut program(&arguments));
            wait_for("the records", || count(&db) == 600).await;
            child
        });
        let (mut child, _) = start(&mut program(&arguments));
        change(&db);
        wait_for(what, || child.try_wait().unwrap().is_some()).await;
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && stderr.contains("the database was deleted or replaced"),
            "{what}: {stderr}"
        );
    }
}

/// A folder given in place of the log, say: it is not a log that does not exist yet.
#[tokio::test]
async fn a_log_that_is_not_a_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    fs::create_dir(&log).unwrap();
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    let (child, ready) = start(program(&arguments).args(["--health", "127.0.0.1:0"]));
    let page = ready.split_whitespace().find_map(|word| word.strip_prefix("health=")).unwrap().to_owned();
    wait_for("the error", || common::http::get(&page, "/ready").0 == 503).await;
    let reason = common::http::get(&page, "/ready").1;
    assert!(reason.contains("is not a file"), "{reason}");
    // Replaced by a log, it is read.
    fs::remove_dir(&log).unwrap();
    fs::write(&log, line("one")).unwrap();
    wait_for("the record", || count(&db) == 1).await;
    let stderr = terminate(child);
    assert!(stderr.contains("is not a file"), "{stderr}");
}
