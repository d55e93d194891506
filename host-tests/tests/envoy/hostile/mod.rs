//! What hostile clients try: each case has its stated answer and its audit record, and a neighbour's ordinary call next to it
//! succeeds.

mod connections;
mod desk;
mod frames;
mod header_memory;
mod headers;
mod http2;
mod memory;
mod models;
mod overload;
mod principals;
mod queries;
mod quota;
mod races;
mod recovery;
mod tokens;
mod unread;
mod upstream;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Harness, eventually, text_of};

/// A model that the double knows.
const MODEL: &str = "amazon.titan-text-express-v1";
const BODY: &str = r#"{"messages":[{"role":"user","content":[{"text":"hello there"}]}]}"#;

/// A request and what it has to come to.
struct Case {
    name: String,
    request: Vec<u8>,
    status: u16,
    /// The error's name, in the answer and in the record; empty: none.
    error: &'static str,
    /// What the answer says.
    message: &'static str,
}

impl Case {
    fn new(name: impl Into<String>, request: impl Into<Vec<u8>>, status: u16, error: &'static str) -> Self {
        Self { name: name.into(), request: request.into(), status, error, message: "" }
    }

    fn says(self, message: &'static str) -> Self {
        Self { message, ..self }
    }
}

/// A Converse call of a model, with these header lines.
fn converse(path: &str, headers: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{BODY}",
        BODY.len()
    )
    .into_bytes()
}

fn path_of(model: &str) -> String {
    format!("/model/{}/converse", model.replace('%', "%25").replace('/', "%2F"))
}

/// An answer; all its parts are in lower case.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends bytes and reads the answer; status 0: the connection ended without one.
fn send(harness: &Harness, request: &[u8]) -> Answer {
    let address = harness.gateway.http.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // A server may answer and close before it has read everything.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    let mut answer = Answer::default();
    // Envoy keeps the connection open for a second after an early answer.
    while let Ok(length @ 1..) = stream.read(&mut part) {
        bytes.extend_from_slice(&part[..length]);
        answer = read(&String::from_utf8_lossy(&bytes).to_ascii_lowercase());
        if answer.header("content-length").parse() == Ok(answer.body.len()) {
            break;
        }
    }
    answer
}

fn read(text: &str) -> Answer {
    let text = text.strip_prefix("http/1.1 100 continue\r\n\r\n").unwrap_or(text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Answer::default() };
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.to_owned()));
    Answer { status, headers: headers.collect(), body: body.to_owned() }
}

/// What is wrong with an answer; empty: nothing.
fn problems(case: &Case, answer: &Answer) -> String {
    let mut problems = String::new();
    if answer.status != case.status {
        let _ = write!(problems, " status {}, not {};", answer.status, case.status);
    }
    if answer.header("x-amzn-errortype") != case.error.to_ascii_lowercase() {
        let _ = write!(problems, " error '{}', not '{}';", answer.header("x-amzn-errortype"), case.error);
    }
    let message = answer.header("x-amzn-error-message");
    if !answer.body.contains(&case.message.to_ascii_lowercase())
        && !message.contains(&case.message.to_ascii_lowercase())
    {
        let _ = write!(problems, " it does not say '{}';", case.message);
    }
    let formed = answer.body.starts_with(r#"{"message":""#) || !message.is_empty();
    if case.status >= 400 && !formed && !case.request.starts_with(b"HEAD ") {
        problems.push_str(" not in Bedrock's form;");
    }
    if !answer.header("grpc-status").is_empty() {
        problems.push_str(" in gRPC's form;");
    }
    if problems.is_empty() { problems } else { format!("{}:{problems} {answer:?}\n", case.name) }
}

/// Tries all cases, a neighbour's call after each, and checks the records. Returns the answers.
fn try_all(harness: &Harness, cases: &[Case]) -> Vec<Answer> {
    let neighbour = converse(&path_of(MODEL), "content-type: application/json\r\n");
    let mut wrong = String::new();
    let mut answers = Vec::new();
    for case in cases {
        let answer = send(harness, &case.request);
        wrong += &problems(case, &answer);
        let own = send(harness, &neighbour);
        if own.status != 200 {
            let _ = writeln!(wrong, "{}: the neighbour got {own:?}", case.name);
        }
        answers.push(answer);
    }
    assert!(wrong.is_empty(), "{wrong}");

    // Each case has one record, with its status and error.
    let records = records(harness, 2 * cases.len());
    for (case, answer) in cases.iter().zip(&answers) {
        let id = answer.header("x-amzn-requestid");
        // Bedrock's own answers have Bedrock's id.
        let own = |facts: &Value| [&facts["id"], &facts["upstream_id"]].iter().any(|own| own.as_str() == Some(id));
        match records.iter().find(|(facts, _)| !id.is_empty() && own(facts)) {
            Some((facts, line)) => {
                if line["status"].as_u64() != Some(case.status.into()) {
                    let _ = writeln!(wrong, "{}: the record has status {}", case.name, line["status"]);
                }
                if facts["error"].as_str().unwrap_or_default() != case.error {
                    let _ = writeln!(wrong, "{}: the record has error {}", case.name, facts["error"]);
                }
            }
            // Envoy refuses what it cannot parse before the filter gives the answer an id.
            None if id.is_empty() => {
                let same = |facts: &Value, line: &Value| {
                    line["status"].as_u64() == Some(case.status.into()) && facts["error"] == case.error
                };
                if !records.iter().any(|(facts, line)| same(facts, line)) {
                    let _ = writeln!(wrong, "{}: no record with status {}", case.name, case.status);
                }
            }
            None => {
                let _ = writeln!(wrong, "{}: no record with its id", case.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_no_reload(harness);
    harness.assert_no_violation();
    answers
}

/// The access log's lines with their facts, once there are `count`.
fn records(harness: &Harness, count: usize) -> Vec<(Value, Value)> {
    eventually("the access log", || {
        let text = text_of(&harness.access_log());
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let facts = |line: &Value| {
            line["exchange"].as_str().and_then(|facts| serde_json::from_str(facts).ok()).unwrap_or_default()
        };
        (lines.len() >= count).then(|| lines.into_iter().map(|line| (facts(&line), line)).collect())
    })
}

/// No VM crashed.
fn assert_no_reload(harness: &Harness) {
    let stats = harness.gateway.admin("/stats?filter=vm_reload");
    let reloads: Vec<&str> = stats.lines().filter(|line| line.contains("vm_reload")).collect();
    assert!(reloads.iter().all(|line| line.ends_with(": 0")), "{reloads:?}");
}
