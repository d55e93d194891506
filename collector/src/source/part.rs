//! One part of a log, as the follower knows it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::folder::Entry;
use super::log_file::LogFile;
use crate::checkpoint::{Mark, PartState};

/// A part whose file exists, or is still open.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) entry: Entry,
    /// The end of the lines that were returned.
    pub(super) mark: Mark,
    pub(super) file: Option<LogFile>,
    /// Read to its end, and not written for the quiet time.
    pub(super) done: bool,
    /// Has no name any more; only the open file is left.
    pub(super) unlinked: bool,
    /// The last read found no more.
    pub(super) at_end: bool,
    /// When it was last seen to change.
    pub(super) changed: Instant,
    /// It waits until that part ends.
    pub(super) copy_of: Option<CopyOf>,
}

/// An open part whose first bytes another one repeats.
#[derive(Debug, Clone, Copy)]
pub(super) struct CopyOf {
    /// Device and inode.
    pub(super) id: (u64, u64),
    /// Bytes of the lines that both have.
    pub(super) lines: u64,
}

/// What was read of a part whose file is gone, or has other bytes now. A copy of the file continues it.
#[derive(Debug)]
pub(super) struct Detached {
    pub(super) ino: u64,
    pub(super) mark: Mark,
    pub(super) len: u64,
    /// Nothing of it is unread, or that was reported.
    pub(super) done: bool,
    /// The file exists, with other bytes.
    pub(super) rewritten: bool,
}

impl Part {
    pub(super) fn new(entry: Entry, file: Option<LogFile>) -> Self {
        let mark = file.as_ref().map_or_else(|| Mark::new(0, &[], &[]), LogFile::mark);
        let changed = Instant::now();
        Self { entry, mark, file, done: false, unlinked: false, at_end: false, changed, copy_of: None }
    }

    /// As a checkpoint has it.
    pub(super) fn of_state(state: &PartState) -> Self {
        let PartState { dev, ino, len, mtime, .. } = *state;
        let entry = Entry { name: PathBuf::new(), dev, ino, len, mtime, packing: None, live: false };
        Self { mark: state.mark, done: state.done, ..Self::new(entry, None) }
    }

    pub(super) fn state(&self) -> PartState {
        let Entry { dev, ino, len, mtime, .. } = self.entry;
        PartState { dev, ino, mark: self.mark, len, mtime, done: self.done }
    }

    pub(super) fn id(&self) -> (u64, u64) {
        (self.entry.dev, self.entry.ino)
    }

    /// Whether this is the part's file, as far as its numbers say. An older release kept no device.
    pub(super) fn is_at(&self, entry: &Entry) -> bool {
        self.entry.ino == entry.ino && (self.entry.dev == 0 || self.entry.dev == entry.dev)
    }

    /// Takes over what the folder says.
    pub(super) fn seen(&mut self, entry: &Entry) {
        if (self.entry.len, self.entry.mtime) != (entry.len, entry.mtime) {
            self.changed = Instant::now();
            (self.done, self.at_end) = (false, false);
        }
        self.entry = entry.clone();
        self.unlinked = false;
    }

    /// Opens the file where reading ended. False if the file has other bytes, or another has its name by now.
    pub(super) fn open(&mut self) -> io::Result<bool> {
        let mut file = open(&self.entry)?;
        let fits = match &mut file {
            Some(file) => file.resume(&self.mark)?,
            None => false,
        };
        if fits {
            self.file = file;
        }
        Ok(fits)
    }

    /// Takes over the position of the open file.
    pub(super) fn advance(&mut self) {
        if let Some(file) = &self.file {
            self.mark = file.mark();
        }
    }

    /// Whether nothing wrote to it for that long. A file without a name is not seen again once it is closed, so the time of
    /// its last write alone does not count.
    pub(super) fn is_quiet(&self, time: Duration) -> bool {
        let since_write = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
            now.checked_sub(Duration::from_nanos(u64::try_from(self.entry.mtime).ok()?))
        };
        self.entry.packing.is_some()
            || self.changed.elapsed() >= time
            || (!self.unlinked && since_write().is_some_and(|age| age >= time))
    }

    /// Read to its end and closed, to be opened again when it grows.
    pub(super) fn rests(&self) -> bool {
        self.file.is_none() && self.at_end && !self.done
    }

    pub(super) fn is_unread(&self) -> bool {
        !self.done && self.copy_of.is_none() && (!self.at_end || self.mark.at < self.entry.len)
    }

    pub(super) fn detach(self, rewritten: bool) -> Detached {
        let Entry { ino, len, .. } = self.entry;
        Detached { ino, mark: self.mark, len, done: self.done, rewritten }
    }
}

impl Detached {
    pub(super) fn of_state(state: &PartState) -> Self {
        let PartState { mark, len, done, .. } = *state;
        Self { ino: 0, mark, len, done, rewritten: false }
    }

    pub(super) fn state(&self) -> PartState {
        PartState { dev: 0, ino: 0, mark: self.mark, len: self.len, mtime: 0, done: self.done }
    }
}

/// None if another file has the name by now.
pub(super) fn open(entry: &Entry) -> io::Result<Option<LogFile>> {
    let file = match LogFile::open(&entry.name, entry.packing) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let data = file.metadata()?;
    Ok(Some(file).filter(|_| (data.dev(), data.ino()) == (entry.dev, entry.ino)))
}
