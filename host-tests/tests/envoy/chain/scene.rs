//! The gateway, the collector and what they write, and ways to break them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bedrock_double::{Double, EXAMPLE_ACCESS_KEY, EXAMPLE_SECRET_KEY, Running};
use serde_json::Value;

use super::clock::Clock;
use super::load::call;
use super::store::{Store, free_port};
use super::{OTHER, REQUIRED, patiently};
use crate::disk_full::Disk;
use crate::harness::{policy, required};

/// Parts of the log that are kept: more would fill its disk.
const PARTS: u32 = 9;

pub(super) struct Scene {
    pub(super) clock: Clock,
    pub(super) store: Store,
    pub(super) double: Running,
    pub(super) listen: SocketAddr,
    disk: Disk,
    admin: SocketAddr,
    socket: PathBuf,
    envoy: Option<Child>,
    collector: Option<Child>,
    /// A collector has run.
    collected: bool,
    /// Rotations of the log.
    parts: u32,
    dir: tempfile::TempDir,
}

impl Scene {
    pub(super) fn start(store: impl FnOnce(&std::path::Path) -> Store) -> Scene {
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
        command.args(["up", "--print-config", "--listen-tls", "127.0.0.1:0", "--listen", &listen.to_string()]);
        command.args(["--policy", &rules]).arg("--state").arg(dir.path().join("state"));
        command.arg("--access-log").arg(disk.path().join("access.jsonl"));
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
        let (clock, store) = (Clock::new(dir.path()), store(dir.path()));
        let mut scene = Scene {
            clock,
            store,
            double,
            listen,
            disk,
            admin,
            socket,
            envoy: None,
            collector: None,
            collected: false,
            parts: 0,
            dir,
        };
        scene.start_collector();
        scene.start_envoy();
        patiently("the gateway", || call(listen, format!("{OTHER}-ready")).status != 0);
        scene
    }

    /// What the collector has printed.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("collector.log")).unwrap()
    }

    /// It starts again after that time.
    pub(super) fn kill_collector(&mut self, after: Duration) {
        kill(&mut self.collector);
        std::thread::sleep(after);
        self.start_collector();
    }

    pub(super) fn kill_envoy(&mut self) {
        kill(&mut self.envoy);
        self.start_envoy();
        let listen = self.listen;
        patiently("Envoy", || TcpStream::connect(listen).is_ok());
    }

    pub(super) fn fill_disk(&mut self, time: Duration) {
        self.disk.fill();
        std::thread::sleep(time);
        fs::remove_file(self.disk.filler()).unwrap();
    }

    fn log(&self, part: &str) -> PathBuf {
        self.disk.path().join(format!("access.jsonl{part}"))
    }

    /// The name of the next part of the log. Deletes the oldest.
    fn part(&mut self) -> PathBuf {
        self.parts += 1;
        let _ = self.parts.checked_sub(PARTS).map(|old| fs::remove_file(self.log(&format!(".{old}"))));
        self.log(&format!(".{}", self.parts))
    }

    /// The log gets another name, and Envoy opens a new one.
    pub(super) fn rename_log(&mut self, create: bool) {
        let part = self.part();
        fs::rename(self.log(""), part).unwrap();
        if create {
            fs::write(self.log(""), b"").unwrap();
        }
        std::thread::sleep(Duration::from_millis(300));
        let mut admin = TcpStream::connect(self.admin).unwrap();
        write!(admin, "POST /reopen_logs HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .unwrap();
        admin.read_to_end(&mut Vec::new()).unwrap();
    }

    pub(super) fn copy_and_truncate_log(&mut self) {
        let part = self.part();
        fs::copy(self.log(""), part).unwrap();
        fs::OpenOptions::new().write(true).open(self.log("")).unwrap().set_len(0).unwrap();
    }

    /// Deletes expired records, by the clock that steps. Returns what it says.
    pub(super) fn purge(&self) -> Option<String> {
        let Store::Sqlite(path) = &self.store else { return None };
        let mut purge = Command::new(required("AUDIT_COLLECTOR_BIN"));
        let output = self.clock.give(purge.args(["purge", "--sqlite"]).arg(path)).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&text).trim().to_owned())
    }

    fn start_envoy(&mut self) {
        let mut command = Command::new(required("ENVOY_BIN"));
        command.args(["--disable-hot-restart", "--concurrency", "2", "--file-flush-interval-msec", "100"]);
        command.args(["--file-flush-min-size-kb", "1"]).arg("-c").arg(self.dir.path().join("envoy.json"));
        command.arg("--log-path").arg(self.dir.path().join("envoy.log")).stdout(Stdio::null()).stderr(Stdio::null());
        self.envoy = Some(self.clock.give(credentials(&mut command)).spawn().unwrap());
    }

    fn start_collector(&mut self) {
        let mut command = Command::new(required("AUDIT_COLLECTOR_BIN"));
        command.args(["run", "--missing-after", "3", "--ended-after", "4", "--unknown-after", "30", "--file"]);
        command.arg(self.log("")).arg("--intents").arg(&self.socket);
        command.arg("--ledger").arg(self.disk.path().join("ledger.db"));
        self.store.name(&mut command, !self.collected);
        self.collected = true;
        let errors = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("collector.log"));
        command.stdout(Stdio::piped()).stderr(errors.unwrap());
        let mut child = self.clock.give(&mut command).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        self.collector = Some(child);
        assert!(ready.starts_with("ready "), "{ready} {}", self.said());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for child in [&mut self.envoy, &mut self.collector].into_iter().flatten() {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
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
