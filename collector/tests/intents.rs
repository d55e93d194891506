//! The socket for intents: what is answered, and that an intent that was answered with 204 is on disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use audit::notice::{End, INTENTS, REPORTS, VmReport};
use audit::{AttemptFacts, ExchangeFacts};
use common::gateway::{Client, Disk, intent};
use common::program::{program, start, terminate};
use common::wait_for;
use rusqlite::{Connection, OpenFlags};

/// A collector's files.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("intents.sock")
    }

    fn ledger(&self) -> PathBuf {
        self.path("access.log.ledger.db")
    }

    fn arguments(&self) -> Vec<String> {
        let text = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let (log, db, socket) = (text("access.log"), text("a.db"), text("intents.sock"));
        ["run", "--file", &log, "--sqlite", &db, "--intents", &socket].map(str::to_owned).to_vec()
    }

    fn start(&self) -> Child {
        let arguments = self.arguments();
        start(&mut program(&arguments.iter().map(String::as_str).collect::<Vec<_>>())).0
    }

    fn start_on(&self, disk: &Disk) -> Child {
        let arguments = self.arguments();
        let mut command = program(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        disk.preload(&mut command);
        start(&mut command).0
    }

    /// The ids of the open intents.
    fn open(&self) -> HashSet<String> {
        let ledger = Connection::open_with_flags(self.ledger(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut statement = ledger.prepare("SELECT id FROM intents").unwrap();
        let ids = statement.query_map([], |row| row.get(0)).unwrap();
        ids.map(Result::unwrap).collect()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn every_answer_has_its_status_and_text() {
    let files = Files::new();
    let child = files.start();
    let mut client = Client::connect(&files.socket());
    assert_eq!(client.intent(&intent("one")), (204, String::new()));
    assert!(files.open().contains("one"), "before the answer");
    assert_eq!(client.intent(&intent("one")), (204, String::new()), "the same again");
    let mut other = intent("one");
    other.exchange.model = Some("opus".to_owned());
    assert_eq!(client.intent(&other).0, 409);
    let end = End {
        time_ms: 5,
        status: 200,
        exchange: ExchangeFacts { id: "one".to_owned(), ..ExchangeFacts::default() },
        attempt: Some(AttemptFacts { region: "us-east-1".to_owned(), ..AttemptFacts::default() }),
    };
    let report = VmReport {
        vm: "vm-1".to_owned(),
        envoy: "envoy-1".to_owned(),
        time_ms: 6,
        begun: 2,
        logged: 1,
        may_begin: 9,
        ends: vec![end],
    };
    assert_eq!(client.send("POST", REPORTS, &serde_json::to_vec(&report).unwrap()), (204, String::new()));

    let huge = serde_json::to_string(&VmReport { may_begin: u64::MAX, ends: Vec::new(), ..report.clone() }).unwrap();
    let long_id = "x".repeat(65);
    let facts = |id: &str| format!(r#"{{"time_ms":1,"exchange":{{"id":"{id}","usage":{{}}}}}}"#);
    for (method, path, body, status, text) in [
        ("POST", INTENTS, "garbage", 400, "expected value at line 1 column 1"),
        ("POST", INTENTS, r#"{"exchange":{"id":"a"}}"#, 400, "missing field `time_ms`"),
        ("POST", INTENTS, r#"{"time_ms":1,"exchange":{"id":7}}"#, 400, "exchange.id: invalid type"),
        ("POST", INTENTS, &facts(""), 400, "exchange.id is empty"),
        ("POST", INTENTS, &facts(&long_id), 400, "exchange.id has 65 bytes, at most 64"),
        ("POST", INTENTS, &(facts("a") + "more"), 400, "trailing characters"),
        ("POST", INTENTS, &facts(&"x".repeat(300 * 1024)), 413, "longer than 262144 bytes"),
        ("POST", REPORTS, r#"{"vm":"v"}"#, 400, "missing field `envoy`"),
        ("POST", REPORTS, &serde_json::to_string(&VmReport::default()).unwrap(), 400, "vm is empty"),
        ("POST", REPORTS, &huge, 400, "may_begin is larger than 2^53"),
        ("POST", "/v2/intents", "{}", 404, "no such path: /v2/intents"),
        ("GET", INTENTS, "", 405, "GET is not allowed"),
    ] {
        let (found, said) = Client::connect(&files.socket()).send(method, path, body.as_bytes());
        assert!(found == status && said.contains(text), "{method} {path}: {found} {said}");
    }
    // Facts of a newer gateway are taken, and kept.
    let newer = r#"{"time_ms":1,"exchange":{"id":"newer","usage":{},"tier":"flex"},"more":1}"#;
    assert_eq!(client.send("POST", INTENTS, newer.as_bytes()).0, 204);
    assert_eq!(files.open(), HashSet::from(["one", "newer"].map(str::to_owned)));
    assert_eq!((mode(&files.socket()), mode(&files.ledger())), (0o660, 0o600));
    terminate(child);
    assert!(!files.socket().exists());
}

#[tokio::test]
async fn http_2_by_prior_knowledge_is_served() {
    let files = Files::new();
    let child = files.start();
    let stream = tokio::net::UnixStream::connect(files.socket()).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream));
    let (mut send, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let answers = (0..50).map(|number| {
        let body = serde_json::to_string(&intent(&format!("h2-{number}"))).unwrap();
        let request = hyper::Request::post(format!("http://collector{INTENTS}")).body(body).unwrap();
        send.send_request(request)
    });
    for answer in answers.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap().status(), 204);
    }
    assert_eq!(files.open().len(), 50);
    // The connection stays open; the stop does not wait for it.
    let stop = Instant::now();
    terminate(child);
    assert!(stop.elapsed() < Duration::from_secs(5), "{:?}", stop.elapsed());
}

#[test]
fn a_socket_is_replaced_only_if_it_is_dead() {
    let files = Files::new();
    let mut child = files.start();
    let fails = |arguments: &[String]| {
        let output = program(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(fails(&files.arguments()).contains("another audit-collector uses this ledger"));
    let mut other = files.arguments();
    other.extend(["--ledger".to_owned(), files.path("other.db").to_str().unwrap().to_owned()]);
    let said = fails(&other);
    assert!(said.contains("intents.sock: another process serves this socket"), "{said}");
    assert_eq!(Client::connect(&files.socket()).intent(&intent("one")).0, 204, "the first still serves");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(files.socket().exists());
    let child = files.start();
    assert_eq!(Client::connect(&files.socket()).intent(&intent("two")).0, 204);
    assert_eq!(files.open(), HashSet::from(["one", "two"].map(str::to_owned)));
    terminate(child);

    let with = |socket: &str| {
        let mut arguments = files.arguments();
        *arguments.last_mut().unwrap() = socket.to_owned();
        fails(&arguments)
    };
    fs::write(files.path("file"), "x").unwrap();
    for (socket, text) in [
        ("/nowhere/intents.sock", "its folder does not exist"),
        (files.path("file").to_str().unwrap(), "a file that is not a socket has this name"),
        (files.path(&"x".repeat(108)).to_str().unwrap(), "a Unix socket's at most 107"),
    ] {
        let said = with(socket);
        assert!(said.contains(text), "{socket}: {said}");
    }
}

/// Answered intents are there after each kill.
#[test]
fn a_kill_loses_no_intent_that_was_answered() {
    let files = Files::new();
    let answered = Arc::new(Mutex::new(HashSet::new()));
    // A busy machine answers few in a round.
    for round in 0..200 {
        if round >= 15 && answered.lock().unwrap().len() > 200 {
            break;
        }
        let mut child = files.start();
        let stop = Arc::new(AtomicBool::new(false));
        let senders = (0..4).map(|sender| {
            let (answered, stop, socket) = (Arc::clone(&answered), Arc::clone(&stop), files.socket());
            std::thread::spawn(move || {
                let mut client = Client::connect(&socket);
                for number in 0.. {
                    let intent = intent(&format!("{round}-{sender}-{number}"));
                    let body = serde_json::to_vec(&intent).unwrap();
                    match client.try_send("POST", INTENTS, &body) {
                        Some((204, _)) => answered.lock().unwrap().insert(intent.exchange.id),
                        answer => {
                            assert!(answer.is_none() && stop.load(Ordering::SeqCst), "{answer:?}");
                            return;
                        }
                    };
                }
            })
        });
        let senders: Vec<_> = senders.collect();
        std::thread::sleep(Duration::from_millis(20 + round * 17 % 90));
        stop.store(true, Ordering::SeqCst);
        child.kill().unwrap();
        child.wait().unwrap();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let answered = answered.lock().unwrap();
        let missing: Vec<_> = answered.difference(&files.open()).cloned().collect();
        assert!(missing.is_empty(), "round {round}: {missing:?}");
    }
    let count = answered.lock().unwrap().len();
    assert!(count > 200, "{count}");
}

#[tokio::test]
async fn a_full_or_slow_disk_refuses_and_recovers() {
    let (files, disk) = (Files::new(), Disk::new());
    let child = files.start_on(&disk);
    let mut client = Client::connect(&files.socket());
    assert_eq!(client.intent(&intent("before")).0, 204);
    disk.set("full", 1);
    assert_eq!(client.intent(&intent("full")), (503, "the ledger's disk is full\n".to_owned()));
    disk.set("full", 0);
    assert_eq!(client.intent(&intent("after")).0, 204);

    disk.set("flush_us", 2_600_000);
    let begun = Instant::now();
    assert_eq!(client.intent(&intent("slow")), (503, "too slow: it was not on disk within 2 s\n".to_owned()));
    assert!(begun.elapsed() < Duration::from_millis(2_400), "{:?}", begun.elapsed());
    assert!(files.open().contains("slow"), "it is on its way");
    disk.set("flush_us", 0);
    wait_for("the late intent to be withdrawn", || !files.open().contains("slow")).await;
    // One that came again in time stays, although an earlier caller gave up.
    disk.set("flush_us", 2_600_000);
    assert_eq!(client.intent(&intent("again")).0, 503);
    disk.set("flush_us", 0);
    assert_eq!(client.intent(&intent("again")).0, 204);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(files.open(), HashSet::from(["before", "after", "again"].map(str::to_owned)));
    terminate(child);
}

#[tokio::test]
async fn a_deleted_ledger_ends_the_collector() {
    // Without the WAL, an intent that was answered is in no file.
    for suffix in ["", "-wal", "-shm"] {
        let files = Files::new();
        let mut child = files.start();
        fs::remove_file(format!("{}{suffix}", files.ledger().display())).unwrap();
        let answer =
            Client::connect(&files.socket()).try_send("POST", INTENTS, &serde_json::to_vec(&intent("lost")).unwrap());
        let refused =
            answer.as_ref().is_none_or(|(status, text)| *status == 503 && text.contains("deleted or replaced"));
        assert!(refused, "{suffix}: {answer:?}");
        wait_for("the end", || child.try_wait().unwrap().is_some()).await;
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains("the ledger was deleted or replaced"), "{stderr}");
    }
}

#[test]
fn a_damaged_ledger_is_named_at_the_start() {
    let files = Files::new();
    terminate(files.start());
    let whole = fs::read(files.ledger()).unwrap();
    let mut bytes = whole.clone();
    bytes[4096..8192].fill(0xa5);
    fs::write(files.ledger(), &bytes).unwrap();
    let arguments = files.arguments();
    let output = program(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("the ledger is damaged"), "{stderr}");
    assert_eq!(fs::read(files.ledger()).unwrap(), bytes, "it is left as it was");
}

/// 500 intents a second while a flush takes 2 ms: intents wait for one flush, and not for those of others.
#[test]
fn flushes_overlap() {
    let (files, disk) = (Files::new(), Disk::new());
    let child = files.start_on(&disk);
    disk.set("flush_us", 2_000);
    let (senders, seconds) = (25, 4);
    let begin = Instant::now() + Duration::from_millis(200);
    let threads = (0..senders).map(|sender| {
        let socket = files.socket();
        std::thread::spawn(move || {
            let mut client = Client::connect(&socket);
            let mut times = Vec::new();
            for number in 0..500 * seconds / senders {
                let at = begin + Duration::from_millis(2) * (number * senders + sender);
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                let sent = Instant::now();
                assert_eq!(client.intent(&intent(&format!("{sender}-{number}"))).0, 204);
                times.push(sent.elapsed());
            }
            times
        })
    });
    let threads: Vec<_> = threads.collect();
    let mut times: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100];
    println!("min {:?}, p50 {:?}, p90 {:?}, p99 {:?}, max {:?}", times[0], at(50), at(90), at(99), times.last());
    assert!(times[0] >= Duration::from_millis(2), "each waits for a flush: {:?}", times[0]);
    // A release build takes 2.4 ms (p50). The machines of the tests are busy; one flush after the other takes 50 ms.
    assert!(at(50) < Duration::from_millis(30), "{:?}", at(50));
    assert_eq!(files.open().len(), times.len());
    terminate(child);
}
