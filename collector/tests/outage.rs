//! A store that is down for long while calls go on: intents, ends and lines are kept on disk, memory stays flat, and nothing is
//! missing afterwards. `AUDIT_ROWS=720000` is an hour at 200 calls a second; figures are printed with `--nocapture`.
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

use common::gateway::{Client, end, intent, report};
use common::program::{start, terminate};
use slow_dynamodb::SlowDynamo;

/// Most memory of a collector, whatever waits.
const MAX_MEMORY_KIB: u64 = 100_000;
/// Calls of a second, and of a report.
const CALLS: u64 = 200;
/// Connections to the socket.
const CONNECTIONS: u64 = 40;

/// Sends what a gateway sends of the calls from `first` on, and writes their lines.
fn calls(clients: &mut [Client], log: &Path, first: u64) {
    std::thread::scope(|scope| {
        for (connection, client) in (0..).zip(&mut *clients) {
            scope.spawn(move || {
                for number in (first + connection..first + CALLS).step_by(CONNECTIONS as usize) {
                    assert_eq!(client.intent(&intent(&backlog::id(number))), (204, String::new()));
                }
            });
        }
    });
    backlog::append(log, first..first + CALLS, Some("required"));
    let ends = (first..first + CALLS).map(|number| end(&backlog::id(number), number)).collect();
    let last = first + CALLS - 1;
    clients[0].report(&report(last, last, last, ends));
}

fn open_intents(ledger: &Path) -> u64 {
    let ledger = rusqlite::Connection::open_with_flags(ledger, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    ledger.query_row("SELECT count(*) FROM intents", [], |row| row.get::<_, i64>(0)).unwrap() as u64
}

#[tokio::test]
async fn nothing_is_lost_in_a_long_outage() {
    let rows = std::env::var("AUDIT_ROWS").map_or(2_000, |rows| rows.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (log, socket, ledger) = (path("access.log"), path("intents.sock"), path("access.log.ledger.db"));
    let dynamo = SlowDynamo::start(Duration::from_millis(10));
    dynamo.set_down(true);
    let url = format!("http://127.0.0.1:{}", dynamo.port);
    let arguments = ["run", "--file", log.to_str().unwrap(), "--intents", socket.to_str().unwrap()];
    let mut command = measure::collector(&arguments);
    command.args(["--dynamodb", "audit", "--endpoint-url", &url]);
    let (child, _) = start(&mut command);
    let memory = |name: &str| measure::memory_kib(child.id(), name);

    let begin = Instant::now();
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| Client::connect(&socket)).collect();
    println!("{:>8} calls: {} KiB", 0, memory("VmRSS"));
    for first in (1..=rows).step_by(CALLS as usize) {
        calls(&mut clients, &log, first);
        if first % (rows / 8) < CALLS {
            println!("{:>8} calls: {} KiB", first + CALLS - 1, memory("VmRSS"));
        }
    }
    let (took, peak) = (begin.elapsed(), memory("VmHWM"));
    let size = std::fs::metadata(&ledger).unwrap().len() >> 20;
    println!("{rows} calls in {took:.1?}; peak {peak} KiB; the ledger has {size} MiB");
    assert_eq!((dynamo.calls(), open_intents(&ledger)), (0, rows));

    let (begin, cpu) = (Instant::now(), measure::cpu(child.id()));
    dynamo.set_down(false);
    let mut first = None;
    while dynamo.calls() < rows {
        std::thread::sleep(Duration::from_millis(20));
        if dynamo.calls() > 0 {
            first.get_or_insert_with(Instant::now);
        }
        assert!(begin.elapsed() < Duration::from_secs(60 + rows / 500), "{} of {rows} are stored", dynamo.calls());
    }
    let after = first.unwrap_or(begin);
    println!(
        "the first record after {:.1?}, then {:.0} a second, {:.0} µs of CPU each; peak {} KiB",
        after - begin,
        rows as f64 / after.elapsed().as_secs_f64(),
        (measure::cpu(child.id()) - cpu).as_secs_f64() * 1e6 / rows as f64,
        memory("VmHWM")
    );
    common::wait_for("the end of the intents", || open_intents(&ledger) == 0).await;
    assert!((1..=rows).all(|number| dynamo.has(&backlog::id(number))));
    assert_eq!(dynamo.refused(), Vec::<String>::new());
    let peak = memory("VmHWM");
    drop(clients);
    let stderr = terminate(child);
    // The starts of Envoy and VM, besides the calls: nothing is unlogged, unknown or missing.
    assert_eq!(dynamo.others(), 2, "{stderr}");
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB; {stderr}");
}
