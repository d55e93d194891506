//! A long log, from its beginning: all of it is stored once, in flat memory. `AUDIT_ROWS=2000000` is the size that docs/audit.md
//! gives figures of; they are printed with `--nocapture`. Measure with `--release`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

#[path = "common/backlog.rs"]
mod backlog;
mod common;
#[path = "common/measure.rs"]
mod measure;
#[path = "common/slow_dynamodb.rs"]
mod slow_dynamodb;

use std::path::Path;
use std::time::{Duration, Instant};

use common::program::{start, terminate};
use slow_dynamodb::SlowDynamo;

/// Most memory of a collector, whatever waits in the log.
const MAX_MEMORY_KIB: u64 = 100_000;

fn rows() -> u64 {
    std::env::var("AUDIT_ROWS").map_or(3_000, |rows| rows.parse().unwrap())
}

/// Runs the collector until `stored` says that it has all rows.
fn run(arguments: &[&str], log: &Path, rows: u64, stored: impl Fn() -> u64) {
    backlog::append(log, 1..rows + 1, None);
    let mut command = measure::collector(&["run", "--file", log.to_str().unwrap()]);
    command.args(arguments);
    let (child, _) = start(&mut command);
    let begin = Instant::now();
    let harness = measure::cpu(std::process::id());
    while stored() < rows {
        std::thread::sleep(Duration::from_millis(20));
        assert!(begin.elapsed() < Duration::from_secs(60 + rows / 500), "{} of {rows} are stored", stored());
    }
    let took = begin.elapsed().as_secs_f64();
    let (cpu, harness) = (measure::cpu(child.id()), measure::cpu(std::process::id()) - harness);
    let peak = measure::memory_kib(child.id(), "VmHWM");
    let each = |time: Duration| time.as_secs_f64() * 1e6 / rows as f64;
    println!(
        "{rows} records in {took:.2} s: {:.0} a second; {:.0} µs of CPU each, and {:.0} µs of the test; peak {peak} KiB",
        rows as f64 / took,
        each(cpu),
        each(harness)
    );
    let stderr = terminate(child);
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB; {stderr}");
}

#[test]
fn a_long_log_reaches_dynamodb_once() {
    let folder = tempfile::tempdir().unwrap();
    let dynamo = SlowDynamo::start(Duration::from_millis(10));
    let url = format!("http://127.0.0.1:{}", dynamo.port);
    run(&["--dynamodb", "audit", "--endpoint-url", &url], &folder.path().join("access.log"), rows(), || dynamo.calls());
    println!("at most {} puts in flight; {} puts", dynamo.most_in_flight(), dynamo.puts());
    assert_eq!(dynamo.refused(), Vec::<String>::new());
    assert!((1..=rows()).all(|number| dynamo.has(&backlog::id(number))));
}

#[test]
fn a_long_log_reaches_sqlite_once() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("a.db");
    let count = || {
        let connection =
            rusqlite::Connection::open_with_flags(&db, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection
            .query_row("SELECT max(rowid) FROM records", [], |row| row.get::<_, Option<i64>>(0))
            .unwrap()
            .unwrap_or(0) as u64
    };
    // And the starts of Envoy and VM.
    run(&["--sqlite", db.to_str().unwrap()], &folder.path().join("access.log"), rows(), || count().saturating_sub(2));
    let connection = rusqlite::Connection::open(&db).unwrap();
    let calls: i64 =
        connection.query_row("SELECT count(*) FROM records WHERE kind IS NULL", [], |row| row.get(0)).unwrap();
    assert_eq!(calls as u64, rows());
}
