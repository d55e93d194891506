//! What of a log is not stored yet, as its folder and the last checkpoint show it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::folder::{self, Entry};
use crate::checkpoint::{Checkpoint, PartState};
use crate::decode;

/// Bytes of the oldest line that are read for its time. Envoy's lines are a few KB.
const LINE: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Of all parts; of a compressed part its own size.
    pub bytes: u64,
    /// Parts that have such bytes.
    pub parts: usize,
    /// When the exchange of the oldest whole line ended; the part's last write if the line has no time.
    pub oldest: Option<SystemTime>,
}

impl Backlog {
    /// The age of the oldest line; zero without one, and with a clock that went back.
    pub fn lag(&self) -> Duration {
        self.oldest.and_then(|oldest| oldest.elapsed().ok()).unwrap_or_default()
    }
}

/// Compares the parts in the folder with the checkpoint.
pub fn backlog(log: &Path, checkpoint: Option<&Checkpoint>) -> io::Result<Backlog> {
    let mut found = Backlog::default();
    let entries = folder::list(log)?.entries;
    for entry in &entries {
        let from = read_up_to(entry, checkpoint);
        let bytes = entry.len.saturating_sub(from);
        // Compressed from one that is still there, whose lines count already.
        let twice = || entries.iter().any(|other| other.name == entry.name.with_extension(""));
        if bytes == 0 || (entry.packing.is_some() && twice()) {
            continue;
        }
        found.bytes += bytes;
        found.parts += 1;
        if found.oldest.is_none() {
            found.oldest = oldest(entry, from);
        }
    }
    Ok(found)
}

fn read_up_to(entry: &Entry, checkpoint: Option<&Checkpoint>) -> u64 {
    let Some(checkpoint) = checkpoint else { return 0 };
    let same = |part: &&PartState| part.ino == entry.ino && (part.dev == 0 || part.dev == entry.dev);
    match checkpoint.parts.iter().find(same) {
        Some(part) if part.done && part.len == entry.len => entry.len,
        // Compressed: the mark is of the unpacked bytes.
        Some(_) if entry.packing.is_some() => 0,
        // It was truncated.
        Some(part) if part.mark.at > entry.len => 0,
        Some(part) => part.mark.at,
        None if checkpoint.parts.is_empty() && checkpoint.inode == entry.ino => checkpoint.offset.min(entry.len),
        None => 0,
    }
}

/// None without a whole line.
fn oldest(entry: &Entry, from: u64) -> Option<SystemTime> {
    let last_write = || UNIX_EPOCH.checked_add(Duration::from_nanos(u64::try_from(entry.mtime).ok()?));
    if entry.packing.is_some() {
        return last_write();
    }
    let mut buffer = vec![0; LINE];
    let count = File::open(&entry.name).and_then(|file| file.read_at(&mut buffer, from)).ok()?;
    let read = buffer.get(..count)?;
    let Some(end) = read.iter().position(|&byte| byte == b'\n') else {
        return if count == LINE { last_write() } else { None };
    };
    decode::line::end(read.get(..end)?).or_else(last_write)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use crate::source::tail::Tail;

    fn line(start: &str, ms: u32) -> String {
        format!("{{\"duration_ms\":{ms},\"start_time\":\"{start}\"}}\n")
    }

    #[test]
    fn counts_every_part_and_the_oldest_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        assert_eq!(backlog(&log, None).unwrap(), Backlog::default());
        let (old, new) = (line("2026-01-02T03:04:05Z", 1_500), line("2026-01-02T03:05:00Z", 0));
        std::fs::write(folder.path().join("access.log.1"), &old).unwrap();
        std::fs::write(&log, new.repeat(2)).unwrap();
        let found = backlog(&log, None).unwrap();
        assert_eq!((found.bytes, found.parts), ((old.len() + 2 * new.len()) as u64, 2));
        // The end of the exchange, 2026-01-02T03:04:06.5Z.
        assert_eq!(found.oldest, UNIX_EPOCH.checked_add(Duration::from_millis(1_767_323_046_500)));
        assert!(found.lag() > Duration::from_secs(3600));

        let mut tail = Tail::new(&log, None);
        assert_eq!(tail.poll(2).unwrap().lines.len(), 2);
        let found = backlog(&log, tail.checkpoint().as_ref()).unwrap();
        assert_eq!((found.bytes, found.parts), (new.len() as u64, 1));
        assert_eq!(tail.poll(2).unwrap().lines.len(), 1);
        let found = backlog(&log, tail.checkpoint().as_ref()).unwrap();
        assert_eq!(found, Backlog::default());
        assert_eq!(found.lag(), Duration::ZERO);
    }

    #[test]
    fn an_unfinished_line_has_no_age() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        std::fs::write(&log, "{\"start_time\":").unwrap();
        let found = backlog(&log, None).unwrap();
        assert_eq!((found.bytes, found.oldest), (14, None));
        std::fs::write(&log, "garbage\n").unwrap();
        assert!(backlog(&log, None).unwrap().lag() < Duration::from_secs(60));
    }
}
