//! A DynamoDB that answers each `PutItem` after a fixed time and costs little CPU, to measure the collector against. It takes
//! conditional puts only, and refuses what DynamoDB refuses.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The limit of an item: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>.
const MAX_ITEM: usize = 400 * 1024;

/// A body of
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html>.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Put<'a> {
    table_name: &'a str,
    #[serde(borrow)]
    item: &'a RawValue,
    condition_expression: &'a str,
    #[serde(default)]
    expression_attribute_names: HashMap<&'a str, &'a str>,
    #[serde(default)]
    expression_attribute_values: HashMap<&'a str, Value<'a>>,
    return_values_on_condition_check_failure: &'a str,
}

#[derive(Deserialize)]
enum Value<'a> {
    S(#[serde(borrow)] std::borrow::Cow<'a, str>),
    N(&'a str),
}

type Item<'a> = HashMap<&'a str, Value<'a>>;

#[derive(Default)]
struct State {
    /// Items by their key, as JSON.
    items: Mutex<HashMap<String, Box<str>>>,
    refused: Mutex<Vec<String>>,
    down: AtomicBool,
    calls: AtomicU64,
    puts: AtomicU64,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
}

pub(crate) struct SlowDynamo {
    pub(crate) port: u16,
    state: Arc<State>,
}

impl SlowDynamo {
    /// Listens in a thread of its own.
    pub(crate) fn start(delay: Duration) -> Self {
        let state = Arc::new(State::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = Arc::clone(&state);
        let serve = async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                client.set_nodelay(true).unwrap();
                tokio::spawn(serve(client, Arc::clone(&served), delay));
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let run = move || runtime.block_on(serve);
        std::thread::Builder::new().name("slow-dynamodb".to_owned()).spawn(run).unwrap();
        Self { port, state }
    }

    /// Closes each connection on which a request comes.
    pub(crate) fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::Relaxed);
    }

    /// Items of calls: those without a kind.
    pub(crate) fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::Relaxed)
    }

    /// Items of other kinds.
    pub(crate) fn others(&self) -> u64 {
        self.state.items.lock().unwrap().len() as u64 - self.calls()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.state.items.lock().unwrap().contains_key(key)
    }

    pub(crate) fn puts(&self) -> u64 {
        self.state.puts.load(Ordering::Relaxed)
    }

    pub(crate) fn most_in_flight(&self) -> u64 {
        self.state.most_in_flight.load(Ordering::Relaxed)
    }

    /// Why requests were refused.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.state.refused.lock().unwrap().clone()
    }
}

async fn serve(mut client: TcpStream, state: Arc<State>, delay: Duration) {
    let mut read = Vec::with_capacity(8 * 1024);
    loop {
        let Some((head, length)) = request(&mut client, &mut read).await else { return };
        if state.down.load(Ordering::Relaxed) {
            return;
        }
        let answer_at = tokio::time::Instant::now() + delay;
        let in_flight = state.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        state.most_in_flight.fetch_max(in_flight, Ordering::Relaxed);
        let (status, body) = match answer(&read[..head], &read[head..head + length], &state) {
            Ok(answer) => answer,
            Err(reason) => {
                let error = serde_json::json!({
                    "__type": "com.amazon.coral.validate#ValidationException", "message": reason
                });
                state.refused.lock().unwrap().push(reason);
                ("400 Bad Request", error.to_string())
            }
        };
        read.drain(..head + length);
        tokio::time::sleep_until(answer_at).await;
        state.in_flight.fetch_sub(1, Ordering::Relaxed);
        let head = "content-type: application/x-amz-json-1.0\r\nx-amzn-requestid: 5S2O5Q0UGKRM\r\nserver: Server";
        let text = format!("HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if client.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Lengths of head and body. None at the end of the connection.
async fn request(client: &mut TcpStream, read: &mut Vec<u8>) -> Option<(usize, usize)> {
    let mut whole = None;
    loop {
        if whole.is_none()
            && let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let length = header(&read[..end], "content-length").and_then(|length| length.parse().ok());
            whole = Some((end + 4, length.expect("a content-length")));
        }
        if let Some((head, length)) = whole.filter(|(head, length)| read.len() >= head + length) {
            return Some((head, length));
        }
        if client.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    let pair = |line: &'a str| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name));
    head.split("\r\n").find_map(pair).map(|(_, value)| value.trim())
}

fn answer(head: &[u8], body: &[u8], state: &State) -> Result<(&'static str, String), String> {
    // <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html>
    let need = |name: &str| header(head, name).ok_or(format!("no header {name}"));
    if !head.starts_with(b"POST / HTTP/1.1\r\n") || need("content-type")? != "application/x-amz-json-1.0" {
        return Err("not a request of the low-level API".to_owned());
    }
    need("x-amz-date")?;
    let signature = need("authorization")?;
    let signs = |name: &str| signature.split("SignedHeaders=").nth(1).is_some_and(|signed| signed.contains(name));
    if !signature.starts_with("AWS4-HMAC-SHA256 Credential=")
        || !["host", "x-amz-date", "x-amz-target"].map(signs)[..].iter().all(|signed| *signed)
    {
        return Err(format!("not signed: {signature}"));
    }
    match need("x-amz-target")? {
        "DynamoDB_20120810.PutItem" => {}
        "DynamoDB_20120810.DescribeTable" => {
            return Ok(("200 OK", r#"{"Table":{"TableStatus":"ACTIVE"}}"#.to_owned()));
        }
        target => return Err(format!("{target} is not expected")),
    }
    let put: Put<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let item: Item<'_> = serde_json::from_str(put.item.get()).map_err(|error| error.to_string())?;
    let key = check(&put, &item)?;
    state.puts.fetch_add(1, Ordering::Relaxed);
    let mut items = state.items.lock().unwrap();
    if let Some(stored) = items.get(key) {
        let old: Item<'_> = serde_json::from_str(stored).unwrap();
        let text = |value: Option<&Value<'_>>| value.and_then(Value::text).map(str::to_owned);
        let kind = text(old.get("kind"));
        if kind.is_none() || !put.expression_attribute_values.values().any(|value| text(Some(value)) == kind) {
            let error = format!(
                r#"{{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"The conditional request failed","Item":{stored}}}"#
            );
            return Ok(("400 Bad Request", error));
        }
    }
    if !item.contains_key("kind") {
        state.calls.fetch_add(1, Ordering::Relaxed);
    }
    items.insert(key.to_owned(), put.item.get().into());
    Ok(("200 OK", "{}".to_owned()))
}

/// Returns the item's key.
fn check<'i>(put: &Put<'_>, item: &'i Item<'_>) -> Result<&'i str, String> {
    if put.table_name != "audit" || put.return_values_on_condition_check_failure != "ALL_OLD" {
        return Err(format!("table {}, returns {}", put.table_name, put.return_values_on_condition_check_failure));
    }
    // Every name and value is used, and every one that is used is there:
    // <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.ExpressionAttributeNames.html>
    let condition = put.condition_expression;
    let mut terms = condition.split(" OR ");
    let names = &put.expression_attribute_names;
    if terms.next() != Some("attribute_not_exists(#key)") || names.get("#key") != Some(&"request_id") {
        return Err(format!("the condition is {condition}"));
    }
    let mut values = 0;
    for term in terms {
        let value = term.strip_prefix("#kind = ").and_then(|value| put.expression_attribute_values.get(value));
        if value.is_none() || names.get("#kind") != Some(&"kind") {
            return Err(format!("{term} of the condition {condition}"));
        }
        values += 1;
    }
    if names.len() != 1 + usize::from(values > 0) || put.expression_attribute_values.len() != values {
        return Err(format!("names or values that the condition {condition} does not use"));
    }
    // A key is not empty, of the table and of an index:
    // <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>
    for name in ["day_shard", "time", "request_id"] {
        if item.get(name).and_then(Value::text).is_none_or(str::is_empty) {
            return Err(format!("{name} is not a text, or empty"));
        }
    }
    let mut size = 0;
    for (name, value) in item {
        size += name.len();
        match value {
            Value::S(text) => size += text.len(),
            Value::N(number) if number.parse::<f64>().is_ok() => size += 21,
            Value::N(number) => return Err(format!("{name} is not a number: {number}")),
        }
    }
    if size > MAX_ITEM {
        return Err(format!("the item has {size} bytes"));
    }
    Ok(item.get("request_id").and_then(Value::text).unwrap_or_default())
}

impl Value<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::S(text) => Some(text),
            Self::N(_) => None,
        }
    }
}
