//! Arguments and output of `audit-collector query`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;

use audit::AuditRecord;
use audit_collector::batch::Batch;
use audit_collector::print::Table;
use audit_collector::query::{Status, time_argument};
use audit_collector::store::sqlite::SqliteStore;
use common::program::program;
use common::{ago, record};
use serde_json::Value;
use time::OffsetDateTime;

#[test]
fn output_escapes_hidden_characters() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    let mut bad = record("r", &ago(60));
    // As an older release stored it.
    bad.principal = Some("a\u{202e}b\u{200f}c\u{9b}d\0e".to_owned());
    store.write(&Batch { records: vec![bad.clone()], ..Batch::default() }).unwrap();
    for arguments in [&["query", "--sqlite"][..], &["query", "--json", "--sqlite"]] {
        let output = program(arguments).arg(&file).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("202e")
                && text.contains("200f")
                && text.chars().all(|char| char == '\n' || matches!(char, ' '..='~')),
            "{text:?}"
        );
    }
    let output = program(&["query", "--json", "--sqlite"]).arg(&file).output().unwrap();
    assert_eq!(serde_json::from_slice::<AuditRecord>(&output.stdout).unwrap(), bad);
}

#[test]
fn the_table_escapes_control_characters() {
    let mut bad = record("r", "2026-11-22T10:00:00.000Z");
    bad.model_sent = Some("a\u{1b}[2Jb\nc".to_owned());
    let (mut table, mut out) = (Table::default(), Vec::new());
    table.add(&bad, &mut out).unwrap();
    table.end(&mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "TIME                      OPERATION  MODEL SENT      PATH  TRIES  STATUS  ERROR  TOKENS IN  OUT  MS  PRINCIPAL\n\
         2026-11-22T10:00:00.000Z  Converse   a\\u{1b}[2Jb\\nc  dx        1     200  -              7    9  31  spiffe://mesh/ns/app/sa/chat\n"
    );
}

#[test]
fn refuses_malformed_times_and_statuses() {
    let now = OffsetDateTime::now_utc();
    for text in ["", "5", "h", "-1h", "1w", "2026-01-02", "99999999999d", "4294967295d"] {
        assert!(time_argument(text, now).is_err(), "{text}");
    }
    assert_eq!(time_argument("2026-01-02T05:04:05+02:00", now).unwrap(), "2026-01-02T03:04:05.000Z");
    for text in ["", "xx", "axx", "5x", "-5"] {
        assert!(text.parse::<Status>().is_err(), "{text}");
    }
}

#[test]
fn the_json_has_every_field_null_ones_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    let records = vec![record("r", &ago(60))];
    store.write(&Batch { records, ..Batch::default() }).unwrap();
    let output = program(&["query", "--sqlite", file.to_str().unwrap(), "--json"]).output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let wanted = AuditRecord::FIELDS.iter().map(|field| field.name).collect::<BTreeSet<_>>();
    assert_eq!(printed.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>(), wanted);
    assert_eq!((&printed["region"], &printed["tokens_in"]), (&Value::Null, &7.into()));
}

#[test]
fn refuses_arguments_that_conflict() {
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
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && stderr.contains(wanted), "{arguments:?}: {stderr}");
    }
}

#[test]
fn says_that_more_records_match() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    let records = (0..60).map(|n| record(&format!("r{n:02}"), &ago(n))).collect();
    store.write(&Batch { records, ..Batch::default() }).unwrap();
    for (arguments, lines, more) in [
        (&["query", "--json"][..], 50, true),
        (&["query"], 51, true),
        (&["query", "--limit", "60"], 61, false),
        (&["query", "--limit", "59"], 60, true),
        (&["query", "--status", "500"], 0, false),
    ] {
        let output = program(arguments).arg("--sqlite").arg(&file).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), lines, "{arguments:?}");
        assert_eq!(stderr.contains("more match"), more, "{arguments:?}: {stderr}");
    }
}

/// A large `--limit` does not hold the records in memory.
#[test]
fn records_are_printed_as_they_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    for chunk in 0..20 {
        let mut records: Vec<_> = (0..1000).map(|n| record(&format!("r{chunk}-{n}"), &ago(n))).collect();
        records.iter_mut().for_each(|record| record.session = Some("x".repeat(2000)));
        store.write(&Batch { records, ..Batch::default() }).unwrap();
    }
    // 40 MB of texts.
    let mut command = program(&["query", "--limit", "1000000", "--json", "--sqlite", file.to_str().unwrap()]);
    let mut child = command.spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut out, &mut first).unwrap();
    // The program waits for its reader; what it holds is little.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u64>().unwrap() < 40_000, "peak {peak} kB");
    assert_eq!(std::io::BufRead::lines(out).count(), 19_999);
    assert!(child.wait().unwrap().success());
}
