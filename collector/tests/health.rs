//! What a run says of itself: `/metrics`, `/ready`, `/live`, and its messages to systemd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use common::http::{get, metric, serve};
use common::program::{program, start, terminate};
use common::{line, wait_for};

/// The address of the page, as the line `ready …` has it.
fn address(ready: &str) -> String {
    ready.split_whitespace().find_map(|word| word.strip_prefix("health=")).unwrap().to_owned()
}

fn append(log: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(log).unwrap().write_all(text.as_bytes()).unwrap();
}

#[tokio::test]
async fn the_page_follows_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    append(&log, &line("one"));
    append(&log, "garbage\n");
    let arguments =
        ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap(), "--health", "127.0.0.1:0"];
    let (child, ready) = start(&mut program(&arguments));
    let page = address(&ready);
    wait_for("the record", || metric(&page, "records_stored_total") == 1.0).await;
    assert_eq!(get(&page, "/ready"), (200, "ready\n".to_owned()));
    assert_eq!(get(&page, "/live"), (200, "live\n".to_owned()));
    assert_eq!(metric(&page, "entries_rejected_total"), 1.0);
    assert!(metric(&page, "store_last_success_timestamp_seconds") > 1.7e9);
    wait_for("the log's end", || metric(&page, "log_unread_bytes") == 0.0).await;
    assert_eq!((metric(&page, "log_lag_seconds"), metric(&page, "store_wait_seconds")), (0.0, 0.0));
    assert!(metric(&page, "log_disk_free_bytes") > 0.0 && metric(&page, "log_open_parts") == 1.0);

    let other = rusqlite::Connection::open(&db).unwrap();
    other.execute_batch("ALTER TABLE records RENAME TO away").unwrap();
    append(&log, &line("two"));
    wait_for("a failure", || metric(&page, "store_failures") >= 2.0).await;
    let (status, reason) = get(&page, "/ready");
    assert!(status == 503 && reason.contains("the store accepts nothing"), "{status} {reason}");
    assert!(reason.contains("no such table: records"), "{reason}");
    // The reader waits for the store; lines that are written meanwhile are seen.
    append(&log, &line("three"));
    let bytes = (line("two").len() + line("three").len()) as f64;
    wait_for("the backlog", || metric(&page, "log_unread_bytes") == bytes).await;
    wait_for("an age", || metric(&page, "log_lag_seconds") >= 1.0 && metric(&page, "store_wait_seconds") >= 1.0).await;
    assert_eq!(get(&page, "/live").0, 200);

    other.execute_batch("ALTER TABLE away RENAME TO records").unwrap();
    wait_for("all records", || metric(&page, "records_stored_total") == 3.0).await;
    wait_for("the repair", || get(&page, "/ready").0 == 200 && metric(&page, "log_lag_seconds") == 0.0).await;
    assert_eq!(metric(&page, "store_failures"), 0.0);
    terminate(child);
}

/// And each is in the list of `docs/audit.md`.
#[tokio::test]
async fn each_metric_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let envoy = serve(|_| Some((404, String::new())));
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    let (child, ready) = start(program(&arguments).args(["--health", "127.0.0.1:0", "--envoy-admin", &envoy]));
    let address = address(&ready);
    wait_for("the first look at the disk and at Envoy", || {
        let (_, page) = get(&address, "/metrics");
        page.contains("log_disk_free_bytes ") && page.contains("envoy_up ")
    })
    .await;
    let (_, page) = get(&address, "/metrics");
    let names: BTreeSet<&str> =
        page.lines().filter(|line| !line.starts_with('#')).map(|line| line.split([' ', '{']).next().unwrap()).collect();
    assert!(names.len() > 20 && names.iter().all(|name| name.starts_with("audit_collector_")), "{names:?}");
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit.md")).unwrap();
    for name in names {
        assert_eq!(page.matches(&format!("# HELP {name} ")).count(), 1, "{name}");
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
        let short = name.strip_prefix("audit_collector_").unwrap();
        assert!(document.contains(&format!("`{short}`")), "docs/audit.md has no {short}");
    }
    terminate(child);
}

#[test]
fn a_taken_port_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap(), "--health", &taken];
    let output = program(&arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains(&format!("cannot listen on {taken}")), "{stderr}");
}

/// systemd's end of the socket.
struct Manager {
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { socket, _folder: folder, path }
    }

    /// The lines of the messages until one is as wanted or the time is over.
    fn read(&self, time: Duration, until: impl Fn(&str) -> bool) -> Vec<String> {
        let (start, mut lines) = (Instant::now(), Vec::<String>::new());
        let mut buffer = [0; 4096];
        while start.elapsed() < time && !lines.iter().any(|line| until(line)) {
            if let Ok(count) = self.socket.recv(&mut buffer) {
                lines.extend(String::from_utf8_lossy(&buffer[..count]).lines().map(str::to_owned));
            }
        }
        lines
    }
}

fn fed(lines: &[String]) -> usize {
    lines.iter().filter(|line| *line == "WATCHDOG=1").count()
}

#[tokio::test]
async fn systemd_hears_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    append(&log, &line("one"));
    let manager = Manager::new();
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    let mut command = program(&arguments);
    let (child, _) = start(command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "2000000"));
    let lines = manager.read(Duration::from_secs(10), |line| line == "READY=1");
    assert!(lines.iter().any(|line| line == "READY=1"), "{lines:?}");
    // A store that refuses does not hang: systemd does not end the program for it.
    let other = rusqlite::Connection::open(&db).unwrap();
    other.execute_batch("ALTER TABLE records RENAME TO away").unwrap();
    append(&log, &line("two"));
    let lines = manager.read(Duration::from_secs(3), |_| false);
    assert!(fed(&lines) >= 4, "{lines:?}");
    let lines = manager.read(Duration::from_secs(15), |line| line.contains("accepts nothing"));
    assert!(lines.iter().any(|line| line.starts_with("STATUS=the store accepts nothing")), "{lines:?}");
    other.execute_batch("ALTER TABLE away RENAME TO records").unwrap();
    terminate(child);
    let lines = manager.read(Duration::from_secs(1), |line| line == "STOPPING=1");
    assert!(lines.iter().any(|line| line == "STOPPING=1"), "{lines:?}");
}

/// A write that does not end must not look like a run that works.
#[tokio::test]
async fn a_hung_write_starves_the_watchdog() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    append(&log, &line("one"));
    let manager = Manager::new();
    let endpoint = serve(|request| {
        let describe = request.contains("DescribeTable");
        describe.then(|| (400, r#"{"__type":"AccessDeniedException","message":"no"}"#.to_owned()))
    });
    let mut command = program(&["run", "--file", log.to_str().unwrap(), "--dynamodb", "table"]);
    command.args(["--endpoint-url", &format!("http://{endpoint}")]);
    for (name, value) in
        [("AWS_REGION", "us-gov-west-1"), ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "example")]
    {
        command.env(name, value);
    }
    let (child, _) = start(command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "2000000"));
    let lines = manager.read(Duration::from_secs(2), |_| false);
    assert!(fed(&lines) >= 1, "{lines:?}");
    let lines = manager.read(Duration::from_secs(3), |_| false);
    assert_eq!(fed(&lines), 0, "{lines:?}");
    let mut child = child;
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("watchdog is not fed: a write to the store does not end"), "{stderr}");
}
