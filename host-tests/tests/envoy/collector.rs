//! A collector with its page, behind the gateway's access log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::{Gateway, eventually, required};

/// Dropping it ends it as systemd does.
pub(crate) struct Collector {
    child: Child,
    /// The address of its page.
    pub page: String,
}

impl Collector {
    /// Follows a log and asks the gateway's Envoy; its stderr goes to a file.
    pub(crate) fn start(gateway: &Gateway, log: &Path, db: &Path, errors: &Path) -> Collector {
        let admin = std::fs::read_to_string(gateway.run_dir().join("admin")).unwrap();
        let mut command = Command::new(required("AUDIT_COLLECTOR_BIN"));
        command.args(["run", "--health", "127.0.0.1:0", "--envoy-admin", admin.trim(), "--file"]).arg(log);
        command.arg("--sqlite").arg(db).stdout(Stdio::piped()).stderr(std::fs::File::create(errors).unwrap());
        let mut child = command.spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        let page = ready.split_whitespace().find_map(|word| word.strip_prefix("health=")).map(str::to_owned);
        Collector { child, page: page.unwrap_or_else(|| panic!("{ready}")) }
    }

    /// A metric; none while the page does not have it.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let page = get(&self.page, "/metrics");
        page.lines().find_map(|line| line.strip_prefix(&format!("audit_collector_{name} "))?.parse().ok())
    }

    pub(crate) fn wait_for(&self, name: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        eventually(name, || self.metric(name).filter(|value| wanted(*value)))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// The answer to a request of HTTP/1.0, which has no chunks.
pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}
