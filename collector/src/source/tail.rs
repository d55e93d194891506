//! Reads a growing log line by line, through rotation by rename, truncation and restarts. It does no more than a caller
//! asks for: what was not asked for stays in the file, which is thereby the buffer.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::hash::fnv1a;
use crate::report::Notice;

/// Bytes of a file's beginning that tell it from another one which got the same inode.
const HEAD: u64 = 256;
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// The longest line kept. Envoy's own are a few KB; a file of something else must not fill the memory.
const MAX_LINE: usize = 1024 * 1024;
/// How long a renamed file must be quiet before the next is read: Envoy writes to it until it is told to reopen.
const QUIET: Duration = Duration::from_secs(1);
/// Names in a log's folder that are not its older parts.
const NOT_LOGS: [&str; 7] = ["gz", "zst", "bz2", "xz", "json", "jsonl", "tmp"];

/// How far a log was read, as it is stored with the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The file's inode.
    pub inode: u64,
    /// Bytes read: the start of the first line that was not.
    pub offset: u64,
    /// [`fnv1a`] of the file's first `head_bytes` bytes: inodes are given out again.
    pub head: u64,
    /// How many bytes `head` covers: the first 256, or what there was.
    pub head_bytes: u64,
}

/// One line, or what stands for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The file's name at that time.
    pub file: PathBuf,
    /// Where the line starts.
    pub offset: u64,
    /// Its bytes without the newline.
    pub content: Result<Vec<u8>, BadLine>,
}

/// Why there is no line to decode.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// Longer than 1 MiB.
    #[error("line longer than {MAX_LINE} bytes")]
    TooLong,
    /// The file was rotated away and ends without a newline.
    #[error("the rotated file ends within a line")]
    Unfinished,
}

/// What one reading gave.
#[derive(Debug, Default)]
pub struct Polled {
    /// Lines in their order, as many as asked for at most.
    pub lines: Vec<Line>,
    /// What happened to the log.
    pub notices: Vec<Notice>,
}

/// A log that is being read.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    open: Option<Open>,
    resume: Option<Checkpoint>,
}

/// An older part of a log. They sort by the time of their last write.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Older {
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    inode: u64,
    name: PathBuf,
}

#[derive(Debug)]
struct Open {
    file: File,
    name: PathBuf,
    inode: u64,
    /// Start of the first line that was not handed out.
    offset: u64,
    /// What was read from `offset` on.
    pending: Vec<u8>,
    /// The line at `offset` is too long: `skipped` of its bytes were read and let go.
    skipped: u64,
    head: u64,
    head_bytes: u64,
    quiet_since: Option<Instant>,
}

// === impl Tail ===

impl Tail {
    /// Reads `path` from `resume` on; from its beginning where there is none.
    pub fn new(path: &Path, resume: Option<Checkpoint>) -> Self {
        Self { path: path.to_owned(), open: None, resume }
    }

    /// How far the lines handed out reach.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let open = self.open.as_ref()?;
        Some(Checkpoint { inode: open.inode, offset: open.offset, head: open.head, head_bytes: open.head_bytes })
    }

    /// Up to `max` complete lines. None means that there is nothing to read now; that the file does not exist (yet) is
    /// no error either.
    ///
    /// # Errors
    /// What the file system says.
    pub fn poll(&mut self, max: usize) -> io::Result<Polled> {
        let mut polled = Polled::default();
        if self.open.is_none() {
            self.open = self.find(&mut polled)?;
        }
        let Some(open) = self.open.as_mut() else {
            return Ok(polled);
        };
        if open.was_rewritten()? {
            polled.notices.push(Notice::Truncated { offset: open.offset });
            open.start_again();
        }
        open.read_lines(max, &mut polled.lines)?;
        if polled.lines.is_empty() {
            self.follow_rotation(&mut polled)?;
        } else {
            open.quiet_since = None;
        }
        Ok(polled)
    }

    /// The file to start with: the checkpoint's, under whatever name it has now.
    fn find(&mut self, polled: &mut Polled) -> io::Result<Option<Open>> {
        let Some(resume) = self.resume else {
            return open_or_none(&self.path);
        };
        let live = open_or_none(&self.path)?;
        let mut truncated = false;
        for name in std::iter::once(self.path.clone()).chain(self.older()?.into_iter().map(|older| older.name)) {
            let Some(mut open) = open_or_none(&name)? else {
                continue;
            };
            if open.inode != resume.inode {
                continue;
            }
            if open.starts_with(resume.head, resume.head_bytes)? && open.file.metadata()?.len() >= resume.offset {
                self.resume = None;
                (open.offset, open.head, open.head_bytes) = (resume.offset, resume.head, resume.head_bytes);
                return Ok(Some(open));
            }
            truncated |= name == self.path;
        }
        // Nothing under this name yet: it may still come, and until then nothing is known to be lost.
        if live.is_some() {
            self.resume = None;
            polled.notices.push(if truncated {
                Notice::Truncated { offset: resume.offset }
            } else {
                Notice::Gone { inode: resume.inode, offset: resume.offset }
            });
        }
        Ok(live)
    }

    /// Goes on to the next file where this one was renamed away, is read to its end and quiet.
    fn follow_rotation(&mut self, polled: &mut Polled) -> io::Result<()> {
        let Some(open) = self.open.as_mut() else {
            return Ok(());
        };
        let live = match fs::metadata(&self.path) {
            Ok(live) => live,
            // Renamed, and the new one is not there yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if live.ino() == open.inode || open.quiet_since.get_or_insert_with(Instant::now).elapsed() < QUIET {
            return Ok(());
        }
        if !open.pending.is_empty() || open.skipped > 0 {
            polled.lines.push(open.unfinished());
            return Ok(());
        }
        let (offset, inode, since) = (open.offset, open.inode, modified(&open.file.metadata()?));
        // Several rotations may have passed while the store was down: the next is the oldest that was written after this.
        let next = self
            .older()?
            .into_iter()
            .find(|next| next.modified > since && next.inode != inode && next.inode != live.ino());
        let name = next.map_or_else(|| self.path.clone(), |next| next.name);
        if let Some(next) = open_or_none(&name)? {
            polled.notices.push(Notice::Rotated { offset });
            self.open = Some(next);
        }
        Ok(())
    }

    /// The log's older parts (`NAME.1`, `NAME-20260102` …), the oldest first.
    fn older(&self) -> io::Result<Vec<Older>> {
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let name = self.path.file_name().unwrap_or_default().as_encoded_bytes().to_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let other = path.file_name().unwrap_or_default().as_encoded_bytes();
            let part =
                other.strip_prefix(name.as_slice()).is_some_and(|rest| matches!(rest.first(), Some(b'.' | b'-')));
            let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
            if !part || NOT_LOGS.contains(&kind) {
                continue;
            }
            match fs::metadata(&path) {
                Ok(data) if data.is_file() => {
                    found.push(Older { modified: modified(&data), inode: data.ino(), name: path })
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        found.sort();
        Ok(found)
    }
}

fn modified(data: &fs::Metadata) -> (i64, i64) {
    (data.mtime(), data.mtime_nsec())
}

fn open_or_none(name: &Path) -> io::Result<Option<Open>> {
    let file = match File::open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let inode = file.metadata()?.ino();
    Ok(Some(Open {
        file,
        name: name.to_owned(),
        inode,
        offset: 0,
        pending: Vec::new(),
        skipped: 0,
        head: fnv1a(&[]),
        head_bytes: 0,
        quiet_since: None,
    }))
}

// === impl Open ===

impl Open {
    fn starts_with(&self, head: u64, head_bytes: u64) -> io::Result<bool> {
        let mut bytes = vec![0; usize::try_from(head_bytes.min(HEAD)).unwrap_or(0)];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(fnv1a(&bytes) == head),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the file is not the one that was read so far: shorter, or with another beginning.
    fn was_rewritten(&self) -> io::Result<bool> {
        let read = self.offset + self.skipped + self.pending.len() as u64;
        Ok(self.file.metadata()?.len() < read || !self.starts_with(self.head, self.head_bytes)?)
    }

    fn start_again(&mut self) {
        self.offset = 0;
        self.skipped = 0;
        self.pending.clear();
        (self.head, self.head_bytes) = (fnv1a(&[]), 0);
    }

    fn read_lines(&mut self, max: usize, lines: &mut Vec<Line>) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        // Where the pending bytes were already searched for a newline.
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
                // An empty line says nothing, so nothing is missing.
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
        self.remember_head()
    }

    /// Takes the head anew while there is more of it to know.
    fn remember_head(&mut self) -> io::Result<()> {
        let bytes = self.offset.min(HEAD);
        if bytes > self.head_bytes {
            let mut head = vec![0; usize::try_from(bytes).unwrap_or(0)];
            self.file.read_exact_at(&mut head, 0)?;
            (self.head, self.head_bytes) = (fnv1a(&head), bytes);
        }
        Ok(())
    }

    /// What stands for the rest of a file that nobody will finish.
    fn unfinished(&mut self) -> Line {
        let start = self.offset;
        self.offset += self.skipped + self.pending.len() as u64;
        self.skipped = 0;
        self.pending.clear();
        Line { file: self.name.clone(), offset: start, content: Err(BadLine::Unfinished) }
    }
}
