//! Follows a log through rotation by rename, creation, copy and truncation, compression and restarts. It reads no further
//! than the caller asks: unread lines stay in the files.
//!
//! Every file of the folder that is a part of the log is read once. A part is known by device and inode, and by hashes of
//! its first bytes and of those before the first unread line, since an inode is used again and two parts may begin alike.
//! By the hashes alone a copy of a part (`copytruncate`, gzip) is known, and continued where reading of the part ended.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::folder::{self, Entry};
use super::log_file::{Line, LogFile};
use super::part::{self, CopyOf, Detached, Part};
use crate::checkpoint::{Checkpoint, Mark, PartState};
use crate::report::Notice;

/// Most files that are open at a time.
const MAX_OPEN: usize = 128;
/// Most parts that are gone and remembered, for copies of them that may appear.
const MAX_DETACHED: usize = 32;

/// The result of one poll.
#[derive(Debug, Default)]
pub struct Polled {
    pub lines: Vec<Line>,
    pub notices: Vec<Notice>,
}

/// How long the follower waits.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Between two looks at the folder.
    pub scan: Duration,
    /// Until a compressed file that does not change is complete.
    pub settle: Duration,
    /// Until a rotated part that does not change is closed. Envoy writes to it until it reopens its logs. A part that still
    /// has a name is opened again when it grows; of one without, later lines are lost.
    pub quiet: Duration,
}

#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    times: Times,
    /// Oldest first, the live file last.
    parts: Vec<Part>,
    detached: Vec<Detached>,
    scanned: Option<Instant>,
    /// Compressed files that may not be complete: size, time of the last write, and since when these are so.
    arriving: HashMap<(u64, u64), (u64, i64, Instant)>,
    /// Files that are not read, with the reason, to report each once.
    reported: HashMap<PathBuf, String>,
    /// The inode of an older release's checkpoint, which had read all that was older.
    upgraded: Option<u64>,
    /// Something else has the log's name: a folder, say.
    not_a_file: bool,
}

impl Default for Times {
    fn default() -> Self {
        let (scan, settle) = (Duration::from_millis(200), Duration::from_secs(1));
        Self { scan, settle, quiet: Duration::from_secs(600) }
    }
}

impl Tail {
    /// Reads `path` and its rotated parts from the checkpoint on, or from their starts.
    pub fn new(path: &Path, resume: Option<Checkpoint>) -> Self {
        Self::with_times(path, resume, Times::default())
    }

    pub fn with_times(path: &Path, resume: Option<Checkpoint>, times: Times) -> Self {
        let mut tail = Self {
            path: path.to_owned(),
            times,
            parts: Vec::new(),
            detached: Vec::new(),
            scanned: None,
            arriving: HashMap::new(),
            reported: HashMap::new(),
            upgraded: None,
            not_a_file: false,
        };
        let Some(Checkpoint { inode, offset, head, head_bytes, parts }) = resume else { return tail };
        if parts.is_empty() {
            let mark = Mark { head, head_bytes, ..Mark::new(offset, &[], &[]) };
            let state = PartState { dev: 0, ino: inode, mark, len: offset, mtime: 0, done: false };
            tail.parts.push(Part::of_state(&state));
            tail.upgraded = Some(inode);
        }
        for state in &parts {
            if state.ino == 0 {
                tail.detached.push(Detached::of_state(state));
            } else {
                tail.parts.push(Part::of_state(state));
            }
        }
        tail
    }

    /// The end of the lines returned so far. None before a file was opened.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.scanned?;
        let current = self.parts.iter().find(|part| part.is_unread());
        let current = current.or_else(|| self.parts.iter().rfind(|part| part.mark.at > 0)).or(self.parts.last())?;
        let Mark { at: offset, head, head_bytes, .. } = current.mark;
        // A start compares copies anew.
        let parts = self.parts.iter().filter(|part| part.copy_of.is_none()).map(Part::state);
        let parts = parts.chain(self.detached.iter().map(Detached::state)).collect();
        Some(Checkpoint { inode: current.entry.ino, offset, head, head_bytes, parts })
    }

    /// The number of open files.
    pub fn open_parts(&self) -> usize {
        self.parts.iter().filter(|part| part.file.is_some()).count()
    }

    /// Up to `max` complete lines. No lines, and no error, if the log does not exist yet.
    pub fn poll(&mut self, max: usize) -> io::Result<Polled> {
        let mut polled = Polled::default();
        if self.scanned.is_none_or(|at| at.elapsed() >= self.times.scan) {
            self.scan(&mut polled)?;
        }
        let mut at = 0;
        while at < self.parts.len() && polled.lines.len() < max {
            if self.read(at, max, &mut polled)? {
                at += 1;
            }
        }
        // After what the rotated parts still have.
        if self.not_a_file && polled.lines.is_empty() && polled.notices.is_empty() {
            return Err(io::Error::other("it is not a file"));
        }
        Ok(polled)
    }

    /// Reads lines of a part. False if the parts were listed anew, since the file has other bytes.
    fn read(&mut self, at: usize, max: usize, polled: &mut Polled) -> io::Result<bool> {
        let Some(part) = self.parts.get_mut(at).filter(|part| part.copy_of.is_none()) else { return Ok(true) };
        let Some(file) = part.file.as_mut() else { return Ok(true) };
        let before = polled.lines.len();
        let read = file.read_lines(max, &mut polled.lines).and_then(|()| file.was_rewritten());
        part.at_end = polled.lines.len() < max;
        match read {
            Ok(false) if polled.lines.len() > before => {
                part.changed = Instant::now();
                part.advance();
            }
            Ok(false) => {
                if !part.entry.live && part.is_quiet(self.times.quiet) {
                    if let Some(file) = part.file.as_mut().filter(|file| file.has_unfinished_line()) {
                        polled.lines.push(file.skip_unfinished_line());
                        part.advance();
                    }
                    let (name, offset) = (part.entry.name.clone(), part.mark.at);
                    (part.done, part.file) = (true, None);
                    polled.notices.push(Notice::Finished { name, offset });
                }
            }
            Ok(true) => {
                polled.lines.truncate(before);
                let part = self.parts.remove(at);
                self.detached.push(part.detach(true));
                self.scan(polled)?;
                return Ok(false);
            }
            Err(error) => {
                let offset = part.mark.at;
                // A compressed file cannot be read on behind an error. It is read again if it changes.
                (part.done, part.at_end, part.file) = (part.entry.packing.is_some(), false, None);
                let name = part.entry.name.clone();
                self.fail(polled, &name, &format!("cannot read on at offset {offset}: {error}"));
            }
        }
        Ok(true)
    }

    /// Compares the folder with the parts that are known.
    fn scan(&mut self, polled: &mut Polled) -> io::Result<()> {
        let listing = folder::list(&self.path)?;
        let first = self.scanned.replace(Instant::now()).is_none();
        self.not_a_file = listing.not_a_file;
        for name in &listing.ignored {
            self.fail(polled, name, "it has the log's name, and a form that is not read: its lines are not stored");
        }
        self.update(&listing.entries, first, polled);
        self.release_copies(&listing.entries, polled);
        self.take_as_read(&listing.entries, polled);
        for entry in &listing.entries {
            let known = self.parts.iter().any(|part| part.is_at(entry));
            if !known
                && (entry.live || self.may_open())
                && let Err(error) = self.add(entry, &listing.entries, polled)
            {
                self.fail(polled, &entry.name, &error.to_string());
            }
        }
        self.arriving.retain(|id, _| listing.entries.iter().any(|entry| (entry.dev, entry.ino) == *id));
        // A part may still come back, compressed or once the log exists at all.
        let patience = self.times.settle * 10;
        if self.arriving.values().all(|(.., since)| since.elapsed() > patience) && !listing.entries.is_empty() {
            for gone in self.detached.iter_mut().filter(|gone| !gone.done) {
                let (offset, inode) = (gone.mark.at, gone.ino);
                let unread = gone.len.saturating_sub(offset);
                gone.done = true;
                polled.notices.push(match gone.rewritten {
                    true => Notice::Truncated { offset },
                    false => Notice::Gone { inode, offset, unread },
                });
            }
        }
        let spare = self.detached.len().saturating_sub(MAX_DETACHED);
        self.detached.drain(..spare);
        self.parts.sort_by(|a, b| {
            (a.entry.live, a.entry.mtime, &a.entry.name).cmp(&(b.entry.live, b.entry.mtime, &b.entry.name))
        });
        Ok(())
    }

    /// Looks for each known part in the folder, and opens those that have unread lines.
    fn update(&mut self, entries: &[Entry], first: bool, polled: &mut Polled) {
        let mut open = self.parts.iter().filter(|part| part.file.is_some()).count();
        for mut part in std::mem::take(&mut self.parts) {
            let was_done = part.done;
            match entries.iter().find(|entry| part.is_at(entry)) {
                Some(entry) => {
                    part.seen(entry);
                    // Before new files are compared with it.
                    if let Some(Ok(true)) = part.file.as_ref().map(LogFile::was_rewritten) {
                        self.detached.push(part.detach(true));
                        continue;
                    }
                }
                None if part.file.is_none() => {
                    self.detached.push(part.detach(false));
                    continue;
                }
                None => {
                    if !std::mem::replace(&mut part.unlinked, true) {
                        part.changed = Instant::now();
                    }
                    part.entry.live = false;
                }
            }
            let verify = part.done && first && part.entry.packing.is_none();
            if part.rests() && part.mark.at == part.entry.len && part.is_quiet(self.times.quiet) {
                part.done = true;
            }
            if part.file.is_none() && (verify || (!part.done && !part.at_end && open < MAX_OPEN)) {
                match part.open() {
                    Ok(true) if part.done => part.file = None,
                    Ok(true) => open += 1,
                    Ok(false) => {
                        self.detached.push(Detached { done: was_done, ..part.detach(true) });
                        continue;
                    }
                    Err(error) => self.fail(polled, &part.entry.name, &error.to_string()),
                }
            }
            self.parts.push(part);
        }
    }

    /// Whether another file may be opened. If too many are, those that are read to their ends are closed.
    fn may_open(&mut self) -> bool {
        let mut open = self.parts.iter().filter(|part| part.file.is_some()).count();
        if open >= MAX_OPEN {
            for part in self.parts.iter_mut().filter(|part| {
                let finished = part.file.as_ref().is_some_and(|file| !file.has_unfinished_line());
                finished && part.at_end && part.copy_of.is_none() && !part.unlinked && !part.entry.live
            }) {
                part.file = None;
                open -= 1;
            }
        }
        open < MAX_OPEN
    }

    /// Copies wait while what they repeat is read. Compares them again, and lets those go whose original has ended.
    fn release_copies(&mut self, entries: &[Entry], polled: &mut Polled) {
        let (copies, parts): (Vec<_>, _) =
            std::mem::take(&mut self.parts).into_iter().partition(|part| part.copy_of.is_some());
        self.parts = parts;
        for mut copy in copies {
            let Some(CopyOf { id, lines }) = copy.copy_of else { continue };
            if let Some(original) = self.parts.iter().find(|part| part.id() == id) {
                // One that is not compressed may still grow, or turn out to be another file.
                let lines = match (&original.file, copy.file.as_mut()) {
                    (Some(of), Some(file)) => repeated(file, of, original.mark.at, copy.entry.len),
                    _ => Ok(lines),
                };
                if let Ok(lines) = lines
                    && lines > 0
                {
                    copy.copy_of = Some(CopyOf { id, lines });
                    copy.advance();
                    self.parts.push(copy);
                }
                continue;
            }
            // Without this it is identified anew.
            let entry = entries.iter().find(|entry| copy.is_at(entry) && entry.packing.is_none());
            let Some(entry) = entry else { continue };
            if let Ok(Some((file, gone))) = self.resume_detached(entry) {
                self.parts.push(Part::new(entry.clone(), Some(file)).resumed(gone, polled));
                continue;
            }
            // It is shorter than what was read of the original, or that was not the original's beginning. What was compared
            // before the original was truncated is known to be read, as far as the original was.
            let ended = self.detached.iter().position(|gone| gone.rewritten && !gone.done);
            let Some(ended) = ended.map(|ended| self.detached.remove(ended)) else { continue };
            let offset = lines.min(ended.mark.at);
            if let Some(Ok(true)) = copy.file.as_mut().map(|file| file.position(offset)) {
                let name = entry.name.clone();
                polled.notices.push(Notice::Continued { name, offset });
                copy.copy_of = None;
                copy.advance();
                self.parts.push(copy);
            }
        }
    }

    /// After an upgrade: the older release had read the parts that were older than its checkpoint's.
    fn take_as_read(&mut self, entries: &[Entry], polled: &mut Polled) {
        let Some(inode) = self.upgraded.take() else { return };
        let Some(current) = entries.iter().find(|entry| entry.ino == inode) else { return };
        if !self.parts.iter().any(|part| part.is_at(current)) {
            return;
        }
        for entry in entries.iter().filter(|entry| entry.mtime < current.mtime && entry.ino != inode && !entry.live) {
            let mut part = Part::new(entry.clone(), None);
            part.done = true;
            polled.notices.push(Notice::TakenAsRead { name: entry.name.clone() });
            self.parts.push(part);
        }
    }

    /// Begins to read a file that is not known.
    fn add(&mut self, entry: &Entry, entries: &[Entry], polled: &mut Polled) -> io::Result<()> {
        if entry.packing.is_some() && !self.has_arrived(entry, entries) {
            return Ok(());
        }
        if let Some((file, mark)) = self.resume_detached(entry)? {
            self.parts.push(Part::new(entry.clone(), Some(file)).resumed(mark, polled));
            return Ok(());
        }
        let Some(mut file) = part::open(entry)? else { return Ok(()) };
        let mut copy_of = None;
        if entry.packing.is_some() {
            // The original was deleted and is still open.
            let mut originals: Vec<_> = self.parts.iter().filter(|part| part.unlinked && part.mark.at > 0).collect();
            originals.sort_by_key(|part| part.mark.at);
            for part in originals {
                if file.resume(&part.mark)? {
                    copy_of = Some(CopyOf { id: part.id(), lines: part.mark.at });
                }
            }
            file = match part::open(entry)? {
                Some(file) => file,
                None => return Ok(()),
            };
        } else if !entry.live {
            // An empty file may become a copy.
            if entry.len == 0 {
                return Ok(());
            }
            for part in self.parts.iter().filter(|part| part.copy_of.is_none()) {
                let Some(of) = &part.file else { continue };
                let lines = repeated(&mut file, of, part.mark.at, entry.len)?;
                if lines > 0 {
                    copy_of = Some(CopyOf { id: part.id(), lines });
                    break;
                }
            }
        }
        if copy_of.is_none() {
            polled.notices.push(Notice::Opened { name: entry.name.clone() });
        }
        let mut part = Part::new(entry.clone(), Some(file));
        part.copy_of = copy_of;
        self.parts.push(part);
        Ok(())
    }

    /// Whether a compressed file is complete: it does not change, and what it was made of is deleted.
    fn has_arrived(&mut self, entry: &Entry, entries: &[Entry]) -> bool {
        let original = entry.name.with_extension("");
        let state = (entry.len, entry.mtime);
        let id = (entry.dev, entry.ino);
        let (len, mtime, since) = *self.arriving.entry(id).or_insert((state.0, state.1, Instant::now()));
        if (len, mtime) != state {
            self.arriving.insert(id, (state.0, state.1, Instant::now()));
            return false;
        }
        let arrived = since.elapsed() >= self.times.settle && !entries.iter().any(|entry| entry.name == original);
        if arrived {
            self.arriving.remove(&id);
        }
        arrived
    }

    /// Opens a file behind what was read of a part that is gone, if it is a copy of that part.
    fn resume_detached(&mut self, entry: &Entry) -> io::Result<Option<(LogFile, Detached)>> {
        let mut order: Vec<_> = (0..self.detached.len()).collect();
        let offset = |at: usize| self.detached.get(at).map_or(0, |gone| gone.mark.at);
        order.retain(|at| offset(*at) > 0);
        // A compressed file goes forward only.
        order.sort_by_key(|at| offset(*at));
        let mut best = None;
        let Some(mut file) = part::open(entry)? else { return Ok(None) };
        for at in order {
            if let Some(gone) = self.detached.get(at)
                && file.resume(&gone.mark)?
            {
                best = Some(at);
            }
        }
        let Some(at) = best else { return Ok(None) };
        let Some(mut file) = part::open(entry)? else { return Ok(None) };
        let gone = self.detached.remove(at);
        file.resume(&gone.mark)?;
        Ok(Some((file, gone)))
    }

    /// Reports a file that is not read, once.
    fn fail(&mut self, polled: &mut Polled, name: &Path, reason: &str) {
        if self.reported.insert(name.to_owned(), reason.to_owned()).as_deref() != Some(reason) {
            polled.notices.push(Notice::NotRead { name: name.to_owned(), reason: reason.to_owned() });
        }
    }
}

impl Part {
    /// The file is a copy of a part that is gone, and positioned behind what was read of it.
    fn resumed(mut self, gone: Detached, polled: &mut Polled) -> Self {
        self.done = gone.done && self.entry.packing.is_none() && self.entry.len == gone.mark.at;
        if self.done {
            self.file = None;
        }
        let name = self.entry.name.clone();
        polled.notices.push(Notice::Continued { name, offset: gone.mark.at });
        self
    }
}

/// The bytes of the first lines of `file`, of `len` bytes, that `of` has too. Moves `file` behind those of the
/// first `read` bytes.
fn repeated(file: &mut LogFile, of: &LogFile, read: u64, len: u64) -> io::Result<u64> {
    let common = len.min(of.metadata()?.len());
    let lines = if common == 0 { 0 } else { file.line_start(common)? };
    if lines == 0 || !file.is_same_up_to(of, common)? || !file.position(lines.min(read))? {
        return Ok(0);
    }
    Ok(lines)
}
