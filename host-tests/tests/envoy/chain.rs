//! No call without a record, while everything that keeps records fails in turn: the collector and Envoy are killed, the store
//! is locked, the disk of log and ledger is full, the log is rotated in three ways.
//!
//! Each call has a model of its own, so that what the double got can be compared with the records. Half are audited as
//! `required`: each call that the double got has a record. Others are `best_effort`: each one without a record is in a window
//! that a record names, and the windows' bounds add up to at least as many.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bedrock_double::{Double, EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY, Running};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::disk_full::Disk;
use crate::harness::{eventually, policy, required};

/// Calls in a second, of both kinds together.
const RATE: u64 = 200;
const CALLERS: u64 = 8;
/// How the models of calls begin that are audited as `required`, and those of the others.
const REQUIRED: &str = "vendor.required";
const OTHER: &str = "vendor.other";

/// A call, as its client saw it.
#[derive(Debug, Clone)]
struct Call {
    required: bool,
    model: String,
    /// Seconds since 1970.
    start: f64,
    /// 0 without an answer.
    status: u16,
}

/// Gateway, collector, and what they write.
struct Scene {
    dir: tempfile::TempDir,
    disk: Disk,
    double: Running,
    listen: SocketAddr,
    admin: SocketAddr,
    socket: PathBuf,
    envoy: Child,
    collector: Child,
    /// What broke, and when it was repaired.
    repairs: Vec<(&'static str, f64)>,
    /// When something broke.
    faults: Vec<f64>,
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn now() -> f64 {
    OffsetDateTime::now_utc().unix_timestamp_nanos() as f64 / 1e9
}

impl Scene {
    fn start() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::mount(dir.path().join("log"), "64m");
        let double = Double::builder().tls_dir(dir.path().join("tls")).path_name("internet").keep(1_000_000);
        let double = double.start().unwrap();
        let (listen, admin) = (free_port(), free_port());
        let class = "  - name: any\n    paths: [dx, vpn, internet]\n";
        let recorded =
            format!("  - name: recorded\n    models: [{REQUIRED}*]\n    paths: [internet]\n    audit: required\n");
        let rules = policy(dir.path(), class, &format!("{recorded}{class}"));
        let mut command = Command::new(required("BEDROCK_GATEWAY_BIN"));
        command.args([
            "up",
            "--print-config",
            "--listen-tls",
            "127.0.0.1:0",
            "--listen",
            &listen.to_string(),
            "--policy",
            &rules,
        ]);
        command.arg("--state").arg(dir.path().join("state")).arg("--access-log").arg(disk.path().join("access.jsonl"));
        command.arg("--audit").arg(dir.path().join("audit.db")).arg(format!("--path=internet={}", double.addr()));
        command.arg("--upstream-ca").arg(dir.path().join("tls/ca.pem"));
        let output = credentials(&mut command).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut config: Value = serde_json::from_slice(&output.stdout).unwrap();
        config["admin"]["address"]["socket_address"]["port_value"] = admin.port().into();
        without_feed(&mut config);
        let clusters = config["static_resources"]["clusters"].as_array().unwrap();
        let audit = clusters.iter().find(|cluster| cluster["name"] == "audit").unwrap();
        let pipe = &audit["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["pipe"]["path"];
        let socket = PathBuf::from(pipe.as_str().unwrap());
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        fs::write(dir.path().join("envoy.json"), config.to_string()).unwrap();
        let collector = start_collector(&dir, &disk, &socket);
        let envoy = start_envoy(dir.path());
        let scene = Scene {
            dir,
            disk,
            double,
            listen,
            admin,
            socket,
            envoy,
            collector,
            repairs: Vec::new(),
            faults: Vec::new(),
        };
        eventually("the gateway", || (call(scene.listen, format!("{OTHER}-ready")).status != 0).then_some(()));
        scene
    }

    fn repaired(&mut self, what: &'static str) {
        self.repairs.push((what, now()));
    }

    fn kill_collector(&mut self) {
        self.faults.push(now());
        let _ = self.collector.kill();
        let _ = self.collector.wait();
        std::thread::sleep(Duration::from_millis(700));
        self.collector = start_collector(&self.dir, &self.disk, &self.socket);
        self.repaired("collector killed");
    }

    fn kill_envoy(&mut self) {
        self.faults.push(now());
        let _ = self.envoy.kill();
        let _ = self.envoy.wait();
        self.envoy = start_envoy(self.dir.path());
        let listen = self.listen;
        eventually("Envoy", || TcpStream::connect(listen).ok());
        self.repaired("Envoy killed");
    }

    /// Another process holds the database's lock.
    fn lock_store(&mut self, seconds: u64) {
        self.faults.push(now());
        let script = "import sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                      c.execute('PRAGMA busy_timeout=5000')\nc.execute('BEGIN IMMEDIATE')\ntime.sleep(float(sys.argv[2]))";
        let mut python = Command::new(required("GATEWAY_PYTHON"));
        python.args(["-c", script]).arg(self.dir.path().join("audit.db")).arg(seconds.to_string());
        assert!(python.status().unwrap().success());
        self.repaired("store locked");
    }

    fn fill_disk(&mut self, seconds: u64) {
        self.faults.push(now());
        self.disk.fill();
        std::thread::sleep(Duration::from_secs(seconds));
        fs::remove_file(self.disk.filler()).unwrap();
        self.repaired("disk full");
    }

    fn log(&self, part: &str) -> PathBuf {
        self.disk.path().join(format!("access.jsonl{part}"))
    }

    /// The log gets another name, and Envoy opens a new one.
    fn rename_log(&mut self, part: &str, create: bool) {
        fs::rename(self.log(""), self.log(part)).unwrap();
        if create {
            fs::write(self.log(""), b"").unwrap();
        }
        std::thread::sleep(Duration::from_millis(300));
        let mut admin = TcpStream::connect(self.admin).unwrap();
        write!(admin, "POST /reopen_logs HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .unwrap();
        admin.read_to_end(&mut Vec::new()).unwrap();
    }

    fn copy_and_truncate_log(&mut self, part: &str) {
        fs::copy(self.log(""), self.log(part)).unwrap();
        fs::OpenOptions::new().write(true).open(self.log("")).unwrap().set_len(0).unwrap();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for child in [&mut self.envoy, &mut self.collector] {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }
}

fn credentials(command: &mut Command) -> &mut Command {
    command.env("AWS_ACCESS_KEY_ID", EXAMPLE_ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", EXAMPLE_SECRET_KEY)
}

/// Leaves the file as the only source: the feed would have what the file lost.
fn without_feed(config: &mut Value) {
    match config {
        Value::Object(object) => {
            if let Some(loggers) = object.get_mut("access_log").and_then(Value::as_array_mut) {
                loggers.retain(|logger| logger["name"] != "envoy.access_loggers.http_grpc");
            }
            object.values_mut().for_each(without_feed);
        }
        Value::Array(values) => values.iter_mut().for_each(without_feed),
        _ => {}
    }
}

fn start_envoy(dir: &Path) -> Child {
    let mut command = Command::new(required("ENVOY_BIN"));
    command.args(["--disable-hot-restart", "--concurrency", "2", "--file-flush-interval-msec", "100"]);
    command.args(["--file-flush-min-size-kb", "1"]).arg("-c").arg(dir.join("envoy.json"));
    command.arg("--log-path").arg(dir.join("envoy.log")).stdout(Stdio::null()).stderr(Stdio::null());
    credentials(&mut command).spawn().unwrap()
}

fn start_collector(dir: &tempfile::TempDir, disk: &Disk, socket: &Path) -> Child {
    let mut command = Command::new(required("AUDIT_COLLECTOR_BIN"));
    command.args(["run", "--missing-after", "3", "--ended-after", "4", "--unknown-after", "30", "--file"]);
    command.arg(disk.path().join("access.jsonl")).arg("--intents").arg(socket);
    command.arg("--ledger").arg(disk.path().join("ledger.db")).arg("--sqlite").arg(dir.path().join("audit.db"));
    let errors = fs::OpenOptions::new().create(true).append(true).open(dir.path().join("collector.log")).unwrap();
    let mut child = command.stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.starts_with("ready "), "{ready} {}", fs::read_to_string(dir.path().join("collector.log")).unwrap());
    child
}

/// One call on a connection of its own.
fn call(address: SocketAddr, model: String) -> Call {
    let body = r#"{"messages":[{"role":"user","content":[{"text":"hello"}]}]}"#;
    let length = body.len();
    let head = format!(
        "POST /model/{model}/converse HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    let start = now();
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
        let _ = stream.read_to_end(&mut answer);
    }
    let status = String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Call { required: model.starts_with(REQUIRED), model, start, status }
}

/// Calls until `stop`, whatever becomes of them.
fn load(address: SocketAddr, stop: &Arc<AtomicBool>) -> (Vec<std::thread::JoinHandle<()>>, Arc<Mutex<Vec<Call>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let callers = (0..CALLERS).map(|caller| {
        let (stop, calls) = (Arc::clone(stop), Arc::clone(&calls));
        std::thread::spawn(move || {
            let mut next = Instant::now();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                next = Instant::now().max(next + Duration::from_millis(1000 * CALLERS / RATE));
                let kind = if number % 2 == 0 { REQUIRED } else { OTHER };
                let done = call(address, format!("{kind}-{caller}-{number}"));
                calls.lock().unwrap().push(done);
            }
        })
    });
    (callers.collect(), calls)
}

/// All records, of every kind.
fn records(db: &Path) -> Vec<Value> {
    let mut query = Command::new(required("AUDIT_COLLECTOR_BIN"));
    let output = query.args(["query", "--json", "--limit", "10000000", "--sqlite"]).arg(db).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn seconds(time: &Value) -> f64 {
    let time = OffsetDateTime::parse(time.as_str().unwrap(), &Rfc3339).unwrap();
    time.unix_timestamp_nanos() as f64 / 1e9
}

#[test]
fn no_call_is_without_a_record() {
    // `cargo xtask soak audit` sets it.
    let soak = std::env::var_os("SOAK").is_some();
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(if soak { 600 } else { 15 }));
    let mut scene = Scene::start();
    let stop = Arc::new(AtomicBool::new(false));
    let (callers, calls) = load(scene.listen, &stop);
    let start = Instant::now();
    // Every fault in turn; a soak adds a pause of its own length to each.
    let mut round = 0_u32;
    while start.elapsed() < time {
        let part = |name: &str| format!(".{round}{name}");
        let pause =
            || std::thread::sleep(Duration::from_millis(if soak { 1500 + u64::from(round * 370 % 1700) } else { 900 }));
        scene.kill_collector();
        pause();
        scene.kill_envoy();
        pause();
        scene.rename_log(&part("a"), false);
        scene.lock_store(if soak { 5 } else { 2 });
        pause();
        scene.fill_disk(2);
        pause();
        scene.copy_and_truncate_log(&part("b"));
        pause();
        scene.rename_log(&part("c"), true);
        scene.kill_envoy();
        scene.kill_collector();
        pause();
        round += 1;
        // Old parts would fill the disk.
        if round >= 3 {
            for name in ["a", "b", "c"] {
                let _ = fs::remove_file(scene.log(&format!(".{}{name}", round - 3)));
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let calls = calls.lock().unwrap().clone();
    check(&mut scene, &calls);
}

fn check(scene: &mut Scene, calls: &[Call]) {
    let received: BTreeSet<String> =
        scene.double.requests().iter().filter_map(|request| model_of(&request.path)).collect();
    assert!(scene.double.violations().is_empty());
    let db = scene.dir.path().join("audit.db");
    let required: BTreeSet<&str> = calls.iter().filter(|call| call.required).map(|call| call.model.as_str()).collect();
    // Until what is missing has been found out.
    let settled = |all: &[Value]| {
        let known: BTreeSet<&str> = all.iter().filter_map(|record| record["model_asked"].as_str()).collect();
        received.iter().filter(|model| required.contains(model.as_str())).all(|model| known.contains(model.as_str()))
    };
    let begin = Instant::now();
    let mut all = records(&db);
    while (!settled(&all) || begin.elapsed() < Duration::from_secs(9)) && begin.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(500));
        all = records(&db);
    }
    let said = || fs::read_to_string(scene.dir.path().join("collector.log")).unwrap();
    let known: BTreeSet<&str> = all.iter().filter_map(|record| record["model_asked"].as_str()).collect();
    let mut kinds = BTreeMap::new();
    for record in &all {
        *kinds.entry(record["kind"].as_str().unwrap_or("exchange")).or_insert(0) += 1;
    }
    let missing: Vec<&Call> =
        calls.iter().filter(|call| received.contains(&call.model) && !known.contains(call.model.as_str())).collect();
    let mut answers = BTreeMap::new();
    calls.iter().for_each(|call| *answers.entry((call.required, call.status)).or_insert(0) += 1);
    println!("answers by (required, status): {answers:?}");
    let lost_required: Vec<&&Call> = missing.iter().filter(|call| call.required).collect();
    println!(
        "{} calls, {} upstream, records {kinds:?}, without a record {}",
        calls.len(),
        received.len(),
        missing.len()
    );
    assert!(
        lost_required.is_empty(),
        "{} of {}: {:?}\n{}",
        lost_required.len(),
        required.len(),
        lost_required.first(),
        said()
    );

    let windows: Vec<(f64, f64, u64)> = all
        .iter()
        .filter(|record| !record["until"].is_null())
        .map(|record| {
            let most = record["lost_at_most"].as_u64().or(record["lost"].as_u64()).unwrap_or(0);
            (seconds(&record["time"]), seconds(&record["until"]), most)
        })
        .collect();
    let outside: Vec<&&Call> = missing
        .iter()
        .filter(|call| !windows.iter().any(|(from, until, _)| (from - 0.05..until + 0.05).contains(&call.start)))
        .collect();
    assert!(
        outside.is_empty(),
        "{} outside of every window: {:?} {windows:?}\n{}",
        outside.len(),
        outside.first(),
        said()
    );
    let bound: u64 = windows.iter().map(|(.., most)| most).sum();
    assert!(missing.len() as u64 <= bound, "{} missing, at most {bound} said: {windows:?}", missing.len());

    let last = calls.iter().map(|call| call.start).fold(0.0, f64::max);
    let mut seen = 0;
    for (what, when) in &scene.repairs {
        let served = |call: &&Call| call.required && call.start >= *when && ![0, 503].contains(&call.status);
        let after = calls.iter().filter(served).map(|call| call.start).fold(f64::INFINITY, f64::min) - when;
        // Until the next fault, or the end of the load.
        let calm =
            scene.faults.iter().filter(|fault| **fault > *when).fold(last, |calm, fault| calm.min(*fault)) - when;
        println!("{what}: accepted again after {after:.2} s");
        assert!(after < 5.0 || calm < 5.0, "{what}: calls with `required` are accepted {after:.1} s after the repair");
        seen += usize::from(after < 5.0);
    }
    assert!(seen * 2 >= scene.repairs.len(), "{seen} of {} repairs were seen", scene.repairs.len());
}

/// The model in a request's path.
fn model_of(path: &str) -> Option<String> {
    path.split('/').find(|part| part.starts_with(REQUIRED) || part.starts_with(OTHER)).map(str::to_owned)
}
