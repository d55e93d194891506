//! How far a log was read.

use serde::{Deserialize, Serialize};

use crate::hash::fnv1a;

/// Bytes at a part's start that identify it.
pub const HEAD: usize = 4096;
/// Bytes before a mark that identify it: the last line is among them, and its id and time are in no other part.
pub const TAIL: usize = 8192;

/// Stored as JSON with the records. `infra/instance` reads `inode` and `offset` by these names, so no other key has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The oldest part with unread lines; if all are read, the newest part.
    pub inode: u64,
    /// Where its first unread line starts, in bytes.
    pub offset: u64,
    /// FNV-1a of the part's first `head_bytes` bytes.
    pub head: u64,
    pub head_bytes: u64,
    /// Each part that was read, this one included. Older releases wrote none.
    #[serde(default)]
    pub parts: Vec<PartState>,
}

/// What was read of one part of a log: the live file, or a rotated one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartState {
    /// Device and inode; 0 if the file is gone or was overwritten. The state then tells a copy of it by its bytes.
    pub dev: u64,
    pub ino: u64,
    #[serde(flatten)]
    pub mark: Mark,
    /// The file's size, and the time of its last write in nanoseconds, when it was last seen.
    pub len: u64,
    pub mtime: i64,
    /// Read to its end, and not written for the quiet time.
    pub done: bool,
}

/// A place in a part's bytes (after decompression), and what tells that the bytes before it are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Where the first unread line starts.
    pub at: u64,
    /// FNV-1a of the first `head_bytes` bytes, at most [`HEAD`].
    pub head: u64,
    pub head_bytes: u64,
    /// FNV-1a of the `tail_bytes` bytes before `at`, at most [`TAIL`].
    pub tail: u64,
    pub tail_bytes: u64,
}

impl Mark {
    /// `head` begins at the part's start, `tail` ends at `at`; both may be longer than needed.
    pub fn new(at: u64, head: &[u8], tail: &[u8]) -> Self {
        let limit = |limit: usize| usize::try_from(at).unwrap_or(usize::MAX).min(limit);
        let head = head.get(..limit(HEAD)).unwrap_or(head);
        let tail = tail.get(tail.len().saturating_sub(limit(TAIL))..).unwrap_or(tail);
        Self { at, head: fnv1a(head), head_bytes: head.len() as u64, tail: fnv1a(tail), tail_bytes: tail.len() as u64 }
    }

    /// Whether a part with these first bytes and these bytes before [`Self::at`] is the one that was read.
    pub fn fits(&self, head: &[u8], tail: &[u8]) -> bool {
        let count = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let head = head.get(..count(self.head_bytes));
        let tail = tail.len().checked_sub(count(self.tail_bytes)).and_then(|from| tail.get(from..));
        head.is_some_and(|head| fnv1a(head) == self.head) && tail.is_some_and(|tail| fnv1a(tail) == self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scripts of `infra/instance` look for these keys in the text.
    #[test]
    fn inode_and_offset_are_there_once() {
        let part = PartState { dev: 3, ino: 7, mark: Mark::new(9, b"{}\n", b"{}\n"), len: 9, mtime: 1, done: true };
        let checkpoint = Checkpoint { inode: 7, offset: 9, head: 1, head_bytes: 9, parts: vec![part, part] };
        let text = serde_json::to_string(&checkpoint).unwrap_or_default();
        assert!(text.starts_with(r#"{"inode":7,"offset":9,"#), "{text}");
        for key in ["\"inode\":", "\"offset\":"] {
            assert_eq!(text.matches(key).count(), 1, "{text}");
        }
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).ok(), Some(checkpoint));
        let older: Result<Checkpoint, _> = serde_json::from_str(r#"{"inode":1,"offset":2,"head":3,"head_bytes":2}"#);
        assert_eq!(older.ok().map(|older| older.parts), Some(Vec::new()));
    }

    #[test]
    fn equal_beginnings_are_told_apart() {
        let head = [b'x'; HEAD];
        let mark = Mark::new(100_000, &head, b"one\n");
        assert!(mark.fits(&head, b"...one\n"));
        assert!(!mark.fits(&head, b"...two\n") && !mark.fits(&head[1..], b"one\n") && !mark.fits(&head, b"e\n"));
    }
}
