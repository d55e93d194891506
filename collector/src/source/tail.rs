//! Follows a log through rotation by rename, truncation and restarts. It reads no further than the caller asks: unread
//! lines stay in the file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use super::log_file::{Line, LogFile};
use crate::checkpoint::Checkpoint;
use crate::report::Notice;

/// How long a renamed file must stay unchanged before the next is read: Envoy writes to it until it reopens its logs.
const QUIET: Duration = Duration::from_secs(1);
/// Extensions of files that share the log's name and are not rotated logs.
const NOT_LOGS: [&str; 7] = ["gz", "zst", "bz2", "xz", "json", "jsonl", "tmp"];

/// The result of one poll.
#[derive(Debug, Default)]
pub struct Polled {
    pub lines: Vec<Line>,
    pub notices: Vec<Notice>,
}

#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    open: Option<LogFile>,
    /// Where to start; None once a file is open.
    resume: Option<Checkpoint>,
}

/// A rotated log. Orders by the time of its last write.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rotated {
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    inode: u64,
    name: PathBuf,
}

impl Tail {
    /// Reads `path` from the checkpoint on, or from its start.
    pub fn new(path: &Path, resume: Option<Checkpoint>) -> Self {
        Self { path: path.to_owned(), open: None, resume }
    }

    /// The end of the lines returned so far. None before a file was opened.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.open.as_ref().map(LogFile::checkpoint)
    }

    /// Up to `max` complete lines. No lines, and no error, if the file does not exist yet.
    pub fn poll(&mut self, max: usize) -> io::Result<Polled> {
        let mut polled = Polled::default();
        if self.open.is_none() {
            self.open = self.find(&mut polled)?;
        }
        let Some(open) = self.open.as_mut() else {
            return Ok(polled);
        };
        if open.was_rewritten()? {
            polled.notices.push(Notice::Truncated { offset: open.checkpoint().offset });
            open.restart();
        }
        open.read_lines(max, &mut polled.lines)?;
        if polled.lines.is_empty() {
            self.follow_rotation(&mut polled)?;
        } else {
            open.quiet_since = None;
        }
        Ok(polled)
    }

    /// Opens the checkpoint's file, which may have been renamed; without a checkpoint, the log.
    fn find(&mut self, polled: &mut Polled) -> io::Result<Option<LogFile>> {
        let Some(resume) = self.resume else {
            return LogFile::open(&self.path);
        };
        let live = LogFile::open(&self.path)?;
        let mut truncated = false;
        for name in std::iter::once(self.path.clone()).chain(self.rotated()?.into_iter().map(|rotated| rotated.name)) {
            let Some(mut open) = LogFile::open(&name)? else {
                continue;
            };
            if open.inode != resume.inode {
                continue;
            }
            if open.resume(resume)? {
                self.resume = None;
                return Ok(Some(open));
            }
            truncated |= name == self.path;
        }
        // Report a gap only once there is a log to read: until then the checkpoint's file may still appear.
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

    /// Opens the next file if this one was renamed, is read to its end and is quiet.
    fn follow_rotation(&mut self, polled: &mut Polled) -> io::Result<()> {
        let Some(open) = self.open.as_mut() else {
            return Ok(());
        };
        let live = match fs::metadata(&self.path) {
            Ok(live) => live,
            // Renamed, and the new file does not exist yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if live.ino() == open.inode || open.quiet_since.get_or_insert_with(Instant::now).elapsed() < QUIET {
            return Ok(());
        }
        if open.has_unfinished_line() {
            polled.lines.push(open.skip_unfinished_line());
            return Ok(());
        }
        let (offset, inode, since) = (open.checkpoint().offset, open.inode, modified(&open.file.metadata()?));
        // Several rotations may have happened while the store was down: take the oldest file written after this one.
        let next = self
            .rotated()?
            .into_iter()
            .find(|next| next.modified > since && next.inode != inode && next.inode != live.ino());
        let name = next.map_or_else(|| self.path.clone(), |next| next.name);
        if let Some(next) = LogFile::open(&name)? {
            polled.notices.push(Notice::Rotated { offset });
            self.open = Some(next);
        }
        Ok(())
    }

    /// The rotated logs (`NAME.1`, `NAME-20260102` …), oldest first.
    fn rotated(&self) -> io::Result<Vec<Rotated>> {
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let name = self.path.file_name().unwrap_or_default().as_encoded_bytes().to_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let other = path.file_name().unwrap_or_default().as_encoded_bytes();
            let suffixed =
                other.strip_prefix(name.as_slice()).is_some_and(|rest| matches!(rest.first(), Some(b'.' | b'-')));
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if !suffixed || NOT_LOGS.contains(&extension) {
                continue;
            }
            match fs::metadata(&path) {
                Ok(data) if data.is_file() => {
                    found.push(Rotated { modified: modified(&data), inode: data.ino(), name: path });
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
