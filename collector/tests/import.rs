//! `audit-collector import`: old logs, in any form and order, once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use audit_collector::batch::Batch;
use audit_collector::clock::Reading;
use audit_collector::query::Query;
use audit_collector::store::sqlite::{PurgeLimits, Purged, SqliteStore};
use common::program::program;
use common::{ago, line_of, record};
use time::OffsetDateTime;

const DAY: i64 = 86_400;

fn gzip(path: &Path, text: &str) {
    let mut packed = flate2::write::GzEncoder::new(File::create(path).unwrap(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap();
}

fn zstd(path: &Path, text: &str) {
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    fs::write(path, ruzstd::encoding::compress_to_vec(text.as_bytes(), level)).unwrap();
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn import(arguments: &[&str], input: &str) -> Output {
    let mut command = program(&["import"]);
    let mut child = command.args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn ids(store: &SqliteStore) -> Vec<String> {
    let query = Query { limit: 1000, ..Query::default() };
    store.query(&query, OffsetDateTime::now_utc()).unwrap().into_iter().map(|record| record.request_id).collect()
}

#[test]
fn stores_what_is_missing_of_every_form_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (plain, gz, zst, db) = (path("access.log.1"), path("named-otherwise"), path("access.log.3.zst"), path("a.db"));
    let times: Vec<_> = (0..100).map(|day| ago(day * DAY)).collect();
    let lines =
        |days: &[usize]| days.iter().map(|day| line_of(&format!("d{day:02}"), &times[*day])).collect::<String>();
    // Some lines are in two files; the last of one has no newline.
    fs::write(&plain, lines(&[1, 40, 3]).trim_end()).unwrap();
    gzip(Path::new(&gz), &(lines(&[5, 4, 3]) + "garbage\n\n"));
    zstd(Path::new(&zst), &lines(&[99, 35]));
    let arguments = [&zst, &plain, "-", &gz, "--sqlite", &db].map(|argument: &str| argument);
    let long = "x".repeat(2_000_000) + "\n";
    // Of a class that keeps no records.
    let off = line_of("off", &ago(DAY)).replace(r#"\"usage\":"#, r#"\"audit\":\"off\",\"usage\":"#);
    let input = long + &lines(&[2]) + &off;
    let first = import(&arguments, &input);
    assert_eq!(text(first.stdout), "stored 8, repeated 1, rejected 2, already expired 3, not audited 1\n");
    let again = import(&arguments, &input);
    assert_eq!(text(again.stdout), "stored 0, repeated 9, rejected 2, already expired 3, not audited 1\n");
    let store = SqliteStore::open(Path::new(&db)).unwrap();
    let all = ["d01", "d02", "d03", "d04", "d05", "d35", "d40", "d99"];
    assert_eq!(ids(&store), all);
    let rejected = store.rejected(0, 10).unwrap();
    let kept: Vec<_> = rejected.iter().map(|kept| (kept.entry.file.as_str(), kept.entry.reason.as_str())).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept[0] == ("-", "line longer than 1048576 bytes") && kept[1].0 == gz, "{kept:?}");
    // No purge undoes it within the thirty days, nor deletes them all at once.
    let purge = |days: i64| {
        let now = Reading { wall: OffsetDateTime::now_utc().unix_timestamp() + days * DAY, since_boot: None };
        store.purge(&now, PurgeLimits { share: 100, trust_clock: true }, || false).unwrap()
    };
    assert_eq!((purge(0), purge(29), purge(32)), (Purged::Deleted(0), Purged::Deleted(0), Purged::Deleted(8)));
}

#[test]
fn a_record_is_kept_as_long_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let store = SqliteStore::open(&db).unwrap();
    // Stored by a collector; deleted within the hour.
    let (time, late) = (ago(31 * DAY), ago(20 * DAY));
    let stored = vec![record("old", &time), record("late", &late)];
    store.write(&Batch { records: stored, ..Batch::default() }).unwrap();
    let lines = [("old", &time), ("late", &late)].map(|(id, time)| common::line_as(&record(id, time)));
    fs::write(&log, lines.concat()).unwrap();
    let arguments = [log.to_str().unwrap(), "--sqlite", db.to_str().unwrap(), "--keep-days", "5"];
    assert_eq!(
        text(import(&arguments, "").stdout),
        "stored 0, repeated 2, rejected 0, already expired 1, not audited 0\n"
    );
    let found = store.query(&Query { limit: 9, ..Query::default() }, OffsetDateTime::now_utc()).unwrap();
    let days = |n: usize| (found[n].expires_at as i64 - OffsetDateTime::now_utc().unix_timestamp()) as f64 / 86_400.0;
    assert!((9.9..=10.0).contains(&days(0)), "a shorter time changes nothing: {}", days(0));
    assert!((4.9..=6.0).contains(&days(1)), "{}", days(1));
}

#[test]
fn a_conflict_is_refused_once() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let store = SqliteStore::open(&db).unwrap();
    store.write(&Batch { records: vec![record("r", &ago(60))], ..Batch::default() }).unwrap();
    fs::write(&log, line_of("r", &ago(30))).unwrap();
    let arguments = [log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    for _ in 0..2 {
        assert_eq!(
            text(import(&arguments, "").stdout),
            "stored 0, repeated 0, rejected 1, already expired 0, not audited 0\n"
        );
        assert_eq!(store.rejected(0, 10).unwrap().len(), 1);
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (good, torn, db) = (path("good"), path("torn.gz"), path("a.db"));
    fs::write(&good, line_of("good", &ago(60))).unwrap();
    gzip(Path::new(&torn), &(0..5000).map(|n| line_of(&format!("t{n}"), &ago(n))).collect::<String>());
    let bytes = fs::read(&torn).unwrap();
    fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    for (arguments, wanted, stored) in [
        (vec![good.as_str(), "missing"], "missing: No such file", 0),
        (vec![good.as_str(), folder.path().to_str().unwrap()], "it is a folder", 0),
        (vec![good.as_str(), &torn], "torn.gz: ", 1000),
    ] {
        let output = import(&[&arguments[..], &["--sqlite", &db]].concat(), "");
        let stderr = text(output.stderr);
        assert!(!output.status.success() && stderr.contains(wanted), "{stderr}");
        let count = if Path::new(&db).exists() { ids(&SqliteStore::open(Path::new(&db)).unwrap()).len() } else { 0 };
        assert!(count >= stored, "{count}");
    }
}
