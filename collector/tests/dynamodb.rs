//! Records in AWS's own DynamoDB Local, which refuses what DynamoDB refuses, and through a proxy that leaves items
//! unprocessed as DynamoDB does when it throttles. `DYNAMODB_LOCAL_DIR` is the folder of `DynamoDBLocal.jar`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;
#[path = "common/template.rs"]
mod template;

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use audit::AuditRecord;
use audit_collector::query::{Query, Status};
use audit_collector::report::Report;
use audit_collector::source::deliver;
use audit_collector::store::dynamodb::{DynamoError, DynamoStore, shard_of};
use audit_collector::store::{Batch, Store};
use common::{ago, line, record, wait_for};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// DynamoDB Local, one for all tests of this file: it takes a second to start.
struct Local {
    port: u16,
    _process: Reaped,
}

/// A child that ends with the test process: its standard input is a pipe of ours, and the shell that waits on it kills
/// the server when that closes. (Statics are not dropped.)
struct Reaped(#[expect(dead_code, reason = "held for its pipe")] Child);

static LOCAL: LazyLock<Local> = LazyLock::new(|| {
    let folder = std::env::var_os("DYNAMODB_LOCAL_DIR").map(PathBuf::from);
    let folder = folder.expect("DYNAMODB_LOCAL_DIR is not set: run `cargo xtask test`, which sets DynamoDB Local up");
    assert!(folder.join("DynamoDBLocal.jar").is_file(), "no DynamoDBLocal.jar in {}", folder.display());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = "java -Djava.library.path=DynamoDBLocal_lib -Xmx256m -jar DynamoDBLocal.jar -inMemory -sharedDb \
                  -port \"$0\" </dev/null >/dev/null 2>&1 & server=$!; read -r _; kill $server";
    let mut command = Command::new("sh");
    command.args(["-c", script, &port.to_string()]).current_dir(&folder).stdin(Stdio::piped());
    #[expect(clippy::zombie_processes, reason = "it ends after this process, which therefore cannot wait for it")]
    let child = command.spawn().unwrap();
    for _ in 0..600 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Local { port, _process: Reaped(child) };
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("DynamoDB Local does not listen after a minute: is `java` (17) there?");
});

fn environment() -> [(&'static str, &'static str); 4] {
    [
        ("AWS_REGION", "us-gov-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
}

/// The SDK's settings, as a process finds them in its environment.
async fn connect(table: &str, port: u16) -> DynamoStore {
    let credentials = aws_sdk_dynamodb::config::Credentials::new(
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        None,
        None,
        "test",
    );
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
        .region(aws_sdk_dynamodb::config::Region::new("us-gov-west-1"))
        .credentials_provider(credentials)
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .http_client(audit_collector::store::dynamodb::http_client())
        .build();
    DynamoStore::new(aws_sdk_dynamodb::Client::from_conf(config), table, "us-gov-west-1")
}

/// A table as CloudFormation would make it of the template.
async fn table(name: &str) -> DynamoStore {
    let store = connect(name, LOCAL.port).await;
    template::create(store.client(), name).await;
    store
}

fn all() -> Query {
    Query { limit: 1000, ..Query::default() }
}

async fn ids(store: &DynamoStore, query: &Query) -> Vec<String> {
    let found = store.query(query, OffsetDateTime::now_utc()).await.unwrap();
    found.into_iter().map(|record| record.request_id).collect()
}

fn batch(records: Vec<AuditRecord>) -> Batch {
    Batch { records, ..Batch::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_made_once_with_its_index_and_ttl() {
    let store = connect("made", LOCAL.port).await;
    store.create_table().await.unwrap();
    store.create_table().await.unwrap();
    store.check().await.unwrap();
    let error = connect("nowhere", LOCAL.port).await.check().await.unwrap_err();
    assert!(matches!(error, DynamoError::NoTable { .. }));
    assert_eq!(
        error.to_string(),
        "table nowhere not found (region us-gov-west-1); `--create-table` makes it, or infra/ in production"
    );
    let ttl = store.client().describe_time_to_live().table_name("made").send().await.unwrap();
    let ttl = ttl.time_to_live_description().unwrap();
    assert_eq!(ttl.attribute_name(), Some("expires_at"));
    assert_eq!(ttl.time_to_live_status().unwrap().as_str(), "ENABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_the_template_is_the_one_that_the_collector_makes() {
    let deployed = table("deployed").await;
    let made = connect("made-alike", LOCAL.port).await;
    made.create_table().await.unwrap();
    assert_eq!(template::shape(&deployed, "deployed").await, template::shape(&made, "made-alike").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_whole_and_duplicates_in_a_batch_are_merged() {
    let store = table("whole").await;
    let mut full = record("full", &ago(5));
    full.error_type = Some("ThrottlingException".to_owned());
    full.tokens_cache_read = Some(0);
    full.first_byte_ms = Some(12);
    let bare =
        AuditRecord { request_id: "bare".to_owned(), time: ago(6), expires_at: 9_999_999_999, ..Default::default() };
    let other = record("full", &ago(1));
    let written = store.write(&batch(vec![full.clone(), bare.clone(), other, full.clone()])).await.unwrap();
    assert_eq!((written.stored, written.repeated), (3, 1));
    let reason = format!("its id is that of another exchange, of {}", full.time);
    assert_eq!(written.refused, [("full".to_owned(), reason)]);
    assert_eq!(store.query(&all(), OffsetDateTime::now_utc()).await.unwrap(), [full.clone(), bare]);
    let item = store.client().get_item().table_name("whole").key("request_id", shape("full")).send().await.unwrap();
    let item = item.item.unwrap();
    assert_eq!(item["expires_at"].as_n().unwrap(), &full.expires_at.to_string(), "TTL wants a Number");
    assert_eq!(item["day_shard"].as_s().unwrap(), &shard_of(&full.time, "full"));
    assert!(!item.contains_key("region"), "what is unknown is left out");
}

fn shape(text: &str) -> aws_sdk_dynamodb::types::AttributeValue {
    aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned())
}

#[test]
fn a_shard_is_stable() {
    assert_eq!(shard_of("2026-11-22T10:00:00.000Z", "foobar"), "2026-11-22#08");
    let shards: HashSet<_> = (0..1000).map(|id| shard_of("2026-11-22T10:00:00.000Z", &id.to_string())).collect();
    assert_eq!(shards.len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_over_days_and_shards_and_expired_ones_are_not_shown() {
    let store = table("filters").await;
    let month = 30 * 86_400;
    let mut records: Vec<_> = (0..60).map(|n| record(&format!("r{n:02}"), &ago(n * 7200 + 60))).collect();
    records[3].status = 429;
    records[40].status = 400;
    records.push(record("expired", &ago(month + 60)));
    records.push(record("expires", &ago(month - 3600)));
    for chunk in records.chunks(25) {
        store.write(&batch(chunk.to_vec())).await.unwrap();
    }
    let in_order: Vec<_> = (0..60).map(|n| format!("r{n:02}")).chain(["expires".to_owned()]).collect();
    assert_eq!(ids(&store, &all()).await, in_order);
    assert_eq!(ids(&store, &Query { limit: 14, ..all() }).await, in_order[..14]);
    let some = Query { since: Some(ago(10 * 7200)), until: Some(ago(3 * 7200)), ..all() };
    assert_eq!(ids(&store, &some).await, in_order[3..10]);
    let refused = Query { status: Some(Status::Class(4)), ..all() };
    assert_eq!(ids(&store, &refused).await, ["r03", "r40"]);
    assert_eq!(ids(&store, &Query { request_id: Some("r07".to_owned()), ..all() }).await, ["r07"]);
    assert!(ids(&store, &Query { request_id: Some("expired".to_owned()), ..all() }).await.is_empty());
    assert!(ids(&store, &Query { request_id: Some("none".to_owned()), ..all() }).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_too_large_is_refused_by_name_and_the_rest_is_stored() {
    let store = table("large").await;
    let mut large = record("large", &ago(5));
    large.principal = Some("x".repeat(400 * 1024));
    let mut fits = record("fits", &ago(6));
    fits.principal = Some("x".repeat(398 * 1024));
    let written = store.write(&batch(vec![large, fits])).await.unwrap();
    assert_eq!(written.stored, 1);
    let [(id, reason)] = &written.refused[..] else { panic!("{:?}", written.refused) };
    assert_eq!(id, "large");
    assert!(reason.ends_with("bytes, and DynamoDB takes 409600"), "{reason}");
    assert_eq!(ids(&store, &all()).await, ["fits"]);
}

/// What stands between store and DynamoDB: one request, `(target, body)`, to what DynamoDB is sent instead and what is
/// made of its answer.
type Meddle = dyn Fn(&str, &mut Value) -> Option<Answer> + Send + Sync;

/// What the proxy does with an answer.
enum Answer {
    /// Says this instead of asking.
    Instead(u16, Value),
    /// Adds these as unprocessed.
    Unprocessed(Value),
}

/// An HTTP/1.1 proxy in front of DynamoDB Local. Returns its port.
async fn proxy(meddle: Arc<Meddle>) -> u16 {
    let upstream = LOCAL.port;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let meddle = Arc::clone(&meddle);
            tokio::spawn(async move {
                while let Some((head, body)) = read_message(&mut client).await {
                    let target = header(&head, "x-amz-target").unwrap();
                    let target = target.rsplit('.').next().unwrap().to_owned();
                    let mut body: Value = serde_json::from_slice(&body).unwrap();
                    let answer = meddle(&target, &mut body);
                    let (status, said) = match answer {
                        Some(Answer::Instead(status, said)) => (status, said),
                        other => {
                            let mut server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
                            let body = body.to_string();
                            let keep = head.lines().skip(1).filter(|line| {
                                let line = line.to_ascii_lowercase();
                                !line.is_empty()
                                    && !line.starts_with("content-length")
                                    && !line.starts_with("x-amz-content")
                            });
                            let head = keep.fold("POST / HTTP/1.1\r\n".to_owned(), |head, line| head + line + "\r\n");
                            let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
                            server.write_all(text.as_bytes()).await.unwrap();
                            let (head, said) = read_message(&mut server).await.unwrap();
                            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                            let mut said: Value = serde_json::from_slice(&said).unwrap();
                            if let Some(Answer::Unprocessed(items)) = other {
                                said["UnprocessedItems"] = items;
                            }
                            (status, said)
                        }
                    };
                    let said = said.to_string();
                    let text = format!(
                        "HTTP/1.1 {status} .\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n{said}",
                        said.len()
                    );
                    client.write_all(text.as_bytes()).await.unwrap();
                }
            });
        }
    });
    port
}

fn header(head: &str, name: &str) -> Option<String> {
    let value = |line: &str| {
        line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|pair| pair.1.trim().to_owned())
    };
    head.lines().find_map(value)
}

async fn read_message(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).unwrap();
            let length: usize = header(&head, "content-length").unwrap().parse().unwrap();
            if read.len() >= end + 4 + length {
                return Some((head, read[end + 4..end + 4 + length].to_vec()));
            }
        }
        if stream.read_buf(&mut read).await.unwrap() == 0 {
            return None;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unprocessed_items_are_sent_again_until_all_are_accepted() {
    table("unprocessed").await;
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let port = proxy(Arc::new(move |target: &str, body: &mut Value| {
        if target != "BatchWriteItem" {
            return None;
        }
        let items = body["RequestItems"]["unprocessed"].as_array_mut().unwrap();
        seen.lock().unwrap().push(items.len());
        // DynamoDB takes ten and gives the rest back.
        let left = items.split_off(items.len().min(10));
        Some(Answer::Unprocessed(if left.is_empty() { json!({}) } else { json!({"unprocessed": left}) }))
    }))
    .await;
    let store = connect("unprocessed", port).await;
    let records: Vec<_> = (0..25).map(|n| record(&format!("r{n:02}"), &ago(n))).collect();
    let written = store.write(&batch(records.clone())).await.unwrap();
    assert_eq!(written.stored, 25);
    assert_eq!(*sizes.lock().unwrap(), [25, 15, 5]);
    assert_eq!(store.query(&all(), OffsetDateTime::now_utc()).await.unwrap(), records);
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_and_faults_count_as_not_delivered_and_are_tried_again() {
    table("throttled").await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let port = proxy(Arc::new(move |target: &str, _: &mut Value| {
        // The SDK itself tries three times, and 7 refusals outlast two rounds of it.
        (target == "BatchWriteItem" && counted.fetch_add(1, Ordering::SeqCst) < 7).then(|| {
            let kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
            Answer::Instead(400, json!({"__type": kind, "message": "slow down"}))
        })
    }))
    .await;
    let store = Store::DynamoDb(connect("throttled", port).await);
    let batch = batch((0..3).map(|n| record(&format!("r{n}"), &ago(n))).collect());
    let error = store.write(&batch).await.unwrap_err().to_string();
    assert_eq!(error, "DynamoDB BatchWriteItem: ProvisionedThroughputExceededException: slow down");
    let report = Report::default();
    let (_stop, mut stopped) = watch::channel(false);
    deliver(&store, &batch, &report, &mut stopped, Duration::ZERO).await.unwrap();
    assert_eq!(report.counts().stored, 3);
    assert_eq!(calls.load(Ordering::SeqCst), 8);
    assert_eq!(store.query(&all(), OffsetDateTime::now_utc()).await.unwrap(), batch.records);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_never_accepted_are_never_counted() {
    table("refused").await;
    let port = proxy(Arc::new(|target: &str, body: &mut Value| {
        (target == "BatchWriteItem")
            .then(|| Answer::Instead(200, json!({"UnprocessedItems": body["RequestItems"].clone()})))
    }))
    .await;
    let store = connect("refused", port).await;
    let error = store.write(&batch(vec![record("r", &ago(1))])).await.unwrap_err().to_string();
    assert_eq!(error, "DynamoDB BatchWriteItem: 1 items still unprocessed after 8 tries");
    assert!(ids(&store, &all()).await.is_empty());
}

// The program.

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_audit-collector"));
    command.args(arguments).envs(environment()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.starts_with("ready file="), "{ready}{:?}", child.wait_with_output());
    child
}

fn terminate(child: Child) -> String {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_follows_a_log_through_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let append = |text: &str| {
        OpenOptions::new().create(true).append(true).open(&log).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let url = format!("http://127.0.0.1:{}", LOCAL.port);
    let mut arguments = vec!["run", "--file", log.to_str().unwrap(), "--dynamodb", "program", "--endpoint-url", &url];
    let mut bare = Command::new(env!("CARGO_BIN_EXE_audit-collector"));
    let output = bare.args(&arguments).envs(environment()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("table program not found"));

    arguments.push("--create-table");
    append(&line("one"));
    append("garbage\n");
    let child = start(&arguments);
    let checkpoint = folder.path().join("access.log.checkpoint.json");
    let read = || {
        let bytes = fs::read(&checkpoint).unwrap_or_default();
        serde_json::from_slice::<Value>(&bytes).ok().and_then(|state| state["offset"].as_u64())
    };
    let size = || fs::metadata(&log).ok().map(|data| data.len());
    wait_for("the checkpoint", || read() == size()).await;
    append(&line("two"));
    wait_for("the checkpoint", || read() == size()).await;
    assert!(terminate(child).contains("stored 2 (of them repeated 0), rejected 1"));
    append(&line("three"));
    let child = start(&arguments);
    wait_for("the checkpoint", || read() == size()).await;
    assert!(terminate(child).contains("stored 1 (of them repeated 0), rejected 0"));
    let rejected = fs::read_to_string(folder.path().join("access.log.rejected.jsonl")).unwrap();
    let rejected: Value = serde_json::from_str(&rejected).unwrap();
    assert_eq!((&rejected["offset"], &rejected["content"]), (&line("one").len().into(), &"garbage".into()));

    let mut query = Command::new(env!("CARGO_BIN_EXE_audit-collector"));
    query.args(["query", "--dynamodb", "program", "--endpoint-url", &url, "--json"]).envs(environment());
    let output = query.output().unwrap();
    let found: Vec<AuditRecord> =
        serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>().unwrap();
    let mut found: Vec<_> = found.into_iter().map(|record| record.request_id).collect();
    found.sort();
    assert_eq!(found, ["one", "three", "two"]);
}
