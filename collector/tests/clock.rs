//! The machine's clock steps while the collector runs, or between two runs. `STEPPED_CLOCK_LIBRARY` is `host-tests/clock`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use audit::AuditRecord;
use audit_collector::query::Query;
use audit_collector::store::sqlite::SqliteStore;
use common::gateway::{Client, end, intent, report};
use common::program::{program, start, terminate};
use common::wait_for;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const MONTH: i64 = 31 * 86_400;

/// A collector's files, and its clock.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        fs::write(scene.path("access.log"), "").unwrap();
        scene.step(0);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The collector's clock is that many seconds ahead of this machine's.
    fn step(&self, ahead: i64) {
        fs::write(self.path("clock"), (ahead * 1_000_000_000).to_ne_bytes()).unwrap();
    }

    fn start(&self) -> Child {
        let mut command = program(&["run", "--missing-after", "1", "--ended-after", "2", "--unknown-after", "3"]);
        command.arg("--file").arg(self.path("access.log")).arg("--sqlite").arg(self.path("a.db"));
        command.arg("--intents").arg(self.path("intents.sock"));
        start(self.give(&mut command)).0
    }

    fn give<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let library = std::env::var_os("STEPPED_CLOCK_LIBRARY");
        let library = library.expect("STEPPED_CLOCK_LIBRARY is not set; `cargo xtask test` builds it");
        command.env("LD_PRELOAD", library).env("STEPPED_CLOCK_FILE", self.path("clock"))
    }

    fn records(&self) -> Vec<AuditRecord> {
        let store = SqliteStore::open_to_read(&self.path("a.db")).unwrap();
        store.query(&Query { limit: 1000, ..Query::default() }, OffsetDateTime::now_utc()).unwrap()
    }

    async fn find(&self, id: &str) -> AuditRecord {
        let found = || self.records().into_iter().find(|record| record.request_id == id);
        wait_for(id, || found().is_some()).await;
        found().unwrap()
    }
}

/// Whether the record's window has a time that is that many seconds ahead of this machine's.
fn window_has(record: &AuditRecord, ahead: i64) -> bool {
    let parsed = |time: &str| OffsetDateTime::parse(time, &Rfc3339).unwrap();
    let time = OffsetDateTime::now_utc() + time::Duration::seconds(ahead);
    parsed(&record.time) <= time && time <= parsed(record.until.as_deref().unwrap()) + time::Duration::minutes(1)
}

#[tokio::test]
async fn a_step_back_delays_no_record() {
    let scene = Scene::new();
    scene.step(MONTH);
    let child = scene.start();
    let mut client = Client::connect(&scene.path("intents.sock"));
    for id in ["ended", "open"] {
        assert_eq!(client.intent(&intent(id)).0, 204);
    }
    client.report(&report(2, 1, 2, vec![end("ended", 1)]));
    scene.step(0);
    assert_eq!(scene.find("ended").await.kind.as_deref(), Some("unlogged"));
    assert_eq!(scene.find("open").await.kind.as_deref(), Some("outcome_unknown"));
    scene.find("vm_end-vm-1").await;
    let stderr = terminate(child);
    assert!(stderr.contains("the machine's clock stepped 26784"), "{stderr}");
}

#[tokio::test]
async fn a_step_between_runs_delays_no_record() {
    let scene = Scene::new();
    scene.step(MONTH);
    let mut child = scene.start();
    let mut client = Client::connect(&scene.path("intents.sock"));
    assert_eq!(client.intent(&intent("ended")).0, 204);
    client.report(&report(1, 1, 1, vec![end("ended", 1)]));
    // The clock is kept once the log is read.
    tokio::time::sleep(Duration::from_millis(700)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    scene.step(0);
    let child = scene.start();
    assert_eq!(scene.find("ended").await.kind.as_deref(), Some("unlogged"));
    terminate(child);
}

#[tokio::test]
async fn a_window_across_a_step_has_both_times() {
    for ahead in [600, -600, MONTH] {
        let scene = Scene::new();
        let child = scene.start();
        let mut client = Client::connect(&scene.path("intents.sock"));
        client.report(&report(1, 1, 1, Vec::new()));
        // Two calls began, and one may have, when the clock was wrong.
        scene.step(ahead);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        client.report(&report(3, 1, 4, Vec::new()));
        scene.step(0);
        let end = scene.find("vm_end-vm-1").await;
        assert_eq!((end.lost, end.lost_at_most), (Some(2), Some(3)));
        assert!(window_has(&end, ahead) && window_has(&end, 0), "{ahead}: {} to {:?}", end.time, end.until);
        assert_eq!(end.error_type.as_deref(), Some("ClockStepped"));
        terminate(child);
    }
}
