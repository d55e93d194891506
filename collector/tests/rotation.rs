//! Each way in which a log is rotated: every line is stored, once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use common::line_like_others as line;
use common::program::{PROGRAM, program, start, terminate};
use tempfile::TempDir;

struct Log {
    folder: TempDir,
    path: PathBuf,
    written: u32,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("access.log"), folder, written: 0 }
    }

    fn part(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("access.log{suffix}"))
    }

    /// Writes as Envoy does: whole lines, at the end.
    fn write(&mut self, mut file: &File, lines: u32) {
        let text: String = (0..lines).map(|n| line(&format!("r{:06}", self.written + n))).collect();
        self.written += lines;
        file.write_all(text.as_bytes()).unwrap();
    }

    fn append(&mut self, suffix: &str, lines: u32) -> File {
        let file = OpenOptions::new().create(true).append(true).open(self.part(suffix)).unwrap();
        self.write(&file, lines);
        file
    }

    fn db(&self) -> PathBuf {
        self.folder.path().join("audit.db")
    }

    fn run(&self) -> Child {
        start(&mut self.command()).0
    }

    fn command(&self) -> Command {
        program(&["run", "--file", self.path.to_str().unwrap(), "--sqlite", self.db().to_str().unwrap()])
    }

    fn stored(&self) -> BTreeSet<String> {
        let read = || -> rusqlite::Result<_> {
            let db = rusqlite::Connection::open(self.db())?;
            let mut ids = db.prepare("SELECT request_id FROM records WHERE kind IS NULL")?;
            ids.query_map([], |row| row.get(0))?.collect()
        };
        read().unwrap_or_default()
    }

    /// Waits until every line is stored.
    async fn assert_stored(&self) {
        let start = Instant::now();
        while (self.stored().len() as u32) < self.written && start.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let stored = self.stored();
        let lost: Vec<_> = (0..self.written).map(|n| format!("r{n:06}")).filter(|id| !stored.contains(id)).collect();
        assert!(lost.is_empty(), "lost {} of {}: {:?} …", lost.len(), self.written, &lost[..lost.len().min(5)]);
        assert_eq!(stored.len() as u32, self.written);
    }

    async fn read_and_stop(&self) {
        let child = self.run();
        self.assert_stored().await;
        terminate(child);
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.part(from), self.part(to)).unwrap();
    }

    fn gzip(&self, suffix: &str) {
        let (from, to) = (self.part(suffix), self.part(&format!("{suffix}.gz")));
        let mut packed = flate2::write::GzEncoder::new(File::create(to).unwrap(), flate2::Compression::fast());
        packed.write_all(&fs::read(&from).unwrap()).unwrap();
        packed.finish().unwrap();
        fs::remove_file(from).unwrap();
    }

    fn zstd(&self, suffix: &str) {
        let (from, to) = (self.part(suffix), self.part(&format!("{suffix}.zst")));
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        fs::write(to, ruzstd::encoding::compress_to_vec(File::open(&from).unwrap(), level)).unwrap();
        fs::remove_file(from).unwrap();
    }

    /// As logrotate's `copytruncate`.
    fn copy_and_truncate(&self, to: &str) {
        fs::copy(&self.path, self.part(to)).unwrap();
        OpenOptions::new().write(true).open(&self.path).unwrap().set_len(0).unwrap();
    }

    /// Keeps the inode.
    fn overwrite(&mut self, lines: u32) {
        self.write(&File::create(&self.path).unwrap(), lines);
    }

    fn age(&self, suffix: &str, seconds: u64) {
        let file = OpenOptions::new().append(true).open(self.part(suffix)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }
}

#[tokio::test]
async fn reads_other_parts_if_its_own_is_gone() {
    let mut log = Log::new();
    log.append("", 10);
    log.read_and_stop().await;
    log.rename("", ".3");
    for part in [".2", ".1", ""] {
        log.append(part, 10);
    }
    fs::remove_file(log.part(".3")).unwrap();
    let child = log.run();
    log.assert_stored().await;
    let stderr = terminate(child);
    assert!(stderr.contains("audit-collector warn") && stderr.contains("is missing: 0 bytes after offset"), "{stderr}");
    assert!(stderr.contains("gaps 1"), "{stderr}");
}

#[tokio::test]
async fn a_first_start_reads_every_older_part() {
    let mut log = Log::new();
    for part in [".4", ".3", "-20261126", "-20261127", ".2", ""] {
        log.append(part, 600);
    }
    log.gzip(".4");
    log.zstd(".3");
    fs::write(log.part(".9.bz2"), "BZh9").unwrap();
    let child = log.run();
    log.assert_stored().await;
    let stderr = terminate(child);
    assert!(stderr.contains("access.log.9.bz2 is not read") && stderr.contains("gaps 1"), "{stderr}");
    assert!(stderr.contains("(0 repeated)"), "{stderr}");
    // Nothing is read again.
    let child = log.run();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let stderr = terminate(child);
    assert!(stderr.contains("stored 0 (0 repeated), rejected 0"), "{stderr}");
}

/// As logrotate's `extension` names them, with and without `dateext`.
#[tokio::test]
async fn parts_named_before_the_extension_are_read() {
    let mut log = Log::new();
    log.path = log.folder.path().join("access.jsonl");
    let part = |log: &Log, name: &str| log.folder.path().join(name);
    let names =
        ["access-20261126.jsonl", "access-20261127-1200.jsonl", "access.2.jsonl", "access.1.jsonl", "access.jsonl"];
    for name in names {
        let file = File::create(part(&log, name)).unwrap();
        log.write(&file, 10);
    }
    let packed = ruzstd::encoding::CompressionLevel::Fastest;
    let packed = ruzstd::encoding::compress_to_vec(File::open(part(&log, names[2])).unwrap(), packed);
    fs::write(part(&log, "access.2.jsonl.zst"), packed).unwrap();
    fs::remove_file(part(&log, names[2])).unwrap();
    // Other logs.
    for name in ["access-admin.jsonl", "access.error.jsonl", "access1.jsonl"] {
        fs::write(part(&log, name), line("other")).unwrap();
    }
    let child = log.run();
    log.assert_stored().await;
    fs::rename(&log.path, part(&log, "access-20261128.jsonl")).unwrap();
    log.write(&File::create(&log.path).unwrap(), 10);
    log.assert_stored().await;
    let stderr = terminate(child);
    assert!(stderr.contains("(0 repeated), rejected 0") && stderr.contains("gaps 0"), "{stderr}");
}

#[tokio::test]
async fn modification_times_may_be_out_of_order() {
    let mut log = Log::new();
    log.append("", 10);
    log.read_and_stop().await;
    log.rename("", ".3");
    log.append(".3", 5);
    for (part, age) in [(".2", 9000), (".1", 7000), ("", 8000)] {
        log.append(part, 10);
        log.age(part, age);
    }
    log.read_and_stop().await;
}

#[tokio::test]
async fn reads_an_old_part_that_grows_again() {
    let mut log = Log::new();
    let old = log.append("", 10);
    let child = log.run();
    log.assert_stored().await;
    log.rename("", ".1");
    log.append("", 10);
    log.assert_stored().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    log.append("", 10);
    // Envoy was told late, or not at all.
    log.write(&old, 50);
    log.assert_stored().await;
    // Deleted, it is open in both programs.
    fs::remove_file(log.part(".1")).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    log.write(&old, 50);
    log.assert_stored().await;
    let stderr = terminate(child);
    assert!(stderr.contains("(0 repeated)") && stderr.contains("gaps 0"), "{stderr}");
}

#[tokio::test]
async fn copytruncate_with_equal_beginnings() {
    for running in [true, false] {
        let mut log = Log::new();
        log.append("", 100);
        let child = log.run();
        log.assert_stored().await;
        let child = if running {
            child
        } else {
            terminate(child);
            log.append("", 20);
            log.copy_and_truncate(".1");
            log.append("", 200);
            let child = log.run();
            log.assert_stored().await;
            child
        };
        log.append("", 20);
        log.copy_and_truncate(".2");
        log.append("", 150);
        log.assert_stored().await;
        let stderr = terminate(child);
        assert!(stderr.contains("repeats a part") && stderr.contains("gaps 0"), "running {running}: {stderr}");
    }
}

#[tokio::test]
async fn a_reused_inode_with_an_equal_beginning() {
    for running in [true, false] {
        let mut log = Log::new();
        log.append("", 100);
        let child = log.run();
        log.assert_stored().await;
        if !running {
            terminate(child);
            log.overwrite(150);
            let child = log.run();
            log.assert_stored().await;
            let stderr = terminate(child);
            assert!(stderr.contains("truncated or overwritten") && stderr.contains("gaps 1"), "{stderr}");
            continue;
        }
        log.overwrite(150);
        log.assert_stored().await;
        terminate(child);
    }
}

#[tokio::test]
async fn compressed_parts_are_continued() {
    let mut log = Log::new();
    log.append("", 100);
    log.read_and_stop().await;
    log.append("", 40);
    log.rename("", ".1");
    log.append("", 30);
    log.gzip(".1");
    let child = log.run();
    log.assert_stored().await;
    // While it runs, too: twice renamed, then compressed.
    log.rename(".1.gz", ".3.gz");
    log.rename("", ".1");
    log.append("", 30);
    log.assert_stored().await;
    log.zstd(".1");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let stderr = terminate(child);
    assert!(stderr.contains("stored 100 (0 repeated)") && stderr.contains("gaps 0"), "{stderr}");
    let child = log.run();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let stderr = terminate(child);
    assert!(stderr.contains("stored 0 (0 repeated)") && stderr.contains("gaps 0"), "{stderr}");
}

/// More than may be open at a time.
#[tokio::test]
async fn reads_hundreds_of_parts() {
    let mut log = Log::new();
    for part in 0..400 {
        log.append(&format!(".{part}"), 2);
    }
    log.append("", 1);
    let (log_name, db) = (log.path.display(), log.db());
    let run = format!("ulimit -n 200; exec '{}' run --file '{log_name}' --sqlite '{}'", PROGRAM, db.display());
    let mut command = Command::new("sh");
    let child = start(command.args(["-c", &run]).stdout(Stdio::piped()).stderr(Stdio::piped())).0;
    log.assert_stored().await;
    // A part that was closed grows.
    log.append(".7", 5);
    log.append(".399", 5);
    log.assert_stored().await;
    let stderr = terminate(child);
    assert!(stderr.contains("(0 repeated)") && stderr.contains("gaps 0"), "{stderr}");
    let child = log.run();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let stderr = terminate(child);
    assert!(stderr.contains("stored 0 (0 repeated)") && stderr.contains("gaps 0"), "{stderr}");
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % limit
    }
}

/// A writer that rotates in each way, and a collector that is killed, both at random. The writer writes nothing between a
/// copy and its truncation: such lines are lost before any reader sees them.
#[tokio::test]
async fn random_rotations_and_kills_lose_nothing() {
    let seed = std::env::var("ROTATION_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed =
        seed.unwrap_or_else(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64);
    println!("ROTATION_SEED={seed}");
    let mut random = Random(seed | 1);
    let mut log = Log::new();
    let mut child = Some(log.run());
    let mut file = log.append("", 1);
    let mut plain: Vec<String> = Vec::new();
    let mut old: Option<File> = None;
    for step in 0..150 {
        let lines = random.below(30);
        match &old {
            Some(old) if random.below(2) == 0 => log.write(&old.try_clone().unwrap(), lines),
            _ => log.write(&file.try_clone().unwrap(), lines),
        }
        let name = format!(".{step}");
        match random.below(12) {
            0 => {
                // Envoy goes on with the renamed file for a while.
                log.rename("", &name);
                let new = log.append("", random.below(3));
                old = Some(std::mem::replace(&mut file, new));
                plain.push(name);
            }
            1 => {
                log.copy_and_truncate(&name);
                plain.push(name);
            }
            2 if plain.len() > 1 && old.is_none() => {
                let part = plain.remove(0);
                if random.below(2) == 0 {
                    log.gzip(&part);
                } else {
                    log.zstd(&part);
                }
            }
            3 if !plain.is_empty() => {
                let part = plain.remove(0);
                log.rename(&part, &format!("{part}-moved"));
                plain.push(format!("{part}-moved"));
            }
            4 | 5 => {
                old = None;
                if let Some(mut child) = child.take() {
                    child.kill().unwrap();
                    child.wait().unwrap();
                }
            }
            _ if child.is_none() => child = Some(log.run()),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(random.below(120).into())).await;
    }
    let child = child.unwrap_or_else(|| log.run());
    log.assert_stored().await;
    let stderr = terminate(child);
    assert!(stderr.contains("rejected 0"), "{stderr}");
}
