//! Follows a log that grows, is truncated, is renamed or has bad lines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_collector::report::Notice;
use audit_collector::source::log_file::{BadLine, Line};
use audit_collector::source::tail::{Polled, Tail, Times};
use tempfile::TempDir;

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn log() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    (folder, path)
}

/// As the program follows a log, with shorter times.
fn follow(path: &Path) -> Tail {
    Tail::with_times(path, None, TIMES)
}

const TIMES: Times =
    Times { scan: Duration::ZERO, settle: Duration::from_millis(100), quiet: Duration::from_millis(300) };

fn texts(polled: &Polled) -> Vec<String> {
    polled.lines.iter().map(|line| String::from_utf8(line.content.as_ref().unwrap().clone()).unwrap()).collect()
}

/// Polls until there are lines or gaps, for at most five seconds.
fn next(tail: &mut Tail) -> Polled {
    let start = Instant::now();
    loop {
        let mut polled = tail.poll(25).unwrap();
        polled.notices.retain(Notice::is_gap);
        if !polled.lines.is_empty() || !polled.notices.is_empty() {
            return polled;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "nothing to read in five seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn waits_for_a_file_that_does_not_exist_yet() {
    let (_folder, path) = log();
    let mut tail = follow(&path);
    assert!(tail.poll(25).unwrap().lines.is_empty());
    assert_eq!(tail.checkpoint(), None);
    append(&path, "one\n");
    assert_eq!(texts(&next(&mut tail)), ["one"]);
}

#[test]
fn an_unfinished_line_waits_for_its_newline() {
    let (_folder, path) = log();
    let mut tail = follow(&path);
    append(&path, "one\ntw");
    assert_eq!(texts(&next(&mut tail)), ["one"]);
    assert!(tail.poll(25).unwrap().lines.is_empty());
    assert_eq!(tail.checkpoint().unwrap().offset, 4);
    append(&path, "o\n\n  \nthree\n");
    assert_eq!(texts(&next(&mut tail)), ["two", "three"], "blank lines are passed over");
}

#[test]
fn returns_no_more_than_max_lines() {
    let (_folder, path) = log();
    append(&path, &(0..60).map(|n| format!("{n}\n")).collect::<String>());
    let mut tail = follow(&path);
    let counts: Vec<_> = (0..4).map(|_| tail.poll(25).unwrap().lines.len()).collect();
    assert_eq!(counts, [25, 25, 10, 0]);
}

#[test]
fn a_restart_continues_at_the_checkpoint() {
    let (_folder, path) = log();
    append(&path, "one\ntwo\nthree\n");
    let mut tail = follow(&path);
    assert_eq!(texts(&tail.poll(2).unwrap()), ["one", "two"]);
    let mut again = Tail::new(&path, tail.checkpoint());
    append(&path, "four\n");
    assert_eq!(texts(&next(&mut again)), ["three", "four"]);
}

#[test]
fn reports_a_checkpoint_whose_file_is_missing() {
    let (_folder, path) = log();
    append(&path, "one\n");
    let mut tail = follow(&path);
    tail.poll(25).unwrap();
    let checkpoint = tail.checkpoint().unwrap();
    fs::remove_file(&path).unwrap();
    // This file may reuse the inode.
    let _other = File::create(path.with_extension("other")).unwrap();
    append(&path, "two\n");
    let polled = next(&mut Tail::new(&path, Some(checkpoint)));
    assert_eq!(texts(&polled), ["two"]);
    let [Notice::Gone { offset: 4, unread: 0, .. } | Notice::Truncated { offset: 4 }] = polled.notices[..] else {
        panic!("{:?}", polled.notices)
    };
}

#[test]
fn reports_truncation_also_after_a_restart() {
    let (_folder, path) = log();
    append(&path, "one\ntwo\n");
    let mut tail = follow(&path);
    tail.poll(25).unwrap();
    let checkpoint = tail.checkpoint();
    fs::write(&path, "new\n").unwrap();
    for tail in [&mut tail, &mut Tail::new(&path, checkpoint)] {
        let polled = next(tail);
        assert_eq!(polled.notices, [Notice::Truncated { offset: 8 }]);
        assert_eq!(texts(&polled), ["new"]);
    }
}

#[test]
fn reports_truncation_of_a_file_that_grew_again() {
    let (_folder, path) = log();
    append(&path, "one\ntwo\n");
    let mut tail = follow(&path);
    tail.poll(25).unwrap();
    fs::write(&path, "another beginning\n").unwrap();
    let polled = next(&mut tail);
    assert_eq!(polled.notices, [Notice::Truncated { offset: 8 }]);
    assert_eq!(texts(&polled), ["another beginning"]);
}

#[test]
fn a_line_too_long_is_reported_and_skipped() {
    let (_folder, path) = log();
    append(&path, &format!("one\n{}\ntwo\n", "x".repeat(3_000_000)));
    let mut tail = follow(&path);
    let polled = next(&mut tail);
    let [first, long, last] = &polled.lines[..] else { panic!("{} lines", polled.lines.len()) };
    assert_eq!(first.content, Ok(b"one".to_vec()));
    assert_eq!((long.offset, &long.content), (4, &Err(BadLine::TooLong)));
    assert_eq!((last.offset, &last.content), (3_000_005, &Ok(b"two".to_vec())));
}

#[test]
fn reports_a_rotated_file_that_ends_in_a_line() {
    let (folder, path) = log();
    append(&path, "one\ntw");
    let mut tail = follow(&path);
    next(&mut tail);
    let old = folder.path().join("access.log.1");
    fs::rename(&path, &old).unwrap();
    append(&path, "three\n");
    assert_eq!(texts(&next(&mut tail)), ["three"]);
    // Its rest may come until it was quiet for the stated time.
    append(&old, "o\nfo");
    assert_eq!(texts(&next(&mut tail)), ["two"]);
    let broken = Line { file: Arc::new(path), offset: 8, content: Err(BadLine::Unfinished) };
    assert_eq!(next(&mut tail).lines, [broken]);
}
