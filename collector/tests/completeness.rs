//! What is missing gets a record: holes in a VM's numbers, ended VMs, calls that the log does not have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use audit::AuditRecord;
use audit_collector::query::Query;
use audit_collector::store::sqlite::SqliteStore;
use common::gateway::{BEGAN, Client, end, intent, report};
use common::program::{program, start, terminate};
use common::{numbered_line, wait_for};
use time::OffsetDateTime;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts a collector that waits for seconds instead of minutes.
    fn start(&self) -> Child {
        self.start_with(&[])
    }

    fn start_with(&self, more: &[&str]) -> Child {
        let [log, db, socket] = ["access.log", "a.db", "intents.sock"].map(|name| self.path(name));
        let mut command = program(&["run", "--missing-after", "2", "--ended-after", "3", "--file"]);
        command.arg(log).arg("--sqlite").arg(db).arg("--intents").arg(socket).args(more);
        start(&mut command).0
    }

    fn client(&self) -> Client {
        Client::connect(&self.path("intents.sock"))
    }

    fn append(&self, text: &str) {
        let log = OpenOptions::new().create(true).append(true).open(self.path("access.log"));
        log.unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The lines of `vm-1` with these numbers.
    fn log(&self, numbers: &[u64]) {
        let line = |number: &u64| numbered_line(&format!("c-{number}"), "vm-1", "envoy-1", *number, None);
        self.append(&numbers.iter().map(line).collect::<String>());
    }

    /// All records by id.
    fn records(&self) -> BTreeMap<String, AuditRecord> {
        let store = SqliteStore::open_to_read(&self.path("a.db")).unwrap();
        let query = Query { limit: 100_000, ..Query::default() };
        let found = store.query(&query, OffsetDateTime::now_utc()).unwrap();
        found.into_iter().map(|record| (record.request_id.clone(), record)).collect()
    }

    fn has(&self, id: &str) -> bool {
        self.records().contains_key(id)
    }

    fn ids(&self) -> Vec<String> {
        self.records().into_keys().collect()
    }

    fn ledger(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path("access.log.ledger.db")).unwrap()
    }

    fn open_intents(&self) -> i64 {
        self.ledger().query_row("SELECT count(*) FROM intents WHERE recorded = 0", [], |row| row.get(0)).unwrap()
    }
}

#[tokio::test]
async fn a_number_that_never_comes_is_a_hole() {
    let files = Files::new();
    files.log(&[1, 2, 5, 6]);
    let child = files.start();
    wait_for("the hole", || files.has("hole-vm-1-3-4")).await;
    let ids = ["c-1", "c-2", "c-5", "c-6", "envoy_start-envoy-1", "hole-vm-1-3-4", "vm_start-vm-1"];
    assert_eq!(files.ids(), ids);
    let records = files.records();
    let hole = &records["hole-vm-1-3-4"];
    assert_eq!((hole.kind.as_deref(), hole.vm.as_deref(), hole.lost), (Some("hole"), Some("vm-1"), Some(2)));
    let (before, after) = (&records["c-2"], &records["c-5"]);
    assert_eq!(hole.time, before.time);
    // The call behind it took 30 ms.
    assert!(hole.until.as_ref().unwrap() > &after.time, "{hole:?}");
    let start = &records["vm_start-vm-1"];
    assert_eq!((&start.time, start.envoy.as_deref()), (&records["c-1"].time, Some("envoy-1")));
    // One that comes late is stored. Nothing is found twice, after a restart either.
    files.log(&[4, 7]);
    wait_for("the late record", || files.has("c-4") && files.has("c-7")).await;
    let stderr = terminate(child);
    assert!(stderr.contains("2 calls of VM vm-1") && stderr.contains("gaps 0, expired 0, lost 2,"), "{stderr}");
    let child = files.start();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(files.ids().len(), ids.len() + 2, "{:?}", files.ids());
    terminate(child);
}

#[tokio::test]
async fn a_backlog_is_not_missing() {
    let files = Files::new();
    files.log(&[1, 3]);
    let child = files.start();
    wait_for("the first records", || files.has("c-3")).await;
    let other = rusqlite::Connection::open(files.path("a.db")).unwrap();
    other.execute_batch("ALTER TABLE records RENAME TO away").unwrap();
    files.append(&numbered_line("x", "vm-2", "envoy-1", 1, None));
    files.log(&[2]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    other.execute_batch("ALTER TABLE away RENAME TO records").unwrap();
    wait_for("the late record", || files.has("c-2")).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!files.ids().iter().any(|id| id.starts_with("hole")), "{:?}", files.ids());
    terminate(child);
}

#[tokio::test]
async fn a_call_without_a_log_entry_gets_a_record() {
    let files = Files::new();
    let child = files.start();
    let mut client = files.client();
    for id in ["logged", "ended", "gone"] {
        assert_eq!(client.intent(&intent(id)).0, 204);
    }
    files.append(&numbered_line("logged", "vm-1", "envoy-1", 1, Some("required")));
    wait_for("the intent to be closed", || files.open_intents() == 2).await;
    client.report(&report(3, 2, 3, vec![end("logged", 1), end("ended", 2)]));
    wait_for("the call that is not in the log", || files.has("ended")).await;
    let records = files.records();
    let ended = &records["ended"];
    let began = OffsetDateTime::from_unix_timestamp(i64::try_from(*BEGAN / 1000).unwrap()).unwrap();
    let began = audit_collector::timestamp::timestamp(began).unwrap();
    assert_eq!((ended.kind.as_deref(), ended.status, ended.latency_ms), (Some("unlogged"), 200, 250));
    assert_eq!((ended.path.as_deref(), ended.attempts, ended.vm_logged), (Some("dx"), 2, Some(2)));
    assert_eq!((&ended.time, ended.audit.as_deref()), (&began, Some("required")));
    assert_eq!(ended.principal.as_deref(), Some("spiffe://mesh/ns/app/sa/chat"));
    assert!(records["logged"].kind.is_none() && !records.contains_key("gone"));

    // The VM falls silent: nobody will report the third.
    wait_for("the end of the VM", || files.has("envoy_end-envoy-1")).await;
    let records = files.records();
    let gone = &records["gone"];
    assert_eq!((gone.kind.as_deref(), gone.status, gone.vm_logged), (Some("outcome_unknown"), 0, None));
    let end = &records["vm_end-vm-1"];
    assert_eq!((end.lost, end.lost_at_most, end.vm_begun), (Some(0), Some(0), Some(3)), "all calls have a record");
    assert!(!records.keys().any(|id| id.starts_with("hole")), "{records:?}");
    assert_eq!(files.open_intents(), 0);
    // Its log entry comes after all, and says more.
    files.append(&numbered_line("gone", "vm-1", "envoy-1", 3, Some("required")));
    wait_for("the entry", || files.records()["gone"].kind.is_none()).await;
    let stderr = terminate(child);
    assert!(stderr.contains("unlogged 1, unknown 1\n"), "{stderr}");
}

/// A call that takes longer than `--unknown-after` is counted once: by its number, when that comes.
#[tokio::test]
async fn a_call_that_took_long_is_counted_once() {
    let files = Files::new();
    let child = files.start_with(&["--unknown-after", "2"]);
    let mut client = files.client();
    for id in ["long", "lost"] {
        assert_eq!(client.intent(&intent(id)).0, 204);
    }
    wait_for("the unknown outcomes", || {
        // The VM lives.
        client.report(&report(4, 0, 4, Vec::new()));
        files.has("long") && files.has("lost")
    })
    .await;
    files.append(&numbered_line("long", "vm-1", "envoy-1", 1, Some("required")));
    // The end of the other comes late too: it is in the log under no number.
    client.report(&report(4, 2, 4, vec![end("lost", 2)]));
    wait_for("the reported end", || files.records()["lost"].kind.as_deref() == Some("unlogged")).await;
    wait_for("the end of the VM", || files.has("vm_end-vm-1")).await;
    let records = files.records();
    assert!(records["long"].kind.is_none());
    let end = &records["vm_end-vm-1"];
    assert_eq!((end.lost, end.lost_at_most), (Some(2), Some(2)), "the third and the fourth: {records:?}");
    terminate(child);
}

#[tokio::test]
async fn an_ended_vm_leaves_its_loss_as_a_number() {
    let files = Files::new();
    let child = files.start();
    let mut client = files.client();
    files.log(&[1, 2, 3]);
    // 9 began, 4 were logged, one of these is not in the log. Up to 20 may have begun.
    client.report(&report(9, 4, 20, Vec::new()));
    wait_for("the end of the VM", || files.has("vm_end-vm-1")).await;
    let records = files.records();
    assert_eq!(records["hole-vm-1-4-4"].lost, Some(1));
    let end = &records["vm_end-vm-1"];
    assert_eq!((end.lost, end.lost_at_most), (Some(5), Some(16)), "{end:?}");
    assert_eq!(end.time[..19], records["c-3"].time[..19], "the last entry with nothing in flight");
    assert!(end.until > Some(end.time.clone()));
    let all = &records["envoy_end-envoy-1"];
    assert_eq!((all.lost, all.lost_at_most), (Some(5), Some(16)));

    // It was only stopped.
    client.report(&report(9, 9, 9, Vec::new()));
    files.log(&[5, 6, 7, 8, 9]);
    wait_for("the second start", || files.has("vm_start-vm-1-2") && files.has("c-9")).await;
    wait_for("the second end", || files.has("envoy_end-envoy-1-2")).await;
    let records = files.records();
    let end = &records["vm_end-vm-1-2"];
    assert_eq!((end.lost, end.lost_at_most), (Some(0), Some(0)), "{end:?}");
    let stderr = terminate(child);
    assert!(stderr.contains("VM vm-1 of Envoy envoy-1 has ended: 5 calls"), "{stderr}");
    assert!(stderr.contains("is seen again"), "{stderr}");
}

/// Without the socket, the entries of the next Envoy show that the last one has ended.
#[tokio::test]
async fn a_newer_envoy_ends_one_that_never_reported() {
    let files = Files::new();
    let child = files.start();
    files.log(&[1, 2]);
    wait_for("the records", || files.has("c-2")).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!files.has("vm_end-vm-1"), "silence alone says nothing");
    let mut number = 0;
    wait_for("the end of the first Envoy", || {
        number += 1;
        files.append(&numbered_line(&format!("new-{number}"), "vm-2", "envoy-2", number, None));
        files.has("envoy_end-envoy-1")
    })
    .await;
    let end = &files.records()["vm_end-vm-1"];
    assert_eq!((end.lost, end.lost_at_most), (Some(0), Some(0)));
    assert!(!files.has("vm_end-vm-2"));
    terminate(child);
}

#[tokio::test]
async fn a_class_without_audit_is_counted_only() {
    let files = Files::new();
    files.append(&numbered_line("a", "vm-1", "envoy-1", 1, Some("off")));
    files.append(&numbered_line("b", "vm-1", "envoy-1", 2, None));
    files.append(&numbered_line("c", "vm-1", "envoy-1", 3, Some("off")));
    let child = files.start();
    wait_for("the record", || files.has("b") && files.has("vm_start-vm-1")).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(files.ids(), ["b", "envoy_start-envoy-1", "vm_start-vm-1"]);
    let stderr = terminate(child);
    assert!(stderr.contains("skipped 2, gaps 0, expired 0, lost 0"), "{stderr}");
}

/// Killed at any moment, the collector misses nothing and invents nothing: entries, intents and their ends agree.
#[tokio::test]
async fn kills_invent_no_loss() {
    let files = Files::new();
    let mut number = 0;
    for round in 0..12 {
        let mut child = files.start();
        let mut client = files.client();
        for _ in 0..60 {
            number += 1;
            let id = format!("c-{number}");
            assert_eq!(client.intent(&intent(&id)).0, 204);
            files.append(&numbered_line(&id, "vm-1", "envoy-1", number, Some("required")));
        }
        client.report(&report(number, number, number, vec![end(&format!("c-{number}"), number)]));
        std::thread::sleep(Duration::from_millis(round * 37 % 200));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let child = files.start();
    wait_for("the end of the VM", || files.has("envoy_end-envoy-1")).await;
    let records = files.records();
    let own: Vec<_> =
        records.values().filter(|record| record.kind.is_some()).map(|record| &record.request_id).collect();
    assert_eq!(own, ["envoy_end-envoy-1", "envoy_start-envoy-1", "vm_end-vm-1", "vm_start-vm-1"]);
    assert_eq!(records.len() as u64, number + 4);
    assert_eq!((records["vm_end-vm-1"].lost, records["vm_end-vm-1"].lost_at_most), (Some(0), Some(0)));
    assert_eq!(files.open_intents(), 0);
    terminate(child);
}

#[tokio::test]
async fn lost_lines_are_in_the_store() {
    let files = Files::new();
    files.log(&[1]);
    let child = files.start();
    wait_for("the record", || files.has("c-1")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    fs::write(files.path("access.log"), "").unwrap();
    fs::write(files.path("access.log.bz2"), "x").unwrap();
    let gaps = || {
        let records = files.records().into_values();
        let mut gaps: Vec<_> = records.filter(|record| record.kind.as_deref() == Some("hole")).collect();
        gaps.sort_by_key(|gap| gap.error_type.clone());
        gaps
    };
    wait_for("the gaps", || gaps().len() == 2).await;
    terminate(child);
    // The machine fails: what was not on its disk is lost, and nobody knows how much.
    files.ledger().execute("UPDATE runs SET boot = 'other', clean = 0", []).unwrap();
    let child = files.start();
    wait_for("the gap", || gaps().len() == 3).await;
    terminate(child);
    let child = files.start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let names: Vec<_> = gaps().into_iter().map(|gap| gap.error_type.unwrap()).collect();
    assert_eq!(names, ["LogPartNotRead", "LogTruncated", "MachineFailed"]);
    assert!(gaps().iter().all(|gap| gap.lost.is_none() && gap.until.as_ref().unwrap() >= &gap.time));
    terminate(child);
}
