//! Where the collector keeps the records.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::patiently;
use super::proxy::{Mode, Proxy};
use crate::harness::required;

const TABLE: &str = "audit";

pub(super) enum Store {
    Sqlite(PathBuf),
    DynamoDb { local: Child, address: SocketAddr, proxy: Proxy },
}

impl Store {
    pub(super) fn sqlite(dir: &Path) -> Store {
        Store::Sqlite(dir.join("audit.db"))
    }

    /// AWS's DynamoDB Local, which keeps its tables in memory.
    pub(super) fn dynamodb() -> Store {
        let address = free_port();
        let mut java = Command::new("java");
        java.args(["-Djava.library.path=DynamoDBLocal_lib", "-Xmx512m", "-jar", "DynamoDBLocal.jar"]);
        java.args(["-inMemory", "-sharedDb", "-port", &address.port().to_string()]);
        java.current_dir(required("DYNAMODB_LOCAL_DIR")).stdout(Stdio::null()).stderr(Stdio::null());
        let local = java.spawn().unwrap();
        patiently("DynamoDB Local", || TcpStream::connect(address).is_ok());
        Store::DynamoDb { local, address, proxy: Proxy::start(address) }
    }

    /// Names the store to the collector, through the proxy. The first one creates the table.
    pub(super) fn name(&self, collector: &mut Command, first: bool) {
        match self {
            Store::Sqlite(path) => _ = collector.arg("--sqlite").arg(path),
            Store::DynamoDb { proxy, .. } => {
                collector.args(first.then_some("--create-table"));
                at(collector, proxy.address);
            }
        }
    }

    /// All records, of every kind.
    pub(super) fn records(&self) -> Vec<Value> {
        let mut query = Command::new(required("AUDIT_COLLECTOR_BIN"));
        query.args(["query", "--json", "--limit", "10000000"]);
        match self {
            Store::Sqlite(path) => _ = query.arg("--sqlite").arg(path),
            Store::DynamoDb { address, .. } => at(&mut query, *address),
        }
        parsed(&query.output().unwrap())
    }

    /// Another process holds the database's lock; several times in turn if `pauses`.
    pub(super) fn lock(&self, time: Duration, pauses: bool) {
        let Store::Sqlite(path) = self else { return };
        let script = "import sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                      c.execute('PRAGMA busy_timeout=5000')\nend = time.monotonic() + float(sys.argv[2])\n\
                      while time.monotonic() < end:\n c.execute('BEGIN IMMEDIATE')\n time.sleep(float(sys.argv[3]))\n\
                      \x20c.execute('COMMIT')\n time.sleep(0.02)";
        let hold = if pauses { "0.3".to_owned() } else { time.as_secs_f64().to_string() };
        let mut python = Command::new(required("GATEWAY_PYTHON"));
        python.args(["-c", script]).arg(path).arg(time.as_secs_f64().to_string()).arg(hold);
        assert!(python.status().unwrap().success());
    }

    pub(super) fn set(&self, mode: Mode) {
        if let Store::DynamoDb { proxy, .. } = self {
            proxy.set(mode);
        }
    }

    /// Requests to DynamoDB, and those of them that the proxy refused.
    pub(super) fn counts(&self) -> (u64, u64) {
        if let Store::DynamoDb { proxy, .. } = self { proxy.counts() } else { (0, 0) }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Store::DynamoDb { local, .. } = self {
            let _ = local.kill();
            let _ = local.wait();
        }
    }
}

fn parsed(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(super) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn at(command: &mut Command, address: SocketAddr) {
    command.args(["--dynamodb", TABLE, "--endpoint-url", &format!("http://{address}")]);
    command.envs([("AWS_REGION", "us-gov-west-1"), ("AWS_EC2_METADATA_DISABLED", "true")]);
    command.envs([("AWS_ACCESS_KEY_ID", bedrock_double::EXAMPLE_ACCESS_KEY)]);
    command.envs([("AWS_SECRET_ACCESS_KEY", bedrock_double::EXAMPLE_SECRET_KEY)]);
}
