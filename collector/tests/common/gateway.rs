//! A gateway's side of the socket for intents, and a disk that is slow or full.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use audit::notice::{End, INTENTS, Intent, REPORTS, VmReport};
use audit::{AttemptFacts, AuditMode, ExchangeFacts, VmFacts};

/// An HTTP/1.1 connection.
pub(crate) struct Client(UnixStream);

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        Self(UnixStream::connect(socket).unwrap())
    }

    /// Status and text of the answer. None if the connection broke.
    pub(crate) fn try_send(&mut self, method: &str, path: &str, body: &[u8]) -> Option<(u16, String)> {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(body);
        // A server that refuses may not read all.
        let _ = self.0.write_all(&request);
        let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, text)) = text.split_once("\r\n\r\n") {
                let status = head[9..12].parse().unwrap();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.map_or(0, |length| length.parse().unwrap());
                if text.len() >= length {
                    return Some((status, text.to_owned()));
                }
            }
            match self.0.read(&mut chunk) {
                Ok(count) if count > 0 => answer.extend_from_slice(&chunk[..count]),
                _ => return None,
            }
        }
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        self.try_send(method, path, body).expect("an answer")
    }

    pub(crate) fn intent(&mut self, intent: &Intent) -> (u16, String) {
        self.send("POST", INTENTS, &serde_json::to_vec(intent).unwrap())
    }

    /// A report that the collector has taken.
    pub(crate) fn report(&mut self, report: &VmReport) {
        let answer = self.send("POST", REPORTS, &serde_json::to_vec(report).unwrap());
        assert_eq!(answer, (204, String::new()));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// When calls begin, in milliseconds since 1970.
pub(crate) static BEGAN: LazyLock<u64> =
    LazyLock::new(|| u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap() * 1000);

/// A report of `vm-1`.
pub(crate) fn report(begun: u64, logged: u64, may_begin: u64, ends: Vec<End>) -> VmReport {
    let (vm, envoy) = ("vm-1".to_owned(), "envoy-1".to_owned());
    VmReport { vm, envoy, time_ms: *BEGAN, begun, logged, may_begin, ends }
}

/// The end of a call of `vm-1`, which logged it under this number.
pub(crate) fn end(id: &str, number: u64) -> End {
    let vm =
        VmFacts { id: "vm-1".to_owned(), envoy: "envoy-1".to_owned(), begun: number, logged: number, in_flight: 0 };
    let attempt = AttemptFacts {
        region: "us-east-1".to_owned(),
        tried: ["vpn/us-east-1", "dx/us-east-1"].map(str::to_owned).to_vec(),
        ..AttemptFacts::default()
    };
    let exchange = ExchangeFacts { vm: Some(vm), ..intent(id).exchange };
    End { time_ms: *BEGAN + 250, status: 200, exchange, attempt: Some(attempt) }
}

pub(crate) fn intent(id: &str) -> Intent {
    let vm = VmFacts { id: "vm-1".to_owned(), envoy: "envoy-1".to_owned(), begun: 1, logged: 0, in_flight: 1 };
    let exchange = ExchangeFacts {
        id: id.to_owned(),
        principal: Some("spiffe://mesh/ns/app/sa/chat".to_owned()),
        operation: Some("Converse".to_owned()),
        model: Some("sonnet".to_owned()),
        audit: Some(AuditMode::Required),
        vm: Some(vm),
        ..ExchangeFacts::default()
    };
    Intent { time_ms: *BEGAN, exchange }
}

/// Makes the disk of a program slow or full.
pub(crate) struct Disk(tempfile::TempDir, PathBuf);

impl Disk {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/disk.c");
        let library = folder.path().join("disk.so");
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
        let compiled = compiled.expect("a C compiler");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Self(folder, library)
    }

    pub(crate) fn preload(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.1).env("TEST_DISK", self.0.path());
    }

    pub(crate) fn set(&self, name: &str, value: u64) {
        // At once: the program may read it at any time.
        let new = self.0.path().join("new");
        std::fs::write(&new, value.to_string()).unwrap();
        std::fs::rename(new, self.0.path().join(name)).unwrap();
    }
}
