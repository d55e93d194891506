//! Reads one part of a log line by line.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::{Content, Packing};
use crate::checkpoint::{HEAD, Mark, TAIL};

/// Bytes of one read.
const CHUNK: usize = 256 * 1024;
/// Envoy's lines are a few KB. The limit keeps a foreign file from filling the memory.
pub(crate) const MAX_LINE: usize = 1024 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The part's path when it was opened.
    pub file: Arc<PathBuf>,
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

/// An open part.
#[derive(Debug)]
pub(super) struct LogFile {
    content: Content,
    name: Arc<PathBuf>,
    /// The first bytes that were read, at most [`HEAD`].
    head: Vec<u8>,
    /// Up to [`TAIL`] bytes before the first unread line, then what was read of the lines from there on.
    buffer: Vec<u8>,
    /// Where in `buffer` the first line begins that was not returned.
    start: usize,
    /// Up to where `buffer` is known to hold no newline.
    searched: usize,
    /// The offset of `start`.
    offset: u64,
    /// The start of a line that is too long, while its bytes are discarded.
    long: Option<Mark>,
}

impl LogFile {
    /// Positioned at the part's start.
    pub(super) fn open(name: &Path, packing: Option<Packing>) -> io::Result<Self> {
        Ok(Self {
            content: Content::open(name, packing)?,
            name: Arc::new(name.to_owned()),
            head: Vec::new(),
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            offset: 0,
            long: None,
        })
    }

    pub(super) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.content.metadata()
    }

    /// The end of the lines returned so far.
    pub(super) fn mark(&self) -> Mark {
        let before = self.buffer.get(..self.start).unwrap_or_default();
        self.long.unwrap_or_else(|| Mark::new(self.offset, &self.head, before))
    }

    /// Continues at a mark. False if the bytes before it are others; the position is undefined then.
    pub(super) fn resume(&mut self, mark: &Mark) -> io::Result<bool> {
        if !self.seek(mark.at)? {
            return Ok(false);
        }
        let before = self.buffer.get(..self.start).unwrap_or_default();
        Ok(mark.fits(&self.head, before))
    }

    /// Continues where a line starts. False if the part is shorter.
    pub(super) fn position(&mut self, at: u64) -> io::Result<bool> {
        self.seek(at)
    }

    /// Sets the position. A compressed part only goes forward. False if the part is shorter.
    fn seek(&mut self, at: u64) -> io::Result<bool> {
        let count = |limit: usize| usize::try_from(at).unwrap_or(usize::MAX).min(limit);
        if let Content::Plain(_) = self.content {
            let Some(head) = self.content.exact(count(HEAD), 0)? else { return Ok(false) };
            let tail = count(TAIL);
            let Some(before) = self.content.exact(tail, at - tail as u64)? else { return Ok(false) };
            (self.head, self.buffer, self.start, self.searched) = (head, before, tail, tail);
            (self.offset, self.long) = (at, None);
            return Ok(true);
        }
        while self.end() < at {
            self.pass_over(self.buffer.len());
            if !self.fill()? {
                return Ok(false);
            }
        }
        let ahead = at.checked_sub(self.offset).and_then(|ahead| usize::try_from(ahead).ok());
        let Some(ahead) = ahead else { return Ok(false) };
        self.pass_over(self.start + ahead);
        self.searched = self.start;
        Ok(true)
    }

    /// True if the part became shorter than what was read of it, or other bytes are in their place.
    pub(super) fn was_rewritten(&self) -> io::Result<bool> {
        if !matches!(self.content, Content::Plain(_)) {
            return Ok(false);
        }
        let (end, tail) = (self.end(), self.buffer.len().min(TAIL));
        let last = self.buffer.get(self.buffer.len() - tail..).unwrap_or_default();
        let same = |bytes: &[u8], offset| {
            Ok::<_, io::Error>(self.content.exact(bytes.len(), offset)?.as_deref() == Some(bytes))
        };
        Ok(!same(&self.head, 0)? || !same(last, end - tail as u64)?)
    }

    /// Up to where the first `count` bytes of both parts are the same, as far as their first and last bytes show.
    pub(super) fn is_same_up_to(&self, other: &Self, count: u64) -> io::Result<bool> {
        let bytes = |limit: usize| usize::try_from(count).unwrap_or(usize::MAX).min(limit);
        for (length, offset) in [(bytes(HEAD), 0), (bytes(TAIL), count - bytes(TAIL) as u64)] {
            let (own, others) = (self.content.exact(length, offset)?, other.content.exact(length, offset)?);
            if own.is_none() || own != others {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where the last line begins that begins at or before `at`: behind the last newline. A plain part's.
    pub(super) fn line_start(&self, at: u64) -> io::Result<u64> {
        let mut end = at;
        while end > 0 {
            let count = usize::try_from(end).unwrap_or(usize::MAX).min(CHUNK);
            let from = end - count as u64;
            let bytes = self.content.exact(count, from)?.unwrap_or_default();
            if let Some(newline) = bytes.iter().rposition(|&byte| byte == b'\n') {
                return Ok(from + newline as u64 + 1);
            }
            end = from;
        }
        Ok(0)
    }

    /// Appends up to `max` complete lines. Blank lines are passed over.
    pub(super) fn read_lines(&mut self, max: usize, lines: &mut Vec<Line>) -> io::Result<()> {
        while lines.len() < max {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(newline) = rest.iter().position(|&byte| byte == b'\n') else {
                self.searched = self.buffer.len();
                if self.buffer.len() - self.start > MAX_LINE {
                    let mark = self.mark();
                    self.long.get_or_insert(mark);
                    self.pass_over(self.buffer.len());
                }
                if !self.fill()? {
                    return Ok(());
                }
                continue;
            };
            let (start, end) = (self.offset, self.searched + newline);
            let content = self.buffer.get(self.start..end).unwrap_or_default();
            let line = match self.long.take() {
                Some(mark) => Some((mark.at, Err(BadLine::TooLong))),
                None if content.iter().all(u8::is_ascii_whitespace) => None,
                None => Some((start, Ok(content.to_vec()))),
            };
            self.pass_over(end + 1);
            self.searched = self.start;
            if let Some((offset, content)) = line {
                lines.push(Line { file: Arc::clone(&self.name), offset, content });
            }
        }
        Ok(())
    }

    pub(super) fn has_unfinished_line(&self) -> bool {
        self.start < self.buffer.len() || self.long.is_some()
    }

    /// Skips the unfinished line at the end of a part that nothing writes to any more.
    pub(super) fn skip_unfinished_line(&mut self) -> Line {
        let offset = self.long.take().map_or(self.offset, |mark| mark.at);
        self.pass_over(self.buffer.len());
        self.searched = self.start;
        Line { file: Arc::clone(&self.name), offset, content: Err(BadLine::Unfinished) }
    }

    /// The offset behind what was read.
    fn end(&self) -> u64 {
        self.offset + (self.buffer.len() - self.start) as u64
    }

    /// Takes the bytes of `buffer` before `to` as read.
    fn pass_over(&mut self, to: usize) {
        self.offset += (to - self.start) as u64;
        self.start = to;
    }

    /// Reads more. False at the part's end.
    fn fill(&mut self) -> io::Result<bool> {
        // Bytes before the tail are needed no more.
        let spare = self.start.saturating_sub(TAIL);
        self.buffer.drain(..spare);
        self.start -= spare;
        self.searched = self.searched.saturating_sub(spare);
        let (end, length) = (self.end(), self.buffer.len());
        self.buffer.resize(length + CHUNK, 0);
        let result = self.content.read(self.buffer.get_mut(length..).unwrap_or_default(), end);
        self.buffer.truncate(length + result.as_ref().copied().unwrap_or(0));
        if end == self.head.len() as u64 {
            let new = self.buffer.get(length..).unwrap_or_default();
            self.head.extend_from_slice(new.get(..HEAD - self.head.len()).unwrap_or(new));
        }
        let more = result? > 0;
        if !more {
            self.buffer.shrink_to(2 * TAIL);
        }
        Ok(more)
    }
}
