//! Reads one growing file line by line.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::checkpoint::Checkpoint;
use crate::hash::fnv1a;

/// Bytes at a file's start that identify it.
const HEAD: u64 = 256;
/// Bytes of one read.
const CHUNK: usize = 64 * 1024;
/// Envoy's lines are a few KB. The limit keeps a foreign file from filling the memory.
const MAX_LINE: usize = 1024 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The file's path when it was opened.
    pub file: PathBuf,
    /// Where the line starts, in bytes.
    pub offset: u64,
    /// Without the newline.
    pub content: Result<Vec<u8>, BadLine>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    #[error("line longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("the rotated file ends within a line")]
    Unfinished,
}

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) file: File,
    pub(super) inode: u64,
    /// Set by the caller while a renamed file has no new lines.
    pub(super) quiet_since: Option<Instant>,
    name: PathBuf,
    /// Start of the first line that was not returned.
    offset: u64,
    /// Bytes read from `offset` on, after the `skipped` ones.
    pending: Vec<u8>,
    /// Bytes discarded of a line that is too long.
    skipped: u64,
    head: u64,
    head_bytes: u64,
}

impl LogFile {
    /// None if the file does not exist.
    pub(super) fn open(name: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        Ok(Some(Self {
            file,
            inode,
            quiet_since: None,
            name: name.to_owned(),
            offset: 0,
            pending: Vec::new(),
            skipped: 0,
            head: fnv1a(&[]),
            head_bytes: 0,
        }))
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { inode: self.inode, offset: self.offset, head: self.head, head_bytes: self.head_bytes }
    }

    /// Continues at a checkpoint. False if this is not the checkpoint's file, or the file was truncated since.
    pub(super) fn resume(&mut self, checkpoint: Checkpoint) -> io::Result<bool> {
        if !self.starts_with(checkpoint.head, checkpoint.head_bytes)? || self.file.metadata()?.len() < checkpoint.offset
        {
            return Ok(false);
        }
        (self.offset, self.head, self.head_bytes) = (checkpoint.offset, checkpoint.head, checkpoint.head_bytes);
        Ok(true)
    }

    /// True if the file became shorter than what was read of it, or its first bytes changed.
    pub(super) fn was_rewritten(&self) -> io::Result<bool> {
        let read = self.offset + self.skipped + self.pending.len() as u64;
        Ok(self.file.metadata()?.len() < read || !self.starts_with(self.head, self.head_bytes)?)
    }

    pub(super) fn restart(&mut self) {
        self.offset = 0;
        self.skipped = 0;
        self.pending.clear();
        (self.head, self.head_bytes) = (fnv1a(&[]), 0);
    }

    /// Appends up to `max` complete lines. Blank lines are passed over.
    pub(super) fn read_lines(&mut self, max: usize, lines: &mut Vec<Line>) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        // Pending bytes known to hold no newline.
        let mut searched = 0;
        while lines.len() < max {
            let rest = self.pending.get(searched..).unwrap_or_default();
            if let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
                let mut content: Vec<u8> = self.pending.drain(..=searched + at).collect();
                searched = 0;
                let start = self.offset;
                self.offset += self.skipped + content.len() as u64;
                content.pop();
                let too_long = std::mem::take(&mut self.skipped) > 0;
                if too_long || !content.iter().all(u8::is_ascii_whitespace) {
                    let content = if too_long { Err(BadLine::TooLong) } else { Ok(content) };
                    lines.push(Line { file: self.name.clone(), offset: start, content });
                }
                continue;
            }
            searched = self.pending.len();
            if self.pending.len() > MAX_LINE {
                self.skipped += self.pending.len() as u64;
                self.pending.clear();
                searched = 0;
            }
            let at = self.offset + self.skipped + self.pending.len() as u64;
            let count = match self.file.read_at(&mut buffer, at) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if count == 0 {
                break;
            }
            self.pending.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
        self.extend_head()
    }

    pub(super) fn has_unfinished_line(&self) -> bool {
        !self.pending.is_empty() || self.skipped > 0
    }

    /// Skips the unfinished line at the end of a file that nothing writes to any more.
    pub(super) fn skip_unfinished_line(&mut self) -> Line {
        let start = self.offset;
        self.offset += self.skipped + self.pending.len() as u64;
        self.skipped = 0;
        self.pending.clear();
        Line { file: self.name.clone(), offset: start, content: Err(BadLine::Unfinished) }
    }

    fn starts_with(&self, head: u64, head_bytes: u64) -> io::Result<bool> {
        let mut bytes = vec![0; usize::try_from(head_bytes.min(HEAD)).unwrap_or(0)];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(fnv1a(&bytes) == head),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hashes more of the file's start until the hash covers [`HEAD`] bytes.
    fn extend_head(&mut self) -> io::Result<()> {
        let bytes = self.offset.min(HEAD);
        if bytes > self.head_bytes {
            let mut head = vec![0; usize::try_from(bytes).unwrap_or(0)];
            self.file.read_exact_at(&mut head, 0)?;
            (self.head, self.head_bytes) = (fnv1a(&head), bytes);
        }
        Ok(())
    }
}
