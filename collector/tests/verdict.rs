//! `audit-collector completeness`: what the store's records say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::path::Path;

use audit::AuditRecord;
use audit_collector::batch::{Batch, Rejected};
use audit_collector::store::sqlite::SqliteStore;
use common::program::program;
use common::{ago, record};
use serde_json::Value;

/// A call that its VM logged under this number, some seconds ago.
fn call(number: u64, seconds: i64) -> AuditRecord {
    let (vm, envoy) = (Some("vm-1".to_owned()), Some("envoy-1".to_owned()));
    AuditRecord { vm, envoy, vm_logged: Some(number), ..record(&format!("c-{number}"), &ago(seconds)) }
}

fn own(id: &str, kind: &str, seconds: i64, lost: Option<u64>, at_most: Option<u64>) -> AuditRecord {
    AuditRecord {
        kind: Some(kind.to_owned()),
        vm: Some("vm-1".to_owned()),
        envoy: Some("envoy-1".to_owned()),
        lost,
        lost_at_most: at_most,
        until: Some(ago(seconds - 5)),
        ..record(id, &ago(seconds))
    }
}

/// Exit status and findings, of a window of that many seconds.
fn ask(db: &Path, since: &str) -> (i32, Value) {
    let db = db.to_str().unwrap();
    let output = program(&["completeness", "--sqlite", db, "--since", since, "--json"]).output().unwrap();
    let text = program(&["completeness", "--sqlite", db, "--since", since]).output().unwrap();
    assert_eq!(output.status.code(), text.status.code());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    let verdict = found["verdict"].as_str().unwrap().replace("unknown", "not known");
    assert!(text.starts_with(&verdict), "{text}");
    for missing in found["missing"].as_array().unwrap() {
        assert!(text.contains(missing["request_id"].as_str().unwrap()), "{text}");
    }
    (output.status.code().unwrap(), found)
}

#[test]
fn the_store_answers_for_itself() {
    let start = || own("vm_start-vm-1", "vm_start", 100, None, None);
    let with = |more: Vec<AuditRecord>| {
        let mut records = vec![start(), call(1, 90), call(2, 80), call(5, 60)];
        records.extend(more);
        records
    };
    let hole = || own("hole-vm-1-3-4", "hole", 80, Some(2), None);
    let end = |id: &str, lost, at_most| own(id, "vm_end", 50, Some(lost), Some(at_most));
    let again = || own("vm_start-vm-1-2", "vm_start", 40, None, None);
    let gap = || AuditRecord { vm: None, envoy: None, ..own("hole-log-1", "hole", 80, None, None) };
    for (name, records, status, missing, lost) in [
        ("nothing", vec![], 2, vec![], (0, 0)),
        ("no VM", vec![record("old", &ago(5))], 2, vec![], (0, 0)),
        ("all", with(vec![call(3, 75), call(4, 70)]), 0, vec![], (0, 0)),
        // Classes without audit have numbers, and no records.
        ("off", with(vec![]), 0, vec![], (0, 0)),
        ("ended", with(vec![end("vm_end-vm-1", 0, 0)]), 0, vec![], (0, 0)),
        ("hole", with(vec![hole()]), 1, vec!["hole-vm-1-3-4"], (2, 2)),
        ("late", with(vec![hole(), call(4, 70)]), 1, vec!["hole-vm-1-3-4"], (1, 1)),
        ("later", with(vec![hole(), call(3, 70), call(4, 70)]), 0, vec![], (0, 0)),
        ("crash", with(vec![end("vm_end-vm-1", 1, 9)]), 1, vec!["vm_end-vm-1"], (1, 9)),
        ("doubt", with(vec![end("vm_end-vm-1", 0, 9)]), 1, vec!["vm_end-vm-1"], (0, 9)),
        ("came back", with(vec![end("vm_end-vm-1", 1, 9), again()]), 0, vec![], (0, 0)),
        (
            "ended twice",
            with(vec![end("vm_end-vm-1", 1, 9), again(), end("vm_end-vm-1-2", 0, 2)]),
            1,
            vec!["vm_end-vm-1-2"],
            (0, 2),
        ),
        ("unlogged", with(vec![own("u", "unlogged", 30, None, None)]), 1, vec!["u"], (0, 0)),
        ("unknown", with(vec![own("o", "outcome_unknown", 30, None, None)]), 1, vec!["o"], (0, 0)),
        ("gap", with(vec![gap()]), 1, vec!["hole-log-1"], (0, 0)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("a.db");
        SqliteStore::open(&db).unwrap().write(&Batch { records, ..Batch::default() }).unwrap();
        let (found, json) = ask(&db, "1h");
        let ids = json["missing"].as_array().unwrap().iter().map(|missing| missing["request_id"].as_str().unwrap());
        assert_eq!((found, ids.collect::<Vec<_>>()), (status, missing), "{name}: {json}");
        assert_eq!((json["lost"].as_u64().unwrap(), json["lost_at_most"].as_u64().unwrap()), lost, "{name}: {json}");
        let open = json["open"].as_array().unwrap().len();
        assert_eq!(open, usize::from(status != 2 && !name.starts_with("ended") && name != "crash" && name != "doubt"));
    }
}

#[test]
fn what_reaches_into_the_window_counts() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("a.db");
    let store = SqliteStore::open(&db).unwrap();
    // From 80 to 75 seconds ago.
    let records = vec![call(1, 200), own("hole-vm-1-2-2", "hole", 80, Some(1), None), call(3, 10)];
    store.write(&Batch { records, ..Batch::default() }).unwrap();
    assert_eq!(ask(&db, "70s").0, 0);
    assert_eq!(ask(&db, "78s").0, 1);
    assert_eq!(ask(&db, "90s").0, 1);
    let rejected = Rejected::new("file", "access.log".to_owned(), 0, "why".to_owned(), b"what");
    let conflict = Rejected { source: "store".to_owned(), ..rejected.clone() };
    store.write(&Batch { rejected: vec![conflict], ..Batch::default() }).unwrap();
    assert_eq!(ask(&db, "70s").0, 0, "the store has a record under its id");
    store.write(&Batch { rejected: vec![rejected], ..Batch::default() }).unwrap();
    let (status, found) = ask(&db, "70s");
    assert_eq!((status, &found["missing"][0]["kind"]), (1, &"rejected".into()));

    let output = program(&["completeness", "--sqlite", "/nowhere/a.db"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "an error says nothing");
}
