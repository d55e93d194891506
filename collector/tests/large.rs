//! `audit-collector query` on many records: the time that it takes, and its memory. `AUDIT_ROWS=2000000` is the size that
//! docs/audit.md gives figures of; `AUDIT_COLLECTOR_BIN` a release build to measure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use audit_collector::store::sqlite::SqliteStore;
use common::program::PROGRAM;

/// Most memory of a query, whatever it finds.
const MAX_MEMORY_KIB: u64 = 60_000;
/// Longer searches must say how far they are.
const QUIET: Duration = Duration::from_secs(2);

fn rows() -> u64 {
    std::env::var("AUDIT_ROWS").map_or(30_000, |rows| rows.parse().unwrap())
}

/// Fills a file with records of the last 28 days.
fn fill(path: &Path, rows: u64) {
    drop(SqliteStore::open(path).unwrap());
    let connection = rusqlite::Connection::open(path).unwrap();
    let sql = format!(
        "PRAGMA synchronous = off; PRAGMA cache_size = -400000;
         INSERT INTO records (request_id, time, principal, source_address, operation, model_asked, model_sent, route_class,
           region, path, attempts, status, error_type, bytes_in, bytes_out, tokens_in, tokens_out, latency_ms,
           first_byte_ms, upstream_request_id, access_key_id, session, token_id, expires_at)
         WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {last})
         SELECT lower(hex(randomblob(16))),
           strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-28 days', (n * 28 * 86400.0 / {rows}) || ' seconds'),
           'spiffe://mesh.example/ns/team-' || (n % 40) || '/sa/app-' || (n % 200), '10.20.' || (n % 9) || '.' || (n % 250),
           iif(n % 3, 'Converse', 'ConverseStream'), 'sonnet-' || (n % 12),
           'arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-sonnet-' || (n % 12),
           'class-' || (n % 4), iif(n % 2, 'us-east-1', 'us-west-2'), iif(n % 10, 'dx', 'vpn'), 1,
           iif(n % 50, 200, 429), iif(n % 50, NULL, 'ThrottlingException'), 900 + n % 3000, 2000 + n % 5000, n % 4000,
           n % 900, 300 + n % 20000, 200 + n % 900, lower(hex(randomblob(16))), 'ASIA' || (n / 7200),
           'arn:aws:sts::111122223333:assumed-role/bedrock-gateway/session-' || (n / 7200), lower(hex(randomblob(16))),
           unixepoch('now', '-28 days') + n * 28 * 86400 / {rows} + 30 * 86400
         FROM n;
         PRAGMA wal_checkpoint(truncate);",
        last = rows - 1
    );
    connection.execute_batch(&sql).unwrap();
}

struct Run {
    took: Duration,
    lines: u64,
    peak_kib: u64,
    stderr: String,
}

fn query(path: &Path, arguments: &[&str]) -> Run {
    let program = std::env::var("AUDIT_COLLECTOR_BIN").unwrap_or_else(|_| PROGRAM.to_owned());
    let start = Instant::now();
    let mut command = Command::new(program);
    command.args(["query", "--progress", "--sqlite"]).arg(path).args(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || std::io::read_to_string(&mut stderr).unwrap());
    let status = format!("/proc/{}/status", child.id());
    let (done, measured) = std::sync::mpsc::channel::<()>();
    let memory = std::thread::spawn(move || {
        let mut peak = 0;
        while measured.recv_timeout(Duration::from_millis(20)).is_err() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak = line.map_or(peak, |line| line.trim().trim_end_matches(" kB").parse().unwrap()).max(peak);
        }
        peak
    });
    let lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n').count() as u64;
    let status = child.wait().unwrap();
    let took = start.elapsed();
    done.send(()).unwrap();
    let stderr = errors.join().unwrap();
    assert!(status.success(), "{arguments:?}: {stderr}");
    Run { took, lines, peak_kib: memory.join().unwrap(), stderr }
}

#[test]
fn long_queries_show_progress_in_flat_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var("AUDIT_DB").map_or_else(|_| folder.path().join("a.db"), Into::into);
    let rows = rows();
    if !path.exists() {
        let start = Instant::now();
        fill(&path, rows);
        println!("{rows} records made in {:?}", start.elapsed());
    }
    let all = rows.to_string();
    for (arguments, lines) in [
        (&["--limit", "50"][..], 51),
        (&["--status", "4xx", "--limit", "50"], 51),
        (&["--principal", "no-such-caller"], 0),
        (&["--access-key-id", "ASIA1"], 51),
        (&["--model", "sonnet-11", "--class", "class-3", "--path", "vpn", "--since", "20d"], 0),
        (&["--since", "2h", "--by", "model"], 13),
        (&["--by", "model,path"], 25),
        (&["--by", "day,principal,model,path", "--time-zone", "America/Denver", "--format", "csv"], 1),
        (&["--by", "day", "--status", "5xx"], 0),
        (&["--json", "--limit", &all], rows),
        (&["--format", "csv", "--limit", &all, "--time-zone", "Europe/Berlin"], rows + 1),
    ] {
        let Run { took, lines: printed, peak_kib, stderr } = query(&path, arguments);
        let shown = stderr.lines().filter(|line| line.contains("searched")).count();
        println!("{took:>10.2?} {peak_kib:>6} KiB {shown:>2} lines of progress, {printed} lines: {arguments:?}");
        // Fewer rows have fewer groups.
        assert!(printed <= lines || lines == 1, "{arguments:?}: {printed} lines");
        assert!(rows > 1_000_000 || lines < rows || printed == lines, "{arguments:?}: {printed} lines");
        assert!(took < QUIET || shown > 0, "{arguments:?} took {took:?}: {stderr}");
        assert!(peak_kib < MAX_MEMORY_KIB, "{arguments:?}: {peak_kib} KiB");
    }
}
