//! The requests that arrived, for tests to read.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::judge::Verdict;

/// Violations that are kept when other requests are forgotten.
const FIRST: usize = 20;

/// A request as it came over the wire, with its verdict.
#[derive(Debug, Clone, Serialize)]
pub struct Received {
    /// When its body was complete, RFC 3339 in UTC with milliseconds.
    pub time: String,
    /// The path whose end this double is.
    pub path_name: String,
    /// `x-amzn-requestid` of the answer.
    pub request_id: String,
    pub method: String,
    /// The path, neither decoded nor normalised.
    pub path: String,
    /// The query without `?`, as sent.
    pub query: String,
    /// Host, or `:authority`.
    pub host: String,
    /// The server name of the TLS client.
    pub sni: Option<String>,
    /// `h2` or `http/1.1`, if it was negotiated.
    pub alpn: Option<String>,
    /// `TLSv1_2` or `TLSv1_3`.
    pub tls: String,
    /// Headers: names in lower case, values as text (invalid UTF-8 is replaced).
    pub headers: Vec<(String, String)>,
    pub body_bytes: u64,
    /// SHA-256 of the body, in hex.
    pub body_sha256: String,
    /// The region that Host names, if the request was admitted.
    pub region: Option<String>,
    /// The operation, if the request was admitted.
    pub operation: Option<String>,
    /// The path's labels, decoded.
    pub labels: Vec<String>,
    /// What Bedrock would write into its model invocation logs.
    pub request_metadata: BTreeMap<String, String>,
    /// The data retention mode of a POST call when it arrived: its project's, else its account's, else `default`.
    pub retention: Option<String>,
    pub verdict: Verdict,
    /// The status of the answer; 0 if there was none.
    pub status: u16,
}

impl Received {
    /// The first value of a header; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(sent, _)| sent == name).map(|(_, value)| value.as_str())
    }

    /// Whether a gateway must never send it.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        matches!(self.verdict, Verdict::Refused { .. })
    }
}

/// The latest requests in memory, and all of them in a file.
#[derive(Debug)]
pub struct Records {
    kept: Mutex<VecDeque<Received>>,
    /// The number of violations, and the first ones.
    refused: Mutex<(u64, Vec<Received>)>,
    keep: usize,
    file: Option<Mutex<File>>,
}

impl Records {
    /// Keeps the latest `keep` in memory and appends all to `file`, one JSON object a line.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(keep: usize, file: Option<&Path>) -> io::Result<Self> {
        let file = file.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self { kept: Mutex::default(), refused: Mutex::default(), keep, file: file.map(Mutex::new) })
    }

    /// Adds a request. The file has bearer keys and session tokens as the start of their SHA-256 only.
    pub fn add(&self, received: Received) {
        if let Some(file) = &self.file {
            let mut masked = received.clone();
            for (name, value) in &mut masked.headers {
                match value.strip_prefix("Bearer ") {
                    Some(key) if name == "authorization" => *value = format!("Bearer {}", fingerprint(key)),
                    _ if name == "x-amz-security-token" => *value = fingerprint(value),
                    _ => {}
                }
            }
            let written = serde_json::to_vec(&masked).map_err(io::Error::from).and_then(|mut line| {
                line.push(b'\n');
                lock(file).write_all(&line)
            });
            if let Err(error) = written {
                eprintln!("bedrock-double: the record of a request is lost: {error}");
            }
        }
        if received.is_violation() {
            let mut refused = lock(&self.refused);
            refused.0 += 1;
            if refused.1.len() < FIRST {
                refused.1.push(received.clone());
            }
        }
        let mut kept = lock(&self.kept);
        kept.push_back(received);
        while kept.len() > self.keep {
            kept.pop_front();
        }
    }

    /// The kept requests, oldest first.
    #[must_use]
    pub fn kept(&self) -> Vec<Received> {
        lock(&self.kept).iter().cloned().collect()
    }

    /// The number of violations since the start, and the first ones.
    #[must_use]
    pub fn refused(&self) -> (u64, Vec<Received>) {
        lock(&self.refused).clone()
    }

    /// Deletes the kept requests.
    pub fn clear(&self) {
        lock(&self.kept).clear();
    }
}

fn fingerprint(secret: &str) -> String {
    let digest = hex::encode(Sha256::digest(secret));
    format!("sha256:{}", digest.get(..16).unwrap_or_default())
}

/// Every write is one push, so the data of a poisoned lock is valid.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
