//! A full disk under the access log: Envoy answers calls and drops their entries. The collector says how many at most, and when.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use bedrock_double::Double;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::collector::Collector;
use crate::harness::{Gateway, Keys, required};

const CALL: &[u8] = b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// A file system of its own in memory. Needs root.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `size` as tmpfs(5) has it.
    pub(crate) fn mount(path: PathBuf, size: &str) -> Disk {
        std::fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path).status().unwrap();
        assert!(status.success(), "mount needs root");
        Disk(path)
    }

    /// Writes until nothing is left.
    pub(crate) fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    pub(crate) fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Disk {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a failed test may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The times of the calls' records, in seconds.
fn recorded(db: &Path) -> Vec<f64> {
    let mut query = Command::new(required("AUDIT_COLLECTOR_BIN"));
    let output =
        query.args(["query", "--json", "--kind", "calls", "--limit", "10000", "--sqlite"]).arg(db).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    // Records of a kind are the collector's own.
    let records = records.filter(|record| record["kind"].is_null());
    let times = records.map(|record| OffsetDateTime::parse(record["time"].as_str().unwrap(), &Rfc3339).unwrap());
    times.map(|time| time.unix_timestamp_nanos() as f64 / 1e9).collect()
}

fn now() -> f64 {
    OffsetDateTime::now_utc().unix_timestamp_nanos() as f64 / 1e9
}

/// Fault: the disk fills, calls are answered without a record, and nobody says so.
#[test]
fn lost_entries_are_in_a_window_with_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::mount(dir.path().join("log"), "512k");
    let double = Double::builder().tls_dir(dir.path().join("tls")).path_name("internet").start().unwrap();
    let log = disk.0.join("access.jsonl");
    let gateway = Gateway::start(
        Keys::LongLived,
        &[
            format!("--path=internet={}", double.addr()),
            format!("--upstream-ca={}", dir.path().join("tls/ca.pem").display()),
            format!("--access-log={}", log.display()),
        ],
    );
    let (db, errors) = (dir.path().join("audit.db"), dir.path().join("collector.log"));
    let collector = Collector::start(&gateway, &log, &db, &errors);
    collector.wait_for("envoy_up", |up| up == 1.0);
    let mut called = Vec::new();
    let mut call = |count: u32| {
        for _ in 0..count {
            called.push(now());
            assert_eq!(gateway.raw(CALL).0, 200);
        }
    };
    call(40);
    collector.wait_for("records_stored_total", |stored| stored >= 40.0);
    // So that the window does not reach back to them.
    std::thread::sleep(std::time::Duration::from_secs(3));
    disk.fill();
    call(100);
    collector.wait_for("gaps_total", |gaps| gaps == 1.0);
    assert!(collector.metric("envoy_write_failed_total") >= Some(1.0));
    assert_eq!(collector.metric("envoy_loss_end_timestamp_seconds"), Some(0.0));
    std::fs::remove_file(disk.filler()).unwrap();
    call(40);
    let to = collector.wait_for("envoy_loss_end_timestamp_seconds", |to| to > 0.0);
    call(40);
    collector.wait_for("log_unread_bytes", |bytes| bytes == 0.0);
    let from = collector.metric("envoy_loss_start_timestamp_seconds").unwrap();
    let bound = collector.metric("envoy_entries_lost_max_total").unwrap();
    gateway.stop();
    drop(collector);

    let recorded = recorded(&db);
    let (lost, said) = (called.len() - recorded.len(), std::fs::read_to_string(&errors).unwrap());
    println!("lost {lost} of {}, at most {bound}; window of {:.1} s", called.len(), to - from);
    assert!(lost > 0 && lost as f64 <= bound, "lost {lost}, bound {bound}: {said}");
    assert!(bound <= 200.0, "all calls in the window: {bound}");
    // Milliseconds of the record's time.
    let outside = |times: &[f64]| times.iter().filter(|&&time| time < from - 0.01 || time > to + 0.01).count();
    assert!(outside(&called) >= 40 && outside(&called) == outside(&recorded), "{from} {to}: {said}");
    assert!(said.contains("audit-collector error Envoy cannot write its log files"), "{said}");
    assert!(said.contains(&format!("at most {bound} entries between")), "{said}");
}
