//! Entries that Envoy could not write whole, or at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};

use audit_collector::query::Query;
use audit_collector::store::sqlite::SqliteStore;
use common::http::{get, metric, serve};
use common::program::{program, start, terminate};
use common::{line, wait_for};
use time::OffsetDateTime;

/// What a full disk leaves: the beginning of an entry, and without a newline the first one that was written again.
#[tokio::test]
async fn a_cut_entry_hides_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let (two, four) = (line("two"), line("four"));
    // In a text of the entry, within a key, and after the first byte; two cuts in one line; one that nothing follows.
    let mut text = line("one");
    let mut cuts = Vec::new();
    for (number, at) in [1, 14, 60, two.len() - 2].into_iter().enumerate() {
        text += &(two[..at].to_owned() + &line(&format!("after-{number}")));
        cuts.push(two[..at].to_owned());
    }
    text += &(two[..33].to_owned() + &four[..90] + &line("five") + &two[..50] + "\n" + &line("six"));
    cuts.extend([two[..33].to_owned() + &four[..90], two[..50].to_owned()]);
    fs::write(&log, text).unwrap();
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    let (child, _) = start(&mut program(&arguments));
    let store = SqliteStore::open_to_read(&db).unwrap();
    let ids = || -> BTreeSet<String> {
        let found = store.query(&Query { limit: 100, ..Query::default() }, OffsetDateTime::now_utc()).unwrap();
        found.into_iter().map(|record| record.request_id).collect()
    };
    wait_for("the last record", || ids().contains("six")).await;
    let stderr = terminate(child);
    let wanted = ["one", "after-0", "after-1", "after-2", "after-3", "five", "six"];
    assert_eq!(ids(), wanted.map(str::to_owned).into());
    assert!(stderr.contains("the entry was cut, and another one follows it in the line"), "{stderr}");
    let output = program(&["rejected", "list", "--sqlite", db.to_str().unwrap(), "--json"]).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let kept: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let contents: Vec<&str> = kept.iter().map(|entry| entry["content"].as_str().unwrap()).collect();
    assert_eq!(contents, cuts, "{listed}");
}

/// Statistics of an Envoy: entries, writes, failed writes.
fn statistics((buffered, completed, failed): (u64, u64, u64)) -> String {
    format!(
        "filesystem.write_buffered: {buffered}\nfilesystem.write_completed: {completed}\n\
         filesystem.write_failed: {failed}\nfilesystem.write_total_buffered: 0\nserver.uptime: 9\n"
    )
}

#[tokio::test]
async fn failed_writes_of_envoy_are_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (log, db) = (folder.path().join("access.log"), folder.path().join("a.db"));
    let counted = Arc::new(Mutex::new((10, 5, 0)));
    let now = Arc::clone(&counted);
    let envoy = serve(move |request| {
        let info = r#"{"command_line_options":{"file_flush_interval":"0.100s"}}"#.to_owned();
        Some((200, if request.contains("/server_info") { info } else { statistics(*now.lock().unwrap()) }))
    });
    let arguments = ["run", "--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap()];
    let (child, ready) = start(program(&arguments).args(["--health", "127.0.0.1:0", "--envoy-admin", &envoy]));
    let page = ready.split_whitespace().find_map(|word| word.strip_prefix("health=")).unwrap().to_owned();
    let value = |name: &str| metric(&page, name);
    wait_for("Envoy", || get(&page, "/metrics").1.contains("envoy_up 1\n")).await;
    assert_eq!((value("envoy_write_failed_total"), value("gaps_total")), (0.0, 0.0));
    *counted.lock().unwrap() = (110, 5, 4);
    wait_for("the window", || value("gaps_total") == 1.0).await;
    assert_eq!(value("envoy_write_failed_total"), 4.0);
    let from = value("envoy_loss_start_timestamp_seconds");
    assert!(from > 1.7e9 && value("envoy_loss_end_timestamp_seconds") == 0.0);
    *counted.lock().unwrap() = (130, 25, 4);
    wait_for("its end", || value("envoy_loss_end_timestamp_seconds") > from).await;
    let lost = value("envoy_entries_lost_max_total");
    assert!((100.0..=130.0).contains(&lost), "{lost}");
    let stderr = terminate(child);
    assert!(stderr.contains("error Envoy cannot write its log files: 4 writes failed; entries since 20"), "{stderr}");
    assert!(stderr.contains(&format!("Envoy writes its log files again: at most {lost} entries between")), "{stderr}");
    assert!(stderr.contains("gaps 1, expired 0"), "{stderr}");
}
