//! The DynamoDB store on AWS's DynamoDB Local, directly and through a proxy that throttles. `DYNAMODB_LOCAL_DIR` is the
//! folder of `DynamoDBLocal.jar`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;
#[path = "common/dynamodb_local.rs"]
mod dynamodb_local;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/template.rs"]
mod template;

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use audit::{AuditRecord, FieldValue};
use audit_collector::batch::{Batch, Rejected};
use audit_collector::deliver::deliver;
use audit_collector::query::{Cursor, Progress, Query, Status};
use audit_collector::report::Report;
use audit_collector::store::Store;
use audit_collector::store::dynamodb::{DynamoError, DynamoStore, shard_of};
use aws_sdk_dynamodb::types::AttributeValue;
use common::program::{program, start, terminate};
use common::{ago, expected, full_record, line, record, wait_for};
use dynamodb_local::{environment, port};
use proxy::{Answer, Rule};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;

/// A store on the table that the template describes.
async fn table(name: &str) -> DynamoStore {
    let store = dynamodb_local::store(name, port());
    template::create(store.client(), name).await;
    store
}

/// The same table, through a proxy.
async fn behind_proxy(name: &str, rule: Arc<Rule>) -> DynamoStore {
    table(name).await;
    dynamodb_local::store(name, proxy::start(port(), rule).await)
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
async fn creates_the_table_once_with_index_and_ttl() {
    let store = dynamodb_local::store("created", port());
    store.create_table().await.unwrap();
    store.create_table().await.unwrap();
    store.check().await.unwrap();
    let error = dynamodb_local::store("missing", port()).check().await.unwrap_err();
    assert!(matches!(error, DynamoError::NoTable { .. }));
    assert_eq!(
        error.to_string(),
        "table missing not found in region us-gov-west-1; create it with infra/, or `run --create-table` for DynamoDB Local"
    );
    let ttl = store.client().describe_time_to_live().table_name("created").send().await.unwrap();
    let ttl = ttl.time_to_live_description().unwrap();
    assert_eq!(ttl.attribute_name(), Some("expires_at"));
    assert_eq!(ttl.time_to_live_status().unwrap().as_str(), "ENABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_the_same_table_as_the_template() {
    let deployed = table("deployed").await;
    let created = dynamodb_local::store("created-alike", port());
    created.create_table().await.unwrap();
    assert_eq!(template::shape(&deployed, "deployed").await, template::shape(&created, "created-alike").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_every_field_and_merges_duplicates() {
    let store = table("whole").await;
    let mut full = full_record("full", &ago(5));
    full.region = None;
    let bare =
        AuditRecord { request_id: "bare".to_owned(), time: ago(6), expires_at: 9_999_999_999, ..Default::default() };
    let other = record("full", &ago(1));
    let written = store.write(&batch(vec![full.clone(), bare.clone(), other, full.clone()])).await.unwrap();
    assert_eq!((written.stored, written.repeated), (3, 1));
    let reason = format!("its request id belongs to another exchange, of {}", full.time);
    assert_eq!((written.refused[0].file.as_str(), written.refused[0].reason.as_str()), ("full", reason.as_str()));
    assert_eq!(store.query(&all(), OffsetDateTime::now_utc()).await.unwrap(), [full.clone(), bare]);
    let item = store.client().get_item().table_name("whole").key("request_id", text("full")).send().await.unwrap();
    let item = item.item.unwrap();
    assert_eq!(item["expires_at"].as_n().unwrap(), &full.expires_at.to_string(), "TTL needs a number");
    assert_eq!(item["day_shard"].as_s().unwrap(), &shard_of(&full.time, "full"));
    let mut attributes: Vec<_> = AuditRecord::FIELDS.iter().map(|field| field.name).collect();
    attributes.push("day_shard");
    // Null fields have no attribute.
    attributes.retain(|name| *name != "region");
    assert_eq!(item.keys().map(String::as_str).collect::<BTreeSet<_>>(), attributes.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_replaces_only_what_was_unknown() {
    let store = table("replaced").await;
    for (first, second, kept) in common::REPLACEMENTS {
        let id = format!("{first:?} {second:?}");
        let [first, second] = [first, second].map(|kind| common::of_kind(&id, kind));
        store.write(&batch(vec![first.clone()])).await.unwrap();
        let written = store.write(&batch(vec![second.clone()])).await.unwrap();
        assert_eq!((written.stored, written.refused.len()), (1, 0), "{id}");
        let query = Query { request_id: Some(id.clone()), ..all() };
        let found = store.query(&query, OffsetDateTime::now_utc()).await.unwrap();
        assert_eq!(found, [if kept == 0 { first } else { second }], "{id}");
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

#[test]
fn a_shard_never_changes() {
    assert_eq!(shard_of("2026-11-22T10:00:00.000Z", "foobar"), "2026-11-22#08");
    let shards: HashSet<_> = (0..1000).map(|id| shard_of("2026-11-22T10:00:00.000Z", &id.to_string())).collect();
    assert_eq!(shards.len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_span_days_and_skip_expired_records() {
    let store = table("filters").await;
    let month = 30 * 86_400;
    let mut records: Vec<_> = (0..60).map(|n| record(&format!("r{n:02}"), &ago(n * 7200 + 60))).collect();
    records[3].status = 429;
    records[40].status = 400;
    records.push(record("expired", &ago(month + 60)));
    records.push(record("expires", &ago(month - 3600)));
    store.write(&batch(records)).await.unwrap();
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
async fn filter_expressions_find_what_matches() {
    let store = table("filtered").await;
    let (records, mut queries) = common::filtered();
    store.write(&batch(records.clone())).await.unwrap();
    for query in &mut queries {
        // Fewer days.
        query.since.get_or_insert_with(|| ago(100_000));
        let wanted = expected(&records, query);
        assert_eq!(ids(&store, query).await, wanted, "{query:?}");
        let mut visited = Vec::new();
        let each = |values: &[FieldValue<'_>]| {
            let [FieldValue::Text(id), FieldValue::Integer(_)] = values else { panic!("{values:?}") };
            visited.push((*id).to_owned());
            true
        };
        let now = OffsetDateTime::now_utc();
        store.visit(query, &["request_id", "status"], now, each, &mut Progress::new(false)).await.unwrap();
        visited.sort();
        let mut all = expected(&records, &Query { limit: usize::MAX, ..query.clone() });
        all.sort();
        assert_eq!(visited, all, "{query:?}");
        for after in wanted.iter().step_by(20) {
            let after = records.iter().find(|record| record.request_id == *after).map(Cursor::of);
            let rest = Query { after, ..query.clone() };
            assert_eq!(ids(&store, &rest).await, expected(&records, &rest), "{rest:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_a_large_item_and_stores_the_rest() {
    let store = table("large").await;
    let mut large = record("large", &ago(5));
    large.principal = Some("x".repeat(400 * 1024));
    let mut fits = record("fits", &ago(6));
    fits.principal = Some("x".repeat(398 * 1024));
    let written = store.write(&batch(vec![large, fits])).await.unwrap();
    assert_eq!(written.stored, 1);
    let [refused] = &written.refused[..] else { panic!("{:?}", written.refused) };
    assert_eq!(refused.file, "large");
    assert!(refused.reason.ends_with("bytes exceeds DynamoDB's limit of 409600"), "{}", refused.reason);
    assert_eq!(ids(&store, &all()).await, ["fits"]);
}

/// The access log service authenticates nobody: an entry of it may have any id.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_record_is_never_replaced() {
    let store = table("kept").await;
    let first = record("r", &ago(60));
    store.write(&batch(vec![first.clone()])).await.unwrap();
    let forged = AuditRecord { principal: Some("spiffe://mesh/ns/other/sa/other".to_owned()), ..first.clone() };
    let later = record("r", &ago(10));
    for (other, wanted) in [(forged, "another principal"), (later, "belongs to another exchange")] {
        let written = store.write(&batch(vec![other.clone()])).await.unwrap();
        assert_eq!((written.stored, written.refused.len()), (0, 1));
        assert!(written.refused[0].reason.contains(wanted), "{}", written.refused[0].reason);
        assert_eq!(serde_json::from_slice::<AuditRecord>(&written.refused[0].content).unwrap(), other);
    }
    // What comes again passes; one that an older release stored, too.
    let newer = AuditRecord { token_id: Some("known now".to_owned()), ..first.clone() };
    for again in [first.clone(), newer] {
        let written = store.write(&batch(vec![again])).await.unwrap();
        assert_eq!((written.stored, written.repeated, written.refused.len()), (1, 1, 0));
    }
    assert_eq!(store.query(&all(), OffsetDateTime::now_utc()).await.unwrap(), [first]);
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_conditional_puts_only() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&seen);
    let rule = move |target: &str, body: &mut Value| {
        calls.lock().unwrap().push((target.to_owned(), body["ConditionExpression"].clone()));
        None
    };
    let store = behind_proxy("conditional", Arc::new(rule)).await;
    store.write(&batch((0..30).map(|n| record(&format!("r{n}"), &ago(n))).collect())).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 30);
    assert!(
        seen.iter().all(|(call, condition)| call == "PutItem"
            && condition == "attribute_not_exists(#key) OR #kind = :kind0 OR #kind = :kind1"),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_eighty_puts_in_flight() {
    let answered = Duration::from_secs(3);
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let counted = Arc::clone(&arrivals);
    let late = move |target: &str, _: &mut Value| {
        (target == "PutItem").then(|| {
            counted.lock().unwrap().push(Instant::now());
            Answer::Late(answered)
        })
    };
    let store = behind_proxy("in-flight", Arc::new(late)).await;
    let records: Vec<_> = (0..80).map(|n| record(&format!("r{n:03}"), &ago(n))).collect();
    assert_eq!(store.write(&batch(records)).await.unwrap().stored, 80);
    let arrivals = arrivals.lock().unwrap();
    // Each came before the first was answered.
    assert!(arrivals.iter().all(|at| *at < arrivals[0] + answered), "{arrivals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_after_throttling() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let rule = move |target: &str, _: &mut Value| {
        // The SDK makes three attempts a call.
        (target == "PutItem" && counted.fetch_add(1, Ordering::SeqCst) < 11).then(|| {
            let kind = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
            Answer::Instead(400, json!({"__type": kind, "message": "slow down"}))
        })
    };
    let store = behind_proxy("throttled", Arc::new(rule)).await;
    let records: Vec<_> = (0..3).map(|n| record(&format!("r{n}"), &ago(n))).collect();
    assert_eq!(store.write(&batch(records.clone())).await.unwrap().stored, 3);
    assert!(calls.load(Ordering::SeqCst) >= 14);
    assert_eq!(store.query(&all(), OffsetDateTime::now_utc()).await.unwrap(), records);
}

#[tokio::test(flavor = "multi_thread")]
async fn never_counts_items_not_accepted() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let rule = move |target: &str, body: &mut Value| {
        let down = target == "PutItem"
            && body["Item"]["request_id"]["S"] == "r1"
            && counted.fetch_add(1, Ordering::SeqCst) < 4;
        down.then(|| Answer::Instead(400, json!({"__type": "com.amazon#AccessDeniedException", "message": "no"})))
    };
    let store = Store::DynamoDb(behind_proxy("refused", Arc::new(rule)).await);
    let batch = batch((0..3).map(|n| record(&format!("r{n}"), &ago(n))).collect());
    let error = store.write(&batch).await.unwrap_err().to_string();
    assert_eq!(error, "DynamoDB PutItem: AccessDeniedException: no");
    let report = Report::default();
    let (_stop, mut stopped) = watch::channel(false);
    deliver(&store, None, &batch, &report, &mut stopped, Duration::ZERO).await.unwrap();
    assert_eq!(report.counts().stored, 3);
    let Store::DynamoDb(store) = store else { panic!("another store") };
    assert_eq!(store.query(&all(), OffsetDateTime::now_utc()).await.unwrap(), batch.records);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_show_records_from_the_future() {
    let store = table("future").await;
    let far = record("far", &ago(-40 * 86_400));
    let near = record("near", &ago(-86_400 - 3600));
    let now = record("now", &ago(1));
    store.write(&batch(vec![now, near, far])).await.unwrap();
    assert_eq!(ids(&store, &all()).await, ["far", "near", "now"]);
    assert_eq!(ids(&store, &Query { limit: 2, ..all() }).await, ["far", "near"]);
    assert_eq!(ids(&store, &Query { until: Some(ago(-2 * 86_400)), ..all() }).await, ["near", "now"]);
    assert_eq!(ids(&store, &Query { since: Some(ago(-2 * 86_400)), ..all() }).await, ["far"]);
    // Later its time has come, and it is in order.
    let later = OffsetDateTime::now_utc() + time::Duration::days(2);
    let found = store.query(&all(), later).await.unwrap();
    assert_eq!(found.iter().map(|record| record.request_id.as_str()).collect::<Vec<_>>(), ["far", "near", "now"]);
    let mut count = 0;
    let query = Query { limit: 2, ..all() };
    let each = |_| {
        count += 1;
        true
    };
    let found = store.scan(&query, OffsetDateTime::now_utc(), each, &mut Progress::new(false)).await.unwrap();
    assert!(found.more);
    assert_eq!(count, 2);
}

/// An entry of the feed has no log that still has it.
#[tokio::test(flavor = "multi_thread")]
async fn rejected_feed_entries_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rejected.jsonl");
    let store = table("feed").await.with_rejected(file.clone());
    let content: Vec<u8> = (0..=255).collect();
    let rejected = vec![Rejected::new("als", "bedrock-audit".to_owned(), 7, "why".to_owned(), &content)];
    store.write(&Batch { rejected: rejected.clone(), ..Batch::default() }).await.unwrap();
    let mut kept = Vec::new();
    audit_collector::store::dynamodb::rejected_file::read(&file, |_, entry| kept.push(entry)).unwrap();
    assert_eq!(kept, rejected);
    // Read again: this one stays, a line that an older release refused does not.
    let line = line("again");
    let again = Rejected::new("file", "access.log".to_owned(), 0, "older".to_owned(), line.as_bytes());
    store.write(&Batch { rejected: vec![again], ..Batch::default() }).await.unwrap();
    let retried = audit_collector::rejected::retry_file(&store, &file).await.unwrap();
    assert_eq!((retried.stored, retried.left), (1, 1));
    assert_eq!(ids(&store, &all()).await, ["again"]);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
    // The feed goes on if the entry cannot be kept.
    let store = store.with_rejected("/nowhere/rejected.jsonl".into());
    let written = store.write(&Batch { rejected, ..Batch::default() }).await.unwrap();
    assert_eq!(written.lost.unwrap().0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_logs_are_imported_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("old.log");
    let store = table("imported").await;
    let (old, known) = (ago(40 * 86_400), record("known", &ago(31 * 86_400)));
    store.write(&batch(vec![known.clone(), record("other", &ago(60))])).await.unwrap();
    let conflict = common::line_of("other", &ago(90));
    fs::write(&log, common::line_of("old", &old) + &common::line_as(&known) + "garbage\n" + &conflict).unwrap();
    let url = format!("http://127.0.0.1:{}", port());
    for wanted in ["stored 1, repeated 1,", "stored 0, repeated 2,"] {
        let arguments = ["import", log.to_str().unwrap(), "--dynamodb", "imported", "--endpoint-url", &url];
        let output = program(&arguments).envs(environment()).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(stdout, format!("{wanted} rejected 2, already expired 2, not audited 0\n"), "{:?}", output.stderr);
        let rejected = fs::read_to_string(folder.path().join("old.log.rejected.jsonl")).unwrap();
        assert_eq!(rejected.lines().count(), 2, "{rejected}");
    }
    // Their days are asked for.
    assert_eq!(ids(&store, &all()).await, ["other"]);
    assert_eq!(ids(&store, &Query { since: Some(ago(41 * 86_400)), ..all() }).await, ["other", "known", "old"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_says_what_is_missing() {
    let store = table("missing-calls").await;
    let of_vm = |id: &str, seconds, number| AuditRecord {
        vm: Some("vm-1".to_owned()),
        envoy: Some("envoy-1".to_owned()),
        vm_logged: number,
        ..record(id, &ago(seconds))
    };
    let url = format!("http://127.0.0.1:{}", port());
    let ask = || {
        let arguments =
            ["completeness", "--dynamodb", "missing-calls", "--endpoint-url", &url, "--since", "1h", "--json"];
        let output = program(&arguments).envs(environment()).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), found)
    };
    assert_eq!(ask().0, 2, "no records");
    store.write(&batch(vec![of_vm("a", 50, Some(1)), of_vm("c", 40, Some(3))])).await.unwrap();
    assert_eq!(ask().0, 0);
    let (kind, until) = (Some("hole".to_owned()), Some(ago(40)));
    let hole = AuditRecord { kind, until, lost: Some(1), ..of_vm("hole-vm-1-2-2", 50, None) };
    store.write(&batch(vec![hole])).await.unwrap();
    let (status, found) = ask();
    assert_eq!((status, &found["missing"][0]["request_id"], &found["lost"]), (1, &"hole-vm-1-2-2".into(), &1.into()));
    store.write(&batch(vec![of_vm("b", 45, Some(2))])).await.unwrap();
    assert_eq!(ask().0, 0, "it came late");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_continues_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let append = |text: &str| {
        OpenOptions::new().create(true).append(true).open(&log).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let url = format!("http://127.0.0.1:{}", port());
    let mut arguments = vec!["run", "--file", log.to_str().unwrap(), "--dynamodb", "program", "--endpoint-url", &url];
    let output = program(&arguments).envs(environment()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("table program not found"));

    arguments.push("--create-table");
    append(&line("one"));
    append("garbage\n");
    let (child, _) = start(program(&arguments).envs(environment()));
    let checkpoint = folder.path().join("access.log.checkpoint.json");
    let read = || {
        let bytes = fs::read(&checkpoint).unwrap_or_default();
        serde_json::from_slice::<Value>(&bytes).ok().and_then(|state| state["offset"].as_u64())
    };
    let size = || fs::metadata(&log).ok().map(|data| data.len());
    wait_for("the checkpoint", || read() == size()).await;
    append(&line("two"));
    wait_for("the checkpoint", || read() == size()).await;
    assert!(terminate(child).contains("stored 2 (0 repeated), rejected 1"));
    append(&line("three"));
    let (child, _) = start(program(&arguments).envs(environment()));
    wait_for("the checkpoint", || read() == size()).await;
    assert!(terminate(child).contains("stored 1 (0 repeated), rejected 0"));
    let rejected = fs::read_to_string(folder.path().join("access.log.rejected.jsonl")).unwrap();
    let rejected: Value = serde_json::from_str(&rejected).unwrap();
    assert_eq!((&rejected["offset"], &rejected["content"]), (&line("one").len().into(), &"garbage".into()));

    let query = ["query", "--dynamodb", "program", "--endpoint-url", &url, "--json"];
    let output = program(&query).envs(environment()).output().unwrap();
    let found: Vec<AuditRecord> =
        serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>().unwrap();
    let mut found: Vec<_> = found.into_iter().map(|record| record.request_id).collect();
    found.sort();
    assert_eq!(found, ["one", "three", "two"]);
}

/// The shard of a record of the future depends on the clock; `STEPPED_CLOCK_LIBRARY` is `host-tests/clock`.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_back_during_a_put_hides_no_record() {
    step_back_during_a_put("stepped", 0).await;
}

/// Nor if the record cannot be put again at once, and its whole batch is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_a_step_back_hides_no_record() {
    step_back_during_a_put("stepped-twice", 1).await;
}

/// The clock is a month ahead and steps back with the first put. So many of the next puts fail.
async fn step_back_during_a_put(name: &'static str, failures: usize) {
    let store = table(name).await;
    let folder = tempfile::tempdir().unwrap();
    let (clock, log) = (folder.path().join("clock"), folder.path().join("access.log"));
    let month = 31 * 86_400;
    fs::write(&clock, (month * 1_000_000_000_i64).to_ne_bytes()).unwrap();
    fs::write(&log, common::line_of("ahead", &ago(-month))).unwrap();
    let (file, puts) = (clock.clone(), AtomicUsize::new(0));
    let rule = move |operation: &str, _: &mut Value| {
        if operation != "PutItem" {
            return None;
        }
        fs::write(&file, 0_i64.to_ne_bytes()).unwrap();
        let number = puts.fetch_add(1, Ordering::Relaxed);
        // Which the SDK does not try again.
        let refusal = json!({"__type": "com.amazon.coral.service#InvalidSignatureException", "message": "expired"});
        (1..=failures).contains(&number).then_some(Answer::Instead(400, refusal))
    };
    let endpoint = format!("http://127.0.0.1:{}", proxy::start(port(), Arc::new(rule)).await);
    let mut command = program(&["run", "--dynamodb", name, "--endpoint-url", &endpoint, "--file"]);
    let library = std::env::var_os("STEPPED_CLOCK_LIBRARY");
    let library = library.expect("STEPPED_CLOCK_LIBRARY is not set; `cargo xtask test` builds it");
    command.arg(&log).envs(environment()).env("LD_PRELOAD", library).env("STEPPED_CLOCK_FILE", &clock);
    let (child, _) = start(&mut command);
    for _ in 0..100 {
        if ids(&store, &all()).await == ["ahead"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ids(&store, &all()).await, ["ahead"]);
    terminate(child);
}
