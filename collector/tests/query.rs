//! Arguments and output of `audit-collector query`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use audit::AuditRecord;
use audit_collector::batch::Batch;
use audit_collector::print::{Fields, Format, Printer};
use audit_collector::query::{Status, Zone, time_argument};
use audit_collector::store::sqlite::SqliteStore;
use common::program::program;
use common::{ago, record};
use serde_json::Value;
use time::OffsetDateTime;

#[test]
fn output_escapes_hidden_characters() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    let mut bad = record("r", &ago(60));
    // As an older release stored it.
    bad.principal = Some("a\u{202e}b\u{200f}c\u{9b}d\0e".to_owned());
    store.write(&Batch { records: vec![bad.clone()], ..Batch::default() }).unwrap();
    for arguments in [&["query", "--sqlite"][..], &["query", "--json", "--sqlite"]] {
        let output = program(arguments).arg(&file).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("202e")
                && text.contains("200f")
                && text.chars().all(|char| char == '\n' || matches!(char, ' '..='~')),
            "{text:?}"
        );
    }
    let output = program(&["query", "--json", "--sqlite"]).arg(&file).output().unwrap();
    assert_eq!(serde_json::from_slice::<AuditRecord>(&output.stdout).unwrap(), bad);
}

#[test]
fn the_table_escapes_control_characters() {
    let mut bad = record("r", "2026-11-22T10:00:00.000Z");
    bad.model_sent = Some("a\u{1b}[2Jb\nc".to_owned());
    let (fields, mut out) = (Fields::some(), Vec::new());
    let mut table = Printer::new(Format::Table, fields.columns(), &mut out);
    fields.print(&bad, &Zone::default(), &mut table).unwrap();
    table.end().unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "TIME                      OPERATION  MODEL SENT      PATH  TRIES  STATUS  ERROR  TOKENS IN  OUT  MS  PRINCIPAL\n\
         2026-11-22T10:00:00.000Z  Converse   a\\u{1b}[2Jb\\nc  dx        1     200  -              7    9  31  spiffe://mesh/ns/app/sa/chat\n"
    );
}

#[test]
fn refuses_malformed_times_and_statuses() {
    let (now, utc) = (OffsetDateTime::now_utc(), Zone::default());
    for text in ["", "5", "h", "-1h", "1w", "2026-13-02", "2026-1-2", "99999999999d", "4294967295d"] {
        assert!(time_argument(text, now, &utc).is_err(), "{text}");
    }
    assert_eq!(time_argument("2026-01-02T05:04:05+02:00", now, &utc).unwrap(), "2026-01-02T03:04:05.000Z");
    for text in ["", "xx", "axx", "5x", "-5", "9xx", "0xx", "99", "600"] {
        assert!(text.parse::<Status>().is_err(), "{text}");
    }
}

#[test]
fn the_json_has_every_field_null_ones_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    let records = vec![record("r", &ago(60))];
    store.write(&Batch { records, ..Batch::default() }).unwrap();
    let output = program(&["query", "--sqlite", file.to_str().unwrap(), "--json"]).output().unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let wanted = AuditRecord::FIELDS.iter().map(|field| field.name).collect::<BTreeSet<_>>();
    assert_eq!(printed.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>(), wanted);
    assert_eq!((&printed["region"], &printed["tokens_in"]), (&Value::Null, &7.into()));
}

#[test]
fn refuses_arguments_that_conflict() {
    for (arguments, wanted) in [
        (&["run", "--sqlite", "a"][..], "<--als <ADDRESS>|--file <PATH>>"),
        (&["run", "--file", "a"], "<--sqlite <FILE>|--dynamodb <TABLE>>"),
        (&["query"], "<--sqlite <FILE>|--dynamodb <TABLE>>"),
        (&["query", "--sqlite", "a", "--dynamodb", "b"], "cannot be used with '--dynamodb <TABLE>'"),
        (
            &["run", "--file", "a", "--sqlite", "b", "--create-table"],
            "'--sqlite <FILE>' cannot be used with '--create-table'",
        ),
        (&["query", "--sqlite", "a", "--endpoint-url", "b"], "'--endpoint-url <URL>'"),
    ] {
        let output = program(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && stderr.contains(wanted), "{arguments:?}: {stderr}");
    }
}

#[test]
fn says_that_more_records_match() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    let records = (0..60).map(|n| record(&format!("r{n:02}"), &ago(n))).collect();
    store.write(&Batch { records, ..Batch::default() }).unwrap();
    for (arguments, lines, more) in [
        (&["query", "--json"][..], 50, true),
        (&["query"], 51, true),
        (&["query", "--limit", "60"], 61, false),
        (&["query", "--limit", "59"], 60, true),
        (&["query", "--status", "500"], 0, false),
    ] {
        let output = program(arguments).arg("--sqlite").arg(&file).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), lines, "{arguments:?}");
        assert_eq!(stderr.contains("more match: go on with --after "), more, "{arguments:?}: {stderr}");
    }
}

/// A large `--limit` does not hold the records in memory.
#[test]
fn records_are_printed_as_they_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    for chunk in 0..20 {
        let mut records: Vec<_> = (0..1000).map(|n| record(&format!("r{chunk}-{n}"), &ago(n))).collect();
        records.iter_mut().for_each(|record| record.session = Some("x".repeat(2000)));
        store.write(&Batch { records, ..Batch::default() }).unwrap();
    }
    // 40 MB of texts.
    let mut command = program(&["query", "--limit", "1000000", "--json", "--sqlite", file.to_str().unwrap()]);
    let mut child = command.spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut out, &mut first).unwrap();
    // The program waits for its reader; what it holds is little.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u64>().unwrap() < 40_000, "peak {peak} kB");
    assert_eq!(std::io::BufRead::lines(out).count(), 19_999);
    assert!(child.wait().unwrap().success());
}

fn run(file: &Path, arguments: &[&str]) -> (String, String) {
    let output = program(&["query", "--sqlite"]).arg(file).args(arguments).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_cursor_goes_on_where_a_query_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    // Several of each time.
    let records = (0..60).map(|n| record(&format!("r {n:02}"), &ago(1000 - n / 4))).collect();
    store.write(&Batch { records, ..Batch::default() }).unwrap();
    let (whole, _) = run(&file, &["--json", "--limit", "60"]);
    let (mut pages, mut cursor) = (String::new(), None);
    for _ in 0..9 {
        let after: Vec<_> = cursor.iter().flat_map(|cursor: &String| ["--after", cursor.as_str()]).collect();
        let (page, stderr) = run(&file, &[&["--json", "--limit", "7"][..], &after].concat());
        pages += &page;
        let next = stderr.split("--after ").nth(1).and_then(|rest| rest.split(',').next());
        cursor = next.map(str::to_owned);
    }
    assert_eq!((pages, cursor), (whole, None));
    let (page, _) = run(&file, &["--after", "2026-01-02T03:04:05.678Z/x", "--json"]);
    assert_eq!(page, "");
}

#[test]
fn wrong_values_are_answered_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    store.write(&Batch { records: vec![record("r", &ago(60))], ..Batch::default() }).unwrap();
    for (arguments, wanted) in [
        (&["--by", "principl"][..], "did you mean principal?; there are: principal, source_address"),
        (&["--columns", "time,tokens"], "there are: request_id, time"),
        (&["--time-zone", "Europe/Belin"], "did you mean Europe/Berlin?"),
        (&["--format", "cvs"], "[possible values: table, json, csv]"),
        (&["--status", "700"], "expected a status (503), a class (5xx)"),
        (&["--since", "yesterday"], "--since yesterday: expected a time"),
        (
            &["--kind", "conection"],
            "no such kind: did you mean connection?; there are: all, calls, exchange, connection",
        ),
        (&["--after", "x"], "expected the cursor that a query printed"),
        (&["--path", ""], "a value is required for '--path <PATH>'"),
        (&["--path", "dxx"], "no records match; path of the newest 1 records: dx"),
        (&["--operation", "converse", "--region", "x"], "no records match; region of the newest 1 records: none"),
        (&["--by", "day", "--columns", "time"], "cannot be used with"),
    ] {
        let (stdout, stderr) = run(&file, arguments);
        assert!(stdout.is_empty() && stderr.contains(wanted), "{arguments:?}: {stderr}");
    }
}

#[test]
fn csv_has_every_field_and_local_times() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    let mut formula = record("r", "2026-07-01T22:30:00.000Z");
    formula.principal = Some("=HYPERLINK(\"http://x\",1)".to_owned());
    formula.expires_at = 9_999_999_999;
    store.write(&Batch { records: vec![formula], ..Batch::default() }).unwrap();
    let (csv, _) = run(&file, &["--format", "csv", "--time-zone", "Europe/Berlin"]);
    let names: Vec<_> = AuditRecord::FIELDS.iter().map(|field| field.name).collect();
    let (head, rest) = csv.split_once("\r\n").unwrap();
    assert_eq!(head, names.join(","));
    let wanted = "r,2026-07-02T00:30:00.000+02:00,\"'=HYPERLINK(\"\"http://x\"\",1)\",,Converse,";
    assert!(rest.starts_with(wanted) && rest.ends_with("\r\n"), "{rest}");
    let day =
        ["--time-zone", "Europe/Berlin", "--since", "2026-07-02", "--until", "2026-07-03", "--columns", "time,status"];
    assert_eq!(run(&file, &day).0, "TIME                           STATUS\n2026-07-02T00:30:00.000+02:00     200\n");
    assert!(run(&file, &["--since", "2026-07-02"]).0.is_empty());
    let (csv, stderr) = run(&file, &["--format", "csv", "--status", "5xx", "--columns", "time"]);
    assert_eq!((csv.as_str(), stderr.as_str()), ("time\r\n", "no records match\n"));
}

/// What reads and changes leave in the table `reads`.
#[test]
fn each_command_leaves_a_line_of_its_reader() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let path = file.to_str().unwrap();
    let store = SqliteStore::open(&file).unwrap();
    store
        .write(&Batch { records: (0..9).map(|n| record(&format!("r{n}"), &ago(n))).collect(), ..Batch::default() })
        .unwrap();
    for arguments in [
        &["query", "--principal", "chat\u{1b}", "--sqlite", path][..],
        &["query", "--json", "--limit", "4", "--sqlite", path],
        &["query", "--by", "path", "--sqlite", path],
        &["rejected", "list", "--sqlite", path],
        &["rejected", "retry", "--sqlite", path],
        &["purge", "--sqlite", path],
        &["import", "/dev/null", "--sqlite", path],
        // These read nothing.
        &["query", "--by", "pth", "--sqlite", path],
    ] {
        program(arguments).output().unwrap();
    }
    let db = rusqlite::Connection::open(&file).unwrap();
    let read = |row: &rusqlite::Row<'_>| Ok((row.get("command")?, row.get("arguments")?, row.get("rows")?));
    let mut statement = db.prepare("SELECT * FROM reads ORDER BY rowid").unwrap();
    let lines: Vec<(String, String, i64)> = statement.query_map([], read).unwrap().collect::<Result<_, _>>().unwrap();
    let short: Vec<_> = lines.iter().map(|(command, _, rows)| (command.as_str(), *rows)).collect();
    let commands = [("rejected list", 0), ("rejected retry", 0), ("purge", 0), ("import", 0)];
    assert_eq!(short[..3], [("query", 0), ("query", 4), ("query", 1)]);
    assert_eq!(short[3..], commands);
    assert_eq!(lines[0].1, format!("query --principal chat\\u{{1b}} --sqlite {path}"));
    let (at, uid): (i64, u32) =
        db.query_row("SELECT at, uid FROM reads", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert!((at - OffsetDateTime::now_utc().unix_timestamp()).abs() < 60);
    assert_eq!(uid, std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()));
    // A copy that nobody may write is read, too.
    drop(statement);
    drop((db, store));
    let copy = folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(&file, copy.join("a.db")).unwrap();
    let other = rusqlite::Connection::open(copy.join("a.db")).unwrap();
    other.execute_batch("DROP TABLE reads; CREATE VIEW reads AS SELECT 1 AS at").unwrap();
    let (stdout, stderr) = run(&copy.join("a.db"), &["--json"]);
    assert!(stdout.lines().count() == 9 && stderr.contains("has no whole line of this command"), "{stderr}");
}

#[test]
fn sums_by_any_column() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let store = SqliteStore::open(&file).unwrap();
    let mut records: Vec<_> = (0..30).map(|n| record(&format!("r{n}"), "2026-07-01T22:30:00.000Z")).collect();
    for (n, record) in records.iter_mut().enumerate() {
        record.expires_at = 9_999_999_999;
        record.path = (n % 3 > 0).then(|| "vpn".to_owned());
        record.latency_ms = n as u64;
    }
    records[1].status = 503;
    store.write(&Batch { records, ..Batch::default() }).unwrap();
    let (csv, _) = run(&file, &["--by", "day,path", "--format", "csv", "--time-zone", "Europe/Berlin"]);
    assert_eq!(
        csv,
        "day,path,records,errors,tokens_in,tokens_out,tokens_cache_read,tokens_cache_write,tokens_cache_write_5m,tokens_cache_write_1h,tokens_in_estimated,\
         tokens_out_estimated,bytes_in,bytes_out,latency_p50_ms,latency_max_ms\r\n\
         2026-07-02,,10,0,70,90,0,0,0,0,0,0,0,0,12,27\r\n2026-07-02,vpn,20,1,140,180,0,0,0,0,0,0,0,0,14,29\r\n"
    );
    let (json, stderr) = run(&file, &["--by", "status", "--json", "--limit", "1"]);
    let row: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&row["status"], &row["records"]), (&200.into(), &29.into()));
    assert!(stderr.contains("1 of 2 groups printed"), "{stderr}");
    let since = ["--by", "status", "--since", "2026-07-01", "--status", "503", "--json"];
    assert!(run(&file, &since).0.starts_with(r#"{"status":503,"records":1,"errors":1,"#));
    assert!(run(&file, &["--by", "day", "--until", "2026-07-01"]).1.contains("no records match"));
}
