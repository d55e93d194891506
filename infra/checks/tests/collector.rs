//! What the machines report of the collector: the lines that the log's alarm must match, and the figures for CloudWatch.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use infra_checks::template::Template;
use infra_checks::templates;
use lab::tools::{required, root};

/// A filter pattern for text: `?"this" ?"or this"`, the only form that this test knows. CloudWatch does not combine `?` with
/// other terms. <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html>: terms match in any
/// place, by case; those with characters that are not alphanumeric are in quotation marks.
fn optional_terms(pattern: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let mut rest = pattern.trim();
    while !rest.is_empty() {
        let term =
            rest.strip_prefix("?\"").unwrap_or_else(|| panic!("not an optional term in quotation marks: {rest}"));
        let (term, after) = term.split_once('"').unwrap();
        assert!(!term.is_empty() && !term.contains('\\') && (after.is_empty() || after.starts_with(' ')), "{pattern}");
        terms.push(term.to_owned());
        rest = after.trim_start();
    }
    assert!(pattern.len() <= 1024, "a filter pattern has at most 1,024 characters");
    terms
}

/// The terms of the filter that counts the collector's lines.
fn filter() -> Vec<String> {
    let all = Template::all(&templates()).unwrap();
    let alarms = all.iter().find(|template| template.file == "govcloud/alarms.yaml").unwrap();
    let filter = alarms.of_type("AWS::Logs::MetricFilter").find(|filter| filter.id == "CollectorFilter").unwrap();
    optional_terms(filter.property("/FilterPattern").as_str().unwrap())
}

/// The lines that CloudWatch would count; the agent sends each as an event.
fn counted<'a>(terms: &[String], log: &'a str) -> Vec<&'a str> {
    log.lines().filter(|line| terms.iter().any(|term| line.contains(term.as_str()))).collect()
}

/// `audit-collector run` with what a machine's unit gives it; stdout and stderr are one log.
fn run(arguments: &[&str]) -> Command {
    let mut command = Command::new(required("AUDIT_COLLECTOR_BIN").unwrap());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    // No machine of EC2 answers here.
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", "/nonexistent");
    command.arg("run").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A program that ends by itself with an error: what it printed.
fn dying(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?}");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A program that runs for some seconds, and then what `change` does to it; then SIGTERM.
fn running(mut command: Command, change: impl FnOnce()) -> String {
    let mut child = command.spawn().unwrap();
    let mut log = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut log).unwrap();
    change();
    std::thread::sleep(Duration::from_secs(2));
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    stdout.read_to_string(&mut log).unwrap();
    log + &String::from_utf8_lossy(&child.wait_with_output().unwrap().stderr)
}

/// Dies, or starts again and again: each way leaves a line that the alarm counts.
#[test]
fn the_filter_counts_each_death() {
    let terms = filter();
    let folder = tempfile();
    let file = |name: &str| folder.0.join(name);
    let text = |path: PathBuf| path.display().to_string();
    let (log, db) = (text(file("access.jsonl")), text(file("audit.db")));
    std::fs::write(&log, "").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    std::fs::write(file("damaged.db"), "not a database, but as long as a page of one".repeat(200)).unwrap();
    let damaged = text(file("damaged.db"));
    std::fs::write(file("other.jsonl.checkpoint.json"), "{").unwrap();
    let (other, nowhere) = (text(file("other.jsonl")), text(file("no/folder/audit.db")));
    let dynamodb = |log: &str, region: bool| {
        let mut command = run(&["--file", log, "--dynamodb", "table", "--endpoint-url", "http://127.0.0.1:9"]);
        command.env("AWS_ACCESS_KEY_ID", "local").env("AWS_SECRET_ACCESS_KEY", "local");
        if region {
            command.env("AWS_REGION", "us-gov-west-1");
        }
        command
    };
    let deaths = [
        ("an argument that it does not know", dying(run(&["--fil", &log, "--sqlite", &db]))),
        ("no source", dying(run(&["--sqlite", &db]))),
        ("an address that is none", dying(run(&["--file", &log, "--sqlite", &db, "--health", "x"]))),
        ("a port that is taken", dying(run(&["--file", &log, "--sqlite", &db, "--health", &taken]))),
        ("the feed's port is taken", dying(run(&["--als", &taken, "--sqlite", &db]))),
        ("a damaged database", dying(run(&["--file", &log, "--sqlite", &damaged]))),
        ("a folder that does not exist", dying(run(&["--file", &log, "--sqlite", &nowhere]))),
        ("no region", dying(dynamodb(&log, false))),
        ("a damaged checkpoint", dying(dynamodb(&other, true))),
        ("a table that does not answer", running(dynamodb(&log, true), || {})),
        (
            "a database that is deleted",
            running(run(&["--file", &log, "--sqlite", &db]), || std::fs::remove_file(&db).unwrap()),
        ),
        (
            "a line that it cannot read",
            running(run(&["--file", &log, "--sqlite", &db]), || std::fs::write(&log, "garbage\n").unwrap()),
        ),
        // What Rust prints, https://doc.rust-lang.org/std/panic/index.html: no input is known that leads to these.
        ("a panic", "thread 'main' (7) panicked at collector/src/main.rs:1:1:\nindex out of bounds\n".to_owned()),
        ("no memory", "memory allocation of 65536 bytes failed\n".to_owned()),
        ("no stack", "\nthread 'main' has overflowed its stack\nfatal runtime error: stack overflow\n".to_owned()),
    ];
    for (how, said) in &deaths {
        assert!(!counted(&terms, said).is_empty(), "{how}: no line is counted of:\n{said}");
    }

    // And a run without a fault leaves none.
    let (log, db) = (text(file("good.jsonl")), text(file("good.db")));
    let said = running(run(&["--file", &log, "--sqlite", &db, "--health", "127.0.0.1:0"]), || {
        let line = r#"{"start_time":"TIME","status":200,"stream_id":"one"}"#;
        let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
        std::fs::write(&log, line.replace("TIME", &now) + "\n").unwrap();
    });
    assert!(said.contains("stored 1 "), "{said}");
    assert_eq!(counted(&terms, &said), Vec::<&str>::new(), "{said}");
}

#[test]
fn the_filter_pattern_is_read_as_aws_reads_it() {
    assert_eq!(optional_terms(r#"?"a b" ?"c:""#), ["a b", "c:"]);
    for mixed in [r#""a" ?"b""#, r#"?"a" -"b""#, "?a", "%a%"] {
        assert!(std::panic::catch_unwind(|| optional_terms(mixed)).is_err(), "{mixed}");
    }
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempfile() -> Folder {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = lab::tools::target().join("tmp").join(format!("collector-{number}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    Folder(path)
}

/// The last line of `metrics.py`.
fn metrics(folder: &Path, collector: &str) -> serde_json::Value {
    let mut command = Command::new(root().join("infra/instance/metrics.py"));
    command.env("BEDROCK_GATEWAY_ENVIRONMENT", "prod").env("BEDROCK_GATEWAY_ADMIN", "http://127.0.0.1:9");
    command.env("BEDROCK_GATEWAY_COLLECTOR", format!("http://{collector}"));
    let output = command.env("BEDROCK_GATEWAY_LOG", folder.join("access.jsonl")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    serde_json::from_str(lines.lines().last().unwrap()).unwrap()
}

/// By the real program's page.
#[test]
fn the_machine_sends_the_collectors_figures() {
    let folder = tempfile();
    let (log, db) = (folder.0.join("access.jsonl"), folder.0.join("audit.db"));
    std::fs::write(&log, "garbage\n".repeat(3)).unwrap();
    let start = || {
        let arguments = ["--file", log.to_str().unwrap(), "--sqlite", db.to_str().unwrap(), "--health", "127.0.0.1:0"];
        let mut child = run(&arguments).stderr(Stdio::null()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        let page = ready.split_whitespace().find_map(|word| word.strip_prefix("health=")).unwrap().to_owned();
        std::thread::sleep(Duration::from_millis(1500));
        (child, page)
    };
    let values = |line: &serde_json::Value, names: &[&str]| -> Vec<f64> {
        names.iter().map(|name| line[*name].as_f64().unwrap_or_else(|| panic!("{name}: {line}"))).collect()
    };
    let (mut child, page) = start();
    let names = ["CollectorUp", "CollectorRestarts", "EntriesRejected", "AuditGaps", "CollectorLagSeconds"];
    assert_eq!(values(&metrics(&folder.0, &page), &names), [1.0, 0.0, 3.0, 0.0, 0.0]);
    // Counters are since the last line; what the log has lost since is a gap.
    std::fs::write(&log, "bad\n").unwrap();
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(values(&metrics(&folder.0, &page), &names), [1.0, 0.0, 1.0, 1.0, 0.0]);
    child.kill().unwrap();
    child.wait().unwrap();
    let line = metrics(&folder.0, &page);
    assert!(line["CollectorUp"] == 0 && line.get("EntriesRejected").is_none(), "{line}");
    let (mut child, page) = start();
    assert_eq!(values(&metrics(&folder.0, &page), &names), [1.0, 1.0, 0.0, 0.0, 0.0]);
    let line = metrics(&folder.0, &page);
    assert_eq!(values(&line, &names), [1.0, 0.0, 0.0, 0.0, 0.0]);
    let units = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap();
    assert!(units.iter().any(|one| one["Name"] == "CollectorLagSeconds" && one["Unit"] == "Seconds"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}
