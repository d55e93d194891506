//! Arguments and output of `audit-collector query`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;

use audit::AuditRecord;
use audit_collector::batch::Batch;
use audit_collector::print::table;
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
    assert_eq!(
        table(&[bad]),
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
