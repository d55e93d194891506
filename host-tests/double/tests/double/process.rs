//! The double as a process, several of them on one authority, and what it writes down.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Call, Client, SONNET};

struct Process {
    child: Child,
    addr: std::net::SocketAddr,
}

impl Process {
    fn start(dir: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bedrock-double"))
            .args(["serve", "--listen", "127.0.0.1:0", "--tls-dir"])
            .arg(dir)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.strip_prefix("ready ").unwrap().trim().parse().unwrap();
        Self { child, addr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn three_processes_share_an_authority() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("records.jsonl");
    let record = file.to_str().unwrap();
    let start = |name: &'static str| {
        let (dir, record) = (dir.path().to_owned(), record.to_owned());
        std::thread::spawn(move || Process::start(&dir, &["--path-name", name, "--record", &record, "--bearer", "k3y"]))
    };
    let starting = ["dx", "vpn", "internet"].map(start);
    let processes = starting.map(|process| process.join().unwrap());
    let call = Call::converse(SONNET).unsigned().unsigned_header("authorization", "Bearer k3y");
    for process in &processes {
        Client::new(process.addr, &dir.path().join("ca.pem")).ok(&call).await;
    }
    let written = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let paths: Vec<&str> = lines.iter().map(|line| line["path_name"].as_str().unwrap()).collect();
    assert_eq!(paths, ["dx", "vpn", "internet"]);
    assert_eq!((&lines[0]["verdict"]["kind"], &lines[0]["status"]), (&"bearer".into(), &200.into()));
    assert!(!written.contains("k3y"), "the key is masked");
}

#[tokio::test]
async fn the_process_ends_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), &["--region", "us-east-1", "--delay-ms", "1"]);
    let status = Command::new("kill").arg(process.child.id().to_string()).status().unwrap();
    assert!(status.success());
    assert!(process.child.wait().unwrap().success());
}

#[tokio::test]
async fn a_file_says_what_is_wrong_with_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fault");
    let process = Process::start(dir.path(), &["--fault-file", file.to_str().unwrap()]);
    let client = Client::new(process.addr, &dir.path().join("ca.pem"));
    for (fault, status) in [("status-503", 503), ("throttle-429-sonnet", 429), ("", 200)] {
        std::fs::write(&file, fault).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while client.send(&Call::converse(SONNET)).await.unwrap().status != status {
            assert!(Instant::now() < deadline, "{fault:?}");
        }
    }
}

#[test]
fn wrong_arguments_are_named() {
    for (args, text) in [
        (&["serve", "--nonsense"][..], "--nonsense"),
        (&[], "the command is `serve`"),
        (&["serve", "--access-key", "AKIDEXAMPLE"], "--secret-key"),
        (&["serve", "--endpoints", "all"], "any, standard or fips"),
        (&["serve", "--models", "/nowhere"], "/nowhere"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_bedrock-double")).args(args).output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(text), "{output:?}");
    }
}
